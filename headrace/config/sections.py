"""Every section but `[features]`: its keys, their types, ranges and defaults.

Keys in seconds end in `_s`, in bytes in `_bytes`. None as a default means that another setting decides it, such as the
model kind a learning rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from headrace import triggers
from headrace.errors import SettingsError
from headrace.features import TimeUnit, check_time_zone
from headrace.place import path_of, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MiB: Final = 2**20
MARK: Final = "{p}"  # in a source: the name of a partition; `pipelines.sources.pattern`


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | bool | int | float):
        raise ValueError("must be text, a number, true or false")
    return value


def _place(value: Any) -> Any:
    """`a.b`, { column = "a.b" } or { path = "a.b" } as the text of a place."""
    if isinstance(value, dict):
        (key, text), *more = value.items() or [("", None)]
        if more or key not in ("column", "path") or not isinstance(text, str):
            raise ValueError('must be text, or { column = "a.b" } for a column whose name has a dot')
        value = place_of((text,)) if key == "column" else text
    if isinstance(value, str) and value:
        path_of(value)
    return value


def _places(value: Any) -> Any:
    """`where`: { event.type = … }, which TOML reads as a table in a table, as the place `event.type`."""
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            found |= {place_of(path): scalar for path, scalar in _inside((name,), inner)}
        else:
            found[_place(name)] = inner
    return found


def _inside(path: tuple[str, ...], table: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in table.items():
        if isinstance(inner, dict):
            yield from _inside((*path, name), inner)
        else:
            yield (*path, name), inner


Scalar = Annotated[Any, BeforeValidator(_scalar)]
Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
Number = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0)]
Positive = Annotated[float, BeforeValidator(_no_boolean), Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_no_boolean), Field(gt=0, lt=1)]
Port = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, le=65_535)]
Text = Annotated[str, Field(min_length=1)]
Place = Annotated[str, BeforeValidator(_place), Field(min_length=1)]
"""Text that `headrace.place.path_of` takes."""


class Section(BaseModel):
    """A table of the settings file. `told` are the keys that the user wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @property
    def told(self) -> set[str]:
        return self.model_fields_set


