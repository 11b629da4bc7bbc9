"""Files and folders of events, on any fsspec URL; growing files and new files in a folder.

JSON lines and CSV, plain or in gzip or zstd; Parquet, Arrow IPC, Avro.

One partition, `files`. Position {"file": name, "offset": bytes or rows}, in name order; names are relative to the
folder. Names or folders that start with `.` or `_` are ignored.

    text       ends after its last complete line; an unterminated tail is read once a later file exists, or on drain
    others     exist once they are whole (`pipelines.sources.whole`); the offset is a row, or a byte of unpacked text
    identity   {"file", "size": as last seen, "hash": SHA-256 of its first min(4096, committed) bytes (of a file that
               is read as a whole: the first 4096), "passed": {name: size} of the files that this range left behind,
               "recent": of files left behind since the aside, "gone": [names in the aside that were deleted since]}
    aside      {name: size} of all files behind the cursor; new once `recent` and `gone` have more than 64 names

Together they name the files behind the cursor that still exist. A new, grown or shrunk one stops the partition; a
deleted one is fine. Of a local folder with more than 1000 files behind the cursor, a process asks for all their sizes
once, then for those of 1000 on every tick, in turn; their names are seen on every tick.

Rotation by renaming (app.log -> app.log.1) cannot be told from a replacement and is refused: write each file under its
final name, rising with time (app-2026-01-31T12.jsonl).
"""

from __future__ import annotations

import hashlib
import os
import stat
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.errors import SettingsError, SourceChanged, SourceError, SourceTruncated, SourceVanished
from pipelines.sources.arrow import ArrowFiles
from pipelines.sources.base import Block, Lines, Reach, Rows, Span
from pipelines.sources.lines import LineFiles
from pipelines.sources.packed import COMPRESSIONS, PackedLines
from pipelines.sources.parquet import ParquetFiles
from pipelines.sources.whole import NotWhole, unreadable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pipelines.sources.whole import WholeFiles

__all__ = ["FileSource", "format_of"]

PARTITION = "files"
TEXT = ("json", "csv")
HASH_BYTES = 4096
RECENT = 64
ASKED = 1000
NOTHING: Mapping[str, int] = {}
FORMATS = {
    **dict.fromkeys(["json", "jsonl", "ndjson"], "json"),
    "csv": "csv",
    **dict.fromkeys(["parquet", "pq"], "parquet"),
    **dict.fromkeys(["arrow", "arrows", "feather", "ipc"], "arrow"),
    "avro": "avro",
}


