"""`headrace log verify`."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import options, terminal
from headrace.errors import DamagedFile, HeadraceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.log import Entry, Log
    from headrace.loop import Loop
    from headrace.store.base import Store

NAME = "log"
group = typer.Typer(help="The logs that everything follows from.", no_args_is_help=True, rich_markup_mode=None)


@group.callback()
def _keep_as_group() -> None: ...


@dataclass
class Verified:
    """What was found in one log."""

    log: str
    first: int | None = None
    head: int | None = None
    records: int = 0
    files: int = 0
    bytes: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)


@group.command("verify", epilog=terminal.examples("headrace log verify", "headrace log verify --deep --json"))
def verify(
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Also hash every file that a record names.")] = False,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Check every record's hash, its link to its parent and its sums. Exit code 4 if anything is damaged."""
    loop = options.open_loop(options.load(config))
    found = [verify_log(loop.store, log, deep=deep) for log in logs_of(loop)]
    problems = [problem for one in found for problem in one.problems]
    if as_json:
        terminal.show_json({"logs": [asdict(one) for one in found], "ok": not problems})
    else:
        rows = [
            (one.log, one.first if one.records else "-", one.head if one.records else "-", one.records, one.files)
            for one in found
        ]
        terminal.show(terminal.table(rows, ("log", "first", "head", "records", "files checked")))
        for problem in problems:
            terminal.show(f"DAMAGED  {problem['message']}")
            terminal.show(f"    fix: {problem['hint'] or 'restore the file from a copy'}")
        terminal.show("damaged" if problems else "all good" if deep else "all records good; --deep checks files too")
    return terminal.Code.UNHEALTHY if problems else terminal.Code.OK


def logs_of(loop: Loop) -> Iterator[Log]:
    """Every log under the root."""
    from headrace.log import Log

    yield loop.shard_log()
    models = sorted({path.split("/")[1] for path in loop.store.list("models")})
    for model in models or ["default"]:
        yield loop.version_log(model)
    yield Log(loop.store, "requests/log")


def verify_log(store: Store, log: Log, *, deep: bool) -> Verified:
    """Reads a log from its first retained record to its head."""
    found = Verified(log.prefix)
    seqs = log.seqs()
    if not seqs:
        return found
    found.first, found.head = seqs[0], seqs[-1]
    known: set[str] = set()
    before: Entry | None = None
    for seq in range(seqs[0], seqs[-1] + 1):
        try:
            entry = log.read(seq)
            _verify_record(log, entry, before)
            before = entry
            found.records += 1
        except HeadraceError as error:
            found.problems.append(error.to_json())
            before = None
            continue
        for path, sha256 in _files(entry.body) if deep else ():
            if path not in known:
                known.add(path)
                _verify_file(store, path, sha256, seq, found)
    return found


def _verify_record(log: Log, entry: Entry, before: Entry | None) -> None:
    from headrace.shard import BLANK, KIND, ShardRecord

    if before is not None and entry.parent != before.sha256:
        raise DamagedFile(
            f"record {entry.seq} of {log.prefix} does not continue record {before.seq}",
            hint="restore the folder from a copy; do not edit files under the root",
            log=log.prefix,
            seq=entry.seq,
        )
    if entry.kind == KIND:
        record = ShardRecord.from_entry(entry)
        roles = {part.stream: "impression" if part.stream == "impression" else "feedback" for part in record.ranges}
        record.check(ShardRecord.from_entry(before) if before else BLANK, roles)


def _files(body: Any) -> Iterator[tuple[str, str]]:
    """Every `{"path", "sha256"}` in a record."""
    if isinstance(body, dict):
        if isinstance(body.get("path"), str) and isinstance(body.get("sha256"), str):
            yield body["path"], body["sha256"]
        for value in body.values():
            yield from _files(value)
    elif isinstance(body, list | tuple):
        for value in body:
            yield from _files(value)


def _verify_file(store: Store, path: str, sha256: str, seq: int, found: Verified) -> None:
    try:
        data = store.read(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedFile(
                f"{path}, named by record {seq}, does not have the hash that the record says",
                hint="restore the file from a copy; do not edit files under the root",
                path=path,
            )
    except HeadraceError as error:
        found.problems.append(error.to_json())
        return
    found.files += 1
    found.bytes += len(data)
