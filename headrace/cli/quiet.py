"""Keeps the native libraries' chatter off the terminal.

TensorFlow, LiteRT and gRPC write to file descriptor 2 themselves ("All log messages before absl::InitializeLog()",
"Created TensorFlow Lite XNNPACK delegate", …), whatever Python's logging says. Inside `native_output()` that descriptor
leads to a log file, while `sys.stderr` keeps leading to the terminal: what headrace says is seen, what libraries mutter
is kept for the day something breaks.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.supervise import LOGS

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # bit-equal replays need it (DESIGN, recovery); it also prints a line
    "GRPC_VERBOSITY": "ERROR",
    "GLOG_minloglevel": "3",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
}


def log_path(role: str) -> Path:
    """Where the chatter of this process goes: a file of its own, or beside the log that its supervisor keeps."""
    logs = os.environ.get(LOGS)
    if logs:
        return Path(logs) / f"{role}.libraries.log"
    return Path(tempfile.gettempdir()) / f"headrace-{role}-{os.getpid()}.log"


@contextmanager
def native_output(role: str) -> Iterator[Path]:
    """Descriptor 2 and other libraries' log lines go to the log file; the file is removed when all ends well.

    HEADRACE_DEBUG=1 (or `headrace --debug`) leaves everything on the terminal.
    """
    path = log_path(role)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.environ.get("HEADRACE_DEBUG"):
        yield path
        return
    sys.stderr.flush()
    kept, terminal = os.dup(2), sys.stderr
    log = path.open("w", encoding="utf-8")
    os.dup2(log.fileno(), 2)
    sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, encoding="utf-8", errors="replace")
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    root.addHandler(handler)
    failed = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield path
        failed = False
    except KeyboardInterrupt:
        failed = False
        raise
    finally:
        root.removeHandler(handler)
        sys.stderr.close()
        sys.stderr = terminal
        os.dup2(kept, 2)
        os.close(kept)
        log.close()
        if not failed:
            path.unlink(missing_ok=True)
