"""What a model is made of and how it learns, derived from settings and schema. Imports no TensorFlow.

The recipes were chosen on real and synthetic events (three seeds each): dense Adam in a live loop makes a daily refresh
worse than none; a mean loss starves rare rows; large warm-up batches fill Adagrad's accumulators and so lower the live
rate for good. Crosses feed the linear part only: embedded too, they change nothing but the size of the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headrace.delta import TableSpec
from training.admission import Admission, admission_of
from training.arrival import Waits
from training.expiry import LONG_US, OPEN_KINDS, Expiry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.config import Settings
    from headrace.config.sections import LabelSettings
    from headrace.schema import Schema

LINEAR, EMBEDDING = "linear", "embedding"


@dataclass(frozen=True)
class Fields:
    """Features of one table. single: one id per row; lists: several, averaged; order: of all in the model."""

    single: tuple[str, ...]
    lists: tuple[str, ...]
    order: tuple[str, ...]

    @property
    def permutation(self) -> list[int]:
        """Positions in `single + lists`, in model order."""
        here = (*self.single, *self.lists)
        return [here.index(name) for name in self.order]


@dataclass(frozen=True)
class Architecture:
    """What fixes the shapes of a tower. fields: number of embedding rows an example has; numbers: number features."""

    kind: str
    fields: int
    numbers: int
    dim: int = 8
    hidden: tuple[int, ...] = (64, 32)
    cross_layers: int = 2
    cross_rank: int = 16

    @property
    def inputs(self) -> int:
        """Width of what the hidden layers see; numbers come with one flag each."""
        return self.fields * self.dim + 2 * self.numbers


@dataclass(frozen=True)
class Recipe:
    """Rates of Adagrad, starts of the dense accumulators, rows of a step in the warm-up and after it."""

    rate_linear: float
    rate_embedding: float = 0.05
    rate_dense: float = 0.02
    rate_bias: float = 0.05
    start_dense: float = 1.0
    start_bias: float = 0.1
    batch_warmup: int = 32
    batch_live: int = 1024


RECIPES: Mapping[str, Recipe] = {
    "lr": Recipe(rate_linear=0.15, batch_warmup=8, batch_live=8),
    "mlp": Recipe(rate_linear=0.05, start_dense=0.1),
    "dcn_v2": Recipe(rate_linear=0.05),
}


@dataclass(frozen=True)
class Design:
    """One model, whole: `tables` in the order of the deltas, `fields` by table name, `bias` the logit of the prior.

    waits: between which delays positives are late, if they are to be calibrated for. open: the features whose rows may
    go, each known by its place there; expiry: which do. admission: which ids get one.
    """

    shape: Architecture
    recipe: Recipe
    fields: Mapping[str, Fields]
    tables: tuple[TableSpec, ...]
    numbers: tuple[str, ...]
    seed: int
    bias: float
    waits: Waits | None = None
    open: tuple[str, ...] = ()
    expiry: Expiry | None = None
    admission: Admission | None = None

    def spec(self, table: str) -> TableSpec:
        return next(spec for spec in self.tables if spec.name == table)

    def to_json(self) -> dict[str, Any]:
        """The `model` of a version record: what a server needs to score."""
        tables = [
            {"name": spec.name, "width": spec.width, "encoding": spec.encoding, "features": list(spec.features)}
            for spec in self.tables
        ]
        shape = self.shape
        deep = {"hidden": list(shape.hidden)} if shape.kind != "lr" else {}
        crosses = {"cross_layers": shape.cross_layers, "cross_rank": shape.cross_rank} if shape.kind == "dcn_v2" else {}
        return {"kind": shape.kind, "tables": tables, **deep, **crosses}


def design_of(settings: Settings, schema: Schema) -> Design:
    """The model that `[model]` and `[train]` ask for, over the features of `schema`."""
    kind = settings.model.kind
    ids = [feature for feature in schema.features if feature.kind != "number"]
    fields = {LINEAR: _fields(ids)}
    tables = [TableSpec(LINEAR, 1, "f32", fields[LINEAR].order)]
    embedded = [feature for feature in ids if feature.kind != "cross"] if kind != "lr" else []
    if embedded:
        fields[EMBEDDING] = _fields(embedded)
        tables.append(TableSpec(EMBEDDING, settings.model.dim, settings.train.encoding, fields[EMBEDDING].order))
    shape = Architecture(
        kind=kind,
        fields=len(embedded),
        numbers=len(schema.numbers),
        dim=settings.model.dim,
        hidden=tuple(settings.model.hidden),
        cross_layers=settings.model.cross_layers,
        cross_rank=settings.model.cross_rank,
    )
    prior = settings.loop.prior
    return Design(
        shape=shape,
        recipe=recipe_of(settings),
        fields=fields,
        tables=tuple(tables),
        numbers=tuple(schema.numbers),
        seed=settings.train.seed,
        bias=math.log(prior) - math.log1p(-prior),
        waits=waits_of(settings.label),
        open=tuple(feature.name for feature in ids if feature.kind in OPEN_KINDS),
        expiry=expiry_of(settings, [feature.name for feature in ids if feature.kind in OPEN_KINDS]),
        admission=admission_of(settings.features, OPEN_KINDS, settings.train.admission),
    )


def expiry_of(settings: Settings, features: Sequence[str]) -> Expiry | None:
    """features: the open ones. None if none has a `ttl` and tables may have as many rows as there are ids."""
    lives_s, most = [settings.features[name].ttl for name in features], settings.train.max_rows
    if most is None and not any(lives_s):
        return None
    return Expiry(tuple(LONG_US if life_s is None else round(life_s * 1e6) for life_s in lives_s), most)


def waits_of(label: LabelSettings) -> Waits | None:
    """None if no positive can be late, or late ones are to be ignored."""
    if label.late_positives != "calibrate" or label.wait_s is None or label.attribution_s <= label.wait_s:
        return None
    return Waits(round(label.wait_s * 1e6), round(label.attribution_s * 1e6))


def recipe_of(settings: Settings) -> Recipe:
    """The recipe of the model kind, with what `[train]` sets in its place."""
    train = settings.train
    chosen: dict[str, Any] = {
        "rate_linear": train.lr_linear,
        "rate_embedding": train.lr_embedding,
        "rate_dense": train.lr_dense,
        "batch_warmup": train.batch_warmup,
        "batch_live": train.batch_live,
    }
    return replace(RECIPES[settings.model.kind], **{name: value for name, value in chosen.items() if value is not None})


def _fields(features: list[Any]) -> Fields:
    return Fields(
        single=tuple(feature.name for feature in features if feature.kind != "ids"),
        lists=tuple(feature.name for feature in features if feature.kind == "ids"),
        order=tuple(feature.name for feature in features),
    )
