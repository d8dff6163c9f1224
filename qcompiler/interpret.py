"""Runs a graph of any stage: float stages by torch (differentiable), the integer stage by numpy, exactly.

The integer interpreter is the reference: every built library must give its codes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qcompiler import codes
from qcompiler.errors import InternalError
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Array, Graph, Node, Stage, Value
from qcompiler.ops.operator import Operand
from qcompiler.ops.table import OPERATORS

if TYPE_CHECKING:
    import torch


def last_reads(graph: Graph) -> Mapping[str, int]:
    """The index of the last node that reads each name; outputs of the graph are never done with."""
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    last.update((name, len(graph.nodes)) for name in graph.outputs)
    return last


def run_float(
    graph: Graph,
    inputs: Sequence[torch.Tensor],
    observe: Callable[[Value, torch.Tensor], None] | None = None,
    constants: Mapping[str, torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """The outputs of a float, calibrated or allocated graph for float32 inputs with the batch in front.

    ``observe`` sees every value as it is made (inputs included); ``constants`` replaces constants by name, so that a
    caller can differentiate by them. Tensors are dropped after their last use.
    """
    import torch

    tensors = {v.name: x for v, x in zip(graph.inputs, inputs, strict=True)}
    given = constants or {}
    fixed = {c.name: given[c.name] if c.name in given else torch.from_numpy(c.data.copy()) for c in graph.constants}
    last = last_reads(graph)
    if observe:
        for value in graph.inputs:
            observe(value, tensors[value.name])
    for index, node in enumerate(graph.nodes):
        operands = [tensors[name] if name in tensors else fixed[name] for name in node.inputs]
        result = tensors[node.output.name] = OPERATORS[node.op].run_float(node, operands)
        if observe:
            observe(node.output, result)
        for name in node.inputs:
            if last[name] <= index:
                tensors.pop(name, None)
    return [tensors[name] if name in tensors else fixed[name] for name in graph.outputs]


def run_integer(graph: Graph, inputs: Sequence[Array], observe: Callable[[Node, Array], None] | None = None) -> list[Array]:
    """The output codes of an integer graph for input codes with the batch in front; each in its own container type.

    Raises InternalError when a result does not fit its type: the proof in ``passes.prove_overflow`` excludes that.
    """
    if graph.stage is not Stage.INTEGER:
        raise InternalError(f"graph {graph.name} is in stage {graph.stage.value}, not integer")
    arrays = {v.name: np.asarray(x, dtype=np.int64) for v, x in zip(graph.inputs, inputs, strict=True)}
    arrays.update((c.name, c.data.astype(np.int64)) for c in graph.constants)
    operands: dict[str, Operand] = {**graph.values, **graph.constant}
    last = last_reads(graph)
    for index, node in enumerate(graph.nodes):
        result = OPERATORS[node.op].run_integer(node, [operands[n] for n in node.inputs], [arrays[n] for n in node.inputs])
        _check_fits(node, result)
        if observe:
            observe(node, result)
        arrays[node.output.name] = result
        for name in set(node.inputs):
            if last[name] <= index:
                del arrays[name]
    return [arrays[name].astype(graph.type_of(name).dtype.container) for name in graph.outputs]


def _check_fits(node: Node, result: Array) -> None:
    dtype = node.output.type.dtype
    assert isinstance(dtype, IntegerType)
    if result.size and not dtype.minimum <= int(result.min()) <= int(result.max()) <= dtype.maximum:
        raise InternalError(f"%{node.output.name} has codes {result.min()} to {result.max()}, outside of {dtype}")


def quantize_input(value: Value, x: Array) -> Array:
    """Codes of a float array, as the built library's wrapper makes them."""
    dtype = value.type.dtype
    assert isinstance(dtype, IntegerType)
    assert value.scale is not None
    return codes.quantize(np.asarray(x), value.scale, value.zero or 0, dtype.minimum, dtype.maximum, dtype.container.name)


def dequantize(value: Value, x: Array) -> Array:
    """The real numbers of an array of codes, as float32."""
    assert value.scale is not None
    return codes.dequantize(x, value.scale, value.zero or 0)
