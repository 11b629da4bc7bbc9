"""Deltas and snapshots: rows survive the file, folds agree, digests depend on no order, damage is noticed."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import headrace.delta
from headrace.delta import (
    Change,
    Delta,
    Digest,
    Numbers,
    TableSpec,
    decode_rows,
    encode_rows,
    hash_sum,
    load_delta,
    read_delta,
    row_hashes,
    write_delta,
)
from headrace.errors import DamagedFile, NewerFormat, NotFound
from headrace.idindex import IdIndex
from headrace.published import PublishedTable, digest_of
from headrace.store import open_store

SPECS = (TableSpec("linear", 1, "f32", ("a", "b")), TableSpec("embedding", 3, "int8", ("a",)))
_names = itertools.count()


def delta_of(version: int, base: int | None, rows: dict[str, dict[int, list[float] | None]], tower=None) -> Delta:
    """`rows`: {table: {id: values, or None for a tombstone}}."""
    changes = []
    for spec in SPECS:
        given_ = rows.get(spec.name, {})
        kept = {id_: values for id_, values in given_.items() if values is not None}
        gone = np.array([id_ for id_, values in given_.items() if values is None], np.int64)
        values = np.array(list(kept.values()), np.float32).reshape(len(kept), spec.width)
        changes.append(Change.of_rows(spec, np.array(list(kept), np.int64), values, gone))
    return Delta(version, base, tuple(changes), tower, Numbers((1.5,), (0.25,)))


ids = st.integers(0, 2**63 - 1) | st.integers(0, 12)
numbers = st.floats(-1e3, 1e3, width=32)


def table_rows(width: int):
    row = st.none() | st.lists(numbers, min_size=width, max_size=width)
    return st.dictionaries(ids, row, max_size=12)


histories = st.lists(
    st.fixed_dictionaries({spec.name: table_rows(spec.width) for spec in SPECS}), min_size=1, max_size=6
)


@given(histories)
@settings(deadline=None, max_examples=60)
def test_the_fold_of_the_deltas_is_the_snapshot(history):
    folded, plain = PublishedTable(SPECS), {spec.name: {} for spec in SPECS}
    for version, rows in enumerate(history, 1):
        tower = b"tower %d" % version if version % 2 else None
        folded.apply(read_delta(write_delta(delta_of(version, version - 1, rows, tower))))
        for name, changed in rows.items():
            plain[name] |= changed
    plain = {name: {i: values for i, values in rows.items() if values is not None} for name, rows in plain.items()}
    last = len(history)
    fresh = delta_of(last, None, plain, folded.tower)  # an independent fold: Python dictionaries
    assert write_delta(folded.snapshot(last)) == write_delta(fresh)
    assert folded.digest() == digest_of(fresh)  # kept up to date == from scratch
    loaded = PublishedTable()
    loaded.apply(read_delta(write_delta(fresh)))
    assert loaded.digest() == folded.digest()
    for spec in SPECS:
        absent = next(id_ for id_ in range(100) if id_ not in plain[spec.name])
        wanted = np.array([*plain[spec.name], absent], np.int64)
        scale, rows, found = folded.lookup(spec.name, wanted)
        assert found.tolist() == [True] * len(plain[spec.name]) + [False]
        assert (decode_rows(scale, rows, spec) == loaded_rows(loaded, spec, wanted)).all()


def loaded_rows(table: PublishedTable, spec: TableSpec, wanted):
    scale, rows, _ = table.lookup(spec.name, wanted)
    return decode_rows(scale, rows, spec)


@given(st.permutations(range(20)), st.integers(1, 19))
def test_the_digest_depends_on_no_order(order, cut):
    random = np.random.default_rng(7)
    all_ids = random.integers(0, 2**63 - 1, 20)
    scale, rows = encode_rows(random.normal(size=(20, 3)).astype(np.float32), "int8")
    whole = hash_sum(row_hashes("embedding", all_ids, scale, rows))
    parts = (np.array(order[:cut]), np.array(order[cut:]))
    sums = [hash_sum(row_hashes("embedding", all_ids[part], scale[part], rows[part])) for part in parts]
    assert sum(sums) % 2**64 == whole


def reference_hash(table: str, id_: int, scale: np.float32, row: bytes) -> int:
    """The formula of the module's docstring, in Python integers."""
    import farmhash

    def mix(x: int) -> int:
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 % 2**64
        return x ^ (x >> 32)

    h = mix((mix(id_ ^ farmhash.fingerprint64(table)) + int(np.float32(scale).view(np.uint32))) % 2**64)
    for start in range(0, len(row), 8):
        h = mix(h ^ int.from_bytes(row[start : start + 8].ljust(8, b"\0"), "little"))
    return h


