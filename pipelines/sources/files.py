"""Files and folders of events, on any fsspec URL; growing files and new files in a folder.

JSON lines and CSV, plain or in gzip or zstd; Parquet, Arrow IPC, Avro.

One partition, `files`. Position {"file": name, "offset": bytes or rows}, in name order; names are relative to the
folder. Names or folders that start with `.` or `_` are ignored.

    text       ends after its last complete line; an unterminated tail is read once a later file exists, or on drain
    others     are read as far as they are whole (`pipelines.sources.whole`); the offset is a row, or a byte of
               unpacked text. A torn end is refused as one event, once a later file exists, or on drain, or when no
               bytes can make it whole: the position has "torn", the size of the file at that time. When the file is
               completed, reading goes on from there; so it does behind a gap (`pipelines.sources.pieces`), which is
               refused as one event, unless that was done while it was torn
    identity   {"file", "size": as last seen, "whole": bytes that will never change (of text, those committed), "hash":
               SHA-256 of the first min(4096, whole), "gaps": true, since older records left what lies behind a gap
               unread, "passed": {name: size} of the files that this range left behind,
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
from bisect import bisect_left
from functools import cached_property
from pathlib import PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.errors import SettingsError, SourceChanged, SourceError, SourceTruncated, SourceVanished
from pipelines.sources.arrow import ArrowFiles
from pipelines.sources.base import Block, Extent, Gap, Lines, Reach, Rows, Span
from pipelines.sources.lines import LineFiles
from pipelines.sources.listing import sizes_below
from pipelines.sources.members import COMPRESSIONS
from pipelines.sources.packed import PackedLines
from pipelines.sources.parquet import ParquetFiles
from pipelines.sources.past import Past

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pipelines.sources.whole import WholeFiles

__all__ = ["FileSource", "format_of"]

PARTITION = "files"
TEXT = ("json", "csv")
HASH_BYTES = 4096
ASKED = 1000
NOTHING: Mapping[str, int] = {}
FORMATS = {
    **dict.fromkeys(["json", "jsonl", "ndjson"], "json"),
    **dict.fromkeys(["csv", "tsv"], "csv"),
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
        past = Past.of(identity, aside)
        try:
            sizes = self._sizes(self._believed(past.behind))
            self._check(sizes, committed, identity, past.behind)
            if not sizes:
                return Reach(committed, identity, 0, caught_up=True)
            return self._reach(sizes, committed, identity, past.kept(sizes), max_bytes, drain=drain)
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
            low, refused = (start["offset"], start.get("torn")) if name == start["file"] else (0, None)
            if name == end["file"]:
                high, torn, size = end["offset"], end.get("torn"), identity["size"]
            else:
                size = passed[name]
                left = self._left(name, size, over_gaps=identity.get("gaps", False))
                high, torn = left.units, size if left.torn else None
                if left.hopeless and low == high and refused is not None:
                    continue
            gaps = self._gaps(name, size, high)
            spans += self._files(name).pieces(name, low, high, gaps)
            new = [gap for gap in gaps if gap.unit >= low and gap.start >= (refused or 0)]
            spans += [Span(name, gap.unit, gap.unit, low, high, gap=gap) for gap in new]
            if torn is not None and torn != refused:
                spans.append(Span(name, high, high, low, high, torn))
        return spans

    def read(self, span: Span, columns: Collection[str] | None = None) -> Block:
        try:
            return self._files(span.file).read(self._path(span.file), span, columns)
        except FileNotFoundError as error:
            raise self._vanished(span.file) from error

    def rest(self, file: str, start: int) -> list[Span]:
        fs, _ = self._place
        files, path = self._files(file), self._path(file)
        try:
            extent = files.extent(path, int(fs.size(path)))
        except FileNotFoundError as error:
            raise self._vanished(file) from error
        gaps = self._gaps(file, int(fs.size(path)), extent.units)
        if extent.torn or any(gap.unit >= start for gap in gaps):
            raise SourceError(f"{path} cannot be read to its end", hint="write it anew under a later name", path=path)
        return files.pieces(file, start, extent.units, gaps)

    def at(
        self, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None = None
    ) -> Lines | Rows:
        try:
            return self._files(file).at(self._path(file), file, offsets, raws, columns)
        except FileNotFoundError as error:
            raise self._vanished(file) from error

    def _left(self, name: str, size: int, *, over_gaps: bool = True) -> Extent:
        """What could be read of a file that was left behind at that size."""
        try:
            return self._files(name).extent(self._path(name), size, over_gaps=over_gaps)
        except FileNotFoundError as error:
            raise self._vanished(name) from error

    def _gaps(self, name: str, size: int, end: int) -> list[Gap]:
        try:
            return self._files(name).gaps(self._path(name), size, end)
        except FileNotFoundError as error:
            raise self._vanished(name) from error

    def _reach(
        self, sizes: dict[str, int], committed: Any, said: Any, past: Past, max_bytes: int, *, drain: bool
    ) -> Reach:
        names = list(sizes)
        names = names[bisect_left(names, committed["file"]) :]
        passed: dict[str, int] = {}
        at, total, caught_up, awaited = committed, 0, True, ""
        for name in names:
            before: dict[str, Any] = committed if name == committed["file"] else {"file": name, "offset": 0}
            final = drain or name != names[-1]
            extent = self._files(name).end(self._path(name), sizes[name], before["offset"], final=final)
            if extent is None:
                awaited = name
                break
            if at["file"] and at["file"] != name:
                passed[at["file"]] = sizes[at["file"]]
            at, size = self._cut(before, extent, sizes[name], max_bytes - total)
            total += size
            if at["offset"] < extent.units or (total >= max_bytes and name != names[-1]):
                caught_up = False
                break
        seen = said if said and "whole" in said and at == committed else self._seen(at, sizes)
        about = {key: seen[key] for key in ("file", "size", "whole", "hash")}
        identity = {**about, "gaps": True, "passed": passed, "recent": past.recent, "gone": past.gone}
        return Reach(at, identity, total, caught_up, past.aside, awaited)

    def _seen(self, at: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
        """What the identity says of the file of a position."""
        name = at["file"]
        if not name:
            return {"file": "", "size": 0, "whole": 0, "hash": ""}
        whole = self._files(name).whole_bytes(self._path(name), at["offset"], sizes[name])
        return {"file": name, "size": sizes[name], "whole": whole, "hash": self._hash(name, whole)}

    def _cut(self, before: dict[str, Any], extent: Extent, size: int, max_bytes: int) -> tuple[dict[str, Any], int]:
        """How far to read in the file of a position, and about how many bytes that is."""
        name, start = before["file"], before["offset"]
        end = max(start, extent.units)
        cut, bytes_read = self._files(name).cut(self._path(name), size, start, end, max_bytes)
        known = "torn" in before and cut == start and (extent.hopeless or before["torn"] == size)
        if extent.torn and cut == end and not known:
            return {"file": name, "offset": cut, "torn": size}, bytes_read + 1
        return (before if cut == start else {"file": name, "offset": cut}), bytes_read

    def _check(self, sizes: dict[str, int], committed: Any, identity: Any, behind: dict[str, int]) -> None:
        """Raise unless what was committed is still what lies there."""
        name, offset = committed["file"], committed["offset"]
        if not identity or not name:
            return
        if name not in sizes:
            raise self._vanished(name)
        size, reader = sizes[name], self._files(name)
        whole = identity.get("whole", identity["size"] if reader.whole else offset)  # older records do not say it
        if size < whole:
            raise SourceTruncated(
                f"{self._path(name)} has {size} bytes, but {whole} were read from it",
                hint="put the file back as it was; write new events under a new name instead of truncating",
                file=name,
                committed=offset,
            )
        may_grow = "torn" in committed or size == identity["size"] or reader.grows(self._path(name))
        if not may_grow or self._hash(name, whole) != identity["hash"]:
            raise SourceChanged(
                f"{self._path(name)} is another file than the one that was read up to {reader.unit} {offset}",
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
                raise self._changed_behind(name, cursor, behind.get(name), size)

    def _changed_behind(self, name: str, cursor: str, before: int | None, size: int) -> SourceChanged:
        place, later = self._path(name), self._path(_later(name, cursor))
        what = "appeared" if before is None else "grew" if size > before else "shrank"
        if before is not None and size > before and self._left(name, before).torn:
            what = (
                f"was not whole when it was left behind with {before} bytes, so what could not be read of it is in"
                f" quarantine (broken_file); now it has {size}, but lies"
            )
        if what == "shrank":
            hint = f"put it back as it was ({before} bytes), or delete it: it has been read"
        else:
            local = isinstance(self._place[0], LocalFileSystem)
            move = f"`mv -n {quote(place)} {quote(later)}`" if local else f"move it to {later}"
            hint = (
                f"once nothing is written to {cursor} any more, give it a name that sorts after that: {move}. It is"
                " read from its beginning then, and events of it that were read before count as duplicates or late."
                " Write new files under names that sort after those already read"
            )
        return SourceChanged(
            f"{place} {what} behind the cursor ({cursor})"
            + (": its events would never be read" if what != "shrank" else ""),
            hint=hint,
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
        found = sizes_below(fs, path, believed)
        return {name: found[name] for name in sorted(found)}

    def _path(self, name: str) -> str:
        _, path = self._place
        return f"{path.rstrip('/')}/{name}" if self._folder else path

    def _hash(self, name: str, whole: int) -> str:
        fs, _ = self._place
        length = min(HASH_BYTES, whole)
        return hashlib.sha256(fs.cat_file(self._path(name), 0, length) if length else b"").hexdigest()


def _later(name: str, cursor: str) -> str:
    """A name for a file that sorts after that of the cursor, and before those of a later time.

    >>> _later("b.csv.gz", "day=2/app.2026-01-31.csv.gz")
    'day=2/app.2026-01-31_b.csv.gz'
    """
    stem = cursor
    while _ending(stem) in (*FORMATS, *COMPRESSIONS):
        stem = stem.removesuffix(PurePosixPath(stem).suffix)
    return f"{stem}_{PurePosixPath(name).name}"


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
