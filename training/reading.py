"""Records one after the other, the next one read while this one is learned.

Reading (file, hash check, Parquet, dictionaries) is a seventh of a record's time and leaves the interpreter to others;
learning leaves a core idle now and then. At most two records are in memory, however many a candidate has.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Name = TypeVar("Name")
Read = TypeVar("Read")


def ahead(names: Iterable[Name], read: Callable[[Name], Read]) -> Iterator[Read]:
    """`read(name)` of each name, in order. What `read` raises is raised where its result would have been given.

    >>> list(ahead([1, 2, 3], lambda n: n * n))
    [1, 4, 9]
    """
    with ThreadPoolExecutor(1, thread_name_prefix="headrace-reader") as reader:
        waiting = iter(names)
        futures = [reader.submit(read, name) for name in islice(waiting, 1)]
        while futures:
            result = futures.pop().result()
            futures += [reader.submit(read, name) for name in islice(waiting, 1)]
            yield result
