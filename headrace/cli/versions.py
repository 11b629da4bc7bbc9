"""`headrace versions list`, `show` and `diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace import clock
from headrace.cli import options, terminal
from headrace.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.version import VersionRecord

NAME = "versions"
group = typer.Typer(help="What the trainer has published.", no_args_is_help=True, rich_markup_mode=None)


@group.command("list", epilog=terminal.examples("headrace versions list", "headrace versions list --last 5 --json"))
def list_versions(
    *,
    last: Annotated[int, typer.Option("--last", min=1, help="How many, newest first.")] = 20,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """The newest versions: kind, freshness, what was measured before learning."""
    records = _newest(options.open_loop(options.load(config)).version_log(), last)
    if as_json:
        terminal.show_json({"versions": [_summary(record, records[:at]) for at, record in enumerate(records)]})
    elif not records:
        terminal.say("no version yet: `headrace train` or `headrace serve` writes the first")
    else:
        terminal.show(terminal.table([_row(record, records[:at]) for at, record in enumerate(records)], _HEAD))
    return terminal.Code.OK


@group.command(
    "show", epilog=terminal.examples("headrace versions show 17", "headrace versions show --json   the newest")
)
def show_version(
    number: Annotated[int | None, typer.Argument(help="The version; default: the newest.", metavar="VERSION")] = None,
    *,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """All that one version's record says."""
    log = options.open_loop(options.load(config)).version_log()
    if number is None and (newest := log.head()) is not None:
        number = newest.seq
    try:
        entry = log.read(number or 0)
    except NotFound as gone:
        raise NotFound(
            f"there is no version {number or 0}", hint="choose one of `headrace versions list`", version=number
        ) from gone
    record = {"version": entry.seq, "kind": entry.kind, "sha256": entry.sha256, **entry.body}
    if as_json:
        terminal.show_json(terminal.clean(record))
    else:
        terminal.show(terminal.table([(name, _short(value)) for name, value in record.items()]))
    return terminal.Code.OK


@group.command("diff", epilog=terminal.examples("headrace versions diff 16 17", "headrace versions diff 3 17 --json"))
def diff_versions(
    one: Annotated[int, typer.Argument(help="A version.", metavar="A")],
    other: Annotated[int, typer.Argument(help="Another one.", metavar="B")],
    *,
    most: Annotated[int, typer.Option("--most", min=0, help="So many rows that moved farthest, per table.")] = 5,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """What changed from version A to version B: rows, tower, and what was measured."""
    loop = options.open_loop(options.load(config))
    from headrace.cli.versions_diff import as_text, diff

    found = terminal.clean(diff(loop, one, other, most=most))
    if as_json:
        terminal.show_json(found)
    else:
        terminal.show(as_text(found))
    return terminal.Code.OK


_HEAD = ("version", "kind", "made", "events up to", "rows", "trained on", "log-loss", "AUC", "tried")


def _newest(log: Any, last: int) -> list[VersionRecord]:
    from headrace.version import VersionRecord

    head, first = log.head(), log.first()
    if head is None or first is None:
        return []
    numbers = range(head.seq, max(first.seq, head.seq - last + 1) - 1, -1)
    return [VersionRecord.from_entry(head if seq == head.seq else log.read(seq)) for seq in numbers]


def _summary(record: VersionRecord, later: Sequence[VersionRecord]) -> dict[str, Any]:
    return dict(
        terminal.clean(
            {
                "version": record.version,
                "kind": record.kind,
                "base": record.base,
                "created_at_us": record.created_at_us,
                "watermark_us": record.watermark_us,
                "rows": record.digest.get("rows", 0),
                "trained": record.trained,
                "held": record.held,
                "evaluation": dict(record.evaluation),
                "gate": dict(record.gate),
                "tried": _tried(record, later),
            }
        )
    )


def _row(record: VersionRecord, later: Sequence[VersionRecord]) -> tuple[object, ...]:
    shards = ", ".join(f"{low}-{high - 1}" if high - low > 1 else f"{low}" for low, high in record.trained) or "-"
    until = clock.iso(record.watermark_us) if record.watermark_us else "-"
    made = clock.iso(record.created_at_us)
    measured = [terminal.figure(record.evaluation.get("live", {}).get(name)) for name in ("log_loss", "auc")]
    return (
        record.version,
        "start (import)" if record.gate.get("action") == "import" else record.kind,
        made,
        until,
        record.digest.get("rows", 0),
        shards,
        *measured,
        _tried(record, later) or "-",
    )


def _tried(record: VersionRecord, later: Sequence[VersionRecord]) -> str | None:
    """good | worse | pending; None for a version that changed nothing."""
    from headrace.version import tried

    if record.kind != "delta" or record.delta is None:
        return None
    return tried(record.version, later) or record.gate.get("g3")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 140 else f"{text[:137]}…"
