"""Towers and version logs made by hand, without TensorFlow and without a trainer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as lite

from headrace.delta import Change, Delta, Numbers, TableSpec, write_delta
from headrace.features import Feature
from headrace.log import Entry, Log
from headrace.published import PublishedTable
from headrace.record import sha256_of
from headrace.schema import Schema
from headrace.version import Kept, NamedFile, VersionRecord, pin_of, rollback_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.store import Store

SCHEMA = Schema(
    (
        Feature("user", "id", ("user",)),
        Feature("item", "id", ("item",)),
        Feature("tags", "ids", ("tags",), max=4),
        Feature("price", "number", ("price",)),
        Feature("u_x_i", "cross", of=("user", "item")),
    )
)
SPECS = (
    TableSpec("linear", 1, "f32", ("user", "item", "tags", "u_x_i")),
    TableSpec("embedding", 4, "int8", ("user", "item", "tags", "u_x_i")),
)
PRIOR = 0.2
BLANK = VersionRecord(
    version=0, kind="start", base=None, lineage=0, model={}, schema={}, prior=0.1, digest={}, created_at_us=0, code=""
)


def linear_tower(fields: int, width: int, numbers: int, *, weight: float = 1.0, bias: float = 0.0) -> bytes:
    """A LiteRT tower: `weight` * sum of all embeddings [n, fields, width] and numbers [n, numbers], + `bias`."""
    graph = _Graph()
    parts = []
    if fields:
        embeddings = graph.tensor("serving_default_embeddings:0", (1, fields, width), batch=True)
        parts.append(graph.flat(embeddings, fields * width))
        graph.inputs.append(embeddings)
    if numbers:
        graph.inputs.append(graph.tensor("serving_default_numbers:0", (1, numbers), batch=True))
        parts.append(graph.inputs[-1])
    size = fields * width + numbers
    joined = parts[0] if len(parts) == 1 else graph.joined(parts, size)
    return graph.finished(graph.dense(joined, np.full((1, size), weight, np.float32), np.array([bias], np.float32)))


def mlp_tower(fields: int, width: int, layers: Sequence[tuple[Any, Any]]) -> bytes:
    """A LiteRT tower: dense `layers` (weights float32 [out, in], bias float32 [out]) with ReLU between them."""
    graph = _Graph()
    embeddings = graph.tensor("serving_default_embeddings:0", (1, fields, width), batch=True)
    graph.inputs.append(embeddings)
    at = graph.flat(embeddings, fields * width)
    for i, (weights, bias) in enumerate(layers, 1):
        at = graph.dense(at, weights, bias, relu=i < len(layers))
    return graph.finished(at)


class _Graph:
    def __init__(self) -> None:
        self.inputs: list[int] = []
        self._model = lite.ModelT()
        self._model.version = 3
        self._model.operatorCodes = []
        self._model.buffers = [lite.BufferT()]
        self._graph = lite.SubGraphT()
        self._graph.tensors, self._graph.operators, self._graph.name = [], [], "main"
        self._model.subgraphs = [self._graph]

    def tensor(self, name: str, shape: tuple[int, ...], data: Any = None, *, batch: bool = False) -> int:
        tensor = lite.TensorT()
        tensor.name, tensor.shape, tensor.hasRank, tensor.buffer = name, list(shape), True, 0
        tensor.type = lite.TensorType.FLOAT32
        if batch:
            tensor.shapeSignature = [-1, *shape[1:]]
        if data is not None:
            if data.dtype == np.int32:
                tensor.type = lite.TensorType.INT32
            buffer = lite.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def flat(self, tensor: int, size: int) -> int:
        shape = self.tensor("shape", (2,), np.array([-1, size], np.int32))
        options = lite.ReshapeOptionsT()
        options.newShape = [-1, size]
        return self._apply(lite.BuiltinOperator.RESHAPE, [tensor, shape], "flat", size, "ReshapeOptions", options)

    def joined(self, tensors: list[int], size: int) -> int:
        options = lite.ConcatenationOptionsT()
        options.axis = 1
        return self._apply(lite.BuiltinOperator.CONCATENATION, tensors, "joined", size, "ConcatenationOptions", options)

    def dense(self, tensor: int, weights: Any, bias: Any, *, relu: bool = False) -> int:
        inputs = [tensor, self.tensor("w", weights.shape, weights), self.tensor("b", bias.shape, bias)]
        options = lite.FullyConnectedOptionsT()
        options.fusedActivationFunction = int(relu)
        kind = lite.BuiltinOperator.FULLY_CONNECTED
        return self._apply(kind, inputs, "dense", len(bias), "FullyConnectedOptions", options)

    def finished(self, output: int) -> bytes:
        self._graph.outputs, self._graph.inputs = [output], self.inputs
        builder = flatbuffers.Builder(4096)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _apply(self, kind: int, inputs: list[int], name: str, size: int, options_type: str, options: Any) -> int:
        code = lite.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, min(kind, 127), 1
        operator = lite.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes)
        operator.inputs, operator.outputs = inputs, [self.tensor(name, (1, size), batch=True)]
        operator.builtinOptionsType = getattr(lite.BuiltinOptions, options_type)
        operator.builtinOptions = options
        self._model.operatorCodes.append(code)
        self._graph.operators.append(operator)
        return operator.outputs[0]


class Loses:
    """A store that loses what is written."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, path: str, data: bytes) -> None:
        pass


