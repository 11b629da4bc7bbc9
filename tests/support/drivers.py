"""The programs of `tests/loop`, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "loop"


def result_of(name: str, *arguments: str, within_s: float = 280.0) -> dict[str, Any]:
    """The JSON line that `tests/loop/<name>` ends with; what it says besides is shown if the test fails."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments], capture_output=True, text=True, timeout=within_s, check=False
    )
    print(done.stderr, file=sys.stderr)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
