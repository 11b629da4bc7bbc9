"""Files of every format: the same events whatever they are written as; broken ones go to quarantine alone."""

import gzip
import io
import json
import pickle

import fastavro
import pytest
from formats import WAYS, csv, lines, packed, parquet

from headrace.errors import SettingsError, WrongType
from headrace.features import Feature
from pipelines.events import Limits, Stream
from pipelines.parse import parse
from pipelines.sources import packed as packed_module
from pipelines.sources import whole as whole_module
from pipelines.sources.files import FileSource
from pipelines.sources.pattern import PatternSource, source_of

ROWS = [{"id": f"e{i}", "t": 1_700_000_000 + i, "user": i % 7, "x": i / 3 if i % 5 else None} for i in range(1_000)]
STREAM = Stream(
    name="impression",
    role="impression",
    id="id",
    time="t",
    time_unit="s",
    features=(Feature("user", "id", ("user",)), Feature("x", "number", ("x",))),
)
LIMITS = Limits(65_536, 1 << 62)


WHOLE = [name for name in WAYS if name not in ("a.jsonl", "a.csv")]


def all_of(source, budget=1 << 30, drain=True):
    """(accepted events, refused as (file:offset, reason)), tick by tick."""
    events, refused = [], []
    for partition in source.partitions():
        at, identity, aside = source.first(partition), None, None
        for _ in range(10_000):
            reach = source.reach(partition, at, identity, max_bytes=budget, drain=drain, aside=aside)
            for span in pickle.loads(pickle.dumps(source)).spans(partition, at, reach.position, reach.identity):
                found = parse(STREAM, LIMITS, source.read(span, STREAM.columns))
                events += [row for table in found.events for row in table.to_pylist()]
                refused += [(f"{span.file}:{one.offset}", one.reason) for one in found.refused]
            at, identity = reach.position, json.loads(json.dumps(reach.identity))
            aside = aside if reach.aside is None else reach.aside
            if reach.caught_up:
                break
    return events, refused


def known(events):
    return [(e["_id"], e["_ts"], int(e["user"]), None if e["x"] is None else round(e["x"], 9)) for e in events]


WANTED = [(r["id"], r["t"] * 1_000_000, r["user"], None if r["x"] is None else round(r["x"], 9)) for r in ROWS]


@pytest.mark.parametrize("budget", [1 << 30, 5_000])
@pytest.mark.parametrize("name", WAYS)
def test_every_format_gives_the_same_events(tmp_path, name, budget):
    (tmp_path / name).write_bytes(WAYS[name](ROWS))
    for url in (tmp_path, tmp_path / name):
        events, refused = all_of(FileSource(str(url)), budget)
        assert known(events) == WANTED
        assert refused == []


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_is_not_whole_yet_is_waited_for(tmp_path, name):
    data = WAYS[name](ROWS)
    path = tmp_path / name
    source = FileSource(str(tmp_path))
    for cut in (0, 3, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        reach = source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False)
        assert reach.size == 0, cut
    path.write_bytes(data)
    for _ in range(2):  # it has stopped growing
        reach = source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False)
    assert reach.size > 0
    assert known(all_of(source, drain=False)[0]) == WANTED


