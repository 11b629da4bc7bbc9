"""Towers: any batch size, many threads, refusals."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from handmade import linear_tower

from headrace.errors import TowerRefused
from headrace.tower import LARGEST_BATCH, Tower, bucket_of

TOWER = Tower(linear_tower(4, 4, 2, weight=0.5, bias=0.25))


@pytest.mark.parametrize("n", [1, 3, 64, 100, LARGEST_BATCH, LARGEST_BATCH + 1, 2500])
def test_batches_of_any_size(n):
    random = np.random.default_rng(n)
    embeddings = random.normal(size=(n, 4, 4)).astype(np.float32)
    numbers = random.normal(size=(n, 2)).astype(np.float32)
    expected = 0.5 * (embeddings.sum(axis=(1, 2)) + numbers.sum(axis=1)) + 0.25
    assert TOWER.logits(embeddings, numbers) == pytest.approx(expected, abs=1e-4)


def test_a_tower_of_numbers_only_and_one_of_embeddings_only():
    numbers = Tower(linear_tower(0, 0, 6)).logits(None, np.ones((3, 6), np.float32))
    assert numbers.tolist() == [6.0] * 3
    assert Tower(linear_tower(2, 3, 0)).logits(np.ones((3, 2, 3), np.float32), None).tolist() == [6.0] * 3


def test_one_tower_for_many_threads():
    embeddings = np.ones((64, 4, 4), np.float32)
    results = []

    def call(value: float) -> None:
        numbers = np.zeros((64, 2), np.float32)
        results.extend(TOWER.logits(embeddings * value, numbers) == 8 * value + 0.25 for _ in range(200))

    threads = [threading.Thread(target=call, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.all(results)
    assert len(results) == 800


def test_a_new_tower_starts_with_the_interpreters_of_its_predecessor():
    first = Tower(linear_tower(4, 4, 2))
    first.logits(np.ones((50, 4, 4), np.float32), np.ones((50, 2), np.float32))
    second = Tower(linear_tower(4, 4, 2, bias=1.0), like=first)
    assert second.in_use() == first.in_use() == {1: 1, 64: 1}
    second.logits(np.ones((50, 4, 4), np.float32), np.ones((50, 2), np.float32))
    assert second.in_use() == {1: 1, 64: 1}


@pytest.mark.parametrize("content", [b"", b"TFL3 nothing of the kind"])
def test_a_tower_that_litert_cannot_run_is_refused(content):
    with pytest.raises(TowerRefused, match="LiteRT cannot run this tower"):
        Tower(content)


def test_litert_writes_nothing_to_stderr():
    code = "from handmade import linear_tower; from headrace.tower import Tower; Tower(linear_tower(1, 2, 0))"
    environment = {"PYTHONPATH": "tests/support", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stderr == ""


def test_sizes_of_batches():
    assert [bucket_of(n) for n in (1, 2, 3, 1023, 1024)] == [1, 2, 4, 1024, 1024]
