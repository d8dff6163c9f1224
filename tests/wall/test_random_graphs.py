"""The wall: random graphs out of every operator, from float to the machine code of every target, bit for bit.

``examples/benchmarks/fuzz.py`` runs as many as one likes; here are 300 of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcompiler.interpret import run_float, run_integer
from qcompiler.ir.graph import Graph, Stage
from qcompiler.ir.text import parse_graph, print_graph
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.correct_bias import CorrectBias
from qcompiler.pipeline import STAGES, Settings, passes, to_integer
from qcompiler.targets.target import available_targets, host_refusal, load_target
from tests.tools import CROSS, EMULATOR, need
from tests.wall.many import build_many, codes, mismatches, random_integer_graph
from tests.wall.random_graphs import random_graph, random_inputs

GRAPHS = 300
EACH = 50  # graphs in a library
STEPPED = (
    "floor",
    "ceil",
    "round",
    "gt(",
)  # functions with steps: a rounding error of the input moves their result by a whole step


def libraries() -> Iterator[object]:
    """Every target with the first seed of each library; arm64-dotprod differs from arm64-neon in convolutions alone."""
    for name in available_targets():
        marks = [pytest.mark.arm64] if load_target(name).architecture == "aarch64" else []
        for first in range(0, 2 * EACH if name == "arm64-dotprod" else GRAPHS, EACH):
            yield pytest.param(name, first, marks=marks)


@cache
def integer_graphs(first: int) -> tuple[Graph, ...]:
    return tuple(random_integer_graph(seed) for seed in range(first, first + EACH))


@pytest.mark.parametrize(("target", "first"), libraries())
def test_libraries_equal_the_reference(target: str, first: int, tmp_path: Path) -> None:
    refusal = host_refusal(load_target(target))
    if load_target(target).architecture == "aarch64":
        need(CROSS, EMULATOR)
    elif refusal:
        pytest.skip(refusal)
    graphs = integer_graphs(first)
    tile = 2 if first == 0 else 1
    found = mismatches(graphs, build_many(graphs, target, tmp_path / "library", tile))
    assert not found, f"{len(found)} outputs differ; the first is of seed {first + found[0].index}: {found[0]}"


def test_the_graphs_have_every_operator() -> None:
    drawn = {node.op for first in range(0, GRAPHS, EACH) for graph in integer_graphs(first) for node in graph.nodes}
    assert drawn == {name for name, operator in OPERATORS.items() if Stage.INTEGER in operator.stages}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_passes_keep_what_a_graph_computes(seed: int) -> None:
    """Every float pass keeps the outputs, every dump reads back, and the reference stays within its types on extreme codes."""
    graph = random_graph(Random(seed))
    inputs = random_inputs(graph, 4, seed)
    tensors = [torch.from_numpy(x) for x in inputs]
    wanted = run_float(graph, tensors)
    sharp = any(node.op in ("argmax", "topk_indices") for node in graph.nodes) or any(
        step in str(node.get("expression", "")) for node in graph.nodes for step in STEPPED
    )

    def after(name: str, result: Graph) -> None:
        assert parse_graph(print_graph(result)) == result
        if sharp or result.stage is Stage.INTEGER or name in CHANGING:
            return
        for expected, found in zip(wanted, run_float(result, tensors), strict=True):
            assert expected.shape == found.shape
            room = 2e-3 * (float(expected.abs().max()) + 1e-6)
            assert math.isfinite(room)
            assert float((expected - found).abs().max()) <= room, name

    integer = to_integer(graph, Settings(tuple(inputs), "minmax"), after)
    for extreme in (None, 0, 1):
        random = np.random.default_rng(seed)
        run_integer(integer, [codes(value, random, extreme) for value in integer.inputs])


CHANGING = {step.name for step in passes(Settings()) if STAGES.index(step.requires) >= STAGES.index(Stage.CALIBRATED)} | {
    CorrectBias(Settings().samples).name
}
"""Passes that change what the float graph computes, on purpose."""
