from __future__ import annotations

import threading

import pytest

from training.reading import ahead


def test_the_next_one_is_read_while_this_one_is_used_and_no_more() -> None:
    begun: list[int] = []
    second = threading.Event()

    def read(name: int) -> int:
        begun.append(name)
        if name == 1:
            second.set()
        return name

    stream = ahead(range(5), read)
    assert next(stream) == 0
    assert second.wait(10)
    assert begun == [0, 1]
    assert list(stream) == [1, 2, 3, 4]


def test_an_error_comes_in_its_place() -> None:
    def read(name: int) -> int:
        if name == 2:
            raise OSError("gone")
        return name

    stream = ahead(range(4), read)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_nothing_to_read() -> None:
    assert list(ahead([], str)) == []
