"""What the gates decided, and what there is of everything: events, shards, versions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from headrace.version import difference, union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.cli.report.records import Records, Version


def decisions(versions: Sequence[Version]) -> dict[str, Any]:
    """What `--json` prints: holds and rollbacks one by one, and how often each gate and each verdict spoke."""
    releases = [one for one in versions if one.released]
    holds = [_hold(one, releases) for one in versions if one.kind == "hold"]
    by_gate = Counter(gate for hold in holds for gate in {reason.partition(":")[0] for reason in hold["reasons"]})
    verdicts = Counter(str(verdict["result"]) for one in versions for verdict in one.verdicts)
    return {
        "holds": holds,
        "holds_by_gate": dict(sorted(by_gate.items())),
        "rollbacks": [_rollback(one) for one in versions if one.kind == "rollback"],
        "pins": [
            {"version": one.seq, "at_us": one.committed_us, "to": one.to} for one in versions if one.kind == "pin"
        ],
        "verdicts": dict(sorted(verdicts.items())),
    }


def _hold(one: Version, releases: Sequence[Version]) -> dict[str, Any]:
    """`waiting`: how many of its shard records nobody has released since."""
    left = difference(one.held, union(*(other.released for other in releases if other.seq > one.seq)))
    return {
        "version": one.seq,
        "at_us": one.committed_us,
        "shards": [list(pair) for pair in one.held],
        "reasons": list(one.gate.get("reasons", ())),
        "rows": one.evaluation.get("live", {}).get("n"),
        "waiting": sum(high - low for low, high in left),
    }


def _rollback(one: Version) -> dict[str, Any]:
    return {
        "version": one.seq,
        "at_us": one.committed_us,
        "to": one.to,
        "by": one.gate.get("by"),
        "reason": one.gate.get("reason"),
        "held": sum(high - low for low, high in one.held),
    }


def counts(records: Records) -> dict[str, Any]:
    """What `--json` prints. `events` since the loop began, by partition; all else is of the span."""
    refused: Counter[str] = Counter()
    for shards in records.shards:
        refused.update(shards.refused)
    kinds = Counter(one.kind for one in records.versions)
    return {
        "events": {key: dict(one) for key, one in sorted(records.counts.items())},
        "refused": dict(sorted(refused.items(), key=lambda item: (-item[1], item[0]))),
        "shard_records": len(records.shards),
        "shard_files": sum(one.files for one in records.shards),
        "rows": sum(one.rows for one in records.shards),
        "positives": sum(one.positives for one in records.shards),
        "versions": len(records.versions),
        "versions_by_kind": {kind: kinds[kind] for kind in ("start", "delta", "hold", "rollback", "pin")},
        "shard_records_ever": records.kept["shards"][1] + 1 if "shards" in records.kept else 0,
        "versions_ever": records.kept["versions"][1] + 1 if "versions" in records.kept else 0,
    }
