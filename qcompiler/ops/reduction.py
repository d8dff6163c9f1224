"""Reductions over axes other than the batch: mean, sum, amax, amin, and the indices and values of the largest.

Integer: a sum of zero-free codes is requantized once (a mean is a sum with another multiplier); extremes are those of codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qcompiler import arith
from qcompiler.ir.dtypes import F32, I32, FloatType
from qcompiler.ir.graph import Array, Node, Stage, TensorType
from qcompiler.ops.operator import ALL_STAGES, Operand, Operator, require, zero_of

if TYPE_CHECKING:
    import torch


def reduced(name: str, x: TensorType, axes: Sequence[int], keepdims: bool) -> TensorType:
    """The type after a reduction."""
    require(len(set(axes)) == len(axes), f"{name}: axes {tuple(axes)} repeat")
    require(all(0 < a < len(x.shape) for a in axes), f"{name} over axes {tuple(axes)} of {x}: the batch cannot be reduced")
    if keepdims:
        return TensorType(x.dtype, tuple(1 if i in axes else d for i, d in enumerate(x.shape)))
    return TensorType(x.dtype, tuple(d for i, d in enumerate(x.shape) if i not in axes))


class _Reduction(Operator):
    """``name(x, axes=, keepdims=)``."""

    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        result = reduced(self.name, operands[0].type, node["axes"], bool(node["keepdims"]))
        return result if isinstance(result.dtype, FloatType) else TensorType(node.output.type.dtype, result.shape)


class Mean(_Reduction):
    """``mean(x, axes=, keepdims=)``; canonicalization makes pooling or a sum of it."""

    name = "mean"
    stages = frozenset({Stage.FLOAT})

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0].mean(dim=node["axes"], keepdim=bool(node["keepdims"]))


class Sum(_Reduction):
    """``sum(x, axes=, keepdims=)``, times the optional number ``factor``; integer: ``multiplier=``, ``shift=``, ``limits=``."""

    name = "sum"

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from qcompiler.ops.clip import clamp_float

        total = inputs[0].sum(dim=node["axes"], keepdim=bool(node["keepdims"]))
        return clamp_float(node, total * node.get("factor", 1.0))

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        total = (inputs[0] - zero_of(operands[0])).sum(axis=node["axes"], keepdims=bool(node["keepdims"]))
        lo, hi = node["limits"]
        tail = (node["shift"], node.output.zero or 0, lo, hi)
        result: Array = arith.requantize(total, node["multiplier"], *tail, arith.NUMPY)
        return result


class Amax(_Reduction):
    """``amax(x, axes=, keepdims=)``, on codes as on floats."""

    name = "amax"

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0].amax(dim=node["axes"], keepdim=bool(node["keepdims"]))

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        result: Array = inputs[0].max(axis=node["axes"], keepdims=bool(node["keepdims"]))
        return result


class Amin(_Reduction):
    """``amin(x, axes=, keepdims=)``, on codes as on floats."""

    name = "amin"

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0].amin(dim=node["axes"], keepdim=bool(node["keepdims"]))

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        result: Array = inputs[0].min(axis=node["axes"], keepdims=bool(node["keepdims"]))
        return result


def _ranking(x: Array, axis: int, largest: bool, last: bool = False) -> Array:
    """Indices along ``axis`` from the best on; equal elements keep their order, or the opposite one with ``last``."""
    key = -x if largest else x
    if last:
        size = x.shape[axis]
        backwards: Array = size - 1 - np.argsort(np.flip(key, axis), axis=axis, kind="stable")
        return backwards
    return np.argsort(key, axis=axis, kind="stable")


class Argmax(Operator):
    """``argmax(x, axis=, keepdims=, largest=, last=)``: ties go to the lowest index, or to the highest with ``last=1``."""

    name = "argmax"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        x = operands[0].type
        result = reduced(self.name, x, (node["axis"],), bool(node["keepdims"]))
        return TensorType(F32 if isinstance(x.dtype, FloatType) else I32, result.shape)

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        found = self._indices(node, inputs[0].detach().numpy())
        return torch.from_numpy(found.astype(np.float32))

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        return self._indices(node, inputs[0])

    @staticmethod
    def _indices(node: Node, x: Array) -> Array:
        order = _ranking(x, node["axis"], bool(node.get("largest", 1)), bool(node.get("last", 0)))
        found: Array = np.take(order, [0] if node["keepdims"] else 0, axis=node["axis"])
        return found


class _Topk(Operator):
    """``topk_values(x, axis=, k=, largest=)`` and ``topk_indices``: sorted, ties to the lowest index."""

    stages = ALL_STAGES
    indices: bool

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        x, axis, k = operands[0].type, node["axis"], node["k"]
        require(0 < axis < len(x.shape), f"{self.name} over axis {axis} of {x}: the batch cannot be ranked")
        size = x.shape[axis]
        require(isinstance(size, int) and 1 <= k <= size, f"{self.name}: {k} of {size} elements")
        dtype = x.dtype if not self.indices else F32 if isinstance(x.dtype, FloatType) else I32
        return TensorType(dtype, tuple(k if i == axis else d for i, d in enumerate(x.shape)))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        return torch.from_numpy(self._top(node, inputs[0].detach().numpy()).astype(np.float32))

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        return self._top(node, inputs[0])

    def _top(self, node: Node, x: Array) -> Array:
        axis = node["axis"]
        order = np.take(_ranking(x, axis, bool(node.get("largest", 1))), range(node["k"]), axis=axis)
        return order if self.indices else np.take_along_axis(x, order, axis)


class TopkValues(_Topk):
    """The k largest (or smallest) elements."""

    name = "topk_values"
    indices = False


class TopkIndices(_Topk):
    """Their indices."""

    name = "topk_indices"
    indices = True
