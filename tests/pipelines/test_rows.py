"""Typed rows: a value that its type does not allow costs its row; types with a plain meaning are taken as they are."""

import io
import json
import uuid
from decimal import Decimal

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastavro.read import HEADER_SCHEMA

from headrace.errors import WrongType
from headrace.features import Feature
from headrace.ids import id_of
from headrace.schema import Schema
from pipelines import rows as rows_module
from pipelines.events import Limits, Stream
from pipelines.parse import parse
from pipelines.sound import unsound
from pipelines.sources.base import Rows
from pipelines.sources.files import FileSource

LIMITS = Limits(65_536, 1 << 60)
N = 50
T0 = 1_700_000_000_000_000
NOT_UTF8 = b"caf\xe9"


def stream(**changes):
    features = (
        Feature("user", "id", ("user",)),
        Feature("tags", "ids", ("tags",), max=4),
        Feature("x", "number", ("x",)),
    )
    return Stream(**{"name": "shown", "role": "impression", "id": "id", "time": "t", "features": features, **changes})


def rows(**bad):
    """Rows whose cells are as `bad` says: {column: {row: value}}; texts as bytes."""
    made = {
        "id": [b"e%d" % i for i in range(N)],
        "t": [T0 + i for i in range(N)],
        "user": [b"u%d" % (i % 7) for i in range(N)],
        "kind": [b"show" if i % 2 else b"click" for i in range(N)],
        "tags": [[b"a", b"b%d" % (i % 3)] for i in range(N)],
        "x": [i / 4 for i in range(N)],
    }
    for name, cells in bad.items():
        for row, value in cells.items():
            made[name][row] = value
    return made


def arrow_table(columns):
    text = [name for name in columns if name not in ("t", "tags", "x")]
    lists = pa.array(columns["tags"], pa.list_(pa.binary()))
    values = lists.flatten().view(pa.string())
    made = {name: pa.array(columns[name], pa.binary()).view(pa.string()) for name in text}
    made["t"] = pa.array(columns["t"]).view(pa.timestamp("us", "UTC"))
    made["tags"] = pa.ListArray.from_arrays(lists.offsets, values)
    made["x"] = pa.array(columns["x"])
    return pa.table(made)


def parquet(columns):
    sink = pa.BufferOutputStream()
    pq.write_table(arrow_table(columns), sink, row_group_size=20)
    return sink.getvalue().to_pybytes()


def arrow(columns):
    sink = pa.BufferOutputStream()
    table = arrow_table(columns)
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table, max_chunksize=20)
    return sink.getvalue().to_pybytes()


def avro(columns):
    """Written as bytes, since no writer would write such text; then the schema says that it is text."""
    types = {"t": "long", "tags": {"type": "array", "items": "bytes"}, "x": "double"}
    fields = [{"name": name, "type": types.get(name, "bytes")} for name in columns]
    sink = io.BytesIO()
    events = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    fastavro.writer(sink, {"type": "record", "name": "E", "fields": fields}, events, sync_interval=400)
    sink.seek(0)
    header = fastavro.schemaless_reader(sink, HEADER_SCHEMA, None)
    schema = json.loads(header["meta"]["avro.schema"].replace(b'"bytes"', b'"string"'))
    next(f for f in schema["fields"] if f["name"] == "t")["type"] = {"type": "long", "logicalType": "timestamp-micros"}
    header["meta"]["avro.schema"] = json.dumps(schema).encode()
    made = io.BytesIO()
    fastavro.schemaless_writer(made, HEADER_SCHEMA, header)
    return made.getvalue() + sink.read()


WRITERS = {"parquet": parquet, "arrow": arrow, "avro": avro}


