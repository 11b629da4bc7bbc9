"""A loop's state (`headrace.cli.status.state_of`) for people: what `status`, `status --watch` and `up` show.

On a terminal the table is drawn again in place; elsewhere a line is printed whenever a line says something new.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace import clock
from headrace.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = tuple[str, str]
Tell = Callable[[str, str], None]

STATES = {
    "waiting": "starts when the first trained version is served",
    "running": "running",
    "pausing": "DIED",
    "failed": "FAILED",
    "ended": "stopped",
}


def rows_of(state: Mapping[str, Any]) -> list[Row]:
    """(what, how it stands) of each line."""
    rows: list[Row] = []
    if state.get("problem"):
        return [("loop", state["loop"]), ("PROBLEM", state["problem"]["message"]), ("fix", state["problem"]["hint"])]
    rows.append(("loop", f"{state['loop']}  {state['root']}"))
    rows += _events(state)
    rows += _shards(state)
    rows += _versions(state)
    if state["reason"]:
        rows.append(("why", state["reason"]))
    rows += _served(state)
    rows += _children(state["children"]) if "children" in state else _processes(state["processes"])
    return rows


def headlines(state: Mapping[str, Any]) -> dict[str, str]:
    """The lines worth printing when they change, by a name that stays: no ages, no counts that move every second."""
    lines: dict[str, str] = {}
    versions = state.get("versions")
    if versions and versions["kind"] != "start":
        lines["version"] = f"version {versions['head']}: {versions['kind']}{_against(versions['evaluation'])}"
        if versions.get("rolled_back"):
            lines["went back"] = _went_back(versions["rolled_back"])
    for process in state.get("processes", ()):
        info = process["info"]
        if process["role"] == "server" and process["living"] and info.get("version") is not None:
            lines["served"] = f"server on {info['address']} answers from version {info['version']}"
            if info.get("problem"):
                lines["stalled"] = f"server: PROBLEM: {info['problem']}"
    for role, child in state.get("children", {}).items():
        again = f" ({child['restarts']} restarts)" if child["restarts"] else ""
        lines[role] = f"{role} {STATES[child['state']]}{again}"
        for number, words in enumerate(child["last_words"]):
            lines[f"{role} {number}"] = f"    {words}"
    if state.get("problem"):
        lines["problem"] = f"PROBLEM: {state['problem']['message']}"
    if state.get("reason"):
        lines["reason"] = state["reason"]
    return lines


def screen(tell: Tell | None = None) -> Callable[[Mapping[str, Any] | None], None]:
    """Shows a state; None ends the showing. tell: says what has changed, and how it stands; default: prints that."""
    if tell is None and sys.stderr.isatty():
        return _Drawn().show
    return _Printed(tell or (lambda _, line: terminal.say(line))).show


class _Printed:
    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told: dict[str, str] = {}

    def show(self, state: Mapping[str, Any] | None) -> None:
        lines = headlines(state) if state is not None else {}
        for name, line in lines.items():
            if self._told.get(name) != line:
                self._tell(name, line)
        self._told.update(lines)


class _Drawn:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)
        self._live.start()

    def show(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            self._live.stop()
            return
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows_of(state):
            bad = any(word in name + text for word in ("PROBLEM", "DIED", "FAILED"))
            table.add_row(name, Text(text, style="red" if bad else ""))
        self._live.update(table, refresh=True)


def _events(state: Mapping[str, Any]) -> list[Row]:
    shards = state["shards"]
    if shards is None:
        return []
    rows = []
    for partition, counts in sorted(shards["events"].items()):
        known = "  ".join(f"{name} {count:,}" for name, count in counts.items() if count)
        rows.append((partition, known or "nothing read yet"))
    return rows


def _shards(state: Mapping[str, Any]) -> list[Row]:
    shards = state["shards"]
    if shards is None:
        return [("shards", "none yet: `headrace pipeline run` reads the sources")]
    rows = state["waiting_rows"]
    behind = f"; {rows:,} rows not trained yet" if rows else ""
    return [("shards", f"record {shards['head']}, events up to {_time(shards['watermark_us'])}{behind}")]


def _versions(state: Mapping[str, Any]) -> list[Row]:
    versions = state["versions"]
    if versions is None:
        return [("versions", "none yet: `headrace train` learns from shards")]
    reach = f", events up to {_time(versions['watermark_us'])}"
    rows = [("versions", f"{versions['head']} ({versions['kind']}){reach}{_against(versions['evaluation'])}")]
    if state["freshness_s"] is not None:
        said = f"{clock.duration(state['freshness_s'])} since the newest event that version {versions['served']} knows"
        rows.append(("freshness", said))
    back = versions.get("rolled_back")
    if back:
        rows.append(("went back", _went_back(back)))
    if versions.get("held"):
        rows.append(("held", f"{versions['held']:,} shard records: `headrace versions show {versions['head']}`"))
    return rows


def _went_back(back: Mapping[str, Any]) -> str:
    return f"version {back['version']} went back to {back['to']} by itself: {back['reason']}"


def _against(evaluation: Mapping[str, Any]) -> str:
    live, frozen = evaluation.get("live", {}).get("log_loss"), evaluation.get("frozen", {}).get("log_loss")
    if live is None:
        return ""
    return f"  log-loss live {live:.4f}" + (f", frozen {frozen:.4f}" if frozen is not None else "")


def _served(state: Mapping[str, Any]) -> list[Row]:
    """What each server answers from, beside what it should, and why."""
    rows = []
    wanted = state["versions"]["served"] if state["versions"] else None
    for process in state["processes"]:
        info = process["info"]
        if process["role"] != "server" or not process["living"]:
            continue
        version = info.get("version")
        serves = "nothing yet" if version is None else f"version {version}"
        beside = f" of {wanted}" if wanted is not None and version != wanted else ""
        age = info.get("age_s")
        fresh = f", {clock.duration(age)} behind now" if age is not None else ""
        rows.append(("served", f"{serves}{beside} on {info['address']}{fresh}"))
        if info.get("problem"):
            rows.append(("", f"PROBLEM: {info['problem']}"))
    return rows


def _processes(processes: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Who runs, seen from outside: by heartbeats, and by what a living `headrace up` says of those that give none."""
    ups = (
        process["info"].get("children", {}) for process in processes if process["role"] == "up" and process["living"]
    )
    down = {
        role: child for children in ups for role, child in children.items() if child["state"] in ("pausing", "failed")
    }
    rows = []
    for process in processes:
        word = "running" if process["living"] else "silent" if process.get("silent") else "gone"
        who = f"{process['host']} process {process['pid']}, last sign {_time(process['at_us'])}"
        if process["living"] or process["role"] not in down:
            rows.append((process["role"], f"{word}  {who}"))
    return [*rows, *_children(down)] or [("running", "nothing")]


def _children(children: Mapping[str, Any]) -> list[Row]:
    rows = []
    for role, child in children.items():
        text = STATES[child["state"]]
        if child["state"] == "pausing":
            text += f" (exit code {child['exit_code']}), again in {clock.duration(child['resume_s'])}"
        if child["state"] == "failed":
            text += f" (exit code {child['exit_code']}): mend it, then start `headrace up` again"
        if child["restarts"]:
            text += f"; {child['restarts']} restarts"
        rows.append((role, f"{text}  {child['log']}"))
        rows += [("", words) for words in child["last_words"]]
    return rows


def _time(time_us: int | None) -> str:
    return clock.iso(time_us) if time_us else "-"
