"""The page: one HTML file with its pictures inside, without a script and without anything from elsewhere."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from headrace import __version__, clock
from headrace.cli.report import summary
from headrace.cli.report.elements import CSS, code, picture, quiet, section, table, tile
from headrace.cli.report.losses import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.cli.report.summary import Report

NEWEST: Final = 20
"""So many holds, and so many rollbacks, are listed."""


def page(found: Report, pictures: Mapping[str, tuple[bytes, bytes]]) -> str:
    """The whole of it. pictures: name -> PNG for a wide page, for a narrow one."""
    name = escape(found.records.name)
    parts = [
        f"<h1>{name}</h1><p class=quiet>{escape(summary.span_words(found))}</p>",
        _tiles(found),
        _freshness(found, pictures),
        _losses(found, pictures),
        _calibration(found, pictures),
        _counts(found, pictures),
        _gates(found),
        f"<p class=quiet>Made by headrace {escape(__version__)} from the records of the root.</p>",
    ]
    return (
        '<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{name}: headrace report</title><style>{CSS}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _tiles(found: Report) -> str:
    told = found.figures
    age, every, counts, decided = told["freshness"], told["log_loss"]["total"], told["counts"], told["gates"]
    calibration = told["calibration"].get("live", {}).get("calibration")
    refused, held = sum(counts["refused"].values()), decided["held_now"]
    tiles = [
        (_seconds(age["last_s"]), "age of what is served now" if found.alive else "age at the end", False),
        (_seconds(age["age_s"]["p50"]), "half of the time younger than", False),
        (_seconds(age["age_s"]["p99"]), "99 % of the time younger than", False),
        (f"{1 - every['live'] / every['frozen']:+.1%}" if every else "-", "log-loss gained on frozen", False),
        (f"{calibration:.3f}" if calibration else "-", "calibration (1 is right)", False),
        (f"{counts['versions']:,}", "versions", False),
        (f"{counts['rows']:,}", "rows from events", False),
        (f"{refused:,}", "events refused", refused > 0),
        (f"{held:,}", "shard records still held", held > 0),
        (f"{len(decided['rollbacks']):,}", "rollbacks", bool(decided["rollbacks"])),
    ]
    return "<div class=tiles>" + "".join(tile(*one) for one in tiles) + "</div>"


def _freshness(found: Report, pictures: Mapping[str, tuple[bytes, bytes]]) -> str:
    told = found.figures["freshness"]
    if "freshness" not in pictures:
        return section("Freshness", _empty(found))
    rows = [
        ("age of what was served", told["age_s"]),
        ("event to the version that covers it", told["event_to_version_s"]),
    ]
    cells = [(name, *(_seconds(spread[part]) for part in ("p50", "p99", "max"))) for name, spread in rows]
    names = {"pipeline": "newest event to its shard record", "trainer": "shard record to version"}
    cells += [(names[name], _seconds(one["p50"]), _seconds(one["p99"]), "-") for name, one in told["steps_s"].items()]
    served = "".join(
        f"<p>The server on {escape(str(one['address']))} answers from version {one['version']}"
        + (f", {clock.duration(one['age_s'])} behind now." if one["age_s"] is not None else ".")
        + "</p>"
        for one in found.figures["served"]
    )
    wait = f", and what an impression came to is known only {told['wait_s']:g} s after it" if told["wait_s"] else ""
    return section(
        "Freshness",
        "<p>Now minus the watermark of the version that answers. "
        f"{escape(_first(summary.freshness_words(found)))}.</p>{served}",
        picture(pictures["freshness"], "age of what was served over time"),
        table(("", "p50", "p99", "longest"), cells),
        quiet(
            "Shows: ages by the commits in the version log, each second of the span counting alike; events as if they "
            "came evenly in event time, in pauses, too. Of each age, disorder_s = "
            f"{told['disorder_s']:g} s is waiting by choice{wait}. Does not show: how long a server took from the "
            "commit to the swap (`headrace probe` measures that), nor when no server ran."
        ),
    )


def _losses(found: Report, pictures: Mapping[str, tuple[bytes, bytes]]) -> str:
    if "log_loss" not in pictures:
        words = "No version has a log-loss of both sides yet: the first that learns is the frozen one."
        return section("Log-loss, live and frozen", _empty(found, words))
    told = found.figures["log_loss"]
    every = told["total"]
    cells = [
        (side, f"{every[side]:.4f}", "-" if every[key] is None else f"{every[key]:.3f}")
        for side, key in (("live", "live_calibration"), ("frozen", "frozen_calibration"))
    ]
    frozen = ", ".join(map(str, told["frozen_versions"]))
    return section(
        "Log-loss, live and frozen",
        f"<p>{escape(_first(summary.loss_words(found)))}. What keeping the model fresh is worth is the distance.</p>",
        picture(pictures["log_loss"], "log-loss of live and frozen over time"),
        table(("", "log-loss", "calibration"), cells),
        quiet(
            f"Shows: what the trainer wrote into the versions' records. It scores each of the {every['n']:,} rows just "
            "before it learns it, by the weights that learn (live) and by the first version that learned something, as "
            f"published (frozen: version {frozen}). Points are groups of versions with about as many rows. Does not "
            "show: rows of candidates that were held, and the answers of servers, which follow the live weights by one "
            f"version. Labels are those known when a row is emitted. Calibration is left out where more than "
            f"{LEFT_OUT:.0%} of the rows are in records without a positive."
        ),
    )


def _calibration(found: Report, pictures: Mapping[str, tuple[bytes, bytes]]) -> str:
    if found.scored is None:
        return section("Calibration", _empty(found, f"There is no reliability curve: {found.unscored}."))
    told, scored = found.figures["calibration"], found.scored
    name = summary.reference_name(found)
    cells = [
        (label, f"{one['log_loss']:.4f}", _ratio(one["calibration"]), f"{one['ece']:.4f}")
        for label, one in (("live", told["live"]), (name, told["reference"]))
    ]
    bins = [
        (f"{one['score']:.4f}", f"{one['rate']:.4f}", f"{one['low']:.4f} to {one['high']:.4f}", f"{one['n']:,}")
        for one in told["live"]["bins"]
    ]
    first, last = scored.versions
    chosen = f"{told['n']:,} of the newest {told['of']:,} rows, evenly chosen" if told["n"] < told["of"] else "all rows"
    other = "the trainer's frozen one" if scored.frozen else "the oldest that can still be built"
    if scored.frozen_of is not None and not scored.frozen:
        other += f"; version {scored.frozen_of}, the trainer's frozen one, is no longer kept"
    return section(
        "Calibration",
        f"<p>{told['n']:,} rows, {told['positives']:,.0f} of them positive. On the dotted line, what "
        "is promised comes.</p>",
        picture(pictures["calibration"], "reliability curve, and how many rows have which score"),
        table(("", "log-loss", "calibration", "mean distance"), cells),
        "<p>Live, by tenths of the rows: mean score, and rate of positives.</p>",
        table(("score", "rate", "95 % interval", "rows"), bins),
        quiet(
            f"Shows: {chosen}, of the shard records {scored.shards[0]} to {scored.shards[1]} (events of "
            f"{clock.iso(scored.events_us[0])} to {clock.iso(scored.events_us[1])}), scored now. Live: the rows that "
            f"versions {first} to {last} learned, each by the published version before, which had not learned them. "
            f"Beside it, version {scored.reference_version} ({other}) on the same rows. Labels are those known when a "
            "row was emitted; what servers add for positives still to come is taken off. Does not show: answers that "
            "were given, late positives, rows of held records, and older rows."
        ),
    )


def _counts(found: Report, pictures: Mapping[str, tuple[bytes, bytes]]) -> str:
    if found.records.newest_shards is None:
        return section("Counts", _empty(found))
    told = found.figures["counts"]
    classes = list(dict.fromkeys(["read", *(name for one in told["events"].values() for name, n in one.items() if n)]))
    events = [(name, *(f"{one.get(name, 0):,}" for one in told["events"].values())) for name in classes]
    refused = [(reason, f"{n:,}") for reason, n in told["refused"].items()]
    kinds = [(kind, f"{n:,}") for kind, n in told["versions_by_kind"].items() if n]
    rate = f", {told['positives'] / told['rows']:.2%} of them positive" if told["rows"] else ""
    return section(
        "Counts",
        f"<p>{told['shard_records']:,} shard records in {told['shard_files']:,} files with {told['rows']:,} rows{rate};"
        f" {told['versions']:,} versions.</p>",
        picture(pictures["events"], "events read and refused per second") if "events" in pictures else "",
        "<p>Events since the loop began:</p>",
        table(("", *told["events"]), events),
        table(("refused because", "events"), refused) if refused else "<p>No event was refused in this span.</p>",
        table(("kind of version", "versions"), kinds),
        quiet(
            f"Shard records, refused events and versions are of this span; the root has made "
            f"{told['shard_records_ever']:,} shard records and {told['versions_ever']:,} versions, and keeps "
            + " and ".join(f"{name} {low:,} to {high:,}" for name, (low, high) in found.figures["kept"].items())
            + ". `headrace quarantine list` shows what was refused. Rates are by the time of the commit."
        ),
    )


def _gates(found: Report) -> str:
    told = found.figures["gates"]
    holds = [
        (
            f"{one['version']}",
            _at(one["at_us"]),
            "; ".join(one["reasons"]) or "-",
            _ranges(one["shards"]),
            f"{one['waiting']:,} still held" if one["waiting"] else "released",
        )
        for one in reversed(told["holds"][-NEWEST:])
    ]
    rollbacks = [
        (
            f"{one['version']}",
            _at(one["at_us"]),
            f"{one['to']}",
            one["by"] or "-",
            one["reason"] or "-",
            f"{one['held']:,}",
        )
        for one in reversed(told["rollbacks"][-NEWEST:])
    ]
    verdicts = ", ".join(f"{n:,} {result}" for result, n in told["verdicts"].items())
    gates = ", ".join(f"{gate} {n:,}" for gate, n in told["holds_by_gate"].items())
    return section(
        "Gates",
        f"<p>{len(told['holds']):,} candidates were held{f' ({escape(gates)})' if gates else ''}, "
        f"{len(told['rollbacks']):,} versions rolled back, {len(told['pins']):,} pins. "
        f"Trials ended: {escape(verdicts) or 'none yet'}.</p>",
        table(("version", "at (UTC)", "held because", "shard records", "since"), holds) if holds else "",
        _more(told["holds"], "holds"),
        table(("version", "at (UTC)", "back to", "by", "because", "records held"), rollbacks) if rollbacks else "",
        _more(told["rollbacks"], "rollbacks"),
        quiet(
            "`headrace versions show VERSION` has all that was measured; `headrace release SHARD` learns what is held."
        ),
    )


def _more(told: Sequence[Any], name: str) -> str:
    return quiet(f"The newest {NEWEST} of {len(told):,} {name}; --json has all.") if len(told) > NEWEST else ""


def _ranges(pairs: Sequence[Sequence[int]]) -> str:
    return ", ".join(f"{low}" if high - low == 1 else f"{low}-{high - 1}" for low, high in pairs) or "-"


def _at(time_us: int) -> str:
    return clock.iso(time_us).replace("T", " ").removesuffix("Z")


def _ratio(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else clock.duration(value)


def _first(words: str) -> str:
    return words[:1].upper() + words[1:]


def _empty(found: Report, words: str = "") -> str:
    if found.records.newest_shards is None:
        words = summary.NO_SHARDS
    elif found.records.newest is None:
        words = summary.NO_VERSION
    return f"<p class=empty>{code(words or 'No version has learned from an event yet.')}</p>"
