"""Depthwise convolution with a 1x1 kernel, an affine map of each channel: what a batch norm before a convolution becomes.

Pixels of all images lie one after the other, so x is one row of codes. It is cut into vectors that do not care where a pixel
ends: their channels repeat after a period, the least common multiple of a pixel and a vector. A block is one of the vectors of a
period; a task is a few blocks and a range of periods, and holds a block's constants in registers over its periods.

Where sums become codes in 16 bits, nothing is widened: a dot product of four bytes with a weight that has but one of them is the
product of one channel. So four dot products take a vector of codes as it lies, and one permutation puts the results in order:

    x          a0 a1 a2 a3 | b0 b1 b2 b3 | ...
    weights    w0  0  0  0 | v0  0  0  0 | ...   ->  a0 * w0, b0 * v0, ...
                0 w1  0  0 |  0 v1  0  0 | ...   ->  a1 * w1, b1 * v1, ...

Units that multiply pairs of 16 bits do so with the even bytes of x, then with the odd ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import Any, Final

import numpy as np
import tvm.tirx.script.builder.ir as tir
from typing_extensions import override

from qcompiler import arith
from qcompiler.backend import short_form
from qcompiler.backend.kernel import CHANNEL_ARGUMENTS, LANES, ConvolutionSpec, Kernel, Scalar, physical_channels
from qcompiler.schedules import elementwise
from qcompiler.schedules.depthwise_pack import arguments, flipped_bias, pack_taps, unpack_rows
from qcompiler.schedules.epilogue import EpilogueArguments, apply_epilogue
from qcompiler.schedules.loops import Buffers, build_function, load, scratch, splat, store
from qcompiler.schedules.taps import UNITS, TapUnit

TASKS: Final = 32
TASK_VECTORS: Final = 64  # smaller tasks spend their time on constants
GROUP: Final = 4  # bytes of a 32-bit lane


def build(spec: ConvolutionSpec, instruction_set: str) -> Kernel:
    """The affine map ``spec`` for an instruction set."""
    unit = UNITS[instruction_set]
    chosen = Plan(spec, unit, elementwise.LANES[instruction_set])
    named = arguments(spec)

    def pack(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return pack_taps(codes, spec.weight_bits)

    return Kernel(
        function=build_function(named, lambda buffers: _Body(chosen, buffers).emit()),
        arguments=tuple(named),
        tasks=chosen.tasks,
        schedule=f"affine: {chosen.lanes} channels at once, {chosen.blocks_per_task} of {chosen.blocks} blocks",
        pack=pack,
        adjust_bias=flipped_bias if unit.flips else None,
    )


@dataclass(frozen=True)
class Plan:
    """How the row of codes is cut into vectors of ``lanes``."""

    spec: ConvolutionSpec
    unit: TapUnit
    lanes: int

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
        self.plan, self.spec, self.unit, self.buffers = chosen, chosen.spec, chosen.unit, buffers

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
        count = (
            (chosen.vectors - block + chosen.blocks - 1) // chosen.blocks if chosen.vectors % chosen.blocks else chosen.periods
        )
        vector = _vector(chosen, self.buffers, block * chosen.lanes, chosen.lanes)
        with tir.serial(first, tir.min(first + chosen.periods_per_task, count)) as period:
            vector.write(tir.Bind((period * chosen.blocks + block) * chosen.lanes))

    def piece(self, first: int, lanes: int) -> None:
        """A vector of what is left at the end."""
        _vector(self.plan, self.buffers, first, lanes).write(first)


def _vector(chosen: Plan, buffers: Buffers, first: Any, lanes: int) -> _Vector:
    """The vectors whose first element has the channel of element ``first``, as codes are best made of them."""
    epilogue, unit = chosen.spec.epilogue, chosen.unit
    kind = _Vector
    if unit.taps > 1 and lanes // GROUP in dict(unit.intrinsics):
        if epilogue.short:
            kind = _ShortVector
        elif epilogue.word_bounds and not epilogue.pre_shifted and not unit.flips:
            kind = _SaturatedVector
    return kind(chosen, buffers, first, lanes)


class _Vector:
    """Emits ``lanes`` outputs, in the order in which they lie; their channels' constants are loaded at once."""

    def __init__(self, chosen: Plan, buffers: Buffers, first: Any, lanes: int) -> None:
        self.spec, self.unit, self.buffers, self.lanes = chosen.spec, chosen.unit, buffers, lanes
        self.chunk = gcd(chosen.channels, lanes)
        self.places = [tir.Bind((first + start) % chosen.channels) for start in range(0, lanes, self.chunk)]
        self.constants = {}
        for name in self.spec.epilogue.channel_arguments:
            self.constants[name] = scratch(lanes, "int32")
            parts = [load(buffers[name], place, self.chunk) for place in self.places]
            store(self.constants[name], _joined(parts, self.order), 0, lanes)
        self.load_weights(_joined([self.codes(place) for place in self.places], range(lanes)))

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
        self.weights = tir.Bind(codes)
        self.sums = scratch(self.lanes, "int32")

    def seen(self, index: Any) -> Any:
        """The codes from ``index`` on as the unit multiplies them."""
        return tir.Bind(self.unit.as_seen(load(self.buffers["x"], index, self.lanes), self.lanes))

    def write(self, index: Any) -> None:
        """Outputs from ``index`` on."""
        epilogue, kind = self.spec.epilogue, f"int32x{self.lanes}"
        total = load(self.constants["bias"], 0, self.lanes) + tir.cast(self.seen(index), kind) * tir.cast(self.weights, kind)
        if epilogue.short:
            store(self.buffers["y"], self.short_codes(total), index, self.lanes)
            return
        store(self.sums, total, 0, self.lanes)
        named = {name: self.constants.get(name) for name in CHANNEL_ARGUMENTS}
        given = EpilogueArguments(residual=self.buffers.get("residual"), **named, scalars=self.buffers["scalars"])
        with tir.vectorized(self.lanes) as lane:
            value = apply_epilogue(epilogue, given, self.sums[lane], lane, (index + lane,))
            tir.buffer_store(self.buffers["y"], value, [index + lane])

    def short_codes(self, sums: Any) -> Any:
        """The codes of all sums, in their order."""
        words = load(self.constants["multiplier"], 0, self.lanes)
        scalars = [self.buffers["scalars"][int(place)] for place in (Scalar.SHIFT, Scalar.Y_ZERO)]
        return short_form.codes(sums, words, self.spec.epilogue.pre_shifted, *scalars)


