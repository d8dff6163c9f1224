"""What may get fewer bits: the weights of layers and the activation classes, and how the shipping quantizers round them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from qcompiler.ir.graph import MOVES, WEIGHTED, Array, Graph, Value
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.activation_classes import activation_classes, shared_operands
from qcompiler.passes.activation_codes import WIDE_BITS, Codes, choose_codes
from qcompiler.passes.correct_bias import stays_accumulator
from qcompiler.passes.weight_codes import rounded_weights


@dataclass(frozen=True)
class Change:
    """What is quantized in a run: weights (and what goes with them) by constants' names, and the codes of values."""

    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    codes: Mapping[str, Codes] = field(default_factory=dict)

    def __or__(self, other: Change) -> Change:
        return Change({**self.weights, **other.weights}, {**self.codes, **other.codes})


@dataclass
class Candidates:
    """``weights`` and ``classes`` in the graph's order; a class is named by its first value.

    Weights are rounded to their nearest codes when they are first asked for, and kept. ``given``: the constants that change, in
    place of that, when weights get some bits.
    """

    graph: Graph
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    given: Mapping[tuple[str, int], Mapping[str, torch.Tensor]] = field(default_factory=dict)
    weights: tuple[str, ...] = field(init=False)
    classes: Mapping[str, tuple[str, ...]] = field(init=False)
    _rounded: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict, init=False)
    _codes: dict[tuple[str, int], dict[str, Codes]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        layers = (node for node in self.graph.nodes if node.op in WEIGHTED and node.inputs[1] in self.graph.constant)
        self.weights = tuple(dict.fromkeys(node.inputs[1] for node in layers))
        self.classes = {group[0]: group for group in coded_classes(self.graph)} if self.activation_bits else {}

    def choices(self) -> Iterator[tuple[str, int]]:
        """Every tensor's name with each of its bits: weights first."""
        yield from ((name, bits) for name in self.weights for bits in self.weight_bits)
        yield from ((name, bits) for name in self.classes for bits in self.activation_bits)

    def change(self, name: str, bits: int) -> Change:
        """The one tensor ``name`` with ``bits`` bits."""
        if name in self.classes:
            return Change(codes=self.codes(name, bits))
        return Change(weights=self.given.get((name, bits)) or {name: self.rounded(name, bits)})

    def rounded(self, name: str, bits: int) -> torch.Tensor:
        """The weights ``name`` as codes of ``bits`` bits represent them, float32."""
        key = (name, bits)
        if key in self.given:
            return self.given[key][name]
        if key not in self._rounded:
            rounded: Array = rounded_weights(self.graph.constant[name].data, bits).astype(np.float32)
            self._rounded[key] = torch.from_numpy(rounded)
        return self._rounded[key]

    def perturbation(self, name: str, bits: int) -> torch.Tensor:
        """What rounding adds to the weights ``name``, float32."""
        return self.rounded(name, bits) - torch.from_numpy(self.graph.constant[name].data.copy())

    def codes(self, name: str, bits: int) -> Mapping[str, Codes]:
        """The codes of every value of the class ``name`` when it has ``bits`` bits and all other classes have 8."""
        key = (name, bits)
        if key not in self._codes:
            chosen = choose_codes(with_class_bits(self.graph, self.classes[name], bits), WIDE_BITS)
            self._codes[key] = {member: chosen[member] for member in self.classes[name]}
        return self._codes[key]

    def rounding_members(self, name: str) -> list[str]:
        """The values of the class ``name`` at which rounding adds something; the others only move codes of the class."""
        return [member for member in self.classes[name] if not self._moved(member)]

    def own_errors(self, name: str, bits: int, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """For each of :meth:`rounding_members`, what rounding it adds to what its operands of the same class added before.

        ``values``: the float values of a batch.
        """
        found = {}
        codes = self.codes(name, bits)
        for member in self.rounding_members(name):
            exact, node = values[member], self.graph.producer.get(member)
            shared = set() if node is None else set(shared_operands(self.graph, node))
            if node is not None and shared:
                operands = [self._operand(i, values, codes[member] if i in shared else None) for i in node.inputs]
                exact = OPERATORS[node.op].run_float(node, operands)
            found[member] = codes[member].rounded(exact) - exact
        return found

    def _moved(self, name: str) -> bool:
        node = self.graph.producer.get(name)
        return node is not None and node.op in MOVES and node.op != "resize_linear"

    def _operand(self, name: str, values: Mapping[str, torch.Tensor], codes: Codes | None) -> torch.Tensor:
        if name in self.graph.constant:
            return torch.from_numpy(self.graph.constant[name].data.copy())
        return values[name] if codes is None else codes.rounded(values[name])


def coded_classes(graph: Graph) -> list[tuple[str, ...]]:
    """The activation classes that are stored as codes of up to 8 bits: no indices, wide outputs, or accumulators."""
    codes = choose_codes(graph, WIDE_BITS)
    sums = {node.output.name for node in graph.nodes if stays_accumulator(graph, node)}
    return [group for group in activation_classes(graph) if group[0] not in sums and codes[group[0]].dtype.bits < WIDE_BITS]


def with_class_bits(graph: Graph, names: Sequence[str], bits: int) -> Graph:
    """``graph`` with the values ``names`` at ``bits`` bits, at 4 with the range that was calibrated for 4."""
    chosen = set(names)

    def changed(value: Value) -> Value:
        if value.name not in chosen:
            return value
        narrow = bits == 4 and value.range4 is not None
        return replace(value, bits=bits, range=value.range4 if narrow else value.range)

    nodes = (replace(node, outputs=tuple(map(changed, node.outputs))) for node in graph.nodes)
    return replace(graph, inputs=tuple(map(changed, graph.inputs)), nodes=tuple(nodes))
