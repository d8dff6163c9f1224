"""Gives every weight and every activation its number of bits: what the user pinned, what a search chose, 8 otherwise.

A pin names layers of the user's model by a pattern (``layer3.*``) over their names or their values' names. Its weight bits go
to the layer's weights, its activation bits to the layer's input, and with it to every value of the same class; a value of 4
bits takes the range that was calibrated for 4 bits. Where pins disagree about an activation, the smaller number wins.

Before:
    const %w: f32[4,4] = ...
    %y: f32[N,4] range=(-0x1p+0, 0x1p+0) = linear(%x, %w)  # fc
After, with pins {"fc": "w4a8"}:
    const %w: f32[4,4] bits=4 = ...
    %y: f32[N,4] range=(-0x1p+0, 0x1p+0) bits=8 = linear(%x, %w)  # fc
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from qcompiler.bits import Bits
from qcompiler.errors import CompileError
from qcompiler.ir.graph import WEIGHTED, Graph, Node, Stage, Value
from qcompiler.passes.activation_classes import activation_classes


def layer_name(node: Node) -> str:
    """The user's name for a layer, or the value's where the model has none."""
    return node.origin or node.output.name


@dataclass(frozen=True)
class AllocateBits:
    """``pins``: patterns over layer names to bits; for a layer that several name, the last one counts.

    ``assignment``: bits of weight constants and of values (and with them of their classes) by name, where nothing is pinned.
    """

    pins: Mapping[str, Bits] = field(default_factory=dict)
    assignment: Mapping[str, int] = field(default_factory=dict)
    name: str = "allocate_bits"
    requires: Stage = Stage.CALIBRATED
    gives: Stage = Stage.ALLOCATED

    def __call__(self, graph: Graph) -> Graph:
        layers = [node for node in graph.nodes if node.op in WEIGHTED]
        weights = {node.inputs[1]: self.assignment.get(node.inputs[1], 8) for node in layers}
        pinned, wishes = pinned_bits(layers, self.pins)
        weights.update(pinned)
        activations = {
            name: bits
            for group in activation_classes(graph)
            for bits in [_least(wishes, group) or _least(self.assignment, group) or 8]
            for name in group
        }

        def allocated(value: Value) -> Value:
            bits = activations[value.name]
            return replace(value, bits=bits, range=value.range4 if bits == 4 else value.range, range4=None)

        return replace(
            graph,
            stage=Stage.ALLOCATED,
            inputs=tuple(map(allocated, graph.inputs)),
            constants=tuple(replace(c, bits=weights.get(c.name)) for c in graph.constants),
            nodes=tuple(replace(node, outputs=tuple(map(allocated, node.outputs))) for node in graph.nodes),
        )


def pinned_bits(layers: Sequence[Node], pins: Mapping[str, Bits]) -> tuple[dict[str, int], dict[str, int]]:
    """Bits that ``pins`` say: of weight constants, and of the values that layers read; of a layer's patterns the last one wins.

    Raises CompileError BITS003 where a pattern names no layer.
    """
    weights: dict[str, int] = {}
    inputs: dict[str, dict[str, int]] = {}
    for pattern, bits in pins.items():
        matched = [node for node in layers if any(fnmatchcase(name, pattern) for name in (node.origin, node.output.name))]
        if not matched:
            names = ", ".join(layer_name(node) for node in layers)
            raise CompileError(
                "BITS003", "bits", f"the pattern {pattern!r} names no layer with weights", f"the layers are: {names}"
            )
        for node in matched:
            if bits.weight is not None:
                weights[node.inputs[1]] = bits.weight
            if bits.activation is not None:
                inputs.setdefault(node.inputs[0], {})[node.output.name] = bits.activation
    return weights, {name: min(wishes.values()) for name, wishes in inputs.items()}


def _least(bits: Mapping[str, int], group: Sequence[str]) -> int | None:
    """The fewest bits that are said for a member of a class."""
    return min((bits[name] for name in group if name in bits), default=None)
