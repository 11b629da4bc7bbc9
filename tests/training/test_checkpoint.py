"""Checkpoints: exact, deterministic, readable for ever; damage and newer formats are refused."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import DamagedFile, NewerFormat
from headrace.store import open_store
from headrace.version import Kept
from training.expiry import FOR_GOOD
from training.recipe import design_of

pytestmark = [pytest.mark.tensorflow, pytest.mark.xdist_group("tensorflow")]

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = FOLDER / "checkpoint-format1.npz"


def state_of(settings: Any) -> Any:
    from training.state import State

    return State(design_of(settings, settings.schema()))


def kept(store: Any, data: bytes) -> Kept:
    store.write("c.npz", data)
    return Kept(of=1, path="c.npz", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def test_a_state_comes_back_whole_and_equal_states_give_equal_files(made_up: Any) -> None:
    from training.checkpoint import read_checkpoint, same_machine, write_checkpoint

    settings, rows = made_up("dcn_v2", 90)
    store = open_store("memory://checkpoints")
    state, again = state_of(settings), state_of(settings)
    state.learn(rows)
    state.frozen_of = 1
    one = write_checkpoint(store, "a", state, 7, "aaaaaaaa")
    meta = read_checkpoint(store, one, again)
    assert same_machine(meta)
    assert (meta["version"], again.rows, again.frozen_of) == (7, 90, 1)
    two = write_checkpoint(store, "b", again, 7, "bbbbbbbb")
    assert (one.path, one.sha256) == ("a/000000000007-aaaaaaaa.npz", two.sha256)
    np.testing.assert_array_equal(state.learn(rows), again.learn(rows))


def test_the_checkpoint_of_format_1_is_read_for_ever(made_up: Any) -> None:
    from training.checkpoint import read_checkpoint

    settings, rows = made_up("lr", 30)
    state = state_of(settings)
    meta = read_checkpoint(open_store("memory://golden-checkpoint"), _golden("memory://golden-checkpoint"), state)
    assert (meta["format"], meta["version"], state.rows, state.frozen_of) == (1, 1, 30, 1)
    fresh = state_of(settings)
    fresh.learn(rows)
    assert state.correction() == 0  # late positives are not in it: that estimate begins anew
    index = state.learner.tables["linear"].index
    assert not index.newest_us.any()
    assert (index.feature == FOR_GOOD).all()
    for name, value in fresh.arrays().items():
        if not name.startswith("arrival/") and not name.endswith(("/newest_us", "/feature")):
            np.testing.assert_allclose(state.arrays()[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_checkpoint_of_format_2_is_read_for_ever_with_the_rows_that_went(
    drawn: Any, settings_of: Any, lasting: Any
) -> None:
    from training.checkpoint import read_checkpoint
    from training.table import FREE

    settings = lasting(settings_of("lr"))
    state, fresh = state_of(settings), state_of(settings)
    store = open_store("memory://golden-checkpoint-2")
    meta = read_checkpoint(store, kept(store, (FOLDER / "checkpoint-format2.npz").read_bytes()), state)
    assert (meta["format"], state.rows, state.newest_us) == (2, 60, 10_000_029)
    for record in (5, 10):
        fresh.learn(drawn(settings, 30, record))
    index = state.learner.tables["linear"].index
    assert (index.ids == FREE).sum() == index.used - index.live > 10
    for name, value in fresh.arrays().items():
        np.testing.assert_allclose(state.arrays()[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def _golden(url: str) -> Kept:
    return kept(open_store(url), GOLDEN.read_bytes())


def test_damage_and_newer_formats_are_refused(made_up: Any) -> None:
    from training.checkpoint import read_checkpoint

    settings, _ = made_up("lr", 1)
    store = open_store("memory://damaged")
    state = state_of(settings)
    data = bytearray(GOLDEN.read_bytes())
    good = kept(store, bytes(data))
    data[len(data) // 2] ^= 1
    store.delete("c.npz")
    store.write("c.npz", bytes(data))
    with pytest.raises(DamagedFile, match="does not have the SHA-256"):
        read_checkpoint(store, good, state)
    sink = io.BytesIO()
    np.savez(sink, meta=np.frombuffer(json.dumps({"format": 3}).encode(), np.uint8))
    store.delete("c.npz")
    with pytest.raises(NewerFormat, match="has format 3"):
        read_checkpoint(store, kept(store, sink.getvalue()), state)
