"""Settings of the design that this headrace does not implement yet: refused by name, with what to use now.

A setting moves from here to its section in the change that implements it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headrace.errors import NotImplementedYet

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
SCHEMES: Final = ("file", "s3", "gs", "memory")


def _always(_value: Any) -> bool:
    return True


def _one_of(*values: str) -> Callable[[Any], bool]:
    return lambda value: value in values


def _scheme(*schemes: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value.partition(":")[0].lower() in schemes


@dataclass(frozen=True)
class Later:
    """A setting (`*` stands for any name), the values that are refused, what is missing, and what to do now."""

    path: tuple[str, ...]
    what: str
    now: str
    refused: Callable[[Any], bool] = _always


def _keys(section: str, names: str, what: str, now: str) -> list[Later]:
    return [Later((section, name), what, now) for name in names.split()]


LATER: Final = (
    Later(
        ("streams", "*", "source"),
        "reading from message queues, HTTP and databases",
        "write the events to a file or a folder (JSON lines, CSV, Parquet) and name that",
        _scheme("kafka", "kinesis", "http", "https", "sql", "postgresql", "postgres", "mysql", "sqlite", "pubsub"),
    ),
    Later(
        ("label", "late_positives"),
        "training on late positives",
        'use "calibrate" or "ignore"',
        _one_of("fnw", "fnc", "train"),
    ),
    *_keys("pipeline", "sample_rate sampled negative_rate", "sampling", "remove it: every impression is used"),
    Later(("model", "kind"), "this model", 'use "lr", "mlp" or "dcn_v2"', _one_of("fm", "deepfm")),
    Later(
        ("model", "kind"),
        "towers of one's own",
        'use "lr", "mlp" or "dcn_v2"',
        lambda value: isinstance(value, str) and ":" in value,
    ),
    *_keys("train", "on_drift", "this trigger", "use every_s, at or min_rows"),
    *_keys(
        "gate",
        "shift calibration g2 g3 auc log_loss drift",
        "this rule of the gate",
        "remove it: surprise, structure, golden requests and trials on later records are checked",
    ),
    Later(
        ("serve", "host"),
        "serving other machines (it needs TLS and tokens)",
        'use "127.0.0.1"',
        lambda value: value not in LOOPBACK,
    ),
    *_keys("serve", "tls tls_cert tls_key tokens trusted_keys", "TLS, tokens and signatures", "serve on 127.0.0.1"),
)


def refuse_later(raw: Mapping[str, Any]) -> None:
    """Raise NotImplementedYet for the first setting in `raw` that stands in LATER."""
    for later in LATER:
        for place, value in _at(raw, later.path, ()):
            if later.refused(value):
                raise NotImplementedYet(
                    f"{_say(place, value)}: {later.what} is not implemented yet", hint=later.now, key=".".join(place)
                )


def _at(raw: Any, path: tuple[str, ...], place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The places in `raw` that a path with wild cards leads to."""
    if not path:
        yield place, raw
        return
    if not isinstance(raw, Mapping):
        return
    for key in list(raw) if path[0] == "*" else [path[0]]:
        if key in raw:
            yield from _at(raw[key], path[1:], (*place, key))


def _say(place: tuple[str, ...], value: Any) -> str:
    if len(place) == 1:
        return f"[{place[0]}]"
    section = ".".join(place[:-1])
    return f"[{section}] {place[-1]} = {value!r}" if not isinstance(value, Mapping) else f"[{section}] {place[-1]}"
