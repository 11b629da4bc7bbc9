"""Rows of Embedding layers in Keras models, and the text that each row stands for.

A Keras archive (.keras, .h5) is read by `keras.models.load_model`, in its safe mode; the vocabulary of a layer is that
of the StringLookup or IntegerLookup whose output it reads, as it is: between the two may be only what changes no number
(`PASSING`). Of a SavedModel only the variables are read, by their names (`…/<layer>/embeddings`): what its lookups hold
is not told, so their vocabularies come from files.

    row of a layer     first the mask, if the lookup has one, then those out of the vocabulary, then a row for each text
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from headrace.errors import ImportRefused
from training.paths import check_model
from training.runtime import tf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Floats = npt.NDArray[np.float32]

UNKNOWN: Final = "[UNK]"
PASSING: Final = frozenset(
    {
        *("Reshape", "Flatten", "Ravel", "Permute", "Transpose", "ExpandDims", "Squeeze", "RepeatVector", "Repeat"),
        *("GetItem", "Split", "Stack", "Concatenate", "Identity", "Dropout", "SpatialDropout1D"),
    }
)
"""Operations of Keras whose output has numbers of their inputs and no others."""


@dataclass(frozen=True)
class Layer:
    """rows: float32 [n, width]. texts: of the rows from `first` on, one each; None: not known, and why, if it is known.
    unknown: numbers of the rows that are out of the vocabulary. nameable: whether a file of texts could help.
    """

    name: str
    rows: Floats
    texts: tuple[str, ...] | None = None
    unknown: tuple[int, ...] = ()
    first: int = 0  # row of the first text
    why: str = ""
    nameable: bool = True

    def named(self, lines: list[str], file: str) -> Layer:
        """With the texts of a vocabulary file. ImportRefused if they are not as many as rows.

        As `get_vocabulary()` gives them, an empty line (the mask) and those of `[UNK]` come first: then a line is a row
        and rows behind the last may be spare. Without, one line less than rows leaves out row 0, which is unknown.
        """
        masked = int(lines[0] == "")
        first = next((at for at in range(masked, len(lines)) if lines[at] != UNKNOWN), len(lines))
        spare = len(self.rows) - len(lines)
        if spare not in (0, 1):
            raise ImportRefused(
                f"layer '{self.name}' has {len(self.rows):,} rows, but {file} has {len(lines):,} lines",
                hint="give one line per row, in their order; without a line for row 0 if it is out of the vocabulary",
                layer=self.name,
            )
        odd = [at for at, text in enumerate(lines) if text == UNKNOWN and at >= first]
        if spare and first == masked and lines[0] in ("", "-1"):
            odd.insert(0, 0)
        if odd:
            raise ImportRefused(
                f"line {odd[0] + 1} of {file} is {lines[odd[0]]!r}, which may be a text or stand for none",
                hint=f"write what get_vocabulary() gives: an empty line for the mask, if there is one, then {UNKNOWN}, "
                "then one text per row",
                layer=self.name,
            )
        if spare and not first:
            return replace(self, texts=tuple(lines), unknown=(0,), first=1)
        return replace(self, texts=tuple(lines[first:]), unknown=tuple(range(masked, first)), first=first)


def layers_of(path: Path) -> dict[str, Layer]:
    """Name -> layer, of all Embedding layers. ImportRefused if there are none, or the model cannot be read."""
    check_model(path)
    found = list(_of_saved_model(path) if path.is_dir() else _of_keras(path))
    layers = {layer.name: layer for layer in found}
    if not layers:
        raise ImportRefused(f"{path} has no Embedding layer", hint="rows are taken from those alone", path=path)
    if len(layers) < len(found):
        names = [layer.name for layer in found]
        twice = next(name for name in names if names.count(name) > 1)
        raise ImportRefused(f"{path} has several layers '{twice}'", hint="rename one and save it again", layer=twice)
    return layers


def _of_keras(path: Path) -> Iterator[Layer]:
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises what it likes
        lines = str(error).splitlines() or [type(error).__name__]
        missing = [line for line in lines if line.startswith("Exception encountered: Could not locate class")]
        raise ImportRefused(
            f"Keras cannot load {path}: {(missing or lines)[0].removeprefix('Exception encountered: ')}",
            hint="save a model that needs no code of its own: the lookups and Embedding layers are enough",
            path=path,
        ) from error
    for layer in model._flatten_layers(include_self=False):  # noqa: SLF001  there is no public way into nested ones
        if isinstance(layer, keras.layers.Embedding):
            yield _layer_of(layer)


def _layer_of(layer: Any) -> Layer:
    rows = np.asarray(keras.ops.convert_to_numpy(layer.embeddings), np.float32)
    found = list(dict.fromkeys(one for one in _before(layer, _passes) if not _passes(one)))
    lookups = [one for one in found if isinstance(one, keras.layers.StringLookup | keras.layers.IntegerLookup)]
    if len(lookups) != 1 or len(found) != 1 or lookups[0].output_mode != "int" or lookups[0].name.endswith(".lines"):
        why, nameable = _why(found, _before(layer, lambda _: True))
        return Layer(layer.name, rows, why=why, nameable=nameable)
    lookup = lookups[0]
    texts = tuple(str(text) for text in lookup.get_vocabulary(include_special_tokens=False))
    first = lookup.vocabulary_size() - len(texts)
    if first + len(texts) > len(rows):
        return Layer(layer.name, rows, why=f"'{lookup.name}' has more words than it has rows")
    masked = int(lookup.mask_token is not None)
    return Layer(layer.name, rows[: first + len(texts)], texts, tuple(range(masked, first)), first)


def _before(layer: Any, through: Callable[[Any], bool]) -> Iterator[Any]:
    """The operations that made what a layer reads, wherever it stands, and those before one that is gone `through`."""
    nodes, seen = list(layer._inbound_nodes), set()  # noqa: SLF001
    while nodes:
        for tensor in nodes.pop(0).arguments.keras_tensors:
            history = tensor._keras_history  # noqa: SLF001
            operation, at = history.operation, history.node_index
            if (operation, at) in seen:
                continue
            seen.add((operation, at))
            yield operation
            if through(operation):
                nodes.append(operation._inbound_nodes[at])  # noqa: SLF001


def _passes(operation: Any) -> bool:
    kind = type(operation).__name__
    return kind in PASSING or (kind == "Cast" and operation.dtype in ("int32", "int64"))


def _why(found: Sequence[Any], ancestors: Iterable[Any]) -> tuple[str, bool]:
    """Why what the operations `found` made are no places of one lookup, and whether a file of texts could help."""
    for one in ancestors:
        if isinstance(one, keras.layers.Hashing | keras.layers.HashedCrossing):
            return f"its rows are buckets of '{one.name}': many words share one", False
        if one.name.endswith(".lines"):
            return "it is a table of a headrace export: its words are hashes of all features", False
    others = [one for one in found if not isinstance(one, keras.layers.InputLayer)]
    if not others:
        return "", True
    names = " and ".join(f"'{one.name}'" for one in found)
    return f"it reads what {names} make{'s' * (len(found) == 1)}, not the places of one lookup", True


def _of_saved_model(path: Path) -> Iterator[Layer]:
    """Reads the names of variables and their values; nothing of the model is run."""
    try:
        described = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        values = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        graph = TrackableObjectGraph.FromString(values.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    except (OSError, ValueError, DecodeError, tf.errors.OpError) as error:
        text = str(error).splitlines()[0]
        raise ImportRefused(f"TensorFlow cannot read {path}: {text}", hint="save it again", path=path) from error
    for name, key in _variables(described.meta_graphs[0].object_graph_def.nodes, graph.nodes).items():
        parts = name.split("/")
        shape = values.get_variable_to_shape_map().get(key, [])
        if parts[-1] == "embeddings" and len(parts) > 1 and len(shape) == 2:
            yield Layer(parts[-2], values.get_tensor(key).astype(np.float32))


def _variables(described: Any, saved: Any) -> dict[str, str]:
    """Name of a variable -> its key in the checkpoint. Both are graphs of objects, walked from the root together."""
    found: dict[str, str] = {}
    seen, waiting = set(), [(0, 0)]
    while waiting:
        pair = waiting.pop()
        if pair in seen:
            continue
        seen.add(pair)
        one, other = described[pair[0]], saved[pair[1]]
        if one.WhichOneof("kind") == "variable" and other.attributes:
            found.setdefault(one.variable.name, other.attributes[0].checkpoint_key)
        children = {child.local_name: child.node_id for child in other.children}
        waiting += [(c.node_id, children[c.local_name]) for c in one.children if c.local_name in children]
    return found
