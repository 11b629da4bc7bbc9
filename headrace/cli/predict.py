"""`headrace predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace import clock
from headrace.cli import options, terminal
from headrace.errors import InvalidRequest
from headrace.place import path_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.config import Settings
    from paramserver.client import Prediction


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "predict",
        epilog=terminal.examples(
            "headrace predict user=u1 item=i7 price=3.5",
            """headrace predict '{"user": "u1", "item": ["i7", "i8", "i9"]}'     three candidates""",
            "headrace predict @request.json --json --address 127.0.0.1:8501",
            "headrace predict --example               the same call for Python, grpcurl and curl",
        ),
    )(predict)


def predict(
    features: Annotated[
        list[str] | None, typer.Argument(help="name=value …, a JSON object, or @FILE with one.")
    ] = None,
    *,
    example: Annotated[
        bool,
        typer.Option("--example", help="Print the call for other clients; without features, of the first event."),
    ] = False,
    address: Annotated[str, typer.Option("--address", help="host:port; default: the settings' [serve].")] = "",
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Ask the server for scores. Every feature once: one value, or one per candidate.

    A value that is not known: `name=` (null in JSON). Parts of the impression's own time (hour, weekday) may be left
    out: they are those of now.
    """
    settings = options.load(config) if config.exists() else None
    if not features and not example:
        raise typer.BadParameter("give every feature: name=value …, a JSON object, or @FILE")
    if not address:
        address = f"{settings.serve.host}:{settings.serve.port}" if settings is not None else "127.0.0.1:8500"
    if example:
        from headrace.cli import predict_example

        wanted = _wanted(features, settings) if features else predict_example.first_request(options.load(config))
        terminal.show(predict_example.example(wanted, address))
        return terminal.Code.OK
    wanted = _wanted(features or [], settings)
    from paramserver.client import Client

    with Client(address) as client:
        answer = client.predict(wanted)
    if as_json:
        terminal.show_json(_json_of(answer))
    else:
        _show(answer)
    return terminal.Code.OK


def _wanted(features: Sequence[str], settings: Settings | None) -> dict[str, Any]:
    """The request that the arguments spell; parts of the impression's own time are those of now."""
    if settings is None:
        return parse(features, {})
    known, time = settings.schema().features, path_of(settings.impression.time)
    now = clock.iso(clock.now_us())
    of_now = {feature.name: now for feature in known if feature.kind == "time" and feature.path == time}
    return of_now | parse(features, {feature.name: feature.kind for feature in known})


def _json_of(answer: Prediction) -> dict[str, Any]:
    scores = [float(score) for score in answer.scores]
    return {"scores": scores, "version": answer.version, "watermark_us": answer.watermark_us, "age_s": answer.age_s}


def _show(answer: Prediction) -> None:
    for score in answer.scores:
        terminal.show(f"{score:.6f}")
    until = "nothing learned yet"
    if answer.watermark_us and answer.age_s is not None:
        until = f"events up to {clock.iso(answer.watermark_us)}: {clock.duration(answer.age_s)} old"
    terminal.say(f"version {answer.version}, {until}")


def parse(arguments: Sequence[str], kinds: Mapping[str, str]) -> dict[str, Any]:
    """The request that the arguments spell.

    kinds: kind of each feature where known; a value is read as a number only for kind `number`, so that `zip=00123`
    stays the text that it was in the log. `name=` is a missing value.

    >>> parse(["user=7", "price=1.50"], {"user": "id", "price": "number"})
    {'user': '7', 'price': 1.5}
    """
    if len(arguments) == 1 and arguments[0].startswith("@"):
        path = Path(arguments[0][1:])
        if not path.exists():
            raise InvalidRequest(f"there is no file {path}", hint="give a JSON file after @", path=path)
        return _json(path.read_text(encoding="utf-8"), where=str(path))
    if len(arguments) == 1 and arguments[0].lstrip().startswith("{"):
        return _json(arguments[0], where="the argument")
    request: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"{argument!r} is not name=value", hint="for example `headrace predict user=u1`")
        if name in request:
            raise InvalidRequest(f"feature {name!r} is given twice", hint="several candidates: use the JSON form")
        request[name] = _value(name, text, kinds.get(name, ""))
    return request


def _value(name: str, text: str, kind: str) -> Any:
    if kind == "ids":
        return [_list(name, text) if text.startswith("[") else text.split(",") if text else []]
    if not text:
        return None
    if kind not in ("number", "bucket"):
        return text
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(
            f"feature {name!r} is a number, {text!r} is none",
            hint=f"for example `{name}=1.5`; where it is not known: `{name}=`",
            feature=name,
        ) from None


def _list(name: str, text: str) -> list[Any]:
    """A list as JSON has it. What only looks like one would be taken for ids that nobody knows."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, list):
        raise InvalidRequest(
            f"feature {name!r}: {text!r} is no list",
            hint=f"for example `{name}=a,b`; for ids that begin with [, the whole request as JSON",
            feature=name,
        )
    return found


def _json(text: str, *, where: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"{where} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            hint='for example \'{"user": "u1", "item": ["i7", "i8"]}\'',
        ) from None
    if not isinstance(request, dict):
        raise InvalidRequest(f"{where} is not a JSON object", hint='for example \'{"user": "u1"}\'')
    return request
