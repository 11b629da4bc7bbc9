"""Gaps: what can never be read costs itself, what follows is read, and how the file grew makes no difference."""

import gzip
import io
import random
import zlib

import pyarrow as pa
import pytest
from folders import ROWS, WANTED, Reader, known, replayed
from formats import WAYS, pieces_of
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import SourceError, SourceTruncated
from pipelines.sources import avro, members, packed, pieces, whole
from pipelines.sources.files import FileSource
from pipelines.sources.pieces import NoPiece, places

GOES_ON = ["a.jsonl.gz", "a.jsonl.zst", "a.arrows", "a.avro"]
BEGINNINGS = {"a.jsonl.gz": b"\x1f\x8b\x08\0", "a.jsonl.zst": b"\x28\xb5\x2f\xfd", "a.arrows": b"\xff\xff\xff\xff"}


def junk_of(kind, name, piece):
    return {
        "text": b"<html>502</html>" * 9,
        "one byte": b"\x01",
        "torn": piece[: 2 * len(piece) // 3],
        "torn at once": piece[:7],
        "torn at its end": piece[:-8],
        "its end": piece[len(piece) // 2 :],
        "a beginning": BEGINNINGS.get(name, piece[-16:]) + b"junk" * 4,
        "some zeros": bytes(100),
        "ones": b"\xff" * 101,
    }[kind]


KINDS = ["text", "one byte", "torn", "torn at once", "torn at its end", "its end", "a beginning", "some zeros", "ones"]


def rows_in(name, some):
    """Events that pieces hold."""
    if name == "a.avro":
        return sum(avro._long(piece, 0)[0] for piece in some)
    return 100 * len(some)


def once(folder, name, data):
    """What is read of a file that is whole from the beginning, and the newest of its folder."""
    folder.mkdir()
    (folder / name).write_bytes(data)
    reader = Reader(folder)
    for _ in range(3):
        reader.tick()
    return reader


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", GOES_ON)
def test_what_can_never_be_read_costs_itself_and_the_newest_file_is_read_on(tmp_path, name, kind):
    """Of Avro, the block behind it may be lost with it: a block says where it ends, not where it begins."""
    some, at = pieces_of(name, ROWS), 4
    junk = junk_of(kind, name, some[2])
    behind = at + (name == "a.avro" and kind != "its end")
    lost = b"".join([junk, *some[at:behind]])
    data = b"".join([*some[:at], junk, *some[at:]])
    start = len(b"".join(some[:at]))
    reader = once(tmp_path / "shown", name, data)
    head = name == "a.avro"
    low = rows_in(name, some[head:at])
    high = low + rows_in(name, some[at:behind])
    assert known(reader.events) == WANTED[:low] + WANTED[high:]
    ((_, reason),) = reader.refused
    assert reason == "broken_piece"
    (made,) = reader.ranges
    (span,) = [span for span in reader.source.spans("files", *made) if span.gap]
    block = reader.source.read(span)
    assert (block.raw, block.size, span.gap.start) == (lost[:4096], len(lost), start)
    assert replayed(FileSource(str(tmp_path / "shown")), *made) == (reader.events, reader.refused)


@pytest.mark.parametrize("name", GOES_ON)
def test_twin_without_gaps_what_follows_is_not_read(tmp_path, name, monkeypatch):
    for module in (pieces, members):
        monkeypatch.setattr(module, "resumed", lambda *args: None)
    some = pieces_of(name, ROWS)
    reader = once(tmp_path / "shown", name, b"".join([*some[:4], b"junk", *some[4:]]))
    assert known(reader.events) == WANTED[: rows_in(name, some[name == "a.avro" : 4])]
    assert [reason for _, reason in reader.refused] == ["broken_file"]


@pytest.mark.parametrize("kind", ["text", "torn"])
@pytest.mark.parametrize("name", GOES_ON)
def test_byte_by_byte_the_same_is_read_as_at_once(tmp_path, name, kind):
    some = pieces_of(name, ROWS[:40], 8)
    data = b"".join([*some[:2], junk_of(kind, name, some[1]), *some[2:]])
    whole = once(tmp_path / "once", name, data)
    (tmp_path / "grown").mkdir()
    reader = Reader(tmp_path / "grown")
    for end in range(len(some[0]) + 1, len(data) + 1):
        (tmp_path / "grown" / name).write_bytes(data[:end])
        reader.tick()
        reader.tick()
        assert reader.refused == [] or end > len(b"".join(some[:2])), "what is being written is waited for"
    assert reader.events == whole.events
    assert len(reader.events) >= 24
    assert [place for place, _ in reader.refused] == [place for place, _ in whole.refused]
    assert len(whole.refused) == 1
    source = FileSource(str(tmp_path / "grown"))
    again = [replayed(source, *made) for made in reader.ranges]
    assert [row for events, _ in again for row in events] == reader.events
    assert [one for _, refused in again for one in refused] == reader.refused


def gapped(pace, name):
    """A file with junk of every kind; its last pieces stand where no junk is near."""
    some = pieces_of(name, ROWS, 60)
    parts = [some[0]]
    for piece in some[1:]:
        if pace.random() < 0.4:
            kind = pace.choice([*KINDS, "random"])
            parts.append(b"\x01" + pace.randbytes(300) if kind == "random" else junk_of(kind, name, pace.choice(some)))
        parts.append(piece)
    return b"".join([*parts, *some[1:]])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", GOES_ON)
def test_at_any_pace_the_same_is_read_as_at_once(tmp_path, name, seed):
    pace = random.Random(f"{name} {seed}")
    data = gapped(pace, name)
    whole = once(tmp_path / "once", name, data)
    (tmp_path / "grown").mkdir()
    reader, end = Reader(tmp_path / "grown"), 0
    while end < len(data):
        end += pace.choice([1, 10, 300, 3_000, 20_000])
        (tmp_path / "grown" / name).write_bytes(data[:end])
        reader.fresh = pace.random() < 0.3
        for _ in range(pace.choice([0, 1, 2])):
            reader.tick(pace.choice([1 << 30, 4_000]), drain=pace.random() < 0.15)
    for _ in range(3):
        while not reader.tick().caught_up:
            pass
    assert reader.events == whole.events
    assert len(known(whole.events)) > 900
    again = [replayed(FileSource(str(tmp_path / "grown")), *made) for made in reader.ranges]
    assert [row for events, _ in again for row in events] == reader.events
    assert [one for _, refused in again for one in refused] == reader.refused


def stored(data):
    """A member that holds its text as it is."""
    packing = zlib.compressobj(0, wbits=31)
    return packing.compress(data) + packing.flush()


def nested(name):
    """(a whole piece, a piece that holds another whole one, and where that ends in it)."""
    inner = WAYS[name](ROWS[:10])
    if name == "a.jsonl.gz":
        outer = stored(inner + b"x" * 5_000)
    else:
        sink = pa.BufferOutputStream()
        table = pa.table({"id": ["a", "b"], "t": [1, 2], "user": [1, 2], "x": [0.5, 1], "log": [inner, b"x" * 5_000]})
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        outer = sink.getvalue().to_pybytes()
    return inner, outer, outer.index(inner) + len(inner)


@pytest.mark.parametrize("junk", [b"", b"junk"])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.arrows"])
def test_a_piece_that_is_being_written_is_waited_for_whatever_it_holds(tmp_path, name, junk):
    good, outer, end = nested(name)
    (tmp_path / name).write_bytes(good + junk + outer[: end + 1_000])
    reader = Reader(tmp_path)
    for _ in range(3):
        reader.tick()
    assert known(reader.events) == WANTED[:10]
    assert [reason for _, reason in reader.refused] == (["broken_file"] if junk else [])


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.arrows"])
def test_twin_a_place_that_is_not_waited_for_makes_the_pace_matter(tmp_path, name, monkeypatch):
    real = pieces.resumed

    def eager(stream, start, begins, is_whole):
        def surely(place):
            if not is_whole(place):
                raise NoPiece
            return True

        return real(stream, start, begins, surely)

    for module in (pieces, members):
        monkeypatch.setattr(module, "resumed", eager)
    good, outer, end = nested(name)
    reader = once(tmp_path / "shown", name, good + b"junk" + outer[: end + 1_000])
    assert known(reader.events) == WANTED[:10] * 2


def holed(folder, name):
    """A file that is not written in order, as a download in parts: read with a hole, then filled; what was read."""
    some = pieces_of(name, ROWS, 40)
    data, at = b"".join(some), 2 * len(some) // 3
    low, high = len(b"".join(some[:at])) + 20, len(b"".join(some[: at + 3])) - 50
    (folder / name).write_bytes(data[:low].ljust(high, b"\0") + data[high:])
    reader = Reader(folder)
    for _ in range(3):
        reader.tick()
    assert len(reader.refused) == 1
    (folder / name).write_bytes(data)
    for _ in range(3):
        reader.tick()
    return known(reader.events), [reason for _, reason in reader.refused]


@pytest.mark.parametrize("name", GOES_ON)
def test_a_hole_that_may_still_be_filled_is_no_gap(tmp_path, name):
    assert holed(tmp_path, name) == (WANTED, ["broken_file"])


@pytest.mark.parametrize("name", GOES_ON)
def test_twin_a_hole_that_is_taken_for_a_gap_loses_what_fills_it(tmp_path, name, monkeypatch):
    monkeypatch.setattr(pieces, "HOLE", bytes(1 << 20))
    events, reasons = holed(tmp_path, name)
    assert len(events) < len(WANTED)
    assert reasons == ["broken_piece"]


def looked_at_badly(folder, name, monkeypatch):
    """What is refused of a whole file whose store gives other bytes at the first look."""
    some = pieces_of(name, ROWS)
    data = b"".join(some)
    (folder / name).write_bytes(data)
    source = FileSource(str(folder))
    fs, _ = source._place
    with monkeypatch.context() as patch:
        patch.setattr(fs, "open", lambda *args: io.BytesIO(b"".join([*some[:4], b"junk", *some[4:]])))
        patch.setattr(fs, "cat_file", lambda path, start=None, end=None: data[start:end])
        reach = source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False)
    return [reason for _, reason in replayed(source, source.first("files"), reach.position, reach.identity)[1]]


@pytest.mark.parametrize("name", GOES_ON)
def test_a_gap_is_looked_at_twice(tmp_path, name, monkeypatch):
    assert looked_at_badly(tmp_path, name, monkeypatch) == []


def test_text_that_is_unpacked_badly_is_no_other_text(tmp_path, monkeypatch):
    """A worker unpacks it anew; a gap that it alone meets would shift what follows."""
    some = pieces_of("a.jsonl.gz", ROWS)
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(some))
    source = FileSource(str(tmp_path))
    reach = source.reach("files", source.first("files"), None, max_bytes=1 << 30, drain=False)
    (span,) = source.spans("files", source.first("files"), reach.position, reach.identity)
    monkeypatch.setattr(packed, "_TEXTS", packed._Texts())
    other = FileSource(str(tmp_path))
    fs, _ = other._place
    bad = b"".join([*some[:4], b"junk", *some[4:]])
    monkeypatch.setattr(fs, "open", lambda *args: io.BytesIO(bad))
    monkeypatch.setattr(fs, "cat_file", lambda path, start=None, end=None: b"".join(some)[start:end])
    with pytest.raises(SourceTruncated):
        other.read(span)


