"""pyarrow does not import pandas for an array, and still can when it is asked to; files are mapped where they can."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.arrow import buffer_at
from headrace.errors import NotFound
from headrace.store import open_store

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


@pytest.mark.parametrize("content", [b"some bytes", b""])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_the_bytes_of_a_file_wherever_it_is(tmp_path, place, content):
    store = open_store(str(tmp_path) if place == "local" else f"memory://{tmp_path.name}")
    store.write("file", content)
    assert buffer_at(store, "file").to_pybytes() == content
    with pytest.raises(NotFound):
        buffer_at(store, "none")
