"""Joins by sorting: each costs n log n whatever the ids are, so one id in a million events costs what a million do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["among", "distinct", "latest", "order_of", "starts"]


def starts(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a new tuple begins in columns that are sorted together; bool [n], True at 0.

    >>> starts(np.array([1, 1, 2]), np.array([5, 5, 5])).tolist()
    [True, False, True]
    """
    out = np.zeros(len(columns[0]), bool)
    out[:1] = True
    for column in columns:
        out[1:] |= column[1:] != column[:-1]
    return out


def distinct(values: NDArray[Any], *, least: int = 1) -> NDArray[Any]:
    """The values that occur at least `least` times (1 or 2), sorted.

    >>> distinct(np.array([3, 1, 3])).tolist(), distinct(np.array([3, 1, 3]), least=2).tolist()
    ([1, 3], [3])
    """
    values = np.sort(values)  # np.unique hashes first: four times slower
    if least > 1:
        values = values[~starts(values)]
    return values[starts(values)]


def order_of(values: NDArray[Any]) -> NDArray[np.int64]:
    """The stable order of values of which few are equal; four times as fast as a stable sort.

    >>> order_of(np.array([3, 1, 3, 1])).tolist()
    [1, 3, 0, 2]
    """
    order = np.argsort(values)
    found = values[order]
    again = ~starts(found)
    if again.any():
        again[:-1] |= again[1:]
        place = np.flatnonzero(again)
        order[place] = order[place][np.lexsort((order[place], found[place]))]
    return order


def among(rows: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Which rows (tuples across columns) stand among the others; bool [n].

    >>> among([np.array([1, 1, 2]), np.array([5, 6, 5])], [np.array([2, 1]), np.array([5, 6])]).tolist()
    [False, True, True]
    """
    count = len(others[0])
    columns = [np.concatenate(pair) for pair in zip(others, rows, strict=True)]
    order = np.lexsort(columns)
    group = np.cumsum(starts(*(column[order] for column in columns)))
    has = np.zeros(len(order) + 1, bool)
    has[group[order < count]] = True
    out = np.empty(len(order), bool)
    out[order] = has[group]
    return out[count:]


def latest(
    event: NDArray[np.uint64], ts: NDArray[np.int64], by_event: NDArray[np.uint64], by_ts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each of the second pair, the place of the last of the first with the same event and ts <= by_ts; -1: none.

    >>> latest(np.array([7, 7]), np.array([0, 10]), np.array([7, 7, 8]), np.array([9, 10, 9])).tolist()
    [0, 1, -1]
    """
    count = len(event)
    events = np.concatenate([event, by_event])
    order = np.lexsort((np.concatenate([ts, by_ts]), events))  # stable: at equal times the first pair comes first
    place = np.maximum.accumulate(np.where(order < count, np.arange(len(order)), -1))
    found = order[place]
    found[(place < 0) | (events[found] != events[order])] = -1
    out = np.empty(len(order), np.int64)
    out[order] = found
    return out[count:]
