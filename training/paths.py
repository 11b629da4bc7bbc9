"""Paths that `headrace export` and `headrace import` are given, checked before TensorFlow is loaded for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from headrace.errors import ExportRefused, ImportRefused

if TYPE_CHECKING:
    from pathlib import Path

Format = Literal["keras", "saved-model"]

SUFFIXES: Final = (".keras", ".h5", ".hdf5")


def format_of(path: Path, given: str) -> Format:
    """The format that a target and --format ask for. ExportRefused where they do not go together."""
    if path.suffix in (".h5", ".hdf5"):
        raise ExportRefused(
            f"{path.name}: HDF5 is not written any more by Keras 3", hint=f"--to {path.with_suffix('.keras')}"
        )
    form: Format = "keras" if path.suffix == ".keras" else "saved-model"
    if given not in ("", "keras", "saved-model"):
        raise ExportRefused(f"{given!r} is no format", hint="--format keras, or saved-model")
    if given and given != form:
        hint = f"--to {path}.keras" if given == "keras" else f"--to {path.with_suffix('')}"
        raise ExportRefused(
            f"a {given} export cannot be called {path.name}: a Keras archive ends with .keras", hint=hint
        )
    return form


def refuse_taken(path: Path, form: Format, *, force: bool) -> None:
    """ExportRefused if something has the name; with `force`, only if that is no export."""
    if not path.exists() and not path.is_symlink():
        return
    if not force:
        raise ExportRefused(f"{path} exists", hint="choose another --to, or replace it with --force", path=path)
    ours = path.is_file() if form == "keras" else (path / "saved_model.pb").is_file()
    if path.is_symlink() or not ours:
        kind = "Keras archive" if form == "keras" else "SavedModel"
        raise ExportRefused(f"{path} is no {kind}: it is not replaced", hint="choose another --to", path=path)


def check_model(path: Path) -> None:
    """ImportRefused if there is no model that could be read."""
    if not path.exists():
        raise ImportRefused(f"there is no {path}", hint="name a .keras file or the folder of a SavedModel", path=path)
    if path.is_dir() and not (path / "saved_model.pb").exists():
        hint = "name a .keras file or the folder that holds saved_model.pb"
        raise ImportRefused(f"{path} is no SavedModel: it has no saved_model.pb", hint=hint, path=path)
    if path.is_file() and path.suffix not in SUFFIXES:
        raise ImportRefused(f"{path} is no Keras archive", hint=f"its name ends with {', '.join(SUFFIXES)}", path=path)
