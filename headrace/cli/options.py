"""Options that many commands share, and what they open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.errors import SettingsError

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.loop import Loop

Config = Annotated[Path, typer.Option("-c", "--config", help="Settings file.", show_default=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT = Path("headrace.toml")


def load(path: Path) -> Settings:
    """The settings; where there are none, how to get some."""
    from headrace import config

    if not path.exists():
        raise SettingsError(
            f"there is no settings file {path}",
            hint="run `headrace init --from YOUR_EVENTS`, or name one with `-c FILE`; "
            "to see headrace work first: `headrace backtest --example flights`",
            path=path,
        )
    return config.load(path)


def open_loop(settings: Settings, *, create: bool = False) -> Loop:
    """The loop that the settings name. `create`: make it if there is none; without, NotFound."""
    from headrace import loop, store

    return loop.open_loop(store.open_store(settings.loop.root), settings.loop.name, create=create)
