"""The emitter of every operator, by its name. A new operator is a line here and a function of a few lines."""

from __future__ import annotations

from typing import Final

from qcompiler.exporters import elementwise, functions, layers, movement, pooling, reduction, resizing
from qcompiler.exporters.call import Emitter

EMITTERS: Final[dict[str, Emitter]] = {
    "add": elementwise.add,
    "amax": reduction.reduction("ReduceMax"),
    "amin": reduction.reduction("ReduceMin"),
    "argmax": reduction.argmax,
    "average_pool2d": pooling.average_pool2d,
    "batch_norm": layers.batch_norm,
    "clip": elementwise.clip,
    "concat": movement.concat,
    "conv2d": layers.convolution,
    "conv3d": layers.convolution,
    "conv_transpose2d": layers.conv_transpose2d,
    "embedding": layers.embedding,
    "function": functions.function,
    "identity": movement.identity,
    "linear": layers.linear,
    "lookup": functions.lookup,
    "matmul": layers.matmul,
    "max_pool2d": pooling.max_pool2d,
    "maximum": elementwise.binary("Max"),
    "mean": reduction.reduction("ReduceMean"),
    "minimum": elementwise.binary("Min"),
    "mul": elementwise.binary("Mul"),
    "pad": movement.pad,
    "prelu": elementwise.prelu,
    "quantizer": elementwise.clip,
    "requantize": elementwise.requantize,
    "requantize_add": elementwise.requantize_add,
    "requantize_add_narrow": elementwise.requantize_add,
    "requantize_narrow": elementwise.requantize,
    "rescale": elementwise.rescale,
    "reshape": movement.reshape,
    "resize_linear": resizing.resize_linear,
    "slice": movement.slice_,
    "sub": elementwise.binary("Sub"),
    "sum": reduction.sum_,
    "take": movement.take,
    "topk_indices": reduction.topk(indices=True),
    "topk_values": reduction.topk(indices=False),
    "transpose": movement.transpose,
}
