"""The bytes of one record of a log.

A record is a file `<log>/<seq, 12 digits>.json` with one JSON object in canonical form: sorted keys, no spaces, ASCII,
no NaN or infinity. Its fields:

| field    | meaning                                                                                        |
|----------|------------------------------------------------------------------------------------------------|
| `seq`    | the number in its name; the first record of a log is 0                                         |
| `kind`   | what it says (`shard`, `delta`, `rollback` …)                                                  |
| `format` | major format, 1                                                                                |
| `writer` | nonce of its writer, 8 hex digits                                                              |
| `parent` | SHA-256 of the bytes of record `seq - 1`, in hex; `""` for the first                           |
| …        | the body: fields of its kind                                                                   |
| `sha256` | SHA-256 of the canonical form of the object without this field                                 |

These six fields and the way they are hashed stay in every later format, so that damage is never taken for news: a
reader first checks the hash, then the format.

A body that would make the record longer than 16 KiB gives up its largest lists and objects, one by one, to detail
files `<folder of the log>/detail/<seq>-<field>-<writer>.json`, canonical JSON too. The record keeps
`{"$detail": {"path", "sha256", "bytes"}}` in their place.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.errors import DamagedFile, LogError, NewerFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.store import Store

FORMAT = 1
MAX_RECORD_BYTES = 16 * 1024
ENVELOPE = frozenset({"seq", "kind", "format", "writer", "parent", "sha256"})
DETAIL = "$detail"
RESTORE = "run `headrace log verify --deep`, and restore this file from a copy of the root"


@dataclass(frozen=True)
class Cursor:
    """The last record that a reader has read; None stands for "nothing yet"."""

    seq: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"seq": self.seq, "sha256": self.sha256}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cursor:
        return cls(seq=int(data["seq"]), sha256=str(data["sha256"]))


@dataclass(frozen=True)
class Entry:
    """One verified record: `sha256` of its bytes, its `body` with details in place, its writer and parent."""

    seq: int
    sha256: str
    kind: str
    body: dict[str, Any]
    writer: str = ""
    parent: str = ""

    def cursor(self) -> Cursor:
        return Cursor(self.seq, self.sha256)


@dataclass(frozen=True)
class Attempt:
    """A record as its writer means to commit it: what readers will see, its bytes, the detail files it names."""

    entry: Entry
    data: bytes
    details: dict[str, bytes]

    @property
    def seq(self) -> int:
        return self.entry.seq


def name_of(prefix: str, seq: int) -> str:
    """Path of a record.

    >>> name_of("shards/log", 42)
    'shards/log/000000000042.json'
    """
    return f"{prefix}/{seq:012d}.json"


def seq_of(path: str) -> int | None:
    """The number a name was written for (also a temporary one), None where it carries none.

    >>> seq_of("shards/data/000000000042-0-1c9e77aa.parquet")
    42
    """
    digits = path.rsplit("/", 1)[-1].removeprefix(".tmp-")[:12]
    return int(digits) if len(digits) == 12 and digits.isascii() and digits.isdigit() else None


def canonical(value: Any) -> bytes:
    """Canonical JSON.

    >>> canonical({"b": 1, "a": [0.5, "é"]})
    b'{"a":[0.5,"\\\\u00e9"],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def sha256_of(data: bytes | memoryview) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def check_sha256(data: bytes | memoryview, sha256: str, path: str, hint: str = RESTORE) -> None:
    """Raise `DamagedFile` unless `data` has the hash that a record names for `path`. `hint`: what to do then."""
    if sha256_of(data) != sha256:
        raise _damaged(path, "it does not have the SHA-256 that a record names", hint)


def read_verified(store: Store, path: str, sha256: str, hint: str = RESTORE) -> bytes:
    """The bytes of a file that a record names. `NotFound`, `DamagedFile`."""
    data = store.read(path)
    check_sha256(data, sha256, path, hint)
    return data


