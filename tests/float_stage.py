"""Runs the float passes of the pipeline, whichever there are, and checks that each of them keeps what a graph computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcompiler.calibrate import FirstSamples
from qcompiler.check_float import difference
from qcompiler.ir.graph import Array, Graph, Stage
from qcompiler.passes.graph_pass import Pass
from qcompiler.pipeline import Settings, passes


def float_stage(graph: Graph, samples: Sequence[Array], **settings: Any) -> list[tuple[Pass, Graph, Graph]]:
    """Every float pass with the graphs before and after it."""
    found: list[tuple[Pass, Graph, Graph]] = []
    for step in passes(Settings(samples=FirstSamples(inputs=list(samples)), **settings)):
        if step.gives is Stage.FLOAT:
            found.append((step, graph, step(graph)))
            graph = found[-1][2]
    return found


def check_float_stage(graph: Graph, samples: Sequence[Array]) -> None:
    """Each pass gives a graph with the same outputs for ``samples``."""
    for step, before, after in float_stage(graph, samples):
        assert after == before or difference(before, after, samples) is None, step.name
