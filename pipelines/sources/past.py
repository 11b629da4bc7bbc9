"""The files behind a cursor, as identity and aside of `pipelines.sources.files` remember them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Past"]

RECENT = 64


@dataclass(frozen=True)
class Past:
    """What identity and aside say together, and how to say it next time."""

    behind: dict[str, int]
    recent: dict[str, int]
    gone: list[str]
    aside: dict[str, int] | None = None

    @classmethod
    def of(cls, identity: Any, aside: Any) -> Past:
        said = identity or {"recent": {}, "passed": {}, "gone": []}
        recent = {**said["recent"], **said["passed"]}
        behind = {**(aside or {}), **recent}
        for name in said["gone"]:
            behind.pop(name, None)
        return cls(behind, recent, said["gone"])

    def kept(self, sizes: Mapping[str, int]) -> Past:
        """Without what was deleted."""
        recent = {name: size for name, size in self.recent.items() if name in sizes}
        gone = sorted({*self.gone, *(self.behind.keys() - self.recent.keys() - sizes.keys())})
        if len(recent) + len(gone) <= RECENT:
            return Past(self.behind, recent, gone)
        behind = {name: size for name, size in self.behind.items() if name in sizes}
        return Past(behind, {}, [], behind)
