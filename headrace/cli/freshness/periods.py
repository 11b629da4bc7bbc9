"""When a backtest does what: arms, the cut, and the edges at which arms learn. Pure functions of integers.

An *arm* is one refresh interval: `frozen` never learns after the cut, `1h` learns at every full hour UTC. Everything
that happens before an edge belongs to the period that ends there; what happens at the edge itself belongs to the next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.clock import SECOND_US
from headrace.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_HINT = "write refresh intervals such as `--every frozen,1d,1h` (units s, m, h, d, w)"


@dataclass(frozen=True, order=True)
class Interval:
    """A refresh interval. `period_us` 0 = frozen."""

    period_us: int
    name: str

    def ends_at(self, edge_us: int) -> bool:
        """Whether a period of this interval ends at `edge_us`."""
        return self.period_us > 0 and edge_us % self.period_us == 0


def parse_every(text: str) -> tuple[Interval, ...]:
    """The intervals of `--every`, in the order given. SettingsError where one is not a multiple of the shortest.

    >>> [interval.period_us // 1_000_000 for interval in parse_every("frozen,1d,1h")]
    [0, 86400, 3600]
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    found = tuple(_interval(name) for name in names)
    if not found or len(set(found)) < len(found):
        raise SettingsError(f"--every {text!r} names no interval, or one twice", hint=_HINT, every=text)
    shortest = finest(found)
    for interval in found:
        if shortest and interval.period_us % shortest.period_us:
            raise SettingsError(
                f"--every {text!r}: {interval.name} is not a multiple of {shortest.name}",
                hint="all intervals share the pipeline's work at the shortest one: choose multiples of it",
                every=text,
            )
    return found


def _interval(name: str) -> Interval:
    if name == "frozen":
        return Interval(0, name)
    match = re.fullmatch(r"([1-9]\d*)([smhdw])", name)
    if match is None:
        raise SettingsError(f"--every: {name!r} is not a refresh interval", hint=_HINT, every=name)
    return Interval(int(match[1]) * _UNITS_S[match[2]] * SECOND_US, name)


def finest(intervals: tuple[Interval, ...]) -> Interval | None:
    """The shortest interval; None when all are frozen."""
    return min((interval for interval in intervals if interval.period_us), default=None)


def cut_of(times_us: NDArray[np.int64], warmup: float) -> int:
    """The time before which everything is warm-up: that of the impression at the fraction `warmup`.

    times_us: int64 [n], sorted.
    """
    check_warmup(warmup)
    return int(times_us[min(int(len(times_us) * warmup), len(times_us) - 1)])


def check_warmup(warmup: float) -> None:
    """SettingsError unless it is a fraction."""
    if not 0 < warmup < 1:
        raise SettingsError(
            f"--warmup {warmup} is not a fraction between 0 and 1", hint="for example `--warmup 0.6`", warmup=warmup
        )


def edges_of(cut_us: int, last_us: int, period_us: int) -> list[int]:
    """Ends of the periods that cover `[cut_us, last_us]`, aligned to UTC.

    >>> edges_of(cut_us=25, last_us=50, period_us=10)
    [30, 40, 50, 60]
    """
    first = end_of_period(cut_us, period_us)
    return list(range(first, last_us + period_us + 1, period_us))


def end_of_period(time_us: int, period_us: int) -> int:
    """The end of the period that `time_us` lies in.

    >>> end_of_period(25, 10), end_of_period(30, 10)
    (30, 40)
    """
    return (time_us // period_us + 1) * period_us
