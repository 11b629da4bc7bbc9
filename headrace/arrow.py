"""Arrow without pandas, for processes that start often or must start fast.

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
