"""What commands say, and where: data on stdout, talk on stderr, errors in one place.

Exit codes: `EXIT_CODES`.

An error is three lines: what happened, `fix:` what to do, `code:` its name on the troubleshooting page. With `--json`
it is one object `{"error", "message", "hint", "context"}` on stdout. A HeadraceError never shows a traceback; any other
exception is a defect: it is named in one line, and its traceback is kept in a file (`--debug` prints it).
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.errors import HeadraceError


class Code(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNHEALTHY = 4
    INTERRUPTED = 130


EXIT_CODES = """\b
Exit codes:
  0    done
  1    failed; another process has the role (log.busy)
  2    usage: an option, a setting, a request that cannot be right
  3    the gate held a candidate
  4    unhealthy: damage, `config check`, `doctor`, `log verify`
  130  interrupted"""


_AS_LINES: list[bool] = []


def as_lines(on: bool) -> None:
    """Whether talk is logged (`process.said`) rather than printed: where every line of stderr must be JSON."""
    _AS_LINES[:] = [True] if on else []


def say(text: str = "") -> None:
    """A line of talk."""
    if _AS_LINES:
        from headrace import lines

        lines.PROCESS_SAID(text)
    else:
        with contextlib.suppress(OSError):  # a full disk, or nobody who listens
            print(text, file=sys.stderr, flush=True)


def show(text: str = "") -> None:
    """A line of data."""
    print(text, flush=True)


def show_json(value: Any) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, default=str, allow_nan=False), flush=True)


def show_line(value: Any) -> None:
    """One JSON document on one line."""
    print(json.dumps(clean(value), default=str, allow_nan=False), flush=True)


def table(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
    """Aligned columns; numbers to the right.

    >>> print(table([("a", 1), ("bcd", 23)], ("name", "rows")))
    name  rows
    a        1
    bcd     23
    """
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(cells[0]))] if cells else []
    lines = [list(head), *cells] if head else cells
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    numeric = numeric or [False] * len(widths)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def figure(value: object) -> str:
    """A measured value for a table.

    >>> figure(0.25), figure(None)
    ('0.2500', '-')
    """
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def _is_number(cell: str) -> bool:
    text = cell.strip().replace(",", "").replace(".", "", 1).removeprefix("-")
    return text.isdigit() or text in ("", "-")


def examples(*commands: str) -> str:
    """The epilog of a command's help: its examples, one a line, not rewrapped."""
    return "\n".join(["\b", "Examples:", *(f"  {command}" for command in commands)])


def report(error: HeadraceError, *, as_json: bool) -> int:
    """Prints an error for people or for programs; the exit code to end with."""
    if as_json:
        show_json(error.to_json())
    elif _AS_LINES:
        _failed(error.message, error.code, error.hint)
    else:
        say(f"error: {error.message}")
        if error.hint:
            say(f"  fix: {error.hint}")
        say(f" code: {error.code}")
    return error.exit_code


def report_usage(message: str, *, command: str, as_json: bool) -> int:
    """A wrong option or argument."""
    hint = f"run `{command} --help`"
    if as_json:
        show_json({"error": "usage", "message": message, "hint": hint, "context": {}})
    else:
        say(f"error: {message}")
        say(f"  fix: {hint}")
        say(" code: usage")
    return Code.USAGE


def report_defect(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """An exception that no command expects: short text here, the traceback in a file."""
    trace = "".join(traceback.format_exception(error))
    text = f"unexpected {type(error).__name__}: {error}".splitlines()[0]
    if debug:
        say(trace)
    path = Path(tempfile.gettempdir()) / f"headrace-error-{time.strftime('%Y%m%dT%H%M%S')}.log"
    hint = f"this is a defect of headrace: please report it with {path} (or see it at once: `headrace --debug …`)"
    context = {"report": str(path)}
    try:
        path.write_text(trace, encoding="utf-8")
    except OSError:
        hint, context = "this is a defect of headrace: please report it with what `headrace --debug …` shows", {}
    if as_json:
        show_json({"error": "unexpected", "message": text, "hint": hint, "context": context})
    elif _AS_LINES:
        _failed(text, "unexpected", hint)
    else:
        say(f"error: {text}")
        say(f"  fix: {hint}")
        say(" code: unexpected")
    return Code.FAILED


def _failed(message: str, code: str, hint: str) -> None:
    from headrace import lines

    lines.PROCESS_FAILED(message, code=code, fix=hint)


def clean(value: Any) -> Any:
    """The value with NaN and infinities as null: JSON has no word for them."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, Mapping):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value
