"""The 336,776 flights that left New York City in 2013. Nothing is simulated: `headrace.flights` says what is what."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace import flights, simulate


def events(_until: np.datetime64) -> dict[str, pa.Table]:
    """All flights; they are over."""
    return {"flights.parquet": flights.flights_events()}


if __name__ == "__main__":
    simulate.write(events(simulate.midnight()), simulate.midnight(), Path(__file__).parent)
