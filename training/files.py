"""The files of a version: its delta at once, a snapshot and a checkpoint aside when they are due.

Steps 4 to 6 of the commit order (training/trainer.py). `named`: snapshots and checkpoints that are durable and stand in
no record yet; the next one names them.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

from headrace.delta import write_delta
from headrace.failpoints import hit
from headrace.record import sha256_of
from headrace.version import Kept, NamedFile
from training import schedule
from training.aside import Aside
from training.checkpoint import copy_of, write_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from headrace.config.sections import TrainSettings
    from headrace.delta import Delta
    from headrace.published import PublishedTable
    from headrace.store import Store
    from headrace.version import VersionRecord
    from training.state import State

FOLDER = "models/default"


class Files:
    """Writes below `folder`. resident: whether versions go on while files are written aside, or wait for them."""

    def __init__(self, store: Store, folder: str, train: TrainSettings) -> None:
        self.resident = False
        self.named: dict[str, Kept] = {}
        self._store, self._folder, self._train = store, folder, train
        self._aside = Aside()
        self._checkpointed_us: int | None = None

    def begin(self, checkpointed_us: int | None) -> None:
        """As after a recovery: what is being written will not be named. When the newest checkpoint was made."""
        self.drop()
        self.named, self._checkpointed_us = {}, checkpointed_us

    def drop(self) -> None:
        """What is being written will not be named."""
        self._aside.drop()

    def delta(self, delta: Delta) -> NamedFile:
        """Step 4."""
        kept = self._write(delta.of, "delta", write_delta(delta))
        hit("trainer.delta_written")
        return NamedFile(kept.path, kept.sha256, kept.bytes)

    def copy(self, version: int, record: VersionRecord, published: PublishedTable, state: State, now_us: int) -> None:
        """Steps 5 and 6: begins to write aside what is due, as of `version`, unless something is being written.

        record: the one before, which names the newest of both.
        """
        self.take()
        if self._aside.busy():
            return
        newest = self.named.get("snapshot", record.snapshot)
        writes: dict[str, Callable[[], Kept]] = {}
        if schedule.snapshot_due(version, newest.of if newest else record.lineage, self._train.snapshot_every):
            writes["snapshot"] = partial(self._snapshot, published.copied(version), version)
        if schedule.checkpoint_due(now_us, self._checkpointed_us, self._train.checkpoint_every_s):
            writes["checkpoint"] = partial(self._checkpoint, copy_of(state, version), version)
            self._checkpointed_us = now_us
        if writes:
            hit("trainer.copied")
            self._aside.begin(writes)
        if not self.resident:
            self._aside.wait()
            self.take()

    def take(self) -> dict[str, Kept]:
        """`named`, with what has become durable since."""
        self.named |= self._aside.take()
        return self.named

    def _snapshot(self, snapshot: Callable[[], Delta], version: int) -> Kept:
        kept = self._write(version, "snapshot", write_delta(snapshot()))
        hit("trainer.snapshot_written")
        return kept

    def _checkpoint(self, entries: dict[str, np.ndarray], version: int) -> Kept:
        kept = write_copy(self._store, f"{self._folder}/checkpoints", entries, version, secrets.token_hex(4))
        hit("trainer.checkpoint_written")
        return kept

    def _write(self, version: int, what: str, data: bytes) -> Kept:
        path = f"{self._folder}/params/{version:012d}-{what}-{secrets.token_hex(4)}.arrow"
        self._store.write(path, data)
        return Kept(of=version, path=path, sha256=sha256_of(data), bytes=len(data))
