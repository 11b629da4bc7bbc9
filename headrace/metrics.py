"""Every metric, declared once: name, what is counted, its labels. Units are seconds and events, as Prometheus wants.

A process increments only those of its stage. They live in `prometheus_client.REGISTRY`; nothing is opened or sent here.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "CANDIDATES",
    "DISK_FREE",
    "EVENTS",
    "HOLDS_IN_A_ROW",
    "PREDICTIONS",
    "PREDICT_SECONDS",
    "PROBLEM",
    "QUARANTINED",
    "READY",
    "RESTARTS",
    "ROWS_LEARNED",
    "SERVED_SECONDS",
    "SERVED_VERSION",
    "SERVED_WATERMARK",
    "STEP_SECONDS",
    "SWAP_SECONDS",
    "TICK_SECONDS",
    "TRACKED_VERSION",
    "VERSIONS",
    "WATERMARK",
]

_QUICK: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
_SWAPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)
_SLOW: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)

EVENTS: Final = Counter(
    "headrace_events", "Events whose class was decided; `pending` is not counted.", ["stream", "outcome"]
)
QUARANTINED: Final = Counter("headrace_quarantined", "Events put into quarantine.", ["reason"])
TICK_SECONDS: Final = Histogram("headrace_tick_seconds", "From plan to committed shard record.", buckets=_SLOW)
WATERMARK: Final = Gauge("headrace_watermark_seconds", "Watermark of the newest shard record, since 1970 UTC.")

ROWS_LEARNED: Final = Counter("headrace_rows_learned", "Rows of shards that went into a published version.")
VERSIONS: Final = Counter("headrace_versions", "Committed versions.", ["kind"])
HOLDS_IN_A_ROW: Final = Gauge("headrace_holds_in_a_row", "Records held for their labels, with none learned between.")
STEP_SECONDS: Final = Histogram("headrace_step_seconds", "From shards read to version committed.", buckets=_SLOW)

PREDICTIONS: Final = Counter("headrace_predictions", "Answered Predict calls.", ["code"])
CANDIDATES: Final = Counter("headrace_candidates", "Scored candidates.")
PREDICT_SECONDS: Final = Histogram("headrace_predict_seconds", "Predict inside the server.", buckets=_QUICK)
SWAP_SECONDS: Final = Histogram("headrace_swap_seconds", "From version record read to served.", buckets=_SLOW)
SERVED_SECONDS: Final = Histogram(
    "headrace_served_seconds",
    "From version made by the trainer to served, of those that came since the start.",
    buckets=_SLOW,
)
SERVED_VERSION: Final = Gauge("headrace_served_version", "Version that answers predictions.")
SERVED_WATERMARK: Final = Gauge("headrace_served_watermark_seconds", "Its watermark, since 1970 UTC.")

TRACKED_VERSION: Final = Gauge("headrace_tracked_version", "Newest version that MLflow shows.")

READY: Final = Gauge("headrace_ready", "1 while the process does its work, as /readyz says.", ["role"])
PROBLEM: Final = Gauge("headrace_problem", "1 while the process says that something keeps it from it.", ["role"])
DISK_FREE: Final = Gauge("headrace_disk_free_bytes", "Free where the root is; 0 where it is no local folder.")
RESTARTS: Final = Gauge("headrace_restarts", "How often `headrace up` has started a process again.", ["role"])
