"""An id has no row before enough events of it came; until then its feature's unknown row learns, and answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.ids import id_of, unknown_id
from paramserver.replica import Replica
from training.admission import WIDTH, Admission, Sketch
from training.examples import Column

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


def record_of(settings: Any, decided: Any, record: int, rows: int = 60) -> pa.Table:
    """Rows of record n: one user in two is new and comes once, with label 1; the others are five that stay, label 0."""
    events = pa.table(
        {
            "user": [f"{record}-{n}" if n % 2 else f"stays {n % 10}" for n in range(rows)],
            "item": (np.arange(rows) % 3).astype(str),
            "tags": [[f"{record}-{n}", "often"] for n in range(rows)],
            "price": np.ones(rows),
        }
    )
    label = (np.arange(rows) % 2).astype(np.float32)
    return decided(settings.schema().encode(events), label, record)


def test_a_sketch_counts_at_least_what_came_and_nearly_always_no_more() -> None:
    random = np.random.default_rng(0)
    sketch, ids = Sketch(), random.choice(2**62, 100_000, replace=False)
    events = random.integers(1, 5, len(ids))
    assert (sketch.count(ids, events) >= events).all()
    counts = sketch.count(ids[:20_000], np.zeros(20_000, np.int64))
    assert (counts >= events[:20_000]).all()
    assert (counts == events[:20_000]).mean() > 0.98


def test_a_sketch_takes_back_what_it_counted_also_through_a_turn_and_forgets_in_time() -> None:
    random = np.random.default_rng(1)
    sketch = Sketch()
    kept = random.choice(2**62, WIDTH // 2 - 10, replace=False)
    sketch.count(kept, np.ones(len(kept), np.int64))
    before = sketch.arrays()
    sketch.begin()
    for _ in range(3):
        sketch.count(random.choice(2**62, WIDTH // 2, replace=False), np.full(WIDTH // 2, 3))
    assert (sketch.count(kept[:99], np.zeros(99, np.int64)) == 0).mean() > 0.9  # of long ago
    sketch.undo()
    for name, value in sketch.arrays().items():
        np.testing.assert_array_equal(value, before[name])
    again = Sketch()
    again.restore(before)
    np.testing.assert_array_equal(
        again.count(kept[:9], np.ones(9, np.int64)), sketch.count(kept[:9], np.ones(9, np.int64))
    )


def test_ids_with_too_few_events_share_the_unknown_row() -> None:
    admission, sketch = Admission({"user": 3}), Sketch()
    ids, events = np.array([7, 8, 9]), np.array([2, 1, 3])
    known = np.array([False, True, False])
    first = admission.asked("user", ids, events, known, sketch)
    assert first.ids.tolist() == [8, 9, unknown_id("user")]  # 7 came twice, 8 has a row, 9 came three times
    assert (first.places.tolist(), first.own) == ([2, 0, 1], 2)
    again = admission.asked("user", np.array([7]), np.array([1]), np.array([False]), sketch)
    assert (again.ids.tolist(), again.own) == ([7], 1)
    assert admission.asked("item", ids, events, known, sketch).ids.tolist() == [7, 8, 9]


def test_an_event_that_has_an_id_several_times_is_one() -> None:
    codes = np.array([0, 0, 0, 1, 0], np.int32)
    listed = Column(np.array([7, 8]), codes, np.array([0, 3, 4, 5], np.int32))
    assert listed.events().tolist() == [2, 1]
    assert Column(np.array([7, 8]), codes).events().tolist() == [4, 1]


def test_rare_ids_get_no_row_and_the_server_answers_for_them_as_the_trainer_learned(feed: Any, decided: Any) -> None:
    from training.trainer import Trainer

    used = {}
    for admission in (2, 1):
        loop = feed("dcn_v2", train={"admission": admission, "batch_warmup": 8, "encoding": "f32"})
        trainer = Trainer(loop.loop, loop.settings)
        replica = Replica(loop.loop.store, loop.loop.version_log())
        for record in range(12):
            loop.append(record_of(loop.settings, decided, record))
            trainer.step()
            assert trainer.record.kind == "delta"  # golden scores agree, of ids without a row, too
            assert replica.poll()
        used[admission] = trainer._live.state.learner.tables["embedding"].index.used
        served = replica.generation()
        scores = {
            user: float(
                served.scorer.score(
                    _inputs(loop.settings, {"user": [user], "item": ["1"], "tags": [["often"]], "price": [1.0]})
                )[0]
            )
            for user in ("never seen", "0-1", "stays 2")
        }
        if admission == 2:
            assert scores["never seen"] == scores["0-1"] > 0.6 > 0.4 > scores["stays 2"]
            table = trainer._live.state.learner.tables["linear"].index
            assert table.find(np.array([unknown_id("user")])).tolist() != [-1]
            assert table.find(np.array([id_of("user", "0-1")])).tolist() == [-1]
    assert used[2] < 30 < 12 * 60 < used[1]


def _inputs(settings: Any, values: dict[str, list[Any]]) -> Any:
    from headrace.scoring import Inputs

    return Inputs.of(settings.schema().encode(pa.table(values)))


def test_counts_outlive_a_restart_and_a_refused_candidate(feed: Any, decided: Any) -> None:
    from training.trainer import Trainer

    ends = []
    for restarts in (False, True):
        loop = feed("lr", train={"admission": 3, "checkpoint_every_s": 1e-6})
        trainer = Trainer(loop.loop, loop.settings)
        for record in range(6):
            loop.append(record_of(loop.settings, decided, record % 3))  # each rare id comes once in two records
            trainer.step()
            if restarts:
                loop.poison()
                assert trainer.step().kind == "hold"
                trainer = Trainer(loop.loop, loop.settings)
        ends.append({name: value.tobytes() for name, value in trainer._live.state.arrays().items()})
    assert ends[0] == ends[1]
