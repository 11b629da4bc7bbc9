"""`headrace probe`: how fresh a running loop is, measured from outside.

Every `EVERY_S` a fresh value of one `id` feature gets `k` events with an extreme label, appended to the loop's own
sources; all replicas are asked 20 times a second for its score, beside a control value that has no events. Each event
is like another recent one, so that the label is learned of the value and not of what else an event says. The scores are
of the recent event with which a value without events scores nearest to 1/2, where the same step of the weights moves a
score most; the label is the one that is farther from that score. So the probes of one run, which share what is learned
of other features, do not end in scores of 0 or 1 that nothing moves. What counts, and what is left out of the figure:
`headrace.cli.probe_figures`.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace import clock
from headrace.cli import options, resident, terminal
from headrace.cli.probe_figures import LONGEST_S, Commit, Probe, stages_of, summary
from headrace.errors import HeadraceError, SettingsError, Unreachable
from headrace.place import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.cli.probe_appends import Place
    from headrace.config import Settings
    from headrace.features import Feature
    from headrace.loop import Loop

EVERY_S: Final = 2.0
POLL_S: Final = 0.05
WORDS: Final = {
    "shard": "appended -> in a shard record",
    "version": "in a shard record -> in a version",
    "served": "in a version -> served",
}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "probe",
        epilog=terminal.examples(
            "headrace probe                          half a minute of probes against `headrace up`",
            "headrace probe --seconds 180 --k 50 --json",
            "headrace probe --replica 127.0.0.1:8500 --replica 127.0.0.1:8501",
        ),
    )(probe)


def probe(
    *,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Append probes for so long.")] = 30.0,
    k: Annotated[int, typer.Option("--k", min=1, max=10_000, help="Events for each fresh value.")] = 50,
    feature: Annotated[str, typer.Option("--feature", help="The `id` feature; default: the first.")] = "",
    replica: Annotated[list[str] | None, typer.Option("--replica", help="host:port; default: all that live.")] = None,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Measure from outside how fresh the running loop is.

    It appends events to your sources: the model learns from the probes.
    """
    from headrace.cli.probe_appends import places_of

    settings = options.load(config)
    loop = options.open_loop(settings)
    replicas = replica or _living(loop)
    probed = _feature(settings, feature)
    prober = Prober(settings, places_of(settings), probed, k)
    terminal.say(
        f"{k} events for each fresh value of '{probed.name}' go into the loop's own sources: "
        "the model trains on its probes"
    )
    with resident.until_stopped(f"headrace probe -c {config}") as stop:
        watchers = [Watcher(address, prober.open) for address in replicas]
        try:
            probes = _run(prober, watchers, seconds, stop)
        finally:
            for watcher in watchers:
                watcher.end()
                if watcher.problem is not None:
                    terminal.say(f"{watcher.address} did not always answer: {watcher.problem.message}")
    found = result(probes, loop, replicas, k=k, wait_s=prober.wait_s, disorder_s=settings.pipeline.disorder_s)
    if as_json:
        terminal.show_line(found)
    else:
        terminal.show(as_text(found))
    return terminal.Code.OK if found["counted"] == found["probes"] else terminal.Code.FAILED


def result(
    probes: Sequence[Probe], loop: Loop, replicas: Sequence[str], *, k: int, wait_s: float, disorder_s: float
) -> dict[str, Any]:
    """What `--json` prints."""
    excluded_s = wait_s + disorder_s
    delays = [probe.freshness_s(replica, excluded_s) for probe in probes for replica in replicas]
    since_us = min((probe.appended_us for probe in probes), default=0)
    shards = _commits(loop.shard_log(), "committed_at_us", since_us)
    versions = _commits(loop.version_log(), "created_at_us", since_us)
    stages = stages_of(probes, shards, versions, excluded_s)
    return {
        "freshness_s": summary(delays),
        "probes": len(probes),
        "counted": sum(len(probe.counted_us) == len(replicas) for probe in probes),
        "uncounted": [
            {"covered": bool(probe.first_us), "moved": max(probe.moved.values(), default=None)}
            for probe in probes
            if len(probe.counted_us) < len(replicas)
        ],
        "k": k,
        "replicas": list(replicas),
        "excluded_s": {"label_wait": wait_s, "disorder": disorder_s},
        "stages_s": {name: summary(values) for name, values in stages.items()},
    }


