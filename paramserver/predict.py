"""Answers calls from the served generation, which is read once per call: an answer comes from one version, whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from headrace.clock import SECOND_US
from headrace.errors import InvalidRequest, UnknownModel
from paramserver.convert import inputs_of
from paramserver.packed import answer, parsed
from protos import headrace_pb2 as wire

if TYPE_CHECKING:
    from headrace.clock import Now
    from paramserver.generation import Generation
    from paramserver.replica import Replica

MOST_VALUES: Final = 2**19
"""In the answer of one Lookup: 2 MiB."""


class Predictor:
    """Scores the candidates of a call with the generation that `replica` serves."""

    def __init__(self, replica: Replica, *, model: str, max_candidates: int, now_us: Now) -> None:
        self.replica = replica
        self.model = model
        self.max_candidates = max_candidates
        self._now_us = now_us

    def predict(self, request: wire.PredictRequest) -> wire.PredictResponse:
        """UnknownModel, NotReady, InvalidRequest."""
        answered: wire.PredictResponse = wire.PredictResponse.FromString(self.answer(request.SerializeToString())[0])
        return answered

    def answer(self, data: bytes) -> tuple[bytes, int]:
        """The bytes of the answer to the bytes of a request, and how many candidates it had; errors as `predict`."""
        request = parsed(data)
        self.check_model(request.message.model)
        generation = self.replica.generation()
        inputs = inputs_of(request, generation.schema, self.max_candidates)
        return answer(self.served(generation), generation.scorer.score(inputs)), inputs.n

    def lookup(self, request: wire.LookupRequest) -> wire.LookupResponse:
        """UnknownModel, NotReady, InvalidRequest."""
        self.check_model(request.model)
        generation = self.replica.generation()
        table = next((table for table in generation.tables.tables if table.spec.name == request.table), None)
        if table is None:
            names = [table.spec.name for table in generation.tables.tables]
            raise InvalidRequest(
                f"version {generation.version} has no table {request.table!r}",
                hint=f"its tables are: {', '.join(names)}" if names else "nothing was learned yet",
                table=request.table,
            )
        if len(request.ids) * table.spec.width > MOST_VALUES:
            raise InvalidRequest(
                f"{len(request.ids)} rows of {table.spec.width} values are too many for one answer",
                hint=f"ask for {MOST_VALUES // table.spec.width} ids at a time",
                ids=len(request.ids),
            )
        ids = np.array(request.ids, np.uint64).view(np.int64)  # 2^63 and more: ids that nobody has
        rows = [wire.Row(values=row) for row in table.rows_of(ids)]
        return wire.LookupResponse(served=self.served(generation), rows=rows)

    def served(self, generation: Generation) -> wire.Served:
        """What answers, and how old its newest knowledge is."""
        served = wire.Served(model=self.model, version=generation.version)
        watermark_us = generation.record.watermark_us
        if watermark_us is not None:
            served.watermark_us = watermark_us
            served.age_s = (self._now_us() - watermark_us) / SECOND_US
        return served

    def check_model(self, name: str) -> None:
        """UnknownModel unless `name` is the model of this server, or empty."""
        if name not in ("", self.model):
            raise UnknownModel(f"this server has no model {name!r}", hint=f"it serves {self.model!r}", model=name)
