"""Operators that give indices or read by them: argmax, top-k, embedding."""

from __future__ import annotations

from qcompiler.backend.kernel import ArgmaxSpec, EmbeddingSpec, TopkSpec
from qcompiler.backend.lowering import Lowering
from qcompiler.ir.graph import Node


def argmax(lowering: Lowering, node: Node) -> None:
    """The place of the largest or smallest code along an axis."""
    x = lowering.graph.values[node.inputs[0]]
    where = node.origin or node.output.name
    source, result = lowering.image(x.type, where), lowering.image(node.output.type, where)
    largest, last = bool(node.get("largest", 1)), bool(node.get("last", 0))
    spec = ArgmaxSpec(source.shape, result.shape, node["axis"], largest, last, source.dtype)
    lowering.step(node, spec, {"x": x.name}, {})


def topk(lowering: Lowering, node: Node) -> None:
    """The largest or smallest codes along an axis, or their places."""
    x = lowering.graph.values[node.inputs[0]]
    source = lowering.image(x.type, node.origin or node.output.name)
    largest = bool(node.get("largest", 1))
    spec = TopkSpec(source.shape, node["axis"], node["k"], largest, node.op == "topk_indices", source.dtype)
    lowering.step(node, spec, {"x": x.name}, {})


def embedding(lowering: Lowering, node: Node) -> None:
    """Rows of a table by index."""
    indices, table = lowering.graph.values[node.inputs[0]], lowering.graph.constant[node.inputs[1]]
    rows, width = table.data.shape
    spec = EmbeddingSpec(indices.type.with_batch(lowering.batch), rows, width, table.data.dtype.name)
    lowering.step(node, spec, {"x": indices.name}, {}, table=lowering.constants.add(table.data))
