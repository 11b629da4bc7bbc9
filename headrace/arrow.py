"""Arrow as headrace's processes use it: without pandas where a start must be fast, with libc's memory in the pipeline,
files mapped where they can be.

pyarrow looks for pandas when it makes its first array, to recognise pandas objects; where pandas is installed (MLflow
brings it) that import costs a second of CPU and 60 MB, for nothing.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from headrace.store import Store


class _NoPandas(MetaPathFinder):
    """While it is in `sys.meta_path`, there is no pandas."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("left out while pyarrow looks", name=fullname)
        return None


def without_pandas() -> None:
    """Let pyarrow believe, until someone asks it for pandas objects, that there is no pandas. Others may import it."""
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])  # looks once, and remembers
    finally:
        sys.meta_path.remove(finder)


def memory_of_libc() -> None:
    """Let Arrow of this process allocate with malloc: what a tick frees, the next piece takes, instead of fresh pages.

    Arrow's own pool gives freed memory back at once; to have its pages zeroed again took a tenth of a pipeline's time.
    """
    pa.set_memory_pool(pa.system_memory_pool())


def buffer_at(store: Store, path: str) -> pa.Buffer:
    """The bytes of a file: mapped where the store is local, not read before they are used. NotFound."""
    local = store.path_of(path)
    if local is None or not local.exists() or not local.stat().st_size:  # an empty file cannot be mapped
        return pa.py_buffer(store.read(path))
    with pa.memory_map(str(local)) as mapped:
        return mapped.read_buffer()
