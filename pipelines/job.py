"""The Beam pipeline of one tick, and how it is run.

    Impulse -> "orders" -> ["spread"] -> "read" -> "group" -> "join" (by part)

An element is an order or (part, Arrow table), never an event. Work runs on a thread pool inside the transforms (Arrow
releases the GIL). "spread" is there on runners with several workers. No side inputs, no CoGroupByKey, no file sinks of
Beam: each was found to lose data, speed or the coder.

The in-process runner is named explicitly: the switch behind Beam's `DirectRunner` first tries to download another
engine. It runs a translated pipeline again and again, of which only the payload of "orders" changes from tick to tick.

Errors: a worker's exception reaches the driver as text. `Failed` carries the error of headrace in that text, and
`recovered` finds it there, on any runner.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from headrace.arrow import memory_of_libc
from headrace.errors import HeadraceError, SettingsError
from pipelines import coder  # noqa: F401  (registers the coder of pa.Table)
from pipelines.orders import PartOrder, ReadOrder, Setup
from pipelines.work import join, order_table, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["InProcess", "OtherRunner", "run_of"]

IN_PROCESS = frozenset({"", "FnApiRunner", "DirectRunner", "direct"})
THREADS = max(2, os.cpu_count() or 2)
LABEL = "orders"

Order = ReadOrder | PartOrder


@cache
def pool() -> ThreadPoolExecutor:
    """The threads of this process; they outlive a tick, which would else spend much of its time on starting them."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="pipelines")


class Failed(Exception):
    """An error of headrace on its way through a runner."""

    def __init__(self, error: HeadraceError) -> None:
        context = {key: str(value) for key, value in error.context.items()}
        body = {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "context": context}
        packed = base64.b64encode(json.dumps(body).encode()).decode()
        super().__init__(f"{error} <<headrace {packed}>>")


def recovered(error: Exception) -> HeadraceError | None:
    """The error of headrace that a runner's exception carries."""
    found = re.search(r"<<headrace ([A-Za-z0-9+/=]+)>>", str(error))
    if found is None:
        return None
    body = json.loads(base64.b64decode(found.group(1)))
    kinds = {kind.__name__: kind for kind in _tree(HeadraceError)}
    return kinds.get(body["kind"], HeadraceError)(body["message"], hint=body["hint"], **body["context"])


def _tree(kind: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


class Orders(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """The orders of one tick."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self.orders = orders

    def process(self, _: bytes) -> Iterable[Order]:
        return iter(self.orders)


class Read(beam.DoFn):  # type: ignore[misc]
    """Order -> (part, table)."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def process(self, order: Order) -> Iterator[tuple[int, pa.Table]]:
        if isinstance(order, PartOrder):
            yield order_table(order)
            return
        try:
            yield from read(self._setup, order, pool())
        except HeadraceError as error:
            raise Failed(error) from error


class Join(beam.DoFn):  # type: ignore[misc]
    """(part, tables) -> files; parts run side by side and are waited for at the end of the bundle."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def start_bundle(self) -> None:
        self.running: list[Future[str]] = []

    def process(self, element: tuple[int, Iterable[pa.Table]]) -> None:
        self.running.append(pool().submit(join, self._setup, list(element[1])))

    def finish_bundle(self) -> None:
        for future in self.running:
            try:
                future.result()
            except HeadraceError as error:
                raise Failed(error) from error


def build(pipeline: beam.Pipeline, setup: Setup, orders: Sequence[Order], *, spread: bool) -> None:
    """Add the transforms of a tick. Labels are stable: runners key state and metrics by them."""
    ordered = pipeline | "impulse" >> beam.Impulse() | LABEL >> beam.ParDo(Orders(orders))
    if spread:
        ordered = ordered | "spread" >> beam.Reshuffle()
    tables = ordered | "read" >> beam.ParDo(Read(setup)).with_output_types(tuple[int, pa.Table])
    tables | "group" >> beam.GroupByKey() | "join" >> beam.ParDo(Join(setup))


class InProcess:
    """Beam's in-process runner on one translated pipeline."""

    spread = False

    def __init__(self, setup: Setup, arguments: Sequence[str] = ()) -> None:
        memory_of_libc()
        self._runner = FnApiRunner()
        self._options = PipelineOptions(list(arguments))
        pipeline = beam.Pipeline(runner=self._runner, options=self._options)
        build(pipeline, setup, (), spread=False)
        self._proto = pipeline.to_runner_api(default_environment=self._runner._default_environment)  # noqa: SLF001
        self._place = _place_of(self._proto)
        Path(pipeline.local_tempdir).rmdir()  # Beam makes one for each pipeline and leaves it

    def run(self, orders: Sequence[Order]) -> None:
        """Run one tick; returns when all results are written."""
        proto = beam_runner_api_pb2.Pipeline()
        proto.CopyFrom(self._proto)
        transform = proto.components.transforms[self._place]
        payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
        fn, *rest = pickler.loads(payload.do_fn.payload)
        payload.do_fn.payload = pickler.dumps((type(fn)(orders), *rest))
        transform.spec.payload = payload.SerializeToString()
        with _quiet():
            self._runner.run_via_runner_api(proto, self._options)


class OtherRunner:
    """Any other runner, by Beam's own flags; the pipeline is built anew for each tick."""

    spread = True

    def __init__(self, setup: Setup, arguments: Sequence[str]) -> None:
        self._setup = setup
        self._arguments = list(arguments)

    def run(self, orders: Sequence[Order]) -> None:
        with beam.Pipeline(options=PipelineOptions(self._arguments)) as pipeline:
            build(pipeline, self._setup, orders, spread=True)


class Run:
    """Runs the ticks of one process. Raises errors of headrace as themselves."""

    def __init__(self, runner: InProcess | OtherRunner) -> None:
        self._runner = runner

    def __call__(self, orders: Sequence[Order]) -> None:
        try:
            self._runner.run(orders)
        except HeadraceError:
            raise
        except Exception as error:
            found = recovered(error)
            if found is None:
                raise
            raise found from error


def run_of(setup: Setup, arguments: Sequence[str]) -> Run:
    """How to run ticks, by Beam's flags (`--runner=…` and what it takes)."""
    name, rest = split_runner(arguments)
    if name in IN_PROCESS:
        return Run(InProcess(setup, rest))
    if setup.store_url.startswith("memory:"):
        raise SettingsError(f"runner {name} cannot reach a store in memory", hint="set loop.root to a folder or bucket")
    return Run(OtherRunner(setup, arguments))


def split_runner(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The runner that Beam's flags name, "" for none, and the other flags.

    >>> split_runner(["--runner", "DirectRunner", "--job_name=x"])
    ('DirectRunner', ['--job_name=x'])
    """
    name, rest, given = "", [], iter(arguments)
    for argument in given:
        if argument == "--runner":
            name = next(given, "")
        elif argument.startswith("--runner="):
            name = argument.removeprefix("--runner=")
        else:
            rest.append(argument)
    return name, rest


def _place_of(proto: Any) -> str:
    """Id of the transform that holds the orders."""
    return next(
        str(key) for key, one in proto.components.transforms.items() if one.unique_name == LABEL and one.spec.payload
    )


class _quiet:  # noqa: N801  (used as a context)
    """Keeps Beam from logging the traceback of an error that is raised to the caller anyway."""

    def __enter__(self) -> None:
        self._level = logging.getLogger("apache_beam").level
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apache_beam").setLevel(self._level)
