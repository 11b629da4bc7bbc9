"""The examples that come with headrace. A template is one that a loop may begin from, in an empty folder.

    examples/NAME/headrace.toml    the first line asks what is predicted, the second says what to run
    examples/NAME/events.py        `events(until) -> {file: table}`: what those settings read (`headrace.simulate`)

Both are copied, for a person to change. `demo` is the settings of `headrace demo`, whose events grow.
"""

from __future__ import annotations

import importlib.resources
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.errors import SettingsError
from headrace.features import nearest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

NAMES: Final = ("feed", "ads", "fraud", "maintenance", "flights")
SETTINGS: Final = "headrace.toml"
EVENTS: Final = "events.py"


def place_of(example: str, file: str = SETTINGS) -> Path:
    """A file of an example, in the installed package or in the checkout."""
    place = f"examples/{example}/{file}"
    installed = Path(str(importlib.resources.files("headrace"))) / place
    return installed if installed.exists() else Path(__file__).parents[1] / place


def check(name: str) -> None:
    """SettingsError unless it is a template."""
    if name not in NAMES:
        hint = nearest(name, NAMES) or "`headrace init --template` lists them"
        raise SettingsError(f"there is no template {name!r}", hint=hint, template=name)


def said(name: str) -> tuple[str, str]:
    """What a template predicts, and the command to begin with.

    >>> said("fraud")
    ('Will this card payment be charged back?', 'headrace backtest --every frozen,7d,1d')
    """
    question, command = place_of(name).read_text(encoding="utf-8").splitlines()[:2]
    return question.removeprefix("# "), command.removeprefix("# ").partition("   ")[0]


def events(name: str, until: np.datetime64) -> dict[str, pa.Table]:
    """What happened before `until`, by the file it belongs in. MissingLibrary for the flights without their package."""
    made: dict[str, pa.Table] = runpy.run_path(str(place_of(name, EVENTS)))["events"](until)
    return made