def test_a_file_that_grows_is_not_read_again_and_again(tmp_path, monkeypatch):
    data, looked = WAYS["a.avro"](ROWS), []
    source = FileSource(str(tmp_path))
    (tmp_path / "a.avro").write_bytes(data[:100])
    measure = source._files("a.avro").measure
    monkeypatch.setattr(source._files("a.avro"), "measure", lambda stream: looked.append(1) or measure(stream))
    for size in (100, 100, 200, 300, 400, 400, 400):
        (tmp_path / "a.avro").write_bytes(data[:size])
        source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False)
    assert len(looked) == 2  # at first, and once it had stopped


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_a_large_broken_file_is_not_taken_into_memory(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(whole_module, "IN_MEMORY", memory)
    (tmp_path / "a.parquet").write_bytes(parquet(ROWS)[:-3])
    (tmp_path / "b.parquet").write_bytes(parquet(ROWS))
    events, refused = all_of(FileSource(str(tmp_path)), drain=False)
    assert known(events) == WANTED
    assert refused == [("a.parquet:0", "broken_file")]


def test_an_outage_of_the_folder_of_a_pattern_is_waited_out(tmp_path, monkeypatch):
    (tmp_path / "h1").mkdir()
    (tmp_path / "h1" / "a.jsonl").write_bytes(lines(ROWS))
    source = source_of(f"{tmp_path}/{{p}}/")
    assert known(all_of(source)[0]) == WANTED

    def fails(*args, **kwargs):
        raise OSError("connection reset")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.ls", fails)
    assert source.partitions() == ["h1"]


@pytest.mark.parametrize("broken", ["cut", "empty", "other", "header"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_broken_file_goes_to_quarantine_and_its_neighbours_never_notice(tmp_path, name, broken):
    data = WAYS[name](ROWS)
    bad = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "other": b"<html>not found</html>",
        "header": b"\0" * 9 + data[9:],
    }
    ending = name[1:]
    (tmp_path / f"a{ending}").write_bytes(WAYS[name](ROWS[:400]))
    (tmp_path / f"b{ending}").write_bytes(bad[broken])
    (tmp_path / f"c{ending}").write_bytes(WAYS[name](ROWS[400:]))
    events, refused = all_of(FileSource(str(tmp_path)), drain=False)
    assert known(events) == WANTED
    inside = name == "a.parquet" and broken == "header"  # its footer is at the end
    assert refused == [(f"b{ending}:0", "broken_piece" if inside else "broken_file")]


@pytest.mark.parametrize("name", ["a.parquet", "a.avro", "a.jsonl.gz"])
def test_damage_inside_costs_a_piece_at_most(tmp_path, name):
    data = bytearray(WAYS[name](ROWS))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / name).write_bytes(data)
    events, refused = all_of(FileSource(str(tmp_path)))
    assert events == []
    assert refused == [(f"{name}:0", "broken_file" if name.endswith(".gz") else "broken_piece")]


@pytest.mark.parametrize("name", ["a.parquet", "a.avro", "a.arrow", "a.jsonl.gz"])
def test_a_store_that_fails_is_no_broken_file(tmp_path, name, monkeypatch):
    (tmp_path / name).write_bytes(WAYS[name](ROWS))
    source = FileSource(str(tmp_path))
    fs, _ = source._place

    def fails(*args, **kwargs):
        raise OSError("connection reset")

    monkeypatch.setattr(fs, "open", fails)
    monkeypatch.setattr(fs, "cat_file", fails)
    assert source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=True) is None


def test_twin_without_a_second_look_an_outage_would_be_a_broken_file(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(parquet(ROWS))
    source = FileSource(str(tmp_path))
    fs, _ = source._place

    def fails(*args, **kwargs):
        raise OSError("connection reset")

    monkeypatch.setattr(fs, "open", fails)
    whole = whole_module.WholeFiles
    monkeypatch.setattr(whole, "_surely", whole._once)
    monkeypatch.setattr(fs, "cat_file", lambda path, start=None, end=None: b"")
    reach = source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=True)
    assert reach.position == {"file": "a.parquet", "offset": 1}


def test_a_folder_may_hold_files_that_are_compressed_and_one_that_grows(tmp_path):
    (tmp_path / "a1.jsonl.gz").write_bytes(gzip.compress(lines(ROWS[:300])))
    (tmp_path / "a2.jsonl.zst").write_bytes(packed(lines(ROWS[300:600]), "zstd"))
    (tmp_path / "a3.jsonl").write_bytes(lines(ROWS[600:]))
    assert known(all_of(FileSource(str(tmp_path)), drain=False)[0]) == WANTED


def test_the_last_line_of_a_compressed_file_needs_no_line_break(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(ROWS)[:-1]))
    assert known(all_of(FileSource(str(tmp_path)), drain=False)[0]) == WANTED


def test_few_unpacked_files_are_kept(tmp_path, monkeypatch):
    for number in range(20):
        part = ROWS[number * 50 : number * 50 + 50]
        (tmp_path / f"{number:02}.jsonl.gz").write_bytes(gzip.compress(lines(part)))
    source = FileSource(str(tmp_path))
    assert known(all_of(source)[0]) == WANTED
    assert len(source._files("a.jsonl.gz")._unpacked) <= packed_module.KEPT


