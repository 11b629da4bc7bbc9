"""`headrace import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace import clock
from headrace.cli import options, resident, terminal
from headrace.cli.control import who
from headrace.cli.quiet import native_output
from headrace.errors import ImportRefused
from headrace.version import VersionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.config import Settings
    from headrace.log import Entry
    from training.kerasrows import Layer
    from training.warmstart import Taken


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "import",
        epilog=terminal.examples(
            "headrace import old.keras                                  which layers and features there are",
            "headrace import old.keras --map user_embedding=user        a StringLookup names the rows",
            "headrace import saved/ --map item=item --vocabulary item=items.txt",
        ),
    )(import_)


def import_(
    model: Annotated[Path, typer.Argument(help="A Keras archive (.keras, .h5) or the folder of a SavedModel.")],
    *,
    pairs: Annotated[
        list[str] | None, typer.Option("--map", help="An Embedding layer and its feature.", metavar="LAYER=FEATURE")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--vocabulary", help="One text per row, where the model has none.", metavar="LAYER=FILE"),
    ] = None,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Begin from the rows of a Keras model: the first version that is learned starts with them.

    For a loop that has learned nothing yet. Without --map: what there is to map.
    """
    settings = options.load(config)
    wanted = [_pair(pair, "--map", "LAYER=FEATURE") for pair in pairs or []]
    named = {layer: _lines(Path(file)) for layer, file in (_vocabulary(file, wanted) for file in files or [])}
    from training.paths import check_model

    check_model(model)
    if not wanted:
        with native_output("import"):
            return _show(_layers(model, named), settings, as_json=as_json)
    from training.start import check_begun

    loop = options.open_loop(settings, create=True)
    before = loop.version_log().head()
    check_begun(before)
    resident.alone(loop, "trainer", "stop it first: a trainer that runs has begun already")
    with native_output("import"):
        layers = _layers(model, named)
        from training.warmstart import begin, taken

        parts = taken(layers, settings, wanted)
        entry = begin(loop, settings, parts, model=str(model), by=who(), now_us=clock.now_us())
    if before is not None and VersionRecord.from_entry(before).checkpoint is not None:
        terminal.say(f"the rows of the import before, version {before.seq}, are left: name all pairs in one import")
    _show_begun(entry, parts, as_json=as_json)
    return terminal.Code.OK


def _layers(model: Path, named: Mapping[str, tuple[str, list[str]]]) -> dict[str, Layer]:
    """The Embedding layers of a model. named: what vocabularies say of their rows, (file, texts) by layer."""
    terminal.say("starting TensorFlow (10 to 30 s) …")
    from training.kerasrows import layers_of

    layers = layers_of(model)
    for name, (file, texts) in named.items():
        if name in layers:  # else `taken` says so
            layers[name] = layers[name].named(texts, file)
    return layers


def _show_begun(entry: Entry, parts: Sequence[Taken], *, as_json: bool) -> None:
    """What the version begins with."""
    rows = [part.to_json() for part in parts]
    if as_json:
        terminal.show_json({"version": entry.seq, "imported": rows})
        return
    terminal.show(terminal.table([tuple(row.values()) for row in rows], ("layer", "feature", "table", "rows")))
    terminal.say(
        f"version {entry.seq} begins with them; what is learned next starts there: `headrace train` or `up`; "
        f"`headrace versions show {entry.seq}` says later what was imported"
    )


def _show(layers: Mapping[str, Layer], settings: Settings, *, as_json: bool) -> int:
    """What there is to map."""
    found = [
        {"layer": layer.name, "rows": len(layer.rows), "width": layer.rows.shape[1], "vocabulary": _words(layer)}
        for layer in layers.values()
    ]
    widths = f"1 or {settings.model.dim}" if settings.model.kind != "lr" else "1"
    features = [
        {"feature": feature.name, "kind": feature.kind, "width": widths}
        for feature in settings.schema().features
        if feature.kind not in ("number", "cross")
    ]
    if as_json:
        terminal.show_json({"layers": found, "features": features})
        return terminal.Code.OK
    for rows in (found, features):
        terminal.show(terminal.table([tuple(row.values()) for row in rows], tuple(rows[0]) if rows else ()) + "\n")
    terminal.say("nothing was imported: name pairs with --map LAYER=FEATURE")
    return terminal.Code.OK


def _words(layer: Layer) -> str:
    if layer.texts is None:
        told = [layer.why, "give --vocabulary" if layer.nameable else ""]
        return f"not known: {'; '.join(text for text in told if text)}"
    return f"{len(layer.texts):,} texts: {', '.join(layer.texts[:3])}{', …' if len(layer.texts) > 3 else ''}"


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    one, equals, other = text.partition("=")
    if not equals or not one or not other:
        raise ImportRefused(f"{option} {text} is no {form}", hint=f"for example `{option} {_EXAMPLES[option]}`")
    return one, other


def _vocabulary(text: str, wanted: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """(layer, file); the layer may be left out where only one is mapped."""
    layers = list(dict.fromkeys(layer for layer, _ in wanted))
    if "=" not in text and len(layers) == 1:
        return layers[0], text
    layer, file = _pair(text, "--vocabulary", "LAYER=FILE")
    if layer not in layers:
        hint = f"mapped are: {', '.join(layers)}" if layers else f"add --map {layer}=FEATURE"
        raise ImportRefused(f"--vocabulary {text}: layer '{layer}' is not mapped", hint=hint, layer=layer)
    return layer, file


def _lines(path: Path) -> tuple[str, list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportRefused(
            f"the vocabulary {path} cannot be read: {error}",
            hint="give a text file, UTF-8, one text per line",
            path=path,
        ) from None
    return str(path), text.removesuffix("\n").replace("\r\n", "\n").split("\n")


_EXAMPLES: dict[str, Any] = {"--map": "user_embedding=user", "--vocabulary": "user_embedding=users.txt"}
