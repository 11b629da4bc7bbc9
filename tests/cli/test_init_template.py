"""`headrace init --template NAME`: lists, begins, refuses; every template is short, good and the same each time."""

from __future__ import annotations

import errno
import json
import os
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from headrace import config, simulate, templates
from headrace.cli.app import run

if TYPE_CHECKING:
    from collections.abc import Iterator

UNTIL = np.datetime64("2026-01-05")
EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = 120


@pytest.fixture(scope="module", params=templates.NAMES)
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A template, and the folder in which it was begun."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(simulate, "midnight", lambda: UNTIL)
        assert run(["init", "--template", request.param]) == 0
        yield request.param, folder


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates have one event."""
    one = pa.table({"paid_at": np.array(["2026-01-01"], "datetime64[ms]")})
    monkeypatch.setattr(templates, "events", lambda _name, _until: {"events/payments.csv": one})


def test_what_a_template_writes_is_good(begun: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    name, _ = begun
    assert run(["config", "check"]) == 0
    said = capsys.readouterr()
    assert "headrace.toml: good" in said.out
    assert "LOOK" not in said.out, "nothing to wonder about in an example"
    assert config.load("headrace.toml").loop.name == name


def test_a_template_is_an_example_of_few_lines_that_says_what_it_is(begun: tuple[str, Path]) -> None:
    name, folder = begun
    copied = {file: (folder / file).read_text() for file in ("headrace.toml", "events.py")}
    assert copied == {file: (EXAMPLES / name / file).read_text() for file in copied}
    assert sum(len(text.splitlines()) for text in copied.values()) <= LINES
    question, command = templates.said(name)
    assert question.endswith("?")
    assert command.startswith("headrace backtest --every frozen,")


@pytest.mark.parametrize("name", ["ads", "fraud", "maintenance"])
def test_a_week_later_the_same_happens_a_week_later(name: str) -> None:
    week = np.timedelta64(7 * 86_400_000, "ms")
    first, second = templates.events(name, UNTIL), templates.events(name, UNTIL + week)
    assert list(first) == list(second)
    for one, other in zip(first.values(), second.values(), strict=True):
        for column in one.column_names:
            moved = pc.add(one[column], pa.scalar(week)) if pa.types.is_timestamp(one[column].type) else one[column]
            assert moved.equals(other[column]), column


def test_the_events_are_made_anew_by_the_copy(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python events.py`, after `DAYS` was changed."""
    text = (EXAMPLES / "maintenance" / "events.py").read_text()
    (empty / "events.py").write_text(text.replace("DAYS, SEED = 42, 0", "DAYS, SEED = 2, 0"))
    monkeypatch.setattr(simulate, "midnight", lambda: UNTIL)
    runpy.run_path(str(empty / "events.py"), run_name="__main__")
    readings = pq.read_table(empty / "events/readings.parquet")
    assert readings.num_rows == 2 * 8 * 120
    assert str(readings["read_at"][0]) >= "2026-01-03"


def test_without_a_name_they_are_listed(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--template"]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == list(templates.NAMES)
    assert "headrace init --template NAME" in said.err
    assert run(["init", "--template", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["templates"]
    assert listed["fraud"] == "Will this card payment be charged back?"
    assert list(empty.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_it_says_what_it_wrote_and_what_is_next(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--template", "fraud", "-c", "there/cards.toml"]) == 0
    said = capsys.readouterr().err
    assert "wrote there/events/payments.csv: 1 events" in said
    assert "  headrace backtest --every frozen,7d,1d -c there/cards.toml\n" in said
    assert sorted(path.name for path in (empty / "there").iterdir()) == ["cards.toml", "events", "events.py"]
    assert run(["init", "--template", "fraud", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": "headrace.toml",
        "template": "fraud",
        "events": {"events/payments.csv": 1},
    }


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mine", ["headrace.toml", "events.py", "events/payments.csv"])
def test_what_is_there_is_not_replaced_without_force(
    mine: str, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "events").mkdir()
    (empty / mine).write_text("mine")
    before = sorted(empty.rglob("*"))
    assert run(["init", "--template", "fraud"]) == 2
    said = capsys.readouterr().err
    assert f"error: {mine} exists already" in said
    assert "fix: add --force to replace it, or begin in an empty folder" in said
    assert sorted(empty.rglob("*")) == before
    assert (empty / mine).read_text() == "mine"
    assert run(["init", "--template", "fraud", "--force"]) == 0
    assert (empty / mine).read_text() != "mine"


@pytest.mark.parametrize(
    ("words", "part", "fix"),
    [
        (["--template", "fruad"], "there is no template 'fruad'", "did you mean 'fraud'?"),
        (["--template", "zebra"], "there is no template 'zebra'", "`headrace init --template` lists them"),
        (["fraud"], "headrace init --template fraud", "headrace init --help"),
        (["--template", "fraud", "--from", "x.csv"], "exclude each other", "headrace init --help"),
        (["--template=fraud"], "does not take a value", "headrace --help"),
    ],
)
def test_slips(words: list[str], part: str, fix: str, empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", *words]) == 2
    said = capsys.readouterr().err
    assert part in said
    assert fix in said.split("fix:")[1]
    assert list(empty.iterdir()) == []


def test_the_flights_without_their_package(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("headrace.flights.PACKAGE", "nycflights-that-is-not-here")
    assert run(["init", "--template", "flights"]) == 1
    assert 'fix: pip install "headrace[flights]"' in capsys.readouterr().err
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("begun", ["ads"], indirect=True)
def test_the_ads_learn_conversions_as_their_comments_say(
    begun: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path("headrace.toml").read_text().replace('type = "click"', 'type = "conversion"')
    for key in ("wait_s", "attribution_s"):
        text = text.replace(f"\n{key}", "\n# before: ").replace(f"\n# {key}", f"\n{key}")
    Path("conversions.toml").write_text(text)
    label = config.load("conversions.toml").label
    assert (label.wait_s, label.attribution_s) == (4 * 3_600, 3 * 86_400)
    assert run(["inspect", "-c", "conversions.toml", "--json"]) == 0
    labels = json.loads(capsys.readouterr().out)["labels"]
    assert labels["joined"] == labels["feedback"] > 300
    assert 0.5 < dict(labels["catches"])[label.wait_s] < 0.95


def test_examples_hold_the_templates_and_the_demo() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == {*templates.NAMES, "demo"}


def test_settings_that_cannot_be_written_leave_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a full disk, where a file can be made and nothing be written into it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text("mine")

    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    assert run(["init", "--force"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("headrace.toml", "mine")]