class FileSource:
    """A file, or all files of a folder, as one partition. `format`: a value of FORMATS, or "" = from the name."""

    def __init__(self, url: str, format: str = "") -> None:  # noqa: A002  (the word of the settings)
        self.url = url
        self.format = format
        self._turn: int | None = None
        self._readers: dict[str, LineFiles | WholeFiles] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return FileSource, (self.url, self.format)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        fs, path = fsspec.core.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        return fs, str(path)

    @cached_property
    def _folder(self) -> bool:
        fs, path = self._place
        return self.url.endswith("/") or fs.isdir(path)

    @cached_property
    def _kind(self) -> str:
        """What the text or the rows are; all files of a folder alike, each compressed or not as its name says."""
        _, path = self._place
        return self.format or format_of(next(iter(self._sizes()), path) if self._folder else path)

    def _files(self, name: str) -> LineFiles | WholeFiles:
        """What reads a file."""
        packed = COMPRESSIONS.get(_ending(name), "") if self._kind in TEXT else ""
        if packed not in self._readers:
            self._readers[packed] = self._opened(packed)
        return self._readers[packed]

    def _opened(self, packed: str) -> LineFiles | WholeFiles:
        fs, _ = self._place
        if self._kind == "avro":
            from pipelines.sources.avro import AvroFiles  # 60 ms that others need not wait for

            return AvroFiles(fs)
        if self._kind not in TEXT:
            return ArrowFiles(fs) if self._kind == "arrow" else ParquetFiles(fs)
        csv = self._kind == "csv"
        return PackedLines(fs, csv=csv, compression=packed) if packed else LineFiles(fs, csv=csv)

    def partitions(self) -> Sequence[str]:
        return [PARTITION]

    def first(self, partition: str) -> dict[str, Any]:  # noqa: ARG002  (there is one)
        return {"file": "", "offset": 0}

    def reach(
        self, partition: str, committed: Any, identity: Any, *, max_bytes: int, drain: bool, aside: Any = None
    ) -> Reach | None:
        """How far to read. See the module's docstring for what stops it."""
        del partition  # there is one
        past = _Past.of(identity, aside)
        try:
            sizes = self._sizes(self._believed(past.behind))
            self._check(sizes, committed, identity, past.behind)
            if not sizes:
                return Reach(committed, identity, 0, caught_up=True)
            return self._reach(sizes, committed, past.kept(sizes), max_bytes, drain=drain)
        except PermissionError as error:
            raise SourceError(
                f"{self.url} may not be read: {error}", hint="give this process the right to read it"
            ) from error
        except FileNotFoundError as error:
            raise self._vanished(str(error.filename or self.url)) from error
        except OSError:
            return None

    def spans(self, partition: str, start: Any, end: Any, identity: Any) -> list[Span]:  # noqa: ARG002
        passed = identity["passed"] if identity else {}
        spans: list[Span] = []
        for name in sorted(name for name in {*passed, end["file"]} if name):
            low = start["offset"] if name == start["file"] else 0
            high = end["offset"] if name == end["file"] else self._length(name, passed[name])
            spans += self._files(name).pieces(name, low, high)
        return spans

    def read(self, span: Span, columns: Collection[str] | None = None) -> Block:
        try:
            return self._files(span.file).read(self._path(span.file), span, columns)
        except FileNotFoundError as error:
            raise self._vanished(span.file) from error

    def whole(self, file: str) -> list[Span]:
        fs, _ = self._place
        files, path = self._files(file), self._path(file)
        try:
            size = int(fs.size(path))
            if isinstance(files, LineFiles):
                return files.pieces(file, 0, size)
            return files.pieces(file, 0, files.measured(path, size).units)
        except FileNotFoundError as error:
            raise self._vanished(file) from error
        except NotWhole as error:
            raise unreadable(path) from error

    def at(
        self, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None = None
    ) -> Lines | Rows:
        try:
            return self._files(file).at(self._path(file), file, offsets, raws, columns)
        except FileNotFoundError as error:
            raise self._vanished(file) from error

    def _length(self, name: str, size: int) -> int:
        try:
            return self._files(name).length(self._path(name), size)
        except FileNotFoundError as error:
            raise self._vanished(name) from error

    def _reach(self, sizes: dict[str, int], committed: Any, past: _Past, max_bytes: int, *, drain: bool) -> Reach:
        names = list(sizes)
        names = names[bisect_left(names, committed["file"]) :]
        passed: dict[str, int] = {}
        at, total, caught_up = committed, 0, True
        for name in names:
            start = committed["offset"] if name == committed["file"] else 0
            end = self._files(name).end(self._path(name), sizes[name], start, final=drain or name != names[-1])
            if end is None:
                break
            cut, size = self._files(name).cut(self._path(name), start, max(start, end), max_bytes - total)
            if at["file"] and at["file"] != name:
                passed[at["file"]] = sizes[at["file"]]
            at, total = {"file": name, "offset": cut}, total + size
            if cut < end or (total >= max_bytes and name != names[-1]):
                caught_up = False
                break
        name = at["file"]
        identity = {
            "file": name,
            "size": sizes[name] if name else 0,
            "hash": self._hash(name, at["offset"], sizes[name]) if name else "",
            "passed": passed,
            "recent": past.recent,
            "gone": past.gone,
        }
        return Reach(at, identity, total, caught_up, past.aside)

    def _check(self, sizes: dict[str, int], committed: Any, identity: Any, behind: dict[str, int]) -> None:
        """Raise unless what was committed is still what lies there."""
        name, offset = committed["file"], committed["offset"]
        if not identity or not name:
            return
        if name not in sizes:
            raise self._vanished(name)
        size, unit = sizes[name], self._files(name).unit
        whole = self._files(name).whole
        if size < (identity["size"] if whole else offset):
            raise SourceTruncated(
                f"{self._path(name)} has {size} bytes, but {identity['size'] if whole else offset} were read from it",
                hint="put the file back as it was; write new events under a new name instead of truncating",
                file=name,
                committed=offset,
            )
        if (whole and size != identity["size"]) or self._hash(name, offset, size) != identity["hash"]:
            raise SourceChanged(
                f"{self._path(name)} is another file than the one that was read up to {unit} {offset}",
                hint="rotation by renaming and rewriting in place are refused: put the file back, and write each new"
                " file under its final name, rising with time",
                file=name,
                committed=offset,
            )
        self._check_behind(sizes, name, behind)

    def _check_behind(self, sizes: dict[str, int], cursor: str, behind: dict[str, int]) -> None:
        for name, size in sizes.items():
            if name >= cursor:
                return
            if behind.get(name) != size:
                what = "grew or shrank" if name in behind else "appeared"
                raise SourceChanged(
                    f"{self._path(name)} {what} behind the cursor ({cursor}): its events would never be read",
                    hint="give new files names that sort after the ones already read, and append only to the last one",
                    file=name,
                    cursor=cursor,
                )

    def _vanished(self, name: str) -> SourceVanished:
        return SourceVanished(
            f"{self._path(name) if name not in self.url else self.url} is not there",
            hint="check `source` in the settings; if the file was moved or rotated by renaming, put it back: files may"
            " be deleted only once a later file is being read",
            file=name,
        )

    def _believed(self, behind: dict[str, int]) -> dict[str, int]:
        """The files behind the cursor whose turn to be asked for their size it is not."""
        if self._turn is None or len(behind) <= ASKED:
            self._turn = 0
            return {}
        believed, names = dict(behind), list(behind)
        start = self._turn % len(names)
        for name in names[start : start + ASKED]:
            del believed[name]
        self._turn = start + ASKED
        return believed

    def _sizes(self, believed: Mapping[str, int] = NOTHING) -> dict[str, int]:
        """Name -> size, in name order. `believed`: sizes that need not be asked for."""
        fs, path = self._place
        if not self._folder:
            return {PurePosixPath(path).name: int(fs.size(path))}
        if not fs.isdir(path):
            raise FileNotFoundError(2, "no such folder", self.url)
        found = _listed_locally(path, believed) if isinstance(fs, LocalFileSystem) else _listed(fs, path)
        return {name: found[name] for name in sorted(found)}

    def _path(self, name: str) -> str:
        _, path = self._place
        return f"{path.rstrip('/')}/{name}" if self._folder else path

    def _hash(self, name: str, offset: int, size: int) -> str:
        fs, _ = self._place
        length = min(HASH_BYTES, self._files(name).identity_bytes(offset, size))
        return hashlib.sha256(fs.cat_file(self._path(name), 0, length) if length else b"").hexdigest()


