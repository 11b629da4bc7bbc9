"""A version as an MLflow `python_function`: scored by numpy and LiteRT, without TensorFlow, pickle, Beam or gRPC.

`mlflow.pyfunc.load_model("models:/feed@champion")` puts the `code` folder of the model on the path, imports this module
and calls `_load_pyfunc` with the folder of its data:

    parameters.arrow   the snapshot of the version, the bytes that replicas read (headrace/delta.py)
    version.json       {"format": 1, "version", "schema", "prior", "offset", "watermark_us", "sha256" of the parameters}

`code` holds the modules of `MODULES`, so that headrace need not be installed where the model is used. Scores are those
of the service, bit for bit: the same code over the same bytes. `training/mlmodel.py` writes such a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from headrace.column import plain
from headrace.delta import read_delta
from headrace.encode import requested
from headrace.errors import InvalidRequest, NewerFormat
from headrace.record import check_sha256
from headrace.schema import Schema
from headrace.scoring import Inputs, Scorer, TableView
from headrace.tower import Tower

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.delta import Delta
    from headrace.features import Feature
    from headrace.scoring import Floats

FORMAT: Final = 1
PARAMETERS: Final = "parameters.arrow"
VERSION: Final = "version.json"

MODULES: Final = (
    "__init__",
    "column",
    "delta",
    "encode",
    "errors",
    "features",
    "idindex",
    "ids",
    "pyfunc",
    "record",
    "schema",
    "scoring",
    "times",
    "tower",
)
"""What of headrace this module needs at run time, itself included."""

LIBRARIES: Final = ("ai-edge-litert", "numpy", "pyarrow", "pyfarmhash")
"""The distributions that `MODULES` import."""


@dataclass(frozen=True)
class Version:
    """What MLflow calls `predict` of. `version` and `watermark_us` (None = nothing learned) say which and how fresh."""

    version: int
    watermark_us: int | None
    schema: Schema
    scorer: Scorer

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Floats:
        """Probabilities float32 [n] of n candidates.

        model_input: a pandas DataFrame [n], or columns by name; one column of raw values for each feature but the
        crosses, as a request has them (missing: None or NaN). Other columns are ignored. MissingFeature, WrongType,
        InvalidRequest.
        """
        del params
        features = [feature for feature in self.schema.features if feature.kind != "cross"]
        given = {feature.name: _column(feature, model_input) for feature in features if feature.name in model_input}
        encoded = Schema(
            tuple(
                requested(feature, given[feature.name].type) if feature.name in given else feature
                for feature in self.schema.features
            )
        ).encode_features(given)
        return self.scorer.score(Inputs.of(encoded))


def _column(feature: Feature, model_input: Any) -> pa.Array:
    """Raw values [n] of a feature."""
    try:
        return plain(pa.array(model_input[feature.name], from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as wrong:
        raise InvalidRequest(
            f"the values of feature '{feature.name}' are not of one type: {wrong}",
            hint="give strings, or numbers, with None where a value is missing",
            feature=feature.name,
        ) from None


def _load_pyfunc(path: str) -> Version:
    """MLflow's way in: `path` is the folder of the data. DamagedFile, NewerFormat."""
    folder = Path(path)
    described = json.loads((folder / VERSION).read_text(encoding="utf-8"))
    if described["format"] != FORMAT:
        raise NewerFormat(
            f"the model has format {described['format']}; this headrace reads {FORMAT}",
            hint="load it in an environment of its own: the model brings its code",
        )
    with pa.memory_map(str(folder / PARAMETERS)) as mapped:
        data = mapped.read_buffer()
    check_sha256(memoryview(data), described["sha256"], PARAMETERS)
    schema = Schema.from_json(described["schema"])
    scorer = _scorer(read_delta(data, name=PARAMETERS), schema, described["prior"], described["offset"])
    return Version(described["version"], described["watermark_us"], schema, scorer)


def _scorer(snapshot: Delta, schema: Schema, prior: float, offset: float) -> Scorer:
    return Scorer(
        [TableView.of(change.spec, change.ids, change.decoded()) for change in snapshot.changes],
        Tower(snapshot.tower) if snapshot.tower is not None else None,
        prior=prior,
        offset=offset,
        numbers=snapshot.numbers,
        number_names=schema.numbers,
    )
