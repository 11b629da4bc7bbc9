from __future__ import annotations

import itertools

import pytest
from handmade import Publisher

from headrace.store import open_store

_names = itertools.count()


@pytest.fixture
def store():
    return open_store(f"memory://paramserver-{next(_names)}")


@pytest.fixture
def publisher(store):
    return Publisher(store)
