"""Programs that tests use where they are installed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def which(name: str) -> str | None:
    """Where it is: among what this environment has (tests/machine.sh), or on the machine."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
