"""Scores of the demo: what the live model, the frozen one and the truth said of each impression, before its click.

The live score comes from the real gRPC service. The frozen one comes from the same serving code in this process, over a
version log that ends with the first trained version: what one would serve without the loop.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from headrace import clock
from headrace.cli.freshness.measure import auc, log_loss
from headrace.errors import HeadraceError, NotFound
from headrace.log import Entry, Log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from headrace.loop import Loop
    from paramserver.client import Client, Prediction

CALL: Final = 200
FEATURES: Final = ("user", "item", "topic", "author", "slot")
WINDOW_S: Final = 20.0
STALE_US: Final = 1_000_000  # an impression older than this is not scored: its click may be known


class Tail:
    """Reads the whole lines that are appended to a file; starts at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """What came since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as log:
            log.seek(self._at)
            text = self._rest + log.read()
            self._at = log.tell()
        *lines, self._rest = text.split(b"\n")
        return [json.loads(line) for line in lines]


class LogUpTo(Log):
    """A version log as it stood when `last` was its newest record."""

    def __init__(self, log: Log, last: int) -> None:
        super().__init__(log.store, log.prefix)
        self._last = last

    def head(self) -> Entry | None:
        return self.read(self._last)

    def read(self, seq: int) -> Entry:
        if seq > self._last:
            raise NotFound(f"record {seq} is not looked at", path=str(seq))
        return super().read(seq)


class Frozen:
    """The first trained version, once there is one, answered by the serving code in this process."""

    def __init__(self, loop: Loop) -> None:
        self.version: int | None = None
        self._loop = loop
        self._log = loop.version_log()
        self._next = 0
        self._predictor: Any = None

    def find(self) -> None:
        """Looks for the first trained version, and loads it."""
        if self._predictor is not None:
            return
        for seq in self._log.seqs():
            if seq >= self._next and self._log.read(seq).kind == "delta":
                self._load(seq)
                return
            self._next = max(self._next, seq)

    def scores(self, features: dict[str, list[Any]]) -> NDArray[np.float32] | None:
        """float32 [n], or None as long as there is none."""
        if self._predictor is None:
            return None
        from paramserver.client import values_of
        from protos import headrace_pb2 as wire

        request = wire.PredictRequest(features={name: values_of(name, value) for name, value in features.items()})
        return np.array(self._predictor.predict(request).scores, np.float32)

    def _load(self, seq: int) -> None:
        from paramserver.predict import Predictor
        from paramserver.replica import Replica

        replica = Replica(self._loop.store, LogUpTo(self._log, seq))
        replica.poll()
        if replica.served is not None:
            self.version = seq
            self._predictor = Predictor(replica, model="default", max_candidates=CALL, now_us=clock.now_us)


class Scores:
    """All scored impressions of this run: (time, truth, label, live, frozen), the newest in a window, too."""

    def __init__(self) -> None:
        self.freshness_s: list[float] = []
        self._all: list[NDArray[np.float64]] = []
        self._recent: deque[tuple[float, NDArray[np.float64]]] = deque()

    @property
    def count(self) -> int:
        return sum(len(rows) for rows in self._all)

    def ask(self, shown: Sequence[dict[str, Any]], client: Client, frozen: Frozen, now_s: float) -> Prediction | None:
        """Scores what is not too old to be a prediction. The last answer; None without one."""
        fresh = [one for one in shown if clock.now_us() - one["ts"] < STALE_US]
        answer = None
        for low in range(0, len(fresh), CALL):
            part = fresh[low : low + CALL]
            features = {name: [one[name] for one in part] for name in FEATURES}
            try:
                answer = client.predict(features)
            except HeadraceError:  # the server restarts: these are lost to the table, not to the loop
                return answer
            if answer.age_s is not None:
                self.freshness_s.append(answer.age_s)
            if (others := frozen.scores(features)) is not None:
                known = np.array([[one["p"], one["clicked"]] for one in part], np.float64)
                rows = np.column_stack([known, answer.scores, others])
                self._all.append(rows)
                self._recent.append((now_s, rows))
        return answer

    def recent(self, now_s: float) -> dict[str, Any]:
        """Of the last `WINDOW_S` seconds."""
        while self._recent and self._recent[0][0] < now_s - WINDOW_S:
            self._recent.popleft()
        return compared([rows for _, rows in self._recent])

    def total(self) -> dict[str, Any]:
        """Of the whole run, from the first trained version on."""
        return compared(self._all)


def compared(parts: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """{"live": {"log_loss", "auc"}, "frozen": {…}, "best": {"log_loss"}, "n"}; nan where nothing was scored."""
    rows = np.concatenate([np.zeros((0, 4)), *parts])
    truth, label, live, frozen = rows.T
    return {
        "live": {"log_loss": log_loss(label, live), "auc": auc(label, live)},
        "frozen": {"log_loss": log_loss(label, frozen), "auc": auc(label, frozen)},
        "best": {"log_loss": log_loss(label, truth)},
        "n": len(rows),
    }


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` percent do not exceed; nan without values."""
    return float(np.percentile(values, part)) if len(values) else float("nan")
