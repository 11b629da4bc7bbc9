"""Records: what is written is read back, and damage never passes for data."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import record
from headrace.errors import DamagedFile, HeadraceError, LogError
from headrace.log import Entry, Log
from headrace.store.memory import MemoryStore

PREFIX = "models/default/log"


def text(size):
    return st.text('ab"\\\n\0é\u2028😀', max_size=size)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text(20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text(5), inner, max_size=4),
    max_leaves=12,
)
names = st.text("abcdefgh_", min_size=1, max_size=8)


@given(st.dictionaries(names, values, max_size=6), st.integers(0, 10**11))
def test_what_is_encoded_is_decoded(body, seq):
    attempt = record.encode(PREFIX, seq, "delta", "0a1b2c3d", "", body)
    entry = record.decode(attempt.data, "x", seq)
    assert entry == attempt.entry
    assert entry.body == body
    assert entry.sha256 == record.sha256_of(attempt.data)


@given(st.dictionaries(names, st.lists(text(3000), max_size=12), max_size=6))
def test_records_stay_within_16_kib_however_long_their_lists(body):
    store = MemoryStore("lists")
    log = Log(store, PREFIX)
    for path in store.list(""):
        store.delete(path)
    entry = log.append("delta", body, None)
    assert log.read(0).body == entry.body == body
    assert len(store.read(record.name_of(PREFIX, 0))) <= record.MAX_RECORD_BYTES


def test_the_largest_fields_move_first():
    body = {"small": [1] * 10, "large": list(range(4000)), "middle": list(range(500))}
    attempt = record.encode(PREFIX, 3, "delta", "0a1b2c3d", "", body)
    assert list(attempt.details) == ["models/default/detail/000000000003-large-0a1b2c3d.json"]
    assert json.loads(attempt.data)["middle"] == body["middle"]


def test_a_body_may_not_take_the_names_of_the_envelope():
    with pytest.raises(LogError, match=r"\['parent', 'seq'\]"):
        record.encode(PREFIX, 0, "delta", "0a1b2c3d", "", {"seq": 1, "parent": 2})


def test_no_nan_in_a_record():
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.encode(PREFIX, 0, "delta", "0a1b2c3d", "", {"loss": float("nan")})


@pytest.fixture
def damaged(monkeypatch):
    """A log with one record and one detail file, and its damages: (path, bytes)."""
    monkeypatch.setattr(record, "MAX_RECORD_BYTES", 420)
    store = MemoryStore("damage")
    log = Log(store, PREFIX)
    for path in store.list(""):
        store.delete(path)
    entry = log.append("delta", {"counts": {"read": 17, "late": 3}, "rows": list(range(100))}, None)
    files = [(path, store.read(path)) for path in store.list("")]
    assert len(files) == 2

    def damages():
        for path, data in files:
            for position in range(len(data) * 8):
                flipped = bytearray(data)
                flipped[position // 8] ^= 1 << position % 8
                yield path, bytes(flipped)
            for length in range(len(data)):
                yield path, data[:length]
            yield path, data + b"\n"

    def outcomes():
        """For each damage, the damaged path and what a reader gets: the entry, or the error."""
        for path, data in damages():
            store.write(path, data)
            try:
                yield path, log.read(0)
            except (HeadraceError, ValueError, KeyError, TypeError, AttributeError) as error:
                yield path, error
            store.write(path, dict(files)[path])
        assert log.read(0) == entry

    return entry, outcomes


def test_every_flipped_bit_and_every_cut_is_noticed(damaged):
    _, outcomes = damaged
    for path, outcome in outcomes():
        assert isinstance(outcome, DamagedFile)
        assert outcome.context["path"] == path
        assert outcome.hint


def test_without_the_hash_check_damage_passes_for_data(damaged, monkeypatch):
    monkeypatch.setattr(record, "check_seal", lambda data, found, path: None)
    monkeypatch.setattr(record, "check_sha256", lambda *_: None)
    entry, outcomes = damaged
    wrong = [outcome for _, outcome in outcomes() if isinstance(outcome, Entry) and outcome.body != entry.body]
    assert len(wrong) > 100


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"seq":0}'])
def test_what_is_no_record_is_damaged(data):
    with pytest.raises(DamagedFile):
        record.decode(data, "shards/log/000000000000.json", 0)


def test_a_record_with_a_key_twice_is_damaged():
    data = record.encode(PREFIX, 0, "delta", "0a1b2c3d", "", {"label": 1}).data
    with pytest.raises(DamagedFile):
        record.decode(data.replace(b'"label":1', b'"label":0,"label":1'), "x", 0)


def test_a_named_file_is_checked_before_it_is_used():
    store = MemoryStore("named")
    store.write("a", b"x")
    assert record.read_verified(store, "a", record.sha256_of(b"x")) == b"x"
    with pytest.raises(DamagedFile, match="a is damaged"):
        record.read_verified(store, "a", record.sha256_of(b"y"))
