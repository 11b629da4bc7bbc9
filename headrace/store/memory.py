"""A store in the memory of this process, for tests: `memory://name`; everyone who opens a name shares its files."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from headrace.errors import Exists, NotFound
from headrace.store.base import folder_of, is_temporary, plain

if TYPE_CHECKING:
    from pathlib import Path

_lock = threading.Lock()
_spaces: dict[str, dict[str, bytes]] = {}


class MemoryStore:
    """`Store` over a dictionary; `name` selects the space."""

    def __init__(self, name: str) -> None:
        self.url = f"memory://{name}"
        with _lock:
            self._files = _spaces.setdefault(name, {})

    def read(self, path: str) -> bytes:
        with _lock:
            data = self._files.get(plain(path))
        if data is None:
            raise NotFound(f"{path} is not in {self.url}", path=path, store=self.url)
        return data

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return self.read(path)[start:end]

    def write(self, path: str, data: bytes | memoryview) -> None:
        with _lock:
            self._files[plain(path)] = bytes(data)

    def put_if_absent(self, path: str, data: bytes) -> None:
        with _lock:
            if plain(path) in self._files:
                raise Exists(f"{path} exists in {self.url}", path=path, store=self.url)
            self._files[path] = bytes(data)

    def left_over(self, prefix: str) -> list[str]:
        folder_of(prefix)
        return []

    def folders(self, prefix: str) -> list[str]:
        start = f"{folder_of(prefix)}/" if prefix else ""
        return sorted({path[len(start) :].split("/")[0] for path in self.list(prefix) if "/" in path[len(start) :]})

    def list(self, prefix: str) -> list[str]:
        folder = folder_of(prefix)
        start = f"{folder}/" if folder else ""
        with _lock:
            return sorted(path for path in self._files if path.startswith(start) and not is_temporary(path))

    def delete(self, path: str) -> None:
        with _lock:
            self._files.pop(plain(path), None)

    def sync(self, path: str) -> None:
        self.read(path)

    def overwrite(self, path: str, data: bytes) -> None:
        self.write(path, data)

    def size(self, prefix: str) -> int:
        start = f"{folder_of(prefix)}/" if prefix else ""
        with _lock:
            return sum(len(data) for path, data in self._files.items() if path.startswith(start))

    def path_of(self, path: str) -> Path | None:
        plain(path)
        return None
