"""Convolutions as plain loops over taps, for whatever no other schedule serves, on any instruction set.

What they are for: taps so far apart that the rows of one output are too long for the scratch of a task. A vector of output
channels is accumulated tap by tap; LLVM picks the instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import s_tir, te, tirx

from qcompiler.backend.kernel import LANES, ConvolutionSpec, Kernel, Scalar, physical_channels
from qcompiler.backend.tir import task_count
from qcompiler.schedules.epilogue import apply_epilogue, epilogue_placeholders
from qcompiler.schedules.pack import bias_adjustment, pack_codes, unpack_code


def build(spec: ConvolutionSpec, instruction_set: str) -> Kernel:
    """The kernel of any convolution. ``instruction_set`` makes no difference to it."""
    del instruction_set
    shape = (spec.batch, spec.out_height, spec.out_width, physical_channels(spec.out_channels))
    x = te.placeholder((spec.batch, spec.height, spec.width, physical_channels(spec.in_channels)), "uint8", name="x")
    arguments = epilogue_placeholders(spec.epilogue, shape)
    steps = spec.in_channels // spec.groups * spec.kernel[0] * spec.kernel[1]
    per_byte = 8 // spec.weight_bits
    weights = te.placeholder((-(-steps // per_byte), shape[3]), "int8" if spec.weight_bits == 8 else "uint8", name="weights")
    sums = _sums(spec, shape, x, weights, arguments)

    def code(*place: Any) -> Any:
        return apply_epilogue(spec.epilogue, arguments, sums(*place), place[3], place, spec.places)

    y = te.compute(shape, code, name="y")
    names, tensors = arguments.ordered(x, weights, y)
    function = _schedule(te.create_prim_func(tensors))

    def pack(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """``[steps / codes per byte][stored output channels]``."""
        by_step = np.zeros((1, steps, shape[3]), np.int8)
        by_step[0, :, : spec.out_channels] = codes.transpose(2, 3, 1, 0).reshape(steps, spec.out_channels)
        return by_step.reshape(-1).view(np.uint8) if per_byte == 1 else pack_codes(by_step, spec.weight_bits).reshape(-1)

    return Kernel(
        function=function,
        arguments=names,
        tasks=task_count(function),
        schedule="convolution_generic",
        pack=pack,
        adjust_bias=bias_adjustment(0, spec.places),
    )


def _sums(spec: ConvolutionSpec, shape: tuple[int, ...], x: Any, weights: Any, arguments: Any) -> Any:
    """int32 sums with the bias, ``[batch, height, width, stored channels]``."""
    top, left, bottom, right = spec.padding
    per_group = spec.in_channels // spec.groups
    per_byte = 8 // spec.weight_bits
    kh, kw = te.reduce_axis((0, spec.kernel[0]), "kh"), te.reduce_axis((0, spec.kernel[1]), "kw")
    inner = te.reduce_axis((0, per_group), "inner")

    def product(n: Any, h: Any, w: Any, c: Any) -> Any:
        row = h * spec.strides[0] + kh * spec.dilation[0] - top
        column = w * spec.strides[1] + kw * spec.dilation[1] - left
        group = tirx.min(c // (spec.out_channels // spec.groups), spec.groups - 1) if spec.groups > 1 else 0
        code = x[n, row, column, group * per_group + inner]
        inside = [row >= 0] * (top > 0) + [row < spec.height] * (bottom > 0)
        inside += [column >= 0] * (left > 0) + [column < spec.width] * (right > 0)
        if inside:
            code = tirx.if_then_else(tirx.all(*inside), code, arguments.scalars[Scalar.X_ZERO].astype("uint8"))
        step = (kh * spec.kernel[1] + kw) * per_group + inner
        weight = weights[step // per_byte, c]
        if per_byte > 1:
            weight = unpack_code(weight, step % per_byte, spec.weight_bits)
        return te.sum(code.astype("int32") * weight.astype("int32"), axis=[kh, kw, inner])

    totals = te.compute(shape, product, name="totals")
    return te.compute(shape, lambda n, h, w, c: totals[n, h, w, c] + arguments.bias[c], name="sums")


def _schedule(function: Any) -> Any:
    sch = s_tir.Schedule(tvm.IRModule({"main": function}))
    out, totals = sch.get_sblock("y"), sch.get_sblock("totals")
    sch.compute_inline(sch.get_sblock("sums"))
    n, h, w, c = sch.get_loops(out)
    c_outer, c_inner = sch.split(c, [None, min(LANES, int(sch.get(c).extent))])
    sch.reorder(n, h, c_outer, w, c_inner)
    sch.fuse(n, h, c_outer)
    sch.compute_at(totals, w, preserve_unit_loops=True)
    *_, lane, kh, kw, inner = sch.get_loops(totals)
    sch.reorder(kh, kw, inner, lane)
    sch.vectorize(lane)
    sch.vectorize(c_inner)
    sch.decompose_reduction(totals, kh)
    return sch.mod["main"]
