"""Resizing: nearest neighbours are elements taken by constant indices, linear interpolation has whole-number positions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

from qcompiler.importers.builder import Layer, UnsupportedError
from qcompiler.importers.emit_movement import reshaped
from qcompiler.importers.operands import sizes, value
from qcompiler.ir.graph import BATCH, Value

LARGEST_DENOMINATOR = 1000
"""Scales that are no ratio of the sizes are rounded to a fraction of this denominator."""


def ratio(scale: float, size: int, out: int) -> Fraction:
    """A scale as a fraction: that of the sizes where it is meant."""
    exact = Fraction(out, size)
    return exact if abs(scale - exact) * size < 1e-4 else Fraction(scale).limit_denominator(LARGEST_DENOMINATOR)


def linear_positions(mode: str, scale: Fraction, size: int, out: int) -> tuple[Fraction, Fraction]:
    """Slope and offset of the source position of an output index, by ONNX's names of coordinate transformations."""
    half = Fraction(1, 2)
    if mode == "align_corners":
        length = scale * size  # not always ``out``: the standard's reference does not round it, ONNX Runtime does
        return (Fraction(size - 1) / (length - 1) if out > 1 else Fraction(0)), Fraction(0)
    if mode == "asymmetric":
        return 1 / scale, Fraction(0)
    if mode == "tf_half_pixel_for_nn":
        return 1 / scale, half / scale
    if mode == "pytorch_half_pixel" and out == 1:
        return Fraction(0), Fraction(0)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return 1 / scale, half / scale - half
    if mode == "half_pixel_symmetric":
        adjustment = Fraction(out) / (scale * size)
        return 1 / scale, Fraction(size, 2) * (1 - adjustment) + half / scale - half
    raise UnsupportedError(f"coordinate_transformation_mode {mode!r} is not supported")


def resize_linear(layer: Layer, x: object, out: Sequence[int], scales: Sequence[float | None], mode: str) -> Value:
    """Linear interpolation over the last axis of ``[N,C,L]`` or the last two of ``[N,C,H,W]``; a scale of None: of the sizes."""
    x = value(x)
    shape = x.type.shape
    if len(shape) not in (3, 4) or len(out) != len(shape) - 2:
        raise UnsupportedError(f"linear resizing is supported for [N,C,L] and [N,C,H,W], not for {len(out)} axes of {x.type}")
    if len(shape) == 3:
        x = layer.emit("reshape", [x], ".image", shape=(*shape[:2], 1, shape[2]))
        out, scales = (1, *out), (None, *scales)
    numerators, offsets, denominators = [], [], []
    for size, wanted, scale in zip(sizes(x)[1:], out, scales, strict=True):
        exact = Fraction(wanted, size) if scale is None else ratio(scale, size, wanted)
        slope, offset = linear_positions(mode, exact, size, wanted)
        denominator = slope.denominator * offset.denominator // gcd(slope.denominator, offset.denominator)
        numerators.append(int(slope * denominator))
        offsets.append(int(offset * denominator))
        denominators.append(denominator)
    suffix = ".rows" if len(shape) == 3 else ""
    y = layer.emit(
        "resize_linear",
        [x],
        suffix,
        sizes=tuple(out),
        numerators=tuple(numerators),
        offsets=tuple(offsets),
        denominators=tuple(denominators),
    )
    return reshaped(layer, y, (BATCH, *sizes(y)[:1], out[-1])) if len(shape) == 3 else y
