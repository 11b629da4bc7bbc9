"""Object stores that cannot keep a log are refused, and unclear answers are called unclear."""

from __future__ import annotations

import itertools

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from headrace.errors import Ambiguous, Exists, StoreError, StoreFull, StoreRefused
from headrace.log import Log
from headrace.store import open_store
from headrace.store.remote import RemoteStore

_numbers = itertools.count()


class Files(MemoryFileSystem):
    """An object store in memory; `answers` are raised by the next puts, after or instead of doing them."""

    cachable = False
    conditional = True

    def __init__(self):
        super().__init__()
        self.answers = []

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        done, error = self.answers.pop(0) if self.answers else (True, None)
        if done:
            if mode == "create" and self.conditional and self.exists(path):
                raise FileExistsError(path)
            super().pipe_file(path, value, mode="overwrite")
        if error is not None:
            raise error


class ClientError(Exception):
    """As botocore's: the answer of the store in `response`."""

    def __init__(self, code):
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def store_on(files: Files) -> RemoteStore:
    return RemoteStore("object://bucket", files, f"/bucket-{next(_numbers)}")


def test_a_store_that_overwrites_is_refused():
    files = Files()
    files.conditional = False
    with pytest.raises(StoreRefused, match="second create of a name succeeded") as raised:
        store_on(files).probe("")
    assert "If-None-Match" in raised.value.hint


def test_a_store_that_knows_no_create_is_refused():
    files = Files()
    files.answers = [(False, NotImplementedError("mode"))]
    with pytest.raises(StoreRefused):
        store_on(files).probe("")


def test_the_probe_leaves_nothing():
    store = store_on(Files())
    store.probe("")
    assert store.list("") == []
    assert not store._files.find(store._root)


def test_a_reader_passes_and_is_probed_when_it_first_commits():
    files = Files()
    store = store_on(files)
    files.answers = [(False, PermissionError("denied"))]
    store.probe("")
    files.conditional = False
    with pytest.raises(StoreRefused):
        store.put_if_absent("log/0", b"x")
    files.answers = [(False, PermissionError("denied"))] * 2
    with pytest.raises(StoreFull, match="denied") as raised:
        store.put_if_absent("log/0", b"x")
    assert "permission" in raised.value.hint


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionError(), OSError(16, "busy"), ClientError("409")])
def test_unclear_answers_are_ambiguous(error):
    files = Files()
    store = store_on(files)
    store.probe("")
    files.answers = [(False, error)]
    with pytest.raises(Ambiguous):
        store.put_if_absent("log/0", b"x")


def test_412_means_that_the_name_exists():
    files = Files()
    store = store_on(files)
    store.probe("")
    error = OSError(22, "At least one of the pre-conditions you specified did not hold")
    error.__cause__ = ClientError("PreconditionFailed")
    files.answers = [(False, error)]
    with pytest.raises(Exists):
        store.put_if_absent("log/0", b"x")


@pytest.mark.parametrize("done", [True, False])
def test_the_log_finds_out_after_a_conflict_or_a_lost_answer(done):
    files = Files()
    store = store_on(files)
    store.probe("")
    log = Log(store, "log", sleep=lambda seconds: None)
    files.answers = [(done, OSError(16, "conflict"))]
    assert log.append("shard", {"n": 0}, None) == Log(store, "log").head()
    assert log.seqs() == [0]


def test_other_failures_name_the_store():
    files = Files()
    store = store_on(files)
    files.answers = [(False, FileNotFoundError("NoSuchBucket"))]
    with pytest.raises(StoreError, match="NoSuchBucket") as raised:
        store.write("a", b"x")
    assert "bucket" in raised.value.hint


@pytest.mark.parametrize("url", ["", "simplecache::s3://a/b", "nosuch://a/b"])
def test_what_is_no_store_is_refused(url):
    with pytest.raises(StoreRefused) as raised:
        open_store(url)
    assert raised.value.hint
