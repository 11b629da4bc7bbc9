"""Where a value stands in an event, as one writes it in the settings: `id`, or `event.id` for a field inside an object.

A place is the text of a path: names with dots between them. A name that has a dot itself stands in double quotes, as
keys do in TOML: `"event.id"` is one column of that name, `meta."app.version"` a field inside `meta`. Settings also take
`{ column = "event.id" }` for the first of these, as features do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Path", "nearest_place", "path_of", "place_of"]

Path = tuple[str, ...]

_NAME: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"|([^".][^.]*)')


@lru_cache(maxsize=1024)
def path_of(place: str) -> Path:
    """The names of a place, from the outermost in. ValueError where it is none.

    >>> path_of("event.id"), path_of('"event.id"'), path_of('meta."app.version"')
    (('event', 'id'), ('event.id',), ('meta', 'app.version'))
    """
    names: list[str] = []
    at = 0
    while (found := _NAME.match(place, at)) is not None:
        quoted, plain = found.groups()
        names.append(re.sub(r"\\(.)", r"\1", quoted) if plain is None else plain)
        at = found.end()
        if at == len(place):
            return tuple(names)
        if place[at] != ".":
            break
        at += 1
    raise ValueError('is no place in an event: write names with dots between them, such as "event.id"')


def place_of(path: Sequence[str]) -> str:
    """How one writes a path; the inverse of `path_of`.

    >>> place_of(("event", "id")), place_of(("event.id",))
    ('event.id', '"event.id"')
    """
    return ".".join(_quoted(name) if not name or "." in name or name[0] == '"' else name for name in path)


def nearest_place(path: Path, known: Iterable[Path], *, feature: bool = False) -> str:
    """What the events have that is called much like `path`, as a question; nothing if there is none.

    feature: in the words of a feature, which says `column = "…"` or `path = "a.b"`.

    >>> nearest_place(("event", "idd"), [("event", "id"), ("ts",)])
    "did you mean 'event.id'?"
    >>> nearest_place(("ts",), [("event", "id"), ("meta", "ts")])
    "did you mean 'meta.ts'?"
    >>> nearest_place(("a", "b"), [("a.b",)])
    'did you mean the column of that name, { column = "a.b" }?'
    """
    from difflib import get_close_matches

    places = {place_of(one): one for one in known}
    joined = ".".join(path)
    if len(path) > 1 and (joined,) in places.values():
        column = f'column = "{joined}"'
        return f"did you mean the column of that name, {column if feature else f'{{ {column} }}'}?"
    inside = [place for place, one in places.items() if one[-1] == path[-1] or ".".join(one) == joined]
    close = get_close_matches(place_of(path), inside, n=1, cutoff=0.0)
    close = close or get_close_matches(place_of(path), list(places), n=1, cutoff=0.6)
    if not close:
        return ""
    return f'did you mean path = "{close[0]}"?' if feature and "." in close[0] else f"did you mean '{close[0]}'?"


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
