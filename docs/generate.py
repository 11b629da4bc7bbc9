"""Writes the pages of docs/ that are made of the code: `make docs`. A test fails while one is stale."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from headrace import errors, lines, metrics
from pipelines.events import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
NOTE = "<!-- made by `make docs` from {} -->"


def troubleshooting() -> str:
    """Every error by its code, every reason for quarantine."""
    lines = [
        "# Troubleshooting",
        "",
        NOTE.format("headrace/errors.py and pipelines/events.py"),
        "",
        "An error says what happened, `fix:` what to do about it, and `code:` its name on this page. With `--json`",
        'it is `{"error": code, "message", "hint", "context"}`. `headrace --debug …` shows the traceback.',
        "",
        "| code | exit | what happened | what to do |",
        "|---|---|---|---|",
    ]
    for kind in _kinds(errors.HeadraceError):
        what, _, following = inspect.cleandoc(kind.__doc__ or "").partition("\n\nNext: ")
        cells = (f"`{kind.code}`", str(kind.exit_code), what, following[:1].upper() + following[1:])
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    lines += [
        "| `usage` | 2 | A command or option that does not exist or cannot be right. | Run it with `--help`. |",
        "| `unexpected` | 1 | A defect of headrace; the message names a file with more. | Please report it. |",
        "",
        "## Why an event is in quarantine",
        "",
        "Refused events are kept with their place and reason, and stop nobody: `headrace quarantine list`. One tick in",
        "which more than `pipeline.quarantine_stop` are refused is not committed.",
        "",
        "| reason | the event |",
        "|---|---|",
        *(f"| `{reason}` | {text} |" for reason, text in REASONS.items()),
        "",
    ]
    return "\n".join(lines)


def measured() -> str:
    """Every metric."""
    lines = [
        "# Metrics",
        "",
        NOTE.format("headrace/metrics.py"),
        "",
        "In the words of Prometheus; times in seconds. Each process has those of its stage.",
        "",
        "| name | kind | labels | what it says |",
        "|---|---|---|---|",
    ]
    for name in metrics.__all__:
        one = getattr(metrics, name)
        kind = next(kind for kind in (Counter, Gauge, Histogram) if isinstance(one, kind))
        (family,) = one.describe()
        full = f"{family.name}_total" if kind is Counter else family.name
        labels = ", ".join(one._labelnames) or "-"  # noqa: SLF001  (there is no other way to ask)
        lines.append(f"| `{full}` | {kind.__name__.lower()} | {labels} | {family.documentation} |")
    return "\n".join([*lines, ""])


def logged() -> str:
    """Every line that a process logs."""
    rows = [
        "# Log lines",
        "",
        NOTE.format("headrace/lines.py"),
        "",
        "Processes that stay log lines with names from this list, to stderr; those of `headrace up` to",
        "`logs/<role>.log`. As text (time, level, name, fields, and after a colon what else there is to say), or with",
        '`[observe] log = "json"` (in the environment `HEADRACE__OBSERVE__LOG=json`) as one JSON object each, with',
        "`at`, `level`, `line` (the name), `role`, the fields, and where they are `message` and `traceback`; nothing",
        "else is on stderr then. Names and fields stay, messages may change.",
        "",
        "| line | level | fields | what it says |",
        "|---|---|---|---|",
    ]
    for one in sorted((getattr(lines, name) for name in lines.__all__), key=lambda one: one.name):
        level = logging.getLevelName(one.level).lower()
        rows.append(f"| `{one.name}` | {level} | {', '.join(one.fields) or '-'} | {one.meaning} |")
    return "\n".join([*rows, ""])


PAGES = {"troubleshooting.md": troubleshooting, "metrics.md": measured, "logs.md": logged}


def _kinds(root: type[errors.HeadraceError]) -> Iterator[type[errors.HeadraceError]]:
    """All below `root`, as the tree in `headrace.errors` has them."""
    for kind in root.__subclasses__():
        yield kind
        yield from _kinds(kind)


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
