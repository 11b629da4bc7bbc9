"""What a source must remember beyond the identity in a range, in a file of its own that records share.

`shards/state/<seq>-aside-<n>-<nonce>.json`, canonical JSON {"format": 1, "kind": "aside", "value": any}. The range
names it with its SHA-256 (`aside`), and so do those of later records, until the source has something new to say. What
the value is, the source alone knows.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headrace.errors import NewerFormat
from headrace.record import canonical, read_verified, sha256_of
from headrace.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.store import Store

__all__ = ["read_aside", "write_aside"]

KIND = "aside"
FORMAT = 1


def write_aside(store: Store, path: str, value: Any) -> dict[str, Any]:
    """Write it; how a range names it."""
    data = canonical({"format": FORMAT, "kind": KIND, "value": value})
    store.write(path, data)
    return {"path": path, "sha256": sha256_of(data), "bytes": len(data)}


def read_aside(url: str, named: Mapping[str, Any] | None) -> Any:
    """The value, once per process and file; None where nothing is named. `NotFound`, `DamagedFile`, `NewerFormat`."""
    return None if named is None else _read(url, named["path"], named["sha256"])


@lru_cache(maxsize=64)
def _read(url: str, path: str, sha256: str) -> Any:
    body = json.loads(read_verified(open_store(url), path, sha256))
    if body["format"] != FORMAT or body["kind"] != KIND:
        raise NewerFormat(
            f"{path} has format {body['format']} and kind {body['kind']}; this headrace reads format {FORMAT}",
            hint="upgrade headrace in this environment; nothing was committed",
            path=path,
        )
    return body["value"]
