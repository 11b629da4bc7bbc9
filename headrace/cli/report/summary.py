"""The figures of a report together: for `--json`, for the terminal, and for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace import clock
from headrace.cli import terminal
from headrace.cli.report import ages, gates, losses, reliability
from headrace.cli.report.records import read_records
from headrace.errors import NotFound
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.cli.report.ages import Pieces
    from headrace.cli.report.records import Records
    from headrace.config import Settings
    from headrace.loop import Loop

NO_VERSION = "There is no version yet: `headrace train` or `headrace up` makes the first."
NO_SHARDS = "No event was read yet: `headrace pipeline run` or `headrace up` reads the sources."


@dataclass(frozen=True)
class Report:
    """All that was found. scored: None where there is no curve, and `unscored` says why."""

    settings: Settings
    records: Records
    ages: Pieces
    figures: Mapping[str, Any]
    scored: reliability.Scored | None
    unscored: str

    @property
    def alive(self) -> bool:
        return bool(self.records.running)

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return dict(terminal.clean(self.figures))


def report(
    loop: Loop,
    settings: Settings,
    *,
    span_us: int | None,
    rows: int,
    now_us: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Report:
    """Reads the root. rows: how many to score again for the reliability curve; 0 = none."""
    records = read_records(loop, span_us=span_us, now_us=now_us, advance=advance)
    pieces = ages.in_force(records, lambda seq: _watermark_of(loop, seq))
    waits = ages.covered(records.versions, records.before_version)
    spent = ages.steps(records.versions, records.shards)
    found, why = _scored(loop, records, rows)
    compared = losses.figures(records.versions)
    figures = {
        "loop": records.name,
        "from_us": records.from_us,
        "until_us": records.until_us,
        "running": sorted({beat.role for beat in records.running}),
        "served": [
            {"address": beat.info.get("address"), "version": beat.info.get("version"), "age_s": beat.info.get("age_s")}
            for beat in records.running
            if beat.role == "server"
        ],
        "kept": {name: list(pair) for name, pair in records.kept.items()},
        "freshness": {
            **ages.figures(pieces, waits, spent, alive=bool(records.running)),
            "disorder_s": settings.pipeline.disorder_s,
            "wait_s": settings.label.wait_s,
        },
        "log_loss": compared,
        "calibration": found.to_json() if found else {"missing": why},
        "counts": gates.counts(records),
        "gates": {
            **gates.decisions(records.versions),
            "held_now": records.newest.held_now if records.newest else 0,
        },
    }
    return Report(settings, records, pieces, figures, found, why)


def _watermark_of(loop: Loop, version: int) -> int | None:
    """Of a version that was pinned. None = collected since, or nothing learned."""
    try:
        return VersionRecord.from_entry(loop.version_log().read(version)).watermark_us
    except NotFound:
        return None


def _scored(loop: Loop, records: Records, rows: int) -> tuple[reliability.Scored | None, str]:
    if not rows:
        return None, "left out by --rows 0"
    if not records.versions:
        return None, "there is no version in this span"
    try:
        return reliability.scored(loop, records.versions, rows), ""
    except reliability.Unscored as why:
        return None, str(why)


def words(found: Report) -> str:
    """A few lines for the terminal."""
    rows = [("loop", f"{found.records.name}, {span_words(found)}")]
    if found.records.newest_shards is None:
        rows.append(("events", NO_SHARDS))
    if found.records.newest is None:
        rows.append(("versions", NO_VERSION))
    rows += [("freshness", text) for text in (freshness_words(found),) if text]
    rows += [("log-loss", text) for text in (loss_words(found),) if text]
    rows += [("scores", text) for text in (calibration_words(found),) if text]
    counts, decided = found.figures["counts"], found.figures["gates"]
    if found.records.newest_shards is not None:
        refused = sum(counts["refused"].values())
        rows.append(
            ("events", f"{counts['shard_records']:,} shard records, {counts['rows']:,} rows, {refused:,} refused")
        )
    if found.records.newest is not None:
        rows.append(("versions", f"{counts['versions']:,}, {decided_words(decided)}"))
    return "\n".join(f"{name:<10} {text}" for name, text in rows)


def span_words(found: Report) -> str:
    """From when to when, and who runs."""
    records = found.records
    if records.newest_shards is None and records.newest is None:
        return "nothing was committed yet"
    spent = clock.duration((records.until_us - records.from_us) / clock.SECOND_US)
    running = ", ".join(found.figures["running"])
    tail = f"running: {running}" if running else "nothing runs: this ends with the last record"
    return f"{clock.iso(records.from_us)} to {clock.iso(records.until_us)} ({spent}); {tail}"


def freshness_words(found: Report) -> str:
    told = found.figures["freshness"]
    if told["last_s"] is None:
        return ""
    age = told["age_s"]
    at_end = f"{clock.duration(told['last_s'])} {'now' if found.alive else 'at the end'}"
    spread = ", ".join(f"{name} {clock.duration(age[name])}" for name in ("p50", "p99", "max") if age[name] is not None)
    return f"{at_end}; over time {spread}" if spread else at_end


def loss_words(found: Report) -> str:
    every = found.figures["log_loss"]["total"]
    if every is None:
        return ""
    gained = 1 - every["live"] / every["frozen"]
    beside = f"live is {abs(gained):.1%} {'lower' if gained >= 0 else 'higher'}"
    return (
        f"live {every['live']:.4f}, frozen {every['frozen']:.4f} ({beside}), "
        f"{every['n']:,} rows of {every['versions']:,} versions"
    )


def calibration_words(found: Report) -> str:
    if found.scored is None:
        return f"no reliability curve: {found.unscored}"
    told = found.figures["calibration"]
    if not told["positives"]:
        return f"no calibration: no positive among the newest {told['n']:,} rows"
    return (
        f"calibration {told['live']['calibration']:.3f} live, {told['reference']['calibration']:.3f} "
        f"{reference_name(found)}, of the newest {told['n']:,} rows"
    )


def reference_name(found: Report) -> str:
    assert found.scored is not None
    return "frozen" if found.scored.frozen else f"version {found.scored.reference_version}"


def decided_words(decided: Mapping[str, Any]) -> str:
    holds, rollbacks = decided["holds"], decided["rollbacks"]
    return f"{len(holds):,} held, {len(rollbacks):,} rolled back"