@pytest.mark.parametrize("row_bytes", [1, 3, 4, 8, 12, 16, 17, 64])
def test_row_hashes_are_the_documented_formula(row_bytes):
    random = np.random.default_rng(row_bytes)
    some = random.integers(0, 2**63 - 1, 5)
    scale = random.random(5).astype(np.float32)
    rows = random.integers(0, 256, (5, row_bytes), np.uint8)
    expected = [reference_hash("t", int(i), s, r.tobytes()) for i, s, r in zip(some, scale, rows, strict=True)]
    assert row_hashes("t", some, scale, rows).tolist() == expected


def test_any_change_changes_the_digest():
    base = delta_of(1, None, {"linear": {5: [1.0]}, "embedding": {5: [1.0, 2.0, 3.0]}}, b"t")
    others = [
        delta_of(1, None, {"linear": {5: [1.0]}, "embedding": {5: [1.0, 2.0, 3.0]}}, b"u"),
        delta_of(1, None, {"linear": {5: [1.5]}, "embedding": {5: [1.0, 2.0, 3.0]}}, b"t"),
        delta_of(1, None, {"linear": {6: [1.0]}, "embedding": {5: [1.0, 2.0, 3.0]}}, b"t"),
        delta_of(1, None, {"linear": {5: [1.0]}, "embedding": {5: [1.0, 2.0, 3.1]}}, b"t"),
        delta_of(1, None, {"linear": {5: [1.0]}}, b"t"),
    ]
    assert len({digest_of(base), *map(digest_of, others)}) == 6


def test_a_digest_survives_json():
    digest = Digest(3, 2**64 - 1, "ab")
    assert digest.to_json() == {"rows": 3, "sum": "f" * 16, "tower": "ab", "numbers": ""}
    assert Digest.from_json(json.loads(json.dumps(digest.to_json()))) == digest


rows_of_floats = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9), elements=numbers
)


@given(rows_of_floats, st.sampled_from(["int8", "f16", "f32"]))
def test_rows_come_back_within_the_precision_of_the_encoding(rows, encoding):
    spec = TableSpec("t", rows.shape[1], encoding, ("a",))
    scale, encoded = encode_rows(rows, encoding)
    assert encoded.shape == (len(rows), spec.row_bytes)
    back = decode_rows(scale, encoded, spec)
    assert back.dtype == np.float32
    largest = np.abs(rows).max(axis=1, initial=0)[:, None]
    allowed = {"int8": largest / 250, "f16": np.abs(rows) / 1000 + 1e-7, "f32": 0}[encoding]
    assert (np.abs(back - rows) <= allowed + np.float32(1e-37)).all()


def test_int8_is_the_documented_formula():
    scale, encoded = encode_rows(np.array([[12.7, -6.35, 0.0], [0.0, 0.0, 0.0]], np.float32), "int8")
    assert scale.tolist() == [np.float32(12.7) / np.float32(127), 0.0]
    assert encoded.view(np.int8).tolist() == [[127, -64, 0], [0, 0, 0]]


def test_rows_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        encode_rows(np.array([[np.nan]], np.float32), "int8")


def test_reading_copies_nothing():
    data = write_delta(delta_of(2, 1, {"embedding": {7: [1.0, 2.0, 3.0], 9: None}}))
    change = read_delta(data).changes[1]
    start = np.frombuffer(data, np.uint8).ctypes.data
    for array in (change.ids, change.scale, change.rows, change.tombstones):
        assert start <= array.ctypes.data < start + len(data)
        assert not array.flags.writeable


