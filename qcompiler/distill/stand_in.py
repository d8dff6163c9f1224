"""Samples for a model that came without calibration data, if it needs some and its batch norms can tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcompiler.calibrate import Calibrate
from qcompiler.ir.graph import Graph, Stage
from qcompiler.ops.quantizer import is_quantized
from qcompiler.passes.graph_pass import run_passes
from qcompiler.pipeline import Settings, passes
from qcompiler.progress import Progress

if TYPE_CHECKING:
    from qcompiler.distill.distill import Distilled


def stand_in(graph: Graph, progress: Progress | None = None) -> Distilled | None:
    """What calibrates an imported graph; None where nothing is needed, or where nothing can be made."""
    if graph.stage is not Stage.FLOAT or not any(node.op == "batch_norm" for node in graph.nodes) or _complete(graph):
        return None
    from qcompiler.distill.distill import distill

    return distill(graph, progress=progress)


def _complete(graph: Graph) -> bool:
    """Whether the quantizers of a quantized model say the ranges of all values that are left when the graph is calibrated."""
    if not is_quantized(graph):
        return False
    steps = passes(Settings())
    end = next(index for index, step in enumerate(steps) if step.name == Calibrate.name)
    return all(value.range is not None for value in run_passes(graph, steps[:end]).values.values())
