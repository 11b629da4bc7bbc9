import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import MissingFeature, SettingsError, WrongType
from headrace.features import Feature
from headrace.schema import Schema
from pipelines import jsonlines
from pipelines.events import REASONS, Limits, Stream
from pipelines.parse import parse
from pipelines.sources.base import Lines, Rows, Span
from pipelines.sources.files import FileSource

FEATURES = (
    Feature("user", "id", ("user",)),
    Feature("price", "number", ("price",)),
    Feature("city", "category", ("place", "city")),
    Feature("tags", "ids", ("tags",), max=3),
)
SCHEMA = Schema(FEATURES)
NOW = 1_700_000_000_000_000
LIMITS = Limits(record_bytes=300, latest_us=NOW)
SHOWN = Stream("impression", "impression", "id", "ts", time_unit="ms", features=FEATURES)
CLICK = Stream("click", "feedback", "id", "at", time_unit="iso", label="label")
GOOD = {"id": "a", "ts": 1_600_000_000_000, "user": 7, "price": 1.5, "place": {"city": "x"}, "tags": ["p", "q"]}


def lines(*records, start=0):
    data = b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)
    return Lines(data, "f.jsonl", start)


def reasons(parsed):
    return [one.reason for one in parsed.refused]


def encoded(parsed):
    """Accepted events by offset: id, time and encoded features."""
    out = {}
    for table in parsed.events:
        raw = {name: table[name].combine_chunks() for name in table.column_names if not name.startswith("_")}
        features = SCHEMA.encode_features(raw).to_pylist()
        for offset, id_, ts, row in zip(
            *(table[c].to_pylist() for c in ("_offset", "_id", "_ts")), features, strict=True
        ):
            out[offset] = (id_, ts, str(row))
    return out


def test_good_events_come_through_with_their_offsets():
    parsed = parse(SHOWN, LIMITS, lines(GOOD, {**GOOD, "id": 5}, start=100))
    assert reasons(parsed) == []
    size = len(json.dumps(GOOD)) + 1
    assert list(encoded(parsed)) == [100, 100 + size]
    assert [value[0] for value in encoded(parsed).values()] == ["a", "5"]


