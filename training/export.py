"""Exports: a version as an artifact for programs that do not know headrace, checked before it gets its name.

1. Read the version, whole.
2. Write the artifact aside, as `.<name>.<nonce>` in the folder where it is to be.
3. Load it with stock TensorFlow or Keras and compare: ids with `Schema.encode`, scores with the server's scorer.
4. Rename it. Under --force what had the name goes aside first and is deleted last.

Whatever dies before 4 leaves a hidden file or folder that may be deleted, and what had the name as it was; between the
two renames of 4 a folder that had the name is found aside.
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import shutil
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headrace.errors import ExportRefused, StoreFull
from training.alike import check_keras, check_saved_model
from training.ingraph import encoded_signature, raw_signature
from training.paths import refuse_taken
from training.runtime import tf
from training.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from headrace.features import Feature
    from headrace.loop import Loop
    from training.paths import Format
    from training.served import Say, Served

TOLERANCE: Final = 1e-5
SIDECAR: Final = "headrace.json"


@dataclass(frozen=True)
class Exported:
    """What was written. difference: the greatest between its scores and the server's; inputs: feature -> its signature
    and what it holds; bytes: of all files.
    """

    path: str
    format: Format
    version: int
    rows: int
    bytes: int
    difference: float
    inputs: Mapping[str, Mapping[str, Any]]


def export(loop: Loop, version: int | None, path: Path, form: Format, *, force: bool, say: Say) -> Exported:
    """Writes version `version` (None: the one that is served) to `path`. ExportRefused, StoreFull, TowerRefused."""
    refuse_taken(path, form, force=force)
    whole = served(loop, version, say)
    aside = path.parent / f".{path.stem}.{secrets.token_hex(4)}{path.suffix}"
    try:
        with _room(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        _write(whole, aside, form, say)
        say("checking that what was written answers as the service does")
        difference = (check_keras if form == "keras" else check_saved_model)(whole, aside)
        if not difference <= TOLERANCE:
            raise ExportRefused(
                f"the export answers otherwise than the service: scores differ by {difference:.2g}",
                hint="this is a defect of headrace: please report it with your [model] and [features] settings",
                version=whole.record.version,
            )
        found = _exported(whole, path, form, difference, aside)
        with _room(path):
            _rename(aside, path, force=force)
    finally:
        _delete(aside)
    return found


def _write(whole: Served, aside: Path, form: Format, say: Say) -> None:
    """With the sidecar, which says what the inputs hold. StoreFull."""
    text = json.dumps(_sidecar(whole, form), indent=2)
    with _room(aside):
        if form == "keras":
            from training.kerasmodel import write_keras

            write_keras(whole, aside, say)
            with zipfile.ZipFile(aside, "a") as archive:
                archive.writestr(SIDECAR, text)
        else:
            from training.savedmodel import write_saved_model

            write_saved_model(whole, aside, say)
            (aside / "assets.extra").mkdir()
            (aside / "assets.extra" / SIDECAR).write_text(text, encoding="utf-8")


def _sidecar(whole: Served, form: Format) -> dict[str, Any]:
    record = whole.record
    return {
        "headrace": record.code,
        "version": record.version,
        "watermark_us": record.watermark_us,
        "schema_fingerprint": whole.schema.fingerprint,
        "schema": whole.schema.to_json(),
        "inputs": _inputs(whole, form),
    }


def _inputs(whole: Served, form: Format) -> dict[str, dict[str, Any]]:
    specs = raw_signature(whole.schema) if form == "saved-model" else encoded_signature(whole.schema)
    found = {}
    for name, spec in specs.items():
        says = _raw(whole.schema[name]) if form == "saved-model" else _encoded(whole.schema[name])
        shape = spec.shape.as_list()
        found[name if form == "keras" else spec.name] = {"dtype": spec.dtype.name, "shape": shape, "holds": says}
    return found


def _raw(feature: Feature) -> str:
    says = {
        "number": "the number; NaN = missing",
        "bucket": "the number; NaN = missing",
        "time": "microseconds since 1970 UTC; -2^63 = missing",
        "ids": "texts; the byte FF = missing, the byte FE = padding",
    }
    return says.get(feature.kind, "the text, integers in decimal; the byte FF = missing")


def _encoded(feature: Feature) -> str:
    if feature.kind == "number":
        return f"{'log1p of ' if feature.transform == 'log1p' else ''}the number; NaN = missing"
    return "ids, padded with -1" if feature.kind == "ids" else "the id"


def _exported(whole: Served, path: Path, form: Format, difference: float, aside: Path) -> Exported:
    files = [aside] if aside.is_file() else [file for file in aside.rglob("*") if file.is_file()]
    return Exported(
        path=str(path),
        format=form,
        version=whole.record.version,
        rows=whole.table.digest().rows,
        bytes=sum(file.stat().st_size for file in files),
        difference=difference,
        inputs=_inputs(whole, form),
    )


@contextlib.contextmanager
def _room(path: Path) -> Iterator[None]:
    """StoreFull in place of what the file system says, itself or through TensorFlow."""
    try:
        yield
    except tf.errors.OpError as error:
        hint = "make room there, or choose another --to"
        raise StoreFull(f"{path.parent} cannot be written: {error.message}", hint=hint, path=path) from error
    except OSError as error:
        hints = {errno.ENOSPC: "make room there", errno.EACCES: "give this user the right to write there"}
        raise StoreFull(
            f"{path.parent} cannot be written: {error.strerror or error}",
            hint=f"{hints.get(error.errno or 0, 'see the message')}, or choose another --to",
            path=path,
        ) from error


def _rename(aside: Path, path: Path, *, force: bool) -> None:
    """Step 4."""
    if not force or not path.is_dir():
        if not force and path.exists():  # it came meanwhile
            raise ExportRefused(f"{path} exists", hint="choose another --to, or replace it with --force", path=path)
        aside.replace(path)
        return
    old = aside.with_name(f"{aside.name}.old")
    path.replace(old)
    aside.replace(path)
    _delete(old)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink()
