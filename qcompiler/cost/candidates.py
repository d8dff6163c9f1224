"""All kernels that a choice of bits can lead to: the network at every pair of bits that the target offers.

A layer's kernel is its weights' bits, its shape and how it ends. The bits of codes are no part of it, as they are stored as
bytes; they decide with the weights' scales whether requantization has its int32 form. Here all layers of a network have the
same pair. So the assumption is: neither the bits of a layer's *output* nor rounding of another kind (corrected biases, tuned
weights) changes the form of its requantization. It held for every layer of the networks that were tried, in random mixtures;
where it does not hold, ``predict`` names the kernel that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qcompiler.backend.image import DENSE
from qcompiler.backend.tile_table import TileTable
from qcompiler.bits import Bits
from qcompiler.cost.trace import Trace, trace
from qcompiler.errors import InternalError
from qcompiler.ir.graph import WEIGHTED, Graph, Node, Stage, Value
from qcompiler.passes.activation_classes import activation_classes
from qcompiler.passes.allocate_bits import AllocateBits
from qcompiler.passes.narrow_requantization import NarrowRequantization
from qcompiler.passes.quantize import Quantize
from qcompiler.targets.target import Target


@dataclass(frozen=True)
class Candidates:
    """``traces``: by pair of bits, as in "w4a8"; an integer graph has one, by its name.

    ``layers``: what decides about each layer with weights, in order: the class of its input, by its first value, and the name of
    its weights. ``layer_keys``: by pair of bits, the keys of their kernels. Both are empty for an integer graph.
    """

    target: Target
    traces: Mapping[str, Trace]
    layers: tuple[tuple[str, str], ...] = ()
    layer_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def distinct(self) -> tuple[Trace, ...]:
        """The traces that differ in their kernels; of equal ones the first."""
        first: dict[tuple[str, ...], Trace] = {}
        for found in self.traces.values():
            first.setdefault(found.keys, found)
        return tuple(first.values())

    def tiled(self, tiles: TileTable) -> Candidates:
        """The same with the tilings of a table instead of the model's."""
        traces = {name: found.tiled(lambda call: tiles.tiling(call.spec)) for name, found in self.traces.items()}
        keys = {call.kernel: call.key for found in traces.values() for call in found.calls}
        layer_keys = {pair: tuple(keys[kernel] for kernel in kernels) for pair, kernels in self.layer_keys.items()}
        return replace(self, traces=traces, layer_keys=layer_keys)

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, each once."""
        return tuple(dict.fromkeys(key for found in self.traces.values() for key in found.keys))


def candidates(graph: Graph, target: Target, output_bits: int = 16, input_layout: str = DENSE) -> Candidates:
    """The candidates of a graph with ranges, tiled as the model chooses; of an integer graph, its own kernels alone."""
    if graph.stage is Stage.FLOAT:
        raise InternalError("kernels of a float graph are known when it is calibrated")
    if graph.stage is Stage.INTEGER:
        return Candidates(target, {graph.name: trace(graph, target.name, graph.name, input_layout)})
    traces, layer_keys = {}, {}
    for pair in target.bit_pairs:
        integer = at_bits(graph, Bits.parse(pair), output_bits)
        found = traces[pair] = trace(integer, target.name, pair, input_layout)
        by_sums = {call.sums: call.key for call in found.calls}
        layer_keys[pair] = tuple(by_sums[node.output.name] for node in integer.nodes if node.op in WEIGHTED)
    first = {name: group[0] for group in activation_classes(graph) for name in group}
    layers = tuple((first[node.inputs[0]], node.inputs[1]) for node in graph.nodes if node.op in WEIGHTED)
    return Candidates(target, traces, layers, layer_keys)


def at_bits(graph: Graph, bits: Bits, output_bits: int = 16) -> Graph:
    """The integer graph of a calibrated or allocated graph when every layer has ``bits``; biases are not corrected."""
    allocated = AllocateBits({"*": bits})(_unallocated(graph))
    return NarrowRequantization()(Quantize(output_bits)(allocated))


def _unallocated(graph: Graph) -> Graph:
    """A graph whose bits can be chosen again; the ranges of values that had 4 bits stay."""

    def free(value: Value) -> Value:
        return replace(value, bits=None, range4=value.range4 or value.range)

    def freed(node: Node) -> Node:
        return replace(node, outputs=tuple(map(free, node.outputs)))

    inputs, nodes = tuple(map(free, graph.inputs)), tuple(map(freed, graph.nodes))
    constants = tuple(replace(constant, bits=None) for constant in graph.constants)
    return replace(graph, stage=Stage.CALIBRATED, inputs=inputs, constants=constants, nodes=nodes)
