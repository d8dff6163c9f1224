"""Samples for a model that came without calibration data, if it needs some and its batch norms can tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qcompiler.calibrate import Calibrate, shared_ranges
from qcompiler.ir.graph import Graph, Stage
from qcompiler.passes.graph_pass import run_passes
from qcompiler.pipeline import Settings, passes
from qcompiler.progress import Progress

if TYPE_CHECKING:
    from qcompiler.distill.distill import Distilled

Ranges = Mapping[str, tuple[float, float]]


def stand_in(graph: Graph, ranges: Ranges, progress: Progress | None = None) -> Distilled | None:
    """What calibrates an imported graph; None where nothing is needed, or where nothing can be made.

    ``ranges``: those that a quantized model brings along.
    """
    if graph.stage is not Stage.FLOAT or not any(node.op == "batch_norm" for node in graph.nodes) or _complete(graph, ranges):
        return None
    from qcompiler.distill.distill import distill

    return distill(graph, progress=progress)


def _complete(graph: Graph, ranges: Ranges) -> bool:
    """Whether ``ranges`` say those of all values that are left when the graph is calibrated."""
    if not ranges:
        return False
    steps = passes(Settings(ranges=ranges))
    end = next(index for index, step in enumerate(steps) if step.name == Calibrate.name)
    graph = run_passes(graph, steps[:end])
    known = shared_ranges(graph, ranges)
    return all(name in known for name in graph.values)
