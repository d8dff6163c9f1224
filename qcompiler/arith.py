"""The integer arithmetic of the contract, written once.

Every formula here is spelled with operators that both numpy integers and TVM expressions have; what
differs between the two (widening, clamping) comes in as an :class:`Arithmetic`. The reference and the
generated code are the same lines, but for four other forms that kernels use where they give the same codes
(:func:`requantize_short` and :func:`requantize_add_short`, which ``backend.short_form`` writes as instructions,
:func:`requantize_saturated`, :func:`requantize_add_folded`); tests compare them with the reference's.

``shift`` counts bits, ``zero``, ``lo`` and ``hi`` are output codes, ``multiplier`` is dyadic:
the real factor is ``multiplier / 2**shift``. All right shifts are arithmetic, so a half rounds up.
"""

from __future__ import annotations

import math
from typing import Any, Final, Protocol

import numpy as np

MULTIPLIER_BITS: Final = 31
MAXIMUM_SHIFT: Final = 62
MAXIMUM_BIAS: Final = 1 << 30
LARGEST_ACCUMULATOR: Final = (1 << 31) - 1
SIGNED_OFFSET: Final = 128  # kernels on ARM see the code x as x ^ 0x80, the signed byte x - 128
MAXIMUM_DEVIATION: Final = 0.02  # of one output step, between narrow and wide requantization


IntArray = np.ndarray[Any, np.dtype[Any]]


class Arithmetic(Protocol):
    """What numpy and TVM spell differently."""

    def wide(self, value: Any) -> Any:
        """``value`` as int64."""

    def clamp(self, value: Any, low: Any, high: Any) -> Any:
        """``min(max(value, low), high)``."""

    def power(self, exponent: Any, like: Any) -> Any:
        """``1 << exponent`` in the type of ``like``."""

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of two numbers."""

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of two numbers."""

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        """``a`` where ``condition`` holds, else ``b``."""

    def high_product(self, a: Any, b: Any) -> Any:
        """``(a * b) >> 32`` of int32 numbers, the product in int64, the result in int32."""

    def moved_right(self, value: Any, places: Any) -> Any:
        """``value >> places``; numpy alone moves left by negative places."""

    def unsigned(self, value: Any) -> Any:
        """The 32 bits of an int32 as an unsigned number; sums of such numbers wrap around."""

    def signed(self, value: Any) -> Any:
        """What :meth:`unsigned` made of an int32, back again."""


def moved_right(value: Any, places: IntArray) -> IntArray:
    """``value >> places``; to the left where ``places`` are negative."""
    result: IntArray = (value << np.maximum(-places, 0)) >> np.maximum(places, 0)
    return result


def weight_places(bits: int) -> int:
    """By how many places kernels' sums over weights of so many bits are moved left.

    Codes below 8 bits are unpacked to the upper bits of a byte, which takes fewer instructions than to the lower ones.
    """
    return 8 - bits