def test_twin_a_gap_that_is_looked_at_once_may_be_none(tmp_path, monkeypatch):
    monkeypatch.setattr(whole.WholeFiles, "_again", whole.WholeFiles._once)
    assert "broken_piece" in looked_at_badly(tmp_path, "a.avro", monkeypatch)


@pytest.mark.parametrize("name", GOES_ON)
def test_what_was_refused_while_nothing_followed_is_refused_once(tmp_path, name):
    some = pieces_of(name, ROWS, 50)
    reader = Reader(tmp_path)
    for end, more in ((4, b"junk"), (7, b""), (9, b"<html>"), (len(some), b"")):
        low = {4: 0, 7: 4, 9: 7}.get(end, 9)
        with (tmp_path / name).open("ab") as file:
            file.write(b"".join(some[low:end]) + more)
        for _ in range(3):
            reader.tick(drain=True)
    assert [reason for _, reason in reader.refused] == ["broken_file"] * 2
    assert len(reader.events) == len(ROWS) if name != "a.avro" else len(reader.events) < len(ROWS)
    again = [replayed(FileSource(str(tmp_path)), *made) for made in reader.ranges]
    assert [one for _, refused in again for one in refused] == reader.refused
    assert [row for events, _ in again for row in events] == reader.events


@pytest.mark.parametrize("name", GOES_ON)
def test_a_record_of_before_there_were_gaps_reads_what_it_read(tmp_path, name):
    """Of a file that it left behind, and of one that it had refused at the cursor, which goes on."""
    some = pieces_of(name, ROWS)
    first = rows_in(name, some[name == "a.avro" : 4])
    junk = b"".join([b"junk", *some[4:]])
    (tmp_path / name).write_bytes(b"".join([*some[:4], junk]))
    (tmp_path / f"b{name[1:]}").write_bytes(WAYS[name](ROWS[:10]))
    reader = Reader(tmp_path)
    reader.tick()
    start, end, identity = reader.ranges[0]
    assert identity.pop("gaps")
    source = FileSource(str(tmp_path))
    events, refused = replayed(source, start, end, identity)
    assert known(events) == WANTED[:first] + WANTED[:10]
    assert [reason for _, reason in refused] == ["broken_file"]
    (span,) = [span for span in source.spans("files", start, end, identity) if span.torn]
    assert (source.read(span).raw, source.read(span).size) == (junk[:4096], len(junk))

    (tmp_path / f"b{name[1:]}").unlink()
    size = len(b"".join([*some[:4], junk]))
    torn = {"file": name, "offset": int(refused[0][0].split(":")[1]), "torn": size}
    assert replayed(source, start, torn, {**identity, "size": size, "passed": {}})[1] == refused
    reader.at = torn
    reader.identity = {**identity, **source._seen(torn, {name: size}), "passed": {}, "recent": {}}
    reader.events, reader.refused = [], []
    reader.tick()
    high = first + rows_in(name, some[4:5] if name == "a.avro" else [])
    assert known(reader.events) == WANTED[high:]
    assert reader.refused == []


