"""Operators that move elements and compute nothing: on codes they are what they are on floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from qcompiler.ir.dtypes import I32
from qcompiler.ir.graph import BATCH, Array, Constant, Dim, Node, TensorType
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
    """``slice(x, axes=, starts=, stops=, steps=)``, never the batch.

    Normalized: the elements are those of ``range(start, stop, step)``, at least one, all inside; with a negative step the
    stop may be -1.
    """

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
            chosen = range(start, stop, step) if step else range(0)
            inside = bool(chosen) and 0 <= chosen[0] < size and 0 <= chosen[-1] < size and -1 <= stop <= size
            require(inside, f"slice: [{start}:{stop}:{step}] of {size} elements")
            shape[axis] = len(chosen)
        return TensorType(x.dtype, tuple(shape))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        x = inputs[0]
        for axis, chosen in self._chosen(node):
            if chosen.step > 0:
                x = x.narrow(axis, chosen[0], chosen[-1] - chosen[0] + 1)
                x = x[(slice(None),) * axis + (slice(None, None, chosen.step),)]
            else:
                x = x.index_select(axis, x.new_tensor(list(chosen)).long())
        return x

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        x = inputs[0]
        for axis, chosen in self._chosen(node):
            x = np.take(x, chosen, axis)
        return x

    @staticmethod
    def _chosen(node: Node) -> list[tuple[int, range]]:
        """For each sliced axis the indices that stay."""
        ends = zip(node["axes"], node["starts"], node["stops"], node["steps"], strict=True)
        return [(axis, range(start, stop, step)) for axis, start, stop, step in ends]


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


class Transpose(Operator):
    """``transpose(x, order=)``: axis i of the result is axis ``order[i]`` of x; the batch stays in front."""

    name = "transpose"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        x, order = operands[0].type, node["order"]
        require(sorted(order) == list(range(len(x.shape))), f"transpose: {order} is no order of the axes of {x}")
        require(order[:1] == (0,), "transpose: the batch must stay in front")
        return TensorType(x.dtype, tuple(x.shape[axis] for axis in order))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0].permute(node["order"])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        return inputs[0].transpose(node["order"])


class Take(Operator):
    """``take(x, indices i32[K], axis=)``: elements of one axis by constant indices, as ``numpy.take``.

    Nearest resizing, reflecting and repeating pads, flips and channel shuffles are takes.
    """

    name = "take"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) == 2, f"take takes 2 operands, not {len(operands)}")
        x, indices, axis = operands[0].type, operands[1], node["axis"]
        require(isinstance(indices, Constant), "take: the indices are not constant")
        assert isinstance(indices, Constant)
        require(indices.type.dtype == I32 and len(indices.type.shape) == 1, f"take: {indices.type} are no indices")
        require(0 < axis < len(x.shape), f"take along axis {axis} of {x}: the batch cannot be indexed")
        size = x.shape[axis]
        assert isinstance(size, int)
        least, largest = int(indices.data.min(initial=0)), int(indices.data.max(initial=0))
        require(
            len(indices.data) >= 1 and least >= 0 and largest < size, f"take: indices {least} to {largest} of {size} elements"
        )
        return TensorType(x.dtype, tuple(len(indices.data) if i == axis else d for i, d in enumerate(x.shape)))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return inputs[0].index_select(node["axis"], inputs[1])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        return np.take(inputs[0], inputs[1], axis=node["axis"])


class Concat(Operator):
    """``concat(*xs, axis=, own=)``; in the integer stage all have one scale, zero point and type.

    ``own``, once ranges are known: the indices of operands that keep their own codes until then, see ``passes.separate_codes``.
    """

    name = "concat"
    stages = ALL_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) >= 1, "concat takes at least 1 operand")
        first, axis = operands[0].type, node["axis"]
        require(0 < axis < len(first.shape), f"concat along axis {axis} of {first}: batches cannot be joined")
        total = 0

        def others(type_: TensorType) -> list[Dim]:
            return [d for i, d in enumerate(type_.shape) if i not in (0, axis)]

        for operand in operands:
            fits = len(operand.type.shape) == len(first.shape) and others(operand.type) == others(first)
            require(fits, f"concat: {operand.type} does not fit {first} along axis {axis}")
            require(operand.type.dtype == first.dtype, f"concat: {operand.type} and {first} have different types")
            size = operand.type.shape[axis]
            assert isinstance(size, int)
            total += size
        batched = next((o.type.shape[0] for o in operands if o.type.shape[0] == BATCH), first.shape[0])
        shape = tuple(batched if i == 0 else total if i == axis else d for i, d in enumerate(first.shape))
        return TensorType(first.dtype, shape)

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        n = max(len(x) for x in inputs)
        return torch.cat([x if len(x) == n else x.expand(n, *x.shape[1:]) for x in inputs], dim=node["axis"])

    @override
    def run_integer(self, node: Node, operands: Sequence[Operand], inputs: Sequence[Array]) -> Array:
        n = max(len(x) for x in inputs)
        return np.concatenate([np.broadcast_to(x, (n, *x.shape[1:])) for x in inputs], axis=node["axis"])


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
