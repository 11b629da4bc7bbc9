"""Object stores through fsspec: `s3://bucket/path`, `gs://bucket/path`, …

An object appears whole or not at all and is durable once the store has answered, so `write` is one put. What must be
proved is that a second create of a name fails: s3fs before mid-2025 overwrote small files silently, and not every
S3-compatible store knows `If-None-Match`. So a store is probed when it is opened: create a name, create it again, the
second must say that it exists. A reader without permission to write passes; it is probed when it first commits.

Answers to a create: done, exists (412), or anything else (409, 5xx, timeouts, lost connections): `Ambiguous`; the log
reads back and decides. fsspec's caches of listings and of file system objects are off: with them, a name that another
process has just created is not seen.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import fsspec

from headrace.errors import Ambiguous, Exists, NotFound, StoreError, StoreFull, StoreRefused
from headrace.store.base import TEMPORARY, folder_of, is_temporary, plain

if TYPE_CHECKING:
    from pathlib import Path

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def open_remote(url: str, **options: Any) -> RemoteStore:
    """The object store at `url`, probed. `options` go to fsspec (endpoints; credentials come from the environment)."""
    scheme = url.partition("://")[0]
    try:
        files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(scheme)
        hint = f"pip install 'headrace[{extra}]'" if extra else "use a folder, s3://bucket/path or gs://bucket/path"
        raise StoreRefused(f"cannot open {url}: {error}", hint=hint, store=url) from error
    store = RemoteStore(url.rstrip("/"), files, root.rstrip("/"))
    store.probe("")
    return store


class RemoteStore:
    """`Store` on the fsspec file system `files`, below `root`."""

    def __init__(self, url: str, files: Any, root: str) -> None:
        self.url = url
        self._files = files
        self._root = root
        self._proved = False

    def probe(self, folder: str) -> None:
        """Prove that a second create fails. `StoreRefused`; without permission to write nothing is proved."""
        path = f"{folder}/{TEMPORARY}probe-{secrets.token_hex(8)}".lstrip("/")
        try:
            self._create(path, b"first")
        except StoreFull:
            return
        except Exists as error:
            raise self._refused("it says that a new name exists") from error
        try:
            self._create(path, b"second")
        except Exists:
            self._proved = True
        else:
            raise self._refused("a second create of a name succeeded")
        finally:
            self.delete(path)

    def read(self, path: str) -> bytes:
        return self._bytes(path)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return self._bytes(path, start=start, end=max(end, start + 1))[: max(end - start, 0)]

    def write(self, path: str, data: bytes | memoryview) -> None:
        key = self._key(path)
        try:
            self._files.pipe_file(key, bytes(data))
        except Exception as error:
            raise self._unwritten(path, error) from error

    def put_if_absent(self, path: str, data: bytes) -> None:
        if not self._proved:
            self.probe(plain(path).rpartition("/")[0])
        self._create(path, data)

    def left_over(self, prefix: str) -> list[str]:
        return sorted(path for path in self._found(prefix) if is_temporary(path))

    def folders(self, prefix: str) -> list[str]:
        start = f"{folder_of(prefix)}/" if prefix else ""
        return sorted({path[len(start) :].split("/")[0] for path in self._found(prefix) if "/" in path[len(start) :]})

    def list(self, prefix: str) -> list[str]:
        return sorted(path for path in self._found(prefix) if not is_temporary(path))

    def size(self, prefix: str) -> int:
        return sum(self._found(prefix).values())

    def _found(self, prefix: str) -> dict[str, int]:
        """Path and size of every object below `prefix`."""
        folder = folder_of(prefix)
        start = f"{self._root}/"
        try:
            found = self._files.find(f"{self._root}/{folder}" if folder else self._root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StoreError(f"cannot list {self.url}/{folder}: {error}", store=self.url) from error
        mine = {key: about for key, about in found.items() if key.startswith(start)}
        return {key.removeprefix(start): int(about.get("size") or 0) for key, about in mine.items()}

    def delete(self, path: str) -> None:
        key = self._key(path)
        try:
            self._files.rm_file(key)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unwritten(path, error) from error

    def sync(self, path: str) -> None:
        self._bytes(path, start=0, end=1)

    def overwrite(self, path: str, data: bytes) -> None:
        self.write(path, data)

    def path_of(self, path: str) -> Path | None:
        plain(path)
        return None

    def _key(self, path: str) -> str:
        return f"{self._root}/{plain(path)}"

    def _bytes(self, path: str, **bounds: int) -> bytes:
        key = self._key(path)
        try:
            return bytes(self._files.cat_file(key, **bounds))
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not in {self.url}", path=path, store=self.url) from error
        except Exception as error:
            if _answer_of(error) in {"InvalidRange", "416"}:  # starts behind the end
                return b""
            raise StoreError(f"cannot read {path} from {self.url}: {error}", path=path, store=self.url) from error

    def _create(self, path: str, data: bytes) -> None:
        key = self._key(path)
        try:
            self._files.pipe_file(key, data, mode="create")
        except FileExistsError as error:
            raise Exists(f"{path} exists in {self.url}", path=path, store=self.url) from error
        except (NotImplementedError, TypeError, ValueError) as error:
            raise self._refused(str(error)) from error
        except (PermissionError, FileNotFoundError) as error:
            raise self._unwritten(path, error) from error
        except Exception as error:
            if _answer_of(error) in {"PreconditionFailed", "412"}:
                raise Exists(f"{path} exists in {self.url}", path=path, store=self.url) from error
            hint = "is the store up? what was tried is settled when it answers again"
            raise Ambiguous(f"no clear answer for {path}: {error}", hint=hint, path=path, store=self.url) from error

    def _refused(self, why: str) -> StoreRefused:
        hint = "use a store that knows conditional puts (If-None-Match): AWS S3, Google Cloud Storage, recent MinIO"
        return StoreRefused(f"{self.url} cannot keep a log: {why}", hint=hint, store=self.url)

    def _unwritten(self, path: str, error: Exception) -> StoreError:
        kind, hint = StoreError, "is the store up, and does the bucket exist?"
        if isinstance(error, PermissionError):
            kind, hint = StoreFull, "give these credentials permission to write below this prefix"
        return kind(f"cannot write {path} to {self.url}: {error}", hint=hint, path=path, store=self.url)


def _answer_of(error: Exception) -> str:
    """The store's own error code, from botocore's answer behind an fsspec error; `""` where there is none."""
    response = getattr(error.__cause__ or error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
