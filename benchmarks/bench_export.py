"""What an export of 2^20 rows in two tables (linear, and embeddings of width 8 in int8) takes, beside the imports.

    python benchmarks/bench_export.py

The version is made by hand: random rows and a `dcn_v2` tower of random weights. Each format is exported in a process of
its own, with the check that it answers as the service does. Memory: the peak of that process less what it was once
TensorFlow, Keras and headrace were loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from settings import ITEM, PRICE, TAGS, UNREAD, USER, settings_text

from headrace.config import Settings, parse
from headrace.delta import Change, Delta, Numbers, write_delta
from headrace.loop import open_loop
from headrace.published import PublishedTable
from headrace.record import sha256_of
from headrace.store import open_store
from headrace.version import NamedFile, VersionRecord

ROWS = 1 << 20
TARGETS = {"saved-model": "model", "keras": "model.keras"}
MOST_BYTES_A_ROW = 1024


def report(name: str, value: float, unit: str, bar: str = "", *, holds: bool = True) -> bool:
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds}), flush=True)
    return holds


def make(settings: Settings) -> None:
    """Version 1 of a new loop."""
    from training.models import weight_shapes
    from training.recipe import design_of
    from training.start import write_start
    from training.tower import template_of

    loop = open_loop(open_store(settings.loop.root), "bench", create=True)
    design, random = design_of(settings, settings.schema()), np.random.default_rng(0)
    sizes = weight_shapes(design.shape)
    weights = {name: random.normal(0, 0.1, size).astype(np.float32) for name, size in sizes.items()}
    ids = np.unique(random.integers(0, 2**63 - 1, ROWS))
    changes = tuple(
        Change.of_rows(spec, ids, random.normal(0, 0.1, (len(ids), spec.width)).astype(np.float32))
        for spec in design.tables
    )
    delta = Delta(1, 0, changes, template_of(design.shape, sizes).patched(weights), Numbers((1.0,), (0.5,)))
    published = PublishedTable(design.tables)
    published.apply(delta)
    data, path = write_delta(delta), "models/default/params/000000000001-delta-bench.arrow"
    loop.store.write(path, data)
    head = write_start(loop, settings)
    record = replace(
        VersionRecord.from_entry(head),
        base=0,
        delta=NamedFile(path, sha256_of(data), len(data)),
        digest=published.digest().to_json(),
    )
    loop.version_log().append("delta", record.to_body(), head)


def peak_bytes() -> int:
    """Of this program alone; `ru_maxrss` would count what its parent had before it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def one(root: str, form: str) -> None:
    """Exports in this process; prints [seconds, bytes of memory, greatest difference of scores]."""
    from training import kerasmodel  # noqa: F401  Keras is no part of it
    from training.export import export

    before, started = peak_bytes(), time.perf_counter()
    loop = open_loop(open_store(f"{root}/loop"), "bench")
    found = export(loop, None, Path(root) / TARGETS[form], form, force=False, say=lambda _: None)
    print(json.dumps([time.perf_counter() - started, peak_bytes() - before, found.difference]))


def main() -> int:
    holds = []
    with tempfile.TemporaryDirectory() as root:
        text = settings_text(USER, ITEM, TAGS, PRICE, loop={"name": "bench", "root": f"{root}/loop"}, **UNREAD)
        make(parse(text))
        for form in TARGETS:
            done = subprocess.run(
                [sys.executable, __file__, root, form], stdout=subprocess.PIPE, text=True, check=True
            ).stdout
            seconds, memory, difference = json.loads(done.splitlines()[-1])
            report(f"export.{form}_1m_rows", seconds, "s")
            holds += [
                report(
                    f"export.{form}_memory",
                    memory / ROWS,
                    "bytes a row",
                    f"<= {MOST_BYTES_A_ROW}",
                    holds=memory <= MOST_BYTES_A_ROW * ROWS,
                ),
                report(f"export.{form}_difference", difference * 1e6, "1e-6", "<= 1", holds=difference <= 1e-6),
            ]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        one(*sys.argv[1:])
    else:
        sys.exit(main())
