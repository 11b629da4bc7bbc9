"""What operators ask of a stage: records of the log `requests/log`.

A request is a record of kind `retrain`, `release` (args: {"shards": ranges of shard records}) or `stop` with the body
`{"args": {…}, "by": "who", "at_us": …}`. A stage that follows the log answers in its own records (their requests cursor
and outcomes), so a request works from any host, leaves a trace, and is answered once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError, LostRace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.log import Entry
    from headrace.loop import Loop

KINDS = frozenset({"release", "retrain", "stop"})


def ask(loop: Loop, kind: str, args: Mapping[str, Any], by: str, now_us: int) -> Entry:
    """Append a request; its `seq` is what an outcome refers to."""
    if kind not in KINDS:
        raise HeadraceError(f"no stage knows the request {kind!r}", hint=f"known: {', '.join(sorted(KINDS))}")
    log = loop.requests()
    parent = log.head()
    while True:
        try:
            return log.append(kind, {"args": dict(args), "by": by, "at_us": now_us}, parent)
        except LostRace as lost:
            parent = lost.context["winner"]
