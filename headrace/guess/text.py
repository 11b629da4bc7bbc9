"""The settings file as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import numpy as np

from headrace.clock import duration
from headrace.errors import SettingsError
from headrace.guess.choice import Choice, choose, quoted
from headrace.guess.columns import Column, look_at
from headrace.guess.roles import Roles, delays_s, find_roles, nice_s
from headrace.place import place_of

if TYPE_CHECKING:
    import pyarrow as pa

LINES: Final = 40

TEMPLATE: Final = """\
# Settings of headrace. Change what follows, then: headrace config check
[loop]
name = "feed"
root = "./loop"                         # shards, versions and parameters go here; a folder, s3:// or gs://
prior = 0.05                            # what is answered before anything is learned

[streams.impression]                    # what was shown or must be scored
source = "events/impressions.jsonl"     # a file or a folder of files: JSON lines, CSV, Parquet, …
id = "request_id"                       # joins an impression and its feedback
time = "shown_at"
time_unit = "ms"                        # "s", "ms", "us", "ns" or "iso" (2013-01-01T05:15:00Z)

[streams.click]                         # what labels it
source = "events/clicks.jsonl"
id = "request_id"
time = "clicked_at"
time_unit = "ms"

[label]
mode = "implicit"                       # no feedback within wait_s = negative
wait_s = 30
attribution_s = 1800                    # later feedback corrects the label, up to here

# [serve]                               # uncomment to change the defaults
# port = 8500
# [train]
# on = "pane"                           # a version per shard record; "window": per closed window

[features]                              # id, category, number, bucket, time, ids, cross
user = { kind = "id" }
item = { kind = "id" }
price = { kind = "number", transform = "log1p" }
hour = { kind = "time", part = "hour", time_zone = "UTC" }
user_x_item = { kind = "cross", of = ["user", "item"] }
"""


NAMELESS: Final = "a column without a name is left out: settings cannot name it"
_OTHERS: Final = [
    "# [serve]                               # uncomment to change the defaults",
    "# port = 8500",
    "# [train]",
    '# on = "pane"                           # a version per shard record; "window": per closed window',
    "",
]


@dataclass(frozen=True)
class Guess:
    """The text of a headrace.toml, and what a person should look at first."""

    text: str
    notes: tuple[str, ...]


def guess(sample: pa.Table, source: str) -> Guess:
    """Settings for events like those of `sample`, which come from `source`. SettingsError if a role has no column."""
    if not sample.num_rows:
        raise SettingsError(f"{source} has no events to look at", hint="`headrace init` without --from", source=source)
    found = look_at(sample)
    columns = {name: column for name, column in found.items() if all(part.strip() for part in column.path)}
    roles = find_roles(columns)
    choices = choose(columns, roles)
    head = [*_loop(source, roles), *_streams(source, roles), *_label(roles), *_OTHERS]
    text = "\n".join([*head, *_features(choices, LINES - len(head))]) + "\n"
    return Guess(text, (*_notes(choices, roles), *([NAMELESS] if len(columns) < len(found) else [])))


def _loop(source: str, roles: Roles) -> list[str]:
    return [
        f"# Guessed from {PurePath(source).name}: read every line.   headrace config check",
        "[loop]",
        f'name = "{_name(source)}"',
        _said('root = "./loop"', "shards, versions and parameters go here"),
        _said(f"prior = {_prior(roles):g}", "what is answered before anything is learned"),
        "",
    ]


def _streams(source: str, roles: Roles) -> list[str]:
    feedback = roles.done if roles.kind is not None and roles.done.isidentifier() else "feedback"
    return [
        *_stream("impression", source, roles, roles.time, roles.shown),
        *_stream("feedback" if feedback == "impression" else feedback, source, roles, roles.feedback_time, roles.done),
    ]


def _stream(name: str, source: str, roles: Roles, time: Column, value: str) -> list[str]:
    lines = [f"[streams.{name}]", f"source = {quoted(source)}"]
    if roles.kind is not None:
        kind = roles.kind
        place = ".".join(map(_key, kind.path)) if kind.nested else _key(place_of(kind.path))
        lines.append(f"where = {{ {place} = {quoted(value)} }}")
    lines += [f"id = {_place(roles.id)}", f"time = {_place(time)}"]
    if time.time_unit is not None:
        lines.append(f'time_unit = "{time.time_unit}"')
    if time.naive:
        lines.append(_said('time_zone = "UTC"', "the times do not say theirs"))
    if name != "impression" and roles.label is not None:
        lines.append(f"label = {_place(roles.label)}")
    return [*lines, ""]


def _label(roles: Roles) -> list[str]:
    delays = delays_s(roles)
    longest = nice_s(1.5 * float(delays.max())) if len(delays) else 1_800
    seen = f"the slowest took {duration(float(delays.max()))} here" if len(delays) else "no feedback in the sample"
    if roles.explicit:
        return ["[label]", 'mode = "explicit"', _said(f"attribution_s = {longest}", seen), ""]
    wait = min(nice_s(float(np.quantile(delays, 0.95))), longest) if len(delays) else 30
    return [
        "[label]",
        _said('mode = "implicit"', "no feedback within wait_s = negative"),
        _said(f"wait_s = {wait}", "19 of 20 came by then" if len(delays) else seen),
        _said(f"attribution_s = {longest}", seen),
        "",
    ]


def _features(choices: list[Choice], room: int) -> list[str]:
    used = [choice for choice in choices if choice.line]
    reasons: dict[str, list[str]] = {}
    for choice in choices:
        if choice.left_out:
            reasons.setdefault(choice.left_out, []).append(choice.name)
    outs = [f"# left out, {reason}: {_some(names)}" for reason, names in reasons.items()]
    if len(used) > room - 1 - len(outs):
        fit = max(1, room - 2 - len(outs))
        outs.append(f"# left out for brevity: {_some([choice.name for choice in used[fit:]])}")
        used = used[:fit]
    lines = [_said(f"{choice.name} = {choice.line}", choice.comment) for choice in used]
    return ["[features]", *lines, *outs]


def _some(names: list[str]) -> str:
    shown = [name.replace("\n", " ") for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _notes(choices: list[Choice], roles: Roles) -> list[str]:
    notes = [f"{choice.name} is left out: {choice.left_out}" for choice in choices if "outcome" in choice.left_out]
    if roles.feedback_time is roles.time and roles.explicit:
        notes.append(f"no time of the label was found: labels count as known at '{roles.time.name}' itself")
    if roles.time.naive:
        notes.append(f"'{roles.time.name}' has no time zone: UTC is assumed")
    return notes


def _prior(roles: Roles) -> float:
    """Share of positives, within (0, 1)."""
    if roles.outcome is not None:
        share = float(np.nanmean(roles.outcome.numbers))
    else:
        assert roles.kind is not None
        share = roles.kind.equal(roles.done).sum() / max(1, int(roles.kind.equal(roles.shown).sum()))
    return float(f"{min(max(share, 0.001), 0.999):.2g}")


def _name(source: str) -> str:
    word = "".join(c if c.isascii() and c.isalnum() else "-" for c in PurePath(source.rstrip("/")).stem).strip("-")
    return word[:32] or "loop"


def _said(line: str, comment: str) -> str:
    return f"{line:<38}  # {comment}" if comment else line


def _place(column: Column) -> str:
    """The place of a column in [streams]: of one whose name has a dot, in so many words."""
    place = place_of(column.path)
    return quoted(place) if column.nested or place == column.name else f"{{ column = {quoted(column.name)} }}"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else quoted(name)
