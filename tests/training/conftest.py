"""A loop in memory whose shard records the test writes itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from settings import ITEM, PRICE, TAGS, UNREAD, USER, settings_text

from headrace.config import Settings, parse
from headrace.loop import Loop, open_loop
from headrace.shard import BLANK, arrange, write_shard
from headrace.store import open_store
from training.examples import Examples, examples_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace.record import Entry

CROSS = 'user_item = { kind = "cross", of = ["user", "item"] }'
SETTINGS = settings_text(
    USER, TAGS, ITEM, PRICE, CROSS, loop={"name": "test", "root": "memory://test", "prior": 0.2}, **UNREAD
)


def settings_for(kind: str = "dcn_v2", **sections: dict[str, object]) -> Settings:
    settings = parse(SETTINGS)
    sections["model"] = {"kind": kind, **sections.get("model", {})}
    for section, values in sections.items():
        settings = settings.replace(section, **values)
    return settings


def encoded_rows(settings: Settings, rows: int, seed: int) -> pa.Table:
    """Examples in which the label depends on the user, with every kind of feature and missing numbers."""
    random = np.random.default_rng(seed)
    users = random.integers(0, 40, rows)
    events = pa.table(
        {
            "user": users.astype(str),
            "item": random.integers(0, 60, rows).astype(str),
            "tags": [[f"t{tag}" for tag in random.integers(0, 9, random.integers(0, 4))] for _ in range(rows)],
            "price": pa.array(random.lognormal(size=rows), mask=random.random(rows) < 0.2),
        }
    )
    features = settings.schema().encode(events)
    label = (random.random(rows) < np.where(users % 4 == 0, 0.7, 0.1)).astype(np.float32)
    return decided_rows(features, label, seed)


def decided_rows(features: pa.Table, label: np.ndarray, record: int) -> pa.Table:
    """Encoded features with what the joiner adds; record n is decided in second n."""
    rows = len(label)
    times = record * 1_000_000 + np.arange(rows)
    columns = {
        "impression_id": pa.array([f"{record}-{n}" for n in range(rows)]),
        "event_time_us": times,
        "emit_time_us": times + 500_000,
        "label": label,
        "row_kind": pa.array(["observed"] * rows),
        "delay_us": pa.array(np.full(rows, 500_000)),
        "sample_rate": np.ones(rows, np.float32),
    }
    return pa.table({**columns, **{name: features[name] for name in features.column_names}})


def lasting_for(
    settings: Settings, ttl_s: float | None = 3.0, *, of: tuple[str, ...] = ("user", "tags", "user_item")
) -> Settings:
    """The settings with a ttl for some features. Record n of the feed has the events of second n."""
    lines = {
        name: line.model_copy(update={"ttl": ttl_s}) if name in of else line for name, line in settings.features.items()
    }
    return settings.model_copy(update={"features": lines})


def new_users(settings: Settings, record: int, rows: int = 40) -> pa.Table:
    """Rows of record n whose users were never seen before; items are the same all the time."""
    random = np.random.default_rng(record)
    events = pa.table(
        {
            "user": [f"{record}-{n}" for n in range(rows)],
            "item": (np.arange(rows) % 5).astype(str),
            "tags": [["a", f"of {record}"]] * rows,
            "price": random.lognormal(size=rows),
        }
    )
    label = (random.random(rows) < 0.3).astype(np.float32)
    return decided_rows(settings.schema().encode(events), label, record)


@dataclass
class Feed:
    """Appends shard records to a loop, as the pipeline would."""

    loop: Loop
    settings: Settings
    head: Entry | None = None
    written: list[pa.Table] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = self.loop.shard_log()

    def without(self, feature: str) -> None:
        """From now on records do not have `feature`."""
        line = next(line for line in SETTINGS.splitlines(keepends=True) if line.startswith(f"{feature} = "))
        self.settings = parse(SETTINGS.replace(line, "")).replace("model", kind=self.settings.model.kind)

    def append(self, rows: pa.Table | None, *, closed_us: int = 0) -> Entry:
        seq = 0 if self.head is None else self.head.seq + 1
        shards = []
        if rows is not None:
            shards.append(
                write_shard(
                    self.loop.store,
                    arrange(rows, 60_000_000),
                    path=f"shards/data/{seq:012d}-0-test.parquet",
                    part=0,
                    fingerprint=self.settings.schema().fingerprint,
                )
            )
        record = replace(
            BLANK,
            seq=seq,
            watermark_us=(seq + 1) * 1_000_000,
            closed_us=closed_us,
            shards=tuple(shards),
            schema=self.settings.schema().fingerprint,
        )
        self.head = self.log.append("shard", record.to_body(), self.head)
        return self.head

    def made(self, rows: int) -> pa.Table:
        """Made-up examples for the next record."""
        return encoded_rows(self.settings, rows, 0 if self.head is None else self.head.seq + 1)

    def rows(self, rows: int, seed: int | None = None) -> Entry:
        """A record of made-up examples."""
        seq = 0 if self.head is None else self.head.seq + 1
        return self.append(encoded_rows(self.settings, rows, seq if seed is None else seed))

    def poison(self, rows: int = 8) -> Entry:
        """A record that makes the weights overflow: labels that no gate for events would let through."""
        seq = 0 if self.head is None else self.head.seq + 1
        table = encoded_rows(self.settings, rows, seq)
        at = table.column_names.index("label")
        return self.append(table.set_column(at, "label", pa.array(np.full(rows, 3e38, np.float32))))


@pytest.fixture
def feed(request: pytest.FixtureRequest) -> Callable[..., Feed]:
    """feed(kind, **sections) -> Feed on an empty loop in memory."""
    made = iter(range(100))

    def make(kind: str = "dcn_v2", **sections: dict[str, object]) -> Feed:
        settings = settings_for(kind, **sections)
        name = f"memory://{request.node.name}-{next(made)}"
        return Feed(open_loop(open_store(name), "test"), settings)

    return make


@pytest.fixture
def made_up() -> Callable[[str, int], tuple[Settings, Examples]]:
    """made_up(kind, rows) -> (settings, examples)."""

    def make(kind: str, rows: int) -> tuple[Settings, Examples]:
        settings = settings_for(kind)
        return settings, examples_of([encoded_rows(settings, rows, 5)], settings.schema())

    return make


@pytest.fixture
def drawn() -> Callable[[Settings, int, int], Examples]:
    """drawn(settings, rows, seed) -> Examples."""
    return lambda settings, rows, seed: examples_of([encoded_rows(settings, rows, seed)], settings.schema())


@pytest.fixture
def settings_of() -> Callable[..., Settings]:
    """settings_of(kind, **sections) -> Settings."""
    return settings_for


@pytest.fixture
def drawn_table() -> Callable[[Settings, int, int], pa.Table]:
    """drawn_table(settings, rows, seed): rows of a shard."""
    return encoded_rows


@pytest.fixture
def lasting() -> Callable[..., Settings]:
    """lasting(settings, ttl_s, of=features) -> Settings."""
    return lasting_for


@pytest.fixture
def ever_new() -> Callable[..., pa.Table]:
    """ever_new(settings, record, rows) -> rows of a shard."""
    return new_users


@pytest.fixture(name="decided")
def _decided() -> Callable[..., pa.Table]:
    """decided(encoded features, label, record) -> rows of a shard."""
    return decided_rows


@pytest.fixture
def light_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tracker registers is one file each."""

    def save(folder: Path, *_: Any) -> Path:
        (folder / "model").mkdir()
        (folder / "model" / "MLmodel").write_text("{}")
        return folder / "model"

    monkeypatch.setattr("training.registry.save", save)
