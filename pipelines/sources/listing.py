"""The files below a folder with their sizes; what starts with `.` or `_` is hidden."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["sizes_below"]


def sizes_below(fs: Any, path: str, believed: Mapping[str, int]) -> dict[str, int]:
    """Size by name below a folder. `believed`: sizes that need not be asked for."""
    return _listed_locally(path, believed) if isinstance(fs, LocalFileSystem) else _listed(fs, path)


def _listed(fs: Any, path: str) -> dict[str, int]:
    start = len(path.rstrip("/")) + 1
    names = {full[start:]: info for full, info in fs.find(path, detail=True).items()}
    return {name: int(info["size"]) for name, info in names.items() if not _hidden(name)}


def _listed_locally(path: str, believed: Mapping[str, int]) -> dict[str, int]:
    """The same in less time: a folder may hold all files of a year, and is listed on every tick."""
    found: dict[str, int] = {}
    folders = [(path, "")]
    for folder, prefix in folders:
        for name in os.listdir(folder):  # noqa: PTH208  (half the time)
            place = prefix + name
            size = believed.get(place)
            if size is not None:
                found[place] = size
            elif name[0] not in "._":
                full = f"{folder}/{name}"
                try:
                    about = os.stat(full)  # noqa: PTH116  (the same)
                except FileNotFoundError:
                    continue  # deleted meanwhile, or a link to nowhere
                if not stat.S_ISDIR(about.st_mode):
                    found[place] = about.st_size
                elif not os.path.islink(full):  # noqa: PTH114
                    folders.append((full, f"{place}/"))
    return found


def _hidden(name: str) -> bool:
    return name.startswith((".", "_")) or "/." in name or "/_" in name