def test_the_same_content_has_the_same_bytes_in_any_order():
    one = delta_of(2, 1, {"linear": {1: [1.0], 2: [2.0], 8: None, 9: None}})
    other = delta_of(2, 1, {"linear": {9: None, 2: [2.0], 8: None, 1: [1.0]}})
    assert write_delta(one) == write_delta(other)


def test_the_file_is_what_the_docstring_says():
    data = write_delta(delta_of(2, 1, {"linear": {4: [0.5], 3: None}}, b"flatbuffer"))
    reader = pa.ipc.open_file(data)
    meta = json.loads(reader.schema.metadata[b"headrace"])
    assert meta == {
        "format": 1,
        "of": 2,
        "base": 1,
        "tables": [
            {"name": "linear", "width": 1, "encoding": "f32", "features": ["a", "b"], "rows": 1, "tombstones": 1},
            {"name": "embedding", "width": 3, "encoding": "int8", "features": ["a"], "rows": 0, "tombstones": 0},
        ],
        "tower": True,
        "numbers": {"mean": [1.5], "scale": [0.25]},
    }
    assert reader.get_batch(0).to_pydict() == {"id": [4, 3], "scale": [1, 0], "row": [b"\0\0\0\x3f", None]}
    assert reader.get_batch(2).to_pydict() == {"id": [0], "scale": [1], "row": [b"flatbuffer"]}


@pytest.mark.parametrize("rows", [{1: [1.0]}, {}])
def test_an_id_twice_is_refused(rows):
    change = Change.of_rows(SPECS[0], np.array([5, 5]), np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match="table linear: an id occurs twice"):
        write_delta(Delta(1, 0, (change, Change.nothing(SPECS[1]))))
    both = Change.of_rows(SPECS[0], np.array([5]), np.ones((1, 1), np.float32), np.array([5]))
    with pytest.raises(ValueError, match="an id occurs twice"):
        write_delta(Delta(1, 0, (both,)))


def test_a_table_whose_rows_come_and_go_does_not_grow():
    table = PublishedTable(SPECS)
    for version in range(1, 300):
        gone = {version - 1: None} if version > 1 else {}
        table.apply(delta_of(version, version - 1, {"linear": {version: [0.5], **gone}}))
    assert table.digest().rows == 1
    assert table._tables[[spec.name for spec in SPECS].index("linear")]._used <= 2


def test_a_delta_with_other_tables_is_refused():
    table = PublishedTable(SPECS)
    with pytest.raises(DamagedFile, match="has other tables"):
        table.apply(Delta(1, 0, (Change.nothing(SPECS[0]),)))


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    return open_store(f"memory://delta-{next(_names)}" if request.param == "memory" else str(tmp_path))


def stored(store, data: bytes) -> str:
    store.write("d.arrow", data)
    return hashlib.sha256(data).hexdigest()


def test_a_stored_delta_is_loaded(store):
    data = write_delta(delta_of(2, 1, {"linear": {4: [0.5]}}))
    loaded = load_delta(store, "d.arrow", stored(store, data))
    assert (loaded.of, loaded.base, loaded.changes[0].ids.tolist()) == (2, 1, [4])


def test_every_flipped_bit_is_noticed(store):
    data = write_delta(delta_of(2, 1, {"linear": {4: [0.5], 5: [1.0]}}, b"t" * 50))
    sha256 = hashlib.sha256(data).hexdigest()
    for at in np.random.default_rng(3).integers(0, 8 * len(data), 60):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << (at % 8)
        store.overwrite("d.arrow", bytes(flipped))
        with pytest.raises(DamagedFile, match=r"d\.arrow"):
            load_delta(store, "d.arrow", sha256)


def test_without_the_hash_check_flipped_bits_go_unnoticed(monkeypatch):
    """The twin: the structure alone shows little."""
    monkeypatch.setattr(headrace.delta, "check_sha256", lambda *_: None)
    store = open_store(f"memory://delta-{next(_names)}")
    data = write_delta(delta_of(2, 1, {"embedding": {i: [1.0, 2.0, float(i)] for i in range(500)}}))
    row = data.index(read_delta(data).changes[1].rows[250].tobytes())
    flipped = bytearray(data)
    flipped[row] ^= 0x40
    sha256 = stored(store, bytes(flipped))
    assert load_delta(store, "d.arrow", sha256).changes[1].rows.tobytes() != read_delta(data).changes[1].rows.tobytes()


