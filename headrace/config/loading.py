"""Reading a settings file.

1. TOML -> tables                      a broken line is named with its number
2. relative paths -> absolute          those of the file; `file:x` is the path x
3. environment over file, validation   every error says where the value came from
4. relative paths of the environment -> absolute
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import SettingsError as BadEnvironment

from headrace.config.explain import explain
from headrace.config.sections import LoopSettings, TrackSettings
from headrace.config.settings import PREFIX, Settings
from headrace.errors import SettingsError
from headrace.features import nearest

SQLITE: Final = "sqlite:///"


def load(path: str | Path) -> Settings:
    """The settings in a file. SettingsError names file, section and key."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(
            f"there is no settings file {path}",
            hint="`headrace init` writes one; -c names another",
            file=str(path),
        ) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8: {error}", hint="save it as UTF-8", file=str(path)) from error
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", hint="name a file that may be read with -c", file=str(path)
        ) from error
    return parse(text, file=str(path), folder=path.absolute().parent)


def parse(text: str, *, file: str = "headrace.toml", folder: Path | None = None) -> Settings:
    """The settings in a text; `file` is what errors call it, `folder` what its paths are relative to."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        twice = "overwrite" in str(error) or "twice" in str(error)
        hint = (
            "a key stands once in its table: remove one" if twice else "text needs quotes; a table starts with [name]"
        )
        raise SettingsError(f"{file} is not valid TOML: {error}", hint=hint, file=file) from None
    _check_environment()
    try:
        settings = Settings(**_absolute(raw, folder or Path.cwd()))
    except ValidationError as error:
        raise explain(error, Settings, file, PREFIX) from None
    except BadEnvironment as error:
        raise SettingsError(
            f"a HEADRACE__ variable cannot be read: {error}", hint="lists and tables are written as JSON"
        ) from None
    except SettingsError as error:
        raise type(error)(f"{file}: {error.message}", hint=error.hint, **{**error.context, "file": file}) from None
    return _anchored(settings, Path.cwd())


def _check_environment() -> None:
    """pydantic-settings passes over variables of sections that do not exist."""
    for variable in os.environ:
        section = variable.removeprefix(PREFIX).partition("__")[0].lower()
        if variable.startswith(PREFIX) and section not in Settings.model_fields:
            raise SettingsError(
                f"the environment variable {variable} names no section",
                hint=nearest(section, list(Settings.model_fields)) or f"sections: {', '.join(Settings.model_fields)}",
            )


def _absolute(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tables with the paths of the file, and the default paths, anchored in its folder."""
    loop, streams, track = raw.get("loop"), raw.get("streams"), raw.setdefault("track", {})
    if isinstance(loop, dict):
        loop["root"] = anchor(loop.get("root", LoopSettings.model_fields["root"].default), folder)
    if isinstance(track, dict):
        track["uri"] = anchor(track.get("uri", TrackSettings.model_fields["uri"].default), folder)
    for stream in streams.values() if isinstance(streams, dict) else ():
        if isinstance(stream, dict) and "source" in stream:
            stream["source"] = anchor(stream["source"], folder)
    return raw


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Settings with the paths that are still relative (they came from the environment) anchored in `folder`."""
    streams = {
        name: stream.model_copy(update={"source": anchor(stream.source, folder)})
        for name, stream in settings.streams.items()
    }
    root, uri = anchor(settings.loop.root, folder), anchor(settings.track.uri, folder)
    return settings.replace("loop", root=root).replace("track", uri=uri).model_copy(update={"streams": streams})


def anchor(place: Any, folder: Path) -> Any:
    """A path, `file:path` or `sqlite:///path` made absolute; other URLs, and what is no text, as they are.

    >>> anchor("events/a.jsonl", Path("/data")), anchor("s3://bucket/a", Path("/data"))
    ('/data/events/a.jsonl', 's3://bucket/a')
    """
    if not isinstance(place, str) or not place:
        return place
    if place.startswith(SQLITE):
        return SQLITE + os.path.normpath(folder / place.removeprefix(SQLITE))
    path = place.removeprefix("file://") if place.startswith("file://") else place.removeprefix("file:")
    if ":" in path.partition("/")[0]:
        return place
    slash = "/" if path.endswith("/") else ""
    return os.path.normpath(folder / path) + slash