@pytest.mark.parametrize("name", GOES_ON)
def test_single_events_behind_a_gap_are_found_where_they_stand(tmp_path, name):
    some = pieces_of(name, ROWS)
    data = b"".join([*some[:4], b"junk", *some[4:]])
    reader = once(tmp_path / "shown", name, data)
    offsets = [event["_offset"] for event in reader.events][::97]
    source = FileSource(str(tmp_path / "shown"))
    block = source.at(name, offsets, {})
    if name.startswith("a.jsonl"):
        found = [line.split(b'"')[3].decode() for line in block.data.splitlines()]
    else:
        found = block.table["id"].to_pylist()
    assert found == [event["_id"] for event in reader.events][::97]
    with pytest.raises(SourceError, match="cannot be read to its end"):
        source.rest(name, 0)
    (gap,) = source._files(name).gaps(str(tmp_path / "shown" / name), len(data), 1 << 40)
    behind = max(offset for offset in offsets if offset > gap.unit)
    assert source.rest(name, behind)


def test_behind_a_gap_no_line_of_csv_is_read(tmp_path):
    """What is left of a line that was cut may read as another one; as JSON it never does."""
    rows = [{"id": f"e{i}", "t": 1_700_000_000 + i, "user": 1, "x": 12_345} for i in range(100)]
    for name, text in (("a.csv.gz", WAYS["a.csv"](rows)), ("b.jsonl.gz", WAYS["a.jsonl"](rows))):
        cut = len(text) // 2
        cut = text.index(b"345", cut) + 1 if name == "a.csv.gz" else cut
        (tmp_path / name[0]).mkdir()
        data = gzip.compress(text[:cut]) + b"junk" + gzip.compress(text[cut + 70 :])
        reader = once(tmp_path / name[0] / "shown", name, data)
        assert {int(event["x"]) for event in reader.events} == {12_345}
        reasons = [reason for _, reason in reader.refused]
        if name == "a.csv.gz":
            assert reasons == ["broken_file"]
            assert len(reader.events) < 60
        else:
            assert sorted(reasons) == ["broken_piece", "malformed", "malformed"]
            assert len(reader.events) >= 97


def test_a_damaged_length_takes_no_memory(tmp_path):
    """Of an Arrow stream; what it says is 1 EiB."""
    some = pieces_of("a.arrows", ROWS)
    size = pa.ipc.read_message(io.BytesIO(some[1][some[1].index(b"\xff" * 4, 8) :]).read()).body.size
    damaged = some[1].replace(size.to_bytes(8, "little"), (1 << 60).to_bytes(8, "little"), 1)
    assert damaged != some[1]
    reader = once(tmp_path / "shown", "a.arrows", b"".join([some[0], damaged]))
    assert known(reader.events) == WANTED[:100]


@given(
    st.binary(max_size=60), st.binary(min_size=1, max_size=3), st.integers(0, 60), st.integers(0, 60), st.integers(3, 9)
)
def test_places_are_all_that_there_are(data, marker, start, end, chunk):
    end = min(end, len(data))
    wanted = [at for at in range(start, end) if data[at:end].startswith(marker)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "CHUNK", chunk)
        assert list(places(io.BytesIO(data), marker, start, end)) == wanted
