"""From rows that were learned to a delta: what replicas do not have yet, encoded.

Residual rule. A row goes into the delta if its new encoding differs in bytes from the published one *and* some entry,
decoded, differs by more than eps; or if it was never published. The comparison is always with what replicas hold, never
with the last step, so what stays below eps adds up until it goes out. Rows that went (training/expiry.py) and were
published are tombstones.

    published after  = published before + delta,    |published - learned| <= eps + half a step of the encoding
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headrace.delta import Change, Delta, Ids, Numbers, TableSpec, decode_rows, encode_rows
from training.table import FREE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.published import PublishedTable
    from training.table import Table

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Learned:
    """Rows of one table that a candidate may have changed. ids: int64 [n], each once; rows: float32 [n, width].

    gone: int64 [k], ids that lost their row and have none now.
    """

    spec: TableSpec
    ids: Ids
    rows: Floats
    gone: Ids


def learned_rows(specs: Sequence[TableSpec], tables: Mapping[str, Table]) -> list[Learned]:
    """The touched rows of every table, in the order of `specs`."""
    found = []
    for spec in specs:
        table = tables[spec.name]
        rows = np.flatnonzero(table.touched).astype(np.int32)
        dropped = np.unique(np.concatenate([np.empty(0, np.int64), *table.index.dropped]))
        gone = dropped[table.index.find(dropped) < 0]
        found.append(Learned(spec, table.index.ids[rows], table.read(rows), gone))
    return found


def differing(tables: Mapping[str, Table], published: PublishedTable) -> int:
    """Marks as changed what one of the two has and the other lacks, and says how much: what was learned again with
    other settings than were published with goes out with the next delta.
    """
    found = 0
    for spec in published.specs:
        table, ids = tables[spec.name], published.ids(spec.name)
        gone = ids[table.index.find(ids) < 0]
        rows = np.flatnonzero(table.index.ids != FREE).astype(np.int32)
        new = rows[~published.lookup(spec.name, table.index.ids[rows])[2]]
        table.index.dropped += [gone] if len(gone) else []
        table.touch(new)
        found += len(gone) + len(new)
    return found


def changed(learned: Learned, published: PublishedTable, eps: float) -> Change:
    """What replicas must hear of: the residual rule for one table."""
    spec, ids = learned.spec, learned.ids
    scale, encoded = encode_rows(learned.rows, spec.encoding)
    old_scale, old, known = published.lookup(spec.name, ids)
    differs = (scale != old_scale) | (encoded != old).any(1)
    distance = np.abs(decode_rows(scale, encoded, spec) - decode_rows(old_scale, old, spec)).max(1, initial=0)
    chosen = ~known | (differs & (distance > eps))
    published_gone = learned.gone[published.lookup(spec.name, learned.gone)[2]]
    return Change(spec, ids[chosen], scale[chosen], encoded[chosen], published_gone)


def delta_of(
    version: int,
    base: int,
    learned: Sequence[Learned],
    published: PublishedTable,
    *,
    eps: float,
    tower: bytes | None,
    numbers: Numbers,
) -> Delta:
    """What version `version` changes against `published`, the table of version `base`.

    tower: None = the model has none. It is left out where its bytes are the published ones.
    """
    changes = tuple(changed(part, published, eps) for part in learned)
    return Delta(version, base, changes, None if tower == published.tower else tower, numbers)
