import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import SettingsError, SourceChanged, SourceTruncated, SourceVanished
from pipelines.sources import files as files_module
from pipelines.sources import lines as lines_module
from pipelines.sources import listing as listing_module
from pipelines.sources.base import Rows
from pipelines.sources.files import FileSource

BIG = 1 << 30


class Reader:
    """Reads a source tick by tick as a pipeline does; `text` is all that it has read."""

    def __init__(self, url, kind=""):
        self.source = FileSource(str(url), kind)
        self.at, self.identity, self.aside = self.source.first("files"), None, None
        self.text, self.rows = b"", []

    def tick(self, max_bytes=BIG, drain=False):
        reach = self.source.reach("files", self.at, self.identity, max_bytes=max_bytes, drain=drain, aside=self.aside)
        source = pickle.loads(pickle.dumps(self.source))
        for span in source.spans("files", self.at, reach.position, reach.identity):
            block = source.read(span)
            if isinstance(block, Rows):
                self.rows += block.table.to_pylist()
            else:
                self.text += block.data
        self.at, self.identity = reach.position, json.loads(json.dumps(reach.identity))
        self.aside = self.aside if reach.aside is None else json.loads(json.dumps(reach.aside))
        return reach


def test_a_growing_file_ends_after_its_last_complete_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntw")
    reader = Reader(path)
    assert reader.tick().caught_up
    assert reader.text == b"one\n"
    assert reader.tick().size == 0
    with path.open("ab") as stream:
        stream.write(b"o\nthree\n")
    reader.tick()
    assert reader.text == b"one\ntwo\nthree\n"


