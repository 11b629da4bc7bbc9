"""Every page is followed: its commands run, its settings load, what it shows is printed. And twins that are wrong."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pages
import pytest
from reader import Reader, Wrong

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ELSEWHERE = {  # how commands begin that are not run here: where they are, and the words that run them there
    "make demo": ("tests/loop/test_newcomer.py", '"demo"]'),
    "headrace import": (
        "tests/cli/test_importing.py",
        '"import", "old.keras", *pairs',
    ),  # needs an empty loop and a model
    "make test": (".ci/run", "make test"),
    "make check": (".ci/run", "make check"),
    "make slow": (".ci/run", "make slow"),
}
MACHINES = {  # pages that change the machine, and who follows them on one of their own
    "docs/deploy.md": "tests/docs/test_systemd.py",
    "docs/docker.md": "tests/docs/test_docker.py",
}
FOLLOWED = [
    page
    for page in pages.pages()
    if pages.name(page) not in MACHINES and any(block.language not in pages.PRINTED for block in pages.blocks(page))
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", FOLLOWED, ids=pages.name)
def test_a_page_does_what_it_says(page: Path, folder_for: Callable[[str], Path]) -> None:
    blocks = pages.blocks(page)
    reader = Reader(folder_for(page.read_text()), ELSEWHERE)
    if page.suffix != ".md":  # a comment speaks of the files beside it
        shutil.copytree(page.parent, reader.here, dirs_exist_ok=True)
    reader.follow(blocks)
    if reader.left_out and not reader.ran:
        pytest.skip("; ".join(f"`{command.text}`: {reason}" for command, reason in reader.left_out))


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_is_not_run_here_is_on_a_page_and_runs_elsewhere(command: str) -> None:
    where, words = ELSEWHERE[command]
    assert any(one.text.startswith(command) for one in pages.shell_commands(FOLLOWED)), "remove it from ELSEWHERE"
    assert words in (pages.ROOT / where).read_text()


@pytest.mark.parametrize("page", MACHINES)
def test_a_page_that_changes_the_machine_is_followed_elsewhere(page: str) -> None:
    assert f'"{page}"' in (pages.ROOT / MACHINES[page]).read_text()


def test_pages_of_every_kind_are_found() -> None:
    found = {pages.name(page) for page in FOLLOWED}
    assert found >= {"README.md", "CONTRIBUTING.md", "docs/versions.md", "deploy/prometheus/prometheus.yml"}


def follow(folder: Path, text: str, **stays: str) -> Reader:
    page = folder / "page.md"
    page.write_text(text)
    reader = Reader(folder, ELSEWHERE, stays=stays)
    reader.follow(pages.blocks(page))
    return reader


SOUND = """\
# A page

```sh
mkdir -p a && cd a          # and stays there
HERE=$PWD
for name in one two; do
    echo "$name 17" >> names
done
cat <<END > more
$HERE
END
make demo                   # another test runs it
```

```sh
cat names \\
    more
```

```
one  9
/…/here/a
```

- in a list:

  ```python
  from pathlib import Path

  assert Path("names").read_text() == "one 17\\ntwo 17\\n"
  ```

```console
$ echo 2 > number; cat number
3
```

```sql
SELECT version, max(rows) FROM versions GROUP BY version;
```
"""


def test_a_sound_page_is_followed_to_its_end(tmp_path: Path) -> None:
    reader = follow(tmp_path, SOUND)
    assert reader.here == tmp_path / "here" / "a"
    assert (reader.here / "number").read_text() == "2\n"
    assert len(reader.ran) == 6
    assert [command.text.split()[0] for command, _ in reader.left_out] == ["make"]


@pytest.mark.parametrize(
    ("right", "wrong", "line", "says"),
    [
        ("cat names \\", "cat nomes \\", 16, "exit code 1"),
        ("mkdir -p a", "headrace stauts", 4, "No such command 'stauts'"),
        ("mkdir -p a", "nosuchtool a", 4, "exit code 127"),
        ("mkdir -p a", "useradd a", 4, "changes the machine"),
        ("mkdir -p a", "mkdir -p /opt/a", 4, "reaches out of its folder"),
        ("one  9", "three  9", 21, "not printed: three  9"),
        ('two 17\\n"', 'two 18\\n"', 28, "AssertionError"),
        ("\n3\n", "\nno number\n", 35, "not printed: no number"),
        ("GROUP BY", "GROUP OF", 39, "syntax error"),
        ("```sql", "```cobol", 39, "cobol"),
        ("```sql", "```json", 39, "JSONDecodeError"),
    ],
)
def test_a_wrong_page_fails_with_its_line(tmp_path: Path, right: str, wrong: str, line: int, says: str) -> None:
    assert right in SOUND
    with pytest.raises(Wrong, match=rf"page\.md:{line}: [\s\S]*{says}"):
        follow(tmp_path, SOUND.replace(right, wrong))


def test_settings_are_laid_over_those_in_the_folder_and_must_load(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    shutil.copy(pages.ROOT / "examples" / "flights" / "headrace.toml", tmp_path / "here")
    page = '```toml\n[serve]\nport = 8501\n\n[features]\ncarrier = { kind = "id", ttl = "30d" }\n```\n'
    reader = follow(tmp_path, page)
    told = (reader.here / "headrace.toml").read_text()
    assert '"ttl" = "30d"' in told
    assert '"carrier"' in told
    assert "8501" not in told
    with pytest.raises(Wrong, match=r"page\.md:2: [\s\S]*ports"):
        follow(tmp_path, page.replace("port =", "ports ="))


SERVER = """\
```sh
python3 -c 'import time; print("loads", flush=True); open("lives", "w"); print("ready", flush=True); time.sleep(100)' &
```

```sh
test -e lives && rm lives
```
"""


def test_a_command_that_stays_is_awaited_used_and_stopped(tmp_path: Path) -> None:
    reader = follow(tmp_path, SERVER, python3="ready")
    assert len(reader.ran) == 2
    with pytest.raises(Wrong, match=r"page\.md:2: [\s\S]*ended with exit code 1 before it was ready[\s\S]*'tome'"):
        follow(tmp_path, SERVER.replace("import time", "import tome"), python3="ready")
