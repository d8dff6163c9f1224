"""What the library says of its inputs and outputs."""

from __future__ import annotations

from typing import Final

from qcompiler.backend.emit_movement import MOVES
from qcompiler.backend.image import DENSE
from qcompiler.backend.program import Port
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Graph, Value

INDEX_PRODUCERS: Final = ("argmax", "topk_indices")


def ports(graph: Graph, input_layout: str) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The ports of the inputs and those of the outputs."""
    inputs = tuple(_port(value, input_layout, _reads_rows(graph, value.name)) for value in graph.inputs)
    outputs = tuple(_port(graph.values[name], DENSE, _is_place(graph, name)) for name in graph.outputs)
    return inputs, outputs


def _port(value: Value, layout: str, index: bool) -> Port:
    dtype = value.type.dtype
    assert isinstance(dtype, IntegerType)
    assert value.scale is not None
    shape = value.type.with_batch(1)[1:]
    if len(shape) == 3 and layout == "NHWC":
        shape = (shape[1], shape[2], shape[0])
    return Port(
        name=value.name,
        dtype=dtype.container.name,
        bits=dtype.bits,
        shape=shape,
        layout=layout if len(shape) == 3 else "",
        scale=value.scale,
        zero=value.zero or 0,
        kind="index" if index and (value.scale, value.zero or 0) == (1.0, 0) and dtype.bits == 32 else "value",
    )


def _reads_rows(graph: Graph, name: str) -> bool:
    """Whether an input gives indices: an embedding reads it, or reads what moves make of it."""
    readers = graph.consumers[name]
    found = any(node.op == "embedding" and node.inputs[0] == name for node in readers)
    return found or any(node.op in (*MOVES, "concat") and _reads_rows(graph, node.output.name) for node in readers)


def _is_place(graph: Graph, name: str) -> bool:
    """Whether an output holds indices, or what moves make of them."""
    node = graph.producer.get(name)
    if node is None:
        return name in graph.values and _reads_rows(graph, name)
    moved = node.op in (*MOVES, "concat") and any(_is_place(graph, operand) for operand in node.inputs)
    return moved or node.op in INDEX_PRODUCERS