def test_the_tail_is_read_on_drain(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo")
    reader = Reader(path)
    reader.tick(drain=True)
    assert reader.text == b"one\ntwo"


def test_a_folder_is_read_in_name_order_and_tails_end_with_a_later_file(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(b"b1\nb2")
    (tmp_path / "a.jsonl").write_bytes(b"a1\na2")
    (tmp_path / ".c.jsonl").write_bytes(b"hidden\n")
    (tmp_path / "_tmp").mkdir()
    (tmp_path / "_tmp" / "d.jsonl").write_bytes(b"hidden\n")
    reader = Reader(tmp_path)
    assert reader.tick().position == {"file": "b.jsonl", "offset": 3}
    assert reader.text == b"a1\na2b1\n"
    (tmp_path / "c.jsonl").write_bytes(b"")
    reader.tick()
    assert reader.text == b"a1\na2b1\nb2"


def test_an_empty_folder_is_no_error(tmp_path):
    reader = Reader(tmp_path)
    assert reader.tick().size == 0
    (tmp_path / "a.jsonl").write_bytes(b"x\n")
    reader.tick()
    assert reader.text == b"x\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 60), st.integers(1, 50))
def test_any_budget_and_any_pieces_read_every_line_once(tmp_path_factory, lengths, budget, piece):
    path = tmp_path_factory.mktemp("cuts") / "a.jsonl"
    data = b"".join(b"%03d" % i + b"x" * n + b"\n" for i, n in enumerate(lengths))
    path.write_bytes(data)
    old = lines_module.SPAN_BYTES, lines_module.SCAN_BYTES
    lines_module.SPAN_BYTES, lines_module.SCAN_BYTES = piece, 7
    try:
        reader = Reader(path)
        while reader.tick(budget).size:
            pass
    finally:
        lines_module.SPAN_BYTES, lines_module.SCAN_BYTES = old
    assert reader.text == data


def test_a_backlog_is_bounded(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"0123456789\n" * 100)
    reader = Reader(path)
    reach = reader.tick(max_bytes=100)
    assert (reach.size, reach.caught_up) == (99, False)


def test_csv_header_is_read_once_per_file(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_bytes(b"\xef\xbb\xbfid,ts\n1,2\n3,4\n")
    reader = Reader(tmp_path)
    reader.tick()
    assert reader.text == b"1,2\n3,4\n" * 2
    reach = reader.source.reach("files", {"file": "", "offset": 0}, None, max_bytes=BIG, drain=False)
    spans = reader.source.spans("files", {"file": "", "offset": 0}, reach.position, reach.identity)
    blocks = [reader.source.read(span) for span in spans]
    assert [block.header for block in blocks] == [("id", "ts")] * 2
    assert blocks[0].start == len(b"\xef\xbb\xbfid,ts\n")


def test_parquet_offsets_are_rows_and_a_file_exists_once_its_footer_verifies(tmp_path):
    table = pa.table({"id": range(100), "x": range(100)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-10])
    reader = Reader(tmp_path)
    first = reader.tick(max_bytes=40)
    assert 0 < first.position["offset"] < 100
    assert not first.caught_up
    while reader.tick(max_bytes=400).size:
        pass
    assert [row["id"] for row in reader.rows] == list(range(100))
    (tmp_path / "b.parquet").write_bytes(whole)
    reader.tick()  # it grew
    reader.tick()  # and has stopped
    assert [row["id"] for row in reader.rows] == list(range(100)) * 2


def test_columns_are_projected(tmp_path):
    pq.write_table(pa.table({"id": range(5), "x": range(5)}), tmp_path / "a.parquet")
    source = FileSource(str(tmp_path / "a.parquet"))
    reach = source.reach("files", source.first("files"), None, max_bytes=BIG, drain=False)
    (span,) = source.spans("files", source.first("files"), reach.position, reach.identity)
    assert source.read(span, {"id"}).table.column_names == ["id"]


def started(tmp_path, text=b"one\ntwo\n"):
    (tmp_path / "b.jsonl").write_bytes(text)
    reader = Reader(tmp_path)
    reader.tick()
    return reader


def test_a_truncated_file(tmp_path):
    reader = started(tmp_path)
    (tmp_path / "b.jsonl").write_bytes(b"one\n")
    with pytest.raises(SourceTruncated, match="has 4 bytes, but 8 were read") as caught:
        reader.tick()
    assert "put the file back" in caught.value.hint


def test_a_file_that_is_truncated_between_plan_and_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo\n")
    source = FileSource(str(path))
    first = source.first("files")
    reach = source.reach("files", first, None, max_bytes=BIG, drain=False)
    path.write_bytes(b"one\n")
    with pytest.raises(SourceTruncated, match="ended at byte 4"):
        source.read(source.spans("files", first, reach.position, reach.identity)[0])


def test_a_replaced_file(tmp_path):
    reader = started(tmp_path)
    (tmp_path / "b.jsonl").write_bytes(b"eno\ntwo\nthree\n")
    with pytest.raises(SourceChanged, match="another file than the one that was read up to byte 8"):
        reader.tick()


def test_a_vanished_or_renamed_file(tmp_path):
    reader = started(tmp_path)
    (tmp_path / "b.jsonl").rename(tmp_path / "b.jsonl.1")
    with pytest.raises(SourceVanished, match=r"b\.jsonl is not there") as caught:
        reader.tick()
    assert "rotated by renaming" in caught.value.hint


def test_rotation_by_renaming_is_noticed_when_the_name_is_used_again(tmp_path):
    path = tmp_path / "app.jsonl"
    path.write_bytes(b"one\ntwo\n")
    reader = Reader(path)
    reader.tick()
    path.rename(tmp_path / "app.jsonl.1")
    path.write_bytes(b"three\nfour\nfive\n")
    with pytest.raises(SourceChanged) as caught:
        reader.tick()
    assert "rotation by renaming" in caught.value.hint


def test_a_source_that_never_was(tmp_path):
    with pytest.raises(SourceVanished, match="is not there") as caught:
        Reader(tmp_path / "no.jsonl").tick()
    assert "check `source`" in caught.value.hint


def test_files_behind_the_cursor(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"a\n")
    reader = started(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"a\nmore\n")
    with pytest.raises(SourceChanged, match=r"a\.jsonl (grew|shrank) behind the cursor"):
        reader.tick()
    (tmp_path / "a.jsonl").unlink()  # a deleted one is fine
    reader.tick()
    (tmp_path / "a.jsonl").write_bytes(b"a\n")  # but it is a new one when it comes back
    with pytest.raises(SourceChanged, match=r"a\.jsonl appeared behind the cursor"):
        reader.tick()


def numbered(tmp_path, numbers):
    for number in numbers:
        (tmp_path / f"{number:05d}.jsonl").write_bytes(b"%05d\n" % number)


def test_what_a_source_remembers_does_not_grow_with_the_files_it_read(tmp_path):
    numbered(tmp_path, range(500))
    reader = Reader(tmp_path)
    reader.tick()
    asides, sizes = [], []
    for number in range(500, 700):
        numbered(tmp_path, [number])
        reach = reader.tick()
        asides += [] if reach.aside is None else [reach.aside]
        sizes.append(len(json.dumps(reach.identity)))
    assert reader.text == b"".join(b"%05d\n" % number for number in range(700))
    assert max(sizes) < 3_000
    assert len(asides) == 4  # the first after 500 files at once, then every 65 files
    assert len(reader.aside) > 600


@pytest.mark.parametrize("number", [3, 130, 158, 159], ids=["aside", "recent", "passed before", "passed last"])
@pytest.mark.parametrize("how", ["grown", "deleted", "back", "back and grown"])
def test_every_file_behind_the_cursor_is_remembered(tmp_path, number, how):
    """A grown or new one stops the partition, a deleted one is fine; wherever its name is kept."""
    numbered(tmp_path, range(100))
    reader = Reader(tmp_path)
    reader.tick()
    for more in range(100, 161):
        numbered(tmp_path, [more])
        reader.tick()
    assert "00003.jsonl" in reader.aside
    path = tmp_path / f"{number:05d}.jsonl"
    assert (path.name in reader.aside) == (number == 3)
    if how != "grown":
        path.unlink()
        numbered(tmp_path, [161])
        reader.tick()
    if how != "deleted":
        path.write_bytes(b"%05d\n" % number + b"more\n" * ("grown" in how))
        with pytest.raises(SourceChanged, match="appeared" if "back" in how else "(grew|shrank)"):
            reader.tick()


def ticks(reader, number):
    for _ in range(number):
        reader.tick()


def test_the_sizes_of_many_files_are_asked_for_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "ASKED", 20)
    numbered(tmp_path, range(100))
    reader = Reader(tmp_path)
    reader.tick()
    reader.tick()
    for number in (7, 55, 98):
        path = tmp_path / f"{number:05d}.jsonl"
        path.write_bytes(b"longer than before\n")
        with pytest.raises(SourceChanged, match=f"{path.name} (grew|shrank)"):
            ticks(reader, 6)
        with pytest.raises(SourceChanged, match=f"{path.name} (grew|shrank)"):  # at once by a new process
            pickle.loads(pickle.dumps(reader.source)).reach(
                "files", reader.at, reader.identity, max_bytes=BIG, drain=False, aside=reader.aside
            )
        numbered(tmp_path, [number])
    numbered(tmp_path, range(-1, 0))
    with pytest.raises(SourceChanged, match="appeared"):
        reader.tick()


def test_deleted_files_leave_the_memory(tmp_path):
    numbered(tmp_path, range(300))
    reader = Reader(tmp_path)
    reader.tick()
    numbered(tmp_path, [300])
    reader.tick()
    for number in range(200):
        (tmp_path / f"{number:05d}.jsonl").unlink()
    numbered(tmp_path, [301])
    reader.tick()
    assert sorted(reader.aside) == [f"{number:05d}.jsonl" for number in range(200, 300)]
    assert reader.identity["gone"] == []


def test_folders_links_and_names_of_a_local_folder_are_as_on_any_file_system(tmp_path):
    (tmp_path / "day=2").mkdir()
    (tmp_path / "day=1" / "_tmp").mkdir(parents=True)
    for name in ("day=2/a.jsonl", "day=1/b.jsonl", "day=1/_tmp/c.jsonl", "day=1/.d.jsonl", "e.jsonl"):
        (tmp_path / name).write_bytes(name.encode() + b"\n")
    (tmp_path / "day=1" / "f.jsonl").symlink_to(tmp_path / "e.jsonl")
    (tmp_path / "day=1" / "loop").symlink_to(tmp_path)
    source = FileSource(str(tmp_path))
    fs, path = source._place
    listed = {name: size for name, size in listing_module._listed(fs, path).items() if "loop" not in name}
    assert source._sizes() == dict(sorted(listed.items()))
    assert list(listed) == ["day=1/b.jsonl", "day=1/f.jsonl", "day=2/a.jsonl", "e.jsonl"]


def test_a_parquet_file_never_changes(tmp_path):
    table = pa.table({"id": range(100)})
    pq.write_table(table, tmp_path / "a.parquet")
    reader = Reader(tmp_path)
    reader.tick()
    pq.write_table(pa.table({"id": range(200)}), tmp_path / "a.parquet")
    with pytest.raises(SourceChanged):
        reader.tick()


def test_an_outage_is_not_an_end(tmp_path, monkeypatch):
    reader = started(tmp_path)

    def broken(*_):
        raise TimeoutError("no answer")

    monkeypatch.setattr(FileSource, "_sizes", broken)
    assert reader.source.reach("files", reader.at, reader.identity, max_bytes=BIG, drain=False) is None


def test_a_format_that_the_name_does_not_tell(tmp_path):
    (tmp_path / "events.log").write_bytes(b"{}\n")
    with pytest.raises(SettingsError, match="format") as caught:
        Reader(tmp_path / "events.log").tick()
    assert '"json" (lines)' in caught.value.hint
    reader = Reader(tmp_path / "events.log", "json")
    reader.tick()
    assert reader.text == b"{}\n"


def test_other_file_systems(tmp_path):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/files-test/a.jsonl", b"one\ntwo\nthr")
    reader = Reader("memory://files-test/a.jsonl")
    reader.tick()
    assert reader.text == b"one\ntwo\n"
