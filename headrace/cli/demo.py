"""`headrace demo`: the loop on a synthetic feed, live against frozen against the best possible.

A generator process writes two growing logs; the processes of `headrace up` learn from them and serve; this process asks
the service about each impression before its click is known. What to see: the live line follows the best possible one;
after `CHANGE_S` the feed changes on purpose, and the frozen line falls.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace import clock, status, templates
from headrace.cli import options, resident, terminal, up
from headrace.cli.quiet import native_output
from headrace.cli.supervise import stop_all
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.cli.demo_scores import Frozen, Scores
    from headrace.loop import Loop
    from paramserver.client import Client

CHANGE_S: Final = 90.0
STEP_S: Final = 0.1
SHOW_S: Final = 5.0
FOLDER: Final = Path("headrace-demo")
QUARANTINED: Final = "invalid"
ASK: Final = {"user": "u1", "item": "i1", "topic": "t1", "author": "a1", "slot": 0}
NEXT: Final = """what to try next:
  headrace status -c {config}
  headrace versions list -c {config}
  headrace backtest --example flights          the same on real events
  headrace init --from YOUR_EVENTS             settings for your own
  the same `headrace demo` goes on from here; `rm -r {folder}` begins anew"""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "demo",
        epilog=terminal.examples(
            "headrace demo                           until Ctrl-C; the feed changes after 90 s",
            "headrace demo --seconds 180 --json      ends by itself; the last line is a summary",
        ),
    )(demo)


def demo(
    *,
    seconds: Annotated[float | None, typer.Option("--seconds", min=5, help="End after so long.")] = None,
    rate: Annotated[float, typer.Option("--rate", min=10, max=20_000, help="Events a second.")] = 1_000.0,
    folder: Annotated[Path, typer.Option("--folder", help="Work in this folder.", file_okay=False)] = FOLDER,
    as_json: options.Json = False,
) -> int:
    """See a model stay fresh: live against frozen, on a synthetic feed."""
    began_s = time.monotonic()
    config = _prepared(folder)
    settings = options.load(config)
    loop = options.open_loop(settings, create=True)
    resident.alone(loop, up.ROLE, "end it first, or use another --folder")
    say = terminal.say if as_json else terminal.show
    with native_output("demo"), resident.until_stopped(f"headrace demo --folder {folder}") as stop:
        run = Run(loop, up.Stage(loop, settings, config, folder / "logs", port=0), folder, rate, began_s, say)
        try:
            run.until(lambda: stop() or (seconds is not None and time.monotonic() - began_s >= seconds))
        finally:
            run.close()
    if as_json:
        terminal.show_line(run.summary())
        return terminal.Code.OK
    say(run.words())
    say(NEXT.format(config=config, folder=folder))
    return terminal.Code.OK


def _prepared(folder: Path) -> Path:
    """The settings file of the demo, in its folder."""
    (folder / "events").mkdir(parents=True, exist_ok=True)
    for name in ("impressions.jsonl", "clicks.jsonl"):
        (folder / "events" / name).touch()
    config = folder / "headrace.toml"
    if not config.exists():
        shutil.copyfile(templates.place_of("demo"), config)
    return config


class Run:
    """One run of the demo. `began_s`: when the command began."""

    def __init__(
        self, loop: Loop, stage: up.Stage, folder: Path, rate: float, began_s: float, say: Callable[[str], None]
    ) -> None:
        from headrace.cli.demo_scores import Frozen, Scores, Tail

        self.first_answer_s: float | None = None
        self.first_swap_s: float | None = None
        self._loop, self._stage, self._began_s, self._say = loop, stage, began_s, say
        self._client: Client | None = None
        self._scores: Scores = Scores()
        self._frozen: Frozen = Frozen(loop)
        self._truth = Tail(folder / "events" / "truth.jsonl")
        self._version: int | None = None
        self._shown_s = float("-inf")
        self._told: set[str] = set()
        sample = min(1.0, 500 / rate)
        self._feed = subprocess.Popen(
            [
                *(sys.executable, "-m", "headrace.feed.grow", str(folder / "events")),
                *("--rate", str(rate), "--change-s", str(CHANGE_S), "--sample", str(sample)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "feed.log").open("wb"),
            start_new_session=True,
        )

    def until(self, stop: Callable[[], bool]) -> None:
        """Keeps the processes running, asks, and shows, until `stop()`."""
        self._say("the server starts; it answers before anything is learned …")
        while not stop():
            now_s = time.monotonic()
            self._stage.watch(now_s)
            self._connect()
            if self._client is not None:
                self._frozen.find()
                self._ask(self._client, now_s)
            if now_s - self._shown_s >= SHOW_S and self._scores.count:
                self._shown_s = now_s
                self._say(self._line(now_s))
            time.sleep(max(0.0, now_s + STEP_S - time.monotonic()))

    def close(self) -> None:
        """Ends all processes."""
        self._feed.terminate()
        stop_all(self._stage.children.values())
        self._feed.wait()
        if self._client is not None:
            self._client.close()

    def summary(self) -> dict[str, Any]:
        """The last line of `--json`."""
        from headrace.cli.demo_scores import percentile

        total = self._scores.total()
        head = self._loop.version_log().head()
        return {
            **{name: total[name] for name in ("live", "frozen", "best")},
            "first_answer_s": self.first_answer_s,
            "first_swap_s": self.first_swap_s,
            "versions": 0 if head is None else head.seq + 1,
            "freshness_s": {f"p{part}": percentile(self._scores.freshness_s, part) for part in (50, 99)},
            "events": self._events(),
            "scored": total["n"],
        }

    def words(self) -> str:
        """What was seen."""
        seen = self.summary()
        if not self._scores.count:
            return "no trained version was served yet: run it for a minute; the logs are in the folder"
        gap, lost = (seen[name]["log_loss"] - seen["best"]["log_loss"] for name in ("live", "frozen"))
        return (
            f"seen: {seen['versions']} versions, first answer after {seen['first_answer_s']:.1f} s, "
            f"first trained one after {seen['first_swap_s']:.1f} s, {seen['scored']:,} impressions scored before "
            f"their click; above the best possible log-loss: live {gap:.4f}, frozen {lost:.4f}"
        )

    def _connect(self) -> None:
        if self._client is not None:
            return
        for beat in status.heartbeats(self._loop.store):
            if beat.role == "server" and beat.living(clock.now_us()) and beat.info.get("address"):
                from paramserver.client import Client

                self._client = Client(beat.info["address"], deadline_s=1.0)

    def _ask(self, client: Client, now_s: float) -> None:
        if self.first_answer_s is None:
            try:
                answer = client.predict(ASK)
            except HeadraceError:
                self._client = None
                client.close()
                return
            self.first_answer_s = time.monotonic() - self._began_s
            self._say(f"first answer after {self.first_answer_s:.1f} s: version {answer.version}")
            self._say("the trainer loads TensorFlow and learns; from then on, live against frozen …")
        last = self._scores.ask(self._truth.read(), client, self._frozen, now_s)
        if last is not None and last.watermark_us is not None and self.first_swap_s is None:
            self.first_swap_s = time.monotonic() - self._began_s
            self._say(f"first trained version {last.version} after {self.first_swap_s:.1f} s")
            self._say("   s  version  fresh s  live     frozen   best     (log-loss of the last 20 s; less is better)")
        if last is not None:
            self._version = last.version

    def _line(self, now_s: float) -> str:
        seen = self._scores.recent(now_s)
        live, frozen, best = (seen[name]["log_loss"] for name in ("live", "frozen", "best"))
        changed = now_s - self._began_s >= CHANGE_S
        words = ""
        if changed and "change" not in self._told:
            self._told.add("change")
            words = "  <- the feed changes now: topics change places"
        elif changed and frozen - live > 0.01:
            words = f"  <- the frozen model loses {frozen - live:.3f}"
        fresh = self._scores.freshness_s[-1] if self._scores.freshness_s else float("nan")
        version = self._version if self._version is not None else "-"
        at_s = now_s - self._began_s
        return f"{at_s:4.0f}  {version:>7}  {fresh:7.1f}  {live:.4f}   {frozen:.4f}   {best:.4f}{words}"

    def _events(self) -> dict[str, int]:
        head = self._loop.shard_log().head()
        counts = list(head.body["counts"].values()) if head is not None else []
        names = sorted({name for one in counts for name in one} | {"read", "emitted", QUARANTINED})
        total = {name: sum(one.get(name, 0) for one in counts) for name in names}
        return {("quarantined" if name == QUARANTINED else name): n for name, n in total.items()}
