"""The wall: random graphs out of every operator, from float to the machine code of every target, bit for bit.

``examples/benchmarks/fuzz.py`` runs as many as one likes; here are the first of them, and those that reach every kind of kernel
that thousands of others do: every schedule, epilogue and width of weights, on every target.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

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
from qcompiler.targets.target import available_targets, host_refusal, load_target, native_target
from tests.tools import CROSS, EMULATOR, need
from tests.wall.many import build_many, codes, mismatches, random_integer_graph
from tests.wall.random_graphs import random_graph, random_inputs
from tests.wall.reach import known, reached

FRESH = 20  # graphs that were not chosen
STEPPED = (
    "floor",
    "ceil",
    "round",
    "gt(",
)  # functions with steps: a rounding error of the input moves their result by a whole step


LIBRARIES = 4
"""Of each target. Graphs are dealt out, so that all are about as large."""


def seeds_of(library: int) -> tuple[int, ...]:
    seeds = [*range(FRESH), *(seed for seed in known()[0] if seed >= FRESH)]
    return tuple(seeds[library::LIBRARIES])


def libraries() -> list[Any]:
    """Every target with each library; other targets than this machine's best are for ``-m exhaustive``."""
    usual = native_target().name
    found = []
    for name in available_targets():
        marks = [pytest.mark.arm64] if load_target(name).architecture == "aarch64" else []
        marks += [] if name == usual else [pytest.mark.exhaustive]
        found += [pytest.param(name, library, marks=marks) for library in range(LIBRARIES)]
    return found


@cache
def integer_graphs(library: int) -> tuple[Graph, ...]:
    return tuple(map(random_integer_graph, seeds_of(library)))


@pytest.mark.parametrize(("target", "library"), libraries())
def test_libraries_equal_the_reference(target: str, library: int, tmp_path: Path) -> None:
    refusal = host_refusal(load_target(target))
    if load_target(target).architecture == "aarch64":
        need(CROSS, EMULATOR)
    elif refusal:
        pytest.skip(refusal)
    graphs = integer_graphs(library)
    found = mismatches(graphs, build_many(graphs, target, tmp_path / "library", 2 if library == 0 else 1))
    assert not found, f"{len(found)} outputs differ; the first is of seed {seeds_of(library)[found[0].index]}: {found[0]}"


def test_the_graphs_reach_every_kind_of_kernel() -> None:
    """What thousands of graphs reach, these do; where passes changed what a seed becomes, choose seeds again (see reach)."""
    drawn: dict[str, set[str]] = {}
    for library in range(LIBRARIES):
        for graph in integer_graphs(library):
            for target, forms in reached(graph).items():
                drawn.setdefault(target, set()).update(forms)
    never = {target: sorted(forms - drawn[target]) for target, forms in known()[1].items()}
    assert not any(never.values()), f"never executed: {never}"


def test_the_graphs_have_every_operator() -> None:
    drawn = {node.op for library in range(LIBRARIES) for graph in integer_graphs(library) for node in graph.nodes}
    assert drawn == {name for name, operator in OPERATORS.items() if Stage.INTEGER in operator.stages}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
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
