"""Options that many commands share, and what they open."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.errors import SettingsError, StoreError, StoreFull

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.loop import Loop

Config = Annotated[Path, typer.Option("-c", "--config", help="Settings file.", show_default=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT = Path("headrace.toml")
ROOT_HINTS = {
    errno.ENOENT: "no folder can be made there: choose another `root` in [loop]",
    errno.ENOTDIR: "a part of that path is a file: name a folder as `root` in [loop]",
    errno.EROFS: "that file system is read-only: choose another `root` in [loop]",
    errno.EACCES: "give this user the right to write there, or choose another `root` in [loop]",
    errno.EPERM: "give this user the right to write there, or choose another `root` in [loop]",
}


def load(path: Path) -> Settings:
    """The settings; where there are none, how to get some."""
    from headrace import config

    if not path.exists():
        raise SettingsError(
            f"there is no settings file {path}",
            hint="run `headrace init --from YOUR_EVENTS`, or name one with `-c FILE`; "
            "to see headrace work first: `headrace init --template fraud` or `headrace backtest --example flights`",
            path=path,
        )
    return config.load(path)


def load_for(role: str, path: Path) -> Settings:
    """The settings of a process that stays. Where its lines are JSON, errors from here on are, too."""
    from headrace.cli import journal

    journal.early(role, as_json=os.environ.get("HEADRACE__OBSERVE__LOG") == "json")
    settings = load(path)
    journal.early(role, as_json=settings.observe.log == "json")
    return settings


def open_loop(settings: Settings, *, create: bool = False) -> Loop:
    """The loop that the settings name. `create`: make it if there is none; without, NotFound."""
    from headrace import loop, store

    try:
        return loop.open_loop(store.open_store(settings.loop.root), settings.loop.name, create=create)
    except StoreError as error:
        cause = error.__cause__
        if not create or not isinstance(cause, OSError):
            raise
        raise StoreFull(
            f"[loop] root = '{settings.loop.root}' cannot be written: {cause.strerror}",
            hint=ROOT_HINTS.get(cause.errno or 0, error.hint) or "choose another `root` in [loop]",
            root=settings.loop.root,
        ) from error
