"""Replaces 64-bit requantization by an int32 form where its deviation is proven to stay under a fiftieth of an output step.

Vector units are slow at 64-bit products. The accumulator is clamped to [A, B], outside of which the output saturates anyway,
shifted right by p (rounded), and multiplied within int32. p, A, B and the multiplier are per channel, the shift s' is the
node's. With the real factor r of a channel and T = max(|A|, |B|), p is the one with the least deviation
``r * 2^p / 2  [p > 0]  +  T * |m' / 2^(p + s') - r|``. The choice depends on the graph alone, so all targets agree.

Where codes are 0 to 255, s' is 21 or a little less, such that for every channel m' < 2^15 and what lies between A and B fits 16
bits once it is shifted: A and B are where the code saturates, or 16 bits do, and kernels multiply int16. So it is for another
operand's codes of 0 to 255: its multiplier is a power of two times one below 2^15, and kernels multiply that by the power of two
times the code. What this multiplier misses adds to the deviation.

Without another operand p may be negative as well, so that sums with few steps have as many as 16 bits hold. Kernels of weights
below 8 bits have their sums moved left anyway; others do it where else the first shift were followed by products of 32 bits.

Else, without another operand and where no step of the sums skips codes, s' is 24, and A and B are the first and the last sum of
the codes at which the output saturates, or what the sums reach: the code is the uppermost byte of the product, whose other digits
kernels may lose, and nothing is clamped any more. p is 0 for all channels where that deviates by at most a hundredth: then
kernels leave the first shift out.

The rounding term of the first shift, ``1 << (p - 1)``, is added to the layer's bias and to A and B at compile time.

Before:
    %y: u8[N,8,4,4] ... = requantize(%y.sum, %y.multiplier, limits=(0, 255), shift=38)
After:
    %y: u8[N,8,4,4] ... = requantize_narrow(%y.sum, %y.multiplier, %y.pre_shift, %y.lower, %y.upper, limits=(0, 255), shift=21)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from qcompiler import arith
from qcompiler.ir.dtypes import I32, IntegerType
from qcompiler.ir.graph import Array, Graph, Node, Stage
from qcompiler.ir.names import Constants
from qcompiler.passes.prove_overflow import code_range, weight_places, weight_rows

LARGEST_PRE_SHIFT: Final = 24
LARGEST_SHIFT: Final = 30
_LARGEST_SHORT_PRE_SHIFT: Final = 16
"""Beyond it the bounds of 16 bits would not fit 32."""
_LEFT: Final = 6
"""Places by which sums may move left."""
_SIMPLE_DEVIATION: Final = 0.01
"""With which no first shifts are better than those that deviate least."""
_ROOM: Final = float(I32.maximum)


@dataclass(frozen=True)
class Narrow:
    """The int32 form's constants: int64[O] each but the scalars, and the proven deviation in output steps."""

    multiplier: Array
    pre_shift: Array
    lower: Array
    upper: Array
    other_multiplier: int
    shift: int
    deviation: float

    @property
    def half(self) -> Array:
        """The rounding term of the first shift."""
        return _half(self.pre_shift)


