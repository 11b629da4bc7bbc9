"""Where logs and files live: one root, six verbs, one module for each kind of store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from headrace.errors import StoreRefused
from headrace.store.base import Store

__all__ = ["Store", "open_store"]


def open_store(url: str) -> Store:
    """The store at `url`: a folder (`./loop`, `file:///x`), `memory://name`, `s3://bucket/path`, `gs://bucket/path`.

    Object stores are probed first; one that cannot refuse a second create raises `StoreRefused`.
    """
    if "::" in url or not url.strip():
        raise StoreRefused(f"{url!r} is not the address of a store", hint='try loop.root = "./loop"', store=url)
    scheme, separator, rest = url.partition("://")
    if not separator:
        from headrace.store.local import LocalStore

        return LocalStore(Path(url))
    if scheme == "file":
        from headrace.store.local import LocalStore

        return LocalStore(Path(unquote(urlsplit(url).path)))
    if scheme == "memory":
        from headrace.store.memory import MemoryStore

        return MemoryStore(rest.strip("/"))
    from headrace.store.remote import open_remote

    return open_remote(url)
