"""What every store promises (headrace/store/base.py)."""

from __future__ import annotations

import threading

import pytest

from headrace.errors import Exists, NotFound, StoreRefused
from headrace.store import open_store


def test_write_then_read(store):
    store.write("shards/data/a.parquet", memoryview(b"0123456789"))
    assert store.read("shards/data/a.parquet") == b"0123456789"


def test_empty_and_large_files(store):
    large = bytes(range(256)) * 20_000
    store.write("a/empty", b"")
    store.write("a/large", large)
    assert store.read("a/empty") == b""
    assert store.read("a/large") == large


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 4, b"0123"), (3, 7, b"3456"), (8, 99, b"89"), (4, 4, b""), (10, 20, b""), (50, 60, b"")],
)
def test_read_range_is_half_open_and_cut_at_the_end(store, start, end, expected):
    store.write("a", b"0123456789")
    assert store.read_range("a", start, end) == expected


def test_what_is_not_there(store):
    for call in (store.read, store.sync, lambda path: store.read_range(path, 0, 4)):
        with pytest.raises(NotFound) as raised:
            call("shards/none")
        assert raised.value.context["path"] == "shards/none"
    assert store.list("shards") == []
    assert store.list("") == []
    store.delete("shards/none")


def test_a_folder_is_not_a_file(store):
    store.write("a/b", b"x")
    with pytest.raises(NotFound):
        store.read("a")


def test_put_if_absent_creates_once(store):
    store.put_if_absent("log/000000000000.json", b"first")
    with pytest.raises(Exists):
        store.put_if_absent("log/000000000000.json", b"second")
    with pytest.raises(Exists):
        store.put_if_absent("log/000000000000.json", b"first")
    assert store.read("log/000000000000.json") == b"first"


def test_a_deleted_name_can_be_put_again(store):
    store.put_if_absent("log/a", b"1")
    store.delete("log/a")
    store.delete("log/a")
    store.put_if_absent("log/a", b"2")
    assert store.read("log/a") == b"2"


def test_list_is_recursive_sorted_and_by_folder(store):
    for path in ("b/2", "b/1", "b/deep/3", "bb/4", "a", "b/.tmp-5"):
        store.write(path, b"")
    assert store.list("b") == store.list("b/") == ["b/1", "b/2", "b/deep/3"]
    assert store.list("") == ["a", "b/1", "b/2", "b/deep/3", "bb/4"]


def test_nothing_stands_between_two_openers(url):
    """No cache of listings or absences: what one has just written, the other sees at once."""
    one, other = open_store(url), open_store(url)
    assert other.list("log") == []
    with pytest.raises(NotFound):
        other.read("log/0")
    one.put_if_absent("log/0", b"x")
    assert other.list("log") == ["log/0"]
    assert other.read("log/0") == b"x"
    one.put_if_absent("log/1", b"y")
    assert other.list("log") == ["log/0", "log/1"]
    other.sync("log/1")


def test_overwrite_replaces(store):
    store.overwrite("status/a.json", b"1")
    store.overwrite("status/a.json", b"22")
    assert store.read("status/a.json") == b"22"
    assert store.list("") == ["status/a.json"]


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a::b", "a\\b", "a\0b", "a*", "a\n"])
def test_only_relative_plain_paths(store, path):
    for call in (store.read, store.delete, store.path_of, store.sync):
        with pytest.raises(StoreRefused):
            call(path)
    for call in (store.write, store.put_if_absent, store.overwrite):
        with pytest.raises(StoreRefused):
            call(path, b"x")
    assert store.list("") == []


def test_path_of_is_the_file_itself(store):
    store.write("a/b", b"mapped")
    path = store.path_of("a/b")
    assert path is None or path.read_bytes() == b"mapped"


def test_of_racing_creators_one_wins(store):
    names = [f"log/{number:012d}.json" for number in range(20)]
    won: list[tuple[str, bytes]] = []

    def create(data: bytes) -> None:
        for name in names:
            try:
                store.put_if_absent(name, data)
            except Exists:
                continue
            won.append((name, data))

    threads = [threading.Thread(target=create, args=(b"writer %d" % number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _ in won) == names
    assert all(store.read(name) == data for name, data in won)


def test_folders_and_size(store):
    store.write("models/a/log/1", b"0123")
    store.write("models/b/x", b"56")
    store.write("models/c", b"7")
    assert store.folders("models") == ["a", "b"]
    assert store.folders("none") == []
    assert store.size("models") == 7
    assert store.size("none") == 0
    assert store.left_over("models") == []


def test_what_a_killed_process_left_is_listed_apart_and_can_be_deleted(tmp_path):
    store = open_store(str(tmp_path))
    store.write("log/000000000001.json", b"x")
    left = "log/.tmp-000000000002.json-0a1b2c3d-7"
    (tmp_path / left).write_bytes(b"half")
    assert (store.list(""), store.left_over("")) == (["log/000000000001.json"], [left])
    store.delete(left)
    assert store.left_over("") == []
