"""What a store promises: six verbs, the same on a local folder, in memory and on object stores.

| verb            | promise                                                                                        |
|-----------------|------------------------------------------------------------------------------------------------|
| `read`          | the whole file                                                                                 |
| `read_range`    | bytes `[start, end)`, cut at the end of the file                                                 |
| `write`         | a new immutable file, whole or absent, durable before it returns                               |
| `put_if_absent` | the same, and of all processes that ever try a name exactly one succeeds                       |
| `list`          | every file below a folder; temporary names are ignored; no cache between store and answer      |
| `delete`        | gone afterwards, whether it was there or not                                                   |

Beside them: `sync` (rule 3: prove that a file someone else wrote is there and durable), `overwrite` (advisory files
below `status/` only: atomic, not durable), `path_of` (the local file, to map it); and for retention `left_over`
(temporary names, which a killed process leaves), `folders` and `size`.

Paths are relative and plain: `shards/log/000000000042.json`. Names that begin with `.tmp-` are temporary.

Errors: `NotFound`, `Exists`, `Ambiguous` (the answer of a put was lost: it may have happened, or may yet happen),
`StoreFull` (no space or no permission; nothing happened), `StoreRefused` (a path or store that headrace cannot use),
`StoreError` for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headrace.errors import StoreRefused

if TYPE_CHECKING:
    from pathlib import Path

TEMPORARY = ".tmp-"


class Store(Protocol):
    """One root under which logs and files live; every implementation passes `tests/contracts/test_store.py`."""

    @property
    def url(self) -> str:
        """Where the root is, as `open_store` takes it."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes of a file. `NotFound`."""
        ...

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Bytes `[start, end)` of a file, fewer where it ends. `NotFound`."""
        ...

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a new immutable file; it is durable when this returns. `StoreFull`."""
        ...

    def put_if_absent(self, path: str, data: bytes) -> None:
        """Create a file that must not exist; durable when this returns. `Exists`, `Ambiguous`, `StoreFull`."""
        ...

    def left_over(self, prefix: str) -> list[str]:
        """Paths of all temporary files below the folder `prefix`, sorted; `delete` takes them."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders right below the folder `prefix`, sorted."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Paths (from the root) of all files below the folder `prefix`, sorted; `""` is the root."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file if it is there."""
        ...

    def sync(self, path: str) -> None:
        """Return when a file that another process wrote is durable under its name. `NotFound`."""
        ...

    def overwrite(self, path: str, data: bytes) -> None:
        """Replace an advisory file (`status/`): readers see the old or the new bytes; a power cut may lose both."""
        ...

    def path_of(self, path: str) -> Path | None:
        """The local file behind `path`; None where there is none."""
        ...

    def size(self, prefix: str) -> int:
        """Bytes of all files below the folder `prefix`, temporary ones included."""
        ...


def plain(path: str) -> str:
    """`path` if it is relative and plain, else `StoreRefused`: records may come from elsewhere.

    >>> plain("shards/log/000000000042.json")
    'shards/log/000000000042.json'
    """
    segments = path.split("/")
    strange = any(not character.isprintable() or character in '\\*?[]"' for character in path)
    if strange or "::" in path or any(segment in {"", ".", ".."} for segment in segments):
        raise StoreRefused(f"the path {path!r} is not relative and plain", path=path)
    return path


def folder_of(prefix: str) -> str:
    """A prefix as `list` takes it, without its last slash; `""` stays."""
    return plain(prefix.rstrip("/")) if prefix.rstrip("/") else ""


def is_temporary(path: str) -> bool:
    """Whether listings leave this name out."""
    return path.rsplit("/", 1)[-1].startswith(TEMPORARY)
