"""`headrace backtest`: the freshness curve of one's own history."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import options, terminal
from headrace.cli.quiet import native_output
from headrace.errors import SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.cli.freshness.history import History
    from headrace.cli.freshness.predictions import Predictions
    from headrace.config import Settings

SCRATCH = Path(".headrace-backtest")
FORMAT = 1
"""Of what a scratch folder holds; another one is not resumed."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "backtest",
        epilog=terminal.examples(
            "headrace backtest --example flights --every frozen,7d,1d     about 3 minutes",
            "headrace backtest --every frozen,1d,1h --warmup 0.6 --plot curve.png",
            "headrace backtest -c feed.toml --every frozen,1d --limit 100000 --json",
            "headrace backtest --compare predictions.parquet              your present model beside it",
        ),
    )(backtest)


def backtest(
    *,
    every: Annotated[str, typer.Option("--every", help="Refresh intervals to compare.")] = "frozen,1d,1h",
    warmup: Annotated[float, typer.Option("--warmup", help="Share of the impressions to learn from first.")] = 0.6,
    limit: Annotated[int | None, typer.Option("--limit", min=10, help="Only the first N impressions.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the curve over time into this PNG.")] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", help="Scores of your present model: Parquet, CSV or JSON lines with id and score."),
    ] = None,
    score: Annotated[str | None, typer.Option("--score", help="The column of --compare that has the scores.")] = None,
    example: Annotated[str, typer.Option("--example", help="A built-in history instead of yours: flights.")] = "",
    scratch: Annotated[
        Path | None, typer.Option("--scratch", help="Work in this folder and keep it.", file_okay=False)
    ] = None,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Measure what fresher models are worth.

    Replays your history as a frozen, a daily and an hourly model would have met it. Events run in event time through
    the real pipeline, trainer and server; each impression is scored before anything later is known. Interrupted runs go
    on where they stopped.

    With --compare, every curve is of the impressions that your model scored, too. Its file has the event's id in the
    column that [streams.impression] id names, and the probability of a positive in `score` (or --score).
    """
    from headrace.cli.freshness import report
    from headrace.cli.freshness.history import read_history
    from headrace.cli.freshness.periods import check_warmup, parse_every

    intervals = parse_every(every)
    check_warmup(warmup)
    folder = scratch or SCRATCH
    terminal.say("reading the history …")
    settings = _example(example, folder) if example else options.load(config)
    theirs = _predictions(settings, compare, score)
    with native_output("backtest"):
        from headrace.cli.freshness.replay import Replay

        history = read_history(settings, limit=limit)
        _say_read(len(history.times_us), history.feedback.num_rows, history.refused)
        scores = theirs.of(_scored_ids(history, warmup)) if theirs else None
        if scores is not None:
            terminal.say(f"{(scores == scores).sum():,} of the {len(scores):,} scored impressions are in {compare}")
        run = folder / _name(settings, history.fingerprint(), every, warmup)
        try:
            result = Replay(settings, history, intervals, warmup=warmup, scratch=run).run()
        except KeyboardInterrupt:
            terminal.say(f"stopped; the same command goes on from here (kept in {run})")
            raise
    if theirs is not None and scores is not None:
        result = report.beside(result, scores, theirs)
    if plot is not None:
        report.plot(result, plot)
        terminal.say(f"drawn: {plot}")
    if as_json:
        terminal.show_json(result.to_json())
    else:
        terminal.show(report.as_text(result, reference=example == "flights" and theirs is None))
        terminal.say(report.words(result, example=bool(example)))
    if scratch is None:
        _remove(run)
    return terminal.Code.OK


def _predictions(settings: Settings, compare: Path | None, score: str | None) -> Predictions | None:
    """The scores of --compare, looked at before the long work begins."""
    if compare is None:
        if score is not None:
            raise SettingsError("--score names a column of --compare", hint="add --compare FILE, or leave --score out")
        return None
    from headrace.cli.freshness.predictions import read_predictions

    return read_predictions(compare, id_column=settings.impression.id, score_column=score)


def _scored_ids(history: History, warmup: float) -> pa.ChunkedArray:
    """Event ids of the impressions after the cut."""
    from headrace.cli.freshness.periods import cut_of

    times = history.times_us
    return history.impressions["_id"].slice(int(times.searchsorted(cut_of(times, warmup))))


def _example(name: str, folder: Path) -> Settings:
    """The settings of a built-in example, reading its events from a file in `folder`."""
    if name != "flights":
        raise SettingsError(f"there is no example {name!r}", hint="there is one: `--example flights`", example=name)
    import pyarrow.parquet as pq

    from headrace import flights

    events = folder / "flights.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(flights.flights_events(), events)
    return flights.settings().with_source(str(events))


def _remove(run: Path) -> None:
    """A run that is over leaves nothing behind, unless its folder was named with --scratch."""
    shutil.rmtree(run)
    if not any(path.is_dir() for path in run.parent.iterdir()):  # no interrupted run is waiting
        shutil.rmtree(run.parent)


def _name(settings: Settings, history: str, every: str, warmup: float) -> str:
    """The folder of a run: all that its result depends on, so that only the same run is resumed."""
    sections = {"label", "features", "pipeline", "model", "train", "gate", "serve"}
    told = settings.model_dump(mode="json", include=sections)
    text = json.dumps([FORMAT, told, settings.loop.prior, history, every, warmup], sort_keys=True)
    return f"{settings.loop.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _say_read(impressions: int, feedback: int, refused: dict[str, int]) -> None:
    terminal.say(f"read {impressions:,} impressions and {feedback:,} feedback events")
    if refused:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(refused.items()))
        terminal.say(f"left out, as the pipeline would: {reasons}; `headrace config check` says more")
