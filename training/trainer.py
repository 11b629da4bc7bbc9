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

import contextlib
import time
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from headrace import clock, control, lines, metrics, status
from headrace.collector import VersionCollector
from headrace.errors import Busy, HeadraceError, LostRace, NotFound, StoreFull
from headrace.failpoints import hit
from headrace.log import Follower
from headrace.requests import KINDS as REQUESTS
from headrace.room import Room
from headrace.triggers import due
from headrace.version import KINDS, VersionRecord, union
from training import records as record_of
from training import schedule
from training.candidate import Candidate, Encoded, Encoding, encoded, learned, norm_of
from training.files import FOLDER, Files
from training.gate import Decision, Limits, decide, tried
from training.golden import frozen_scorer
from training.history import History
from training.judge import Judge
from training.pace import Pace
from training.publish import differing
from training.reading import ahead
from training.recipe import design_of
from training.recover import plan_of, published_at, published_since, recovered
from training.start import continues, write_start
from training.surprise import RECENT, Past
from training.tower import has_tower, template_of
from training.trial import Trial, Verdict
from training.waiting import Waiting, examples_at, examples_in, releasable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.collector import Collected
    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop
    from headrace.published import PublishedTable
    from headrace.scoring import Scorer
    from headrace.shard import ShardRecord
    from training.examples import Examples
    from training.gate import Report
    from training.state import State

ROLE = "trainer"
FULL_S = 1.0  # between two tries while the disk is full
NEXT_S = 0.05  # between two looks for the record that a candidate is tried on


