"""Analysis: what the quantizers of a quantized model say about the codes of the values around them.

A quantizer is free where its operand needs no other codes than the quantizer's: where nothing else reads it. So it is for what
only moves elements on the way there, and for the parts of a concatenation that nothing else reads, even if each has a finer
quantizer. Such values are *settled* by the quantizer. Everything else keeps codes of its own, and the quantizer rescales them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import MOVES, RANKS, WEIGHTED, Graph, Node
from qcompiler.passes.accumulators import fused_accumulators

Range = tuple[float, float]

_COMMUTING = tuple(op for op in MOVES if op != "resize_linear")
"""Moves that may as well come after a clamp."""


def settles(graph: Graph, quantizer: Node) -> bool:
    """Whether the operand of ``quantizer`` has its codes."""
    return _chain(graph, quantizer.inputs[0], quantizer) is not None


def settled_values(graph: Graph) -> dict[str, Node]:
    """The values that have the codes of a quantizer which is not the one that made them, each with that quantizer."""
    found: dict[str, Node] = {}
    for node in reversed(graph.nodes):
        if node.op == "quantizer":
            owner = found.get(node.output.name, node)
            found.update((name, owner) for name in _chain(graph, node.inputs[0], node) or ())
    return found


def settled_parts(graph: Graph, concat: Node) -> list[str] | None:
    """The operands of a concatenation that have the codes of the quantizer which settles it; None where none does."""
    owner: Node | None = concat
    while owner is not None and owner.op != "quantizer":
        readers = graph.consumers[owner.output.name]
        owner = readers[0] if readers and readers[0].op in (*_COMMUTING, "concat", "quantizer") else None
    if owner is None or concat.output.name not in (_chain(graph, owner.inputs[0], owner) or ()):
        return None
    return [
        name for name in dict.fromkeys(concat.inputs) if name in graph.values and _chain(graph, name, owner, True) is not None
    ]


def has_few_steps(quantizer: Node) -> bool:
    """Whether codes of 8 bits have more steps than those of ``quantizer``."""
    low, high = quantizer["clamp"]
    return code_span(quantizer, 8) != (low, high)


def _chain(graph: Graph, name: str, quantizer: Node, joined: bool = False) -> list[str] | None:
    """``name`` and what moves make it of, as far as the codes of ``quantizer`` are enough for all of it; else None.

    ``joined``: it is part of a concatenation.
    """
    node = graph.producer.get(name)
    if graph.uses(name) != 1:
        return None
    if node is None:
        return [name]
    if node.op == "quantizer":
        finer = node["step"] <= quantizer["step"] and not has_few_steps(node)
        return [name] if joined and finer else None
    if node.op == "concat":
        parts = [_chain(graph, part, quantizer, True) for part in node.inputs if part in graph.values]
        return [name, *(member for part in parts for member in part or ())]
    if node.op in _COMMUTING:
        before = _chain(graph, node.inputs[0], quantizer, joined)
        return None if before is None else [name, *before]
    return None if node.op in MOVES else [name]


def limits_its_source(graph: Graph, quantizer: Node) -> bool:
    """Whether the limits of ``quantizer`` are fused into what computes its operand."""
    source = graph.producer.get(quantizer.inputs[0])
    return source is not None and source.get("clamp") is not None


def code_span(quantizer: Node, bits: int) -> Range:
    """What codes of ``bits`` bits span that hold those of ``quantizer``: the same steps, where there are enough of them."""
    low, high = quantizer["clamp"]
    steps = IntegerType(bits, signed=False).maximum
    fewer = round((high - low) / quantizer["step"]) < steps
    return low, low + steps * quantizer["step"] if fewer else high


def given_ranges(graph: Graph, bits: int) -> dict[str, Range]:
    """The ranges of values that follow from the quantizers of the model, for codes of ``bits`` bits."""
    settled = settled_values(graph)
    found = {name: code_span(node, bits) for name, node in settled.items()}
    for node in graph.nodes:
        if node.op == "quantizer":
            found.setdefault(node.output.name, code_span(node, bits))
    if not found:
        return {}
    count = 0
    while count < len(found):
        count = len(found)
        for node in graph.nodes:
            _add(found, node.output.name, _result_range(graph, node, found))
        for name in reversed(list(graph.values)):
            if name not in graph.outputs:
                _add(found, name, _wanted_range(graph, name, found, bits))
        for node in graph.nodes:
            if _maps_each_number(graph, node):
                _add(found, node.output.name, _bounds(graph, node, found))
    for name in fused_accumulators(graph):
        _add(found, name, _bounds(graph, graph.producer[name], found))
    return found


def _add(found: dict[str, Range], name: str, span: Range | None) -> None:
    if span is not None:
        found.setdefault(name, span)


def _hull(spans: Iterable[Range | None]) -> Range | None:
    known = list(spans)
    if not known or None in known:
        return None
    return min(span[0] for span in known if span), max(span[1] for span in known if span)


def _result_range(graph: Graph, node: Node, found: Mapping[str, Range]) -> Range | None:
    """What the result of an operator spans that gives numbers of its operands."""
    if node.op in RANKS:
        return 0.0, 0.0  # indices are no codes
    if node.op == "concat" or node.op in (*MOVES, "clip"):
        read = node.inputs if node.op == "concat" else node.inputs[:1]
        fill = node.get("value", 0.0)
        filled = (min(fill, 0.0), max(fill, 0.0)) if np.isfinite(fill) else (0.0, 0.0)
        return _hull([*(_span(graph, name, found) for name in read), filled])
    return None


def _maps_each_number(graph: Graph, node: Node) -> bool:
    """Whether a layer is a scale and an offset."""
    weight = graph.constant.get(node.inputs[1]) if node.op in WEIGHTED else None
    return weight is not None and weight.data[0].size == 1


def _span(graph: Graph, name: str, found: Mapping[str, Range]) -> Range | None:
    if name in graph.constant:
        data = graph.constant[name].data
        return float(data.min(initial=0.0)), float(data.max(initial=0.0))
    return found.get(name)


def _wanted_range(graph: Graph, name: str, found: Mapping[str, Range], bits: int) -> Range | None:
    """What the readers of a value tell apart, where each of them is a quantizer or leads to one by moves and clamps."""

    def wanted(reader: Node) -> Range | None:
        if reader.op == "quantizer":
            return code_span(reader, bits)
        return found.get(reader.output.name) if reader.op in (*_COMMUTING, "clip", "concat") else None

    return _hull(map(wanted, graph.consumers[name]))


def _bounds(graph: Graph, node: Node, found: Mapping[str, Range]) -> Range | None:
    """The least and the largest sums of a layer."""
    span = found.get(node.inputs[0])
    if span is None or any(name not in graph.constant for name in node.inputs[1:]):
        return None
    weight = graph.constant[node.inputs[1]].data.astype(np.float64)
    rows = weight.reshape(len(weight), -1)
    bias = graph.constant[node.inputs[2]].data if len(node.inputs) == 3 else 0.0
    ends = np.stack([rows * span[0], rows * span[1]])
    low, high = ends.min(0).sum(1) + bias, ends.max(0).sum(1) + bias
    return min(float(low.min()), 0.0), max(float(high.max()), 0.0)
