"""A warm start: rows of another model as what a lineage begins with.

A Keras Embedding layer gives rows to one feature: as embeddings, if its width is `[model] dim`, or as linear weights,
if it is 1. The id of a row is that of its text (`headrace.ids`). Rows out of the vocabulary become the row of the
unknown id (their mean) where new ids must wait for a row (`admission`); elsewhere nothing would ever learn that row,
and they are left out.

1. Put the rows into an empty state, and write that as a checkpoint of the `start` record to come.
2. Append the `start` record, which names it.

Dies before 2: a file that no record names. Recovery begins at the newest checkpoint, which is this one until there is
another (training/recover.py): so a replay begins with the same rows, bit by bit. The table of a start stays empty, what
is answered stays the prior: the trainer finds that replicas lack the rows, and the first delta has them.

An id that was imported counts as never seen: `ttl` and `max_rows` spare it until an event has it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.errors import ImportRefused
from headrace.features import nearest
from headrace.ids import ids_of, unknown_id
from training.checkpoint import write_checkpoint
from training.files import FOLDER
from training.recipe import EMBEDDING, LINEAR, design_of
from training.start import check_begun, start_after
from training.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.config import Settings
    from headrace.features import Feature
    from headrace.ids import Ids
    from headrace.log import Entry
    from headrace.loop import Loop
    from training.kerasrows import Floats, Layer
    from training.recipe import Design


@dataclass(frozen=True)
class Taken:
    """Rows of one feature in one table. ids: int64 [n], each once; rows: float32 [n, width]."""

    layer: str
    feature: str
    table: str
    ids: Ids
    rows: Floats

    def to_json(self) -> dict[str, Any]:
        """What is said of it."""
        return {"layer": self.layer, "feature": self.feature, "table": self.table, "rows": len(self.ids)}


def taken(layers: Mapping[str, Layer], settings: Settings, pairs: Sequence[tuple[str, str]]) -> list[Taken]:
    """The rows that `pairs` of (layer, feature) name. ImportRefused for the first that cannot be."""
    design = design_of(settings, settings.schema())
    features = {feature.name: feature for feature in settings.schema().features}
    found: dict[tuple[str, str], Taken] = {}
    for name, to in pairs:
        if name not in layers:
            hint = nearest(name, list(layers)) or f"its Embedding layers are: {', '.join(layers)}"
            raise ImportRefused(f"the model has no Embedding layer '{name}'", hint=hint, layer=name)
        if to not in features:
            hint = nearest(to, list(features)) or f"the features are: {', '.join(features)}"
            raise ImportRefused(f"there is no feature '{to}'", hint=hint, feature=to)
        one = _taken(layers[name], features[to], design)
        if (one.feature, one.table) in found:
            other = found[one.feature, one.table].layer
            hint = "map one of the two, or another feature"
            raise ImportRefused(f"'{other}' and '{name}' would both be the rows of '{to}'", hint=hint, feature=to)
        found[one.feature, one.table] = one
    return list(found.values())


def begin(loop: Loop, settings: Settings, parts: Sequence[Taken], *, model: str, by: str, now_us: int) -> Entry:
    """Writes the `start` record of a lineage that begins with these rows. ImportRefused, LostRace.

    model, by: what they were taken from, and by whom; the record says it.
    """
    log = loop.version_log()
    head = log.head()
    check_begun(head)
    record = start_after(head, settings, now_us=now_us)
    state = State(design_of(settings, settings.schema()))
    for part in parts:
        _put(state, part)
    folder = f"{FOLDER}/checkpoints"
    kept = write_checkpoint(loop.store, folder, state, record.version, secrets.token_hex(4))
    gate = {"action": "import", "by": by, "model": model, "taken": [part.to_json() for part in parts]}
    return log.append(record.kind, replace(record, checkpoint=kept, gate=gate).to_body(), head)


def _put(state: State, part: Taken) -> None:
    learner = state.learner
    group = next(number for number, names in enumerate(learner.groups) if part.table in names)
    rows = learner.indexes[group].admit(part.ids)
    for name in learner.groups[group]:
        learner.tables[name].touch(rows)
    learner.tables[part.table].assign(rows, part.rows)


def _taken(layer: Layer, feature: Feature, design: Design) -> Taken:
    table = _table_of(layer, feature, design)
    if layer.texts is None:
        hint = f"give one text per row: --vocabulary {layer.name}=FILE" if layer.nameable else "map another layer"
        why = layer.why or "the model has no words for them"
        raise ImportRefused(f"the rows of '{layer.name}' have no texts: {why}", hint=hint, layer=layer.name)
    ids = ids_of(feature.name, pa.array(layer.texts, pa.string()))
    rows = layer.rows[layer.first : layer.first + len(ids)]
    order, counts = np.unique(ids, return_counts=True)
    if len(order) < len(ids):
        text = layer.texts[int(np.flatnonzero(ids == order[counts > 1][0])[1])]
        raise ImportRefused(f"the vocabulary of '{layer.name}' has {text!r} twice", hint="remove one", layer=layer.name)
    if layer.unknown and design.admission is not None and feature.name in design.admission.events:
        ids = np.append(ids, unknown_id(feature.name))
        rows = np.concatenate([rows, layer.rows[list(layer.unknown)].mean(0, keepdims=True)])
    if not np.isfinite(rows).all():
        raise ImportRefused(
            f"layer '{layer.name}' has rows that are not finite", hint="train it again", layer=layer.name
        )
    return Taken(layer.name, feature.name, table, ids, rows)


def _table_of(layer: Layer, feature: Feature, design: Design) -> str:
    """The table that takes rows of this width for the feature."""
    if feature.kind in ("number", "cross"):
        why = "a number has no rows" if feature.kind == "number" else "its ids are made of other ids, not of texts"
        raise ImportRefused(
            f"feature '{feature.name}' is a {feature.kind}: {why}",
            hint="map to a feature of kind id, category, ids, bucket or time",
            feature=feature.name,
        )
    widths = {spec.name: spec.width for spec in design.tables if feature.name in spec.features}
    width = layer.rows.shape[1]
    fits = [name for name in (EMBEDDING, LINEAR) if widths.get(name) == width]
    if not fits:
        takes = f"{widths[EMBEDDING]} ([model] dim) or 1" if EMBEDDING in widths else f"1 (kind {design.shape.kind})"
        kind = "" if EMBEDDING in widths else 'kind = "dcn_v2" and '
        raise ImportRefused(
            f"the rows of '{layer.name}' have {width} numbers, those of feature '{feature.name}' {takes}",
            hint=f"set {kind}dim = {width} in [model]",
            layer=layer.name,
        )
    return fits[0]