class Trainer:
    """Recovers from the log of `loop` (or begins a lineage in it), then makes one version per `step`."""

    _head: Entry
    _record: VersionRecord
    _state: State
    _published: PublishedTable
    _waiting: Waiting
    _reference: Scorer | None
    _past: Past
    _judge: Judge
    _norm: float | None
    _decided_us: int | None
    _stop: Callable[[], bool]
    _dirty: bool

    def __init__(self, loop: Loop, settings: Settings, *, now_us: clock.Now = clock.now_us) -> None:
        self._loop, self._store, self._settings, self._now_us = loop, loop.store, settings, now_us
        self._schema = settings.schema()
        self._design = design_of(settings, self._schema)
        self._log, self._shards, self._requests = loop.version_log(), loop.shard_log(), loop.requests()
        self._history = History(self._log)
        self._claim = status.Claim(loop.store, ROLE, self._info)
        self._collector = VersionCollector(loop, settings)
        self._room = Room(loop.store, settings.retention.max_bytes)
        self._singly_until = self._due_until = -1
        self._stop = bool
        self._files = Files(loop.store, FOLDER, settings.train)
        self._pace = Pace(self._design.recipe, settings.train.deadline_s)
        for kind in KINDS:
            metrics.VERSIONS.labels(kind)  # from 0 on: Prometheus sees no increase in a series that begins with 1
        self._begin(loop)
        self._recover()
        sizes = {name: value.shape for name, value in self._state.tower_weights().items()}
        self._template = template_of(self._design.shape, sizes) if has_tower(self._design.shape) else None

    @property
    def record(self) -> VersionRecord:
        """The newest version that this trainer knows."""
        return self._record

    def step(self, *, request: Entry | None = None) -> Entry | None:
        """Makes the next version, if something is due; or all that a request, and those open before it, ask for.

        Busy, LogRewritten, DamagedFile.
        """
        if request is None:
            return self._step([])
        since = Follower(self._requests, record_of.answered(self._record)).poll()
        asked = [one for one in since if REQUESTS.get(one.kind) == ROLE and one.seq <= request.seq]
        made: Entry | None = None
        while asked:
            made = self._step(asked) or made
            asked = record_of.unanswered(self._record, asked)
        return made

    def run(self, *, stop: Callable[[], bool], poll_s: float = 0.2) -> None:
        """Resident: steps whenever something is due, until `stop()` or a request says so. Waits while another lives."""
        if self._claim.rival():
            while self._claim.rival() and not stop():
                time.sleep(poll_s)
            self._recover()
        self._files.resident, self._stop = True, stop
        requests = Follower(self._requests, record_of.answered(self._record))
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
                    asked = record_of.unanswered(self._record, asked)
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
            self._fold()
            if left := record_of.unanswered(self._record, asked):
                self._say_stopped(left)

    def _step(self, asked: Sequence[Entry]) -> Entry | None:
        self._claim.take()
        if self._dirty:
            self._recover()
        began = time.monotonic()
        release = asked[0] if asked and asked[0].kind == "release" else None
        now = list(takewhile(lambda request: request.kind != "release", asked))
        records = [] if release is not None else self._due(now)
        if not records and not asked:
            return None
        try:
            if release is not None:
                version = self._release(release)
            else:
                version = self._train(records, now) if records else self._empty(now)
        except LostRace:
            self._fold()
            return self._step(record_of.unanswered(self._record, asked))
        metrics.STEP_SECONDS.observe(time.monotonic() - began)
        return version

    # candidates

    def _stopped(self) -> bool:
        """Whether nothing is learned any more unless somebody asks: `gate.on_max_holds`."""
        gate = self._settings.gate
        return gate.on_max_holds == "stop" and self._past.row >= gate.max_holds

    def _due(self, asked: Sequence[Entry]) -> list[ShardRecord]:
        """The records of the next candidate."""
        if self._stopped() and not asked:
            return []
        waiting, on = self._waiting.poll(), self._settings.train.on
        decided = bool(asked) or not waiting or waiting[0].seq <= self._due_until
        if not decided and not self._is_due(self._waiting.rows):  # before a look at each: a day of them may wait
            return []
        records = schedule.candidate(waiting, on=on)
        if records and records[0].seq > self._due_until:
            ready = schedule.ready(waiting, on=on)
            if not asked and not self._is_due(sum(record.rows for record in ready)):
                return []
            self._due_until = ready[-1].seq
        return schedule.smallest(records) if records and records[0].seq <= self._singly_until else records

    def _is_due(self, rows: int) -> bool:
        triggers = self._settings.train.triggers
        return due(triggers, rows=rows, decided_us=self._decided_us, now_us=self._now_us())

    def _train(self, records: Sequence[ShardRecord], asked: Sequence[Entry]) -> Entry:
        """Steps 1 to 8."""
        examples = ahead(records, lambda record: examples_in(self._shards, record, self._schema))
        self._dirty = True  # until it is committed, or undone
        self._judge.begin()
        batch = self._pace.batch(sum(record.rows for record in records), self._state.rows)
        candidate = learned(self._state, records, examples, self._frozen(), self._look, batch)
        if candidate is None:
            return self._commit(self._advanced(records, asked))
        self._pace.took(candidate.steps, candidate.seconds)
        result = encoded(self._state, self._published, self._template, candidate.newest, self._encoding())
        decision = decide(self._report(candidate, result), self._limits())
        if decision.action == "publish":
            decision = self._tried(candidate, result, decision)
        if decision.action != "publish":
            return self._hold(candidate, result, decision, asked)
        trial = self._judge.weigh(self._head.seq)
        verdict = trial.verdict(self._settings.gate.rows) if trial is not None else None
        if trial is not None and verdict is not None:
            if verdict.reason and (back := self._way_back(verdict)) is not None:
                self._undo(result)
                return self._roll_back(back, verdict, asked)
            trial = trial.decided(verdict)

        def trained() -> VersionRecord:
            return replace(self._advanced(records, asked), batch=batch)

        return self._publish(candidate, result, decision, trial, verdict, trained)

    def _release(self, request: Entry) -> Entry:
        """A version that releases and trains what the request names. Its labels are vouched for: surprise is waived."""
        shards = union([(int(low), int(high)) for low, high in request.body["args"]["shards"]])
        records, refused = releasable(self._shards, self._record, shards, self._schema)
        if refused:
            return self._commit(self._next("delta", [request], f"refused: {refused}"))

        def released() -> VersionRecord:
            return record_of.released(self._next("delta", [request], "released"), records, shards)

        examples = ahead(records, lambda record: examples_in(self._shards, record, self._schema))
        self._dirty = True
        self._judge.begin()
        candidate = learned(self._state, records, examples, self._frozen(), self._look)
        if candidate is None:
            return self._commit(released())
        result = encoded(self._state, self._published, self._template, candidate.newest, self._encoding())
        decision = decide(replace(self._report(candidate, result), surprise=None), self._limits())
        if decision.action == "publish":
            decision = self._tried(candidate, result, decision)
        if decision.action == "publish":
            return self._publish(candidate, result, decision, self._judge.trial, None, released)
        self._undo(result)
        record = self._next("hold", [request], f"refused: {'; '.join(decision.reasons)}")
        gate = {**decision.to_json(), **self._trial_json()}
        return self._commit(replace(record, evaluation=candidate.evaluation, gate=gate))

    def _tried(self, candidate: Candidate, result: Encoded, decision: Decision) -> Decision:
        """With `gate.wait_s`: the decision after the next record, if one with rows comes in that time."""
        inverse = result.inverse
        if not self._settings.gate.wait_s or inverse is None or inverse.is_snapshot:
            return decision
        rows = self._next_rows(candidate.records[-1].seq)
        if rows is None:
            return decision
        offset = result.offset - result.report.correction
        sums = self._judge.beside(self._published, offset, inverse, self._head.seq, rows)
        return tried(decision, sums)

    def _next_rows(self, after: int) -> Examples | None:
        """Of the first record with rows after number `after`, waiting up to `gate.wait_s` for it, or until the end."""
        until_s = time.monotonic() + self._settings.gate.wait_s
        while True:
            later = (record for record in self._waiting.poll() if record.seq > after and record.rows)
            record = next(later, None)
            if record is not None:
                rows = examples_in(self._shards, record, self._schema)
                return rows if len(rows) else None
            if time.monotonic() >= until_s or self._stop():
                return None
            time.sleep(NEXT_S)

    def _look(self, rows: Examples) -> None:
        self._judge.look(self._published, self._head.seq, rows)

    def _report(self, candidate: Candidate, result: Encoded) -> Report:
        return replace(
            result.report,
            surprise=self._past.surprise(candidate.excesses),
            greatest=self._past.greatest,
            shift=self._judge.shift(self._published, result.offset - result.report.correction)
            if result.report.finite
            else None,
        )

    def _limits(self) -> Limits:
        gate = self._settings.gate
        if self._past.row >= gate.max_holds:
            lines.GATE_MAX_HOLDS("surprise is waived, the loop learns what it sees", row=self._past.row)
        return Limits(gate.golden_tolerance, gate.norm_ratio, self._past.limit_after(gate.max_holds))

    def _encoding(self) -> Encoding:
        return Encoding(
            version=self._head.seq + 1,
            base=self._head.seq,
            eps=self._settings.train.eps,
            golden=self._settings.gate.golden,
            norm_before=self._norm,
        )

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
        version = result.delta.of
        if self._state.frozen_of is None:
            self._state.frozen_of = version
        self._state.settle()
        delta = self._files.delta(result.delta)
        self._files.copy(version, self._record, self._published, self._state, self._now_us())
        record = replace(
            begun(),
            delta=delta,
            digest=self._published.digest().to_json(),
            offset=result.offset,
            evaluation=candidate.evaluation,
            gate={**decision.to_json(), "trial": (trial or Trial(version)).to_json()},
            verdicts=(verdict.to_json(),) if verdict is not None else (),
        )
        self._norm = result.report.norm
        metrics.ROWS_LEARNED.inc(sum(each.rows for each in candidate.records))
        entry = self._commit(record)
        self._judge.publish(version, result.inverse, trial)
        return entry

    def _hold(self, candidate: Candidate, result: Encoded, decision: Decision, asked: Sequence[Entry]) -> Entry:
        """Undoes the candidate and records it as held; of several records, each is tried alone first."""
        self._undo(result)
        alone = schedule.smallest(candidate.records)
        if len(alone) < len(candidate.records):
            self._singly_until = candidate.records[-1].seq
            return self._train(alone, asked)
        cursor = self._waiting.cursor_of(candidate.records[-1])
        record = record_of.held(self._next("hold", asked, "held"), candidate.records, cursor)
        gate = {**decision.to_json(), **self._trial_json()}
        return self._commit(replace(record, evaluation=candidate.evaluation, gate=gate))

    def _undo(self, result: Encoded) -> None:
        self._state.undo()
        if result.inverse is not None:
            self._published.apply(result.inverse)

    def _way_back(self, verdict: Verdict) -> VersionRecord | None:
        """The record that goes back to the anchor; None, and said why, if the loop goes on with what is worse."""
        trial, gate = self._judge.trial, self._settings.gate
        if trial is not None and trial.rollbacks >= gate.max_holds:
            lines.GATE_MAX_ROLLBACKS(f"{verdict.reason}; the loop goes on", row=trial.rollbacks)
            return None
        try:
            return control.planned_rollback(
                self._loop, self._record, verdict.anchor, self._history, now_us=self._now_us()
            )
        except HeadraceError as error:
            lines.TRAINER_NO_WAY_BACK(f"{verdict.reason}; {error.message}", version=verdict.anchor)
            return None

    def _roll_back(self, back: VersionRecord, verdict: Verdict, asked: Sequence[Entry]) -> Entry:
        """Goes back to the anchor: what was learned since is held."""
        trial = Trial(back.version, rollbacks=(self._judge.trial.rollbacks if self._judge.trial else 0) + 1)
        record = replace(
            back,
            gate={"action": "rollback", "by": "trainer", "reason": verdict.reason, "trial": trial.to_json()},
            verdicts=(verdict.to_json(),),
            requests=self._next("rollback", asked, "rolled back").requests,
        )
        entry = self._log.append(record.kind, self._still_due(record).to_body(), self._head)
        lines.VERSION_ROLLED_BACK(verdict.reason, version=entry.seq, to=verdict.anchor)
        metrics.VERSIONS.labels(record.kind).inc()
        self._recover()
        return entry

    def _still_due(self, record: VersionRecord) -> VersionRecord:
        """`record`, with how far a trigger said to learn, if some of that waits after it."""
        learned = record.cursor.seq if record.cursor is not None else -1
        return replace(record, due_until=self._due_until if self._due_until > learned else None)

    def _trial_json(self) -> dict[str, Any]:
        return {"trial": self._judge.trial.to_json()} if self._judge.trial is not None else {}

    # versions

    def _next(self, kind: str, asked: Sequence[Entry], outcome: str) -> VersionRecord:
        """The next record as far as it repeats the head's; names what became durable aside."""
        named = self._files.take()
        record = record_of.following(self._record, kind, asked, outcome, named=named, now_us=self._now_us())
        return replace(record, gate=self._trial_json())

    def _advanced(self, records: Sequence[ShardRecord], asked: Sequence[Entry]) -> VersionRecord:
        """The next record, after `records` were trained."""
        return record_of.trained(self._next("delta", asked, "trained"), records, self._waiting.cursor_of(records[-1]))

    def _empty(self, asked: Sequence[Entry]) -> Entry:
        return self._commit(self._next("delta", asked, "nothing to train"))

    def _commit(self, record: VersionRecord) -> Entry:
        """Steps 7 and 8."""
        record = self._still_due(record)
        hit("trainer.before_commit")
        entry = self._log.append(record.kind, record.to_body(), self._head)
        hit("trainer.committed")
        self._room.took(record.delta.bytes if record.delta is not None else 0)
        self._head, self._record, self._dirty = entry, record, False
        self._decided_us = record_of.decided_us([record], self._decided_us)
        self._files.named = {}
        self._past = self._past.after([record])
        metrics.HOLDS_IN_A_ROW.set(self._past.row)
        if record.cursor is not None:
            self._waiting.drop(record.cursor)
        record_of.tell(record)
        metrics.VERSIONS.labels(record.kind).inc()
        return entry

    # state

    def _recover(self) -> None:
        """State, published table and place in the shard log, as of the newest version."""
        head = self._log.head()
        assert head is not None
        self._log.sync(head.seq)
        self._head, self._record = head, VersionRecord.from_entry(head)
        if not continues(self._record, self._design, self._schema):
            raise _superseded(self._record)
        plan = plan_of(head.seq, self._history)
        self._state = recovered(
            self._store, self._design, plan, lambda seq: examples_at(self._shards, seq, self._schema)
        )
        self._published, self._judge = self._judged()
        if differing(self._state.learner.tables, self._published) and self._state.rows:  # imported rows differ, too
            lines.TRAINER_OTHER_ROWS("learned again with other settings; the next version says what differs")
        self._reference = None
        newest = self._history.newest(self._record, 2 * RECENT)
        self._past = Past(self._settings.gate.surprise).after(newest)
        self._decided_us = record_of.decided_us(newest, None)
        self._due_until = max(self._due_until, -1 if self._record.due_until is None else self._record.due_until)
        self._norm = norm_of(self._state.tower_weights()) if self._state.rows else None
        self._files.begin(self._history.made_us(self._record.checkpoint))
        self._waiting = Waiting(self._shards, self._record.cursor, self._schema)
        self._dirty = False
        lines.TRAINER_RECOVERED(version=head.seq, replayed=len(plan.replay))

    def _judged(self) -> tuple[PublishedTable, Judge]:
        """The published table, and the trial that the newest record tells of; a new one if its anchor is gone."""
        told, version = self._record.gate.get("trial"), self._head.seq
        if told is not None:
            trial = Trial.from_json(told)
            with contextlib.suppress(NotFound):
                table, inverses = published_since(self._store, self._design, trial.anchor, version, self._history)
                return table, Judge(self._design, trial, inverses, self._history.offset)
        table = published_at(self._store, self._design, version, self._history)
        return table, Judge(self._design, Trial(version) if self._state.rows else None, (), self._history.offset)

    def _frozen(self) -> Scorer | None:
        """The first version of the lineage that learned anything, as published, but for what late positives add.

        Labels are those after `wait_s`, of which the live weights know only these. Made when first needed.
        """
        of = self._state.frozen_of
        if of is not None and self._reference is None:
            try:
                published = published_at(self._store, self._design, of, self._history)
            except NotFound:  # collected, and this process has not held it since before
                lines.TRAINER_FROZEN_COLLECTED(f"what is frozen now is version {self._head.seq}", version=of)
                of = self._state.frozen_of = self._head.seq
                published = published_at(self._store, self._design, of, self._history)
            record = self._history(of)
            self._reference = frozen_scorer(self._design, published, record.offset - record.gate.get("correction", 0.0))
        return self._reference

    # other writers

    def _begin(self, loop: Loop) -> None:
        """A `start` record, if the log is empty or its head has another model or other features. Busy."""
        head = self._log.head()
        if head is not None and continues(VersionRecord.from_entry(head), self._design, self._schema):
            return
        other = self._claim.rival()
        if other is not None:
            raise status.busy(other)
        with contextlib.suppress(LostRace):  # to one that began at the same time: `_recover` looks whether it fits
            write_start(loop, self._settings, now_us=self._now_us)
            if head is not None:
                lines.LINEAGE_BEGUN("other features or another model; it learns anew", after=head.seq)

    def _fold(self) -> None:
        """After a lost race: goes on from the winner, or Busy if that is a living trainer."""
        other = self._claim.rival()
        if other is not None:
            raise status.busy(other)
        self._recover()

    def _info(self) -> dict[str, Any]:
        cursor = self._record.cursor.seq if self._record.cursor else None
        return {"version": self._head.seq, "cursor": cursor, "problem": self._problem()}

    def _problem(self) -> str:
        if self._stopped():
            return (
                f'{self._past.row} surprises in a row, and gate.on_max_holds = "stop": nothing is learned until '
                "`headrace retrain` says that what comes is to be believed"
            )
        return self._room.problem


def _superseded(record: VersionRecord) -> Busy:
    return Busy(
        f"version {record.version} belongs to another model ({record.model.get('kind')}) or has other features",
        hint="another trainer began a new lineage; start this one again with the settings that are wanted",
        version=record.version,
    )
