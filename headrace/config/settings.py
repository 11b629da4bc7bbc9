"""The settings as a whole, and what must hold between sections."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.config.features import FeatureSettings, features_of
from headrace.config.later import SCHEMES, refuse_later
from headrace.config.sections import (
    GateSettings,
    LabelSettings,
    LoopSettings,
    ModelSettings,
    NotNegative,
    ObserveSettings,
    PipelineSettings,
    RetentionSettings,
    Section,
    ServeSettings,
    StreamSettings,
    TrackSettings,
    TrainSettings,
)
from headrace.errors import NotImplementedYet, SettingsError
from headrace.features import check_features

if TYPE_CHECKING:
    from headrace.schema import Schema

IMPRESSION = "impression"
PREFIX = "HEADRACE__"


class Settings(BaseSettings):
    """A whole headrace.toml, checked. The environment (HEADRACE__SECTION__KEY) wins over what is given."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", defer_build=True
    )

    loop: LoopSettings
    streams: dict[str, StreamSettings]
    label: LabelSettings
    features: dict[str, FeatureSettings]
    pipeline: PipelineSettings = Field(default_factory=PipelineSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    serve: ServeSettings = Field(default_factory=ServeSettings)
    observe: ObserveSettings = Field(default_factory=ObserveSettings)
    track: TrackSettings = Field(default_factory=TrackSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    followers: dict[str, NotNegative] = Field(default_factory=dict)  # seconds for which each may be away

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what is given; nothing else is read."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @model_validator(mode="before")
    @classmethod
    def _implemented(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping):
            refuse_later(raw)
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_streams(self.streams)
        _check_label(self.label, self.feedback_name, self.feedback)
        check_features(features_of(self.features, self.impression))
        self.model.check()
        self.train.check(self.model)
        return self

    @property
    def impression(self) -> StreamSettings:
        """The stream of what was shown or must be scored."""
        return self.streams[IMPRESSION]

    @property
    def feedback(self) -> StreamSettings:
        """The stream that labels it."""
        return self.streams[self.feedback_name]

    @property
    def feedback_name(self) -> str:
        return next(name for name in self.streams if name != IMPRESSION)

    def schema(self) -> Schema:  # type: ignore[override]  # pydantic's deprecated `schema` has no use here
        """The features as the schema that pipelines, trainer and server share."""
        from headrace.schema import Schema  # brings Arrow, which reading settings must not cost

        return Schema(features_of(self.features, self.impression))

    @property
    def reading(self) -> str:
        """16 hex digits; equal if and only if two processes take the same events in the same way."""
        told = self.model_dump_json(include={"streams", "features", "label", "pipeline"})
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def replace(self, section: str, **values: Any) -> Settings:
        """The same settings with other values in one section: `settings.replace("loop", root="/tmp/x")`."""
        old: Section = getattr(self, section)
        return self.model_copy(update={section: old.model_copy(update=values)})

    def with_source(self, source: str, format: str = "") -> Settings:  # noqa: A002  the word of the settings
        """The same settings with every stream reading from `source`."""
        update = {"source": source, "format": format}
        streams = {name: stream.model_copy(update=update) for name, stream in self.streams.items()}
        return self.model_copy(update={"streams": streams})


def _renamed(names: list[str]) -> str:
    """What to do about a slip in the one name that is fixed."""
    near = difflib.get_close_matches(IMPRESSION, names, 1)
    return f"call it [streams.impression] instead of [streams.{near[0]}]" if near else ""


def _check_streams(streams: Mapping[str, StreamSettings]) -> None:
    if IMPRESSION not in streams:
        raise SettingsError(
            "there is no [streams.impression]: the events that say what was shown",
            hint=_renamed(list(streams)) or "add [streams.impression] with source, id and time",
        )
    others = [name for name in streams if name != IMPRESSION]
    if not others:
        raise SettingsError(
            "there is no stream of feedback: what labels the impressions",
            hint="add [streams.click], or any other name, with source, id and time; it may read the same source",
        )
    if len(others) > 1:
        raise NotImplementedYet(
            f"there is more than one stream of feedback ({', '.join(others)}): joining several is not implemented yet",
            hint=f"keep one of them beside [streams.{IMPRESSION}]",
        )
    if streams[IMPRESSION].label is not None:
        raise SettingsError(
            f"[streams.{IMPRESSION}] label: a label comes with the feedback",
            hint=f"move it to [streams.{others[0]}], which may read the same source",
        )
    for name, stream in streams.items():
        _check_source(name, stream.source)


def _check_source(name: str, source: str) -> None:
    scheme, colon, _ = source.partition(":")
    if colon and len(scheme) > 1 and "/" not in scheme and scheme not in SCHEMES:
        raise SettingsError(
            f"[streams.{name}] source = '{source}': '{scheme}:' is not a kind of source",
            hint=f"use a path, or one of {', '.join(f'{known}:' for known in SCHEMES)}",
        )


def _check_label(label: LabelSettings, name: str, feedback: StreamSettings) -> None:
    if label.mode == "explicit":
        if feedback.label is None:
            raise SettingsError(
                f"[label] mode = 'explicit', but [streams.{name}] does not say which column carries the label",
                hint=f'add label = "…" to [streams.{name}], or use mode = "implicit"',
            )
        if label.wait_s is not None:
            raise SettingsError(
                "[label] wait_s has no meaning with mode = 'explicit': an impression waits for its label",
                hint="remove wait_s; attribution_s is how long",
            )
        if "late_positives" in label.told:
            raise SettingsError(
                "[label] late_positives has no meaning with mode = 'explicit': an impression waits for its label",
                hint="remove late_positives",
            )
        return
    if feedback.label is not None:
        raise SettingsError(
            f"[streams.{name}] label = '{feedback.label}' has no meaning with [label] mode = 'implicit', "
            "where any feedback is a positive",
            hint='use mode = "explicit", or remove label',
        )
    if label.wait_s is None:
        raise SettingsError(
            "[label] wait_s is missing: after how many seconds without feedback an impression is a negative",
            hint="add wait_s = 30",
        )
    if label.wait_s > label.attribution_s:
        raise SettingsError(
            f"[label] wait_s = {label.wait_s:.15g} is longer than attribution_s = {label.attribution_s:.15g}",
            hint="attribution_s is the longest delay at which feedback still counts: make it at least wait_s",
        )
