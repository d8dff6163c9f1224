"""What the batch norms of a float graph say about its values: mean and deviation of every channel, as training saw them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from qcompiler.ir.graph import Graph, Node

if TYPE_CHECKING:
    from torch import Tensor

_NO_GRADIENT: Final = ("argmax", "embedding", "topk_indices")


@dataclass(frozen=True, eq=False)
class Statistics:
    """``mean`` and ``deviation``, float32[C], of the value ``name`` ``[N, C, ...]``; the deviation is never zero."""

    name: str
    mean: Tensor
    deviation: Tensor

    def mismatch(self, x: Tensor) -> Tensor:
        """How far ``x`` is from them, a number without units: 0 where every channel has this mean and this deviation.

        Both differences are measured in deviations and squared, ZeroQ's loss (Cai et al., arXiv 2001.00281) whatever the scale.
        """
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance = x.var(axes, unbiased=False)
        floor = 1e-6 * self.deviation.square()  # the root of zero has no gradient
        means = (x.mean(axes) - self.mean) / self.deviation
        deviations = (variance + floor).sqrt() / self.deviation - 1.0
        return means.square().mean() + deviations.square().mean()


def batch_statistics(graph: Graph) -> tuple[Statistics, ...]:
    """Those of every batch norm with constant parameters that an input reaches by differentiable operators, in order."""
    import torch

    found: dict[str, Statistics] = {}
    reached = _reached(graph, (value.name for value in graph.inputs))
    for node in graph.nodes:
        if node.op != "batch_norm" or node.inputs[0] not in reached or not all(n in graph.constant for n in node.inputs[3:]):
            continue
        mean, variance = (torch.from_numpy(graph.constant[name].data.copy()) for name in node.inputs[3:])
        deviation = (variance.clamp(min=0.0) + node["epsilon"]).sqrt()
        found.setdefault(node.inputs[0], Statistics(node.inputs[0], mean, deviation))
    return tuple(found.values())


def explained(graph: Graph, statistics: Iterable[Statistics]) -> bool:
    """Whether every input of the graph reaches one of the values that ``statistics`` are of."""
    names = {known.name for known in statistics}
    return all(names & _reached(graph, [value.name]) for value in graph.inputs)


def _reached(graph: Graph, names: Iterable[str]) -> set[str]:
    """The values that depend on ``names`` with a gradient, and ``names``."""
    reached = set(names)
    for node in graph.nodes:
        if node.op not in _NO_GRADIENT and reached & set(node.inputs):
            reached.add(node.output.name)
    return reached


def up_to(graph: Graph, names: Iterable[str]) -> Graph:
    """The part of a graph that computes ``names``, which are its outputs; all inputs stay."""
    outputs = tuple(names)
    needed = set(outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output.name in needed:
            needed.update(node.inputs)
            nodes.append(node)
    constants = tuple(constant for constant in graph.constants if constant.name in needed)
    return replace(graph, nodes=tuple(reversed(nodes)), constants=constants, outputs=outputs)
