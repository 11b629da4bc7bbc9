"""When rows that wait are learned: `[train] every_s`, `at`, `min_rows`. Pure functions of numbers.

Due is what one of them, at least, says; without any of them, whatever waits, at once:

    every_s    so long since the trainer last decided on rows (a version that trained or held some)
    at         a moment of a cron line (five fields, in `time_zone`) has passed since then
    min_rows   so many rows wait

They look at levels, not at edges: what came due while the trainer was down, or twice, is due once, and all that waits
then is learned. The first rows of a lineage are learned at once, so that something is served. So are the first after a
decision that lies in the future, as a clock that was set back since says: else they would wait for that time to come.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from headrace import clock
from headrace.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS: Final = 5


@dataclass(frozen=True)
class Triggers:
    """every_us, min_rows: None = not set; at: cron lines."""

    every_us: int | None = None
    at: tuple[str, ...] = ()
    min_rows: int | None = None
    time_zone: str = "UTC"

    def __bool__(self) -> bool:
        return self.every_us is not None or bool(self.at) or self.min_rows is not None


def due(triggers: Triggers, *, rows: int, decided_us: int | None, now_us: int) -> bool:
    """Whether `rows` waiting rows are to be learned. decided_us: when rows were decided on last; None = never.

    >>> hourly = Triggers(every_us=3_600_000_000)
    >>> [due(hourly, rows=9, decided_us=0, now_us=now_us) for now_us in (3_599_999_999, 3_600_000_000)]
    [False, True]
    """
    if not rows or not triggers or decided_us is None or decided_us > now_us:
        return rows > 0
    if triggers.min_rows is not None and rows >= triggers.min_rows:
        return True
    return any(moment_us <= now_us for moment_us, _ in _moments(triggers, decided_us))


def waits_for(triggers: Triggers, *, rows: int, decided_us: int | None, now_us: int) -> str:
    """What `rows` rows wait for, as text; empty if for nothing."""
    if not triggers or due(triggers, rows=rows, decided_us=decided_us, now_us=now_us) or decided_us is None:
        return ""
    said = [f"{triggers.min_rows:,} of them (train.min_rows)"] if triggers.min_rows is not None else []
    moments = sorted(_moments(triggers, decided_us))
    said += [f"{clock.iso(moment_us)} ({key})" for moment_us, key in moments[:1]]
    return f"{rows:,} rows wait for {' or for '.join(said)}; `headrace retrain` learns them now"


def check(triggers: Triggers) -> None:
    """SettingsError for a cron line that cannot be read, or that never fires."""
    from croniter import CroniterBadDateError, CroniterError, croniter

    for line in triggers.at:
        try:
            if len(line.split()) != FIELDS:
                raise CroniterError(f"it has {len(line.split())} fields, not {FIELDS}")
            if re.search(r"\br", line, re.IGNORECASE):
                raise CroniterError("R would be another moment each time")
            croniter(line, datetime(2024, 1, 1)).get_next()  # noqa: DTZ001  any day will do
        except CroniterBadDateError:
            raise SettingsError(
                f"[train] at = {line!r} never fires: there is no such day", hint="correct day and month", key="train.at"
            ) from None
        except (CroniterError, ValueError) as wrong:
            raise SettingsError(
                f"[train] at = {line!r} is no cron line: {wrong}",
                hint='minute, hour, day, month, weekday: at = "0 3 * * *" is every day at 03:00',
                key="train.at",
            ) from None


def _moments(triggers: Triggers, decided_us: int) -> Iterator[tuple[int, str]]:
    """The next moment after `decided_us` of each trigger that has moments, and its key."""
    if triggers.every_us is not None:
        yield decided_us + triggers.every_us, "train.every_s"
    if triggers.at:
        from croniter import croniter

        since = datetime.fromtimestamp(decided_us / clock.SECOND_US, ZoneInfo(triggers.time_zone))
        for line in triggers.at:
            moment: datetime = croniter(line, since).get_next(datetime)
            yield round(moment.timestamp() * clock.SECOND_US), "train.at"
