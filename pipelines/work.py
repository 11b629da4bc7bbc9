"""What a worker does, without Beam: read one order, join one part. `pipelines.job` wires these two into a pipeline.

`read` yields (part, table) for every part that a piece has events for, and its report to every part. `join` takes all
tables of one part and writes, in this order, each step durable before the next:

1. everything is read and joined, nothing written               failpoint pipeline.read
2. the shard file of the part                                    failpoint pipeline.shards_written
3. its runs, side by side, and its quarantine file               failpoint pipeline.state_written
4. the result file, which the driver reads and deletes: it need not be durable

A process that dies between them leaves files of a number that no record names. Tables carry their kind in the schema
metadata `headrace`: {"kind": "impression" | "feedback" | "report" | "order", "number": n}; events also what all rows of
a table have in common, {"partition": number, "file": name}.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace import failpoints
from headrace.quarantine import COLUMNS as QUARANTINE
from headrace.quarantine import write_quarantine
from headrace.shard import Quarantine, arrange, write_shard
from headrace.store import Store, open_store
from pipelines.events import Limits, Parsed, places
from pipelines.join import JoinResult, join_part
from pipelines.orders import PartOrder, PartResult, ReadOrder, Report, Setup, watermark_after
from pipelines.parse import parse
from pipelines.runs import NewRun, RunFiles, RunMeta, event_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pipelines.sources.base import Span

__all__ = ["join", "order_table", "read", "result_path", "run_files", "store_at"]

EVENT_FIELDS = [("_id", pa.string()), ("_ts", pa.int64()), ("_offset", pa.int64())]


@lru_cache(maxsize=4)
def store_at(url: str) -> Store:
    """One open store per process and URL."""
    return open_store(url)


@lru_cache(maxsize=4)
def run_files(url: str) -> RunFiles:
    """The runs that this process has opened."""
    return RunFiles(store_at(url))


@cache
def writers() -> ThreadPoolExecutor:
    """Threads that wait for the disk; they start no work of their own."""
    return ThreadPoolExecutor(8, thread_name_prefix="writers")


def read(setup: Setup, order: ReadOrder, pool: ThreadPoolExecutor) -> Iterator[tuple[int, pa.Table]]:
    """Read, parse and encode the pieces of an order on the pool; (part, table) in the order of the pieces."""
    parsed = []
    for number, (one, tables) in enumerate(pool.map(lambda span: _read_span(setup, order, span), order.spans)):
        parsed.append(one)
        for part, table in tables:
            place = {"partition": order.index, "file": order.spans[number].file}
            yield part, _marked(table, setup.streams[order.stream].role, order.number + number, **place)
    report = _report(setup, order, parsed)
    for part in range(setup.parts):
        yield part, _marked(pa.table({"json": [json.dumps(asdict(report))]}), "report", order.number)


def join(setup: Setup, tables: Iterable[pa.Table]) -> str:
    """Join all tables of one part and write what comes of it; the path of the result file."""
    order, reports, impressions, feedback = _sorted(setup, tables)
    watermark_us = watermark_after(order, reports, setup.horizon)
    result = join_part(
        [RunMeta.from_json(meta) for meta in order.runs],
        run_files(setup.store_url),
        impressions,
        feedback,
        before_us=order.before_us,
        watermark_us=watermark_us,
        policy=setup.policy,
    )
    failpoints.hit("pipeline.read")
    return _write(setup, order, reports, watermark_us, result)


def order_table(order: PartOrder) -> tuple[int, pa.Table]:
    """A PartOrder as the element that travels to its part."""
    return order.part, _marked(pa.table({"json": [json.dumps(order.to_json())]}), "order", 0)


def result_path(order: PartOrder) -> str:
    return order.tick.path("state", f"{order.part}-result", "json")


def _read_span(setup: Setup, order: ReadOrder, span: Span) -> tuple[Parsed, list[tuple[int, pa.Table]]]:
    stream = setup.streams[order.stream]
    limits = Limits(setup.record_bytes, order.tick.now_us + setup.future_us)
    parsed = parse(stream, limits, setup.sources[order.stream].read(span, stream.columns))
    tables = [_encoded(setup, order.stream, events) for events in parsed.events]
    if not tables:
        return parsed, []
    table = pa.concat_tables(tables).combine_chunks()
    return parsed, list(_split(table, setup.parts))


def _encoded(setup: Setup, stream: str, events: pa.Table) -> pa.Table:
    """Accepted raw events -> _id, _ts, _offset and encoded features, or _label."""
    head = events.select(["_id", "_ts", "_offset"])
    if setup.streams[stream].role == "feedback":
        return head.append_column("_label", events["_label"])
    raw = {name: events[name].combine_chunks() for name in events.column_names if not name.startswith("_")}
    features = setup.schema.encode_features(raw)
    return pa.table([*head.columns, *features.columns], schema=pa.schema([*head.schema, *features.schema]))


def _split(table: pa.Table, parts: int) -> Iterator[tuple[int, pa.Table]]:
    """Rows by part, in their order: part = Fingerprint64(event id) mod parts."""
    if parts == 1:
        yield 0, table
        return
    part = (event_keys(table["_id"]) % np.uint64(parts)).astype(np.min_scalar_type(parts))
    order = np.argsort(part, kind="stable")  # of one or two bytes: radix
    bounds = np.searchsorted(part[order], np.arange(parts + 1))
    for number in range(parts):
        if bounds[number] < bounds[number + 1]:
            yield number, table.take(pa.array(order[bounds[number] : bounds[number + 1]]))


def _report(setup: Setup, order: ReadOrder, parsed: Sequence[Parsed]) -> Report:
    newest = [int(np.max(table["_ts"].to_numpy())) for one in parsed for table in one.events if table.num_rows]
    told = [one.unseen for one in parsed if one.accepted]
    unseen = frozenset.intersection(*told) if told else frozenset()
    refused = _refused_at_parse(setup, order, parsed)
    return Report(
        number=order.number,
        index=order.index,
        accepted=sum(one.accepted for one in parsed),
        invalid=sum(len(one.refused) for one in parsed),
        passed=sum(one.passed for one in parsed),
        newest_us=max(newest, default=None),
        unseen=sorted(unseen),
        quarantine=None if refused is None else refused.to_json(),
    )


def _refused_at_parse(setup: Setup, order: ReadOrder, parsed: Sequence[Parsed]) -> Quarantine | None:
    rows = [
        {
            "stream": order.stream,
            "partition": order.partition,
            "offset": f"{span.file}:{one.offset}",
            "reason": one.reason,
            "size": one.size,
            "raw": one.raw,
        }
        for span, block in zip(order.spans, parsed, strict=True)
        for one in block.refused
    ]
    if not rows:
        return None
    path = order.tick.path("quarantine", f"read{order.number}", "parquet")
    table = pa.Table.from_pylist(rows, schema=QUARANTINE)
    return write_quarantine(store_at(setup.write_url), table, path=path, fingerprint=setup.schema.fingerprint)


def _sorted(setup: Setup, tables: Iterable[pa.Table]) -> tuple[PartOrder, list[Report], pa.Table, pa.Table]:
    """Tables of one part by kind, each kind in the order of the pieces that it came from."""
    by_kind: dict[str, list[tuple[dict[str, Any], pa.Table]]] = {
        kind: [] for kind in ("order", "report", "impression", "feedback")
    }
    for table in tables:
        mark = json.loads(table.schema.metadata[b"headrace"])
        by_kind[mark["kind"]].append((mark, table.replace_schema_metadata(None)))
    for found in by_kind.values():
        found.sort(key=lambda one: int(one[0]["number"]))
    reports = [Report(**json.loads(table["json"][0].as_py())) for _, table in by_kind["report"]]
    order = PartOrder.from_json(json.loads(by_kind["order"][0][1]["json"][0].as_py()))
    impressions = _gathered(by_kind["impression"], setup.schema.arrow())
    feedback = _gathered(by_kind["feedback"], pa.schema([("_label", pa.float32())]))
    offset = feedback.column_names.index("_offset")  # feedback is little: it may wait for long, and needs its file then
    return order, reports, impressions, feedback.set_column(offset, "_offset", places(feedback["_offset"]))


def _gathered(found: Sequence[tuple[dict[str, Any], pa.Table]], fields: pa.Schema) -> pa.Table:
    """One table of pieces; what is the same for all rows of a piece, its partition and file, becomes columns."""
    table = pa.concat_tables([pa.schema([*EVENT_FIELDS, *fields]).empty_table(), *(piece for _, piece in found)])
    table = table.combine_chunks()
    rows = [piece.num_rows for _, piece in found]
    partition = np.repeat(np.array([mark["partition"] for mark, _ in found], np.int32), rows)
    files = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.arange(len(found), dtype=np.int32), rows)),
        pa.array([mark["file"] for mark, _ in found], pa.string()),
    )
    offsets = table["_offset"].chunk(0) if table.num_rows else pa.array([], pa.int64())
    place = pa.StructArray.from_arrays([files, offsets], ["file", "offset"])
    table = table.set_column(table.column_names.index("_offset"), "_offset", place)
    return table.append_column("_partition", pa.array(partition))


def _write(setup: Setup, order: PartOrder, reports: list[Report], watermark_us: int, result: JoinResult) -> str:
    store = store_at(setup.write_url)
    shard = None
    if result.rows.num_rows:
        path = order.tick.path("data", str(order.part), "parquet")
        rows = arrange(result.rows, setup.horizon.window_us)
        shard = write_shard(store, rows, path=path, part=order.part, fingerprint=setup.schema.fingerprint)
    failpoints.hit("pipeline.shards_written")

    def write_run(number: int, new: NewRun) -> RunMeta:
        path = order.tick.path("state", f"{order.part}-{new.meta.kind}-{number}", "arrow")
        data = new.data(setup.schema.fingerprint)
        store.write(path, memoryview(data))
        return new.named(order.part, path, data)

    runs = [*result.runs, *writers().map(write_run, range(len(result.new_runs)), result.new_runs)]
    refused = _refused_at_join(setup, order, result)
    failpoints.hit("pipeline.state_written")
    made = PartResult(
        part=order.part,
        watermark_us=watermark_us,
        shard=None if shard is None else shard.to_json(),
        runs=[meta.to_json() for meta in runs],
        counts=[(partition, name, delta) for (_, partition, name), delta in sorted(result.counts.items())],
        corrections=result.corrections,
        quarantine=None if refused is None else refused.to_json(),
        reports=[asdict(report) for report in reports],
    )
    path = result_path(order)
    store.overwrite(path, json.dumps(asdict(made)).encode())
    return path


def _refused_at_join(setup: Setup, order: PartOrder, result: JoinResult) -> Quarantine | None:
    rows = result.refused
    if not rows.num_rows:
        return None
    places: list[Any] = [order.partitions[index].split("/", 1) for index in rows["_partition"].to_pylist()]
    table = pa.table(
        {
            "stream": pa.array([stream for stream, _ in places], pa.string()),
            "partition": pa.array([partition for _, partition in places], pa.string()),
            "offset": rows["_offset"].cast(pa.string()),
            "reason": rows["_reason"],
            "event_time_us": rows["_ts"],
            "size": pa.nulls(rows.num_rows, pa.int64()),
            "raw": pa.nulls(rows.num_rows, pa.binary()),
        }
    )
    path = order.tick.path("quarantine", f"part{order.part}", "parquet")
    return write_quarantine(store_at(setup.write_url), table, path=path, fingerprint=setup.schema.fingerprint)


def _marked(table: pa.Table, kind: str, number: int, **more: Any) -> pa.Table:
    return table.replace_schema_metadata({"headrace": json.dumps({"kind": kind, "number": number, **more})})