class LoopSettings(Section):
    """`[loop]`: name and place of the loop; `prior` is what version 0 answers, before anything is learned."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    root: Text = "./loop"
    prior: Share = 0.05


class StreamSettings(Section):
    """`[streams.<name>]`: where events come from, what joins them, when they happened.

    id, time, label and the keys of `where` are places (`headrace.place`): `event.id` is a field inside an object.
    """

    source: Text
    format: Literal["", "json", "csv", "parquet", "arrow", "avro"] = ""  # "" = as the name of the file says
    where: Annotated[dict[str, Scalar], BeforeValidator(_places)] = Field(default_factory=dict)  # only such events
    id: Place
    time: Place
    time_unit: TimeUnit | None = None
    time_zone: str | None = None
    label: Place | None = None

    def model_post_init(self, _context: Any) -> None:
        if self.time_zone is not None:
            check_time_zone(self.time_zone, "time_zone of a stream")


class LabelSettings(Section):
    """`[label]`: implicit = no feedback within `wait_s` means 0; explicit = the feedback carries the label."""

    mode: Literal["implicit", "explicit"]
    wait_s: NotNegative | None = None
    attribution_s: Positive
    late_positives: Literal["calibrate", "ignore"] = "calibrate"  # feedback between wait_s and attribution_s


class PipelineSettings(Section):
    """`[pipeline]`: ticks, windows, watermark and validation."""

    tick_s: Positive = 1.0
    window_s: Positive = 60.0
    disorder_s: NotNegative = 5.0
    idle_s: Positive = 10.0
    lateness_s: NotNegative = 0.0
    future_s: NotNegative = 300.0
    parts: Annotated[Count, Field(le=256)] = 2
    max_bytes_per_tick: Count = 64 * MiB
    record_bytes: Count = 65_536
    quarantine_alarm: Share = 0.01
    quarantine_stop: Annotated[float, BeforeValidator(_no_boolean), Field(gt=0, le=1)] = 0.2


class ModelSettings(Section):
    """`[model]`: the kind of model and its size."""

    kind: Literal["lr", "mlp", "dcn_v2"] = "dcn_v2"
    dim: Annotated[int, BeforeValidator(_no_boolean), Field(ge=2, le=256)] = 8  # tables of width 1 are linear parts
    hidden: tuple[Count, ...] = (64, 32)
    cross_layers: Count = 2
    cross_rank: Count = 16

    def check(self) -> None:
        """Refuse the sizes of parts that the kind does not have."""
        if not self.hidden:
            raise SettingsError("[model] hidden = []: a tower needs a layer", hint='hidden = [64], or kind = "lr"')
        unused = {"lr": {"dim", "hidden", "cross_layers", "cross_rank"}, "mlp": {"cross_layers", "cross_rank"}}
        _refuse("model", sorted(self.told & unused.get(self.kind, set())), f"kind = '{self.kind}'")


class TrainSettings(Section):
    """`[train]`: when to learn, and how. None: the default of the model kind, or not set."""

    on: Literal["pane", "window"] = "pane"
    every_s: Positive | None = None  # wait so long between two versions; triggers are ORed, none = at once
    at: str | tuple[str, ...] = ()  # or until a cron line fires: "0 3 * * *"
    min_rows: Count | None = None  # or until so many rows wait
    time_zone: str = "UTC"  # of `at`
    deadline_s: Positive | None = None  # learn in the smallest steps with which a candidate takes no longer
    seed: Number = 0
    batch_warmup: Count | None = None
    batch_live: Count | None = None
    admission: Count = 1  # events of an id before it has a row of its own; a feature may say it for itself
    max_rows: Count | None = None  # of ids in a table; past it the stalest go
    lr_linear: Positive | None = None
    lr_embedding: Positive | None = None
    lr_dense: Positive | None = None
    encoding: Literal["int8", "f16", "f32"] = "int8"
    eps: NotNegative = 0.0
    checkpoint_every_s: Positive = 60.0
    snapshot_every: Count = 50

    def check(self, model: ModelSettings) -> None:
        """Refuse learning rates of parts that the model kind does not have, and triggers that cannot be."""
        unused = {"lr_embedding", "lr_dense"} if model.kind == "lr" else set()
        _refuse("train", sorted(self.told & unused), f"model.kind = '{model.kind}'")
        check_time_zone(self.time_zone, "train.time_zone")
        triggers.check(self.triggers)

    @property
    def triggers(self) -> triggers.Triggers:
        """`every_s`, `at` and `min_rows`, as `headrace.triggers` takes them."""
        every_us = None if self.every_s is None else round(self.every_s * 1e6)
        at = (self.at,) if isinstance(self.at, str) else self.at
        return triggers.Triggers(every_us, at, self.min_rows, self.time_zone)


class GateSettings(Section):
    """`[gate]`: limits of the shard gate and of the version gate (structure, golden requests, trials)."""

    golden: Count = 64
    golden_tolerance: Positive = 1e-5
    norm_ratio: Annotated[float, BeforeValidator(_no_boolean), Field(gt=1)] = 10.0
    surprise: Positive = 10.0  # standard deviations by which a record may be worse than expected
    max_holds: Count = 3  # refusals (or automatic rollbacks) in a row; after them `on_max_holds`
    on_max_holds: Literal["learn", "stop"] = "learn"  # learn what comes, or nothing until `headrace retrain`
    rows: Count = 2_000  # that a version is tried on before a verdict
    wait_s: NotNegative = 0.0  # how long a candidate waits, unpublished, for a record to be tried on


class ServeSettings(Section):
    """`[serve]`: address and limits of the gRPC service."""

    host: Text = "127.0.0.1"
    port: Port = 8500
    max_candidates: Count = 1000
    lane: bool = True  # answer Predict past grpcio's threads, where that was tested


class RetentionSettings(Section):
    """`[retention]`: how long what is no longer needed to go on is kept. Seconds count from a record's commit."""

    versions_s: NotNegative = 3_600.0  # every version can be built exactly
    rollback_s: NotNegative = 86_400.0  # every version can be gone back to
    held_s: NotNegative = 604_800.0  # a held shard can be released
    max_bytes: Count | None = None  # a stage stops committing rather than take more


class ObserveSettings(Section):
    """`[observe]`: how a process logs; where it shows /metrics, /healthz, /readyz on this machine (None = nowhere)."""

    port: Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=65_531)] | None = None  # of the server; + 1 …
    log: Literal["text", "json"] = "text"  # lines for people, or one JSON object each


class TrackSettings(Section):
    """`[track]`: where MLflow is, the experiment (default: the loop's name), and how much is kept there."""

    uri: Text = "sqlite:///mlflow.db"
    experiment: str = ""
    models: Count = 5  # model versions that are kept: the newest, and all that have an alias
    models_every_s: NotNegative = 300.0  # between two snapshots that become model versions
    keep_days: Count = 90  # days whose runs are kept


def _refuse(section: str, keys: list[str], choice: str) -> None:
    if keys:
        raise SettingsError(
            f"[{section}] {keys[0]} has no meaning with {choice}",
            hint=f"remove {keys[0]}",
            section=section,
            key=keys[0],
        )
