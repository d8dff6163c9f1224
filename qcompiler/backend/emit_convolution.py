"""Convolutions and linear layers: an accumulator together with its requantization is one kernel."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from qcompiler import arith
from qcompiler.backend.kernel import CHANNEL_ARGUMENTS, ConvolutionSpec, Epilogue, Scalar
from qcompiler.backend.lowering import Lowering, output_scalars
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Node
from qcompiler.ops.operator import zero_of
from qcompiler.ops.requantize import is_add_short, is_saturated, is_short


def convolution(lowering: Lowering, node: Node) -> None:
    """The kernel of a requantization and the sums that it reads."""
    sums = lowering.graph.producer[node.inputs[0]]
    x = lowering.graph.values[sums.inputs[0]]
    weight = lowering.graph.constant[sums.inputs[1]]
    narrow, residual = node.op.endswith("narrow"), node.op.startswith("requantize_add")
    other = lowering.graph.values[node.inputs[-1]] if residual else None
    assert isinstance(weight.type.dtype, IntegerType)
    places = arith.weight_places(weight.type.dtype.bits)
    first_shift = lowering.graph.constant[node.inputs[2]].data if narrow else np.zeros(1)
    types = (None if other is None else other.type.dtype.container.name, node.output.type.dtype.container.name)
    saturated = is_saturated(lowering.graph, node)
    short = is_short(lowering.graph, node) or is_add_short(lowering.graph, node)
    left = max(-int(first_shift.min()) - places, 0) if short else 0
    if short:
        first_shift = first_shift + (places + left)
    shifted = bool(first_shift.any())
    epilogue = Epilogue(narrow, *types, pre_shifted=shifted, saturated=saturated, short=short, left=left)
    shape = lowering.image(x.type, sums.origin).shape
    space = shape[-2:] if len(shape) > 3 else (1, 1)
    codes = weight.data.reshape(*weight.data.shape[:2], *(weight.data.shape[2:] or (1, 1)))
    spec = ConvolutionSpec(
        batch=lowering.batch * prod(shape[2:-2]),  # every slice in depth is an image
        height=space[0],
        width=space[1],
        in_channels=shape[1],
        out_channels=len(codes),
        kernel=(codes.shape[2], codes.shape[3]),
        strides=sums.get("strides", (1, 1)),
        padding=sums.get("padding", (0, 0, 0, 0)),
        dilation=sums.get("dilation", (1, 1)),
        groups=sums.get("groups", 1),
        weight_bits=weight.type.dtype.bits,
        epilogue=epilogue,
    )
    if saturated and not shifted and spec.is_affine and not places:
        words = arith.fit_words(*(lowering.graph.constant[name].data for name in node.inputs[3:5]))
        spec = replace(spec, epilogue=replace(epilogue, word_bounds=words))
    scalars = {**output_scalars(node), Scalar.X_ZERO: zero_of(x)}
    reads = {"x": x.name}
    if other is not None:
        reads["residual"] = other.name
        scalars[Scalar.RESIDUAL_ZERO] = zero_of(other)
        scalars[Scalar.RESIDUAL_MULTIPLIER] = node["other_multiplier"]
    data = [lowering.graph.constant[name].data for name in node.inputs[1 : len(node.inputs) - residual]]
    per_channel = dict(zip(CHANNEL_ARGUMENTS[1:], data, strict=False))
    if short:
        per_channel = {"multiplier": arith.short_word(per_channel["multiplier"], first_shift)}
    wanted = [name for name in epilogue.channel_arguments if name != "bias"]
    more = {name: lowering.channel_constant(per_channel[name]) for name in wanted}
    step = lowering.step(node, spec, reads, scalars, **more)
    bias = lowering.graph.constant[sums.inputs[2]].data if len(sums.inputs) == 3 else np.zeros(len(codes), dtype=np.int32)
    step.weights = (codes, bias)