@dataclass(frozen=True)
class _Past:
    """The files behind a cursor: what identity and aside say together, and how to say it next time."""

    behind: dict[str, int]
    recent: dict[str, int]
    gone: list[str]
    aside: dict[str, int] | None = None

    @classmethod
    def of(cls, identity: Any, aside: Any) -> _Past:
        said = identity or {"recent": {}, "passed": {}, "gone": []}
        recent = {**said["recent"], **said["passed"]}
        behind = {**(aside or {}), **recent}
        for name in said["gone"]:
            behind.pop(name, None)
        return cls(behind, recent, said["gone"])

    def kept(self, sizes: Mapping[str, int]) -> _Past:
        """Without what was deleted."""
        recent = {name: size for name, size in self.recent.items() if name in sizes}
        gone = sorted({*self.gone, *(self.behind.keys() - self.recent.keys() - sizes.keys())})
        if len(recent) + len(gone) <= RECENT:
            return _Past(self.behind, recent, gone)
        behind = {name: size for name, size in self.behind.items() if name in sizes}
        return _Past(behind, {}, [], behind)


def _listed(fs: Any, path: str) -> dict[str, int]:
    start = len(path.rstrip("/")) + 1
    names = {full[start:]: info for full, info in fs.find(path, detail=True).items()}
    return {name: int(info["size"]) for name, info in names.items() if not _hidden(name)}


def _listed_locally(path: str, believed: Mapping[str, int]) -> dict[str, int]:
    """The same in less time: a folder may hold all files of a year, and is listed on every tick."""
    found: dict[str, int] = {}
    folders = [(path, "")]
    for folder, prefix in folders:
        for name in os.listdir(folder):  # noqa: PTH208  (half the time)
            place = prefix + name
            size = believed.get(place)
            if size is not None:
                found[place] = size
            elif name[0] not in "._":
                full = f"{folder}/{name}"
                try:
                    about = os.stat(full)  # noqa: PTH116  (the same)
                except FileNotFoundError:
                    continue  # deleted meanwhile, or a link to nowhere
                if not stat.S_ISDIR(about.st_mode):
                    found[place] = about.st_size
                elif not os.path.islink(full):  # noqa: PTH114
                    folders.append((full, f"{place}/"))
    return found


def _hidden(name: str) -> bool:
    return name.startswith((".", "_")) or "/." in name or "/_" in name


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lstrip(".").lower()


def format_of(name: str) -> str:
    """Format by the ending of a file's name, without that of its compression.

    >>> format_of("logs/clicks.ndjson"), format_of("clicks.csv.gz"), format_of("clicks.feather")
    ('json', 'csv', 'arrow')
    """
    ending = _ending(name)
    if ending in COMPRESSIONS:
        ending = _ending(PurePosixPath(name).stem)
    if ending not in FORMATS or (ending != _ending(name) and FORMATS[ending] not in TEXT):
        raise SettingsError(
            f"the format of {name} cannot be told from its name",
            hint='set `format` of the stream to "json" (lines), "csv", "parquet", "arrow" or "avro"; lines may be'
            " compressed (.jsonl.gz, .csv.zst), the others compress by themselves",
            name=name,
        )
    return FORMATS[ending]