def read(tmp_path, kind, columns, *streams):
    """For each stream (accepted event ids, {row: reason}, passed)."""
    (tmp_path / f"a.{kind}").write_bytes(WRITERS[kind](columns))
    source = FileSource(str(tmp_path))
    first = source.first("files")
    reach = source.reach("files", first, None, max_bytes=1 << 30, drain=True)
    answers = []
    for one in streams:
        blocks = [
            source.read(span, one.columns) for span in source.spans("files", first, reach.position, reach.identity)
        ]
        found = [parse(one, LIMITS, block) for block in blocks]
        ids = [row["_id"] for parsed in found for table in parsed.events for row in table.to_pylist()]
        refused = {event.offset: event.reason for parsed in found for event in parsed.refused}
        answers.append((ids, refused, sum(parsed.passed for parsed in found)))
    return answers


def names(*without, every=range(N)):
    return [f"e{i}" for i in every if i not in without]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_value_that_its_type_does_not_allow_costs_its_row(tmp_path, kind):
    columns = rows(
        id={3: NOT_UTF8},
        user={5: NOT_UTF8},
        t={7: 2**62, 11: -(2**62)},
        tags={20: [b"a", NOT_UTF8]},
        x={30: float("inf")},
    )
    ((ids, refused, passed),) = read(tmp_path, kind, columns, stream())
    assert refused == {3: "utf8", 5: "utf8", 7: "bad_time", 11: "bad_time", 20: "utf8", 30: "infinite"}
    assert ids == names(*refused)
    assert passed == 0


@pytest.mark.parametrize("kind", WRITERS)
def test_all_values_may_be_such(tmp_path, kind):
    columns = rows(user=dict.fromkeys(range(N), NOT_UTF8))
    assert read(tmp_path, kind, columns, stream()) == [([], dict.fromkeys(range(N), "utf8"), 0)]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_column_that_is_not_needed_may_hold_anything(tmp_path, kind):
    columns = rows(kind=dict.fromkeys(range(N), NOT_UTF8))
    assert read(tmp_path, kind, columns, stream()) == [(names(), {}, 0)]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_row_of_another_stream_is_refused_there(tmp_path, kind):
    """One whose stream cannot be told is refused by the first."""
    columns = rows(id={3: NOT_UTF8, 4: NOT_UTF8}, kind={9: NOT_UTF8, 10: NOT_UTF8})
    shown = stream(where={"kind": "show"}, shared=True)
    clicked = Stream("click", "feedback", "id", "t", where={"kind": "click"}, shared=True, first=False)
    first, second = read(tmp_path, kind, columns, shown, clicked)
    assert first == (names(3, 9, every=range(1, N, 2)), {3: "utf8", 9: "utf8", 10: "utf8"}, 24)
    assert second == (names(4, 10, every=range(0, N, 2)), {4: "utf8"}, 26)


def test_twin_without_the_look_an_id_that_is_no_text_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "unsound", lambda column: np.zeros(len(column), bool))
    table = arrow_table(rows(id={3: NOT_UTF8}))
    parsed = parse(stream(), LIMITS, Rows(table, "a", 0))
    assert parsed.accepted == N


def test_what_is_shown_of_a_refused_row():
    table = arrow_table(rows(id={3: NOT_UTF8}, t={4: 2**62}))
    first, second = parse(stream(), LIMITS, Rows(table, "a", 1_000)).refused
    assert (first.offset, second.offset) == (1_003, 1_004)
    assert json.loads(first.raw)["id"] == "caf\\xe9"
    assert json.loads(first.raw)["user"] == "u3"
    assert json.loads(first.raw)["x"] == 0.75
    assert json.loads(second.raw)["t"] == 2**62