def test_a_truncated_or_missing_file_is_noticed(store):
    sha256 = stored(store, write_delta(delta_of(2, 1, {})))
    store.overwrite("d.arrow", b"")
    with pytest.raises(DamagedFile):
        load_delta(store, "d.arrow", sha256)
    store.delete("d.arrow")
    with pytest.raises(NotFound, match=r"d\.arrow is missing") as caught:
        load_delta(store, "d.arrow", sha256)
    assert "restored from a copy" in caught.value.hint


def test_what_is_not_a_delta_is_damaged():
    for data in (b"", b"{}", b"ARROW1\0\0nothing", write_delta(delta_of(2, 1, {}))[:-20]):
        with pytest.raises(DamagedFile, match="is not a delta or snapshot"):
            read_delta(data, name="x.arrow")


def test_a_newer_format_says_to_upgrade(monkeypatch):
    monkeypatch.setattr(headrace.delta, "FORMAT", 2)
    data = write_delta(delta_of(2, 1, {}))
    monkeypatch.undo()
    with pytest.raises(NewerFormat, match=r"x\.arrow has format 2, this headrace reads up to 1") as caught:
        read_delta(data, name="x.arrow")
    assert "upgrade" in caught.value.hint


@given(st.lists(st.dictionaries(ids, st.integers(0, 1000) | st.none(), max_size=30), max_size=8))
@settings(deadline=None)
def test_the_index_is_a_dictionary_and_older_ones_stay(steps):
    index, plain, older = IdIndex.empty(), {}, []
    for step in steps:
        kept = {id_: row for id_, row in step.items() if row is not None}
        gone = np.array([id_ for id_, row in step.items() if row is None], np.int64)
        index = index.updated(np.array(list(kept), np.int64), np.array(list(kept.values()), np.int32), gone)
        plain = {id_: row for id_, row in (plain | step).items() if row is not None}
        older.append((index, plain))
    for index, plain in older:
        wanted = [*plain, 77, 2**62]
        assert index.find(np.array(wanted, np.int64)).tolist() == [plain.get(id_, -1) for id_ in wanted]
        assert len(index) == len(plain)
        found, rows = index.items()
        assert dict(zip(found.tolist(), rows.tolist(), strict=True)) == plain


def test_the_digest_knows_the_statistics_of_numbers():
    digests = {digest_of(Delta(1, None, (), None, Numbers((mean,), (1.0,)))) for mean in (0.0, 5.0)}
    assert len(digests) == 2
    assert digest_of(Delta(1, None, ())).numbers == ""


@given(histories, st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_the_inverse_of_a_delta_takes_it_back(history, until):
    table = PublishedTable(SPECS)
    known, inverses = [], []
    for version, rows in enumerate(history, 1):
        delta = delta_of(version, version - 1, rows, b"tower %d" % version if version % 2 else None)
        known.append((table.digest(), write_delta(table.snapshot(0))))
        inverses.append(table.inverse(delta))
        table.apply(delta)
    for (digest, snapshot), inverse in list(zip(known, inverses, strict=True))[: until - 1 if until else None : -1]:
        table.apply(read_delta(write_delta(inverse)) if inverse.changes else inverse)
        assert table.digest() == digest
        assert write_delta(table.snapshot(0)) == snapshot


def test_f16_keeps_eleven_bits_and_stays_finite():
    spec = TableSpec("wide", 2, "f16", ("a",))
    rows = np.array([[1.0009765625, -3.0517578125e-05], [1e6, -1e6]], np.float32)
    change = Change.of_rows(spec, np.array([1, 2]), rows)
    assert change.decoded().tolist() == [[1.0009765625, -3.0517578125e-05], [65504.0, -65504.0]]
    assert change.rows.shape == (2, 4)
