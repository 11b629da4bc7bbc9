"""Why a loop learns nothing at the moment, in one line. Pure: a function of what `headrace.cli.status.state_of` says.

The first that holds, from the sources on; "" where nothing is in the way:

1. a stage does not run, gives no sign, or says a problem of its own
2. rows wait: the trainer loads, or no trigger is due, or its newest decision was to hold them, or windows are not
   closed yet
3. no rows wait: a tenth of what a partition had came too late, one holds the watermark back, or nothing new came
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from headrace import clock
from headrace.triggers import waits_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.config.sections import TrainSettings

QUIET_S: Final = 10.0  # without a new shard record, or without a row, before it is worth a word

LATE: Final = 0.1  # of the events of a partition

RUN: Final = {"pipeline": "headrace pipeline run", "trainer": "headrace train --watch"}


def reason(state: Mapping[str, Any], *, now_us: int, train: TrainSettings) -> str:
    """train: what the settings say of when rows are learned."""
    shards = state["shards"]
    if shards is None or not state["waiting_rows"]:
        return _missing(state, "pipeline") or _quiet(state, now_us)
    return _missing(state, "trainer") or _triggers(state, train, now_us) or _held(state) or _windows(state, train.on)


def _missing(state: Mapping[str, Any], role: str) -> str:
    """What keeps a stage from its work."""
    mine = [process for process in state["processes"] if process["role"] == role]
    living = [process for process in mine if process["living"]]
    if living:
        problem = next((process["info"]["problem"] for process in living if process["info"].get("problem")), "")
        return f"{role}: {problem}" if problem else ""
    silent = next((process for process in mine if process.get("silent")), None)
    if silent is not None:
        return (
            f"the {role} (process {silent['pid']}) gives no sign since {clock.iso(silent['at_us'])}: is it stopped, or "
            "the disk full? `headrace doctor` looks"
        )
    waiting = f"{state['waiting_rows']:,} rows wait, and " if state["waiting_rows"] else ""
    return _supervised(state, role, waiting) or f"{waiting}no {role} runs: `headrace up`, or `{RUN[role]}`"


def _supervised(state: Mapping[str, Any], role: str, waiting: str) -> str:
    """What a living `headrace up` says of a child that gives no sign; "" where it has none."""
    ups = (process for process in state["processes"] if process["role"] == "up" and process["living"])
    child = next((up["info"]["children"][role] for up in ups if role in up["info"].get("children", {})), None)
    if child is None:
        return ""
    told = (words for words in child["last_words"] if words.startswith(("error:", "fix:")))
    error = "; ".join(words.removeprefix("error: ") for words in told) or f"see {child['log']}"
    return {
        "running": f"the {role} loads its libraries (10 to 30 s)" + _again(child),
        "pausing": f"{waiting}the {role} died and is started again: {error}",
        "failed": f"{waiting}the {role} failed: {error}; then start `headrace up` again",
    }.get(child["state"], "")


def _again(child: Mapping[str, Any]) -> str:
    """Of one that does not start for the first time."""
    if not child.get("restarts"):
        return ""
    return f", after {child['restarts']} restarts; the last exit code is {child['exit_code']}: see {child['log']}"


def _held(state: Mapping[str, Any]) -> str:
    versions = state["versions"]
    if versions is None or versions["kind"] != "hold":
        return ""
    why = "; ".join(versions["reasons"]) or "see `headrace versions show`"
    return f"version {versions['head']} held what it was to learn: {why}"


def _triggers(state: Mapping[str, Any], train: TrainSettings, now_us: int) -> str:
    decided_us = state["versions"].get("decided_us") if state["versions"] else None
    return waits_for(train.triggers, rows=state["waiting_rows"], decided_us=decided_us, now_us=now_us)


def _windows(state: Mapping[str, Any], on: str) -> str:
    if on != "window":
        return ""
    return f"windows are learned once closed; closed up to {clock.iso(state['shards']['closed_us'])}"


def not_whole(file: str) -> str:
    """Of the last file of a source, which may be being written."""
    return f"{file} is not whole: it is waited for until it is, or a later file is there"


def _quiet(state: Mapping[str, Any], now_us: int) -> str:
    """The pipeline lives and no row waits: what it waits for."""
    shards = state["shards"]
    pipelines = (
        process["info"] for process in state["processes"] if process["role"] == "pipeline" and process["living"]
    )
    awaited = "".join(
        f"; {not_whole(file)}" for info in pipelines for file in sorted({*info.get("awaited", {}).values()})
    )
    if not shards:
        return f"no event was read yet{awaited}"
    for name, counts in shards["events"].items():
        late = counts.get("late", 0)
        if late > LATE * counts["read"]:
            passed = f"{late:,} of {counts['read']:,} events of {name} came after the watermark had passed them"
            return f"{passed}: see disorder_s and lateness_s of [pipeline]"
    since_us = shards["committed_at_us"]
    if now_us - since_us >= QUIET_S * clock.SECOND_US:
        return f"shard log has nothing new since {clock.iso(since_us)}{awaited}"
    behind = held_by(shards["clocks"])
    if behind is None:
        return ""
    since = f"since {clock.iso(behind[1])}" if behind[1] else "which has had no event yet"
    return f"watermark held by {behind[0]} {since}"


def held_by(clocks: Sequence[Mapping[str, Any]]) -> tuple[str, int] | None:
    """(partition, its watermark in us) of the one that holds the others back by `QUIET_S` or more; None = none does.

    clocks: [{"partition", "watermark_us", "idle"}]; an idle partition holds nobody back.
    """
    awake = sorted((one["watermark_us"], one["partition"]) for one in clocks if not one["idle"])
    if len(awake) < 2 or awake[-1][0] - awake[0][0] < QUIET_S * clock.SECOND_US:
        return None
    return awake[0][1], awake[0][0]
