"""What earlier versions say: the version log, read back from its newest record."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from headrace.errors import NotFound
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.version import Kept


class History:
    """Records of `log`. NotFound for those that were collected."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __call__(self, version: int) -> VersionRecord:
        return VersionRecord.from_entry(self._log.read(version))

    def newest(self, head: VersionRecord, most: int) -> list[VersionRecord]:
        """Up to `most` records before `head`, then `head`: of its lineage, as far as they are kept, oldest first."""
        found: list[VersionRecord] = []
        with contextlib.suppress(NotFound):
            oldest = max(head.version - most, head.lineage)
            found.extend(self(version) for version in range(head.version, oldest - 1, -1))
        return found[::-1]

    def offset(self, version: int) -> float:
        """What a version adds to every logit, without what late positives add."""
        record = self(version)
        while record.delta is None and record.table_of is not None:
            record = self(record.table_of)
        return record.offset - float(record.gate.get("correction") or 0.0)

    def made_us(self, kept: Kept | None) -> int | None:
        """When the version of a file was made."""
        return self(kept.of).created_at_us if kept is not None else None
