"""Input codes and the reference's outputs for them: calibration samples, and one sample of random codes.

Calibration samples are what the network is for; random codes reach the ends of the ranges, where kernels saturate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from qcompiler.interpret import quantize_input, run_integer
from qcompiler.ir.dtypes import I32, IntegerType
from qcompiler.ir.graph import Array, Graph, Value

INDICES: Final = (-3, 9)
"""Random indices: some may lie outside of their table, which is defined as well."""


@dataclass(frozen=True)
class Expected:
    """``inputs``: codes for each input of a graph, ``[S, ...]``; ``outputs``: the reference's codes for each output."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.inputs[0])

    def repeated(self, count: int) -> Expected:
        """``count`` samples: these, again and again."""
        places = np.arange(count) % self.samples
        return Expected(tuple(x[places] for x in self.inputs), tuple(y[places] for y in self.outputs))


def expected(graph: Graph, floats: Sequence[Array], most: int, seconds: float) -> Expected:
    """What the reference gives for at most ``most`` samples: one of random codes, the others of ``floats``, an array per input.

    The first of ``floats`` comes first, then the random one; no further one is begun after ``seconds``.
    """
    end = time.monotonic() + seconds
    done: list[tuple[list[Array], list[Array]]] = []
    for codes in _candidates(graph, floats):
        done.append((codes, run_integer(graph, codes)))
        if len(done) == most or time.monotonic() > end:
            break
    inputs, outputs = zip(*done, strict=True)
    return Expected(tuple(map(np.concatenate, zip(*inputs, strict=True))), tuple(map(np.concatenate, zip(*outputs, strict=True))))


def _candidates(graph: Graph, floats: Sequence[Array]) -> Iterator[list[Array]]:
    samples = (
        [quantize_input(value, x[index : index + 1]) for value, x in zip(graph.inputs, floats, strict=True)]
        for index in range(len(floats[0]) if floats else 0)
    )
    yield from islice(samples, 1)
    yield random_codes(graph)
    yield from samples


def random_codes(graph: Graph, seed: int = 0) -> list[Array]:
    """One sample for each input of an integer graph, all codes equally likely."""
    random = np.random.default_rng(seed)
    return [_random(value, random) for value in graph.inputs]


def _random(value: Value, random: np.random.Generator) -> Array:
    dtype = value.type.dtype
    assert isinstance(dtype, IntegerType)
    low, high = INDICES if dtype == I32 else (dtype.minimum, dtype.maximum)
    return random.integers(low, high, value.type.with_batch(1), endpoint=True).astype(dtype.container)
