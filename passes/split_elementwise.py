"""What treats elements alone on a concatenation's way out of the network is done to each of its parts instead.

A concatenation that only leaves the network is wide, and its parts have codes of their own; one that something calculates with
has 8-bit codes of one scale, in which small parts beside large ones are lost. So clips, functions, arithmetic with constants and
reductions over other axes go in front of it, if nothing but these and transpositions stands between it and where it only leaves.

Before:
    %j: f32[N,8] = concat(%boxes, %scores, axis=1)
    %y: f32[N,8] = clip(%j, clamp=(0x0p+0, 0x1.4p+9))
    return %y
After:
    %y.part: f32[N,2] = clip(%boxes, clamp=(0x0p+0, 0x1.4p+9))
    %y.part_1: f32[N,6] = clip(%scores, clamp=(0x0p+0, 0x1.4p+9))
    %y: f32[N,8] = concat(%y.part, %y.part_1, axis=1)
    return %y
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qcompiler.ir.graph import Array, Constant, Graph, Node, Stage, Value
from qcompiler.ir.names import Constants
from qcompiler.ops.operator import Operand
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.activation_classes import leaving_values

MOST_PARTS: Final = 16  # more are like each other, such as the steps of a recurrent layer, and would cost a node each
_ELEMENTWISE: Final = ("add", "clip", "function", "maximum", "minimum", "mul", "sub")
_REDUCTIONS: Final = ("amax", "amin", "mean", "sum")


@dataclass(frozen=True)
class SplitElementwise:
    """One concatenation after the other, until none is left that has such operators behind it."""

    name: str = "split_elementwise"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        while (found := _next(graph)) is not None:
            graph = _split(graph, *found)
        return graph


def _next(graph: Graph) -> tuple[Node, list[Node]] | None:
    """The first concatenation behind which there are operators that can go in front of it, and those operators."""
    leaving = leaving_values(graph)
    found = ((node, _chain(graph, node, leaving)) for node in graph.nodes if node.op == "concat")
    return next(((concat, chain) for concat, chain in found if chain), None)


def _chain(graph: Graph, concat: Node, leaving: Collection[str]) -> list[Node]:
    """What lies between ``concat`` and where its elements only leave; empty where something else does, or nothing."""
    if len(concat.inputs) > MOST_PARTS:
        return []
    chain: list[Node] = []
    value, axis = concat.output, concat["axis"]
    while value.name not in leaving:
        if graph.uses(value.name) != 1:
            return []
        (node,) = graph.consumers[value.name]
        if not _treats_parts_alone(graph, node, value, axis):
            return []
        chain.append(node)
        value, axis = node.output, _axis_after(node, axis)
    return chain


def _treats_parts_alone(graph: Graph, node: Node, whole: Value, axis: int) -> bool:
    """Whether ``node`` computes each part of ``whole``, joined along ``axis``, from that part and constants."""
    if node.op in _REDUCTIONS:
        return axis not in node["axes"]
    if node.op == "transpose":
        return True
    others = (name for name in node.inputs if name != whole.name)
    return node.op in _ELEMENTWISE and node.output.type == whole.type and all(name in graph.constant for name in others)


def _axis_after(node: Node, axis: int) -> int:
    """Where the concatenation's axis is in the result of ``node``."""
    if node.op == "transpose":
        place: int = node["order"].index(axis)
        return place
    dropped = node.op in _REDUCTIONS and not node["keepdims"]
    return axis - sum(reduced < axis for reduced in node["axes"]) if dropped else axis


def _split(graph: Graph, concat: Node, chain: Sequence[Node]) -> Graph:
    """``chain`` is done to each part of ``concat``, and the results are joined."""
    constants = Constants(graph)
    nodes: list[Node] = []
    parts: list[str] = []
    start = 0
    for name in concat.inputs:
        part: Operand = graph.values[name] if name in graph.values else constants[name]
        whole, axis = concat.output, concat["axis"]
        stop = start + part.type.with_batch(1)[axis]
        for node in chain:
            operands = [
                part if operand == whole.name else _cut(constants, constants[operand], whole, axis, slice(start, stop))
                for operand in node.inputs
            ]
            own = replace(node, inputs=tuple(operand.name for operand in operands))
            if isinstance(part, Constant):
                part = constants.add(f"{node.output.name}.part", _evaluated(own, constants))
            else:
                part = Value(constants.fresh(f"{node.output.name}.part"), OPERATORS[node.op].infer(own, operands))
                nodes.append(replace(own, outputs=(part,)))
            whole, axis = node.output, _axis_after(node, axis)
        parts.append(part.name)
        start = stop
    joined = replace(concat, inputs=tuple(parts), outputs=(whole,)).with_attributes(axis=axis)
    place = graph.nodes.index(concat)
    after = [node for node in graph.nodes[place + 1 :] if node not in chain]
    return graph.with_nodes([*graph.nodes[:place], *nodes, joined, *after], constants.values())


def _cut(constants: Constants, constant: Constant, whole: Value, axis: int, elements: slice) -> Constant:
    """``constant``, or what it has for ``elements`` of ``whole`` along ``axis`` where it varies there."""
    place = axis - (len(whole.type.shape) - constant.data.ndim)
    if place < 0 or constant.data.shape[place] == 1:
        return constant
    return constants.add(f"{constant.name}.part", constant.data[(*[slice(None)] * place, elements)])


def _evaluated(node: Node, constants: Constants) -> Array:
    """What ``node`` gives for constants."""
    import torch

    operands = [torch.from_numpy(constants[name].data.copy()) for name in node.inputs]
    result: Array = OPERATORS[node.op].run_float(node, operands).numpy()
    return result
