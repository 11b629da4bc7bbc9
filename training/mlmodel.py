"""A snapshot as the folder of an MLflow model: what `mlflow.pyfunc.load_model` loads without TensorFlow.

    MLmodel, requirements.txt, …    as MLflow writes them; the requirements are pinned and few
    code/headrace/                  the modules that score (`headrace.pyfunc.MODULES`)
    data/                           parameters.arrow and version.json, see headrace/pyfunc.py
    input_example.json              one event of the source, where there is one

Nothing in it is pickled, nothing is run to write it.
"""

from __future__ import annotations

import json
import shutil
import warnings
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import headrace
from headrace import pyfunc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.store import Store
    from headrace.version import Kept, VersionRecord

LOADER: Final = "headrace.pyfunc"
_BLOCK_BYTES: Final = 8 << 20


def save(
    folder: Path, store: Store, record: VersionRecord, snapshot: Kept, example: Mapping[str, Any] | None = None
) -> Path:
    """Writes the model of version `record`, whose rows are in `snapshot`, below `folder`; where. NotFound.

    example: one value of each feature but the crosses, as a request has them.
    """
    data = folder / "data"
    data.mkdir()
    _fetch(store, snapshot, data / pyfunc.PARAMETERS)
    described = {
        "format": pyfunc.FORMAT,
        "version": record.version,
        "schema": record.schema,
        "prior": record.prior,
        "offset": record.offset,
        "watermark_us": record.watermark_us,
        "sha256": snapshot.sha256,
    }
    (data / pyfunc.VERSION).write_text(json.dumps(described, sort_keys=True), encoding="utf-8")
    with warnings.catch_warnings():  # about its own type hints, and models without an example
        warnings.simplefilter("ignore")
        _write(folder, data, record, example)
    return folder / "model"


def _write(folder: Path, data: Path, record: VersionRecord, example: Mapping[str, Any] | None) -> None:
    import pandas as pd
    from mlflow.pyfunc import save_model

    save_model(
        path=str(folder / "model"),
        loader_module=LOADER,
        data_path=str(data),
        code_paths=[str(_code(folder))],
        pip_requirements=requirements(),
        signature=signature_of(record.schema),
        input_example=None if example is None else pd.DataFrame({name: [value] for name, value in example.items()}),
        metadata={"loop_version": record.version, "watermark_us": record.watermark_us, "kind": record.model["kind"]},
    )


def requirements() -> list[str]:
    """What scoring needs, as it is installed here."""
    return [f"{name}=={installed(name)}" for name in ("mlflow", *pyfunc.LIBRARIES)]


def signature_of(schema: Mapping[str, Any]) -> Any:
    """MLflow's signature: any value for each feature, as in a request; one score."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec
    from numpy import dtype

    names = [feature["name"] for feature in schema["features"] if feature["kind"] != "cross"]
    inputs = Schema([ColSpec(AnyType(), name, required=True) for name in names])
    return ModelSignature(inputs, Schema([TensorSpec(dtype("float32"), (-1,), "score")]))


def _code(folder: Path) -> Path:
    """The package `headrace` with the modules that score, and no other."""
    package = folder / "headrace"
    package.mkdir()
    for name in pyfunc.MODULES:
        shutil.copyfile(Path(headrace.__file__).parent / f"{name}.py", package / f"{name}.py")
    return package


def _fetch(store: Store, snapshot: Kept, to: Path) -> None:
    local = store.path_of(snapshot.path)
    if local is not None and local.exists():
        shutil.copyfile(local, to)
        return
    with to.open("wb") as file:
        for start in range(0, snapshot.bytes, _BLOCK_BYTES):
            file.write(store.read_range(snapshot.path, start, start + _BLOCK_BYTES))
