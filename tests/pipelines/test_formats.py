"""Files of every format: the same events whatever they are written as; broken ones go to quarantine alone."""

import gzip
import io
import json
import os
import pickle
import random
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

import fastavro
import pytest
from folders import LIMITS, ROWS, STREAM, WANTED, Reader, known, replayed
from formats import GROWING, WAYS, avro, avro_in, csv, lines, packed, parquet

from headrace.errors import SettingsError, SourceChanged, SourceError, WrongType
from pipelines.parse import parse
from pipelines.sources import packed as packed_module
from pipelines.sources import whole as whole_module
from pipelines.sources.files import FileSource
from pipelines.sources.packed import PackedLines
from pipelines.sources.pattern import PatternSource, source_of

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
    """Of files that grow by pieces, for the next of them."""
    data = WAYS[name](ROWS)
    reader = Reader(tmp_path)
    for cut in (0, 3, len(data) // 2, len(data) - 1):
        (tmp_path / name).write_bytes(data[:cut])
        reader.tick()
        assert known(reader.events) == WANTED[: len(reader.events)]
        assert len(reader.events) < len(ROWS)
        assert not reader.events or name in ("a.avro", "a.json.gzip")
    (tmp_path / name).write_bytes(data)
    reader.tick()
    reader.tick()  # it has stopped growing
    assert known(reader.events) == WANTED
    assert reader.refused == []


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("budget", [1 << 30, 3_000])
@pytest.mark.parametrize("name", GROWING)
def test_a_file_that_is_whole_at_several_lengths_is_read_as_it_grows(tmp_path, name, budget, fresh):
    """Cut anywhere, at any pace: every event once, and a replay of what the records say reads the same."""
    data = GROWING[name](ROWS)
    reader, pace = Reader(tmp_path, fresh), random.Random(name)
    seen, at = [], 0
    while at < len(data):
        at += pace.choice([1, 7, 100, 2_000, 9_000])
        (tmp_path / name).write_bytes(data[:at])
        for _ in range(pace.choice([0, 1, 3])):
            reader.tick(budget)
        seen.append(len(reader.events))
    while not reader.tick(budget).caught_up:
        pass
    reader.tick(drain=True)  # the last line of text may have no line break
    assert known(reader.events) == WANTED
    assert reader.refused == []
    assert len(set(seen)) > 2
    again = [replayed(FileSource(str(tmp_path)), *made) for made in reader.ranges]
    assert [row for events, _ in again for row in events] == reader.events


def test_twin_a_file_that_may_not_grow_stops_the_loop_when_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(PackedLines, "grows", whole_module.WholeFiles.grows)
    data = GROWING["a.jsonl.gz"](ROWS)
    first = len(gzip.compress(lines(ROWS[:100])))
    reader = Reader(tmp_path)
    (tmp_path / "a.jsonl.gz").write_bytes(data[:first])
    reader.tick()
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(SourceChanged):
        reader.tick()


@pytest.mark.parametrize("name", GROWING)
def test_a_file_that_grows_between_plan_and_read(tmp_path, name):
    data = GROWING[name](ROWS)
    source = FileSource(str(tmp_path))
    first = source.first("files")
    (tmp_path / name).write_bytes(data[: 2 * len(data) // 3])
    reach = source.reach("files", first, None, max_bytes=1 << 30, drain=False)
    wanted = replayed(FileSource(str(tmp_path)), first, reach.position, reach.identity)
    (tmp_path / name).write_bytes(data[:-5])  # in the middle of a piece
    assert replayed(source, first, reach.position, reach.identity) == wanted
    assert replayed(FileSource(str(tmp_path)), first, reach.position, reach.identity) == wanted
    assert known(wanted[0]) == WANTED[: len(wanted[0])]
    assert wanted[0]


@pytest.mark.parametrize("name", GROWING)
def test_a_file_that_grows_is_another_when_its_beginning_is(tmp_path, name):
    data = GROWING[name](ROWS)
    reader = Reader(tmp_path)
    (tmp_path / name).write_bytes(data)
    reader.tick()
    other = bytearray(data + data)
    other[40] ^= 0xFF
    (tmp_path / name).write_bytes(other)
    with pytest.raises(SourceChanged, match="another file"):
        reader.tick()


@pytest.mark.parametrize("name", [name for name in GROWING if name != "a.csv.gz"])  # its members end within lines
def test_drains_in_the_middle_of_growth_lose_nothing(tmp_path, name):
    """Each that meets a torn end refuses it; what completes it is read all the same, once."""
    data = GROWING[name](ROWS)
    for seed in range(5):
        folder, pace, at = tmp_path / str(seed), random.Random(seed), 0
        folder.mkdir()
        reader = Reader(folder)
        while at < len(data):
            at += pace.choice([1, 100, 1_000, 3_000])
            (folder / name).write_bytes(data[:at])
            reader.fresh = pace.random() < 0.5
            for _ in range(pace.choice([0, 1, 2])):
                reader.tick(pace.choice([1 << 30, 2_000]), drain=pace.random() < 0.3)
        while not reader.tick(drain=True).caught_up:
            pass
        assert known(reader.events) == WANTED, seed
        assert {reason for _, reason in reader.refused} <= {"broken_file"}
        again = [replayed(FileSource(str(folder)), *made) for made in reader.ranges]
        assert [row for events, _ in again for row in events] == reader.events
        assert [one for _, refused in again for one in refused] == reader.refused


@pytest.mark.parametrize("name", GROWING)
def test_the_end_of_a_grown_file_that_stays_torn_is_refused_not_lost(tmp_path, name):
    data = GROWING[name](ROWS)
    cut = 4 * len(data) // 5
    reader = Reader(tmp_path)
    (tmp_path / name).write_bytes(data[: cut // 2])
    reader.tick()
    taken = len(reader.events)
    assert 0 < taken < len(ROWS)
    (tmp_path / name).write_bytes(data[:cut])
    (tmp_path / f"b{name[1:]}").write_bytes(WAYS[name](ROWS[:10]))
    reader.tick()
    events = known(reader.events)
    rows = len(events) - 10
    assert events[:rows] == WANTED[:rows]
    assert events[rows:] == WANTED[:10]
    ((place, reason),) = reader.refused
    assert (place.split(":")[0], reason) == (name, "broken_file")
    start, end, identity = reader.ranges[-1]
    source = FileSource(str(tmp_path))
    (span,) = [span for span in source.spans("files", start, end, identity) if span.torn]
    block = source.read(span)
    assert data[:cut].endswith(block.raw) or len(block.raw) == 4096
    assert data[cut - block.size : cut].startswith(block.raw)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", GROWING)
def test_an_end_that_can_never_become_whole_is_refused_at_once_and_once(tmp_path, name, fresh):
    good, junk = WAYS[name](ROWS[:600]), b"Obj\x01junk and more of it"
    reader = Reader(tmp_path, fresh)
    (tmp_path / name).write_bytes(good)
    reader.tick()
    for more in (junk, b"and more" * 1_000, b"and more"):
        with (tmp_path / name).open("ab") as file:
            file.write(more)
        for _ in range(2):
            assert reader.tick().caught_up
        ((place, reason),) = reader.refused
        assert (place.split(":")[0], reason) == (name, "broken_file")
    (span,) = [span for span in reader.source.spans("files", *reader.ranges[-1]) if span.torn]
    assert reader.source.read(span).raw == junk
    (tmp_path / f"b{name[1:]}").write_bytes(WAYS[name](ROWS[600:]))
    reader.tick()
    reader.tick(drain=True)
    assert known(reader.events) == WANTED
    assert len(reader.refused) == 1, "nor again when the file is left behind"
    again = [replayed(FileSource(str(tmp_path)), *made) for made in reader.ranges]
    assert [one for _, refused in again for one in refused] == reader.refused
    assert [row for events, _ in again for row in events] == reader.events


@pytest.mark.parametrize("name", GROWING)
def test_a_file_is_read_on_when_what_spoilt_it_is_cut_out(tmp_path, name):
    data, reader = GROWING[name](ROWS), Reader(tmp_path)
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    reader.tick()
    (tmp_path / name).write_bytes(data[: len(data) // 2] + b"junk" * 1_000)
    reader.tick()
    assert len(reader.refused) <= 1  # a piece of an Arrow stream does not say that it is none
    (tmp_path / name).write_bytes(data)
    for _ in range(3):
        reader.tick()
    reader.tick(drain=True)
    assert known(reader.events) == WANTED
    assert len(reader.refused) <= 1


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_was_called_broken_and_is_completed_is_read_as_the_error_says(tmp_path, name):
    ending = name[1:]
    data = WAYS[name](ROWS[400:800])
    (tmp_path / f"a{ending}").write_bytes(WAYS[name](ROWS[:400]))
    (tmp_path / f"b{ending}").write_bytes(data[: 2 * len(data) // 3])
    (tmp_path / f"c{ending}").write_bytes(WAYS[name](ROWS[800:]))
    reader = Reader(tmp_path, fresh=True)
    reader.tick()
    assert [reason for _, reason in reader.refused] == ["broken_file"]
    (tmp_path / f"b{ending}").write_bytes(data)
    with pytest.raises(SourceChanged, match="was not whole when it was left behind") as caught:
        reader.tick()
    assert str(2 * len(data) // 3) in caught.value.message
    command = shlex.split(caught.value.hint.split("`")[1])
    subprocess.run(command, check=True)
    reader.tick()
    reader.tick(drain=True)
    assert sorted(set(known(reader.events))) == sorted(WANTED)
    assert len(reader.refused) == 1
    (tmp_path / f"d{ending}").write_bytes(WAYS[name](ROWS[:10]))  # later names are later still
    reader.tick()
    assert known(reader.events)[-10:] == WANTED[:10]


def test_a_file_that_appears_or_grows_behind_the_cursor_may_be_moved(tmp_path):
    (tmp_path / "b.2026-01-31.jsonl").write_bytes(lines(ROWS[:10]))
    reader = Reader(tmp_path)
    reader.tick()
    (tmp_path / "a b.jsonl").write_bytes(lines(ROWS[10:20]))
    with pytest.raises(SourceChanged, match="appeared behind the cursor") as caught:
        reader.tick()
    subprocess.run(shlex.split(caught.value.hint.split("`")[1]), check=True)
    reader.tick()
    with (tmp_path / "b.2026-01-31.jsonl").open("ab") as file:
        file.write(lines(ROWS[20:30]))
    with pytest.raises(SourceChanged, match=r"b\.2026-01-31\.jsonl grew behind the cursor") as caught:
        reader.tick()
    subprocess.run(shlex.split(caught.value.hint.split("`")[1]), check=True)
    reader.tick()
    assert known(reader.events) == [*WANTED[:20], *WANTED[:10], *WANTED[20:30]]
    (tmp_path / "b.2026-02-01.jsonl").write_bytes(lines(ROWS[30:40]))
    reader.tick()
    assert known(reader.events)[-10:] == WANTED[30:40]


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_had_its_full_size_from_the_beginning_is_read_once_it_is_written(tmp_path, name):
    data = WAYS[name](ROWS)
    reader = Reader(tmp_path)
    (tmp_path / name).write_bytes(bytes(len(data)))
    for _ in range(3):
        reader.tick()
    for share in (3, 2):
        (tmp_path / name).write_bytes(data[: len(data) // share].ljust(len(data), b"\0"))
        for _ in range(2):
            reader.tick()
    assert known(reader.events) == WANTED[: len(reader.events)]
    (tmp_path / name).write_bytes(data)
    reader.tick()
    assert len(reader.events) < len(ROWS)  # it may be being written still
    reader.tick()
    assert known(reader.events) == WANTED
    assert reader.refused == []


def test_what_is_written_while_a_file_is_looked_into_is_looked_at_again(tmp_path, monkeypatch):
    """Its size was the same from the beginning."""
    data = parquet(ROWS)
    reader = Reader(tmp_path)
    path = tmp_path / "a.parquet"
    path.write_bytes(bytes(len(data)))
    files = reader.source._files("a.parquet")
    measure = files.measure

    def finished(*args):
        try:
            return measure(*args)
        finally:
            path.write_bytes(data)
            os.utime(path, ns=(1, 1))  # as if it had been long ago

    with monkeypatch.context() as patch:
        patch.setattr(files, "measure", finished)
        reader.tick()
    reader.tick()
    reader.tick()
    assert known(reader.events) == WANTED


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_had_more_than_its_size_is_cut_to_it(tmp_path, name):
    data = WAYS[name](ROWS)
    reader = Reader(tmp_path)
    for now in (bytes(2 * len(data)), data[: len(data) // 2].ljust(2 * len(data), b"\0"), data):
        (tmp_path / name).write_bytes(now)
        for _ in range(2):
            reader.tick()
    assert known(reader.events) == WANTED
    assert reader.refused == []


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_of_which_nothing_could_be_read_may_be_replaced(tmp_path, name):
    reader = Reader(tmp_path)
    (tmp_path / name).write_bytes(b"<html>" * 20_000)
    reader.tick(drain=True)
    assert [reason for _, reason in reader.refused] == ["broken_file"]
    (tmp_path / name).write_bytes(WAYS[name](ROWS))
    for _ in range(2):
        reader.tick()
    reader.tick(drain=True)
    assert known(reader.events) == WANTED
    assert len(reader.refused) == 1


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_file_that_was_drained_before_it_was_whole_goes_on_when_it_is(tmp_path, name, share):
    data = WAYS[name](ROWS)
    reader = Reader(tmp_path, fresh=True)
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    for _ in range(3):
        reader.tick(drain=True)
    reader.tick()
    assert [reason for _, reason in reader.refused] == ["broken_file"]
    (tmp_path / name).write_bytes(data)
    reader.tick(drain=True)
    assert known(reader.events) == WANTED
    assert len(reader.refused) == 1
    assert [replayed(FileSource(str(tmp_path)), *made)[1] for made in reader.ranges] == [[reader.refused[0]], []]


def test_a_file_that_grows_is_not_read_again_and_again(tmp_path, monkeypatch):
    data, looked = WAYS["a.avro"](ROWS), []
    source = FileSource(str(tmp_path))
    (tmp_path / "a.avro").write_bytes(data[:100])
    measure = source._files("a.avro").measure
    monkeypatch.setattr(source._files("a.avro"), "measure", lambda *args: looked.append(1) or measure(*args))
    for size in (100, 100, 120, 150, 190, 190, 190):
        if size > (tmp_path / "a.avro").stat().st_size:
            (tmp_path / "a.avro").write_bytes(data[:size])
        source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False)
    assert len(looked) == 2  # at first, and once it had stopped
    for size in range(200, 10_000, 100):
        (tmp_path / "a.avro").write_bytes(bytes(size))
        source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False)
    assert len(looked) < 10  # and each time that it has doubled


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
    data = WAYS[name](ROWS[:50])  # of one piece
    bad = {
        "cut": data[: len(data) // 8],
        "empty": b"",
        "other": b"<html>not found</html>",
        "header": b"\0" * 9 + data[9:],
    }
    ending = name[1:]
    (tmp_path / f"a{ending}").write_bytes(WAYS[name](ROWS[:400]))
    (tmp_path / f"b{ending}").write_bytes(bad[broken])
    (tmp_path / f"c{ending}").write_bytes(WAYS[name](ROWS[400:]))
    events, refused = all_of(FileSource(str(tmp_path)), drain=False)
    inside = name in ("a.parquet", "a.json.gzip") and broken == "header"  # a footer, or a member, follows
    left = WANTED[10:50] if inside and name == "a.json.gzip" else []
    assert known(events) == [*WANTED[:400], *left, *WANTED[400:]]
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

    class Dead(io.BytesIO):
        def read(self, *args):
            raise OSError("connection reset")

    monkeypatch.setattr(fs, "open", lambda *args, **kwargs: Dead())
    whole = whole_module.WholeFiles
    monkeypatch.setattr(whole, "_again", whole._once)
    monkeypatch.setattr(fs, "cat_file", lambda path, start=None, end=None: b"")
    reach = source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=True)
    assert reach.position == {"file": "a.parquet", "offset": 0, "torn": len(parquet(ROWS))}


def test_a_folder_may_hold_files_that_are_compressed_and_one_that_grows(tmp_path):
    (tmp_path / "a1.jsonl.gz").write_bytes(gzip.compress(lines(ROWS[:300])))
    (tmp_path / "a2.jsonl.zst").write_bytes(packed(lines(ROWS[300:600]), "zstd"))
    (tmp_path / "a3.jsonl").write_bytes(lines(ROWS[600:]))
    assert known(all_of(FileSource(str(tmp_path)), drain=False)[0]) == WANTED


def test_the_last_line_of_a_compressed_file_needs_no_line_break(tmp_path):
    """But as that of a plain one it is read once nothing can follow: the next member may go on with it."""
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(ROWS)[:-1]))
    source = FileSource(str(tmp_path))
    assert known(all_of(source, drain=False)[0]) == WANTED[:-1]
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b""))
    assert known(all_of(source, drain=False)[0]) == WANTED


@pytest.mark.parametrize("bound", [(4, 1 << 30), (64, 20_000)])
def test_few_unpacked_files_are_kept(tmp_path, monkeypatch, bound):
    for number in range(20):
        part = ROWS[number * 50 : number * 50 + 50]
        (tmp_path / f"{number:02}.jsonl.gz").write_bytes(gzip.compress(lines(part)))
    files, size = bound
    texts = packed_module._Texts()
    monkeypatch.setattr(packed_module, "KEPT_FILES", files)
    monkeypatch.setattr(packed_module, "KEPT_BYTES", size)
    monkeypatch.setattr(packed_module, "_TEXTS", texts)
    sources = []
    for _ in range(3):  # as partitions of a pattern have each a source of its own
        sources.append(FileSource(str(tmp_path)))
        assert known(all_of(sources[-1])[0]) == WANTED
        alive = {id(text) for source in sources for text in source._files("a.jsonl.gz")._texts.values()}
        assert alive <= {id(text) for text in texts._kept.values()}
        assert 1 <= len(texts._kept) <= files
        assert sum(text.length for text in texts._kept.values()) <= size


def test_several_sources_may_unpack_one_file_at_once(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(GROWING["a.jsonl.gz"](ROWS))
    with ThreadPoolExecutor(8) as pool:
        for events, refused in pool.map(lambda _: all_of(FileSource(str(tmp_path)), 20_000), range(16)):
            assert known(events) == WANTED
            assert refused == []


def test_a_text_that_was_unpacked_is_found_again_by_the_sources_of_the_next_tick(tmp_path, monkeypatch):
    added, add = [], packed_module._Text.add
    monkeypatch.setattr(packed_module._Text, "add", lambda text, *rest: added.append(text.length) or add(text, *rest))
    data = GROWING["a.jsonl.gz"](ROWS)
    reader = Reader(tmp_path, fresh=True)
    for share in (0.5, 1):
        (tmp_path / "a.jsonl.gz").write_bytes(data[: int(len(data) * share)])
        while reader.tick(budget=3_000).size:
            pass
    assert known(reader.events) == WANTED
    assert [length > 0 for length in added] == [False, True]
    (tmp_path / "a.jsonl.gz").write_bytes(WAYS["a.jsonl.gz"](ROWS[:500]))  # another file, for another loop
    assert known(all_of(FileSource(str(tmp_path)))[0]) == WANTED[:500]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_zeros_behind_a_gzip_file_are_padding(tmp_path, ending):
    """As gzip(1) has it; zstd has none. While more may come, they are waited for like any torn end."""
    name = f"a.jsonl.{ending}"
    reader = Reader(tmp_path)
    (tmp_path / name).write_bytes(WAYS[name](ROWS[:600]) + bytes(100_000))
    reader.tick()
    assert known(reader.events) == WANTED[:600]
    assert reader.refused == []
    (tmp_path / f"b.jsonl.{ending}").write_bytes(WAYS[name](ROWS[600:]))
    reader.tick()
    assert known(reader.events) == WANTED
    assert [reason for _, reason in reader.refused] == ([] if ending == "gz" else ["broken_file"])
    assert [row for made in reader.ranges for row in replayed(FileSource(str(tmp_path)), *made)[0]] == reader.events


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy", "zstandard", "lz4"])
def test_every_codec_of_avro(tmp_path, codec):
    write = avro if codec in ("deflate", "bzip2", "xz") else avro_in
    data = write(ROWS, codec)
    (tmp_path / "a.avro").write_bytes(data)
    for budget in (1 << 30, 5_000):
        assert known(all_of(FileSource(str(tmp_path)), budget)[0]) == WANTED
    at = len(data) - 30  # inside the last block
    (tmp_path / "a.avro").write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    events, refused = all_of(FileSource(str(tmp_path)))
    assert refused == [("a.avro:0", "broken_piece")] or codec in ("null", "deflate", "lz4")  # they have no checksum
    assert len(events) + len(refused) in (1, len(ROWS))


def test_a_codec_that_is_not_known_is_named(tmp_path):
    data = avro(ROWS).replace(b"\x0edeflate", b"\x0ebrotli!")
    (tmp_path / "a.avro").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.avro is packed with codec 'brotli!'") as caught:
        all_of(FileSource(str(tmp_path)))
    assert "snappy" in caught.value.hint


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


def test_streams_of_arrow_that_follow_each_other_may_have_other_columns(tmp_path):
    later = [{"new": "x", **row} for row in ROWS[600:]]
    (tmp_path / "a.arrows").write_bytes(WAYS["a.arrows"](ROWS[:600]) + WAYS["a.arrows"](later))
    for budget in (1 << 30, 5_000):
        assert known(all_of(FileSource(str(tmp_path)), budget)[0]) == WANTED
    other = [{**row, "user": f"u{row['user']}"} for row in ROWS[600:]]
    (tmp_path / "a.arrows").write_bytes(WAYS["a.arrows"](ROWS[:600]) + WAYS["a.arrows"](other))
    with pytest.raises(WrongType, match=r"the streams in .*a\.arrows do not agree"):
        all_of(FileSource(str(tmp_path)))


def test_a_file_that_is_written_while_it_is_measured_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(ROWS)[:-9])
    source = FileSource(str(tmp_path))
    measure = source._files("a.parquet").measure

    def finished(stream, size, before):
        path.write_bytes(parquet(ROWS))
        return measure(io.BytesIO(path.read_bytes()), size, before)

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
