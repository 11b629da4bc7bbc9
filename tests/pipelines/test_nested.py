"""Ids, times, labels and filters inside objects: every format against plain Python, record by record."""

import io
import json
import random

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.config import Settings
from headrace.errors import MissingFeature, TooManyInvalid
from headrace.features import Feature
from headrace.loop import open_loop
from headrace.shard import ShardRecord, read_shard
from headrace.store import open_store
from pipelines import jsonlines
from pipelines.events import Limits, Stream
from pipelines.parse import parse
from pipelines.pipeline import Pipeline
from pipelines.sources.base import Lines, Rows
from pipelines.sources.files import FileSource

T0 = 1_700_000_000
LIMITS = Limits(65_536, 1 << 62)
CLICK = Stream(
    "click",
    "feedback",
    "event.id",
    "meta.ts",
    "s",
    label="out.y",
    where={"event.type": "c", "live": True},
    shared=True,
    first=False,
)
SHOWN = Stream(
    "impression",
    "impression",
    "event.id",
    "meta.ts",
    "s",
    where={"event.type": "i"},
    features=(
        Feature("user", "id", ("event", "user", "name")),
        Feature("price", "number", ("event", "price")),
        Feature("hour", "time", ("meta", "ts"), time_unit="s"),
    ),
    shared=True,
)


def at(record, path):
    """("value", v), ("missing", None) or ("wrong", None): what plain Python finds."""
    for name in path:
        if record is None:
            return "missing", None
        if not isinstance(record, dict):
            return "wrong", None
        record = record.get(name)
    return ("missing", None) if record is None else ("value", record)


def judged(stream, record):
    """None = of another stream, a reason, or (id, time in us, label or (user, price))."""
    for place, wanted in stream.where.items():
        if at(record, place.split(".")) != ("value", wanted) or type(at(record, place.split("."))[1]) is not type(
            wanted
        ):
            return None
    when, time = at(record, ["meta", "ts"])
    if when == "missing":
        return None
    had, id_ = at(record, ["event", "id"])
    kinds = [when, had]
    wrong = had == "value" and (isinstance(id_, bool) or not isinstance(id_, str | int))
    wrong |= when == "value" and (isinstance(time, bool) or not isinstance(time, int | float))
    if stream.label:
        said, label = at(record, ["out", "y"])
        kinds.append(said)
        wrong |= said == "value" and not isinstance(label, bool | int | float)
    else:
        (named, user), (priced, price) = at(record, ["event", "user", "name"]), at(record, ["event", "price"])
        kinds += [named, priced]
        wrong |= named == "value" and isinstance(user, dict | list)
        wrong |= priced == "value" and (isinstance(price, bool) or not isinstance(price, int | float))
    if wrong or "wrong" in kinds:
        return "wrong_type"
    if had == "missing" or id_ == "":
        return "missing_id"
    if stream.label:
        if said == "missing":
            return "missing_label"
        if not 0 <= label <= 1:
            return "label_range"
        return str(id_), time * 1_000_000, float(label)
    text = None if user is None else str(user).lower() if isinstance(user, bool) else str(user)
    return str(id_), time * 1_000_000, (text, None if price is None else float(price))


def record_of(rng, odd):
    """A record; `odd`: how likely each of its values is not what it should be."""

    def some(value, *others):
        return rng.choice(others) if rng.random() < odd else value

    event = {
        "id": some(f"e{rng.randrange(30)}", None, "", 7, 1.5, True, {"a": 1}),
        "type": some(rng.choice("iic"), None, 1, "x"),
        "user": some({"name": some(f"u{rng.randrange(9)}", None, 5, True, [1])}, None, "u", {}),
        "price": some(rng.choice([1, 2.5]), None, "1", True),
    }
    if rng.random() < odd:
        event.pop(rng.choice(list(event)))
    whole = {
        "event": some(event, None, "e", [event]),
        "meta": some({"ts": some(T0 + rng.randrange(99), None, "soon", True), "id": "no"}, None, 5, {}),
        "out": some({"y": some(rng.choice([0, 1, 0.5]), None, True, "1", 2)}, None, 1),
        "live": some(True, False, None, "true", 1),
        "id": "not this one",
    }
    if rng.random() < odd:
        whole.pop(rng.choice(list(whole)))
    return whole


def found_in(stream, block):
    """By offset: a reason, or what `judged` says of an event."""
    parsed = parse(stream, LIMITS, block)
    found = {one.offset: one.reason for one in parsed.refused}
    for table in parsed.events:
        for row in table.to_pylist():
            if stream.label:
                rest = row["_label"]
            else:
                user = row["user"]
                rest = (str(user).lower() if isinstance(user, bool) else user and str(user), row["price"])
            found[row["_offset"]] = (row["_id"], row["_ts"], rest)
    return found


