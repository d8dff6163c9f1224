"""The parts of an output: the values that it is joined of, and where each lies in it.

An output is followed back through what only moves elements, and, where a concatenation lies behind them, through operators that
compute element by element or over a few elements. Elements that several values reach are a part of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qcompiler.ir.graph import Array, Graph, Node
from qcompiler.ops.table import OPERATORS

if TYPE_CHECKING:
    import torch

MOVING: Final = ("concat", "identity", "reshape", "slice", "take", "transpose")
ELEMENTWISE: Final = ("add", "batch_norm", "clip", "function", "maximum", "minimum", "mul", "prelu", "quantizer", "sub")
REDUCING: Final = ("amax", "amin", "average_pool2d", "max_pool2d", "mean", "pad", "resize_linear", "sum")
MOST_MARKS: Final = 5e7  # what is followed, elements of every value times leaves: a compilation must not take long by it


@dataclass(frozen=True)
class Part:
    """``values``, of which this part of an output is computed, their ``layer``, and the ``place``.

    ``place``: bool array in the output's shape, without the batch; ``joints``: the concatenations through which they come.
    """

    values: tuple[str, ...]
    layer: str
    place: Array
    joints: tuple[str, ...]

    def where(self) -> str:
        """Its indices as in ``[:, 0:4]``, or how many values it has where they are no block."""
        found = np.nonzero(self.place)
        ends = [(int(axis.min()), int(axis.max()) + 1) for axis in found]
        if np.prod([stop - start for start, stop in ends]) != len(found[0]):
            return f"[{len(found[0])} of {self.place.size} values]"
        sizes = zip(ends, self.place.shape, strict=True)
        texts = [":", *(":" if end == (0, size) else f"{end[0]}:{end[1]}" for end, size in sizes)]
        while texts[-1] == ":":
            texts.pop()
        return f"[{', '.join(texts)}]"


def parts_of(graph: Graph, output: str) -> list[Part]:
    """The parts of the output, by the graph's order of the first value in each; none where it has not several."""
    chain, leaves = _followed(graph, output)
    if len(leaves) < 2 or len(leaves) * sum(graph.type_of(name).elements for name in (*chain, *leaves)) > MOST_MARKS:
        return []
    marks = _marks(graph, chain, leaves)
    of_leaf = marks[output].numpy() > 0
    kinds = np.zeros(of_leaf.shape[1:], np.int64)  # equal where the same leaves reach
    for mark in of_leaf:
        kinds = kinds * 2 + mark
        kinds = (np.cumsum(np.bincount(kinds.reshape(-1)) > 0) - 1)[kinds]
    found: dict[tuple[str, ...], Array] = {}
    for first in np.unique(kinds, return_index=True)[1]:
        reaching = of_leaf.reshape(len(leaves), -1)[:, first]
        found[tuple(np.array(leaves)[reaching].tolist())] = kinds == kinds.reshape(-1)[first]
    found.pop((), None)
    ordered = sorted(found, key=lambda values: [leaves.index(value) for value in values])
    return [
        Part(values, _layers(graph, values), found[values], _joints(graph, chain, values)) for values in ordered if len(found) > 1
    ]


def layer_of(graph: Graph, name: str) -> str:
    """The layer that gives a value, as the user knows it."""
    node = graph.producer.get(name)
    return (node.origin if node is not None else "") or name


def _followed(graph: Graph, output: str) -> tuple[list[str], list[str]]:
    """The values through which the output is followed back, and those at which this ends, in the graph's order."""
    joined = set[str]()
    for node in graph.nodes:
        through = node.op in (*MOVING, *ELEMENTWISE, *REDUCING)
        if node.op == "concat" or (through and joined.intersection(node.inputs)):
            joined.add(node.output.name)
    chain, leaves, waiting = set[str](), set[str](), [output]
    while waiting:
        name = waiting.pop()
        node_of = graph.producer.get(name)
        if node_of is None or (node_of.op not in MOVING and name not in joined):
            leaves.add(name)
        elif name not in chain:
            chain.add(name)
            waiting += [source for source in node_of.inputs if source in graph.values]
    return [name for name in graph.values if name in chain], [name for name in graph.values if name in leaves]


def _marks(graph: Graph, chain: list[str], leaves: list[str]) -> dict[str, torch.Tensor]:
    """By value: above 0 where a leaf reaches. The leaves take the place of the batch."""
    import torch

    marks: dict[str, torch.Tensor] = {}
    for index, name in enumerate(leaves):
        marks[name] = torch.zeros(graph.type_of(name).with_batch(len(leaves)))
        marks[name][index] = 1.0
    for name in chain:
        node = graph.producer[name]
        marks[name] = _mark(node, [_operand(graph, node, source, marks) for source in node.inputs])
    return marks


def _operand(graph: Graph, node: Node, name: str, marks: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What marks a thing that ``node`` reads: no leaf reaches a constant; indices are themselves."""
    import torch

    if name in marks:
        return marks[name]
    data = graph.constant[name].data
    return torch.from_numpy(data.copy()) if node.op == "take" else torch.zeros(data.shape)


def _mark(node: Node, operands: list[torch.Tensor]) -> torch.Tensor:
    import torch

    if node.op in ("add", "maximum", "minimum", "mul", "sub"):
        return torch.maximum(*operands)
    if node.op in ELEMENTWISE:
        return operands[0]
    if node.op in REDUCING:
        plain = node.with_attributes(clamp=None, factor=None, **({"value": 0.0} if node.op == "pad" else {}))
        sign = -1.0 if node.op == "amin" else 1.0
        return (sign * OPERATORS[node.op].run_float(plain, [sign * x for x in operands]) > 0).float()
    return OPERATORS[node.op].run_float(node, operands)


def _layers(graph: Graph, values: tuple[str, ...]) -> str:
    names = list(dict.fromkeys(layer_of(graph, value) for value in values))
    return " and ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} others"


def _joints(graph: Graph, chain: list[str], values: tuple[str, ...]) -> tuple[str, ...]:
    """The concatenations of the chain that read any of ``values``, or what is computed of them."""
    reached = set(values)
    for name in chain:
        if reached.intersection(graph.producer[name].inputs):
            reached.add(name)
    return tuple(name for name in chain if name in reached and graph.producer[name].op == "concat")
