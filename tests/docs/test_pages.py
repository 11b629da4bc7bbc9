"""The pages: made of the code where they say so, commands that exist, links that lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pages
import pytest

from headrace import errors

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["logs.md", "metrics.md", "sizing.md", "troubleshooting.md"])
def test_pages_that_are_made_of_the_code_are_fresh(name):
    assert (ROOT / "docs" / name).read_text() == generator().PAGES[name](), "run `make docs`"


def kinds(root):
    for kind in root.__subclasses__():
        yield kind
        yield from kinds(kind)


@pytest.mark.parametrize("kind", list(kinds(errors.HeadraceError)), ids=lambda kind: kind.code)
def test_every_error_says_what_happened_and_what_is_next(kind):
    what, _, following = (kind.__doc__ or "").partition("Next: ")
    assert what.strip().endswith(".")
    assert following.strip()
    assert f"{kind.__name__} " in errors.__doc__
    assert kind.code in errors.__doc__ or kind.code.split(".")[0] + ".*" in errors.__doc__


def commands():
    """(page, words) of every headrace command that a page has in a block."""
    for command in pages.shell_commands(pages.pages()):
        if command.words[:1] == ["headrace"]:
            yield pytest.param(command.words[1:], id=f"{command.page.name}: {' '.join(command.words)}")


@pytest.mark.parametrize("words", list(commands()))
def test_every_command_in_the_pages_can_be_parsed(words):
    pages.parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('A=1 headrace status --json | jq ".loop"  # what', ["headrace", "status", "--json"]),
        ("headrace backtest \\\n  --every 1d,1h 2>/dev/null", ["headrace", "backtest", "--every", "1d,1h"]),
        ("cat <<END\nheadrace up\nEND", ["cat"]),
    ],
)
def test_the_words_of_a_command_end_where_the_shell_ends_it(text, words):
    assert pages.Command(ROOT, 1, text).words == words
