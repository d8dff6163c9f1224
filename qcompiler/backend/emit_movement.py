"""Operators that only move codes: chains of them become one copy, or none where every byte stays in place.

A move whose readers all move its result on is not computed: they start from where it started.
"""

from __future__ import annotations

from typing import Final

from qcompiler.backend.image import PHYSICAL, Image
from qcompiler.backend.index_map import index_map, is_unmoved, stored_array
from qcompiler.backend.kernel import CopySpec, Move, MoveSpec, Scalar
from qcompiler.backend.lowering import Chain, Lowering, Step
from qcompiler.backend.program import Address
from qcompiler.errors import InternalError
from qcompiler.ir.graph import Node

MOVES: Final = ("pad", "reshape", "slice", "take", "transpose")


def move(lowering: Lowering, node: Node) -> None:
    """Pad, reshape, slice, take and transpose."""
    name, type_ = node.output.name, node.output.type
    result = lowering.image(type_, node.origin or name)
    step, fill = _move(lowering, node, result.shape), node["code"] if node.op == "pad" else None
    before = _chain(lowering, node.inputs[0])
    if before.moves and not _joins(lowering, before, step, fill, result):
        _finish(lowering, lowering.graph.producer[node.inputs[0]], before)
        before = Chain(node.inputs[0])
    chain = Chain(before.source, (*before.moves, step), fill if fill is not None else before.fill)
    readers = lowering.graph.consumers[name]
    if name not in lowering.graph.outputs and readers and all(reader.op in (*MOVES, "concat") for reader in readers):
        lowering.deferred[name] = chain
    else:
        _finish(lowering, node, chain)


def concat(lowering: Lowering, node: Node) -> None:
    """One copy an operand, each into its part of the result."""
    name = node.output.name
    where = node.origin or name
    result = lowering.image(node.output.type, where)
    if len(node.inputs) == 1 and node.inputs[0] in lowering.graph.values:
        _finish(lowering, node, _chain(lowering, node.inputs[0]))
        return
    buffer = lowering.buffers[name] = lowering.new(name, result)
    offset = 0
    for operand in node.inputs:
        if operand in lowering.graph.constant:
            data = lowering.graph.constant[operand].data
            source, chain = Image((result.shape[0], *data.shape[1:]), data.dtype.name, PHYSICAL), Chain(operand)
        else:
            chain = _chain(lowering, operand)
            source = _image(lowering, chain.source)
        spec = _spec(source, chain, result, node["axis"], offset, shared=operand in lowering.graph.constant)
        if spec.shared:
            constants, reads = {"x": lowering.constants.add(stored_array(data, PHYSICAL))}, {}
        else:
            constants, reads = _scalars(lowering, chain), {"x": lowering.buffers[chain.source]}
        lowering.steps.append(Step(spec, where, reads, buffer, constants))
        size = lowering.graph.type_of(operand).shape[node["axis"]]
        assert isinstance(size, int)
        offset += size


def _image(lowering: Lowering, name: str) -> Image:
    """How a value lies in memory: its own shape, which that of its buffer need not be."""
    return lowering.image(lowering.graph.values[name].type, name, lowering.image_of(name).layout)


def _chain(lowering: Lowering, name: str) -> Chain:
    return Chain(name) if name in lowering.buffers else lowering.deferred[name]


def _move(lowering: Lowering, node: Node, shape: tuple[int, ...]) -> Move:
    """A node as a move."""
    match node.op:
        case "pad":
            return Move("pad", (node["before"], node["after"]))
        case "slice":
            return Move("slice", (node["axes"], node["starts"], node["stops"], node["steps"]))
        case "take":
            indices = lowering.graph.constant[node.inputs[1]].data
            return Move("take", ((node["axis"],), tuple(int(index) for index in indices)))
        case "transpose":
            return Move("transpose", (node["order"],))
        case "reshape":
            return Move("reshape", (shape,))
    raise InternalError(f"%{node.output.name} = {node.op} is no move of codes")


def _spec(source: Image, chain: Chain, result: Image, axis: int = 1, offset: int = 0, shared: bool = False) -> MoveSpec:
    shapes = source.shape, result.shape
    return MoveSpec(*shapes, source.layout, result.layout, result.dtype, chain.moves, axis, offset, shared)


def _scalars(lowering: Lowering, chain: Chain) -> dict[str, Address]:
    return {"scalars": lowering.scalars({Scalar.X_ZERO: chain.fill or 0})}


def _joins(lowering: Lowering, before: Chain, step: Move, fill: int | None, result: Image) -> bool:
    """Whether a move may be appended to a chain: pads agree, and loops still say where everything comes from."""
    if fill is not None and before.fill is not None and fill != before.fill:
        return False
    chain = Chain(before.source, (*before.moves, step))
    return not index_map(_spec(_image(lowering, before.source), chain, result)).scattered


def _finish(lowering: Lowering, node: Node, chain: Chain) -> None:
    """Compute what a chain gives: nothing where all stays in place."""
    source, result = _image(lowering, chain.source), lowering.image(node.output.type, node.origin or node.output.name)
    spec = _spec(source, chain, result)
    if source.layout == result.layout and is_unmoved(spec):
        lowering.buffers[node.output.name] = lowering.buffers[chain.source]
        return
    scalars = {Scalar.X_ZERO: chain.fill or 0}
    lowering.step(node, _as_copy(spec) or spec, {"x": chain.source}, scalars)


def _as_copy(spec: MoveSpec) -> CopySpec | None:
    """A pad of space, or a reshape that is no nest of loops, as a copy that computes where elements come from."""
    if len(spec.moves) != 1:
        return None
    move, rank = spec.moves[0], len(spec.in_shape)
    shapes = spec.in_shape, spec.out_shape
    if move.kind == "pad" and rank > 2 and move.arguments[0][1] == move.arguments[1][1] == 0:
        starts = tuple(-before for before in move.arguments[0])
        return CopySpec(*shapes, spec.in_layout, spec.out_layout, spec.dtype, starts, (1,) * rank)
    if move.kind == "reshape" and index_map(spec).scattered:
        return CopySpec(*shapes, spec.in_layout, spec.out_layout, spec.dtype, reshape=True)
    return None
