"""Runs every benchmark (or those named) and keeps its figures.

    python benchmarks/run.py [pipeline trainer …]      runs bench_<name>.py, writes benchmarks/results/<name>.json
    python benchmarks/run.py --table                   prints the README's table from the kept results

A benchmark runs without arguments and prints one JSON line per figure: {"name", "value", "unit", "bar", "holds"}. The
exit code is 1 if a bar does not hold.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def machine() -> dict[str, Any]:
    """What the figures were measured on; no names of hosts."""
    return {
        "cores": os.cpu_count(),
        "cpu": next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "?"),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def run(name: str) -> list[dict[str, Any]]:
    """Runs one benchmark in its own process, keeps and returns its figures. It may exit with 1: a bar does not hold."""
    start = machine()
    out = subprocess.run(
        [sys.executable, str(HERE / f"bench_{name}.py")], stdout=subprocess.PIPE, text=True, check=False
    )
    figures = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    if not figures:
        raise SystemExit(f"bench_{name}.py printed no figure")
    if out.returncode != (0 if all(figure["holds"] for figure in figures) else 1):
        raise SystemExit(f"bench_{name}.py ended with {out.returncode}, which its figures do not explain: nothing kept")
    kept = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": start, "figures": figures}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    return figures


def table() -> str:
    """The README's table: every figure that has a bar, from the kept results."""
    rows = ["| figure | measured | bar | holds | command |", "|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        kept = json.loads(path.read_text())
        command = kept.get("command", f"python benchmarks/bench_{path.stem}.py")
        for figure in (figure for figure in kept["figures"] if figure["bar"]):
            value = f"{figure['value']} {figure['unit']}".strip()
            holds = "yes" if figure["holds"] else "**no**"
            rows.append(f"| {figure['name']} | {value} | {figure['bar']} | {holds} | `{command}` |")
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    if arguments == ["--table"]:
        print(table())
        return 0
    names = arguments or sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    figures = [figure for name in names for figure in run(name)]
    for figure in figures:
        print(json.dumps(figure), flush=True)
    return 0 if all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
