"""The local store on a disk that forgets what was not synced, and on one that fails.

`Disk` carries out every system call in a real folder and beside it keeps what a power cut would leave: a file's bytes
as of its last fsync, a folder's names as of its own. After a cut, each change that was not synced may or may not have
reached the disk, in any combination; unsynced bytes may be missing, cut, or zeros. The tests cut the power after every
single call.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.errors import Ambiguous, HeadraceError, LostRace, StoreError, StoreFull, StoreRefused
from headrace.log import Follower, Log
from headrace.record import name_of, read_verified, sha256_of
from headrace.store import open_store
from headrace.store.local import LocalStore
from headrace.store.memory import MemoryStore

COMMITS = 3
STATES = 12


class PowerCut(BaseException):
    """The process is gone; nothing in it may run on."""


@dataclass
class Node:
    """A folder (`names` is a dictionary) or a file: what processes see, and what is on the disk."""

    names: dict[str, Node] | None = None
    durable_names: dict[str, Node] = field(default_factory=dict)
    data: bytes = b""
    durable_data: bytes = b""


class Disk:
    """The system calls of `headrace.store.local.Calls` over the real folder `base`."""

    def __init__(self, base: Path, *, cut_after: int | None = None, fail_at: int | None = None, error: int = 0):
        self.base, self.top = base, Node(names={})
        self.cut_after, self.fail_at, self.error = cut_after, fail_at, error
        self.calls = 0
        self.files: dict[int, Node] = {}

    def open(self, path, flags, mode=0o777):
        self._step()
        descriptor = os.open(path, flags, mode)
        if flags & os.O_CREAT:
            folder, name = self._place(path)
            folder.names[name] = Node()
        self.files[descriptor] = self._node(path)
        return descriptor

    def write(self, fd, data, /):
        self._step()
        written = os.write(fd, data[: max(len(data) // 2, 64)])  # short writes are allowed, so they happen
        self.files[fd].data += bytes(data[:written])
        return written

    def fsync(self, fd):
        self._step()
        node = self.files[fd]
        if node.names is None:
            node.durable_data = node.data
        else:
            node.durable_names = dict(node.names)

    def close(self, fd):
        os.close(fd)

    def link(self, src, dst):
        self._step()
        os.link(src, dst)
        folder, name = self._place(dst)
        folder.names[name] = self._node(src)

    def replace(self, src, dst):
        self._step()
        Path(src).replace(dst)
        (source, old), (target, new) = self._place(src), self._place(dst)
        target.names[new] = source.names.pop(old)

    def unlink(self, path):
        self._step()
        Path(path).unlink()
        folder, name = self._place(path)
        folder.names.pop(name)

    def mkdir(self, path, mode=0o777):
        self._step()
        Path(path).mkdir(mode)
        folder, name = self._place(path)
        folder.names[name] = Node(names={})

    def after_the_cut(self, rng: random.Random, number: int) -> dict[str, bytes]:
        """One of the states that a power cut may leave, path -> bytes: 0 kept all, 1 only what was synced."""
        found: dict[str, bytes] = {}
        kept: dict[int, bytes] = {}

        def walk(folder: Node, at: str) -> None:
            for name in sorted(folder.names.keys() | folder.durable_names.keys()):
                live, durable = folder.names.get(name), folder.durable_names.get(name)
                node = live if live is durable or number == 0 or (number > 1 and rng.random() < 0.5) else durable
                if node is None:
                    continue
                if node.names is not None:
                    walk(node, f"{at}{name}/")
                else:
                    found[f"{at}{name}"] = kept.setdefault(id(node), self._bytes(node, rng, number))

        walk(self.top, "")
        return found

    @staticmethod
    def _bytes(node: Node, rng: random.Random, number: int) -> bytes:
        if node.data == node.durable_data or number == 0:
            return node.data
        if number == 1:
            return node.durable_data
        return rng.choice([node.data, node.data[: rng.randrange(len(node.data))], bytes(len(node.data))])

    def _step(self):
        if self.cut_after is not None and self.calls >= self.cut_after:
            raise PowerCut
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(self.error, os.strerror(self.error))

    def _place(self, path) -> tuple[Node, str]:
        path = Path(path)
        return self._node(path.parent), path.name

    def _node(self, path) -> Node:
        node = self.top
        for name in Path(path).relative_to(self.base).parts:
            node = node.names[name]
        return node


class NoFolderSync(Disk):
    def fsync(self, fd):
        if self.files[fd].names is None:
            super().fsync(fd)


class NoFileSync(Disk):
    def fsync(self, fd):
        if self.files[fd].names is not None:
            super().fsync(fd)


class NoParentSync(Disk):
    """The folder itself is synced, what it lies in is not."""

    def fsync(self, fd):
        node = self.files[fd]
        if node.names is None or any(child.names is None for child in node.names.values()):
            super().fsync(fd)


def local(disk: Disk) -> LocalStore:
    return LocalStore(disk.base / "loop", calls=disk, failpoint=lambda name: None)


def commit_all(store: LocalStore, acknowledged: list[int]) -> None:
    log, parent = Log(store, "shards/log", failpoint=lambda name: None), None
    for number in range(COMMITS):
        path, data = f"shards/data/{number:012d}-0-aa.parquet", b"shard %d " % number * 9
        store.write(path, data)
        parent = log.append("shard", {"file": {"path": path, "sha256": sha256_of(data)}}, parent)
        acknowledged.append(number)


def violations(state: dict[str, bytes], acknowledged: list[int]) -> set[str]:
    """What is wrong with a root after a power cut."""
    store, found = MemoryStore(f"cut-{next(_spaces)}"), set()
    for path, data in state.items():
        store.write(path.removeprefix("loop/"), data)
    log = Log(store, "shards/log")
    seqs = log.seqs()
    if seqs != list(range(len(seqs))):
        found.add("hole")
    if set(acknowledged) - set(seqs):
        found.add("acknowledged record lost")
    for seq in seqs:
        try:
            named = log.read(seq).body["file"]
            read_verified(store, named["path"], named["sha256"])
        except HeadraceError as error:
            found.add(error.code)
    return found


_spaces = itertools.count()


def cut_everywhere(make_disk, tmp_path: Path, work) -> tuple[int, set[str]]:
    """Cut the power after each call of `work`; number of states looked at, and all violations."""
    rng, looked, found, whole = random.Random(0), 0, set(), False
    for cut_after in itertools.count():
        if whole:
            break
        base = tmp_path / str(cut_after)
        base.mkdir()
        disk, acknowledged, whole = make_disk(base, cut_after=cut_after), [], True
        try:
            work(disk, acknowledged)
        except PowerCut:
            whole = False
        for number in range(STATES):
            looked += 1
            found |= violations(disk.after_the_cut(rng, number), acknowledged)
    return looked, found


def test_a_power_cut_anywhere_loses_nothing_acknowledged(tmp_path):
    looked, found = cut_everywhere(Disk, tmp_path, lambda disk, done: commit_all(local(disk), done))
    assert found == set()
    assert looked > 700


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (NoFolderSync, "acknowledged record lost"),
        (NoParentSync, "acknowledged record lost"),
        (NoFileSync, "log.damaged"),
    ],
)
def test_without_a_sync_it_does(tmp_path, disk, expected):
    _, found = cut_everywhere(disk, tmp_path, lambda disk, done: commit_all(local(disk), done))
    assert expected in found


class Killed(BaseException):
    pass


def linked_by_a_process_that_died(disk: Disk) -> None:
    """A record is visible, its folder was not synced after it."""

    def die(name: str) -> None:
        if name == "log.after_link":
            raise Killed

    store = LocalStore(disk.base / "loop", calls=disk, failpoint=die)
    store.write("shards/data/0-aa", b"x")
    named = {"path": "shards/data/0-aa", "sha256": sha256_of(b"x")}
    with pytest.raises(Killed):
        Log(store, "shards/log").append("shard", {"file": named}, None)


def test_a_reader_makes_durable_what_it_builds_on(tmp_path):
    disk = Disk(tmp_path)
    linked_by_a_process_that_died(disk)
    assert [entry.seq for entry in Follower(Log(local(disk), "shards/log")).poll()] == [0]
    for number in range(STATES):
        assert violations(disk.after_the_cut(random.Random(number), number), [0]) == set()


def test_a_reader_that_does_not_sync_builds_on_sand(tmp_path, monkeypatch):
    disk = Disk(tmp_path)
    linked_by_a_process_that_died(disk)
    monkeypatch.setattr(LocalStore, "sync", lambda self, path: None)
    assert [entry.seq for entry in Follower(Log(local(disk), "shards/log")).poll()] == [0]
    assert "acknowledged record lost" in violations(disk.after_the_cut(random.Random(1), 1), [0])


def test_a_killed_writer_leaves_a_temporary_name_that_listings_ignore(tmp_path):
    disk = Disk(tmp_path, cut_after=10)
    with pytest.raises(PowerCut):
        commit_all(local(disk), [])
    assert list((tmp_path / "loop").rglob(".tmp-000000000000-0-aa.parquet-*"))
    assert open_store(str(tmp_path / "loop")).list("") == []


FULL = [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EDQUOT, errno.EFBIG]


@pytest.mark.parametrize("error", FULL, ids=[errno.errorcode[number] for number in FULL])
@pytest.mark.parametrize("verb", ["write", "put_if_absent", "overwrite"])
def test_a_failing_call_leaves_nothing_and_says_so(tmp_path, verb, error):
    """Every call of a write fails once; the same write again, without the fault, succeeds."""
    name, refusals = "log/000000000000.json", []
    for fail_at in itertools.count(1):
        disk = Disk(tmp_path / str(fail_at), fail_at=fail_at, error=error)
        disk.base.mkdir()
        final = disk.base / "loop" / name
        outcome = attempted(local(disk), verb, name)
        if isinstance(outcome, StoreFull):
            refusals.append((outcome, str(final)))
            assert not final.exists()
            assert attempted(local(disk), verb, name) is None
        else:
            assert outcome is None or verb == "put_if_absent"  # Ambiguous: the log reads back
        if disk.calls < fail_at:
            break
    assert final.read_bytes() == b"0123456789"
    assert len(refusals) >= 8
    for refusal, path in refusals:
        assert refusal.context["path"] == path
        assert path in str(refusal)
        assert refusal.hint


def attempted(store: LocalStore, verb: str, path: str) -> StoreError | None:
    try:
        getattr(store, verb)(path, b"0123456789")
    except StoreError as error:
        return error
    return None


@pytest.mark.parametrize("error", FULL, ids=[errno.errorcode[number] for number in FULL])
def test_a_log_on_a_failing_disk_commits_or_says_no(tmp_path, error):
    """One call fails: the record is either refused, with nothing under its name, or committed and acknowledged."""
    for fail_at in itertools.count(1):
        base = tmp_path / str(fail_at)
        base.mkdir()
        disk = Disk(base)
        store = local(disk)
        log = Log(store, "shards/log", sleep=lambda seconds: None)
        first = log.append("shard", {"n": 0}, None)
        disk.fail_at, disk.error = disk.calls + fail_at, error
        try:
            second = log.append("shard", {"n": 1}, first)
        except StoreError:
            assert not (base / "loop" / name_of("shards/log", 1)).exists()
            second = log.append("shard", {"n": 1}, first)
        assert Log(store, "shards/log").head() == second
        if disk.calls < disk.fail_at:
            break


def test_a_disk_that_breaks_after_the_link_is_ambiguous_until_it_answers(tmp_path):
    class Breaking(Disk):
        broken = False

        def fsync(self, fd):
            if self.broken and self.files[fd].names is not None:
                raise OSError(errno.EIO, "broken")
            super().fsync(fd)

    def break_down(name: str) -> None:
        disk.broken = name == "log.after_link"

    disk = Breaking(tmp_path)
    store = LocalStore(tmp_path / "loop", calls=disk, failpoint=break_down)
    log = Log(store, "shards/log", sleep=lambda seconds: None)
    with pytest.raises(Ambiguous, match="does not answer"):
        log.append("shard", {"n": 0}, None)
    disk.broken = False
    with pytest.raises(LostRace) as raised:
        log.append("shard", {"another": 0}, None)
    assert raised.value.context["winner"].body == {"n": 0}
    assert raised.value.context["winner"].writer == log.writer


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_is_refused(tmp_path, error):
    class NoLinks(Disk):
        def link(self, src, dst):
            raise OSError(error, os.strerror(error))

    with pytest.raises(StoreRefused, match="hard links"):
        Log(local(NoLinks(tmp_path)), "shards/log").append("shard", {}, None)


def test_a_root_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "loop").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write") as raised:
        open_store(str(tmp_path / "loop")).write("a", b"x")
    assert raised.value.hint


def test_file_urls(tmp_path):
    open_store(f"file://{tmp_path}/a%20b").write("c", b"x")
    assert (tmp_path / "a b" / "c").read_bytes() == b"x"
