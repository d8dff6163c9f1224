"""Libraries of small integer graphs, compared with the reference code for code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qcompiler.backend.artifact import write_artifact
from qcompiler.backend.library import Library
from qcompiler.backend.lower import lower
from qcompiler.interpret import run_integer
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Graph, Value
from qcompiler.ir.text import parse_graph
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS
from qcompiler.targets.target import load_target

Array = np.ndarray[Any, Any]


def read(text: str) -> Graph:
    """A verified graph."""
    graph = parse_graph(text)
    verify(graph, OPERATORS)
    return graph


def build(graph: Graph, folder: Path, batch_tile: int = 1, target: str = "x86-avx2", layout: str = "NCHW") -> Library:
    chosen = load_target(target)
    program = lower(graph, chosen.instruction_set, chosen.tvm_target, batch_tile, layout)
    return Library(write_artifact(program, chosen, folder).folder)


def fills(value: Value, n: int, limits: tuple[int, int] | None = None) -> list[Array]:
    """Random codes, all the smallest and all the largest."""
    dtype = value.type.dtype
    assert isinstance(dtype, IntegerType)
    low, high = limits or (dtype.minimum, dtype.maximum)
    shape = value.type.with_batch(n)
    random = np.random.default_rng(8).integers(low, high, shape, endpoint=True)
    return [x.astype(dtype.container) for x in (random, np.full(shape, low), np.full(shape, high))]


def compare(library: Library, graph: Graph, inputs: Sequence[Array]) -> None:
    """The library's codes are the reference's, for one thread and for two."""
    wanted = run_integer(graph, inputs)
    for threads in (1, 2):
        found = library.run_int(*inputs, threads=threads)
        for name, y, codes in zip(graph.outputs, (found,) if len(wanted) == 1 else found, wanted, strict=True):
            assert y.dtype == codes.dtype, name
            np.testing.assert_array_equal(y, codes, err_msg=name)
