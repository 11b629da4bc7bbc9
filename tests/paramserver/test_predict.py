"""Answers come from one version, whole, while versions are swapped."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from handmade import linear_tower

from headrace.log import Log
from headrace.tower import LARGEST_BATCH
from paramserver.client import values_of
from paramserver.generation import ServingTable
from paramserver.predict import Predictor
from paramserver.replica import Replica
from protos import headrace_pb2 as wire

USERS = [f"u{i}" for i in range(64)]
VERSIONS = 40


def request():
    features = {"user": USERS, "item": "i", "tags": ["t"], "price": 0.0}
    return wire.PredictRequest(features={name: values_of(name, value) for name, value in features.items()})


def expected(version: int) -> float:
    """The logit of every user at a version: each part of the parameters says the version in another way."""
    return 0.0 if version == 0 else (version % 7) * 0.25 + (version % 5) * 0.5 + (version % 3) + (version % 2) * 0.125


def publish(publisher, ids):
    """The version's parts: linear rows, embedding rows (4 equal values), the tower's bias, the offset."""
    version = publisher.next
    publisher.delta(
        {
            "linear": {id_: [(version % 7) * 0.25] for id_ in ids},
            "embedding": {id_: [(version % 5) * 0.125] * 4 for id_ in ids},
        },
        tower=linear_tower(4, 4, 2, bias=version % 3),
        offset=(version % 2) * 0.125,
    )


def mixed_answers(store, publisher) -> tuple[int, int, set[int]]:
    """(answers, those that are not of the version they name, versions seen) under 3 callers and a swap a moment."""
    from headrace.ids import id_of

    ids = [id_of("user", user) for user in USERS]
    publisher.start()
    publish(publisher, ids)
    replica = Replica(store, Log(store, "models/default/log"))
    replica.poll()
    predictor = Predictor(replica, model="default", max_candidates=LARGEST_BATCH, now_us=lambda: 0)
    stop, lock, answers, wrong, seen = threading.Event(), threading.Condition(), [0], [0], set()

    def call():
        asked = request()
        while not stop.is_set():
            answer = predictor.predict(asked)
            scores = np.array(answer.scores)
            logits = np.log(scores / (1 - scores))
            with lock:
                answers[0] += 1
                wrong[0] += int(np.abs(logits - expected(answer.served.version)).max() > 0.02)
                seen.add(answer.served.version)
                lock.notify()

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for _ in range(VERSIONS):
        publish(publisher, ids)
        with lock:
            wanted = answers[0] + 2
        replica.poll()
        with lock:
            assert lock.wait_for(lambda wanted=wanted: answers[0] >= wanted, timeout=60)
    stop.set()
    for caller in callers:
        caller.join()
    return answers[0], wrong[0], seen


def test_swaps_under_load_never_mix_versions(store, publisher):
    answers, wrong, seen = mixed_answers(store, publisher)
    assert wrong == 0
    assert answers >= 2 * VERSIONS
    assert len(seen) > VERSIONS / 3


def test_rows_changed_in_place_mix_versions(store, publisher, monkeypatch):
    """The twin: without copy on write, answers name one version and hold rows of another."""

    def in_place(table: ServingTable, change):
        at = table.index.find(change.ids)
        if (at < 0).any():
            return changed(table, change)
        table.slab.values[at] = change.decoded()
        return replace(table)

    changed = ServingTable.changed
    monkeypatch.setattr(ServingTable, "changed", in_place)
    monkeypatch.setattr("paramserver.generation.Generation.check", lambda _: None)
    _, wrong, _ = mixed_answers(store, publisher)
    assert wrong > 0


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000])
def test_any_number_of_candidates(store, publisher, n):
    publisher.start()
    publisher.delta({}, tower=linear_tower(4, 4, 2))
    replica = Replica(store, Log(store, "models/default/log"))
    replica.poll()
    predictor = Predictor(replica, model="default", max_candidates=1000, now_us=lambda: 0)
    features = {"user": "u", "item": [f"i{i}" for i in range(n)], "tags": [], "price": [i / n for i in range(n)]}
    asked = wire.PredictRequest(features={name: values_of(name, value) for name, value in features.items()})
    scores = np.array(predictor.predict(asked).scores)
    assert np.log(scores / (1 - scores)) == pytest.approx(np.arange(n) / n, abs=1e-5)