@pytest.mark.parametrize("odd", [0.0, 0.002, 0.2])
@pytest.mark.parametrize("stream", [SHOWN, CLICK], ids=["impression", "click"])
@pytest.mark.parametrize("seed", range(4))
def test_json_lines_against_plain_python(stream, seed, odd):
    rng = random.Random(seed)
    offset, data, wanted = 0, b"", {}
    for _ in range(600):
        record = record_of(rng, odd)
        if (fate := judged(stream, record)) is not None:
            wanted[offset] = fate
        line = json.dumps(record).encode() + b"\n"
        data, offset = data + line, offset + len(line)
    assert found_in(stream, Lines(data, "f.jsonl", 0)) == wanted


def test_twice_the_same_key_inside_an_object():
    line = json.dumps({"event": {"id": "a", "type": "i"}, "meta": {"ts": T0}}).encode()
    for twice in (b'"id": "b"', b'"type": "i"'):
        bad = line.replace(b'"type"', twice + b', "type"')
        parsed = parse(SHOWN, LIMITS, Lines(b"\n".join([line, bad, line]), "f", 0))
        assert ([one.reason for one in parsed.refused], parsed.accepted) == (["duplicate_key"], 2)
    other = line.replace(b'"id"', b'"x": 1, "x": 2, "id"')
    assert parse(SHOWN, LIMITS, Lines(other, "f", 0)).accepted == 1


def test_good_lines_are_read_as_a_block(monkeypatch):
    """Not record by record, which costs fifty times as much: also where a time is a feature, too."""
    monkeypatch.setattr(jsonlines, "_records", None)
    rng = random.Random(1)
    data = b"".join(json.dumps(record_of(rng, 0)).encode() + b"\n" for _ in range(500))
    for stream in (SHOWN, CLICK):
        assert parse(stream, LIMITS, Lines(data, "f", 0)).accepted > 100


def typed_rows(n=300):
    rng = random.Random(2)
    rows = []
    for number in range(n):
        event = {
            "id": f"e{number}" if rng.random() < 0.9 else None,
            "type": rng.choice("iic"),
            "user": {"name": f"u{rng.randrange(9)}"} if rng.random() < 0.9 else None,
            "price": rng.random() if rng.random() < 0.9 else None,
        }
        rows.append(
            {
                "event": event if rng.random() < 0.9 else None,
                "meta": {"ts": T0 + number} if rng.random() < 0.9 else None,
                "out": {"y": rng.randrange(5) / 4} if rng.random() < 0.8 else None,
                "live": rng.random() < 0.9,
            }
        )
    return rows


def parquet(rows):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def arrow(rows):
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def avro(rows):
    def maybe(kind):
        return ["null", kind]

    def of(name, /, **fields):
        return {"type": "record", "name": name, "fields": [{"name": n, "type": kind} for n, kind in fields.items()]}

    event = of("event", id=maybe("string"), type="string", user=maybe(of("user", name="string")), price=maybe("double"))
    schema = of(
        "row", event=maybe(event), meta=maybe(of("meta", ts="long")), out=maybe(of("out", y="double")), live="boolean"
    )
    sink = io.BytesIO()
    fastavro.writer(sink, fastavro.parse_schema(schema), rows)
    return sink.getvalue()


@pytest.mark.parametrize("stream", [SHOWN, CLICK], ids=["impression", "click"])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.avro"])
def test_objects_of_typed_files_against_plain_python(tmp_path, stream, name):
    rows = typed_rows()
    (tmp_path / name).write_bytes({"a.parquet": parquet, "a.arrow": arrow, "a.avro": avro}[name](rows))
    source = FileSource(str(tmp_path / name))
    reach = source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=True)
    (span,) = source.spans("files", source.first("files"), reach.position, reach.identity)
    wanted = {i: fate for i, row in enumerate(rows) if (fate := judged(stream, row)) is not None}
    assert found_in(stream, source.read(span, stream.columns)) == wanted


def dotted(**changes):
    made = {"id": '"event.id"', "time": '"meta.ts"', "time_unit": "s", "where": {'"event.type"': "i"}}
    return Stream("impression", "impression", features=(Feature("user", "id", ("e.user",)),), **{**made, **changes})


