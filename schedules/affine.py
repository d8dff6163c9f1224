"""Depthwise convolution with a 1x1 kernel, an affine map of each channel: what a batch norm before a convolution becomes.

Pixels of all images lie one after the other, so x is one row of codes. It is cut into vectors that do not care where a pixel
ends: their channels repeat after a period, the least common multiple of a pixel and a vector. A block is one of the vectors of a
period; a task is a few blocks and a range of periods, and holds a block's constants in registers over its periods.

Codes are not widened. For short epilogues, whose sums have 32 bits, a dot product of four bytes with a weight that has but one
of them is the product of one channel. So four dot products take a vector of codes as it lies, and one permutation puts the
results in order:

    x          a0 a1 a2 a3 | b0 b1 b2 b3 | ...
    weights    w0  0  0  0 | v0  0  0  0 | ...   ->  a0 * w0, b0 * v0, ...
                0 w1  0  0 |  0 v1  0  0 | ...   ->  a1 * w1, b1 * v1, ...

Units that multiply pairs of 16 bits do so with the even bytes of x, then with the odd ones. Saturated epilogues within 16 bits
need no more for products and sums either: two vectors of them, of even channels and of odd ones, which one "or" puts in order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import Any, Final

import tvm.tirx.script.builder.ir as tir
from typing_extensions import override

from qcompiler import arith
from qcompiler.backend import short_form
from qcompiler.backend.kernel import LANES, ConvolutionSpec, Kernel, Scalar, physical_channels
from qcompiler.backend.tir import TIR
from qcompiler.schedules import elementwise
from qcompiler.schedules.depthwise_pack import make_kernel, unpack_rows
from qcompiler.schedules.loops import Buffers, load, scratch, splat, store
from qcompiler.schedules.taps import UNITS, TapUnit

TASKS: Final = 32
TASK_VECTORS: Final = 64  # smaller tasks spend their time on constants
GROUP: Final = 4  # bytes of a 32-bit lane
BYTE_PRODUCTS: Final = {
    64: "llvm.x86.avx512.pmaddubs.w.512",
    32: "llvm.x86.avx2.pmadd.ub.sw",
    16: "llvm.x86.ssse3.pmadd.ub.sw.128",
}
"""Sums of two products of bytes, by bytes."""
HAVE_BYTE_PRODUCTS: Final = ("avx512vnni", "avxvnni", "avx2")
HAVE_BYTE_SHUFFLES: Final = (*HAVE_BYTE_PRODUCTS, "dotprod")  # and units that multiply more than one byte at a time


def serves(spec: ConvolutionSpec, instruction_set: str) -> bool:
    """Whether the codes of an affine map come out of 16 bits; :mod:`depthwise` serves others.

    So it does where first shifts take many instructions each, which it shares between pixels.
    """
    return spec.is_affine and (spec.epilogue.word_bounds or (spec.epilogue.short and instruction_set != "x86-64"))


def build(spec: ConvolutionSpec, instruction_set: str) -> Kernel:
    """The affine map ``spec`` for an instruction set."""
    chosen = Plan(spec, instruction_set)
    schedule = f"affine: {chosen.lanes} channels at once, {chosen.blocks_per_task} of {chosen.blocks} blocks"
    return make_kernel(spec, chosen.unit, chosen.tasks, schedule, lambda buffers: _Body(chosen, buffers).emit())


@dataclass(frozen=True)
class Plan:
    """How the row of codes is cut into vectors of ``lanes``."""

    spec: ConvolutionSpec
    instruction_set: str

    @property
    def unit(self) -> TapUnit:
        return UNITS[self.instruction_set]

    @property
    def lanes(self) -> int:
        return elementwise.LANES[self.instruction_set]

    @property
    def channels(self) -> int:
        return physical_channels(self.spec.in_channels)

    @property
    def elements(self) -> int:
        return self.spec.batch * self.spec.height * self.spec.width * self.channels

    @property
    def vectors(self) -> int:
        """Whole ones; what is left takes smaller ones."""
        return self.elements // self.lanes

    @property
    def blocks(self) -> int:
        """Vectors of a period."""
        return lcm(self.channels, self.lanes) // self.lanes

    @property
    def periods(self) -> int:
        """With the last, which may lack blocks."""
        return -(-self.vectors // self.blocks)

    @property
    def wanted_tasks(self) -> int:
        return min(TASKS, max(1, self.vectors // TASK_VECTORS))

    @property
    def blocks_per_task(self) -> int:
        return -(-self.blocks // self.wanted_tasks)

    @property
    def block_tasks(self) -> int:
        return -(-self.blocks // self.blocks_per_task)

    @property
    def periods_per_task(self) -> int:
        return max(1, -(-self.periods // max(1, self.wanted_tasks // self.block_tasks)))

    @property
    def tasks(self) -> int:
        return self.block_tasks * max(1, -(-self.periods // self.periods_per_task))


class _Body:
    """Emits the loops of one kernel."""

    def __init__(self, chosen: Plan, buffers: Buffers) -> None:
        self.plan, self.buffers = chosen, buffers

    def emit(self) -> None:
        chosen = self.plan
        whole = chosen.vectors * chosen.lanes
        with tir.serial(chosen.tasks) as task:
            if chosen.vectors:
                first = tir.Bind(task // chosen.block_tasks * chosen.periods_per_task)
                with tir.serial(chosen.blocks_per_task) as place:
                    block = tir.Bind(task % chosen.block_tasks * chosen.blocks_per_task + place)
                    if chosen.blocks % chosen.blocks_per_task:
                        with tir.If(block < chosen.blocks), tir.Then():
                            self.block(block, first)
                    else:
                        self.block(block, first)
            if whole < chosen.elements:
                with tir.If(task == chosen.tasks - 1), tir.Then():
                    tir.evaluate(0)
                    elementwise.rest(whole, chosen.elements, chosen.lanes, self.piece)

    def block(self, block: Any, first: Any) -> None:
        """The vectors at the same place of a task's periods, from period ``first`` on."""
        chosen = self.plan
        lacking = chosen.vectors % chosen.blocks
        count = (chosen.vectors - block + chosen.blocks - 1) // chosen.blocks if lacking else chosen.periods
        vector = _vector(chosen, self.buffers, block * chosen.lanes, chosen.lanes)
        with tir.serial(first, tir.min(first + chosen.periods_per_task, count)) as period:
            vector.write(tir.Bind((period * chosen.blocks + block) * chosen.lanes))

    def piece(self, first: int, lanes: int) -> None:
        """A vector of what is left at the end."""
        _vector(self.plan, self.buffers, first, lanes).write(first)