class _GroupedVector(_Vector, ABC):
    """Sums of every fourth channel lie side by side: those of channels 0, 4, 8, ... come first."""

    @property
    def order(self) -> Sequence[int]:
        return [channel for first in range(GROUP) for channel in range(first, self.lanes, GROUP)]

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
        if self.unit.taps == GROUP:
            return [codes]
        count = self.lanes // 2
        pairs, eight = tir.reinterpret(f"{dtype}x{count}", codes), splat(getattr(tir, dtype)(8), count)
        return [(pairs << eight) >> eight, pairs >> eight]

    def write(self, index: Any) -> None:
        words = self.lanes // GROUP
        parts = self.parts(self.seen(index), "uint16")
        sums = []
        for byte, weights in enumerate(self.group_weights):
            x = tir.reinterpret(f"{self.unit.x_dtype}x{words * self.unit.taps}", parts[byte % len(parts)])
            sums.append(tir.Bind(self.unit.multiply_add(self.constant("bias", byte), x, weights, words)))
        places = [lane // 16 * 16 + lane % GROUP * GROUP + lane % 16 // GROUP for lane in range(self.lanes)]
        store(self.buffers["y"], tir.Shuffle([self.packed(sums)], places), index, self.lanes)

    def constant(self, name: str, byte: int) -> Any:
        """A constant of the channels of a vector of sums."""
        words = self.lanes // GROUP
        return load(self.constants[name], byte * words, words)

    @abstractmethod
    def packed(self, sums: Sequence[Any]) -> Any:
        """The codes of four vectors of sums: within 128 bits, four of each."""


class _ShortVector(_GroupedVector):
    """Codes of :func:`arith.requantize_short`."""

    @override
    def packed(self, sums: Sequence[Any]) -> Any:
        words = self.lanes // GROUP
        codes = tir.reinterpret(f"int32x{words}", self.short_codes(_joined(sums, range(self.lanes))))
        before = [word % GROUP * words // GROUP + word // GROUP for word in range(words)]  # undoes what packing ends with
        return tir.reinterpret(f"uint8x{self.lanes}", tir.Shuffle([codes], before))


class _SaturatedVector(_GroupedVector):
    """Codes of :func:`arith.requantize_saturated` where 16 bits hold the sums within their bounds; x86 alone.

    With a multiplier of ``high * 2^16 + low``, ``low`` signed, and nothing below 2^16 in what is added to the products, the upper
    16 bits of these are ``sum * high + (sum * low >> 16)``, whose upper bytes are the codes.
    """

    @override
    def load_weights(self, codes: Any) -> None:
        super().load_weights(codes)
        words = self.lanes // GROUP
        kind, places = f"uint32x{words}", splat(tir.int32(16), words)
        low, high = [], []
        for byte in range(GROUP):
            multiplier = self.constant("multiplier", byte)
            low.append(tir.Bind((multiplier << places) >> places))
            rest = tir.reinterpret(kind, multiplier) - tir.reinterpret(kind, low[-1])
            high.append(tir.reinterpret(f"int32x{words}", rest) >> places)
        bounds = ([self.constant(name, byte) for byte in range(GROUP)] for name in ("lower", "upper"))
        self.low, self.high, self.lower, self.upper = ([*map(tir.Bind, self.halves(four))] for four in (low, high, *bounds))

    def halves(self, four: Sequence[Any]) -> list[Any]:
        """Two vectors of 16 bits from four of 32, saturated."""
        pack, kind = short_form.x86_packing(self.lanes // GROUP)[0], f"int16x{self.lanes // 2}"
        return [tir.call_llvm_pure_intrin(kind, pack, *four[first : first + 2]) for first in (0, 2)]

    @override
    def packed(self, sums: Sequence[Any]) -> Any:
        _, multiply, pack_bytes = short_form.x86_packing(self.lanes // GROUP)
        count = self.lanes // 2
        signed, unsigned = f"int16x{count}", f"uint16x{count}"  # sums of unsigned numbers wrap around
        zero = self.buffers["scalars"][int(Scalar.Y_ZERO)]
        start = splat(tir.cast((1 << (arith.SATURATED_SHIFT - 17)) + (zero << (arith.SATURATED_SHIFT - 16)), "uint16"), count)
        codes = []
        for half, whole in enumerate(self.halves(sums)):
            word = tir.Bind(tir.min(tir.max(whole, self.lower[half]), self.upper[half]))
            low = tir.reinterpret(unsigned, tir.call_llvm_pure_intrin(signed, multiply, word, self.low[half]))
            product = tir.reinterpret(unsigned, word) * tir.reinterpret(unsigned, self.high[half]) + low + start
            codes.append(tir.reinterpret(signed, product >> splat(tir.uint16(arith.SATURATED_SHIFT - 16), count)))
        return tir.call_llvm_pure_intrin(f"uint8x{self.lanes}", pack_bytes, *codes)


def _joined(vectors: Sequence[Any], order: Sequence[int]) -> Any:
    """The elements of ``vectors`` in an order."""
    return vectors[0] if len(vectors) == 1 and list(order) == sorted(order) else tir.Shuffle(list(vectors), list(order))
