from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from settings import settings_text

from headrace import config
from headrace.loop import Loop, open_loop
from headrace.store import open_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A loop in the current folder that has begun and learned nothing."""
    from training.start import write_start

    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(settings_text())
    settings = config.load(tmp_path / "headrace.toml")
    begun = open_loop(open_store(settings.loop.root), "feed")
    write_start(begun, settings)
    return begun