def as_text(found: dict[str, Any]) -> str:
    """The result for people."""
    fresh, excluded = found["freshness_s"], found["excluded_s"]
    rows = [(WORDS[name], stage["p50"], stage["p99"]) for name, stage in found["stages_s"].items()]
    rows.append(("appended -> first answer that counts", fresh["p50"], fresh["p99"]))
    return (
        terminal.table(rows, ("seconds", "p50", "p99"))
        + f"\n\n{found['counted']} of {found['probes']} fresh values counted on all of {len(found['replicas'])} "
        f"replicas within {LONGEST_S:.0f} s; k = {found['k']} events each; left out of the figures: "
        f"label wait {excluded['label_wait']:g} s, disorder bound {excluded['disorder']:g} s"
    )


class Prober:
    """Makes and appends probes. `open`: those that are still waited for."""

    def __init__(self, settings: Settings, places: dict[str, Place], feature: Feature, k: int) -> None:
        self.open: list[Probe] = []
        self.wait_s = float(settings.label.wait_s or 0.0) if settings.label.mode == "implicit" else 0.0
        self.excluded_s = self.wait_s + settings.pipeline.disorder_s
        self._settings, self._places, self._feature, self._k = settings, places, feature, k
        self._nonce, self._count = secrets.token_hex(3), 0
        self._like, self._label = places["impression"].recent[0], 1

    def aim(self, scores: Callable[[dict[str, list[Any]]], Sequence[float]]) -> None:
        """Chooses what the next probe is scored with: the event with which a value without events is nearest to 1/2."""
        recent = self._places["impression"].recent
        others = [self._others(event) for event in recent]
        asked = {name: [each[name] for each in others] for name in others[0]}
        found = scores({self._feature.name: [f"probe-{self._nonce}"] * len(recent), **asked})
        self._like, score = min(zip(recent, found, strict=True), key=lambda one: abs(one[1] - 0.5))
        self._label = 1 if score < 0.5 else 0

    def append(self) -> Probe:
        """Appends the events of one fresh value."""
        self._count += 1
        name = f"probe-{self._nonce}-{self._count}"
        now_us = clock.now_us()
        others = itertools.islice(itertools.cycle(self._places["impression"].recent), self._k)
        impressions = [self._impression(like, name, now_us) for like in others]
        feedback = [self._feedback(event, now_us) for event in impressions] if self._is_told() else []
        due_us = now_us + int(self.wait_s * 1e6)
        asked = self._others(self._like)
        made = Probe(name, f"{name}-control", self._label, now_us, due_us, self._feature.name, asked)
        self._places["impression"].append(impressions)
        if feedback:
            self._places[self._settings.feedback_name].append(feedback)
        self.open.append(made)
        return made

    def _impression(self, like: dict[str, Any], value: str, now_us: int) -> dict[str, Any]:
        from headrace.cli.probe_appends import changed, time_in, value_at

        stream = self._settings.impression
        number = isinstance(value_at(like, path_of(stream.id)), int)
        event_id = secrets.randbits(52) if number else f"{value}-{secrets.token_hex(6)}"
        event = changed(like, path_of(stream.id), event_id)
        event = changed(event, path_of(stream.time), time_in(stream.time_unit, now_us))
        return changed(event, self._feature.path, value)

    def _feedback(self, impression: dict[str, Any], now_us: int) -> dict[str, Any]:
        from headrace.cli.probe_appends import changed, time_in, value_at

        stream, place = self._settings.feedback, self._places[self._settings.feedback_name]
        event_id = value_at(impression, path_of(self._settings.impression.id))
        event = changed(place.recent[0], path_of(stream.id), event_id)
        event = changed(event, path_of(stream.time), time_in(stream.time_unit, now_us))
        return changed(event, path_of(stream.label), self._label) if stream.label else event

    def _is_told(self) -> bool:
        """Whether the label comes as feedback: an implicit 0 is what does not come."""
        return bool(self._label) or self._settings.label.mode == "explicit"

    def _others(self, impression: dict[str, Any]) -> dict[str, Any]:
        from headrace.cli.probe_appends import value_at

        features = [one for one in self._settings.schema().features if one.kind != "cross"]
        return {one.name: value_at(impression, one.path) for one in features if one.name != self._feature.name}