def test_a_union_of_several_types_in_avro_is_named(tmp_path):
    fields = [("id", "string"), ("t", "long"), ("user", ["long", "string"]), ("x", ["null", "double"])]
    schema = {"type": "record", "name": "Event", "fields": [{"name": n, "type": t} for n, t in fields]}
    sink = io.BytesIO()
    fastavro.writer(sink, schema, [ROWS[0], {**ROWS[1], "user": "seven"}])
    (tmp_path / "a.avro").write_bytes(sink.getvalue())
    with pytest.raises(WrongType, match="'user' has values of several types"):
        all_of(FileSource(str(tmp_path)))


@pytest.mark.parametrize("name", ["a.gz", "a.parquet.gz", "a.txt"])
def test_a_name_that_tells_no_format(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SettingsError, match="format of"):
        all_of(FileSource(str(tmp_path / name)))


def test_a_pattern_reads_folders_side_by_side(tmp_path):
    for host, rows in (("h1", ROWS[::2]), ("h2", ROWS[1::2])):
        (tmp_path / f"host={host}").mkdir()
        (tmp_path / f"host={host}" / "z.jsonl").write_bytes(lines(rows))
    (tmp_path / "_tmp").mkdir()
    source = source_of(f"{tmp_path}/host={{p}}/")
    assert isinstance(source, PatternSource)
    assert source.partitions() == ["h1", "h2"]
    events, refused = all_of(source, budget=3_000)
    assert sorted(known(events)) == sorted(WANTED)
    assert refused == []
    (tmp_path / "host=h0").mkdir()
    (tmp_path / "host=h0" / "a.jsonl").write_bytes(b"not json\n")
    assert source.partitions() == ["h0", "h1", "h2"]
    assert all_of(source)[1] == [("h0/a.jsonl:0", "malformed")]


def test_streams_of_arrow_may_follow_each_other(tmp_path):
    (tmp_path / "a.arrows").write_bytes(WAYS["a.arrows"](ROWS[:600]) + WAYS["a.arrows"](ROWS[600:]))
    for budget in (1 << 30, 5_000):
        assert known(all_of(FileSource(str(tmp_path)), budget)[0]) == WANTED


def test_a_file_that_is_written_while_it_is_measured_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(ROWS)[:-9])
    source = FileSource(str(tmp_path))
    measure = source._files("a.parquet").measure

    def finished(stream):
        path.write_bytes(parquet(ROWS))
        return measure(io.BytesIO(path.read_bytes()))

    with monkeypatch.context() as patch:
        patch.setattr(source._files("a.parquet"), "measure", finished)
        assert source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False).size == 0
    source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False)
    events, _ = all_of(source, drain=False)
    assert known(events) == WANTED


def test_a_pattern_passes_over_what_is_not_what_it_means(tmp_path):
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "h1").mkdir()
    (tmp_path / "h1" / "x.csv").write_bytes(csv(ROWS))
    (tmp_path / "h2").mkdir()  # its file comes later
    assert source_of(f"{tmp_path}/{{p}}/").partitions() == ["h1", "h2"]
    assert source_of(f"{tmp_path}/{{p}}/x.csv").partitions() == ["h1"]
    assert "tmp" in source_of("/{p}/").partitions()


def test_a_pattern_of_files(tmp_path):
    for number in range(3):
        (tmp_path / f"log-{number}.csv.gz").write_bytes(gzip.compress(csv(ROWS[number::3])))
    source = source_of(f"{tmp_path}/log-{{p}}.csv.gz")
    assert source.partitions() == ["0", "1", "2"]
    assert sorted(known(all_of(source)[0])) == sorted(WANTED)


def test_a_pattern_with_two_marks_is_refused():
    with pytest.raises(SettingsError, match="2 times"):
        source_of("logs/{p}/{p}/")


def test_a_full_disk_while_unpacking_is_no_broken_file(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(ROWS)))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packed_module.tempfile, "TemporaryFile", full)
        with pytest.raises(OSError, match="No space left"):
            all_of(FileSource(str(tmp_path)))
    assert known(all_of(FileSource(str(tmp_path)))[0]) == WANTED


def test_one_failing_open_does_not_make_a_file_waited_for_for_ever(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(parquet(ROWS))
    source = FileSource(str(tmp_path))
    fs, _ = source._place

    def fails(*args, **kwargs):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(fs, "open", fails)
        assert source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False) is None
    assert known(all_of(source, drain=False)[0]) == WANTED