def saturation_interval(factor: Array, reach: tuple[Array, Array], limits: tuple[float, float]) -> tuple[Array, Array]:
    """Per channel, the accumulators between which the output can change, within what the sums can reach.

    ``limits``: real output codes (less the zero point, and less the other operand's share) at and beyond which it saturates.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(factor > 0, np.floor(limits[0] / factor), 0.0)
        high = np.where(factor > 0, np.ceil(limits[1] / factor), 0.0)
    low = np.clip(low, reach[0], reach[1])
    high = np.clip(high, reach[0], reach[1])
    return np.minimum(low, high).astype(np.int64), np.maximum(low, high).astype(np.int64)


@dataclass(frozen=True)
class _Forms:
    """Multipliers ``[first shift, O]`` and how much they miss, for one ``shift``; infinitely where something overflows.

    The rows are those of first shifts from ``least`` on.
    """

    shift: int
    least: int
    multiplier: Array
    reduced: Array
    deviation: Array

    def chosen(self, best: Array, lower: Array, upper: Array, other_multiplier: int = 0) -> Narrow | None:
        """With the first shifts of the rows ``best``; None where that overflows."""
        columns = np.arange(len(best))
        worst = float(self.deviation[best, columns].max())
        if not np.isfinite(worst):
            return None
        multiplier = self.multiplier[best, columns].astype(np.int64)
        return Narrow(multiplier, best + self.least, lower, upper, other_multiplier, self.shift, worst)

    def best(self, lower: Array, upper: Array, other_multiplier: int = 0) -> Narrow | None:
        """Without first shifts where that deviates little, else with those that deviate least."""
        simple = self.deviation[0].max(initial=0.0) <= _SIMPLE_DEVIATION
        rows = np.zeros(len(lower), dtype=np.int64) if simple else self.deviation.argmin(axis=0)
        return self.chosen(rows, lower, upper, other_multiplier)


@dataclass(frozen=True)
class _Other:
    """The other operand of an addition: its real factor, largest magnitude and multiplier; ``zero`` of the result."""

    factor: float
    size: int
    multiplier: int
    zero: int

    def added(self, forms: _Forms) -> _Forms:
        """``forms`` with what this deviates, infinitely where the total overflows."""
        constant = self.size * self.multiplier + (1 << (forms.shift - 1)) + (self.zero << forms.shift)
        deviation = forms.deviation + self.size * abs(self.multiplier / (1 << forms.shift) - self.factor)
        fits = forms.reduced * forms.multiplier + constant <= _ROOM
        return replace(forms, deviation=np.where(fits, deviation, np.inf))


def _half(first_shift: Array) -> Array:
    """The rounding term of first shifts."""
    return (np.int64(1) << np.maximum(first_shift, 0)) >> 1


def _forms(factor: Array, size: Array, safe: Array, shift: int, least: int = 0) -> _Forms:
    shifts = np.arange(least, LARGEST_PRE_SHIFT + 1)[:, None]
    half = _half(shifts)
    multiplier = np.floor(np.ldexp(factor[None, :], shifts + shift) + 0.5)
    reduced = arith.moved_right(size[None, :] + half, shifts)
    fits = (size + half <= I32.maximum) & (multiplier <= I32.maximum) & (safe[None, :] + half <= I32.maximum)
    deviation = np.where(shifts > 0, np.ldexp(factor[None, :], shifts - 1), 0.0)
    deviation = deviation + size * np.abs(np.ldexp(multiplier, -(shifts + shift)) - factor)
    return _Forms(shift, least, multiplier, reduced, np.where(fits, deviation, np.inf))


def _short_forms(factor: Array, size: Array, safe: Array, shift: int, places: int = 0, zero: int = 0) -> _Forms:
    """Those of :func:`_forms` whose factors have 16 bits.

    With first shifts to the left by up to ``places`` as far as all sums fit, and where the code, with its ``zero``, saturates
    before 16 bits do.
    """
    room = int(I32.maximum // max(float(safe.max(initial=0)), 1.0)).bit_length() - 1
    forms, limit = _forms(factor, size, safe, shift, -min(places, room)), arith.SHORT_LIMIT
    first = np.arange(forms.least, LARGEST_PRE_SHIFT + 1)[:, None]
    most = limit - (np.int64(1) << np.maximum(-first, 0))
    multiplier = np.minimum(forms.multiplier, limit).astype(np.int64)
    saturates = arith.round_shift(most * multiplier, shift, arith.NUMPY) + zero >= 255
    fits = (forms.multiplier < limit) & (forms.reduced < limit) & (first <= _LARGEST_SHORT_PRE_SHIFT)
    fits &= (first >= 0) | saturates
    return replace(forms, deviation=np.where(fits, forms.deviation, np.inf))


def short(
    factor: Array, lower: Array, upper: Array, safe: Array, zero: int, limits: tuple[int, int], places: int
) -> Narrow | None:
    """The form whose factors have 16 bits; None where there is none, as for other codes than 0 to 255.

    Arguments as of :func:`saturated`; ``places``: :func:`arith.weight_places`.
    """
    if limits != (0, 255):
        return None
    size = np.maximum(np.abs(lower), np.abs(upper))
    for shift in arith.SHORT_SHIFTS:
        form = _short_forms(factor, size, safe, shift, places, zero).best(lower, upper)
        if form is None or form.deviation >= arith.MAXIMUM_DEVIATION:
            continue
        constants, tail = (form.multiplier, form.pre_shift), (form.shift, zero, *limits)
        bounds = arith.saturation_bounds(*constants, *arith.short_bounds(form.pre_shift), *tail)
        if arith.is_short(*constants, *bounds, *tail):
            return replace(form, lower=bounds[0] - form.half, upper=bounds[1] - form.half)
    return None


def short_add(
    factor: Array,
    lower: Array,
    upper: Array,
    safe: Array,
    other_factor: float,
    other_size: int,
    zero: int,
    limits: tuple[int, int],
) -> Narrow | None:
    """:func:`short` with another operand of codes 0 to 255; None where there is none. Arguments as of :func:`narrowed`."""
    if limits != (0, 255):
        return None
    size = np.maximum(np.abs(lower), np.abs(upper))
    for shift in arith.SHORT_SHIFTS:
        forms = _short_forms(factor, size, safe, shift)
        places = arith.other_places(shift)
        sixteen_bits = int(np.floor(np.ldexp(other_factor, shift - places) + 0.5))
        other = _Other(other_factor, other_size, sixteen_bits << places, zero)
        whole = replace(forms, reduced=np.full_like(forms.reduced, arith.SHORT_LIMIT))  # sums are clamped no earlier
        form = other.added(whole).best(lower, upper, other.multiplier)
        if sixteen_bits < arith.SHORT_LIMIT and form is not None and form.deviation < arith.MAXIMUM_DEVIATION:
            bounds = arith.short_bounds(form.pre_shift)
            return replace(form, lower=bounds[0] - form.half, upper=bounds[1] - form.half)
    return None


def saturated(factor: Array, lower: Array, upper: Array, safe: Array, zero: int, limits: tuple[int, int]) -> Narrow | None:
    """The form whose codes are the uppermost bytes of its products; None where it overflows, or a step of the sums skips codes.

    Arguments as of :func:`narrowed`; ``limits`` are the smallest and the largest code.
    """
    forms = _forms(factor, np.maximum(np.abs(lower), np.abs(upper)), safe, arith.SATURATED_SHIFT)
    form = forms.best(lower, upper)
    if form is None:
        return None
    constants, tail = (form.multiplier, form.pre_shift), (form.shift, zero, *limits)
    bounds = arith.saturation_bounds(*constants, lower + form.half, upper + form.half, *tail)
    if not arith.saturates(*constants, *bounds, *tail):
        return None
    return replace(form, lower=bounds[0] - form.half, upper=bounds[1] - form.half)


def narrowed(
    factor: Array, lower: Array, upper: Array, safe: Array, other_factor: float = 0.0, other_size: int = 0, zero: int = 0
) -> Narrow | None:
    """The narrow form with the least deviation; None where none keeps every intermediate within int32.

    ``factor`` float64[O] and ``other_factor``: real output steps per unit of the accumulator and of the other operand, whose
    magnitude is at most ``other_size``; ``zero`` is added to the code before the sum is shifted. ``safe`` int64[O]: the bound of
    the sums, to which the rounding term is added.
    """
    size = np.maximum(np.abs(lower), np.abs(upper))
    span = float((size * factor).max(initial=0.0)) + other_size * other_factor + zero
    if span == 0.0:
        return None
    shift = min(int(np.floor(np.log2(_ROOM / (span * 1.01 + 0.5)))), LARGEST_SHIFT)
    if shift < 1:
        return None
    forms = _forms(factor, size, safe, shift)
    other = _Other(other_factor, other_size, int(np.floor(np.ldexp(other_factor, shift) + 0.5)), zero)
    forms = other.added(forms)
    return forms.chosen(forms.deviation.argmin(axis=0), lower, upper, other.multiplier)


def _with_bias(sums: Node, constants: Constants, stem: str, offset: Array) -> Node:
    """``sums`` with ``offset`` added to its bias, a constant whose name begins with ``stem``."""
    start = constants[sums.inputs[2]].data if len(sums.inputs) == 3 else 0
    constants.release(sums, keeping=sums.inputs[:2])
    return replace(sums, inputs=(*sums.inputs[:2], constants.add(stem, offset + start, I32).name))


@dataclass(frozen=True)
class NarrowRequantization:
    """Nodes whose output has at most 8 bits; wider outputs need the precision of 64 bits."""

    name: str = "narrow_requantization"
    requires: Stage = Stage.INTEGER
    gives: Stage = Stage.INTEGER

    def __call__(self, graph: Graph) -> Graph:
        constants = Constants(graph)
        nodes_by_output = graph.producer
        nodes: list[Node] = []
        for node in graph.nodes:
            form = self._form(graph, node) if node.op in ("requantize", "requantize_add") else None
            if form is None or form.deviation >= arith.MAXIMUM_DEVIATION:
                nodes.append(node)
                continue
            base = node.inputs[1].removesuffix(".multiplier")
            half = form.half
            sums = nodes_by_output[node.inputs[0]]
            nodes[nodes.index(sums)] = _with_bias(sums, constants, f"{base}.bias", half)
            constants.release(node)
            parts = {
                "multiplier": form.multiplier,
                "pre_shift": form.pre_shift,
                "lower": form.lower + half,
                "upper": form.upper + half,
            }
            names = [constants.add(f"{base}.{part}", data, I32).name for part, data in parts.items()]
            other = {"other_multiplier": form.other_multiplier} if node.op == "requantize_add" else {}
            inputs = (node.inputs[0], *names, *node.inputs[2:])
            nodes.append(replace(node, op=f"{node.op}_narrow", inputs=inputs).with_attributes(shift=form.shift, **other))
        return graph.with_nodes(nodes, constants.values())

    @staticmethod
    def _form(graph: Graph, node: Node) -> Narrow | None:
        dtype = node.output.type.dtype
        assert isinstance(dtype, IntegerType)
        if dtype.bits > 8:
            return None
        factor = np.ldexp(graph.constant[node.inputs[1]].data.astype(np.float64), -node["shift"])
        other_factor, other_low, other_high = 0.0, 0, 0
        if node.op == "requantize_add":
            other_factor = float(np.ldexp(float(node["other_multiplier"]), -node["shift"]))
            other_low, other_high = code_range(graph, node.inputs[2])
        zero, (lo, hi) = node.output.zero or 0, node["limits"]
        sums = graph.producer[node.inputs[0]]
        rows, places = weight_rows(graph, sums), weight_places(graph, sums)
        reach = arith.accumulator_range(*rows)
        limits = (lo - zero - 1 - other_high * other_factor, hi - zero + 1 - other_low * other_factor)
        lower, upper = saturation_interval(factor, reach, limits)
        safe = arith.largest_partial_sum(*rows)
        arguments = (factor, lower, upper, safe)
        if node.op == "requantize_add":
            other = (other_factor, max(abs(other_low), abs(other_high)), abs(zero))
            bytes_only = not dtype.signed and graph.type_of(node.inputs[-1]).dtype.container == np.uint8
            return (short_add(*arguments, *other, (lo, hi)) if bytes_only else None) or narrowed(*arguments, *other)
        if dtype.signed:
            return narrowed(*arguments)
        form = short(*arguments, zero, (lo, hi), places)
        if form is None:
            form = saturated(*arguments, zero, (lo, hi))
            if form is None or form.pre_shift.any():
                form = short(*arguments, zero, (lo, hi), max(places, _LEFT)) or form
        return form or narrowed(*arguments)
