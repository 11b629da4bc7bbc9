"""Answers calls from the served generation, which is read once per call: an answer comes from one version, whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.clock import SECOND_US
from headrace.errors import UnknownModel
from paramserver.convert import inputs_of
from protos import headrace_pb2 as wire

if TYPE_CHECKING:
    from headrace.clock import Now
    from paramserver.generation import Generation
    from paramserver.replica import Replica


class Predictor:
    """Scores the candidates of a call with the generation that `replica` serves."""

    def __init__(self, replica: Replica, *, model: str, max_candidates: int, now_us: Now) -> None:
        self.replica = replica
        self.model = model
        self.max_candidates = max_candidates
        self._now_us = now_us

    def predict(self, request: wire.PredictRequest) -> wire.PredictResponse:
        """UnknownModel, NotReady, InvalidRequest."""
        self.check_model(request.model)
        generation = self.replica.generation()
        inputs = inputs_of(request, generation.schema, self.max_candidates)
        scores = generation.scorer.score(inputs)
        return wire.PredictResponse(served=self.served(generation), scores=scores)

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
