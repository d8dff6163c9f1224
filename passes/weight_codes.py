"""Weight codes: per output channel, symmetric, with the scale that loses least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qcompiler import arith
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Array

SMALLEST_SCALE_RATIO: Final = 2.0**-12  # of a channel's scale to the layer's largest
GRID_TOLERANCE: Final = 1e-4  # of a code
SHRINKS: Final = np.linspace(0.3, 1.0, 71)  # candidates for the clipping point, as shares of the largest weight


@dataclass(frozen=True)
class WeightCodes:
    """``codes`` int8 ``[O, ...]``, ``scale`` float64[O]; real weight = code * scale. ``bias``: int32[O] start of the sums."""

    codes: Array
    scale: Array
    bias: Array


def code_limits(bits: int) -> tuple[int, int]:
    """Smallest and largest weight code: 8 bits are symmetric, narrower ones use all codes."""
    dtype = IntegerType(bits, signed=True)
    return (-dtype.maximum if bits == 8 else dtype.minimum), dtype.maximum


def round_half_up(x: Array) -> Array:
    """Nearest integers, halves up, as int64."""
    rounded: Array = np.floor(x + 0.5).astype(np.int64)
    return rounded


def _codes(rows: Array, scale: Array, bits: int) -> Array:
    low, high = code_limits(bits)
    clipped: Array = np.clip(round_half_up(rows / scale[:, None]), low, high)
    return clipped


def least_error_scales(rows: Array, bits: int) -> Array:
    """For each row of ``[O, K]`` the scale with the least squared error; min-max at 8 bits.

    Channels far below the layer's largest keep a scale of at least 2^-12 of it: their multipliers stay precise, and their
    contribution is below a rounding step of the output anyway.
    """
    _, high = code_limits(bits)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    overall = float(largest.max(initial=0.0))
    if overall == 0.0:
        return np.ones(len(rows), dtype=np.float64)
    largest = np.maximum(largest, overall * SMALLEST_SCALE_RATIO)
    best: Array = largest / high
    if bits == 8:
        return exact_scales(rows, largest, best)
    error = np.full(len(rows), np.inf)
    for shrink in SHRINKS:
        scale = largest * shrink / high
        found = ((_codes(rows, scale, bits) * scale[:, None] - rows) ** 2).sum(axis=1)
        best, error = np.where(found < error, scale, best), np.minimum(found, error)
    return best


def exact_scales(rows: Array, largest: Array, otherwise: Array) -> Array:
    """Scales of channels whose weights are whole multiples of one, as those of a quantized model are; ``otherwise`` elsewhere.

    Such weights keep their codes exactly. Of all scales that fit, the smallest, because biases are counted in it.
    """
    tops = np.arange(code_limits(8)[1], code_limits(8)[1] // 2, -1)  # every grid has a multiple whose largest code is one of them
    candidates = largest[:, None] / tops  # [O, candidates]
    few = rows[:, :16, None] / candidates[:, None, :]  # most channels are no grid, and a few weights tell
    likely = _whole(few).all(axis=1) & (rows != 0.0).any(axis=1, keepdims=True)
    scales = otherwise.copy()
    for channel in np.flatnonzero(likely.any(axis=1)):
        for scale in candidates[channel, likely[channel]]:  # the smallest scale first
            if _whole(rows[channel] / scale).all():
                scales[channel] = scale
                break
    return scales


def _whole(ratios: Array) -> Array:
    """Where numbers are whole, but for the rounding of float32."""
    whole: Array = np.abs(ratios - np.rint(ratios)) < GRID_TOLERANCE
    return whole


def channel_scales(weight: Array, bits: int) -> Array:
    """The scale of each output channel of ``[O, ...]`` weights that loses least, float64[O]."""
    return least_error_scales(weight.reshape(len(weight), -1).astype(np.float64), bits)


def rounded_weights(weight: Array, bits: int, scale: Array | None = None) -> Array:
    """``[O, ...]`` weights as their codes represent them, float64, before biases have a say in the scales."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    scale = least_error_scales(rows, bits) if scale is None else scale
    rounded: Array = _codes(rows, scale, bits) * scale[:, None]
    return rounded.reshape(weight.shape)


def weight_codes(
    weight: Array,
    bias: Array | None,
    bits: int,
    input_scale: float,
    input_zero: int,
    input_maximum: int,
    scale: Array | None = None,
) -> WeightCodes:
    """Codes of ``[O, ...]`` float weights, and the int32 bias in units of ``input_scale * scale`` less the zero point's share.

    A channel's scale is raised until its bias fits 2^30 and until every partial sum of raw codes (0 to ``input_maximum``, or less
    128 where a kernel sees signed bytes) from that bias fits int32, both moved left as kernels do below 8 bits; so the overflow
    proof holds by construction.
    ``scale``: float64[O] to begin with, where the weights were rounded before; by default those that lose least.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    places = arith.weight_places(bits)
    largest_bias = arith.MAXIMUM_BIAS >> places
    offset = np.zeros(len(rows)) if bias is None else bias.astype(np.float64)
    scale = least_error_scales(rows, bits) if scale is None else scale
    scale = np.maximum(scale, np.abs(offset) / (input_scale * (largest_bias // 2)))
    dead = ~rows.any(axis=1)
    if dead.any() and not dead.all():  # any scale serves a channel without weights: one that its neighbours' shift suits
        scale[dead] = np.maximum(scale[dead], scale[~dead].max())
    while True:
        codes = _codes(rows, scale, bits)
        start = round_half_up(offset / (input_scale * scale)) - input_zero * codes.sum(axis=1)
        unsafe = np.abs(start) > largest_bias
        unsafe |= arith.largest_partial_sum(codes, start, input_maximum) > arith.LARGEST_ACCUMULATOR >> places
        if not unsafe.any():
            return WeightCodes(codes.astype(np.int8).reshape(weight.shape), scale, start.astype(np.int32))
        scale = np.where(unsafe, scale * 1.125, scale)
