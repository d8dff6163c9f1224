"""matmul of two computed tensors, and embedding: rows of a constant table chosen by computed indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qcompiler import arith
from qcompiler.ir.dtypes import F32, I32, FloatType
from qcompiler.ir.graph import BATCH, Array, Dim, Node, TensorType
from qcompiler.ops.operator import ALL_STAGES, Operand, Operator, require, zero_of

if TYPE_CHECKING:
    import torch


class Matmul(Operator):
    """``matmul(a [N,...,M,K], b [N,...,K,P])``, equal ranks, numpy's broadcasting of what lies between.

    Integer: ``clamp(((sum over k of (a - za) * (b - zb)) * multiplier + (1 << (s-1))) >> s) + z, lo, hi)``.
    """

    name = "matmul"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 2, f"matmul takes 2 operands, not {len(operands)}")
        a, b = operands[0].type, operands[1].type
        rank = len(a.shape)
        require(rank == len(b.shape) and rank >= 3, f"matmul: {a} and {b} are not of one rank of at least 3")
        require(a.shape[-1] == b.shape[-2], f"matmul: {a} has {a.shape[-1]} columns, {b} has {b.shape[-2]} rows")
        require(a.shape[0] == b.shape[0] == BATCH, f"matmul: {a} and {b} do not both have the batch in front")
        between: list[Dim] = []
        for p, q in zip(a.shape[1:-2], b.shape[1:-2], strict=True):
            require(p == q or 1 in (p, q), f"matmul: {a} and {b} cannot be broadcast together")
            between.append(q if p == 1 else p)
        floating = isinstance(a.dtype, FloatType)
        shape = (BATCH, *between, a.shape[-2], b.shape[-1])
        return TensorType(F32 if floating else node.output.type.dtype, shape)

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0] @ inputs[1]

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        a, b = (x - zero_of(operand) for x, operand in zip(inputs, operands, strict=True))
        # The overflow proof bounds every sum by 2^31, so float64, exact to 2^53, gives it exactly and fast.
        total = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)
        lo, hi = node["limits"]
        tail = (node["shift"], node.output.zero or 0, lo, hi)
        result: Array = arith.requantize(total, node["multiplier"], *tail, arith.NUMPY)
        return result


class Embedding(Operator):
    """``embedding(indices, table [V, E])``: ``[*indices.shape, E]``; indices outside of the table are limited to it.

    In float stages indices are whole numbers in float32 (exact up to 2^24), in the integer stage int32.
    """

    name = "embedding"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 2, f"embedding takes 2 operands, not {len(operands)}")
        indices, table = operands[0].type, operands[1].type
        require(len(table.shape) == 2, f"embedding: the table {table} is not of rank 2")
        require(indices.dtype in (F32, I32), f"embedding: indices of type {indices.dtype}")
        return TensorType(table.dtype, (*indices.shape, *table.shape[1:]))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        indices, table = inputs
        return table[indices.round().long().clamp(0, len(table) - 1)]

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        indices, table = inputs
        result: Array = table[np.clip(indices, 0, len(table) - 1)]
        return result