def test_unsound_values_are_found_wherever_they_stand():
    text = pa.array([b"a", b"\xff", None, b"b"]).view(pa.string())
    times = pa.array([1, 90_000_000, None, 5], pa.int32()).view(pa.time32("ms"))
    wanted = [False, True, False, False]
    assert unsound(text).tolist() == unsound(times).tolist() == wanted
    assert unsound(pa.StructArray.from_arrays([text, times], ["a", "b"])).tolist() == wanted
    assert unsound(text.cast(pa.large_string())).tolist() == wanted
    assert unsound(pa.ListArray.from_arrays([0, 0, 2, 3, 4], text)).tolist() == [False, True, False, False]
    assert unsound(text.slice(1, 2)).tolist() == [True, False]
    assert unsound(text.slice(2)).tolist() == [False, False]
    assert unsound(text.cast(pa.large_string()).slice(2)).tolist() == [False, False]
    assert unsound(pa.array(["ä", "", None], pa.string())).tolist() == [False] * 3
    assert unsound(pa.array([None, None], pa.string())).tolist() == [False] * 2
    assert unsound(pa.array([], pa.large_string())).tolist() == []


def test_damaged_offsets_of_an_arrow_file_are_no_bad_value(tmp_path):
    table = arrow_table(rows())
    offsets = np.frombuffer(table["id"].chunk(0).buffers()[1], np.int32).copy()
    offsets[5] = 10**6
    ids = pa.Array.from_buffers(pa.string(), N, [None, pa.py_buffer(offsets), table["id"].chunk(0).buffers()[2]])
    sink = pa.BufferOutputStream()
    table = table.set_column(0, "id", ids)
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    (tmp_path / "a.arrow").write_bytes(sink.getvalue().to_pybytes())
    source = FileSource(str(tmp_path))
    first = source.first("files")
    reach = source.reach("files", first, None, max_bytes=1 << 30, drain=True)
    (span,) = source.spans("files", first, reach.position, reach.identity)
    assert [one.reason for one in parse(stream(), LIMITS, source.read(span)).refused] == ["broken_piece"]


ID = "8d7f5b1c-0a4e-4d5e-9a53-5a1f0e3c2b11"


def plain_table():
    return pa.table(
        {
            "id": pa.array([uuid.UUID(ID).bytes], pa.uuid()),
            "t": pa.array([T0], pa.timestamp("us", "UTC")),
            "user": pa.array(["u"]).dictionary_encode(),
            "account": pa.array([Decimal(2**70)], pa.decimal128(38, 0)),
            "city": pa.array(["x"], pa.string_view()),
            "x": pa.array([Decimal("12.50")], pa.decimal128(9, 2)),
            "tags": pa.ListArray.from_arrays([0, 2], pa.array(["a", "b"]).dictionary_encode()),
            "about": pa.StructArray.from_arrays([pa.array(["deep"]).dictionary_encode()], ["place"]),
        }
    )


PLAIN = (
    Feature("user", "category", ("user",)),
    Feature("account", "id", ("account",)),
    Feature("city", "id", ("city",)),
    Feature("x", "number", ("x",)),
    Feature("tags", "ids", ("tags",), max=4),
    Feature("place", "id", ("about", "place")),
)


def check_plain(tmp_path, name):
    source = FileSource(str(tmp_path / name))
    first = source.first("files")
    reach = source.reach("files", first, None, max_bytes=1 << 30, drain=True)
    (span,) = source.spans("files", first, reach.position, reach.identity)
    one = stream(features=PLAIN)
    parsed = parse(one, LIMITS, source.read(span, one.columns))
    assert parsed.refused == ()
    (events,) = parsed.events
    assert events["_id"].to_pylist() == [ID]
    raw = {feature.name: events[feature.name].combine_chunks() for feature in PLAIN}
    assert Schema(PLAIN).encode_features(raw).to_pylist() == [
        {
            "user": id_of("user", "u"),
            "account": id_of("account", str(2**70)),
            "city": id_of("city", "x"),
            "x": 12.5,
            "tags": [id_of("tags", "a"), id_of("tags", "b")],
            "place": id_of("place", "deep"),
        }
    ]


def test_types_with_a_plain_meaning_in_parquet(tmp_path):
    pq.write_table(plain_table(), tmp_path / "a.parquet")
    check_plain(tmp_path, "a.parquet")