class Watcher:
    """Asks one replica 20 times a second for all open probes."""

    def __init__(self, address: str, probes: list[Probe]) -> None:
        from paramserver.client import Client

        self.address = address
        self.problem: HeadraceError | None = None
        self._probes = probes
        self._client = Client(address, deadline_s=1.0)
        self._client.status()  # Unreachable is said at once
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe-{address}", daemon=True)
        self._thread.start()

    def scores(self, features: dict[str, list[Any]]) -> list[float]:
        """Of so many candidates; Unreachable, NotReady, InvalidRequest."""
        return [float(score) for score in self._client.predict(features).scores]

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._ended.wait(POLL_S):
            probes = [probe for probe in tuple(self._probes) if self.address not in probe.counted_us]
            if probes:
                self._ask(probes)

    def _ask(self, probes: list[Probe]) -> None:
        try:
            answer = self._client.predict(candidates_of(probes))
        except HeadraceError as problem:  # a server that restarts: not answered is not counted
            self.problem = problem
            return
        at_us = clock.now_us()
        for place, probe in enumerate(probes):
            pair = [float(score) for score in answer.scores[2 * place : 2 * place + 2]]
            probe.take(self.address, pair, answer.watermark_us, at_us)


def candidates_of(probes: Sequence[Probe]) -> dict[str, list[Any]]:
    """One request for all: of each probe the fresh value, then its control."""
    others = {
        feature: [probe.features[feature] for probe in probes for _ in range(2)] for feature in probes[0].features
    }
    return {probes[0].feature: [value for probe in probes for value in (probe.value, probe.control)], **others}


def _run(prober: Prober, watchers: Sequence[Watcher], seconds: float, stop: Callable[[], bool]) -> list[Probe]:
    """Appends for so long, and waits until every probe is over."""
    probes: list[Probe] = []
    until_s, next_s = time.monotonic() + seconds, time.monotonic()
    replicas = [watcher.address for watcher in watchers]
    while not stop():
        now_s = time.monotonic()
        if now_s >= next_s and now_s < until_s:
            with contextlib.suppress(HeadraceError):  # a server that restarts: like the one before
                prober.aim(watchers[0].scores)
            probes.append(prober.append())
            next_s += EVERY_S
        for probe in tuple(prober.open):
            if probe.over(replicas, clock.now_us(), prober.excluded_s):
                prober.open.remove(probe)
        if now_s >= until_s and not prober.open:
            break
        time.sleep(POLL_S)
    return probes


def _living(loop: Loop) -> list[str]:
    from headrace import status

    found = [
        str(beat.info["address"])
        for beat in status.heartbeats(loop.store)
        if beat.role == "server" and beat.living(clock.now_us()) and beat.info.get("address")
    ]
    if not found:
        raise Unreachable("no server of this loop lives", hint="start `headrace up`, or name one with --replica")
    return found


def _feature(settings: Settings, name: str) -> Feature:
    ids = [feature for feature in settings.schema().features if feature.kind == "id"]
    chosen = next((feature for feature in ids if name in ("", feature.name)), None)
    if chosen is None:
        known = ", ".join(feature.name for feature in ids) or "none"
        raise SettingsError(
            f"there is no feature {name!r} of kind id (there is: {known})",
            hint="a probe needs values that nobody has seen: name a feature of kind id",
            feature=name,
        )
    return chosen


def _commits(log: Any, at: str, since_us: int) -> list[Commit]:
    """The records committed since, oldest first."""
    commits: list[Commit] = []
    for seq in reversed(log.seqs()):
        body = log.read(seq).body
        if body[at] < since_us:
            break
        if body["watermark_us"] is not None:
            commits.append(Commit(seq, body["watermark_us"], body[at]))
    return commits[::-1]