class NumpyArithmetic:
    """The contract on int64 arrays: no intermediate of it can overflow."""

    def wide(self, value: Any) -> Any:
        return np.asarray(value, dtype=np.int64)

    def clamp(self, value: Any, low: Any, high: Any) -> Any:
        return np.minimum(np.maximum(value, low), high)

    def power(self, exponent: Any, like: Any) -> Any:
        return np.left_shift(np.int64(1), np.asarray(exponent, dtype=np.int64))

    def maximum(self, a: Any, b: Any) -> Any:
        return np.maximum(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return np.minimum(a, b)

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        return np.where(condition, a, b)

    def high_product(self, a: Any, b: Any) -> Any:
        return (self.wide(a) * self.wide(b)) >> 32

    def moved_right(self, value: Any, places: Any) -> Any:
        return moved_right(np.asarray(value), np.asarray(places))

    def unsigned(self, value: Any) -> Any:
        return np.asarray(value).astype(np.uint32)

    def signed(self, value: Any) -> Any:
        return value.astype(np.int32).astype(np.int64)


NUMPY: Final = NumpyArithmetic()


def round_shift(value: Any, shift: Any, math_: Arithmetic) -> Any:
    """``value / 2**shift`` rounded half up; shift >= 1."""
    return (value + math_.power(shift - 1, value)) >> shift


def requantize(accumulator: Any, multiplier: Any, shift: Any, zero: Any, lo: Any, hi: Any, math_: Arithmetic) -> Any:
    """``clamp((acc * m + (1 << (s-1))) >> s) + z, lo, hi)`` with an int64 product; gives int64."""
    product = math_.wide(accumulator) * math_.wide(multiplier)
    return math_.clamp(round_shift(product, math_.wide(shift), math_) + math_.wide(zero), math_.wide(lo), math_.wide(hi))


def headroom(largest: int, shift: int) -> int | None:
    """How far :func:`requantize_high` may move values of at most ``largest`` left for a shift, None if it cannot serve."""
    bits = min(31 - largest.bit_length(), MAXIMUM_SHIFT - shift)
    return bits if bits >= max(0, 33 - shift) else None


def requantize_high(
    moved: Any, bits: int, multiplier: Any, shift: Any, zero: Any, lo: Any, hi: Any, math_: Arithmetic
) -> Any:  # fmt: skip
    """:func:`requantize` of ``moved = value << bits`` in int32, by half of a product; ``bits`` is its :func:`headroom`.

    With ``d = 32 - bits < s`` the upper half is ``(value * m) >> d``, and what it drops lies below the rounding term.
    """
    return math_.clamp(round_shift(math_.high_product(moved, multiplier), shift - (32 - bits), math_) + zero, lo, hi)


def requantize_within(
    value: Any, bits: int | None, multiplier: Any, shift: Any, zero: Any, lo: Any, hi: Any, math_: Arithmetic
) -> Any:  # fmt: skip
    """:func:`requantize`, as :func:`requantize_high` where the values have a headroom of ``bits`` (not None)."""
    if bits is None:
        return requantize(value, multiplier, shift, zero, lo, hi, math_)
    return requantize_high(value << bits, bits, multiplier, shift, zero, lo, hi, math_)


def requantize_add(
    accumulator: Any, multiplier: Any, other: Any, other_multiplier: Any, shift: Any, zero: Any, lo: Any, hi: Any,
    math_: Arithmetic,
) -> Any:  # fmt: skip
    """Like :func:`requantize` with ``other * other_multiplier`` added before the one rounding; int64."""
    total = math_.wide(accumulator) * math_.wide(multiplier) + math_.wide(other) * math_.wide(other_multiplier)
    return math_.clamp(round_shift(total, math_.wide(shift), math_) + math_.wide(zero), math_.wide(lo), math_.wide(hi))


def pre_shift(accumulator: Any, shift: Any, lower: Any, upper: Any, math_: Arithmetic) -> Any:
    """The narrow form's first step, ``clamp(acc, A, B) >> p`` in int32.

    p may be negative where :func:`is_short` and weights have fewer than 8 bits: to the left by at most :func:`weight_places`, as
    kernels' sums are. Kernels that call this have p >= 0.

    The rounding term ``1 << (p - 1)`` is in the accumulator already, by way of the bias, and so in A and B. None stands for 0.
    """
    clamped = math_.clamp(accumulator, lower, upper)
    return clamped if shift is None else math_.moved_right(clamped, shift)


def requantize_narrow(
    accumulator: Any, multiplier: Any, first_shift: Any, lower: Any, upper: Any, shift: Any, zero: Any, lo: Any, hi: Any,
    math_: Arithmetic,
) -> Any:  # fmt: skip
    """Requantization whose every intermediate fits int32 (proven by the pass that chooses it)."""
    reduced = pre_shift(accumulator, first_shift, lower, upper, math_)
    return math_.clamp(round_shift(reduced * multiplier, shift, math_) + zero, lo, hi)


SHORT_SHIFTS: Final = range(21, 16, -1)
"""Of :func:`requantize_short`, the most precise first: 16 bits are the upper half of a product, the others follow."""
SHORT_LIMIT: Final = 1 << 15


def requantize_short(accumulator: Any, multiplier: Any, first_shift: Any, shift: Any, zero: Any, math_: Arithmetic) -> Any:
    """:func:`requantize_narrow` where :func:`is_short`: 16 bits hold everything from the first shift on.

    The upper half of the product is shifted by what is left of the shift; two floors are one. ``first_shift`` is None where it is
    0 for all channels.
    """
    reduced = math_.clamp(accumulator if first_shift is None else accumulator >> first_shift, -SHORT_LIMIT, SHORT_LIMIT - 1)
    return math_.clamp(round_shift((reduced * multiplier) >> 16, shift - 16, math_) + zero, 0, 255)


def short_word(multiplier: Any, first_shift: Any) -> Any:
    """Both constants of a channel in the 32 bits that kernels store: the first shift above the multiplier."""
    return multiplier | (first_shift << 16)


def short_bounds(first_shift: IntArray) -> tuple[IntArray, IntArray]:
    """The sums beyond which :func:`requantize_short` saturates at 16 bits; int64[C] both."""
    least, most = (moved_right(np.int64(limit), -first_shift) for limit in (-SHORT_LIMIT, SHORT_LIMIT))
    return least, most - 1


def is_short(
    multiplier: IntArray, first_shift: IntArray, lower: IntArray, upper: IntArray, shift: int, zero: int, lo: int, hi: int
) -> bool:
    """Whether :func:`requantize_short` gives the codes of :func:`requantize_narrow`, whatever the sums.

    Beyond each bound either the code has saturated or 16 bits have: what moves left reaches their largest number only about.
    """
    if shift not in SHORT_SHIFTS or (lo, hi) != (0, 255) or not ((multiplier >= 0) & (multiplier < SHORT_LIMIT)).all():
        return False
    least, most = short_bounds(first_shift)
    codes = [round_shift(moved_right(end, first_shift) * multiplier, shift, NUMPY) + zero for end in (lower, upper)]
    below = (lower == least) | ((lower > least) & (codes[0] <= lo))
    above = ((upper == most) & (first_shift >= 0)) | ((upper <= most) & (codes[1] >= hi))
    return bool((below & above).all())


SATURATED_SHIFT: Final = 24
"""Of :func:`requantize_saturated`: a code is the uppermost byte of 32 bits."""


def requantize_saturated(
    accumulator: Any, multiplier: Any, first_shift: Any, lower: Any, upper: Any, zero: Any, math_: Arithmetic
) -> Any:
    """:func:`requantize_narrow` where its bounds saturate (:func:`saturates`), ``lo >= 0`` and the shift is SATURATED_SHIFT.

    uint32, with nothing to clamp: the result has 8 bits, so what the product loses by wrapping around is not part of it.
    ``first_shift`` is None where it is 0 for all channels.
    """
    unsigned = math_.unsigned
    product = unsigned(pre_shift(accumulator, first_shift, lower, upper, math_)) * unsigned(multiplier)
    start = unsigned(1 << (SATURATED_SHIFT - 1)) + (unsigned(zero) << unsigned(SATURATED_SHIFT))
    return (product + start) >> unsigned(SATURATED_SHIFT)


def saturation_bounds(
    multiplier: IntArray, first_shift: IntArray, lower: IntArray, upper: IntArray, shift: int, zero: int, lo: int, hi: int
) -> tuple[IntArray, IntArray]:
    """The narrowest ``lower`` and ``upper`` with which :func:`requantize_narrow` gives the same codes; int64[C] all.

    Those of a channel stay as they are where its multiplier is 0, or so large that one step of the sum skips codes, or so small
    that no sum of 32 bits reaches the limits, and where its first shift is negative.
    """
    half = np.int64(1) << (shift - 1)
    divisor = np.maximum(multiplier, 1)
    right = np.maximum(first_shift, 0)
    least = -((half - (np.int64(lo - zero) << shift)) // divisor) << right
    most = (-((half - (np.int64(hi + 1 - zero) << shift)) // divisor) << right) - 1
    reached = [round_shift((end >> right) * multiplier, shift, NUMPY) + zero for end in (least, most)]
    exact = (
        (multiplier > 0) & (first_shift >= 0) & ((lower >= least) | (reached[0] == lo)) & ((upper <= most) | (reached[1] == hi))
    )
    exact &= (least <= LARGEST_ACCUMULATOR) & (most >= -LARGEST_ACCUMULATOR)  # a bound that is moved still fits int32
    return tuple(np.where(exact, np.minimum(np.maximum(end, least), most), end) for end in (lower, upper))  # type: ignore[return-value]


def saturates(
    multiplier: IntArray, first_shift: IntArray, lower: IntArray, upper: IntArray, shift: int, zero: int, lo: int, hi: int
) -> bool:
    """Whether :func:`requantize_narrow` stays within ``lo`` and ``hi`` in all channels without its last clamp."""
    ends = [round_shift((end >> first_shift) * multiplier, shift, NUMPY) + zero for end in (lower, upper)]
    return bool(((ends[0] >= lo) & (ends[1] <= hi) & (lower <= upper)).all())


def fit_words(lower: IntArray, upper: IntArray) -> bool:
    """Whether all bounds have 16 bits."""
    return bool(((lower >= -SHORT_LIMIT) & (upper < SHORT_LIMIT)).all())


def requantize_add_narrow(
    accumulator: Any, multiplier: Any, first_shift: Any, lower: Any, upper: Any, other: Any, other_multiplier: Any,
    shift: Any, zero: Any, lo: Any, hi: Any, math_: Arithmetic,
) -> Any:  # fmt: skip
    """:func:`requantize_add` within int32."""
    reduced = pre_shift(accumulator, first_shift, lower, upper, math_)
    return math_.clamp(round_shift(reduced * multiplier + other * other_multiplier, shift, math_) + zero, lo, hi)


def requantize_add_folded(
    accumulator: Any, multiplier: Any, first_shift: Any, lower: Any, upper: Any, other: Any, other_zero: Any,
    other_multiplier: Any, shift: Any, zero: Any, lo: Any, hi: Any, math_: Arithmetic,
) -> Any:  # fmt: skip
    """:func:`requantize_add_narrow` of ``other - other_zero``, with all that is constant in one term.

    The sum fits int32 (:func:`passes.prove_overflow.bounds`), so that its parts may wrap around.
    """
    unsigned, one = math_.unsigned, math_.unsigned(1)
    start = (
        (one << (unsigned(shift) - one)) + (unsigned(zero) << unsigned(shift)) - unsigned(other_zero) * unsigned(other_multiplier)
    )
    product = pre_shift(accumulator, first_shift, lower, upper, math_) * multiplier
    total = unsigned(product) + unsigned(other) * unsigned(other_multiplier) + start
    return math_.clamp(math_.signed(total) >> shift, lo, hi)


def other_places(shift: Any) -> Any:
    """Places by which :func:`requantize_add_short` moves the codes of the other operand left, 3 to 7: int16 holds them.

    Its multiplier then is the real factor times 2^14, whatever the shift.
    """
    return shift - 14


def requantize_add_short(
    accumulator: Any,
    multiplier: Any,
    first_shift: Any,
    other: Any,
    other_multiplier: Any,
    start: Any,
    shift: Any,
    math_: Arithmetic,
) -> Any:
    """:func:`requantize_add_folded` of unsigned codes where :func:`is_add_short`: every factor fits int16.

    ``start``: :func:`add_start`. The upper half of the total is shifted by what is left of the shift; two floors are one.
    """
    unsigned = math_.unsigned
    reduced = math_.clamp(accumulator if first_shift is None else accumulator >> first_shift, -SHORT_LIMIT, SHORT_LIMIT - 1)
    total = unsigned(reduced * multiplier) + unsigned(other) * unsigned(other_multiplier) + unsigned(start)
    return math_.clamp(round_shift(math_.signed(total) >> 16, shift - 16, math_), 0, 255)


def add_start(other_zero: Any, other_multiplier: Any, shift: Any, zero: Any, math_: Arithmetic) -> Any:
    """What :func:`requantize_add_short` starts from, modulo 2^32: the result's zero point less that of the other operand."""
    unsigned = math_.unsigned
    return math_.signed((unsigned(zero) << unsigned(shift)) - unsigned(other_zero) * unsigned(other_multiplier))


def is_add_short(
    multiplier: IntArray,
    first_shift: IntArray,
    lower: IntArray,
    upper: IntArray,
    other_multiplier: int,
    shift: int,
    lo: int,
    hi: int,
) -> bool:
    """Whether :func:`requantize_add_short` gives the codes of :func:`requantize_add_narrow` for other operands of 0 to 255."""
    if shift not in SHORT_SHIFTS or (lo, hi) != (0, 255):
        return False
    least, most = short_bounds(first_shift)
    fits = (multiplier >= 0) & (multiplier < SHORT_LIMIT) & (first_shift >= 0) & (lower == least) & (upper == most)
    factor, rest = divmod(other_multiplier, 1 << other_places(shift))
    return bool(fits.all()) and rest == 0 and 0 <= factor < SHORT_LIMIT


def add(a: Any, a_multiplier: Any, b: Any, b_multiplier: Any, shift: Any, zero: Any, lo: Any, hi: Any, math_: Arithmetic) -> Any:
    """``clamp((a * m1 + b * m2 + (1 << (s-1))) >> s) + z, lo, hi)`` of zero-free codes, within int32."""
    return math_.clamp(round_shift(a * a_multiplier + b * b_multiplier, shift, math_) + zero, lo, hi)


def extremum(
    a: Any, a_multiplier: Any, b: Any, b_multiplier: Any, shift: Any, zero: Any, lo: Any, hi: Any, math_: Arithmetic,
    largest: bool,
) -> Any:  # fmt: skip
    """The larger (or smaller) of two zero-free codes, each times its multiplier, rounded once as :func:`add` does; int32."""
    choose = math_.maximum if largest else math_.minimum
    chosen = choose(a * a_multiplier, b * b_multiplier)
    return math_.clamp(round_shift(chosen, shift, math_) + zero, lo, hi)


def prelu(
    x: Any, multiplier: Any, negative: Any, shift: Any, zero: Any, lo: Any, hi: Any, math_: Arithmetic, bits: int | None = None
) -> Any:  # fmt: skip
    """:func:`requantize` of a zero-free code by ``multiplier``, or by ``negative`` (of any sign) where it is below 0.

    ``bits`` as in :func:`requantize_within`.
    """
    return requantize_within(x, bits, math_.select(x < 0, negative, multiplier), shift, zero, lo, hi, math_)


def dyadic(
    real: np.ndarray[Any, np.dtype[np.float64]], bits: int, maximum_shift: int = MAXIMUM_SHIFT
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    """Multipliers below ``2**bits`` and the one shift (1 to ``maximum_shift``) with ``real ~ multiplier / 2**shift``.

    The largest factor decides the shift, so the relative error of channel c is at most
    ``2**-bits * max(real) / real[c]``. Raises ValueError for a negative, infinite or too large factor.
    """
    real = np.asarray(real, dtype=np.float64)
    largest = float(real.max(initial=0.0))
    if not math.isfinite(largest) or float(real.min(initial=0.0)) < 0:
        raise ValueError(f"factors must be finite and not negative, not {real.min()} to {largest}")
    if largest == 0.0:
        return np.zeros(real.shape, dtype=np.int64), 1
    shift = min(bits - math.frexp(largest)[1], maximum_shift)
    if round(math.ldexp(largest, shift)) >= 1 << bits:
        shift -= 1
    if shift < 1:
        raise ValueError(f"the factor {largest} does not fit {bits} bits with a shift of at least 1")
    return np.floor(np.ldexp(real, shift) + 0.5).astype(np.int64), shift


def largest_partial_sum(codes: IntArray, start: IntArray, input_maximum: int) -> IntArray:
    """Per output channel, a bound on every partial sum in any order that a kernel can meet, int64[O].

    ``codes`` are weight codes ``[O, K]``, ``start`` int64[O] is what the sum starts from, inputs are 0 to ``input_maximum``
    as bytes, or those less 128 with ``128 * sum(codes)`` added to the start.
    """
    codes = codes.astype(np.int64)
    absolute, total = np.abs(codes).sum(axis=1), codes.sum(axis=1)
    unsigned = np.abs(start) + absolute * input_maximum
    signed = np.abs(start + SIGNED_OFFSET * total) + absolute * SIGNED_OFFSET
    bound: IntArray = np.maximum(unsigned, signed)
    return bound


def accumulator_range(codes: IntArray, start: IntArray, input_maximum: int) -> tuple[IntArray, IntArray]:
    """Per output channel, the smallest and largest final sum for inputs of 0 to ``input_maximum``, int64[O] each."""
    codes = codes.astype(np.int64)
    return start + np.minimum(codes, 0).sum(axis=1) * input_maximum, start + np.maximum(codes, 0).sum(axis=1) * input_maximum