BAD = {
    "malformed": [b'{"id":', b"null", b"[1]", b'{"id":"a"} {"id":"b"}', b'{"id":"a"}null{}', b"\x00", b'{"id":"a",}'],
    "duplicate_key": [b'{"id":"a","id":"b","ts":1}', b'{"id":"a","ts":1,"place":{"city":"x","city":"y"}}'],
    "utf8": [b'{"id":"\xff","ts":1}', b'{"id":"\\ud800","ts":1}'],
    "too_deep": [b'{"id":"a","ts":1,"junk":' + b"[" * 100_000],
    "wrong_type": [
        {**GOOD, "price": "1.5"},
        {**GOOD, "price": True},
        {**GOOD, "id": 1.5},
        {**GOOD, "id": True},
        {**GOOD, "user": {}},
        {**GOOD, "place": "x"},
        {**GOOD, "tags": "p"},
        {**GOOD, "tags": [["p"]]},
        {**GOOD, "ts": "2020-01-01T00:00:00Z"},
    ],
    "infinite": [
        b'{"id":"a","ts":1,"price":NaN}',
        b'{"id":"a","ts":1,"price":-Infinity}',
        b'{"id":"a","ts":1,"user":NaN}',
    ],
    "out_of_range": [{**GOOD, "price": 1e300}, {**GOOD, "user": 1e17}],
    "bad_time": [{**GOOD, "ts": 1e300}, {**GOOD, "ts": 1 << 62}],
    "time_range": [{**GOOD, "ts": -1}],
    "future": [{**GOOD, "ts": NOW // 1000 + 1}],
    "missing_id": [{**GOOD, "id": None}, {**GOOD, "id": ""}, {"ts": 1}],
    "missing_time": [{**GOOD, "ts": None}, {"id": "a"}],
    "too_long": [{**GOOD, "junk": "x" * 300}],
}


@pytest.mark.parametrize(("reason", "bad"), [(reason, bad) for reason, many in BAD.items() for bad in many])
def test_bad_events_go_alone(reason, bad):
    limits = Limits(300 if reason == "too_long" else 200_000, NOW)
    parsed = parse(SHOWN, limits, lines(*[GOOD] * 200, bad, *[GOOD] * 200))
    assert reasons(parsed) == [reason]
    assert sum(table.num_rows for table in parsed.events) == 400
    (one,) = parsed.refused
    raw = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    assert (one.offset, one.raw, one.size) == (200 * (len(json.dumps(GOOD)) + 1), raw[:4096], len(raw))
    assert reason in REASONS


def test_what_is_not_needed_may_be_anything():
    strange = json.dumps(GOOD)[:-1].encode() + b',"x":NaN,"y":"\xff","z":1e999,"z":2,"w":' + b"9" * 5_000 + b"}"
    deep = json.dumps(GOOD)[:-1].encode() + b',"x":' + b"[" * 300 + b"]" * 300 + b"}"
    parsed = parse(SHOWN, Limits(20_000, NOW), lines(GOOD, strange, deep))
    assert reasons(parsed) == []


def test_missing_values_are_null_and_missing_keys_are_noticed():
    parsed = parse(SHOWN, LIMITS, lines({"id": "a", "ts": 1, "user": None}, {"id": "b", "ts": 1, "place": {}}))
    assert reasons(parsed) == []
    assert parsed.unseen == {"price", "city", "tags"}


def test_ids_are_the_same_whatever_their_neighbours_are():
    alone = [encoded(parse(SHOWN, LIMITS, lines({**GOOD, "user": user}))) for user in (7, "7", 7.0, "x", True)]
    users = [next(iter(one.values()))[2] for one in alone]
    assert users[0] == users[1] == users[2]
    together = encoded(parse(SHOWN, LIMITS, lines(*({**GOOD, "user": user} for user in (7, "7", 7.0, "x", True)))))
    assert [value[2] for value in together.values()] == users


def test_text_that_looks_like_a_time_stays_text():
    parsed = parse(SHOWN, LIMITS, lines(*[{**GOOD, "user": "2020-01-01T00:00:00Z"}] * 3))
    (table,) = parsed.events
    assert table["user"].type == pa.string()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 3),
    st.floats(),
    st.sampled_from(["", "a", "é", "2020-01-01", "\u2028"]),
    st.lists(st.sampled_from(["p", 1, None, 2.0]), max_size=2),
    st.fixed_dictionaries({"city": st.sampled_from(["x", 1, None])}),
)
RECORDS = st.one_of(
    st.just(GOOD),
    st.fixed_dictionaries({}, optional=dict.fromkeys([*GOOD, "other"], VALUES)),
    st.tuples(st.sampled_from(list(GOOD)), VALUES).map(lambda change: {**GOOD, change[0]: change[1]}),
).map(lambda record: json.dumps(record).encode())
GARBAGE = st.one_of(
    st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), st.sampled_from([b"{", b"null", b"{}{}", b" "])
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(RECORDS, RECORDS, RECORDS, GARBAGE), min_size=1, max_size=12), st.data())
def test_any_cut_gives_the_same_events_and_refusals(records, data):
    """The block parser accepts exactly what the strict one does, with the same ids and numbers."""
    whole = parse(SHOWN, LIMITS, lines(*records))
    strict_events, strict_refused, at = {}, [], 0
    for record in records:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jsonlines, "_block", lambda *_: None)
            one = parse(SHOWN, LIMITS, lines(record, start=at))
        strict_events |= encoded(one)
        strict_refused += [(r.offset, r.reason) for r in one.refused]
        at += len(record) + 1
    assert encoded(whole) == strict_events
    assert [(r.offset, r.reason) for r in whole.refused] == strict_refused
    cut = data.draw(st.integers(0, len(records)))
    split = sum(len(record) + 1 for record in records[:cut])
    halves = [parse(SHOWN, LIMITS, lines(*records[:cut])), parse(SHOWN, LIMITS, lines(*records[cut:], start=split))]
    assert encoded(halves[0]) | encoded(halves[1]) == strict_events


def test_a_block_is_parsed_as_a_block(monkeypatch):
    """The twin of the fast path: none of these events may need the strict parser."""
    monkeypatch.setattr(jsonlines, "_records", None)
    assert sum(table.num_rows for table in parse(SHOWN, LIMITS, lines(*[GOOD] * 1_000)).events) == 1_000


def test_explicit_labels():
    def at(label):
        return {"id": "a", "at": "2020-01-01T00:00:00Z", "label": label}

    parsed = parse(CLICK, LIMITS, lines(at(1), at(0.25), at(None), at(2), at(-0.5), at(True), at("1")))
    assert reasons(parsed) == ["missing_label", "label_range", "label_range", "wrong_type"]
    assert sorted(label for table in parsed.events for label in table["_label"].to_pylist()) == [0.25, 1.0, 1.0]
    (table,) = parse(CLICK, LIMITS, lines(at(True), at(False))).events
    assert table["_label"].to_pylist() == [1.0, 0.0]


