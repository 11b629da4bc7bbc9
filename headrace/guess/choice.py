"""Which of the other columns become features, and of what kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from headrace.features import NAME, SHARD_COLUMNS
from headrace.guess.columns import TIME_NAME, Column, values_of
from headrace.place import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.guess.roles import Roles

FEW: Final = 50  # texts that make a category
MANY: Final = 1_000  # integers that make an open vocabulary
OUTCOME_AUC: Final = 0.9
FLAGS: Final = 10  # values of a column that may be a flag of the outcome
NUMBER_NAME: Final = re.compile(
    r"price|amount|count|age|distance|minutes|seconds|duration|score|size|length|width|height|rank|position|_(s|ms|h)$",
    re.IGNORECASE,
)
ID_NAME: Final = re.compile(
    r"(^|_)(id|code|no|num|number|sku|zip|user|item|product|author|creator|customer|member|account|device|session"
    r"|merchant|seller|shop|store|campaign|ad|query|video|song|article|post|page|machine|topic)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Choice:
    """One line of [features], or why a column is not one. `line` is the table after `name =`."""

    name: str
    line: str = ""
    comment: str = ""
    left_out: str = ""


def choose(columns: Mapping[str, Column], roles: Roles) -> list[Choice]:
    """Every column without a role, in order, then the hour and the weekday of the impression."""
    taken = {c.name for c in (roles.id, roles.time, roles.feedback_time, roles.label, roles.kind) if c is not None}
    found: list[Choice] = []
    names: set[str] = set()
    for column in columns.values():
        if column.name in taken:
            continue
        choice = _choose(column, roles)
        if choice.line and choice.name in names:
            choice = Choice(column.name, left_out=f"'{choice.name}' is another column")
        found.append(choice)
        names.add(choice.name)
    zone = ', time_zone = "UTC"'
    parts = [
        Choice(part, f'{{ kind = "time", part = "{part}"{zone} }}', "set your users' zone")
        for part in ("hour", "weekday")
        if part not in names
    ]
    return [*found, *parts]


def _choose(column: Column, roles: Roles) -> Choice:
    reason = _left_out(column, roles)
    if reason:
        return Choice(column.name, left_out=reason)
    kind, rest, comment = _kind(column)
    name, place = column.name, ""
    if not NAME.fullmatch(name) or name in SHARD_COLUMNS:
        name = _legal(name)
        place = quoted(place_of(column.path)) if column.nested else quoted(column.name)
        place = f", {'path' if column.nested else 'column'} = {place}"
    return Choice(name, f'{{ kind = "{kind}"{place}{rest} }}', comment)


def _left_out(column: Column, roles: Roles) -> str:
    if column.what == "empty" or column.distinct < 2:
        return "the same in every event"
    if column.what == "nested":
        return 'objects whose fields cannot be named by path = "a.b"'
    if column.what == "time":
        return "another time"
    if TIME_NAME.search(column.word) and column.what == "text":
        return "another time"
    if roles.outcome is not None and column.what != "list" and _is_outcome(column, roles.outcome):
        return "tells the label almost alone: an outcome?"
    if column.what == "text" and column.distinct > 0.9 * len(column.values) and column.distinct > FEW:
        return "differs in every event"
    return ""


def _kind(column: Column) -> tuple[str, str, str]:
    """Kind, further settings, comment."""
    values = f"{column.distinct:,} values"
    if column.what == "list":
        lengths = pc.list_value_length(column.values.drop_null()).to_numpy(zero_copy_only=False)
        most = max(4, int(np.quantile(lengths, 0.99)) if len(lengths) else 4)
        return "ids", f", max = {most}", "the first of each list"
    if column.what == "boolean":
        return "category", "", "true or false"
    if column.what == "text":
        return ("category", "", values) if column.distinct <= FEW else ("id", "", values)
    if column.what == "integer" and not NUMBER_NAME.search(column.name):
        if ID_NAME.search(column.name.replace(".", "_")) or column.distinct > MANY:
            return "id", "", values
        if column.distinct <= FEW // 2:
            return "category", "", values
    return ("number", ', transform = "log1p"', "skewed") if _skewed(column) else ("number", "", "")


def _skewed(column: Column) -> bool:
    numbers = column.numbers[np.isfinite(column.numbers)]
    return bool(numbers.min() >= 0 and numbers.max() > 50 * max(float(np.median(numbers)), 1e-9))


def _is_outcome(column: Column, label: Column) -> bool:
    known = np.isfinite(label.numbers)
    y = label.numbers[known]
    share = float(y.mean())
    if column.what != "text":  # known only for events that went well is an outcome too
        missing = y[~column.present[known]]
        if _separates(column.numbers[known], y) or _settles(missing, share):
            return True
    flags = values_of(column) if column.distinct <= FLAGS else []
    return any(_settles(y[column.equal(value)[known]], share) for value in flags)


def _separates(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> bool:
    """Whether the order of the numbers is nearly the order of the labels."""
    present = np.isfinite(x)
    x, y = x[present], y[present]
    return 0 < y.sum() < len(y) and abs(auc(x, y) - 0.5) > OUTCOME_AUC - 0.5


def _settles(y: npt.NDArray[np.float64], share: float) -> bool:
    """Whether the labels that go with one value are all equal, and that is not chance: p^n < 1e-6."""
    if not len(y) or y.min() < y.max():
        return False
    p = share if y[0] else 1 - share
    return bool(len(y) * np.log(max(p, 1e-12)) < np.log(1e-6))


def auc(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Probability that x of a positive exceeds x of a negative, ties half: (R+ - n+ (n+ + 1) / 2) / (n+ n-).

    >>> auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.875
    """
    _values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = y > 0
    n, m = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def _legal(name: str) -> str:
    word = re.sub(r"[^A-Za-z0-9_]", "_", name)[:60].strip("_") or "column"
    return word if NAME.fullmatch(word) and word not in SHARD_COLUMNS else f"my_{word}"


def quoted(text: str) -> str:
    """A TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
