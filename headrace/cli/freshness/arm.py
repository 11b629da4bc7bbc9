"""One arm of a backtest: a trainer and a server of its own over the shared shards, stepped by hand.

Per period, in this order:

    1. score the impressions of the period with the version that is served   dies: torn scores are cut off, made again
    2. (the replay lets the period's events and labels come, and ticks)
    3. learn everything that came: train, publish, swap                       dies: the trainer recovers from its log
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.cli import terminal
from headrace.errors import GateRefused, HeadraceError
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.cli.freshness.lineage import Lineage
    from headrace.cli.freshness.periods import Interval
    from headrace.cli.freshness.scores import Scores
    from headrace.config import Settings
    from headrace.log import Entry
    from headrace.loop import Loop
    from headrace.schema import Schema

Timed = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Requests:
    """The impressions to score. columns: what a client sends, hashed once for all arms: {feature: ids int64 [n], raw
    numbers float64 [n], or lists of ids}.
    """

    times_us: NDArray[np.int64]
    event_ids: pa.ChunkedArray
    columns: Mapping[str, Any]
    hashed: frozenset[str]
    fingerprint: str

    @classmethod
    def of(cls, impressions: pa.Table, schema: Schema) -> Requests:
        """From raw impressions, whose feature columns have the names of the features."""
        raw = {f.name: impressions[f.name].combine_chunks() for f in schema.features if f.kind != "cross"}
        encoded = schema.encode_features(raw)
        columns: dict[str, Any] = {name: encoded[name].to_numpy() for name in schema.sparse}
        columns |= {name: encoded[name].to_pylist() for name in schema.lists}
        columns |= {name: raw[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in schema.numbers}
        hashed = frozenset({*schema.sparse, *schema.lists})
        return cls(impressions["_ts"].to_numpy(), impressions["_id"], columns, hashed, schema.fingerprint)

    def features(self, low: int, high: int) -> dict[str, Any]:
        """The request for the impressions `[low, high)`."""
        from paramserver.client import Ids

        parts = {name: column[low:high] for name, column in self.columns.items()}
        return {name: Ids(part) if name in self.hashed else part for name, part in parts.items()}


class Arm:
    """Scores and learns. `timed(stage)` measures where the time goes."""

    def __init__(
        self, interval: Interval, loop: Loop, settings: Settings, *, scores: Scores, lineage: Lineage, timed: Timed
    ) -> None:
        with timed("start TensorFlow"):
            from training.trainer import Trainer

        self.interval = interval
        self.scores = scores
        self._loop, self._settings = loop, settings
        self._lineage, self._timed = lineage, timed
        with timed("train"):
            self._trainer = Trainer(loop, settings)
        self._records: dict[int, VersionRecord] = {}
        self._log = loop.version_log()
        self._server: Any = None
        self._client: Any = None

    def serve(self) -> None:
        """Starts the server on a free loopback port, and a client."""
        from paramserver.client import Client
        from paramserver.server import Server

        self._server = Server(self._loop, self._settings, port=0, follow=False)
        self._server.start()
        self._client = Client(self._server.address)

    def close(self) -> None:
        """Stops server, client and trainer."""
        if self._client is not None:
            self._client.close()
        if self._server is not None:
            self._server.stop()
        self._trainer.close()

    def score(self, requests: Requests, upto: int) -> None:
        """Scores the impressions `[scores.count, upto)` with the version that is served, and checks its lineage."""
        first = self.scores.count
        if first >= upto:
            return
        with self._timed("predict"):
            step = self._settings.serve.max_candidates
            answers = [self._ask(requests, low, min(low + step, upto)) for low in range(first, upto, step)]
        versions = {version for version, _ in answers}
        if len(versions) > 1:
            raise HeadraceError(
                f"the {self.interval.name} arm answered one period from the versions {sorted(versions)}",
                hint="does another process write to the backtest's scratch folder?",
            )
        with self._timed("assert lineage"):
            times = requests.times_us[first:upto]
            self._lineage.check(
                self._record(versions.pop()), times, lambda i: str(requests.event_ids[first + i].as_py())
            )
        self.scores.append(np.concatenate([scores for _, scores in answers]))

    def learn(self) -> int:
        """Trains everything that the shard log has, publishes, swaps; the number of versions made."""
        made = 0
        with self._timed("train"):
            while (entry := self._trainer.step()) is not None:
                made += 1
                if entry.kind == "hold":
                    self._held(entry)
                elif entry.kind == "rollback":
                    terminal.say(
                        f"the {self.interval.name} arm went back to version {entry.body['to']}, held shard records "
                        f"{entry.body['held']}: {entry.body['gate']['reason']}"
                    )
        if made and self._server is not None:
            self.swap()
        return made

    def _held(self, entry: Entry) -> None:
        """What labels spoke against is left out, as the loop itself would; anything else is a defect."""
        reasons = entry.body["gate"]["reasons"]
        if all(reason.startswith(("surprise: ", "G2: ", "G3: ")) for reason in reasons):
            terminal.say(f"the {self.interval.name} arm held shard records {entry.body['held']}: {reasons[0]}")
            return
        raise GateRefused(
            f"version {entry.seq} of the {self.interval.name} arm was held: {'; '.join(reasons)}",
            hint="its candidate could not be served as it was trained; see [model] and [gate]",
            version=entry.seq,
        )

    def swap(self) -> None:
        """Has the server take the newest version now, instead of at its next poll."""
        with self._timed("swap"):
            self._server.replica.poll()
            problem = self._server.replica.problem
        if problem is not None:
            raise problem

    def _ask(self, requests: Requests, low: int, high: int) -> tuple[int, NDArray[np.float32]]:
        answer = self._client.predict(requests.features(low, high), schema=requests.fingerprint)
        return answer.version, answer.scores

    def _record(self, version: int) -> VersionRecord:
        if version not in self._records:
            self._records = {version: VersionRecord.from_entry(self._log.read(version))}
        return self._records[version]
