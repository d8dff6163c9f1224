"""Random graphs of every operator under memcheck: none of their kernels reads what nobody has written, or beyond its tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcompiler.interpret import run_integer
from tests.backend.memcheck import TARGETS, memchecked
from tests.wall.many import build_many, codes, random_integer_graph

GRAPHS = 20


@pytest.mark.parametrize("target", TARGETS)
def test_random_graphs(tmp_path: Path, target: str) -> None:
    graphs = [random_integer_graph(7000 + index) for index in range(GRAPHS)]
    artifact = build_many(graphs, target, tmp_path / "net")
    random = np.random.default_rng(0)
    inputs = [[codes(value, random, None) for value in graph.inputs] for graph in graphs]
    found = iter(memchecked(artifact, [x for xs in inputs for x in xs], tmp_path))
    for graph, xs in zip(graphs, inputs, strict=True):
        for expected in run_integer(graph, xs):
            assert np.array_equal(next(found), expected), graph