def encode(prefix: str, seq: int, kind: str, writer: str, parent: str, body: Mapping[str, Any]) -> Attempt:
    """The bytes of a record and of its detail files."""
    taken = sorted(ENVELOPE & body.keys())
    if taken:
        raise LogError(f"a record's body may not have the fields {taken}: every record has them", kind=kind)
    whole: dict[str, Any] = json.loads(canonical(dict(body)))  # as readers will see it
    fields = dict(whole)
    envelope = {"seq": seq, "kind": kind, "format": FORMAT, "writer": writer, "parent": parent}
    large = _by_size({field: value for field, value in fields.items() if isinstance(value, list | dict)})
    details: dict[str, bytes] = {}
    data = _sealed({**envelope, **fields})
    while len(data) > MAX_RECORD_BYTES and large:
        field = large.pop()
        path = f"{detail_folder(prefix)}/{seq:012d}-{field}-{writer}.json"
        details[path] = canonical(fields[field])
        named = {"path": path, "sha256": sha256_of(details[path]), "bytes": len(details[path])}
        fields[field] = {DETAIL: named}
        data = _sealed({**envelope, **fields})
    return Attempt(Entry(seq, sha256_of(data), kind, whole, writer, parent), data, details)


def detail_folder(prefix: str) -> str:
    """Where the details of a log's records lie.

    >>> detail_folder("models/default/log")
    'models/default/detail'
    """
    parent, _, _ = prefix.rpartition("/")
    return f"{parent}/detail" if parent else "detail"


def decode(data: bytes, path: str, seq: int) -> Entry:
    """The record in `data`, its hash, form and number checked; details are still names.

    `DamagedFile`, `NewerFormat`.
    """
    record = _opened(data, path)
    if record["format"] > FORMAT:
        raise NewerFormat(
            f"{path} has format {record['format']}; this headrace reads up to {FORMAT}",
            hint="upgrade headrace in this environment; what is already loaded goes on serving",
            path=path,
            format=record["format"],
        )
    if record["seq"] != seq:
        raise _damaged(path, f"it says that it is record {record['seq']}")
    body = {field: value for field, value in record.items() if field not in ENVELOPE}
    return Entry(seq, sha256_of(data), record["kind"], body, record["writer"], record["parent"])


def with_details(store: Store, entry: Entry) -> Entry:
    """`entry` with each detail file read, verified and put in its place."""
    body = {field: _detail(store, value) if _is_detail(value) else value for field, value in entry.body.items()}
    return Entry(entry.seq, entry.sha256, entry.kind, body, entry.writer, entry.parent)


def _by_size(values: Mapping[str, Any]) -> list[str]:
    """Field names, the one with the longest value last."""
    return sorted(values, key=lambda field: (len(canonical(values[field])), field))


def _sealed(record: dict[str, Any]) -> bytes:
    return canonical({**record, "sha256": sha256_of(canonical(record))})


def _opened(data: bytes, path: str) -> dict[str, Any]:
    """The object in `data`. Every byte counts: what is not exactly what its writer's `_sealed` gave is damaged."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(record, dict) or not record.keys() >= ENVELOPE:
        raise _damaged(path, "it is not a record")
    check_seal(data, record, path)
    return record


def check_seal(data: bytes, record: dict[str, Any], path: str) -> None:
    """Raise `DamagedFile` unless `data` is the sealed form of `record`, its own hash included."""
    rest = {field: value for field, value in record.items() if field != "sha256"}
    if _sealed(rest) != data:
        raise _damaged(path, "its bytes do not have the hash that it carries")


def _is_detail(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {DETAIL}


def _detail(store: Store, value: dict[str, Any]) -> Any:
    named = value[DETAIL]
    return json.loads(read_verified(store, named["path"], named["sha256"]))


def _damaged(path: str, why: str, hint: str = RESTORE) -> DamagedFile:
    return DamagedFile(f"{path} is damaged: {why}", hint=hint, path=path)
