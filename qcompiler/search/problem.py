"""The allocation problem of a calibrated graph: its variables, and what every choice costs.

A variable for every weight tensor, and one for every class of values that a layer with weights reads. Weight bytes are those of
the packed codes; BOPS are multiply-accumulates times weight bits times input bits; latencies are measured. All stand in tables:
the solver sees numbers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qcompiler.allocate import Variable
from qcompiler.bits import Bits
from qcompiler.ir.graph import WEIGHTED, Graph, Node
from qcompiler.passes.activation_classes import activation_classes
from qcompiler.passes.allocate_bits import pinned_bits
from qcompiler.sensitivity.table import SensitivityTable

FIXED: Final = "(layers without weights)"
"""The variable that has no choice: what a call takes whatever the bits."""


@dataclass(frozen=True)
class Latencies:
    """``layers``: (class of the input, weights) -> (activation bits, weight bits) -> ns; ``constant``: ns of all the rest."""

    layers: Mapping[tuple[str, str], Mapping[tuple[int, int], float]]
    constant: float


@dataclass(frozen=True)
class Problem:
    """What ``allocate`` takes; ``at_8_bits``: totals of resources where everything has 8 bits; ``weights``: those of the
    variables that are weights."""

    variables: tuple[Variable, ...]
    unary: Mapping[str, Mapping[str, list[Any]]]
    pairs: Mapping[str, Mapping[tuple[str, str], list[list[Any]]]]
    at_8_bits: Mapping[str, int]
    weights: frozenset[str] = frozenset()


def formulate(
    graph: Graph,
    table: SensitivityTable,
    weight_bits: Sequence[int],
    activation_bits: Sequence[int],
    bit_pairs: Sequence[str],
    pins: Mapping[str, Bits],
    latencies: Latencies | None = None,
) -> Problem:
    """The problem of ``graph``; ``bit_pairs``: what the target has kernels for, ``pins``: bits by patterns over layer names."""
    layers = [node for node in graph.nodes if node.op in WEIGHTED]
    classes = {name: group[0] for group in activation_classes(graph) for name in group}
    sizes = {node.inputs[1]: graph.constant[node.inputs[1]].type.elements for node in layers}
    choices: dict[str, Sequence[int]] = dict.fromkeys(sizes, weight_bits)
    choices.update(dict.fromkeys((classes[node.inputs[0]] for node in layers), activation_bits))
    weights, inputs = pinned_bits(layers, pins)
    choices.update({name: (bits,) for name, bits in weights.items()})
    for name, bits in inputs.items():
        least = min(bits, *(other for value, other in inputs.items() if classes[value] == classes[name]))
        choices[classes[name]] = (least,)
    if latencies is not None:
        choices[FIXED] = (0,)

    def scores(name: str) -> list[float]:
        known = table.weights.get(name) or table.activations.get(name, {})
        return [known.get(bits, 0.0) for bits in choices[name]]

    unary: dict[str, dict[str, list[Any]]] = {
        "sensitivity": {name: scores(name) for name in choices},
        "weight_bytes": {name: [-(-sizes.get(name, 0) * bits // 8) for bits in known] for name, known in choices.items()},
    }
    bops: dict[tuple[str, str], list[list[Any]]] = {}
    for node in layers:
        x, weight = classes[node.inputs[0]], node.inputs[1]
        known = bops.setdefault((x, weight), [[0] * len(choices[weight]) for _ in choices[x]])
        for row, a in enumerate(choices[x]):
            for column, w in enumerate(choices[weight]):
                possible = f"w{w}a{a}" in bit_pairs and known[row][column] is not None
                known[row][column] = known[row][column] + macs(graph, node) * w * a if possible else None
    pairs = {"bops": bops}
    if latencies is not None:
        unary["latency_ns"] = {FIXED: [latencies.constant]}
        pairs["latency_ns"] = {
            (x, weight): [[by_bits.get((a, w)) for w in choices[weight]] for a in choices[x]]
            for (x, weight), by_bits in latencies.layers.items()
        }
    variables = tuple(Variable(name, tuple(map(str, known))) for name, known in choices.items())
    work = sum(64 * macs(graph, node) for node in layers)
    whole = {"weight_bytes": sum(sizes.values()), "bops": work}
    return Problem(variables, unary, pairs, whole, frozenset(sizes))


def macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a layer with weights, for one sample."""
    weight = graph.constant[node.inputs[1]].data
    return node.output.type.elements * (weight.size // len(weight))