class Publisher:
    """Commits versions to a log as a trainer would."""

    def __init__(self, store: Store, *, schema: Schema = SCHEMA, specs: tuple[TableSpec, ...] = SPECS) -> None:
        self.store = store
        self.log = Log(store, "models/default/log")
        self.schema = schema
        self.specs = specs
        self.head: Entry | None = None
        self.record: VersionRecord | None = None
        self.deltas: dict[int, Delta] = {}
        self._published = PublishedTable(specs)  # of the newest version

    @property
    def next(self) -> int:
        return 0 if self.head is None else self.head.seq + 1

    def start(self, **fields: Any) -> Entry:
        model = {"kind": "mlp", "tables": [vars(spec) | {"features": list(spec.features)} for spec in self.specs]}
        record = VersionRecord(
            version=self.next,
            kind="start",
            base=None,
            lineage=self.next,
            model=model,
            schema=self.schema.to_json(),
            prior=PRIOR,
            digest=PublishedTable(self.specs).digest().to_json(),
            created_at_us=1,
            code="test",
        )
        self._published = PublishedTable(self.specs)
        return self.commit(replace(record, **fields))

    def table(self, version: int) -> PublishedTable:
        """The published table of a version, folded from the start."""
        steps = []
        at: int | None = version
        while at is not None:
            record = VersionRecord.from_entry(self.log.read(at))
            if at in self.deltas:
                steps.append(self.deltas[at])
            at = record.table_of
        table = PublishedTable(self.specs)
        for delta in reversed(steps):
            table.apply(delta)
        return table

    def delta(
        self, rows: Any = (), *, tower: bytes | None = None, numbers: Numbers | None = None, **fields: Any
    ) -> Entry:
        """A delta; `rows`: {table name: {id: values, or None to remove it}}."""
        assert self.record is not None
        version, base = self.next, self.record.version
        changes = tuple(change_of(spec, dict(rows).get(spec.name, {})) for spec in self.specs)
        return self.publish(Delta(version, base, changes, tower, numbers or Numbers((0.0,), (1.0,))), **fields)

    def publish(self, delta: Delta, **fields: Any) -> Entry:
        assert self.record is not None
        self.deltas[delta.of] = delta
        self._published.apply(delta)
        data = write_delta(delta)
        path = f"models/default/params/{delta.of:012d}-delta-{self.log.writer}.arrow"
        self.store.write(path, data)
        return self._after(
            kind="delta",
            delta=NamedFile(path, sha256_of(data), len(data)),
            digest=self._published.digest().to_json(),
            **{"watermark_us": 1_000_000 * delta.of, **fields},
        )

    def hold(self, **fields: Any) -> Entry:
        return self._after(**{"kind": "hold", "held": ((0, 1),), **fields})

    def pin(self, version: int | None) -> Entry:
        assert self.record is not None
        return self.commit(pin_of(self.record, version, now_us=0, code="test"))

    def rollback(self, to: int, *, now_us: int = 0) -> Entry:
        assert self.record is not None
        self._published = self.table(to)
        return self.commit(rollback_of(self.record, to, self._read, now_us=now_us, code="test"))

    def _read(self, version: int) -> VersionRecord:
        return VersionRecord.from_entry(self.log.read(version))

    def snapshot(self) -> Kept:
        """Writes a snapshot of the newest version; the next record names it."""
        assert self.record is not None
        of = self.record.version
        data = write_delta(self._published.snapshot(of))
        path = f"models/default/params/{of:012d}-snapshot-{self.log.writer}.arrow"
        self.store.write(path, data)
        kept = Kept(of, path, sha256_of(data), len(data))
        self.record = replace(self.record, snapshot=kept)
        return kept

    def commit(self, record: VersionRecord) -> Entry:
        self.head = self.log.append(record.kind, record.to_body(), self.head)
        self.record = record
        return self.head

    def _after(self, **fields: Any) -> Entry:
        assert self.record is not None
        last = {"version": self.next, "base": self.record.version, "to": None, "delta": None, "held": ()}
        return self.commit(replace(self.record, **(last | fields)))


def change_of(spec: TableSpec, rows: dict[int, Any]) -> Change:
    kept = {id_: values for id_, values in rows.items() if values is not None}
    gone = [id_ for id_, values in rows.items() if values is None]
    values = np.array(list(kept.values()), np.float32).reshape(len(kept), spec.width)
    return Change.of_rows(spec, np.array(list(kept), np.int64), values, np.array(gone, np.int64))
