"""`headrace gc`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace import clock
from headrace.cli import options, resident, terminal
from headrace.errors import NotFound

if TYPE_CHECKING:
    from headrace.collector import Collector
    from headrace.store import Store


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "gc",
        epilog=terminal.examples(
            "headrace gc --dry-run            what would go now, and what keeps the rest",
            "headrace gc                      collect at once what [retention] lets go",
        ),
    )(gc)


def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say what would be.")] = False,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Collect what [retention] lets go, once.

    A running pipeline and trainer do so by themselves, once a minute; this is for a loop at rest, or to look.
    """
    from headrace.collector import ShardCollector, VersionCollector

    settings = options.load(config)
    loop = options.open_loop(settings)
    if not dry_run:
        for role in ("pipeline", "trainer"):
            resident.alone(loop, role, "it collects by itself; look with --dry-run")
    store = Counting(loop.store, really=not dry_run)
    counted = replace(loop, store=store)
    heads = [head.seq for log in (loop.version_log(), loop.shard_log()) if (head := log.head()) is not None]
    kinds = {"versions": VersionCollector, "shards": ShardCollector}
    oldest = {name: collect(kind(counted, settings), sum(heads), clock.now_us()) for name, kind in kinds.items()}
    folders = store.folders_of()
    if as_json:
        terminal.show_json({"dry_run": dry_run, "kept_from": oldest, "deleted": folders})
        return terminal.Code.OK
    if folders:
        rows = [(folder, f"{one['files']:,}", f"{one['bytes']:,}") for folder, one in folders.items()]
        terminal.show(terminal.table(rows, ("would go" if dry_run else "deleted", "files", "bytes")))
    else:
        terminal.show("nothing to collect: all that is there is named or may still be gone back to")
    for name, seq in oldest.items():
        word = "all (there is no record, or one cannot be read)" if seq is None else f"record {seq} on"
        terminal.show(f"kept of {name}: {word}")
    keeps = settings.retention
    terminal.say(
        f"[retention] rollback_s = {keeps.rollback_s:.15g}, versions_s = {keeps.versions_s:.15g} say what is kept"
    )
    return terminal.Code.OK


def collect(collector: Collector, records: int, now_us: int) -> int | None:
    """Passes until nothing is left to do; the oldest record that is kept, None if that could not be decided.

    records: of all logs that are read for it.
    """
    from headrace.collector import READ

    reading = records // READ + 3  # passes that may end before all is read
    listed = False
    while reading:
        done = collector.run(now_us, force=True)
        if done is None:
            reading -= 1
        elif listed and not done.records and not done.files:
            return done.from_seq
        listed = collector.settled() or listed
    return None


class Counting:
    """A store that counts what is deleted, and does not have it any more; `really`: and deletes it."""

    def __init__(self, store: Store, *, really: bool) -> None:
        self._store = store
        self._really = really
        self._gone: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, path: str) -> bytes:
        if path in self._gone:
            raise NotFound(f"{path} is collected", path=path)
        return self._store.read(path)

    def left_over(self, prefix: str) -> list[str]:
        return [path for path in self._store.left_over(prefix) if path not in self._gone]

    def list(self, prefix: str) -> list[str]:
        return [path for path in self._store.list(prefix) if path not in self._gone]

    def delete(self, path: str) -> None:
        place = self._store.path_of(path)
        if place is not None and place.exists():
            self._gone.setdefault(path, place.stat().st_size)
        elif place is None:
            self._gone.setdefault(path, 0)
        if self._really:
            self._store.delete(path)

    def folders_of(self) -> dict[str, dict[str, int]]:
        """By folder, how many files and bytes went."""
        found: dict[str, dict[str, int]] = {}
        for path, size in sorted(self._gone.items()):
            one = found.setdefault(path.rpartition("/")[0], {"files": 0, "bytes": 0})
            one["files"] += 1
            one["bytes"] += size
        return found
