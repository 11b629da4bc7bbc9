"""Folders or files that are read side by side: `{p}` in a source stands for the name of a partition.

    logs/{p}/            a folder per partition, such as one per host that writes
    logs/{p}.jsonl       a file per partition
    logs/host={p}/x.csv  any part of one name

For writers that work side by side, not for days: a folder `logs/` with `day=…/` in it is read in name order as it is,
and its old files may be deleted, while a partition that vanishes stops the loop.
Each partition is a source of its own, with its own cursor and watermark, so its files need no order among others'.
Names that start with `.` or `_` are ignored; a new name is a new partition, which joins at the watermark of the loop.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import fsspec

from headrace.config.sections import MARK
from headrace.errors import SettingsError, SourceError, SourceVanished
from pipelines.sources.files import FileSource

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pipelines.sources.base import Block, Lines, Reach, Rows, Source, Span

__all__ = ["PatternSource", "source_of"]

INNER = "files"


def source_of(url: str, format: str = "") -> Source:  # noqa: A002  (the word of the settings)
    """The source that a URL of the settings names."""
    return PatternSource(url, format) if MARK in url else FileSource(url, format)


class PatternSource:
    """Partitions by name. SettingsError where `{p}` stands more than once."""

    def __init__(self, url: str, format: str = "") -> None:  # noqa: A002  (the word of the settings)
        if url.count(MARK) != 1:
            raise SettingsError(
                f"source = {url!r} has {MARK} {url.count(MARK)} times",
                hint=f"{MARK} stands for the one part of a path that names the partition: logs/{MARK}/",
            )
        self.url = url
        self.format = format
        self._sources: dict[str, FileSource] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return PatternSource, (self.url, self.format)

    @cached_property
    def _names(self) -> tuple[str, str, str]:
        """(folder that is listed, what names begin with, what they end with)."""
        before, after = self.url.split(MARK)
        folder, _, prefix = before.rpartition("/")
        return folder or ("/" if before.startswith("/") else "."), prefix, after.partition("/")[0]

    def partitions(self) -> Sequence[str]:
        folder, prefix, suffix = self._names
        fs, path = fsspec.core.url_to_fs(folder, use_listings_cache=False, skip_instance_cache=True)
        try:
            there = fs.ls(path, detail=False) if fs.isdir(path) else None
        except PermissionError as error:
            raise SourceError(
                f"{folder} may not be listed: {error}", hint="give this process the right to read it"
            ) from error
        except OSError:
            return sorted(self._sources)  # an outage: those that are known say so themselves
        if there is None:
            raise SourceVanished(
                f"there is no folder {folder}", hint="correct `source`, or make the folder", path=folder
            )
        names = [str(full).rstrip("/").rpartition("/")[2] for full in there]
        fits = [name for name in names if name[0] not in "._" and name.startswith(prefix) and name.endswith(suffix)]
        cut = len(prefix), len(suffix)
        found = [name[cut[0] : len(name) - cut[1]] for name in fits if len(name) > sum(cut)]
        return sorted(name for name in found if name in self._sources or self._there(fs, name))

    def _there(self, fs: Any, name: str) -> bool:
        """Whether what the pattern means is there: a folder, or a file; a stray file beside folders is neither."""
        _, path = fsspec.core.url_to_fs(self.url.replace(MARK, name))
        return bool(fs.isdir(path) if self.url.endswith("/") else fs.exists(path))

    def first(self, partition: str) -> dict[str, Any]:
        return self._of(partition).first(INNER)

    def reach(
        self, partition: str, committed: Any, identity: Any, *, max_bytes: int, drain: bool, aside: Any = None
    ) -> Reach | None:
        source = self._of(partition)
        return source.reach(INNER, committed, identity, max_bytes=max_bytes, drain=drain, aside=aside)

    def spans(self, partition: str, start: Any, end: Any, identity: Any) -> list[Span]:
        pieces = self._of(partition).spans(INNER, start, end, identity)
        return [replace(piece, file=f"{partition}/{piece.file}") for piece in pieces]

    def read(self, span: Span, columns: Collection[str] | None = None) -> Block:
        partition, _, file = span.file.partition("/")
        block = self._of(partition).read(replace(span, file=file), columns)
        return replace(block, file=span.file)

    def rest(self, file: str, start: int) -> list[Span]:
        partition, _, inner = file.partition("/")
        return [replace(piece, file=f"{partition}/{piece.file}") for piece in self._of(partition).rest(inner, start)]

    def at(
        self, file: str, offsets: Sequence[int], raws: Mapping[int, bytes], columns: Collection[str] | None = None
    ) -> Lines | Rows:
        partition, _, inner = file.partition("/")
        return replace(self._of(partition).at(inner, offsets, raws, columns), file=file)

    def _of(self, partition: str) -> FileSource:
        if partition not in self._sources:
            self._sources[partition] = FileSource(self.url.replace(MARK, partition), self.format)
        return self._sources[partition]
