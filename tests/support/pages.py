"""The pages that users read, as blocks and commands.

A block is a fence of a Markdown page, or the lines of a comment in `deploy/` and `examples/` that are indented by three
spaces or more, as this one is:

    # Scrapes the processes of `headrace up`. From this folder:
    #   prometheus --config.file=prometheus.yml

A block without a language, or of `text`, that follows one of commands is what these print.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from typer.main import get_command

from headrace.cli.app import build

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
SHELLS = ("sh", "bash", "shell", "console")
PRINTED = ("", "text")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n`]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
COMMENT = re.compile(r"^(?:#|//) {3,}(?P<command>\S.*)$")


@dataclass(frozen=True)
class Block:
    """A fence, or the commands of a comment. line: that of its first line, from 1."""

    page: Path
    line: int
    language: str
    text: str
    follows: bool = False  # with nothing but empty lines between it and the block before


@dataclass(frozen=True)
class Command:
    """A whole command of a block: one line, or several that belong together. printed: what the page shows below it."""

    page: Path
    line: int
    text: str
    printed: str = ""

    @property
    def words(self) -> list[str]:
        """Those of its first simple command, without variables before it.

        >>> Command(Path("a.md"), 1, "A=1 headrace status --json | jq .loop  # what").words
        ['headrace', 'status', '--json']
        """
        text = re.sub(r"\\\n|\s\d(?=[<>])", " ", self.text)
        lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
        lexer.whitespace, lexer.whitespace_split = " \t", True
        words: list[str] = []
        for word in lexer:
            if not word.strip("();<>|&\n"):
                break
            if words or not re.match(r"^\w+=", word):
                words.append(word)
        return words


def pages(root: Path = ROOT) -> list[Path]:
    """All Markdown of users and contributors, and what `deploy/` and `examples/` hold."""
    folders = ("docs", "examples", "deploy", "benchmarks")
    found = [*root.glob("*.md"), *(page for folder in folders for page in (root / folder).rglob("*.md"))]
    files = [file for folder in ("deploy", "examples") for file in (root / folder).rglob("*") if file.is_file()]
    return sorted({*found, *(file for file in files if _text(file) is not None)})


def blocks(page: Path) -> list[Block]:
    """Those of a page, in order."""
    text = _text(page) or ""
    return list(_fences(page, text) if page.suffix == ".md" else _comments(page, text))


def commands(block: Block) -> list[Command]:
    """Those of a block of a shell; in `console`, lines that begin with `$ ` are commands, the others their output."""
    if block.language == "console":
        return list(_session(block))
    found, lines = [], block.text.splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].lstrip().startswith("#"):
            at += 1
            continue
        end = next((end for end in range(at + 1, len(lines)) if _whole("\n".join(lines[at:end]))), len(lines))
        found.append(Command(block.page, block.line + at, "\n".join(lines[at:end])))
        at = end
    return found


def parse(words: Sequence[str]) -> None:
    """Reads the words behind `headrace`, down to the options, without running anything; what it cannot read raises."""
    node, context = get_command(build()), None
    while hasattr(node, "commands"):
        context = node.make_context(node.name, list(words[:1]), resilient_parsing=True)
        node, words = node.commands[words[0]], words[1:]
    node.make_context(node.name, list(words), parent=context).close()


def name(page: Path, root: Path = ROOT) -> str:
    """What a page is called in messages."""
    return str(page.relative_to(root)) if page.is_relative_to(root) else page.name


def _fences(page: Path, text: str) -> Iterator[Block]:
    end = None
    for fence in FENCE.finditer(text):
        follows = end is not None and not text[end : fence.start()].strip()
        inside = re.sub(rf"^{fence['indent']}", "", fence["text"], flags=re.MULTILINE)
        yield Block(page, text.count("\n", 0, fence.start("text")) + 1, fence["language"].lower(), inside, follows)
        end = fence.end()


def _comments(page: Path, text: str) -> Iterator[Block]:
    for number, line in enumerate(text.splitlines(), 1):
        if match := COMMENT.match(line):
            yield Block(page, number, "sh", match["command"])


def _session(block: Block) -> Iterator[Command]:
    lines = block.text.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("$ ")]
    for at, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        printed = "\n".join(lines[at + 1 : end])
        yield Command(block.page, block.line + at, lines[at].removeprefix("$ "), printed)


def _whole(text: str) -> bool:
    """Whether a shell would run this, and not wait for another line."""
    if text.rstrip(" ").endswith("\\"):
        return False
    read = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False)
    return read.returncode == 0 and "here-document" not in read.stderr


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except UnicodeDecodeError:
        return None


def shell_commands(found: Sequence[Path]) -> list[Command]:
    """Every command of these pages."""
    return [
        command for page in found for block in blocks(page) if block.language in SHELLS for command in commands(block)
    ]
