"""Operators of one tensor that work element by element on what is stored; functions of one byte are tables."""

from __future__ import annotations

from typing import Final

import numpy as np

from qcompiler import arith
from qcompiler.backend.emit_binary import largest
from qcompiler.backend.kernel import LookupSpec, PreluSpec, RescaleSpec, Scalar
from qcompiler.backend.lowering import Lowering, output_scalars
from qcompiler.ir.graph import Array, Node, TensorType
from qcompiler.ops.operator import zero_of

CODES: Final = np.arange(256, dtype=np.int64)


def rescale(lowering: Lowering, node: Node) -> None:
    """Codes of one scale to codes of another."""
    x = lowering.graph.values[node.inputs[0]]
    if _is_short(x.type, node.output.type):
        _by_table(lowering, node, arith.requantize(CODES - zero_of(x), node["multiplier"], *_tail(node), arith.NUMPY))
        return
    image = lowering.image(node.output.type, node.origin)
    scalars = {**output_scalars(node), Scalar.X_ZERO: zero_of(x), Scalar.X_MULTIPLIER: node["multiplier"]}
    bits = arith.headroom(largest(x), node["shift"])
    spec = RescaleSpec(image.elements, x.type.dtype.container.name, image.dtype, bits)
    lowering.step(node, spec, {"x": x.name}, scalars)


def lookup(lowering: Lowering, node: Node) -> None:
    """A table by code."""
    _by_table(lowering, node, lowering.graph.constant[node.inputs[1]].data)


def prelu(lowering: Lowering, node: Node) -> None:
    """Two factors: one for what is not negative, and one a channel for what is."""
    x, negative = lowering.graph.values[node.inputs[0]], lowering.graph.constant[node.inputs[1]]
    if _is_short(x.type, node.output.type) and len(np.unique(negative.data)) == 1:
        factors = node["multiplier"], int(negative.data[0])
        _by_table(lowering, node, arith.prelu(CODES - zero_of(x), *factors, *_tail(node), arith.NUMPY))
        return
    image = lowering.image(node.output.type, node.origin)
    bits = arith.headroom(largest(x), node["shift"])
    spec = PreluSpec(image.shape, x.type.dtype.container.name, image.dtype, bits)
    scalars = {**output_scalars(node), Scalar.X_ZERO: zero_of(x), Scalar.X_MULTIPLIER: node["multiplier"]}
    lowering.step(node, spec, {"x": x.name}, scalars, multiplier=lowering.channel_constant(negative.data))


def _is_short(x: TensorType, y: TensorType) -> bool:
    """Whether a table of all codes is the fastest kernel."""
    return x.dtype.container == np.uint8 and y.dtype.container in (np.uint8, np.int16)


def _by_table(lowering: Lowering, node: Node, table: Array) -> None:
    """A table has an entry for every byte, as padding channels may hold any."""
    image = lowering.image(node.output.type, node.origin)
    entries = np.zeros(len(CODES), dtype=image.dtype)
    entries[: len(table)] = table
    spec = LookupSpec(image.elements, image.dtype)
    lowering.step(node, spec, {"x": node.inputs[0]}, {}, table=lowering.constants.add(entries))


def _tail(node: Node) -> tuple[int, int, int, int]:
    return (node["shift"], node.output.zero or 0, *node["limits"])
