"""Where the lines of a process that stays (`headrace.lines`) end: on stderr, as text or one JSON object each.

    text   2026-11-28T07:00:00.123Z INFO server.swapped version=12 until=2026-11-28T06:59:58Z
    json   {"at": "2026-11-28T07:00:00.123Z", "level": "info", "line": "server.swapped", "role": "server", …}

With `[observe] log = "json"` nothing else is on stderr: talk becomes `process.said`, the error that ends a process
`process.failed`. Beside the fields, JSON has `at`, `level`, `line`, `role`, and perhaps `message` and `traceback`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import traceback
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace import __version__, lines
from headrace.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.config import Settings

__all__ = ["RESERVED", "close", "early", "is_open", "journal"]

RESERVED = ("at", "level", "line", "message", "traceback")
"""Keys of a JSON line that no field may have."""


@contextmanager
def journal(settings: Settings, role: str, message: str = "") -> Iterator[None]:
    """Lines go to stderr while the block runs; the first and the last say that the process began and ended.

    Where lines are JSON, an error that leaves the block is to become one, too: who reports it calls `close` after that.
    """
    as_json, began = settings.observe.log == "json", time.monotonic()
    close()
    lines.LOGGER.addHandler(_Stderr(role, as_json=as_json))
    lines.LOGGER.setLevel(logging.INFO)
    lines.LOGGER.propagate = False
    terminal.as_lines(as_json)
    try:
        lines.PROCESS_STARTED(message, role=role, pid=os.getpid(), code=__version__)
        yield
    except BaseException:
        if not as_json:
            close()
        raise
    lines.PROCESS_ENDED(role=role, lived_s=round(time.monotonic() - began, 1))
    close()


def early(role: str, *, as_json: bool) -> None:
    """Where lines are JSON: what is said before a process has begun, such as why it cannot, are lines, too."""
    if as_json and not is_open():
        lines.LOGGER.addHandler(_Stderr(role, as_json=True))
        lines.LOGGER.setLevel(logging.INFO)
        lines.LOGGER.propagate = False
        terminal.as_lines(True)


def is_open() -> bool:
    """Whether this process has a journal now."""
    return any(isinstance(one, _Stderr) for one in lines.LOGGER.handlers)


def close() -> None:
    """Lines go where they went before; harmless if they do already."""
    if not is_open():
        return
    for handler in [one for one in lines.LOGGER.handlers if isinstance(one, _Stderr)]:
        lines.LOGGER.removeHandler(handler)
    lines.LOGGER.setLevel(logging.NOTSET)
    lines.LOGGER.propagate = True
    terminal.as_lines(False)


class _Stderr(logging.Handler):
    """Writes to the stderr of the moment: `native_output` replaces it."""

    def __init__(self, role: str, *, as_json: bool) -> None:
        super().__init__()
        self._role, self._as_json = role, as_json

    def emit(self, record: logging.LogRecord) -> None:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        text = self._json(record, at, trace) if self._as_json else f"{at} {record.levelname} {record.getMessage()}"
        if trace and not self._as_json:
            text += f"\n{trace.rstrip()}"
        with contextlib.suppress(OSError):  # a full disk costs lines, and no process
            print(text, file=sys.stderr, flush=True)

    def _json(self, record: logging.LogRecord, at: str, trace: str) -> str:
        body: dict[str, Any] = {
            "at": at,
            "level": record.levelname.lower(),
            "line": vars(record)["line"],
            "role": self._role,
        }
        body |= vars(record)["fields"]
        if message := vars(record)["said"]:
            body["message"] = message
        if trace:
            body["traceback"] = trace
        return json.dumps(terminal.clean(body), default=str, ensure_ascii=False, allow_nan=False)
