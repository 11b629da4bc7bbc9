"""One shard log, several arms: each arm sees the same shards and a `models/` folder of its own.

shards/…, events/…, loop.json     the scratch root's own, shared
models/…                          arms/<arm>/models/…
status/…, requests/…              arms/<arm>/…
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.store import Store

_OWN = ("models", "status", "requests")


class ArmStore:
    """A store in which some folders belong to one arm (see `headrace.store.base.Store` for the verbs)."""

    def __init__(self, store: Store, arm: str) -> None:
        self._store, self._folder = store, f"arms/{arm}/"
        self.url = store.url

    def _inside(self, path: str) -> str:
        return self._folder + path if path.split("/", 1)[0] in _OWN else path

    def read(self, path: str) -> bytes:
        return self._store.read(self._inside(path))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return self._store.read_range(self._inside(path), start, end)

    def write(self, path: str, data: bytes | memoryview) -> None:
        self._store.write(self._inside(path), data)

    def put_if_absent(self, path: str, data: bytes) -> None:
        self._store.put_if_absent(self._inside(path), data)

    def left_over(self, prefix: str) -> list[str]:
        inside = self._inside(prefix)
        cut = len(self._folder) if inside != prefix else 0
        return [path[cut:] for path in self._store.left_over(inside)]

    def folders(self, prefix: str) -> list[str]:
        return self._store.folders(self._inside(prefix))

    def list(self, prefix: str) -> list[str]:
        inside = self._inside(prefix)
        cut = len(self._folder) if inside != prefix else 0
        return [path[cut:] for path in self._store.list(inside)]

    def delete(self, path: str) -> None:
        self._store.delete(self._inside(path))

    def sync(self, path: str) -> None:
        self._store.sync(self._inside(path))

    def overwrite(self, path: str, data: bytes) -> None:
        self._store.overwrite(self._inside(path), data)

    def size(self, prefix: str) -> int:
        return self._store.size(self._inside(prefix))

    def path_of(self, path: str) -> Path | None:
        return self._store.path_of(self._inside(path))


def copy_models(store: Store, source: str, target: str) -> None:
    """Gives the arm `target` what the arm `source` has learned. Records last, oldest first: a death leaves a log that
    names only files that are there, and copying again finishes it."""
    have = set(store.list(f"arms/{target}"))
    paths = store.list(f"arms/{source}/models")
    for path in sorted(paths, key=lambda path: ("/log/" in path, path)):
        copy = f"arms/{target}/" + path.removeprefix(f"arms/{source}/")
        if copy not in have:
            store.write(copy, store.read(path))