@pytest.mark.parametrize("form", ["file", "stream"])
def test_types_with_a_plain_meaning_in_arrow(tmp_path, form):
    with getattr(pa.ipc, f"new_{form}")(str(tmp_path / "a.arrow"), plain_table().schema) as file:
        file.write_table(plain_table())
    check_plain(tmp_path, "a.arrow")


@pytest.mark.parametrize("size", [0, 16])
def test_types_with_a_plain_meaning_in_avro(tmp_path, size):
    fixed = {"type": "fixed", "size": 16, "name": "U", "logicalType": "uuid"}
    types = {
        "id": fixed if size else {"type": "string", "logicalType": "uuid"},
        "t": {"type": "long", "logicalType": "timestamp-millis"},
        "user": {"type": "enum", "name": "U2", "symbols": ["u"]},
        "account": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0},
        "city": ["string", {"type": "string", "logicalType": "uuid"}],
        "x": {"type": "fixed", "size": 8, "name": "D", "logicalType": "decimal", "precision": 9, "scale": 2},
        "tags": {"type": "array", "items": "string"},
        "about": {"type": "map", "values": "string"},
    }
    schema = {"type": "record", "name": "E", "fields": [{"name": n, "type": t} for n, t in types.items()]}
    event = {
        "id": uuid.UUID(ID).bytes if size else uuid.UUID(ID),
        "t": T0 // 1_000,
        "user": "u",
        "account": Decimal(2**70),
        "city": "x",
        "x": Decimal("12.50"),
        "tags": ["a", "b"],
        "about": {"place": "deep"},
    }
    with (tmp_path / "a.avro").open("wb") as file:
        fastavro.writer(file, schema, [event])
    check_plain(tmp_path, "a.avro")


@pytest.mark.parametrize(
    ("union", "values", "wanted"),
    [
        (["int", "long"], [1, 2**60], [1, 2**60]),
        (["null", "int", "double"], [1, None, 2.5], [1.0, None, 2.5]),
        (["float", "long"], [7, 0.5], [7.0, 0.5]),
        (["string", {"type": "enum", "name": "C", "symbols": ["red"]}], ["blue", "red"], ["blue", "red"]),
    ],
)
def test_unions_with_a_plain_meaning(tmp_path, union, values, wanted):
    fields = [{"name": "id", "type": "string"}, {"name": "x", "type": union}]
    with (tmp_path / "a.avro").open("wb") as file:
        fastavro.writer(
            file,
            {"type": "record", "name": "E", "fields": fields},
            [{"id": str(i), "x": value} for i, value in enumerate(values)],
        )
    source = FileSource(str(tmp_path))
    first = source.first("files")
    reach = source.reach("files", first, None, max_bytes=1 << 30, drain=True)
    (span,) = source.spans("files", first, reach.position, reach.identity)
    assert source.read(span).table["x"].to_pylist() == wanted


def test_an_id_of_decimals_with_places_is_refused_by_name():
    table = plain_table()
    with pytest.raises(WrongType, match=r"the id of stream 'shown' \('x'\) is decimal128\(9, 2\)"):
        parse(stream(id="x", features=()), LIMITS, Rows(table, "a", 0))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_needed_column_that_is_there_twice_is_named(tmp_path, kind):
    table = plain_table()
    table = table.append_column("x", table["x"]).append_column("other", table["x"]).append_column("other", table["x"])
    if kind == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as file:
            file.write_table(table)
    source = FileSource(str(tmp_path))
    first = source.first("files")
    reach = source.reach("files", first, None, max_bytes=1 << 30, drain=True)
    (span,) = source.spans("files", first, reach.position, reach.identity)
    one = stream(features=PLAIN)
    with pytest.raises(WrongType, match=r"has several columns 'x'") as caught:
        parse(one, LIMITS, source.read(span, one.columns))
    assert "name of its own" in caught.value.hint
    other = stream(features=PLAIN[:1])  # what is not needed may be there twice
    assert parse(other, LIMITS, source.read(span, other.columns)).accepted == 1
