"""A loop made by hand, whose figures are known: shard records with rows, versions that learned them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from handmade import Publisher
from settings import settings_text

from headrace import config
from headrace.delta import TableSpec
from headrace.features import Feature
from headrace.ids import id_of
from headrace.loop import open_loop
from headrace.schema import Schema
from headrace.shard import BLANK, Quarantine, arrange, write_shard
from headrace.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop

S = 1_000_000
T0 = 1_700_000_000 * S
USERS = 12
SETTINGS = settings_text(
    streams={"time": "at", "time_unit": "s"},
    impression={"source": "i.jsonl"},
    click={"source": "c.jsonl"},
    pipeline={"disorder_s": 2},
)
SCHEMA = Schema((Feature("user", "id", ("user",)),))
SPECS = (TableSpec("linear", 1, "f32", ("user",)),)


def time_us(at_s: float) -> int:
    """Seconds after T0."""
    return T0 + round(at_s * S)


class Made:
    """A loop, and what was put into it. `rows[seq]`: (users, labels) of a shard record, corrections left out."""

    def __init__(self, loop: Loop, settings: Settings) -> None:
        self.loop, self.settings = loop, settings
        self.publisher = Publisher(loop.store, schema=SCHEMA, specs=SPECS)
        self.rows: dict[int, tuple[list[int], list[float]]] = {}
        self.read = 0
        self._head: Entry | None = None

    def shard(
        self, users: Sequence[int], labels: Sequence[float], *, at_s: float, kinds: Sequence[str] = (), refused: int = 0
    ) -> int:
        """A shard record, committed `at_s` after T0, whose watermark is 3 s before that; its number."""
        seq = 0 if self._head is None else self._head.seq + 1
        kinds = kinds or ["observed"] * len(users)
        observed = [place for place, kind in enumerate(kinds) if kind == "observed"]
        self.rows[seq] = [users[place] for place in observed], [labels[place] for place in observed]
        self.read += len(users) + refused
        shards = (self._file(seq, users, labels, kinds),) if users else ()
        committed_us = time_us(at_s)
        record = replace(
            BLANK,
            seq=seq,
            now_us=committed_us,
            watermark_us=committed_us - 3 * S,
            shards=shards,
            counts={"impression/files": {"read": self.read, "emitted": self.read - refused, "invalid": refused}},
            schema=SCHEMA.fingerprint,
            committed_at_us=committed_us,
            quarantine=(Quarantine("shards/quarantine/q", "0", refused, {"malformed": refused}),) if refused else (),
        )
        self._head = self.loop.shard_log().append("shard", record.to_body(), self._head)
        return seq

    def start(self, *, at_s: float = 0.0) -> None:
        """Version 0."""
        self.publisher.start(created_at_us=time_us(at_s))

    def learned(self, seq: int, rows: dict[int, float], *, at_s: float, **fields: Any) -> int:
        """A version that learned shard record `seq`: its linear row of each user. Its number."""
        entry = self.loop.shard_log().read(seq)
        delta = {"linear": {id_of("user", str(user)): [value] for user, value in rows.items()}}
        told = {
            "trained": ((seq, seq + 1),),
            "cursor": entry.cursor(),
            "watermark_us": entry.body["watermark_us"],
            "created_at_us": time_us(at_s),
        }
        return self.publisher.delta(delta, **(told | fields)).seq

    def _file(self, seq: int, users: Sequence[int], labels: Sequence[float], kinds: Sequence[str]) -> Any:
        n = len(users)
        times = T0 + 1_000 * np.arange(n)
        rows = pa.table(
            {
                "impression_id": [f"{seq}-{place:04d}" for place in range(n)],
                "event_time_us": pa.array(times, pa.int64()),
                "emit_time_us": pa.array(times + 5 * S, pa.int64()),
                "label": pa.array(labels, pa.float32()),
                "row_kind": list(kinds),
                "delay_us": pa.array([None] * n, pa.int64()),
                "sample_rate": pa.array([1.0] * n, pa.float32()),
                "user": pa.array([id_of("user", str(user)) for user in users], pa.int64()),
            }
        )
        path = f"shards/data/{seq:012d}-0-aa.parquet"
        return write_shard(self.loop.store, arrange(rows, 60 * S), path=path, part=0, fingerprint=SCHEMA.fingerprint)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """An empty loop in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(SETTINGS)
    return Made(open_loop(open_store("./loop"), "feed"), config.parse(SETTINGS))


def evaluation(n: int, positives: float, live: float, frozen: float | None, of: int = 1, ratio: float = 1.0) -> Any:
    """What a trainer writes of n rows."""
    told: dict[str, Any] = {"live": {"n": n, "positives": positives, "log_loss": live, "calibration": ratio}}
    if frozen is not None:
        told["frozen"] = {"of": of, "n": n, "positives": positives, "log_loss": frozen, "calibration": 1.1 * ratio}
    return told


@pytest.fixture
def busy(made: Made) -> Made:
    """Eight records of 40 rows, a version after each; one hold, one rollback, refused events, corrections."""
    rng = np.random.default_rng(7)
    made.start()
    for step in range(8):
        users = rng.integers(0, USERS, 40).tolist()
        labels = (rng.random(40) < 0.3).astype(float).tolist()
        kinds = ["correction" if place % 10 == 9 else "observed" for place in range(40)]
        seq = made.shard(users, labels, at_s=10.0 * step, kinds=kinds, refused=step % 3)
        weights = dict(enumerate(rng.normal(-1, 0.7, USERS)))
        told = evaluation(36, sum(labels), 0.5 - 0.01 * step, 0.6 if step else None)
        made.learned(seq, weights, at_s=10.0 * step + 2, evaluation=told, offset=0.3, gate={"correction": 0.1})
    return made