def test_columns_whose_names_have_dots():
    rows = [{"event.id": f"e{i}", "event.type": "ix"[i % 2], "meta.ts": T0 + i, "e.user": "u"} for i in range(10)]
    text = "event.id,event.type,meta.ts,e.user\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows)
    head, _, body = text.partition("\n")
    blocks = [
        Lines("".join(json.dumps(row) + "\n" for row in rows).encode(), "f.jsonl", 0),
        Lines(body.encode(), "f.csv", 0, tuple(head.split(","))),
        Rows(pa.Table.from_pylist(rows), "f.parquet", 0),
    ]
    for block in blocks:
        parsed = parse(dotted(), LIMITS, block)
        assert [t["_id"].to_pylist() for t in parsed.events] == [[f"e{i}" for i in range(0, 10, 2)]]
        assert not parsed.refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "event.id"}, 'did you mean the column of that name, { column = "event.id" }?'),
        ({"time": "ts"}, "no column 'ts', which stream 'impression' needs"),
        ({"id": "evnt.id"}, "no field 'evnt.id'"),
        ({"where": {"event.type": "i"}}, '{ column = "event.type" }'),
    ],
)
def test_a_place_that_typed_columns_do_not_have_names_the_nearest(changes, said):
    table = pa.table({"event.id": ["a"], "event.type": ["i"], "meta.ts": [T0], "e.user": ["u"]})
    for block in (Rows(table, "f.parquet", 0), Lines(b"a,i,1,u\n", "f.csv", 0, tuple(table.column_names))):
        with pytest.raises(MissingFeature) as wrong:
            parse(dotted(**changes), LIMITS, block)
        assert said in f"{wrong.value} {wrong.value.hint}"


def test_a_field_that_an_object_does_not_have_names_the_nearest():
    table = pa.table({"event": [{"id": "a", "user": {"name": "u"}}], "meta": [{"ts": T0}]})
    for id_, said in (("event.ids", "'event.id'?"), ("event.user", None), ("event.id.x", "no field 'event.id.x'")):
        with pytest.raises(Exception, match=r"event\.") as wrong:
            parse(Stream("impression", "impression", id_, "meta.ts", "s"), LIMITS, Rows(table, "f.parquet", 0))
        assert said is None or said in f"{wrong.value} {wrong.value.hint}"


def settings_of(folder, root, **changes):
    stream = {"source": f"{folder}/events.jsonl", "id": "event.id", "time": "meta.ts", "time_unit": "s"}
    return Settings(
        loop={"name": "t", "root": str(root)},
        streams={
            "impression": {**stream, "where": {"event": {"type": "i"}}} | changes,
            "click": {**stream, "where": {"event.type": "c"}},
        },
        label={"mode": "implicit", "wait_s": 30, "attribution_s": 60},
        features={"user": {"kind": "id", "path": "event.user.name"}, "hour": {"kind": "time", "part": "hour"}},
    )


def pipeline_of(root, settings):
    return Pipeline(open_loop(open_store(str(root)), "t"), settings, now_us=lambda: (T0 + 3_600) * 1_000_000)


def write(folder, n=200):
    rows = []
    for number in range(n):
        event = {"id": f"e{number}", "type": "i", "user": {"name": f"u{number % 7}"}}
        rows.append({"event": event, "meta": {"ts": T0 + number}})
        if number % 4 == 0:
            rows.append({"event": {"id": f"e{number}", "type": "c"}, "meta": {"ts": T0 + number + 1}})
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_loop_on_nested_events(tmp_path):
    write(tmp_path)
    settings = settings_of(tmp_path, tmp_path / "loop")
    assert settings.schema()["hour"].path == ("meta", "ts")
    pipeline = pipeline_of(tmp_path / "loop", settings)
    while pipeline.tick(drain=True) is not None:
        pass
    loop = open_loop(open_store(str(tmp_path / "loop")), "t")
    record = ShardRecord.from_entry(loop.shard_log().head())
    rows = [row for shard in record.shards for row in read_shard(loop.store, shard).to_pylist()]
    assert {row["impression_id"]: row["label"] for row in rows} == {f"e{i}": float(i % 4 == 0) for i in range(200)}
    assert pipeline.replay(record.seq).same


def test_a_place_that_no_event_has_stops_the_tick_and_names_the_nearest(tmp_path):
    write(tmp_path)
    for name, wrong in (("id", "event.idd"), ("id", "id")):
        pipeline = pipeline_of(tmp_path / "loop", settings_of(tmp_path, tmp_path / "loop", **{name: wrong}))
        with pytest.raises(TooManyInvalid) as refused:
            pipeline.tick()
        assert f"'{wrong}': did you mean 'event.id'?" in refused.value.hint
