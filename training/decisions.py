"""Which versions were decided against, and why: what a day's run shows beside its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.version import VersionRecord

__all__ = ["MOST", "decision_of", "merged"]

MOST = 1_000
"""Decisions that one run shows, the newest; how many there were in all is told beside them."""


def decision_of(record: VersionRecord) -> dict[str, Any] | None:
    """What somebody decided with this version: a hold, a rollback, a pin, a release; None = it was published.

    {"version", "at_us", "kind", "reasons", "g3", "to", "pinned", "held", "released", "verdicts"} without what is empty.
    """
    reasons = list(record.gate.get("reasons", ()))
    worse = [dict(verdict) for verdict in record.verdicts if verdict.get("result") == "worse"]
    if record.kind == "start" or (record.kind == "delta" and not (reasons or record.released or worse)):
        return None
    found = {
        "reasons": reasons,
        "g3": record.gate.get("g3"),
        "to": record.to,
        "pinned": record.pinned,
        "held": [list(pair) for pair in record.held],
        "released": [list(pair) for pair in record.released],
        "verdicts": worse,
    }
    said = {name: value for name, value in found.items() if value not in (None, [])}
    return {"version": record.version, "at_us": record.created_at_us, "kind": record.kind, **said}


def merged(known: Mapping[str, Any], records: Iterable[VersionRecord]) -> dict[str, Any] | None:
    """`{"count", "decisions"}` of a run with those of `records` added, each version once; None = nothing is new.

    >>> merged({}, []) is None
    True
    """
    kept = list(known.get("decisions", ()))
    newest = kept[-1]["version"] if kept else -1
    found = [decision for decision in map(decision_of, records) if decision and decision["version"] > newest]
    if not found:
        return None
    return {"count": known.get("count", 0) + len(found), "decisions": [*kept, *found][-MOST:]}
