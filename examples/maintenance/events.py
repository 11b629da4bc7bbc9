"""Pumps that wear out, fail and are repaired. Sensors show the wear, but not for ever in the same way: they age and are
recalibrated, and the weather changes. `python events.py` writes the events anew.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace import simulate

DAYS, SEED = 42, 0
MACHINES, MODELS, SITES = 120, 4, 6
STEP_H, HORIZON_H = 3, 24


def events(until: np.datetime64) -> dict[str, pa.Table]:
    """Readings of every machine, each three hours, and what became of it within the horizon."""
    draw = np.random.default_rng(SEED)
    steps = DAYS * 24 // STEP_H
    model, site = np.arange(MACHINES) % MODELS, draw.integers(0, SITES, MACHINES)
    wear, age = draw.uniform(0, 3, MACHINES), draw.uniform(0, 300, MACHINES)
    pace = draw.lognormal(-3.2, 0.4, MACHINES)  # wear in a step
    worn, service_h, failing = (np.empty((steps, MACHINES)) for _ in range(3))
    for i in range(steps):
        wear, age = wear + pace * draw.exponential(1, MACHINES), age + STEP_H
        worn[i], service_h[i] = wear, age
        failing[i] = simulate.happens(draw, 3 * wear - 14)
        repaired = failing[i] > 0
        wear, age = np.where(repaired, 0.2, wear), np.where(repaired, 0, age)
    next_failure = np.full((steps, MACHINES), np.inf)  # hours from a reading to it
    for i in reversed(range(steps - 1)):
        next_failure[i] = STEP_H + np.where(failing[i + 1] > 0, 0, next_failure[i + 1])
    failed = next_failure <= HORIZON_H

    tau = 12 * 24 / STEP_H  # a sensor of a model is another one after twelve days
    shake, heat = (np.exp(simulate.wander(draw, steps, MODELS, sd=0.4, tau=tau))[:, model] for _ in range(2))
    weather = simulate.wander(draw, steps, SITES, sd=3.0, tau=tau)[:, site]
    noise = draw.normal(0, 1, (4, steps, MACHINES))
    numbers = {
        "vibration": 1.5 + 0.5 * shake * worn + 0.4 * noise[0],
        "temperature": 45 + 3.5 * heat * worn + weather + 2 * noise[1],
        "pressure": 6 - 0.1 * worn + 0.3 * noise[2],
        "current": 20 + 0.5 * worn + 2 * noise[3],
        "service_h": service_h,
    }
    minutes = draw.integers(0, 60 * STEP_H, MACHINES)
    past = np.arange(-steps, 0)[:, None] * STEP_H * 3_600 + 60 * minutes
    at = simulate.after(np.full(steps * MACHINES, until.astype("datetime64[ms]")), past.ravel().astype(float))
    reading = simulate.named("r", np.arange(len(at)))
    each = np.tile(np.arange(MACHINES), steps)
    readings = {
        "reading": reading,
        "read_at": at,
        "machine": simulate.named("m", each),
        "model": np.array(list("ABCD"))[model[each]],
        "site": simulate.named("s", site[each]),
        **{name: np.round(value.ravel(), 2) for name, value in numbers.items()},
    }
    known_at = simulate.after(at, np.full(len(at), 3_600.0 * HORIZON_H))
    outcomes = {"reading": reading, "known_at": known_at, "failed": failed.ravel().astype(int)}
    return {"events/readings.parquet": pa.table(readings), "events/outcomes.parquet": pa.table(outcomes)}


if __name__ == "__main__":
    simulate.write(events(simulate.midnight()), simulate.midnight(), Path(__file__).parent)
