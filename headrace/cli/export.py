"""`headrace export`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import options, terminal
from headrace.cli.quiet import native_output
from headrace.errors import ExportRefused

if TYPE_CHECKING:
    from training.export import Exported


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "export",
        epilog=terminal.examples(
            "headrace export --to served/17                  a SavedModel: raw values in, scores out",
            "headrace export --to model.keras --version 17   a Keras archive: ids in, scores out",
            "headrace export --to served/latest --force      replace the one that is there",
        ),
    )(export)


def export(
    *,
    to: Annotated[Path, typer.Option("--to", help="The folder of a SavedModel, or a file that ends with .keras.")],
    version: Annotated[int | None, typer.Option("--version", help="Default: the one that is served.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="keras or saved-model; default: as the name says.", metavar="FORMAT")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
    as_json: options.Json = False,
    config: options.Config = options.DEFAULT,
) -> int:
    """Write a version for programs that do not know headrace: TensorFlow or Keras loads it and gives the same scores.

    It is compared with the service's scores before it gets its name.
    """
    from training.paths import format_of, refuse_taken

    loop = options.open_loop(options.load(config))
    asked = format_of(to, form)
    refuse_taken(to, asked, force=force)
    if loop.version_log().head() is None:
        raise ExportRefused("the loop has no version yet", hint="run `headrace train`, then export")
    with native_output("export"):
        terminal.say("starting TensorFlow (10 to 30 s) …")
        from training.export import export as write

        found = write(loop, version, to, asked, force=force, say=terminal.say)
    if as_json:
        terminal.show_json(vars(found))
    else:
        terminal.show(_text(found))
    return terminal.Code.OK


def _text(found: Exported) -> str:
    rows = [(name, one["dtype"], _shape(one["shape"]), one["holds"]) for name, one in found.inputs.items()]
    head = f"{found.path}  version {found.version}  {found.rows:,} rows  {found.bytes:,} bytes"
    inputs = terminal.table(rows, ("input", "dtype", "shape", "holds"))
    how = _HOW[found.format].format(path=found.path)
    return f"{head}  scores within {found.difference:.1g} of the service's\n\n{inputs}\n\n{how}"


def _shape(sizes: list[Any]) -> str:
    return f"[{', '.join('n' if i == 0 else 'L' for i, _ in enumerate(sizes))}]"


_HOW = {
    "saved-model": "tf.saved_model.load('{path}').signatures['serving_default'](**inputs)['scores']",
    "keras": "keras.models.load_model('{path}')(inputs)['scores']; a SavedModel's signature `encode` makes the ids",
}