@pytest.mark.parametrize("label", [1, 0.5, True])
def test_labels_that_come_after_many_records_of_the_other_stream(label):
    stream = Stream("click", "feedback", "id", "ts", "ms", label="y", where={"type": "c"}, shared=True, first=False)
    other = [{"id": "a", "ts": 1, "type": "i"}] * 100
    told = [{"id": "a", "ts": 2, "type": "c", "y": label}] * 50
    parsed = parse(stream, LIMITS, lines(*other, *told))
    assert (parsed.accepted, parsed.passed, reasons(parsed)) == (50, 100, [])
    assert {value for table in parsed.events for value in table["_label"].to_pylist()} == {float(label)}
    assert parse(stream, LIMITS, lines(*other)).passed == 100


def test_several_streams_in_one_source():
    shown = Stream(
        "impression", "impression", "id", "ts", "ms", where={"type": "show"}, features=FEATURES[:1], shared=True
    )
    click = Stream("click", "feedback", "id", "ts", "ms", where={"type": "click"}, shared=True, first=False)
    block = lines(
        {**GOOD, "type": "show"}, {"id": "a", "ts": 1, "type": "click"}, {"id": 1, "ts": 2, "type": 3}, b"broken", b"{}"
    )
    one, other = parse(shown, LIMITS, block), parse(click, LIMITS, block)
    assert (one.accepted, one.passed, reasons(one)) == (1, 3, ["malformed"])
    assert (other.accepted, other.passed, reasons(other)) == (1, 3, [])


def test_a_record_without_this_streams_time_belongs_to_the_other():
    click = Stream("click", "feedback", "id", "at", "iso", label="label", shared=True, first=False)
    parsed = parse(click, LIMITS, lines({"id": "a", "at": None}, {"id": "a"}, {"id": "a", "at": "soon", "label": 1}))
    assert (parsed.passed, reasons(parsed)) == (2, ["bad_time"])


def test_a_number_as_time_without_a_unit():
    stream = Stream("impression", "impression", "id", "ts", features=FEATURES[:1])
    parsed = parse(stream, LIMITS, lines({"id": "a", "ts": 1, "user": 1}))
    assert reasons(parsed) == ["time_without_unit"]
    assert "time_unit" in REASONS["time_without_unit"]


def csv(text, header=("id", "ts", "user", "price"), start=0):
    return Lines(text.encode(), "f.csv", start, header)


TABULAR = Stream("impression", "impression", "id", "ts", time_unit="s", features=FEATURES[:2])


def test_csv():
    parsed = parse(TABULAR, LIMITS, csv('007,1600000000,01,1.5\n"a,b",1600000000,,NA\n3,1600000000,"x ""y""",\n'))
    (table,) = parsed.events
    assert table["_id"].to_pylist() == ["007", "a,b", "3"]
    assert table["user"].to_pylist() == ["01", None, 'x "y"']
    assert table["price"].to_pylist() == [1.5, None, None]
    assert reasons(parsed) == []


BAD_CSV = {
    "1,2": "malformed",
    '1,"2': "quoted_newline",
    "1,x,3,4": "wrong_type",
    "1,2,3,4x": "wrong_type",
    ",2,3,4": "missing_id",
    "1,,3,4": "missing_time",
    "1,9999999999,3,4": "future",
    "1" * 400 + ",1,2,3": "too_long",
}


@pytest.mark.parametrize(("line", "reason"), BAD_CSV.items())
def test_bad_csv_lines_go_alone(line, reason):
    parsed = parse(TABULAR, LIMITS, csv("a,5,6,7\n" * 50 + line + "\n" + "a,5,6,7\n" * 50))
    assert reasons(parsed) == [reason]
    assert parsed.accepted == 100
    assert parsed.refused[0].raw == line.encode()


