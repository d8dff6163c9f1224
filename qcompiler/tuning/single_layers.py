"""What each layer's weights become at some bits when everything else stays float: what a search compares.

Weights are rounded as ``tuning.closed_form`` rounds them, on exact inputs, and the bias takes up the mean of what that changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from qcompiler.interpret import last_reads
from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node
from qcompiler.progress import Progress
from qcompiler.tuning.closed_form import CHUNK, Run, is_shared, node_results
from qcompiler.tuning.gptq import Statistics, measure, round_rows
from qcompiler.tuning.stored import Stored

if TYPE_CHECKING:
    from torch import Tensor

Rounded = dict[tuple[str, int], Mapping[str, "Tensor"]]
"""From a constant of weights and a number of bits to the constants that change with it, float32."""


@torch.no_grad()
def rounded_layers(graph: Graph, samples: Sequence[Array], bits: Sequence[int], progress: Progress | None = None) -> Rounded:
    """Every layer of its own weights at each of ``bits``; ``samples``: one float32 array ``[S, ...]`` for each input."""
    fixed = {c.name: torch.from_numpy(c.data.copy()) for c in graph.constants}
    run: Run = {}
    for value, x in zip(graph.inputs, samples, strict=True):
        run[value.name] = Stored(torch.split(torch.from_numpy(x), CHUNK))
    last, found = last_reads(graph), Rounded()
    layers = [node for node in graph.nodes if _alone(graph, node)]
    for index, node in enumerate(graph.nodes):
        if _alone(graph, node):
            statistics = measure(node, run[node.inputs[0]], run[node.inputs[0]], fixed[node.inputs[1]].shape)
            for count in bits:
                found[node.inputs[1], count] = _changed(graph, node, statistics, fixed, count)
            if progress:
                progress.advance("round alone", 1, len(layers))
        run[node.output.name] = Stored.of(node_results(node, run, fixed))
        for name in node.inputs:
            if last[name] <= index:
                run.pop(name, None)
    return found


def _changed(graph: Graph, node: Node, statistics: Statistics, fixed: Mapping[str, Tensor], bits: int) -> Mapping[str, Tensor]:
    weight = fixed[node.inputs[1]]
    rounded = round_rows(weight, statistics, bits)[0].to(torch.float32)
    changed = {node.inputs[1]: rounded}
    if len(node.inputs) == 3 and graph.uses(node.inputs[2]) == 1:
        groups, depth = statistics.rounded_mean.shape
        lost = (weight - rounded).to(torch.float64).reshape(groups, -1, depth) @ statistics.rounded_mean[:, :, None]
        changed[node.inputs[2]] = fixed[node.inputs[2]] + lost.reshape(-1).to(torch.float32)
    return changed


def _alone(graph: Graph, node: Node) -> bool:
    """Whether ``node`` has weights, constant and its own."""
    return node.op in WEIGHTED and node.inputs[1] in graph.constant and not is_shared(graph, node)
