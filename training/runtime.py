"""TensorFlow, imported once and set up so that training replays to the same bits.

Every module of this package takes `tf` from here. Recovery trains the shards since the newest checkpoint again and
must reach equal bits, which holds under four conditions (measured over 50 processes): ids are de-duplicated before a
sparse update (`step.py`), the number of intra-op threads is set and recorded, oneDNN's rewrites are off, and the
TensorFlow version and the machine's instruction set are the same. `fingerprint()` names the last three; a checkpoint
carries it, so a recovery elsewhere knows that its bits may differ.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import tensorflow as tf

__all__ = ["INTRA_OP_THREADS", "fingerprint", "tf"]

INTRA_OP_THREADS = 2
"""Part of the bits: another number of threads sums gradients in another order."""

tf.config.threading.set_intra_op_parallelism_threads(INTRA_OP_THREADS)
tf.config.threading.set_inter_op_parallelism_threads(2)  # two tables side by side; not part of the bits


def fingerprint() -> dict[str, Any]:
    """What must be equal for a replay to be bit-equal: `{"tensorflow", "intra_op", "onednn", "machine", "cpu"}`."""
    return {
        "tensorflow": tf.__version__,
        "intra_op": INTRA_OP_THREADS,
        "onednn": os.environ["TF_ENABLE_ONEDNN_OPTS"],
        "machine": platform.machine(),
        "cpu": _instruction_sets(),
    }


def _instruction_sets() -> list[str]:
    """The vector extensions that change how sums are grouped."""
    wanted = {"avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "asimd", "sve"}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return sorted(wanted.intersection(flags))