def test_csv_without_a_needed_column():
    with pytest.raises(MissingFeature, match=r"f\.csv has no column 'price', which feature 'price' needs") as caught:
        parse(TABULAR, LIMITS, csv("1,2,3\n", header=("id", "ts", "user")))
    assert "id, ts, user" in caught.value.hint


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_csv_with_other_separators_is_read_as_its_header_is(tmp_path, mark):
    """Commas stand within fields then; lines that are read again by their offsets are split alike."""
    text = 'id/ts/user/price\na/1/x,y/2\nb/2/"x/""y"/3\nc/3/z\nd/4/z/1,5\n'.replace("/", mark)
    (tmp_path / "a.csv").write_text(text)
    source = FileSource(str(tmp_path / "a.csv"))
    parsed = parse(TABULAR, LIMITS, source.read(Span("a.csv", 0, len(text), 0, len(text))))
    assert [event.reason for event in parsed.refused] == ["malformed", "wrong_type"]
    assert parsed.refused[1].raw == f"d{mark}4{mark}z{mark}1,5".encode()
    events = pa.concat_tables(parsed.events)
    assert events["user"].to_pylist() == ["x,y", f'x{mark}"y']
    again = parse(TABULAR, LIMITS, source.at("a.csv", events["_offset"].to_pylist(), {}))
    assert pa.concat_tables(again.events).equals(events)


def test_a_label_or_a_time_of_another_type_is_named():
    told = Stream("outcome", "feedback", id="id", time="at", time_unit="s", label="fraud")
    with pytest.raises(WrongType, match=r"the label of stream 'outcome' \('fraud'\) is string") as caught:
        parse(told, LIMITS, Rows(pa.table({"id": ["a"], "at": [1], "fraud": ["Y"]}), "f.parquet", 0))
    assert 'where = { fraud = "Y" }' in caught.value.hint
    naive = Rows(pa.table({"id": ["a"], "at": pa.array([1], pa.timestamp("us")), "fraud": [1]}), "f.parquet", 0)
    with pytest.raises(SettingsError, match=r"\[streams.outcome\] time = 'at': the times .* do not say their zone"):
        parse(told, LIMITS, naive)


def test_a_header_with_a_comma_is_separated_by_it(tmp_path):
    (tmp_path / "a.csv").write_text("id;x,ts\n1;2,3\n")
    assert FileSource(str(tmp_path / "a.csv")).read(Span("a.csv", 0, 14, 0, 14)).header == ("id;x", "ts")


CSV_LINES = ["a,1,b,2", "a,1,b", '"a",1,"b,c",2', 'a,1,"b,2', "a,,b,2", "a,1,b,x", "", "a,1,b,2,3"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(CSV_LINES), max_size=8))
def test_any_cut_of_csv_gives_the_same(rows):
    whole = parse(TABULAR, LIMITS, csv("".join(f"{row}\n" for row in rows)))
    refused, accepted, at = [], 0, 0
    for row in rows:
        one = parse(TABULAR, LIMITS, csv(row + "\n", start=at))
        refused += [(r.offset, r.reason) for r in one.refused]
        accepted += one.accepted
        at += len(row) + 1
    assert ([(r.offset, r.reason) for r in whole.refused], whole.accepted) == (refused, accepted)


def typed(**columns):
    base = {"id": ["a", "b"], "ts": [1, 2], "user": [1, 2], "price": [1.0, 2.0]}
    return Rows(pa.table({**base, **columns}), "f.parquet", 10)


def test_typed_rows():
    parsed = parse(TABULAR, LIMITS, typed(price=[np.nan, np.inf], id=[1, 2]))
    assert [(r.offset, r.reason) for r in parsed.refused] == [(11, "infinite")]
    assert parsed.events[0]["_offset"].to_pylist() == [10]
    assert json.loads(parsed.refused[0].raw)["id"] == 2


def test_typed_rows_of_the_wrong_type_or_without_unit():
    with pytest.raises(WrongType, match="feature 'price'"):
        parse(TABULAR, LIMITS, typed(price=["1", "2"]))
    with pytest.raises(WrongType, match="the id of stream"):
        parse(TABULAR, LIMITS, typed(id=[1.5, 2.5]))
    with pytest.raises(SettingsError, match="unit"):
        parse(Stream("impression", "impression", "id", "ts", features=FEATURES[:2]), LIMITS, typed())
    with pytest.raises(MissingFeature):
        parse(SHOWN, LIMITS, typed())


@pytest.mark.parametrize("others", [[], [{**GOOD, "ts": 2}], [{"junk": 1}]], ids=["fast", "mixed", "record by record"])
def test_times_may_have_fractions(others):
    parsed = parse(SHOWN, Limits(200_000, NOW), lines({**GOOD, "ts": 1.5}, *others))
    assert parsed.events[0]["_ts"].to_pylist()[0] == 1500
