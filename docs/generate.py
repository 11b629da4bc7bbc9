"""Writes the pages of docs/ that are made of the code: `make docs`. A test fails while one is stale."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter, Gauge, Histogram

from headrace import errors, lines, metrics
from pipelines.events import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "benchmarks" / "results"
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


def sized() -> str:
    """What a loop takes, from kept figures alone."""
    loop_s = _figure("pipeline", "CPU seconds per 1 M events, plain") / _figure(
        "pipeline", "tick loop / plain threads, events per CPU-second"
    )
    tick_s = _figure("pipeline", "tick of 300 events, CPU") / 1e3
    bulk = _figure("trainer", "trainer.ours.2^20") / 1e3
    version_s = _figure("trainer", "trainer.record_100_to_version") / 1e3
    call_ms = _figure("predict", "Predict, 50 candidates, 32 calls at a time, headrace: cpu_us") / 1e3
    cores = _kept("trainer")["machine"]["cores"]
    event, row = loop_s / 1e3, cores / bulk
    steady = {role: _middle(f"{role}, memory") for role in ("server", "pipeline", "trainer", "tracker", "up")}
    root_mb, kept_s, rate = _middle("root, bytes"), 150, 2
    per_event_kb = root_mb / (kept_s * rate)
    fresh = [_figure("freshness", f"freshness {p}, 10,000 events/s, k = 1000") for p in ("p50", "p99")]
    example = tick_s + event + version_s + row + 0.1 * call_ms
    backlog_mb = 1e3 * _figure("pipeline", "peak memory of the bounded run")
    processes = "\n".join(f"| {role} | {mb:.0f} | steady.json |" for role, mb in steady.items())
    return f"""# Sizing

{NOTE.format("benchmarks/results")}

What a loop takes, from figures that were measured and from nothing else; each names the file below `benchmarks/results`
that has it, with date and machine. Yours differ: watch the panels CPU, resident memory and free disk of the dashboard
([observe](observe.md)) for an hour, and correct the numbers.

## CPU

| what | cores | from |
|---|---|---|
| pipeline: each tick | {tick_s:.3f} / `tick_s` | pipeline.json, a tick of 300 events |
| pipeline: 1,000 events/s | {event:.4f} | pipeline.json, the tick loop on a backlog |
| trainer: each version | {version_s:.3f} x versions/s | trainer.json, 100 rows to a version (wall) |
| trainer: 1,000 rows/s | {row:.4f} | trainer.json, {bulk:.0f},000 rows/s in bulk on {cores} cores |
| server: 1,000 calls/s of 50 candidates | {call_ms:.2f} | predict.json, CPU of the server |

With k = thousand events a second, v = versions a second (1 by default, fewer with `[train] every_s` or `min_rows`) and
q = thousand calls a second:

```text
cores = {tick_s:.3f} / tick_s + {event:.4f} k + {version_s:.3f} v + {row:.4f} k + {call_ms:.2f} q
```

1,000 events/s, a tick and a version a second, 100 calls/s: {example:.2f} cores. Ticks and versions cost, not events:
where a few seconds more do not matter, `tick_s = 5` and `every_s = 5` cost a fifth. Live steps are smaller than those
in bulk and cost more; how much more was not measured alone. Where a machine of two cores ends was not found: at 10,000
events/s, with everything on it, freshness was {fresh[0]:.1f} s at p50 and {fresh[1]:.1f} s at p99 (freshness.json).

## Memory

| process | MB | from |
|---|---|---|
{processes}
| together | {sum(steady.values()):.0f} | |
| pipeline, on a backlog | {backlog_mb:.0f} | pipeline.json |

That is at 2,000 events/s with the small tables of `examples/feed` (PSS: what would be free without the process). Tables
come on top, and what an id takes in memory was not measured. The formats say what it takes at least. In a server: 12
bytes and its row (`dim` bytes as int8, 4 x `dim` as f32), and 16 for its linear weight. In the trainer: the same, and
18 bytes and 8 x `dim` for its row with optimiser state, 26 for the linear one, and both once more while a checkpoint is
written. `[train] max_rows` bounds the ids. A server that builds from a snapshot while it serves holds two tables: give
it twice what they take, beside the figure above.

## Disk

The root held {root_mb:.0f} MB at 2,000 events/s with everything kept for {kept_s} s (steady.json; the settings are in
`bench_steady.py`). That is {per_event_kb:.2f} kB per event that is kept, all included: shards, pending events, deltas,
checkpoints, snapshots.

```text
GB = {per_event_kb * 1e-3:.5f} x k x seconds kept (the longest of versions_s, rollback_s and [followers])
```

1,000 events/s and `rollback_s` of an hour: {per_event_kb * 3.6:.1f} GB; of a day, the default:
{per_event_kb * 86.4:.0f} GB.
What of it is per event and what per version was not measured apart; with a large model, checkpoints and snapshots are
most of it ([decision 8](decisions/0008-retention.md)). `[retention] max_bytes` holds whatever comes: at 90 % of it the
pipeline waits, and nothing is lost.
"""


def _kept(benchmark: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))
    return kept


def _figure(benchmark: str, name: str) -> float:
    """A figure by its name."""
    return next(float(one["value"]) for one in _kept(benchmark)["figures"] if one["name"] == name)


def _middle(what: str) -> float:
    """What a value of the steady run was in its middle third; the figure itself is how much it grew after that."""
    name = next(
        one["name"] for one in _kept("steady")["figures"] if one["name"].startswith(f"{what}, 30 min at 2,000/s")
    )
    return float(name.rpartition("middle third's ")[2])


PAGES = {"troubleshooting.md": troubleshooting, "metrics.md": measured, "logs.md": logged, "sizing.md": sized}


def _kinds(root: type[errors.HeadraceError]) -> Iterator[type[errors.HeadraceError]]:
    """All below `root`, as the tree in `headrace.errors` has them."""
    for kind in root.__subclasses__():
        yield kind
        yield from _kinds(kind)


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
