"""Operators that move elements and compute nothing: pad, slice, reshape, identity. On codes they are what they are on floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qcompiler.ir.graph import BATCH, Array, Node, TensorType
from qcompiler.ops.operator import ALL_STAGES, FLOAT_STAGES, Operand, Operator, require

if TYPE_CHECKING:
    import torch


class Pad(Operator):
    """``pad(x, before=, after=, value=)``: one count per axis; in the integer stage ``code`` takes the place of ``value``."""

    name = "pad"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        x, before, after = operands[0].type, node["before"], node["after"]
        require(len(before) == len(after) == len(x.shape), f"pad: {len(before)} and {len(after)} counts for {x}")
        require(min((*before, *after), default=0) >= 0, "pad: counts must not be negative (a crop is a slice)")
        require(not x.shape or x.shape[0] != BATCH or before[0] == after[0] == 0, "pad: the batch cannot be padded")
        sizes = zip(x.shape, before, after, strict=True)
        return TensorType(x.dtype, tuple(d if d == BATCH else d + b + a for d, b, a in sizes))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from torch.nn import functional

        pairs = [p for b, a in zip(reversed(node["before"]), reversed(node["after"]), strict=True) for p in (b, a)]
        return functional.pad(inputs[0], pairs, value=node["value"])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        return np.pad(inputs[0], list(zip(node["before"], node["after"], strict=True)), constant_values=node["code"])


class Slice(Operator):
    """``slice(x, axes=, starts=, stops=, steps=)``: normalized, 0 <= start < stop <= size, step >= 1, never the batch."""

    name = "slice"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        x = operands[0].type
        shape = list(x.shape)
        for axis, start, stop, step in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
            size = shape[axis]
            require(isinstance(size, int), "slice: the batch cannot be sliced")
            assert isinstance(size, int)
            require(0 <= start < stop <= size and step >= 1, f"slice: [{start}:{stop}:{step}] of {size} elements")
            shape[axis] = len(range(start, stop, step))
        return TensorType(x.dtype, tuple(shape))

    def _index(self, node: Node, rank: int) -> tuple[slice, ...]:
        index = [slice(None)] * rank
        for axis, start, stop, step in zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True):
            index[axis] = slice(start, stop, step)
        return tuple(index)

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0][self._index(node, inputs[0].ndim)]

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        return inputs[0][self._index(node, inputs[0].ndim)]


class Reshape(Operator):
    """``reshape(x, shape=)``: row-major; the batch stays in front."""

    name = "reshape"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        x = operands[0].type
        result = TensorType(x.dtype, tuple(node["shape"]))
        batched = [bool(t.shape) and t.shape[0] == BATCH for t in (x, result)]
        require(batched[0] == batched[1], f"reshape of {x} to {result}: the batch must stay in front")
        require(x.elements == result.elements, f"reshape of {x} to {result}: {x.elements} elements are not {result.elements}")
        return result

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0].reshape([-1 if d == BATCH else d for d in node["shape"]])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        return inputs[0].reshape([-1 if d == BATCH else d for d in node["shape"]])


class Identity(Operator):
    """``identity(x)``: what dropout and identity layers are at inference."""

    name = "identity"
    stages = FLOAT_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 1, f"identity takes 1 operand, not {len(operands)}")
        return operands[0].type

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0]
