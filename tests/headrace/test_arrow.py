"""pyarrow does not import pandas for an array, and still can when it is asked to."""

from __future__ import annotations

import subprocess
import sys

SPARED = """
import sys
import pyarrow as pa
from headrace.arrow import without_pandas
without_pandas()
table = pa.table({"a": pa.array(["x", None])})
assert table["a"].to_numpy().tolist() == ["x", None]
assert "pandas" not in sys.modules
assert list(table.to_pandas()["a"])[0] == "x"
"""


def test_arrays_do_without_pandas():
    subprocess.run([sys.executable, "-c", SPARED], check=True)


def test_otherwise_pyarrow_imports_it():
    """The twin: should pyarrow stop, headrace.arrow can go."""
    code = "import sys, pyarrow as pa; pa.array([0]); assert 'pandas' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
