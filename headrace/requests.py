"""What operators ask of a stage: records of the log `requests/log`.

A request is a record with the body `{"args": {…}, "by": "who", "at_us": …}` of one of the kinds

    retrain, stop   to the trainer
    release         to the trainer; args: {"shards": ranges of shard records}
    retry           to the pipeline; args: {"records": ranges of shard records, "reasons": codes, none = all}

A stage passes over what is another's. A stage that follows the log answers in its own records (their requests cursor
and outcomes), so a request works from any host, leaves a trace, and is answered once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError, LostRace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.log import Entry
    from headrace.loop import Loop

KINDS = {"release": "trainer", "retrain": "trainer", "retry": "pipeline", "stop": "trainer"}  # -> who answers it


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
