"""The contract's arithmetic against plain Python integers, which cannot overflow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qcompiler import arith

INT32 = st.integers(-(2**31), 2**31 - 1)
EXTREMES = st.sampled_from([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1])


def _clamp(value: int, lo: int, hi: int) -> int:
    return min(max(value, lo), hi)


@given(st.one_of(INT32, EXTREMES), st.integers(0, 2**31 - 1), st.integers(1, 62), st.integers(-128, 255))
def test_requantize_is_the_formula(acc: int, multiplier: int, shift: int, zero: int) -> None:
    expected = _clamp(((acc * multiplier + (1 << (shift - 1))) >> shift) + zero, 0, 255)
    assert int(arith.requantize(acc, multiplier, shift, zero, 0, 255, arith.NUMPY)) == expected


@pytest.mark.parametrize(("acc", "expected"), [(1, 1), (-1, 0), (3, 2), (-3, -1), (2, 1), (-2, -1)])
def test_halves_round_up(acc: int, expected: int) -> None:
    assert int(arith.requantize(acc, 1, 1, 0, -9, 9, arith.NUMPY)) == expected


@given(INT32, st.integers(0, 2**31 - 1), st.integers(-255, 255), st.integers(0, 2**31 - 1), st.integers(1, 62))
def test_requantize_add_rounds_once(acc: int, m1: int, other: int, m2: int, shift: int) -> None:
    expected = _clamp(((acc * m1 + other * m2 + (1 << (shift - 1))) >> shift) + 5, 0, 255)
    assume(abs(acc * m1 + other * m2) + (1 << (shift - 1)) < 2**63)
    assert int(arith.requantize_add(acc, m1, other, m2, shift, 5, 0, 255, arith.NUMPY)) == expected


@given(INT32, st.integers(0, 24), st.integers(-(2**20), 0), st.integers(0, 2**20), st.integers(0, 2**15), st.integers(1, 30))
def test_narrow_form_is_the_formula(acc: int, p: int, lower: int, upper: int, multiplier: int, shift: int) -> None:
    reduced = _clamp(acc, lower, upper) >> p
    expected = _clamp(((reduced * multiplier + (1 << (shift - 1))) >> shift) + 7, 0, 255)
    assert int(arith.requantize_narrow(acc, multiplier, p, lower, upper, shift, 7, 0, 255, arith.NUMPY)) == expected


@given(
    INT32, st.integers(0, 12), st.integers(-(2**12), 2**12), st.integers(0, 2**12), st.integers(0, 2**15),
    st.integers(-(2**15), 2**15), st.integers(-(2**15), 2**15), st.integers(0, 2**13), st.integers(1, 22), st.integers(0, 255),
)  # fmt: skip
def test_folded_addition_is_the_narrow_one(
    acc: int, p: int, lower: int, width: int, m1: int, other: int, other_zero: int, m2: int, shift: int, zero: int
) -> None:
    assume(2**12 * m1 + 2**16 * m2 + (zero << shift) + (1 << (shift - 1)) < 2**31)
    constants = [np.array([value], dtype=np.int64) for value in (acc, m1, p, lower, lower + width)]
    expected = arith.requantize_add_narrow(*constants, other - other_zero, m2, shift, zero, 3, 250, arith.NUMPY)
    found = arith.requantize_add_folded(
        *constants, *(np.array([value]) for value in (other, other_zero, m2, shift, zero)), 3, 250, arith.NUMPY
    )
    assert np.array_equal(found, expected)


@given(
    st.lists(st.one_of(INT32, EXTREMES, st.integers(-(2**12), 2**12)), min_size=1, max_size=40),
    st.integers(0, 12),
    st.integers(-(2**20), 2**18),
    st.integers(0, 2**20),
    st.one_of(st.just(0), st.integers(1, 2**11), st.integers(1, 2**25)),
    st.sampled_from([1, 7, 24]),
    st.integers(0, 255),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
)
def test_saturation_bounds_change_nothing(
    accs: list[int], p: int, lower: int, width: int, multiplier: int, shift: int, zero: int, limits: tuple[int, int]
) -> None:
    lo, hi = sorted(limits)
    m, first, low, high = (np.array([value], dtype=np.int64) for value in (multiplier, p, lower, lower + width))
    tail = (shift, zero, lo, hi)
    narrower = arith.saturation_bounds(m, first, low, high, *tail)
    assert all(abs(int(end[0])) <= arith.LARGEST_ACCUMULATOR for end in narrower)
    acc = np.array([*accs, *(int(end[0]) + step for end in (low, high, *narrower) for step in (-1, 0, 1))], dtype=np.int64)
    expected = arith.requantize_narrow(acc, m, first, low, high, *tail, arith.NUMPY)
    assert np.array_equal(arith.requantize_narrow(acc, m, first, *narrower, *tail, arith.NUMPY), expected)
    if arith.saturates(m, first, *narrower, *tail):
        if shift != arith.SATURATED_SHIFT:
            return
        found = arith.requantize_saturated(acc, m, first if p else None, *narrower, zero, arith.NUMPY)
        assert np.array_equal(found.astype(np.uint8), expected)
    else:  # a step of the sum skips codes, or no sum of 32 bits reaches the limits
        beyond = max(abs(lo - zero), abs(hi + 1 - zero)) << (shift + p) > multiplier << 31
        assert beyond or multiplier << p > 1 << shift


@given(
    st.lists(st.one_of(INT32, EXTREMES, st.integers(-(2**17), 2**17)), min_size=1, max_size=40),
    st.integers(-6, 16),
    st.one_of(st.integers(0, 2**15 - 1), st.sampled_from([0, 1, 2**14, 2**15 - 1])),
    st.sampled_from(arith.SHORT_SHIFTS),
    st.integers(0, 255),
)
def test_the_short_form_is_the_narrow_one(accs: list[int], p: int, multiplier: int, shift: int, zero: int) -> None:
    m, first = (np.array([value], dtype=np.int64) for value in (multiplier, p))
    tail = (shift, zero, 0, 255)
    bounds = arith.saturation_bounds(m, first, *arith.short_bounds(first), *tail)
    assume(p >= 0 or arith.is_short(m, first, *bounds, *tail))  # a small multiplier saturates too late
    assert arith.is_short(m, first, *bounds, *tail)
    ends = [int(end[0]) + step for end in (*bounds, *arith.short_bounds(first)) for step in (-1, 0, 1)]
    acc = np.clip(np.array([*accs, *ends], dtype=np.int64), -(1 << 31), (1 << 31) - 1)
    expected = arith.requantize_narrow(acc, m, first, *bounds, *tail, arith.NUMPY)
    places = 6 if p < 0 else 0  # as sums of weights of 2 bits are moved
    moved = (acc << places, m, first + places if p else None)
    assert np.array_equal(arith.requantize_short(*moved, shift, zero, arith.NUMPY), expected)


@given(
    st.lists(st.tuples(st.one_of(INT32, EXTREMES, st.integers(-(2**17), 2**17)), st.integers(0, 255)), min_size=1, max_size=40),
    st.integers(0, 16),
    st.integers(0, 2**15 - 1),
    st.integers(0, 2**15 - 1),
    st.sampled_from(arith.SHORT_SHIFTS),
    st.integers(0, 255),
    st.integers(0, 255),
)
def test_the_short_form_of_an_addition_is_the_narrow_one(
    pairs: list[tuple[int, int]], p: int, multiplier: int, factor: int, shift: int, zero: int, other_zero: int
) -> None:
    m, first = (np.array([value], dtype=np.int64) for value in (multiplier, p))
    other_multiplier = factor << arith.other_places(shift)
    largest = arith.SHORT_LIMIT * multiplier + 255 * other_multiplier + (zero << shift) + (1 << (shift - 1))
    assume(largest < 1 << 31)
    bounds, tail = arith.short_bounds(first), (shift, zero, 0, 255)
    assert arith.is_add_short(m, first, *bounds, other_multiplier, shift, 0, 255)
    assert not arith.is_add_short(m, first, bounds[0] + 1, bounds[1], other_multiplier, shift, 0, 255)
    acc = np.array([pair[0] for pair in pairs] + [int(end[0]) for end in bounds], dtype=np.int64)
    other = np.array([pair[1] for pair in pairs] + [0, 255], dtype=np.int64)
    expected = arith.requantize_add_narrow(acc, m, first, *bounds, other - other_zero, other_multiplier, *tail, arith.NUMPY)
    start = arith.add_start(np.array([other_zero]), other_multiplier, shift, zero, arith.NUMPY)
    sums = (acc, m, first if p else None)
    assert np.array_equal(arith.requantize_add_short(*sums, other, other_multiplier, start, shift, arith.NUMPY), expected)


@given(
    st.integers(0, 8),
    st.integers(1, 2**15 - 1),
    st.sampled_from(arith.SHORT_SHIFTS),
    st.integers(0, 255),
    st.integers(-300, 300),
    st.integers(-300, 300),
)
def test_no_other_bounds_are_taken_for_short_ones(p: int, multiplier: int, shift: int, zero: int, below: int, above: int) -> None:
    m, first = (np.array([value], dtype=np.int64) for value in (multiplier, p))
    tail = (shift, zero, 0, 255)
    lower, upper = arith.saturation_bounds(m, first, *arith.short_bounds(first), *tail)
    lower, upper = lower + below, upper + above
    if arith.is_short(m, first, lower, upper, *tail):
        ends = np.concatenate([lower, upper, *arith.short_bounds(first)])
        acc = np.clip(np.concatenate([ends + step for step in (-300, -1, 0, 1, 300)]), -(1 << 31), (1 << 31) - 1)
        expected = arith.requantize_narrow(acc, m, first, lower, upper, *tail, arith.NUMPY)
        assert np.array_equal(arith.requantize_short(acc, m, first, shift, zero, arith.NUMPY), expected)


@given(st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=8), st.sampled_from([21, 31]))
def test_dyadic_is_within_half_a_unit_of_the_last_place(factors: list[float], bits: int) -> None:
    real = np.array(factors)
    multiplier, shift = arith.dyadic(real, bits)
    assert 1 <= shift <= arith.MAXIMUM_SHIFT
    assert 0 <= multiplier.min() <= multiplier.max() < 1 << bits
    assert np.all(np.abs(multiplier / 2.0**shift - real) <= 2.0 ** -(shift + 1))


def test_dyadic_of_zero_and_nonsense() -> None:
    assert arith.dyadic(np.zeros(3), 31)[0].tolist() == [0, 0, 0]
    for bad in (np.array([-1.0]), np.array([np.inf]), np.array([2.0**40])):
        with pytest.raises(ValueError, match="factor"):
            arith.dyadic(bad, 31)


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=6), st.integers(-(2**20), 2**20), st.data())
def test_partial_sums_stay_below_the_bound(codes: list[int], start: int, data: st.DataObject) -> None:
    row, begin = np.array([codes]), np.array([start])
    bound = int(arith.largest_partial_sum(row, begin, 255)[0])
    low, high = (int(a[0]) for a in arith.accumulator_range(row, begin, 255))
    x = data.draw(st.lists(st.sampled_from([0, 255, 128, 1]), min_size=len(codes), max_size=len(codes)))
    order = data.draw(st.permutations(range(len(codes))))
    unsigned, signed = start, start + 128 * sum(codes)
    for index in order:
        unsigned += x[index] * codes[index]
        signed += (x[index] - 128) * codes[index]
        assert max(abs(unsigned), abs(signed)) <= bound
    assert unsigned == signed
    assert low <= unsigned <= high
