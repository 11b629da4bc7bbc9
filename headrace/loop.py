"""A loop: one root with its logs, and the file that says whose it is.

`loop.json` is created once and never changes: `{"format": 1, "name": "feed", "created_us": 1790000000000000}`.

| log                    | folder               | who appends                                  |
|------------------------|----------------------|----------------------------------------------|
| `shard_log()`          | `shards/log`         | the pipeline                                 |
| `version_log(model)`   | `models/<model>/log` | the trainer; control records by operators    |
| `requests()`           | `requests/log`       | operators                                    |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace import clock
from headrace.errors import Ambiguous, DamagedFile, Exists, NewerFormat, NotFound, StoreRefused
from headrace.log import Log
from headrace.record import canonical

if TYPE_CHECKING:
    from headrace.store import Store

FORMAT = 1
PATH = "loop.json"
_ATTEMPTS = 5


@dataclass(frozen=True)
class Loop:
    """An open loop. Each call of a log method gives a `Log` of its own, with its own nonce."""

    store: Store
    name: str
    created_us: int

    def shard_log(self) -> Log:
        return Log(self.store, "shards/log")

    def version_log(self, model: str = "default") -> Log:
        return Log(self.store, f"models/{model}/log")

    def requests(self) -> Log:
        return Log(self.store, "requests/log")


def open_loop(store: Store, name: str, *, create: bool = True, now_us: clock.Now = clock.now_us) -> Loop:
    """The loop `name` in `store`, made if there is none and `create` is set.

    `NotFound` (no loop, `create` unset), `StoreRefused` (another loop lives there), `NewerFormat`, `DamagedFile`.
    """
    found = _read(store)
    if found is None and create:
        found = _created(store, {"format": FORMAT, "name": name, "created_us": now_us()})
    if found is None:
        hint = "`headrace pipeline run` makes the loop; or is loop.root right?"
        raise NotFound(f"there is no loop in {store.url}", hint=hint, path=PATH, store=store.url)
    if found["name"] != name:
        raise StoreRefused(
            f"{store.url} holds the loop {found['name']!r}, not {name!r}",
            hint=f'set loop.name = "{found["name"]}", or choose another loop.root',
            store=store.url,
        )
    return Loop(store, found["name"], found["created_us"])


def _created(store: Store, content: dict[str, Any]) -> dict[str, Any]:
    """Put `loop.json`; what stands there afterwards, by whomever it was put."""
    for _ in range(_ATTEMPTS):
        try:
            store.put_if_absent(PATH, canonical(content))
        except (Exists, Ambiguous):
            if (found := _read(store)) is not None:
                store.sync(PATH)
                return found
        else:
            return content
    raise Ambiguous(f"cannot tell whether {PATH} was created in {store.url}", path=PATH, store=store.url)


def _read(store: Store) -> dict[str, Any] | None:
    try:
        data = store.read(PATH)
    except NotFound:
        return None
    try:
        found = json.loads(data)
        newer = int(found["format"]) > FORMAT
        checked = {"name": str(found["name"]), "created_us": int(found["created_us"])} if not newer else {}
    except (ValueError, KeyError, TypeError) as error:
        hint = 'restore it: {"format": 1, "name": "<loop.name>", "created_us": 0}'
        raise DamagedFile(f"{PATH} in {store.url} is damaged", hint=hint, path=PATH, store=store.url) from error
    if newer:
        raise NewerFormat(
            f"{store.url} was made by a newer headrace (format {found['format']}; this one reads {FORMAT})",
            hint="upgrade headrace in this environment",
            path=PATH,
            store=store.url,
        )
    return checked
