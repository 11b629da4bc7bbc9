"""The journal of a candidate: undo gives back every bit; and its twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from training.recipe import design_of

if TYPE_CHECKING:
    from training.state import State

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]


def everything(state: State) -> dict[str, Any]:
    """All that a checkpoint has, what is not in use of the tables, and which rows are touched."""
    seen: dict[str, Any] = {**state.arrays(), **state.meta()}
    for name, table in state.learner.tables.items():
        seen[f"{name}/touched"] = np.flatnonzero(table.touched)
        used = table.index.used
        assert not table.weights[used:].numpy().any()
        assert (table.slots[used:].numpy() == 1).all()
    return seen


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_undo_gives_back_every_bit_and_leaves_no_trace(settings_of: Any, drawn: Any) -> None:
    from training.state import State

    settings = settings_of("dcn_v2", train={"batch_warmup": 16})
    design = design_of(settings, settings.schema())
    state, plain = State(design), State(design)
    random = np.random.default_rng(4)
    for round_ in range(6):
        sizes = random.integers(1, 90, random.integers(1, 4))
        before = everything(state)
        state.begin()
        for at, rows in enumerate(sizes):
            state.learn(drawn(settings, int(rows), 1000 + 10 * round_ + at))
        state.undo()
        assert_same(everything(state), before)
        both = drawn(settings, 70, round_)
        state.begin()
        np.testing.assert_array_equal(state.learn(both), plain.learn(both))
        if round_ % 2:  # else the rows stay touched when the next candidate begins
            state.settle()
            plain.settle()
        assert_same(everything(state), everything(plain))


def test_undo_through_growth_of_the_tables(settings_of: Any) -> None:
    from training.table import INIT_SCALE, Table

    table, plain = (Table("t", 3, seed=1, scale=INIT_SCALE) for _ in range(2))
    random = np.random.default_rng(0)
    kept = random.choice(2**62, 900, replace=False)
    table.rows_of(kept)
    plain.rows_of(kept)
    for _ in range(12):  # ids that are given back must not fill the index
        table.index.begin()
        table.rows_of(random.choice(2**62, 3000, replace=False))
        table.undo()
        table.index.undo()
    more = np.concatenate([random.choice(2**62, 2000, replace=False), kept[:5]])
    np.testing.assert_array_equal(table.rows_of(more), plain.rows_of(more))
    for part, value in plain.state().items():
        np.testing.assert_array_equal(table.state()[part], value)
    assert len(table.touched) <= 4096


def test_twin_without_the_journal_of_rows_undo_leaves_traces(
    settings_of: Any, drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.state import State
    from training.table import Table

    settings = settings_of("lr")
    state = State(design_of(settings, settings.schema()))
    state.learn(drawn(settings, 50, 0))
    before = everything(state)
    monkeypatch.setattr(Table, "_save", lambda _self, _rows: None)
    state.begin()
    state.learn(drawn(settings, 50, 1))
    state.undo()
    with pytest.raises(AssertionError):
        assert_same(everything(state), before)


def test_undo_gives_back_rows_that_went_and_were_taken_again(settings_of: Any, lasting: Any, ever_new: Any) -> None:
    from training.examples import examples_of
    from training.state import State

    settings = lasting(settings_of("dcn_v2", train={"batch_warmup": 16}))
    schema, design = settings.schema(), design_of(settings, settings.schema())
    state, plain = State(design), State(design)
    for record in range(0, 30, 3):
        before = everything(state)
        state.begin()
        for ahead in range(5):
            state.learn(examples_of([ever_new(settings, 100 + 3 * record + ahead)], schema))
        state.undo()
        assert_same(everything(state), before)
        for one in (state, plain):
            one.begin()
            one.learn(examples_of([ever_new(settings, record)], schema))
            one.settle()
        assert_same(everything(state), everything(plain))


def test_twin_without_the_journal_of_dropped_rows_undo_leaves_traces(
    settings_of: Any, lasting: Any, ever_new: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.examples import examples_of
    from training.state import State
    from training.table import RowIndex

    settings = lasting(settings_of("lr"))
    schema, design = settings.schema(), design_of(settings, settings.schema())
    state = State(design)
    state.learn(examples_of([ever_new(settings, 0)], schema))
    before = everything(state)
    monkeypatch.setattr(RowIndex, "_give_back", lambda *_: None)
    state.begin()
    state.learn(examples_of([ever_new(settings, 9)], schema))
    state.undo()
    with pytest.raises(AssertionError):
        assert_same(everything(state), before)


def test_undo_needs_begin(settings_of: Any) -> None:
    from training.state import State

    settings = settings_of("lr")
    with pytest.raises(RuntimeError, match="without begin"):
        State(design_of(settings, settings.schema())).undo()


def test_corrections_move_the_offset_and_nothing_else(settings_of: Any, drawn_table: Any) -> None:
    from training.examples import examples_of
    from training.state import State

    settings = settings_of("lr", label={"wait_s": 1, "attribution_s": 8})
    schema, off = settings.schema(), settings.replace("label", late_positives="ignore")
    state, ignores = State(design_of(settings, schema)), State(design_of(off, schema))
    for record in range(4):
        rows = drawn_table(settings, 400, record)
        late = rows.filter(pc.equal(rows["label"], 1)).slice(0, 60)
        kinds, delays = pa.array(["correction"] * 60), pa.array(np.full(60, 3_000_000))
        late = late.set_column(late.column_names.index("row_kind"), "row_kind", kinds)
        late = late.set_column(late.column_names.index("delay_us"), "delay_us", delays)
        moved = late["emit_time_us"].to_numpy() + 60_000_000
        late = late.set_column(late.column_names.index("emit_time_us"), "emit_time_us", pa.array(moved))
        both = examples_of([pa.concat_tables([rows, late])], schema)
        assert len(both) == 400
        before = state.correction()
        state.begin()
        state.learn(both)
        state.undo()
        assert state.correction() == before
        np.testing.assert_array_equal(state.learn(both), ignores.learn(both))
    assert state.correction() > 0.1
    assert ignores.correction() == 0
    again = State(design_of(settings, schema))
    again.restore(state.arrays(), state.meta())
    assert again.correction() == state.correction()


@pytest.mark.parametrize("kind", ["lr", "dcn_v2"])
def test_corrections_raise_the_offset_of_the_version_and_pass_the_golden_gate(
    feed: Any, kind: str, drawn_table: Any
) -> None:
    from training.tower import has_tower
    from training.trainer import Trainer

    made = feed(kind, label={"wait_s": 1, "attribution_s": 8}, train={"batch_warmup": 16})
    trainer = Trainer(made.loop, made.settings)
    for seq in range(3):
        rows = drawn_table(made.settings, 300, seq)
        late = rows.slice(0, 60)
        columns = {
            "impression_id": pa.array([f"late-{seq}-{n}" for n in range(60)]),
            "label": pa.array(np.ones(60, np.float32)),
            "row_kind": pa.array(["correction"] * 60),
            "delay_us": pa.array(np.full(60, 3_000_000)),
            "emit_time_us": pa.array(late["emit_time_us"].to_numpy() + 60_000_000),
        }
        for name, values in columns.items():
            late = late.set_column(late.column_names.index(name), name, values)
        made.append(pa.concat_tables([rows, late]))
        trainer.step()
    assert (trainer.record.kind, trainer.record.version) == ("delta", 3)
    bias = 0.0 if has_tower(trainer._live.state.design.shape) else float(trainer._live.state.tower_weights()["bias"][0])
    assert trainer.record.offset - bias == pytest.approx(trainer._live.state.correction(), abs=1e-6)
    assert trainer._live.state.correction() > 0.2
