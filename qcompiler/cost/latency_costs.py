"""What the allocator reads: nanoseconds of each layer at each choice of bits, and of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcompiler.bits import Bits
from qcompiler.cost.candidates import Candidates, candidates
from qcompiler.cost.latency_table import LatencyTable
from qcompiler.errors import InternalError
from qcompiler.ir.graph import Graph, Stage
from qcompiler.targets.target import Target


@dataclass(frozen=True)
class LatencyCosts:
    """``layers``: by (first value of the input's activation class, name of the weights), then by (activation, weight bits), ns.

    Layers with the same class and weights are added up. ``constant``: ns of all kernels without weights, at 8 bits.
    """

    layers: Mapping[tuple[str, str], Mapping[tuple[int, int], float]]
    constant: float


def latency_costs(graph: Graph, target: Target, table: LatencyTable, found: Candidates | None = None) -> LatencyCosts:
    """The costs of a calibrated or allocated graph; what is assumed stands in :mod:`qcompiler.cost.candidates`.

    ``found``: the graph's candidates, where they are known already. Raises CompileError COST003 for a table of another target,
    COST004 where it lacks kernels.
    """
    if graph.stage is Stage.INTEGER:
        raise InternalError(f"the bits of {graph.name} are chosen already")
    table.require_target(target.name)
    found = candidates(graph, target) if found is None else found
    table.require_kernels(found.keys)
    costs: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for pair, keys in found.layer_keys.items():
        bits = Bits.parse(pair)
        assert bits.activation is not None
        assert bits.weight is not None
        for layer, key in zip(found.layers, keys, strict=True):
            of_layer = costs.setdefault(layer, {})
            choice = (bits.activation, bits.weight)
            of_layer[choice] = of_layer.get(choice, 0.0) + table.ns([key])
    widest = max(found.traces, key=lambda pair: (Bits.parse(pair).activation, Bits.parse(pair).weight))
    return LatencyCosts(costs, table.ns(call.key for call in found.traces[widest].calls if not call.sums))