def _vector(chosen: Plan, buffers: Buffers, first: Any, lanes: int) -> _Vector:
    """The vectors whose first element has the channel of element ``first``, as codes are best made of them."""
    kind: type[_Vector] = _WidenedVector
    if chosen.spec.epilogue.word_bounds:
        kind = _SaturatedVector
    elif chosen.instruction_set in HAVE_BYTE_SHUFFLES and lanes // GROUP in dict(chosen.unit.intrinsics):
        kind = _GroupedVector
    return kind(chosen, buffers, first, lanes)


class _Vector(ABC):
    """Emits ``lanes`` outputs; the constants of their channels are loaded at once."""

    def __init__(self, chosen: Plan, buffers: Buffers, first: Any, lanes: int) -> None:
        self.plan, self.spec, self.unit = chosen, chosen.spec, chosen.unit
        self.buffers, self.lanes = buffers, lanes
        self.chunk = gcd(chosen.channels, lanes)
        places = [tir.Bind((first + start) % chosen.channels) for start in range(0, lanes, self.chunk)]
        self.constants = {}
        for name in self.spec.epilogue.channel_arguments:
            self.constants[name] = scratch(lanes, "int32")
            parts = [load(buffers[name], place, self.chunk) for place in places]
            store(self.constants[name], _joined(parts, self.order), 0, lanes)
        self.load_weights(_joined([self.codes(place) for place in places], range(lanes)))

    @property
    def order(self) -> Sequence[int]:
        """The element in each lane of constants and sums."""
        return range(self.lanes)

    def codes(self, place: Any) -> Any:
        """The weights of a chunk of channels."""
        bits = self.spec.weight_bits
        rows = -(-self.chunk // LANES)
        stored = load(self.buffers["weights"], place * bits // 8, rows * LANES * bits // 8)
        return unpack_rows(stored, bits, rows, self.chunk)

    def load_weights(self, codes: Any) -> None:
        """Keep the weights of all channels as products need them."""
        self.weights = tir.Bind(codes)

    def seen(self, index: Any) -> Any:
        """The codes from ``index`` on as the unit multiplies them."""
        return tir.Bind(self.unit.as_seen(load(self.buffers["x"], index, self.lanes), self.lanes))

    @abstractmethod
    def write(self, index: Any) -> None:
        """Outputs from ``index`` on."""

    def short_codes(self, sums: Any, index: Any) -> Any:
        """The codes of all sums, in their order; ``index``: of the first output."""
        words = load(self.constants["multiplier"], 0, self.lanes)
        shift, zero = (self.buffers["scalars"][int(place)] for place in (Scalar.SHIFT, Scalar.Y_ZERO))
        return short_form.codes(sums, words, self.spec.epilogue, shift, zero, self.added(index))

    def added(self, index: Any) -> short_form.Added | None:
        """The other operand of the outputs from ``index`` on, in the order of their sums."""
        if self.spec.epilogue.residual is None:
            return None
        codes = tir.Bind(_joined([tir.Bind(load(self.buffers["residual"], index, self.lanes))], self.order))
        zero, multiplier = (self.buffers["scalars"][int(place)] for place in (Scalar.RESIDUAL_ZERO, Scalar.RESIDUAL_MULTIPLIER))
        return short_form.Added(codes, zero, multiplier)


class _WidenedVector(_Vector):
    """Codes of short epilogues, sums in the order in which they lie."""

    @override
    def write(self, index: Any) -> None:
        kind = f"int32x{self.lanes}"
        total = load(self.constants["bias"], 0, self.lanes) + tir.cast(self.seen(index), kind) * tir.cast(self.weights, kind)
        store(self.buffers["y"], self.short_codes(total, index), index, self.lanes)


class _GroupedVector(_Vector):
    """Codes of short epilogues. Sums of every fourth channel lie side by side: those of channels 0, 4, 8, ... come first."""

    @property
    @override
    def order(self) -> Sequence[int]:
        return _every(GROUP, self.lanes)

    @override
    def load_weights(self, codes: Any) -> None:
        """Four vectors, each with one byte of four."""
        words, bits = self.lanes // GROUP, 32 // self.unit.taps
        parts = self.parts(codes, "int16")
        self.group_weights = []
        for byte in range(GROUP):
            mask = ((1 << bits) - 1) << (byte // len(parts) * bits)
            one = tir.reinterpret(f"uint32x{words}", parts[byte % len(parts)]) & splat(tir.uint32(mask), words)
            self.group_weights.append(tir.Bind(tir.reinterpret(f"{self.unit.weight_dtype}x{words * self.unit.taps}", one)))

    def parts(self, codes: Any, dtype: str) -> list[Any]:
        """Bytes as the unit multiplies them: all of them, or the even and the odd ones as ``dtype``, which has 16 bits."""
        return [codes] if self.unit.taps == GROUP else _even_and_odd(codes, dtype, self.lanes // 2)

    @override
    def write(self, index: Any) -> None:
        words = self.lanes // GROUP
        parts = self.parts(self.seen(index), "uint16")
        sums = []
        for byte, weights in enumerate(self.group_weights):
            x = tir.reinterpret(f"{self.unit.x_dtype}x{words * self.unit.taps}", parts[byte % len(parts)])
            bias = load(self.constants["bias"], byte * words, words)
            sums.append(tir.Bind(self.unit.multiply_add(bias, x, weights, words)))
        codes = self.short_codes(_joined(sums, range(self.lanes)), index)
        store(self.buffers["y"], self.ungrouped(codes), index, self.lanes)

    def ungrouped(self, codes: Any) -> Any:
        """Codes in the order in which they lie: words to their 128 bits, which undoes what packing ends with, then bytes."""
        words = self.lanes // GROUP
        vectors = [word % GROUP * words // GROUP + word // GROUP for word in range(words)]
        spread = tir.Shuffle([tir.reinterpret(f"int32x{words}", codes)], vectors)
        places = [lane // 16 * 16 + lane % GROUP * GROUP + lane % 16 // GROUP for lane in range(self.lanes)]
        return tir.Shuffle([tir.reinterpret(f"uint8x{self.lanes}", spread)], places)


class _SaturatedVector(_Vector):
    """Codes of :func:`arith.requantize_saturated` where bounds have 16 bits: those of even channels, then of odd ones.

    A product of two codes has 16 bits, and so has a sum within its bounds. So the product is clamped by the bounds less the bias,
    and the bias is added without regard to overflow. The multiplier is ``high * 2^16 + low``, with a signed ``low``, and what is
    added to its product with the sum has nothing below 2^16. So the upper 16 bits of the result are those of
    ``sum * high + (sum * low >> 16)`` with the rest added, and the upper byte of these is the code.
    """

    @property
    @override
    def order(self) -> Sequence[int]:
        return _every(2, self.lanes)

    @override
    def load_weights(self, codes: Any) -> None:
        super().load_weights(codes)
        self.halves = [self.half(place) for place in range(2)]

    def half(self, place: int) -> dict[str, Any]:
        """The constants of even or odd channels as vectors of 16 bits."""
        count = self.lanes // 2
        bias, multiplier, lower, upper = (
            load(self.constants[name], place * count, count) for name in ("bias", "multiplier", "lower", "upper")
        )
        least, most, nothing = (splat(tir.int32(end), count) for end in (-arith.SHORT_LIMIT, arith.SHORT_LIMIT - 1, 0))
        below, above = tir.max(lower - bias - most, nothing), tir.min(upper - bias - least, nothing)
        rounded = tir.cast(multiplier, f"uint32x{count}") + splat(tir.uint32(1 << 15), count)
        found = {
            "lower": tir.cast(TIR.clamp(lower - bias, least, most), f"int16x{count}"),
            "upper": tir.cast(TIR.clamp(upper - bias, least, most), f"int16x{count}"),
            "bias": tir.cast(bias + below + above, f"uint16x{count}"),  # where no product is within the bounds, all become one
            "low": tir.cast(multiplier, f"int16x{count}"),
            "high": tir.cast(rounded >> splat(tir.uint32(16), count), f"uint16x{count}"),
        }
        return {name: tir.Bind(value) for name, value in found.items()}

    @override
    def write(self, index: Any) -> None:
        count = self.lanes // 2
        zero = self.buffers["scalars"][int(Scalar.Y_ZERO)]
        start = splat(tir.cast((1 << (arith.SATURATED_SHIFT - 17)) + (zero << (arith.SATURATED_SHIFT - 16)), "uint16"), count)
        words = []
        for product, half in zip(self.products(self.seen(index)), self.halves, strict=True):
            within = tir.reinterpret(f"uint16x{count}", TIR.clamp(product, half["lower"], half["upper"]))
            total = tir.Bind(within + half["bias"])  # sums of unsigned numbers wrap around
            wide = [tir.cast(part, f"int32x{count}") for part in (tir.reinterpret(f"int16x{count}", total), half["low"])]
            low = tir.cast((wide[0] * wide[1]) >> splat(tir.int32(16), count), f"uint16x{count}")
            words.append(total * half["high"] + low + start)
        even, odd = words[0] >> splat(tir.uint16(8), count), words[1] & splat(tir.uint16(0xFF00), count)
        store(self.buffers["y"], tir.reinterpret(f"uint8x{self.lanes}", even | odd), index, self.lanes)

    def products(self, x: Any) -> list[Any]:
        """Those of even and of odd channels, int16."""
        count = self.lanes // 2
        kind, name = f"int16x{count}", BYTE_PRODUCTS.get(self.lanes)
        if name is None or self.plan.instruction_set not in HAVE_BYTE_PRODUCTS:
            seen = _even_and_odd(x, "int16" if self.unit.flips else "uint16", count)
            weights = _even_and_odd(self.weights, "int16", count)
            pairs = [[tir.reinterpret(f"uint16x{count}", a) for a in pair] for pair in zip(seen, weights, strict=True)]
            return [tir.reinterpret(kind, a * b) for a, b in pairs]
        words = tir.reinterpret(f"uint16x{count}", self.weights)
        single = [words & splat(tir.uint16(0xFF << shift), count) for shift in (0, 8)]  # the other product is 0
        return [tir.call_llvm_pure_intrin(kind, name, x, tir.reinterpret(f"int8x{self.lanes}", one)) for one in single]


def _every(step: int, lanes: int) -> list[int]:
    """0, step, 2 * step, ..., then 1, step + 1, ..., and so on."""
    return [lane for first in range(step) for lane in range(first, lanes, step)]


def _even_and_odd(codes: Any, dtype: str, count: int) -> list[Any]:
    """The even and the odd bytes of a vector as ``dtype``, which has 16 bits."""
    pairs, eight = tir.reinterpret(f"{dtype}x{count}", codes), splat(getattr(tir, dtype)(8), count)
    return [(pairs << eight) >> eight, pairs >> eight]


def _joined(vectors: Sequence[Any], order: Sequence[int]) -> Any:
    """The elements of ``vectors`` in an order."""
    return vectors[0] if len(vectors) == 1 and list(order) == sorted(order) else tir.Shuffle(list(vectors), list(order))
