"""What every imported graph has to keep: the verifier's rules, and the outputs of the model that it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from qcompiler.errors import CompileError
from qcompiler.importers.load import load_model
from qcompiler.interpret import run_float
from qcompiler.ir.graph import Graph, Stage
from qcompiler.ir.text import MemoryStore, parse_graph, print_graph
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS
from tests.float_stage import check_float_stage

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal_numbers(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.normal(size=shape).astype(np.float32)


def positive_numbers(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.uniform(0.1, 3, size=shape).astype(np.float32)


def whole_numbers(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.integers(0, 5, size=shape)


def check_graph(
    graph: Graph,
    expected: Callable[[list[np.ndarray]], Sequence[np.ndarray]],
    batches: Sequence[int] = (1, 3),
    draw: Draw = normal_numbers,
) -> None:
    """``graph`` is well formed, its dump parses back, and it gives what ``expected`` gives, also after the float passes."""
    assert graph.stage is Stage.FLOAT
    verify(graph, OPERATORS)
    store = MemoryStore()
    assert parse_graph(print_graph(graph, store), store) == graph
    generator = np.random.default_rng(0)
    for n in batches:
        arrays = [draw(generator, v.type.with_batch(n)) for v in graph.inputs]
        ours = run_float(graph, [torch.from_numpy(x).float() for x in arrays])
        for mine, theirs in zip(ours, expected(arrays), strict=True):
            assert tuple(mine.shape) == theirs.shape
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-4, atol=1e-4)
    check_float_stage(graph, [x.astype(np.float32) for x in arrays])


def problem_of(model: object, example_inputs: object = None) -> str:
    """The whole text of the error that importing ``model`` gives."""
    with pytest.raises(CompileError) as caught:
        load_model(model, example_inputs)  # type: ignore[arg-type]
    return str(caught.value)
