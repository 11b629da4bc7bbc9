"""The trainer: follows the shard log, learns each record once, commits versions.

Commit order of a version (the names are those of the failpoints). Whatever dies before 7 leaves files that no record
names, and weights in memory that recovery learns again; after 7, recovery replays what the record says.

1. Read the records of a candidate and score them with the frozen reference.          trainer.scored
2. Learn them, in memory.                                                              trainer.learned
3. Encode the delta against the published table; ask the gate.                         trainer.encoded
4. Write the delta.                                                                    trainer.delta_written
5. Copy the published table and the state, if a snapshot or a checkpoint is due.       trainer.copied
6. Write them aside (`training/aside.py`), while 7 and later versions go on.           trainer.snapshot_written,
   `step` waits for that, `run` does not.                                              trainer.checkpoint_written
7. Append the version record, which names the delta, and the newest snapshot and checkpoint that are durable:
   perhaps older than this version's.                          trainer.before_commit, trainer.committed
8. Remember the new head.

Of 6: dies before a record names the file, and recovery begins at the older one. If 7 is lost, so is the copy.

A candidate that the gate refuses is undone from its journal; a `hold` record lists its shards. If it had several
records, they are tried one by one. If its records show that what is served is worse than what was served before
(training/judge.py), it is undone, too, and a `rollback` record goes back. A version number lost to a control record, or
to this trainer's dead self, is folded the same way, and the candidate planned anew; lost to a living trainer, this one
stops (`Busy`).

Held records that an operator releases are a candidate of their own: one version releases and trains them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from headrace import clock, lines, metrics, status
from headrace.collector import VersionCollector
from headrace.errors import LostRace, StoreFull
from headrace.log import Follower
from headrace.requests import KINDS as REQUESTS
from headrace.room import Room
from headrace.version import KINDS, VersionRecord, union
from training import records as record_of
from training.agenda import Agenda
from training.files import FOLDER, Files
from training.gate import Decision, Limits, decide, tried
from training.head import Head
from training.live import Live
from training.pace import Pace
from training.recipe import design_of
from training.rollback import way_back
from training.start import begin_lineage, check_continues
from training.trial import Trial
from training.waiting import releasable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.collector import Collected
    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop
    from headrace.shard import ShardRecord
    from training.candidate import Candidate, Encoded
    from training.trial import Verdict

ROLE = "trainer"
FULL_S = 1.0  # between two tries while the disk is full


class Trainer:
    """Recovers from the log of `loop` (or begins a lineage in it), then makes one version per `step`.

    It stands between the version log (`Head`), what is in memory (`Live`), the shard log (`Agenda`) and the files of
    versions (`Files`), and decides.
    """

    _dirty: bool  # what is in memory is not as of the head

    def __init__(self, loop: Loop, settings: Settings, *, now_us: clock.Now = clock.now_us) -> None:
        self._loop, self._settings, self._now_us = loop, settings, now_us
        self._schema = settings.schema()
        self._design = design_of(settings, self._schema)
        self._log, self._shards = loop.version_log(), loop.shard_log()
        self._head = Head(self._log, settings.gate.surprise)
        self._live = Live(loop.store, self._design, self._head, settings)
        self._agenda = Agenda(self._shards, self._schema, settings.train)
        self._files = Files(loop.store, FOLDER, settings.train)
        self._pace = Pace(self._design.recipe, settings.train.deadline_s)
        self._claim = status.Claim(loop.store, ROLE, self._info)
        self._collector = VersionCollector(loop, settings)
        self._room = Room(loop.store, settings.retention.max_bytes)
        self._stop: Callable[[], bool] = bool  # not before `run` says so
        for kind in KINDS:
            metrics.VERSIONS.labels(kind)  # from 0 on: Prometheus sees no increase in a series that begins with 1
        begin_lineage(loop, settings, self._claim, now_us=now_us)
        self._recover()

    @property
    def record(self) -> VersionRecord:
        """The newest version that this trainer knows."""
        return self._head.record

    def step(self, *, request: Entry | None = None) -> Entry | None:
        """Makes the next version, if something is due; or all that a request, and those open before it, ask for.

        Busy, LogRewritten, DamagedFile.
        """
        if request is None:
            return self._step([])
        since = Follower(self._loop.requests(), record_of.answered(self.record)).poll()
        asked = [one for one in since if REQUESTS.get(one.kind) == ROLE and one.seq <= request.seq]
        made: Entry | None = None
        while asked:
            made = self._step(asked) or made
            asked = record_of.unanswered(self.record, asked)
        return made

    def run(self, *, stop: Callable[[], bool], poll_s: float = 0.2) -> None:
        """Resident: steps whenever something is due, until `stop()` or a request says so. Waits while another lives."""
        if self._claim.rival():
            while self._claim.rival() and not stop():
                time.sleep(poll_s)
            self._recover()
        self._files.resident, self._stop = True, stop
        requests = Follower(self._loop.requests(), record_of.answered(self.record))
        asked: list[Entry] = []
        try:
            while not stop():
                self._claim.take()
                self._collector.run(self._now_us())
                asked += [request for request in requests.poll() if REQUESTS.get(request.kind) == ROLE]
                if any(request.kind == "stop" for request in asked):
                    self._say_stopped(asked)
                    break
                room = self._room.left()
                try:
                    made = self._step(asked) if room else None
                except StoreFull as full:  # nothing was committed: the same again
                    self._room.refused(full)
                    time.sleep(FULL_S)
                    continue
                if room:
                    self._room.freed()
                    asked = record_of.unanswered(self.record, asked)
                if made is None:
                    time.sleep(poll_s)
        finally:
            self.close()

    def collect(self) -> Collected | None:
        """One pass of retention over the version log, now."""
        self._claim.take()
        return self._collector.run(self._now_us(), force=True)

    def close(self) -> None:
        """Say that this trainer runs no more, so that a successor need not wait. What is written aside is dropped."""
        self._files.drop()
        self._claim.release()

    def _say_stopped(self, asked: Sequence[Entry]) -> None:
        try:
            self._commit(self._next("delta", asked, "stopped"))
        except LostRace:
            self._claim.check()
            self._recover()
            if left := record_of.unanswered(self.record, asked):
                self._say_stopped(left)

    # a step

    def _step(self, asked: Sequence[Entry]) -> Entry | None:
        self._claim.take()
        if self._dirty:
            self._recover()
        began = time.monotonic()
        try:
            version = self._version(asked)
        except LostRace:  # goes on from the winner, unless that is a living trainer
            self._claim.check()
            self._recover()
            return self._step(record_of.unanswered(self.record, asked))
        if version is not None:
            metrics.STEP_SECONDS.observe(time.monotonic() - began)
        return version

    def _version(self, asked: Sequence[Entry]) -> Entry | None:
        """The next version, if there is anything to make one of: a release alone, all other requests together."""
        if asked and asked[0].kind == "release":
            return self._release(asked[0])
        asked = list(takewhile(lambda request: request.kind != "release", asked))
        records: list[ShardRecord] = []
        if asked or not self._stopped():
            records = self._agenda.due(self._head.decided_us, self._now_us(), asked=bool(asked))
        if records:
            return self._train(records, asked)
        return self._commit(self._next("delta", asked, "nothing to train")) if asked else None

    def _train(self, records: Sequence[ShardRecord], asked: Sequence[Entry]) -> Entry:
        """Steps 1 to 8."""
        self._dirty = True  # until it is committed, or undone
        batch = self._pace.batch(sum(record.rows for record in records), self._live.state.rows)
        candidate = self._live.learn(records, self._agenda.examples(records), batch=batch)
        if candidate is None:
            return self._commit(self._trained(records, asked))
        self._pace.took(candidate.steps, candidate.seconds)
        result = self._live.encode(candidate)
        decision = decide(self._live.report(candidate, result), self._limits())
        if decision.action == "publish":
            decision = self._tried(candidate, result, decision)
        if decision.action != "publish":
            return self._refuse(candidate, result, decision, asked)
        trial, verdict = self._live.judge.weigh(self._head.version, self._settings.gate.rows)
        if verdict is not None and verdict.reason and (back := self._back(verdict, result, asked)) is not None:
            return back

        def trained() -> VersionRecord:
            return replace(self._trained(records, asked), batch=batch)

        return self._publish(candidate, result, decision, trial, verdict, trained)

    def _release(self, request: Entry) -> Entry:
        """A version that releases and trains what the request names. Its labels are vouched for: surprise is waived."""
        shards = union([(int(low), int(high)) for low, high in request.body["args"]["shards"]])
        records, refused = releasable(self._shards, self.record, shards, self._schema)
        if refused:
            return self._commit(self._next("delta", [request], f"refused: {refused}"))

        def released() -> VersionRecord:
            return record_of.released(self._next("delta", [request], "released"), records, shards)

        self._dirty = True
        candidate = self._live.learn(records, self._agenda.examples(records))
        if candidate is None:
            return self._commit(released())
        result = self._live.encode(candidate)
        decision = decide(replace(self._live.report(candidate, result), surprise=None), self._limits())
        if decision.action == "publish":
            decision = self._tried(candidate, result, decision)
        if decision.action == "publish":
            return self._publish(candidate, result, decision, self._live.judge.trial, None, released)
        self._live.undo(result)
        return self._hold(self._next("hold", [request], f"refused: {'; '.join(decision.reasons)}"), candidate, decision)

    # what becomes of a candidate

    def _limits(self) -> Limits:
        gate, past = self._settings.gate, self._head.past
        if past.row >= gate.max_holds:
            lines.GATE_MAX_HOLDS("surprise is waived, the loop learns what it sees", row=past.row)
        return Limits(gate.golden_tolerance, gate.norm_ratio, past.limit_after(gate.max_holds))

    def _tried(self, candidate: Candidate, result: Encoded, decision: Decision) -> Decision:
        """With `gate.wait_s`: the decision after the next record, if one with rows comes in that time."""
        wait_s, inverse = self._settings.gate.wait_s, result.inverse
        if not wait_s or inverse is None or inverse.is_snapshot:
            return decision
        rows = self._agenda.later(candidate.records[-1], wait_s, self._stop)
        return decision if rows is None else tried(decision, self._live.beside(result, rows))

    def _publish(
        self,
        candidate: Candidate,
        result: Encoded,
        decision: Decision,
        trial: Trial | None,
        verdict: Verdict | None,
        begun: Callable[[], VersionRecord],
    ) -> Entry:
        """Steps 4 to 8. begun: the record as far as it does not depend on what was encoded."""
        assert result.delta is not None
        if trial is not None and verdict is not None:
            trial = trial.decided(verdict)
        version, live = result.delta.of, self._live
        live.settle(result)
        delta = self._files.delta(result.delta)
        self._files.copy(version, self.record, live.published, live.state, self._now_us())
        record = replace(
            begun(),
            delta=delta,
            meanwhile=None,
            digest=live.published.digest().to_json(),
            offset=result.offset,
            evaluation=candidate.evaluation,
            gate={**decision.to_json(), "trial": (trial or Trial(version)).to_json()},
            verdicts=(verdict.to_json(),) if verdict is not None else (),
        )
        metrics.ROWS_LEARNED.inc(sum(each.rows for each in candidate.records))
        entry = self._commit(record)
        live.judge.publish(version, result.inverse, trial)
        return entry

    def _refuse(self, candidate: Candidate, result: Encoded, decision: Decision, asked: Sequence[Entry]) -> Entry:
        """Undoes the candidate and records it as held; of several records, each is tried alone first."""
        self._live.undo(result)
        alone = self._agenda.alone(candidate.records)
        if alone:
            return self._train(alone, asked)
        cursor = self._agenda.cursor_of(candidate.records[-1])
        record = record_of.held(self._next("hold", asked, "held"), candidate.records, cursor)
        return self._hold(record, candidate, decision)

    def _hold(self, record: VersionRecord, candidate: Candidate, decision: Decision) -> Entry:
        gate = {**decision.to_json(), **self._live.judge.to_json()}
        return self._commit(replace(record, evaluation=candidate.evaluation, gate=gate))

    def _back(self, verdict: Verdict, result: Encoded, asked: Sequence[Entry]) -> Entry | None:
        """Goes back to the anchor: what was learned since is held. None if the loop goes on with what is worse."""
        before = self._live.judge.trial
        assert before is not None  # else there were no verdict
        most = self._settings.gate.max_holds
        back = way_back(self._loop, self._head, before, verdict, most=most, now_us=self._now_us())
        if back is None:
            return None
        self._live.undo(result)
        record = replace(
            back,
            requests=self._next("rollback", asked, "rolled back").requests,
            due_until=self._agenda.due_behind(back.cursor),
        )
        entry = self._log.append(record.kind, record.to_body(), self._head.entry)
        lines.VERSION_ROLLED_BACK(verdict.reason, version=entry.seq, to=verdict.anchor)
        metrics.VERSIONS.labels(record.kind).inc()
        self._recover()
        return entry

    # the next version

    def _next(self, kind: str, asked: Sequence[Entry], outcome: str) -> VersionRecord:
        """The next record as far as it repeats the head's; names what became durable aside."""
        named = self._files.take()
        record = record_of.following(self.record, kind, asked, outcome, named=named, now_us=self._now_us())
        return replace(record, gate=self._live.judge.to_json())

    def _trained(self, records: Sequence[ShardRecord], asked: Sequence[Entry]) -> VersionRecord:
        """The next record, after `records` were trained."""
        return record_of.trained(self._next("delta", asked, "trained"), records, self._agenda.cursor_of(records[-1]))

    def _commit(self, record: VersionRecord) -> Entry:
        """Steps 7 and 8."""
        self._head.append(replace(record, due_until=self._agenda.due_behind(record.cursor)))
        self._dirty = False
        self._room.took(record.delta.bytes if record.delta is not None else 0)
        self._files.named = {}
        self._agenda.done(record.cursor)
        return self._head.entry

    def _recover(self) -> None:
        """State, published table and place in the shard log, as of the newest version."""
        self._head.read()
        check_continues(self.record, self._design, self._schema)
        self._live.recover(self._agenda.examples_at)
        self._files.begin(self._head.history.made_us(self.record.checkpoint))
        self._agenda.begin(self.record.cursor, self.record.due_until)
        self._dirty = False

    # what its heartbeat says

    def _stopped(self) -> bool:
        """Whether nothing is learned any more unless somebody asks: `gate.on_max_holds`."""
        gate = self._settings.gate
        return gate.on_max_holds == "stop" and self._head.past.row >= gate.max_holds

    def _info(self) -> dict[str, Any]:
        cursor = self.record.cursor.seq if self.record.cursor else None
        return {"version": self._head.version, "cursor": cursor, "problem": self._problem()}

    def _problem(self) -> str:
        if self._stopped():
            return (
                f'{self._head.past.row} surprises in a row, and gate.on_max_holds = "stop": nothing is learned until '
                "`headrace retrain` says that what comes is to be believed"
            )
        return self._room.problem
