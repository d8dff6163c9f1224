"""Every aten operator that is supported, as ``torch.export`` writes them and after its decompositions, and why others are not."""

from __future__ import annotations

from typing import Final

from qcompiler.importers import (
    torch_assignment,
    torch_convolution,
    torch_elementwise,
    torch_movement,
    torch_quantized,
    torch_reduction,
)
from qcompiler.importers.torch_call import Handler

OPERATORS: Final[dict[str, Handler]] = {
    **torch_assignment.OPERATORS,
    **torch_convolution.OPERATORS,
    **torch_elementwise.OPERATORS,
    **torch_movement.OPERATORS,
    **torch_quantized.OPERATORS,
    **torch_reduction.OPERATORS,
}

PASS_ON: Final = tuple(f"aten.{name}.default" for name in ("alias", "clone", "contiguous", "detach"))
"""Operators that a softmax at the end may stand before."""

SOFTMAXES: Final = ("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default")
"""Operators whose numbers nothing may read."""

RANKINGS: Final = ("aten.argmax.default", "aten.argmin.default", "aten.max.dim", "aten.min.dim", "aten.topk.default")
"""Operators that read the order of elements, which a softmax does not change."""

READ_INTEGERS: Final = ("embedding", "to", "_to_copy", "clone", "detach", "alias", "contiguous", "lift_fresh_copy")
"""Operators that may read integer inputs and the indices that argmax and topk give."""

READ_TRUTH: Final = (
    *("where", "masked_fill", "index_put", "_unsafe_index_put", "logical_not", "bitwise_not"),
    *("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__", "__xor__"),
    *("to", "_to_copy", "clone", "detach", "alias", "contiguous", "lift_fresh_copy", "type_as"),
)
"""Operators that read truth values as they are; for the others they are the numbers 0 and 1."""

MAKES_FRESH: Final = frozenset(
    [
        "_adaptive_avg_pool2d",
        "_prelu_kernel",
        "abs",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "add",
        "add_",
        "addcmul",
        "addmm",
        "amax",
        "amin",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "baddbmm",
        "batch_norm",
        "bmm",
        "cat",
        "celu",
        "celu_",
        "channel_shuffle",
        "clamp",
        "clamp_",
        "clamp_max",
        "clamp_max_",
        "clamp_min",
        "clamp_min_",
        "clone",
        "constant_pad_nd",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "convolution",
        "div",
        "div_",
        "elu",
        "elu_",
        "embedding",
        "erf",
        "exp",
        "exp_",
        "flip",
        "gelu",
        "gelu_",
        "hardsigmoid",
        "hardsigmoid_",
        "hardswish",
        "hardswish_",
        "hardtanh",
        "hardtanh_",
        "leaky_relu",
        "leaky_relu_",
        "linear",
        "log",
        "log_",
        "matmul",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "maximum",
        "mean",
        "minimum",
        "mish",
        "mish_",
        "mm",
        "mul",
        "mul_",
        "neg",
        "neg_",
        "pad",
        "pow",
        "pow_",
        "prelu",
        "reciprocal",
        "reflection_pad1d",
        "reflection_pad2d",
        "relu",
        "relu6",
        "relu6_",
        "relu_",
        "repeat",
        "replication_pad1d",
        "replication_pad2d",
        "rsqrt",
        "rsub",
        "selu",
        "selu_",
        "sigmoid",
        "sigmoid_",
        "silu",
        "silu_",
        "softplus",
        "sqrt",
        "stack",
        "sub",
        "sub_",
        "sum",
        "tanh",
        "tanh_",
        "upsample_bilinear2d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
    ]
)
"""Operators whose results share no memory with their operands."""

_TRAINING: Final = "it normalizes by the statistics of its batch; call model.eval() before the export"
_STATISTICS: Final = "not supported: it normalizes by the statistics of its input"
_RECURRENT: Final = "not supported: recurrent layers are not"


def _each(names: str, reason: str) -> dict[str, str]:
    return {f"aten.{name}": reason for name in names.split()}


REASONS: Final = {
    **_each("_native_batch_norm_legit_functional.default _native_batch_norm_legit.default", _TRAINING),
    **_each("_native_batch_norm_legit.no_stats", _TRAINING),
    **_each("instance_norm.default layer_norm.default group_norm.default rms_norm.default", _STATISTICS),
    **_each("native_layer_norm.default native_group_norm.default", _STATISTICS),
    **_each("lstm.input gru.input rnn_tanh.input rnn_relu.input", _RECURRENT),
    **_each("max_unpool2d.default max_unpool3d.default", "not supported: it writes to positions that are computed"),
    **_each("scaled_dot_product_attention.default", "not supported: it has a softmax inside"),
    **_each("einsum.default", "not supported: write it as matmul, mul, permute and sum"),
    **_each("upsample_bicubic2d.vec upsample_bicubic2d.default", "not supported: only nearest and linear resizing are"),
    **_each("grid_sampler.default grid_sampler_2d.default", "not supported: its positions are computed"),
}
