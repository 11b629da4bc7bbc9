"""Checkpoints: the trainer's state at one version, as raw arrays.

A checkpoint of version v is the file `models/<model>/checkpoints/<v, 12 digits>-<nonce>.npz`, a numpy archive without
compression or pickles (any numpy reads it; equal states give equal bytes). It is written aside; the record of version v
or of a later one names it with its SHA-256; if none does, it is garbage. Entries:

    meta                        uint8: JSON {"format": 2, "version", "fingerprint" (training/runtime.py), "design",
                                "rows", "newest_us", "frozen_of"}
    table/<name>/ids            int64 [n]: the map id -> row, in row order; -1: a free row
    table/<name>/newest_us, …/feature   int64, int16 [n]: training/expiry.py; not in format 1: nothing is known
    table/<name>/weights, …/slots   float32 [n, width]
    tower/<weight>, slots/<weight>  float32
    running/rows, …/mean, …/variance   float64 [k]
    admission/<group>/now, …/before, …/ids   training/admission.py; absent where every id has a row
    arrival/cohorts, …/counts, …/seen, …/among, …/newest_us   training/arrival.py; absent without late positives

The rest of what recovery needs stands in the version log and is read from there: cursor, held shards, requests,
evaluations, and the published table (the fold of snapshot and deltas, checked by its digest).
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import NewerFormat
from headrace.record import read_verified, sha256_of
from headrace.version import Kept
from training.expiry import FOR_GOOD
from training.runtime import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.store import Store
    from training.recipe import Design
    from training.state import State

FORMAT = 2


def write_checkpoint(store: Store, folder: str, state: State, version: int, nonce: str) -> Kept:
    """Writes the state as that of `version`; durable when it returns."""
    return write_copy(store, folder, copy_of(state, version), version, nonce)


def copy_of(state: State, version: int) -> dict[str, np.ndarray]:
    """The entries of the file, of their own memory: the state may learn on."""
    meta = {
        "format": FORMAT,
        "version": version,
        "fingerprint": fingerprint(),
        "design": _design_json(state.design),
        **state.meta(),
    }
    encoded = np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8)
    arrays = {name: value if value.flags.owndata else value.copy() for name, value in state.arrays().items()}
    return {"meta": encoded, **arrays}


def write_copy(store: Store, folder: str, entries: Mapping[str, np.ndarray], version: int, nonce: str) -> Kept:
    """Writes what `copy_of` gave; durable when it returns."""
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **dict(entries))
    data = sink.getbuffer()
    path = f"{folder}/{version:012d}-{nonce}.npz"
    store.write(path, data)
    return Kept(of=version, path=path, sha256=sha256_of(data), bytes=data.nbytes)


def read_checkpoint(store: Store, kept: Kept, state: State) -> dict[str, Any]:
    """Restores `state`, made for the same design, and returns the meta entry. DamagedFile, NewerFormat."""
    hint = "restore this checkpoint from a copy of the root, or start a new lineage with a new loop"
    data = read_verified(store, kept.path, kept.sha256, hint)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta: dict[str, Any] = json.loads(arrays.pop("meta").tobytes())
    if meta["format"] > FORMAT:
        raise NewerFormat(
            f"the checkpoint {kept.path} has format {meta['format']}", hint="upgrade headrace", path=kept.path
        )
    if meta["format"] == 1:
        meta["newest_us"] = 0
        for name in [name for name in arrays if name.endswith("/ids")]:
            rows, table = len(arrays[name]), name.removesuffix("ids")
            arrays[f"{table}newest_us"] = np.zeros(rows, np.int64)
            arrays[f"{table}feature"] = np.full(rows, FOR_GOOD, np.int16)
    state.restore(arrays, meta)
    return meta


def same_machine(meta: dict[str, Any]) -> bool:
    """Whether going on from this checkpoint gives the bits that the interrupted run would have given."""
    return bool(meta["fingerprint"] == fingerprint())


def _design_json(design: Design) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(asdict(design)))
    return value
