"""A tower: the dense part of a model, run by LiteRT.

`content` is a LiteRT flatbuffer with inputs `embeddings` float32 [n, F, d] and `numbers` float32 [n, 2 k] (one is left
out when it would be empty; what they hold: headrace/scoring.py) and one output, the logit, [n] or [n, 1].

Inputs are written straight into the interpreter's memory. An interpreter is for one thread and one batch size: sizes
are powers of two up to 1,024, shorter batches are filled up with zeros, longer ones cut. Idle interpreters wait in a
pool, and a new tower begins with as many as its predecessor needed, so that none is built while somebody waits (7 us
for 1 candidate, 40 us for 50, with 20 features of width 16; 3 ms to build all sizes).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from headrace.errors import TowerRefused

Floats = npt.NDArray[np.float32]
Fill = Callable[[int, int, Floats | None, Floats | None], None]
"""fill(start, end, embeddings [b, F, d], numbers [b, 2 k]): writes candidates [start, end) to the first lines."""

LARGEST_BATCH: Final = 1024


class Tower:
    """Runs the LiteRT flatbuffer `content`. Starts with as many interpreters per batch size as `like` had in use."""

    def __init__(self, content: bytes, *, like: Tower | None = None) -> None:
        self.content = content
        self._pools: dict[int, list[_Interpreter]] = {}
        self._built: dict[int, int] = {}
        if like is None:
            self.warm({1: 1})
        else:
            self.warm(like.in_use())

    def warm(self, sizes: Mapping[int, int]) -> None:
        """Build interpreters {batch size: how many} and run each once. TowerRefused if LiteRT cannot."""
        for size, count in sizes.items():
            for _ in range(count):
                interpreter = self._build(size)
                interpreter.invoke()
                self._pools.setdefault(size, []).append(interpreter)

    def in_use(self) -> dict[int, int]:
        """Interpreters built so far, by batch size."""
        return dict(self._built)

    def run(self, n: int, fill: Fill) -> Floats:
        """Logits float32 [n] of n candidates whose inputs `fill` writes."""
        out = np.empty(n, np.float32)
        for start in range(0, n, LARGEST_BATCH):
            end = min(start + LARGEST_BATCH, n)
            with self._borrowed(bucket_of(end - start)) as interpreter:
                fill(start, end, interpreter.embeddings(), interpreter.numbers())
                out[start:end] = interpreter.invoke()[: end - start]
        return out

    def logits(self, embeddings: Floats | None, numbers: Floats | None) -> Floats:
        """Logits float32 [n] of `embeddings` float32 [n, F, d] and `numbers` float32 [n, 2 k]; None: no such input."""

        def fill(start: int, end: int, into: Floats | None, into_numbers: Floats | None) -> None:
            if into is not None and embeddings is not None:
                into[: end - start] = embeddings[start:end]
            if into_numbers is not None and numbers is not None:
                into_numbers[: end - start] = numbers[start:end]

        given = embeddings if embeddings is not None else numbers
        if given is None:
            raise ValueError("a tower needs embeddings or numbers")
        return self.run(len(given), fill)

    @contextlib.contextmanager
    def _borrowed(self, size: int) -> Iterator[_Interpreter]:
        try:
            interpreter = self._pools.setdefault(size, []).pop()
        except IndexError:
            interpreter = self._build(size)
        yield interpreter
        self._pools[size].append(interpreter)  # not after an error: its state is unknown

    def _build(self, size: int) -> _Interpreter:
        self._built[size] = self._built.get(size, 0) + 1
        return _Interpreter(self.content, size)


def bucket_of(n: int) -> int:
    """The batch size that n candidates run in.

    >>> bucket_of(1), bucket_of(50), bucket_of(64), bucket_of(1000)
    (1, 64, 64, 1024)
    """
    return 1 << (n - 1).bit_length()


def filled_up(n: int) -> int:
    """How many lines n candidates are run in, all batches together.

    >>> filled_up(50), filled_up(1024), filled_up(1030)
    (64, 1024, 1032)
    """
    rest = n % LARGEST_BATCH
    return n - rest + (bucket_of(rest) if rest else 0)


class _Interpreter:
    """One LiteRT interpreter, allocated for `size` candidates. Views of its inputs must be gone before `invoke`."""

    def __init__(self, content: bytes, size: int) -> None:
        try:
            with _quiet():
                self._start(content, size)
        except (ValueError, RuntimeError) as error:
            raise TowerRefused(
                f"LiteRT cannot run this tower: {error}", hint="train with a built-in model kind"
            ) from None

    def _start(self, content: bytes, size: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(model_content=content, num_threads=1)
        self._inputs: dict[str, Any] = {}
        for detail in self._interpreter.get_input_details():
            self._interpreter.resize_tensor_input(detail["index"], [size, *detail["shape_signature"][1:]])
            name = detail["name"].removeprefix("serving_default_").split(":")[0]
            self._inputs[name] = self._interpreter.tensor(detail["index"])
        unknown = set(self._inputs) - {"embeddings", "numbers"}
        if unknown or not self._inputs:
            raise ValueError(f"its inputs are {sorted(self._inputs)}, not `embeddings` and `numbers`")
        self._interpreter.allocate_tensors()
        for view in self._inputs.values():
            view()[...] = 0
        self._output = self._interpreter.tensor(self._interpreter.get_output_details()[0]["index"])

    def embeddings(self) -> Floats | None:
        return self._inputs["embeddings"]() if "embeddings" in self._inputs else None

    def numbers(self) -> Floats | None:
        return self._inputs["numbers"]() if "numbers" in self._inputs else None

    def invoke(self) -> Floats:
        """float32 [size]."""
        self._interpreter.invoke()
        logits: Floats = self._output().reshape(-1).copy()
        return logits


_first = threading.Lock()
_quieted = False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT writes one line about its delegate to file descriptor 2, once per process, and has no switch for it."""
    global _quieted  # noqa: PLW0603  a fact about the process
    if _quieted:
        yield
        return
    with _first:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)
            _quieted = True
