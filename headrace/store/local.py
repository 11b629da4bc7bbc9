"""A store in a local folder that survives power cuts.

fsspec's local file system makes no fsync call and cannot create a file only if it is absent, so this one speaks to the
operating system itself.

`put_if_absent`, the commit of every log:

1. write a temporary file `.tmp-<name>-<nonce>-<n>` in the same folder, sync it. Dies here: a temporary file is left.
2. `link` it to its name; exactly one process can. Dies here: the record is visible, perhaps not durable; whoever builds
   on it syncs it first (`sync`).
3. sync the folder: now it is durable.
4. unlink the temporary name. Dies here: a temporary file is left.

`write`: the same with `rename` in place of 2 and 4. A folder is made with its parent synced; the first time this
process uses a folder that it finds, it syncs that folder's parent too, for its maker may have died before doing so.

A failure up to 2 raises `StoreFull` (no space, no permission, a disk that fails) and leaves nothing under the name; a
file system without hard links is refused. Where an error leaves open whether the name is there, or whether it would
survive a power cut (3), `Ambiguous` is raised: others may have read it by now.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from headrace import failpoints
from headrace.errors import Ambiguous, Exists, NotFound, StoreError, StoreFull, StoreRefused
from headrace.store.base import TEMPORARY, folder_of, is_temporary, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_REFUSALS = {
    errno.ENOSPC: "free space on this disk; nothing is lost, the stage goes on where it stopped",
    errno.EDQUOT: "raise the quota or free space; nothing is lost, the stage goes on where it stopped",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "give this user write permission on the folder",
    errno.EPERM: "give this user write permission on the folder",
    errno.EROFS: "the file system is mounted read-only; remount it or choose another loop.root",
    errno.EIO: "the disk reports an input/output error; look at the kernel log, then choose another loop.root",
}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Calls(Protocol):
    """The system calls that change a disk, as `os` has them; the crash test gives others."""

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int: ...
    def write(self, fd: int, data: Any, /) -> int: ...
    def fsync(self, fd: int) -> None: ...
    def close(self, fd: int) -> None: ...
    def link(self, src: Any, dst: Any) -> None: ...
    def replace(self, src: Any, dst: Any) -> None: ...
    def unlink(self, path: Any) -> None: ...
    def mkdir(self, path: Any, mode: int = 0o777) -> None: ...


class LocalStore:
    """`Store` in the folder `root`, which is made when first written to."""

    def __init__(self, root: Path, *, calls: Calls = os, failpoint: Callable[[str], None] = failpoints.hit) -> None:
        self._root = root.expanduser().absolute()
        self.url = str(self._root)
        self._calls = calls
        self._failpoint = failpoint
        self._nonce = secrets.token_hex(4)
        self._count = itertools.count()
        self._known: set[Path] = set()  # folders whose entry in their parent is durable

    def read(self, path: str) -> bytes:
        try:
            return self._final(path).read_bytes()
        except OSError as error:
            raise self._unreadable(path, error) from error

    def read_range(self, path: str, start: int, end: int) -> bytes:
        try:
            with self._final(path).open("rb") as file:
                file.seek(start)
                return file.read(max(end - start, 0))
        except OSError as error:
            raise self._unreadable(path, error) from error

    def write(self, path: str, data: bytes | memoryview) -> None:
        final = self._final(path)
        temporary = self._written(final, data)
        try:
            self._calls.replace(temporary, final)
            self._sync(final.parent)
        except OSError as error:  # no record names it yet, so it may go
            self._remove(temporary)
            self._remove(final)
            raise self._refused(final, error) from error

    def put_if_absent(self, path: str, data: bytes) -> None:
        final = self._final(path)
        temporary = self._written(final, data)
        try:
            self._calls.link(temporary, final)
            self._failpoint("log.after_link")
            self._sync(final.parent)
        except FileExistsError as error:
            raise Exists(f"{final} exists", path=path, store=self.url) from error
        except OSError as error:
            raise self._unclear(final, error) from error
        finally:
            self._remove(temporary)

    def left_over(self, prefix: str) -> list[str]:
        return sorted(path for path in self._found(prefix) if is_temporary(path))

    def folders(self, prefix: str) -> list[str]:
        _, folders, _ = next(os.walk(self._root / folder_of(prefix), onerror=self._unlistable), ("", [], []))
        return sorted(folders)

    def list(self, prefix: str) -> list[str]:
        return sorted(path for path in self._found(prefix) if not is_temporary(path))

    def size(self, prefix: str) -> int:
        total = 0
        for path in self._found(prefix):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                total += os.lstat(f"{self._root}/{path}").st_size
        return total

    def _found(self, prefix: str) -> Iterator[str]:
        root = str(self._root)
        for folder, _, names in os.walk(self._root / folder_of(prefix), onerror=self._unlistable):
            inside = folder[len(root) + 1 :].replace(os.sep, "/")
            yield from (f"{inside}/{name}" if inside else name for name in names)

    def delete(self, path: str) -> None:
        final = self._final(path)
        try:
            self._calls.unlink(final)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refused(final, error) from error

    def sync(self, path: str) -> None:
        final = self._final(path)
        try:
            self._sync(final)
            self._known_folder(final.parent)
            self._sync(final.parent)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def overwrite(self, path: str, data: bytes) -> None:
        final = self._final(path)
        temporary = self._written(final, data, durable=False)
        try:
            self._calls.replace(temporary, final)
        except OSError as error:
            self._remove(temporary)
            raise self._refused(final, error) from error

    def path_of(self, path: str) -> Path | None:
        return self._final(path)

    def _final(self, path: str) -> Path:
        return self._root / plain(path)

    def _written(self, final: Path, data: bytes | memoryview, *, durable: bool = True) -> Path:
        """Step 1: the temporary file beside `final`, whole and synced."""
        temporary = final.with_name(f"{TEMPORARY}{final.name}-{self._nonce}-{next(self._count)}")
        try:
            self._known_folder(final.parent)
            descriptor = self._calls.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                self._write_all(descriptor, data)
                if durable:
                    self._calls.fsync(descriptor)
            finally:
                self._calls.close(descriptor)
        except OSError as error:
            self._remove(temporary)
            raise self._refused(final, error) from error
        return temporary

    def _write_all(self, descriptor: int, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self._calls.write(descriptor, rest) :]

    def _known_folder(self, folder: Path) -> None:
        """Make `folder` where it is missing, and make its entry in its parent durable, up to the root and above."""
        if folder in self._known:
            return
        if folder == folder.parent or (folder.is_dir() and not folder.is_relative_to(self._root)):
            return
        self._known_folder(folder.parent)
        try:
            self._calls.mkdir(folder)
        except FileExistsError:
            with contextlib.suppress(PermissionError):  # the folder around the root may be another user's
                self._sync(folder.parent)
        else:
            self._sync(folder.parent)
        self._known.add(folder)

    def _sync(self, path: Path) -> None:
        descriptor = self._calls.open(path, os.O_RDONLY)
        try:
            self._calls.fsync(descriptor)
        finally:
            self._calls.close(descriptor)

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._calls.unlink(path)

    def _refused(self, final: Path, error: OSError) -> StoreError:
        kind = StoreFull if error.errno in _REFUSALS else StoreError
        hint = _REFUSALS.get(error.errno or 0, "was the folder removed or replaced while headrace ran?")
        return kind(f"cannot write {final}: {error.strerror}", hint=hint, path=str(final), store=self.url)

    def _unclear(self, final: Path, error: OSError) -> StoreError:
        if error.errno in _NO_LINKS:
            why = f"{final.parent} lies on a file system without hard links, which cannot keep a log"
            return StoreRefused(why, hint="put loop.root on a local disk (ext4, xfs, btrfs, apfs)", store=self.url)
        if error.errno in _REFUSALS.keys() - {errno.EIO} and not final.exists():
            return self._refused(final, error)
        return Ambiguous(f"cannot tell whether {final} was written: {error.strerror}", path=str(final), store=self.url)

    def _unreadable(self, path: str, error: OSError) -> StoreError:
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            return NotFound(f"{path} is not in {self.url}", path=path, store=self.url)
        hint = "give this user read permission" if error.errno == errno.EACCES else "look at the kernel log"
        return StoreError(f"cannot read {self._root / path}: {error.strerror}", hint=hint, path=path, store=self.url)

    def _unlistable(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise StoreError(f"cannot list {error.filename}: {error.strerror}", store=self.url) from error
