"""Every ONNX operator that is supported, by its name, and why others are not."""

from __future__ import annotations

from typing import Final

from qcompiler.importers import onnx_convolution, onnx_elementwise, onnx_microsoft, onnx_movement, onnx_quantized, onnx_reduction
from qcompiler.importers.onnx_call import Handler

OPERATORS: Final[dict[str, Handler]] = {
    **onnx_convolution.OPERATORS,
    **onnx_elementwise.OPERATORS,
    **onnx_movement.OPERATORS,
    **onnx_reduction.OPERATORS,
    **onnx_quantized.OPERATORS,
    **onnx_microsoft.OPERATORS,
}

_STATISTICS: Final = "not supported: it normalizes by the statistics of its input"
_COMPARISON: Final = "not supported: codes are numbers, neither infinite nor NaN"
_CONTROL: Final = "not supported: the steps of the graph cannot depend on values"
_RECURRENT: Final = "not supported: recurrent layers are not"
_DYNAMIC: Final = "not supported: its scales depend on the values; quantize the model with static scales, or pass the float model"

NORMALIZATIONS: Final = (
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
    "com.microsoft.SkipLayerNormalization",
)
"""Operators that are not supported, whose first result has the shape of their first operand."""

REASONS: Final[dict[str, str]] = {
    **dict.fromkeys(NORMALIZATIONS, _STATISTICS),
    **dict.fromkeys(("IsInf", "IsNaN"), _COMPARISON),
    **dict.fromkeys(("If", "Loop", "Scan"), _CONTROL),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _RECURRENT),
    "Attention": "not supported: it has a softmax inside",
    "Einsum": "not supported: write it as MatMul, Mul, Transpose and ReduceSum",
    "LpPool": "not supported: only max and average pooling are",
    "GlobalLpPool": "not supported: only max and average pooling are",
    "MaxUnpool": "not supported: it puts elements at places that are computed",
    "MaxRoiPool": "not supported: its windows are computed",
    "RoiAlign": "not supported: its windows are computed",
    "GatherElements": "not supported: only Gather by constant indices, and of rows of constant tables, is",
    "GatherND": "not supported: only Gather by constant indices, and of rows of constant tables, is",
    "NonMaxSuppression": "not supported: the size of its result depends on the values",
    "NonZero": "not supported: the size of its result depends on the values",
    "ReduceProd": "not supported: a product of many codes does not fit",
    "CumSum": "not supported: only sums over whole axes are",
    "DynamicQuantizeLinear": _DYNAMIC,
    "com.microsoft.DynamicQuantizeMatMul": _DYNAMIC,
    "ConvInteger": "not supported: it has no scales of its result; pass the float model, or one with QLinearConv or QDQ",
    "MatMulInteger": "not supported: it has no scales of its result; pass the float model, or one with QLinearMatMul or QDQ",
}
