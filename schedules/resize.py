"""Bilinear resizing: four vectors of channels with whole-number weights. A task is one row of the result.

Where everything fits int32 (``narrow``) nothing is widened: doubling the size needs only shifts.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import tvm.tirx.script.builder.ir as tir

from qcompiler import arith
from qcompiler.backend.kernel import SCALARS, Kernel, ResizeSpec, Scalar, physical_channels
from qcompiler.backend.tir import TIR
from qcompiler.schedules.loops import Buffers, build_function

VECTOR_BYTES = 64


def build(spec: ResizeSpec, instruction_set: str) -> Kernel:
    """The resizing ``spec``, one form for every instruction set."""
    del instruction_set
    channels = physical_channels(spec.channels)
    height, width = len(spec.rows), len(spec.columns)
    lanes = gcd(channels, VECTOR_BYTES // np.dtype(spec.dtype).itemsize)
    taps = np.array((*spec.rows, *spec.columns), dtype=np.int32).reshape(-1)
    arguments = {
        "x": (spec.images * spec.height * spec.width * channels, spec.dtype),
        "taps": (taps.size, "int32"),
        "scalars": (SCALARS, "int32"),
        "y": (spec.images * height * width * channels, spec.dtype),
    }

    def body(buffers: Buffers) -> None:
        table, x = buffers["taps"], buffers["x"]
        with tir.serial(spec.images * height) as task:
            total = tir.Bind(buffers["scalars"][Scalar.X_ZERO] * (spec.denominators[0] * spec.denominators[1]))
            row, image = tir.Bind(task % height), tir.Bind(task // height * spec.height)
            above, below, down = (tir.Bind(table[row * 3 + part]) for part in range(3))
            lines = [tir.Bind((image + line) * (spec.width * channels)) for line in (above, below)]
            up = tir.Bind(spec.denominators[0] - down)
            with tir.serial(width) as column:
                left, right, far = (tir.Bind(table[(height + column) * 3 + part]) for part in range(3))
                near = tir.Bind(spec.denominators[1] - far)
                weights = [tir.Bind(v * h) for v in (up, down) for h in (near, far)]
                places = [tir.Bind(line + side * channels) for line in lines for side in (left, right)]
                with tir.serial(channels // lanes) as vector, tir.vectorized(lanes) as lane:
                    offset = vector * lanes + lane
                    codes = [tir.cast(x[place + offset], "int32") for place in places]
                    value = _blend(spec, buffers, codes, weights, total)
                    tir.buffer_store(buffers["y"], tir.cast(value, spec.dtype), [(task * width + column) * channels + offset])

    return Kernel(
        function=build_function(arguments, body),
        arguments=tuple(arguments),
        tasks=spec.images * height,
        schedule=f"resize, {lanes} channels at once",
        constants={"taps": taps},
    )


def _blend(spec: ResizeSpec, buffers: Buffers, codes: list[Any], weights: list[Any], total: Any) -> Any:
    """The code between four codes."""
    scalars = buffers["scalars"]
    zero, multiplier, shift, low, high = (
        scalars[s] for s in (Scalar.X_ZERO, Scalar.X_MULTIPLIER, Scalar.SHIFT, Scalar.LO, Scalar.HI)
    )
    result = codes[0] * weights[0] - total
    for code, weight in zip(codes[1:], weights[1:], strict=True):
        result = result + code * weight
    if not spec.narrow:
        return arith.requantize(result, multiplier, shift, zero, low, high, TIR)
    return TIR.clamp(arith.round_shift(result * multiplier, shift, TIR) + zero, low, high)
