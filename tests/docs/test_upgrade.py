"""docs/upgrade.md: its table of formats is that of the code, and each that is read has its golden file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace import delta, loop, quarantine, record, shard
from pipelines import runs
from training import checkpoint

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
PAGE = (ROOT / "docs" / "upgrade.md").read_text()
ROWS = {
    what: (int(written), [int(one) for one in read.split(", ")])
    for what, written, read in re.findall(r"^\| ([a-z, ]+) \| `[^`]+` \| (\d+) \| ([\d, ]+) \|$", PAGE, re.MULTILINE)
}
CODE = {
    "loop": (loop.FORMAT, "root-{}/loop.json"),
    "record": (record.FORMAT, "versions-{}"),
    "shard": (shard.FORMAT, "shard-format{}.parquet"),
    "pending run": (runs.FORMAT, "run-format{}.arrow"),
    "quarantine": (quarantine.FORMAT, "quarantine-format{}.parquet"),
    "delta, snapshot": (delta.FORMAT, "delta-format{}.arrow"),
    "checkpoint": (checkpoint.FORMAT, "checkpoint-format{}.npz"),
}


def test_every_format_is_in_the_table():
    assert set(ROWS) == set(CODE)


@pytest.mark.parametrize("what", CODE)
def test_the_table_says_what_is_written_and_that_all_before_is_read(what):
    written, golden = CODE[what]
    assert ROWS[what] == (written, list(range(1, written + 1)))
    for number in ROWS[what][1]:
        assert (GOLDEN / golden.format(number)).exists()
