"""conv_transpose2d and conv3d: float operators that a pass expresses by conv2d and moves of elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import Dim, Node, TensorType
from qcompiler.ops.operator import FLOAT_STAGES, Operand, Operator, require, window_size

if TYPE_CHECKING:
    import torch


class ConvTranspose2d(Operator):
    """``conv_transpose2d(x [N,I,H,W], weight [I,O/groups,KH,KW], bias [O]?)``, optional ``clamp``.

    ``padding`` (top, left, bottom, right) is cut off the full result, ``output_padding`` is added behind.
    """

    name = "conv_transpose2d"
    stages = FLOAT_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) in (2, 3), f"conv_transpose2d takes 2 or 3 operands, not {len(operands)}")
        x, weight = operands[0].type, operands[1].type
        require(len(x.shape) == 4 and len(weight.shape) == 4, f"conv_transpose2d needs operands of rank 4, not {x} and {weight}")
        in_channels, group_channels, *kernel = weight.with_batch(0)
        groups = node["groups"]
        require(x.shape[1] == in_channels, f"conv_transpose2d: {x} does not have {in_channels} channels")
        require(in_channels % groups == 0, f"conv_transpose2d: {in_channels} input channels do not split into {groups} groups")
        out_channels = group_channels * groups
        if len(operands) == 3:
            bias = operands[2].type
            require(bias.shape == (out_channels,), f"conv_transpose2d: the bias {bias} is not [{out_channels}]")
        padding, space = node["padding"], list[Dim]()
        for axis in (0, 1):
            size = x.shape[2 + axis]
            require(isinstance(size, int), "spatial dimensions must be known")
            assert isinstance(size, int)
            full = (size - 1) * node["strides"][axis] + node["dilation"][axis] * (kernel[axis] - 1) + 1
            out = full - padding[axis] - padding[2 + axis] + node["output_padding"][axis]
            require(out >= 1, f"conv_transpose2d: padding {padding} leaves nothing of {full} elements")
            space.append(out)
        return TensorType(F32, (x.shape[0], out_channels, *space))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from torch.nn import functional

        from qcompiler.ops.clip import clamp_float

        x, weight, *bias = inputs
        full = functional.conv_transpose2d(x, weight, None, node["strides"], 0, 0, node["groups"], node["dilation"])
        (top, left, bottom, right), (below, behind) = node["padding"], node["output_padding"]
        full = functional.pad(full, (0, behind, 0, below))  # first: more may be cut off than there was
        y = functional.pad(full, (-left, -right, -top, -bottom))
        return clamp_float(node, y + bias[0].reshape(1, -1, 1, 1) if bias else y)


class Convolution3d(Operator):
    """``conv3d(x [N,C,D,H,W], weight [O,C/groups,KD,KH,KW], bias [O]?)``, optional ``clamp``.

    ``padding``: front, top, left, back, bottom, right.
    """

    name = "conv3d"
    stages = FLOAT_STAGES

    @override
    def infer(self, node: Node, operands: Sequence[Operand]) -> TensorType:
        require(len(operands) in (2, 3), f"conv3d takes 2 or 3 operands, not {len(operands)}")
        x, weight = operands[0].type, operands[1].type
        require(len(x.shape) == 5 and len(weight.shape) == 5, f"conv3d needs operands of rank 5, not {x} and {weight}")
        out_channels, in_channels, *kernel = weight.with_batch(0)
        groups = node["groups"]
        require(x.shape[1] == in_channels * groups, f"conv3d: {x} does not have {groups} groups of {in_channels} channels")
        require(out_channels % groups == 0, f"conv3d: {out_channels} output channels do not split into {groups} groups")
        if len(operands) == 3:
            require(operands[2].type.shape == (out_channels,), f"conv3d: the bias {operands[2].type} is not [{out_channels}]")
        padding = node["padding"]
        space = tuple(
            window_size(x.shape[2 + i], padding[i], padding[3 + i], kernel[i], node["strides"][i], node["dilation"][i])
            for i in range(3)
        )
        return TensorType(F32, (x.shape[0], out_channels, *space))

    @override
    def run_float(self, node: Node, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        from torch.nn import functional

        from qcompiler.ops.clip import clamp_float

        x, weight, *bias = inputs
        front, top, left, back, bottom, right = node["padding"]
        x = functional.pad(x, (left, right, top, bottom, front, back))
        y = functional.conv3d(x, weight, bias[0] if bias else None, node["strides"], 0, node["dilation"], node["groups"])
        return clamp_float(node, y)
