"""How fast each parameter of a simulated graph may move: all rates are relative to what one code is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from qcompiler.ir.graph import Node, Value

if TYPE_CHECKING:
    import torch

    from qcompiler.tuning.simulation import SimulatedGraph

WEIGHT_RATE: Final = 0.05
"""Of the distance of two codes of the weight."""
SCALE_RATE: Final = 5e-3
"""Of the distance itself."""
BIAS_RATE: Final = 0.02
"""Of the distance of two codes of the layer's result."""


def parameter_groups(simulated: SimulatedGraph, nodes: Sequence[Node], rate: float = 1.0) -> list[dict[str, Any]]:
    """The parameters of ``nodes`` with learning rates for optimizers whose steps are as long as the rate, such as Adam.

    ``rate`` multiplies all of them.
    """
    groups: dict[int, dict[str, Any]] = {}

    def group(parameter: torch.nn.Parameter, length: float) -> None:
        if parameter.requires_grad:
            groups.setdefault(id(parameter), {"params": [parameter], "lr": rate * length})

    names = {value.name for value in simulated.graph.inputs} if nodes and nodes[0] is simulated.graph.nodes[0] else set()
    for node in nodes:
        if node.output.name in simulated.bias_of:
            weights = simulated.weight(node)
            step = float(weights.scale.detach().abs().mean())
            group(weights.weight, WEIGHT_RATE * step)
            group(weights.scale, SCALE_RATE * step)
            group(simulated.bias(node), BIAS_RATE * _step(node.output))
        names.add(node.output.name)
    for name in sorted(names):
        quantizer = simulated.quantizer(name)
        if quantizer is not None:
            group(quantizer.scale, SCALE_RATE * float(quantizer.scale.detach()))
    return list(groups.values())


def _step(value: Value) -> float:
    """The distance of two codes of a value's calibrated range."""
    low, high = value.range or (0.0, 1.0)
    return (high - low) / ((1 << (value.bits or 8)) - 1)
