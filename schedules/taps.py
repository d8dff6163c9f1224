"""Vector units as a depthwise convolution sees them: several taps of one channel per 32-bit lane.

``interleave`` brings the same channels of several rows side by side, ``multiply_add`` adds the products of
each lane's taps to its int32 accumulator. Every unit is exact for x in 0..255 and weights in -128..127:

====================  =====  ==================================================  =======================
unit                  taps   meaning of one step, for lane c                      instruction
====================  =====  ==================================================  =======================
bytes (x86)           4      acc[c] += sum(u8 x[c, t] * s8 w[c, t] for t in 4)    vpdpbusd
bytes (ARM)           4      acc[c] += sum(s8 x[c, t] * s8 w[c, t] for t in 4)    sdot, x is the code ^ 0x80
pairs                 2      acc[c] += sum(s16 x[c, t] * s16 w[c, t] for t in 2)  pmaddwd, paddd
single                1      acc[c] += s16 x[c] * s16 w[c]                        smlal
====================  =====  ==================================================  =======================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import tvm.tirx.script.builder.ir as tir

from qcompiler.schedules.loops import splat

FLIP: Final = 0x80


@dataclass(frozen=True)
class TapUnit:
    """``taps`` per lane; ``lanes`` accumulators per vector at most; element types of x and weights;
    ``accumulators``: how many vectors of them stay in registers."""

    taps: int
    lanes: int
    x_dtype: str
    accumulators: int
    intrinsics: tuple[tuple[int, str], ...]  # by lanes

    @property
    def weight_dtype(self) -> str:
        return "int8" if self.taps == 4 else "int16"

    @property
    def flips(self) -> bool:
        """Whether x is seen as signed: code ^ 0x80, which is code - 128."""
        return self.x_dtype == "int8"

    def multiply_add(self, accumulator: Any, x: Any, weights: Any, lanes: int) -> Any:
        """int32[lanes] + the products of x and weights ``[lanes, taps]``."""
        kind = f"int32x{lanes}"
        name = dict(self.intrinsics).get(lanes)
        if name is None:
            return accumulator + tir.cast(x, kind) * tir.cast(weights, kind)
        if self.taps == 4:
            return tir.call_llvm_pure_intrin(kind, name, accumulator, x, weights)
        return accumulator + tir.call_llvm_pure_intrin(kind, name, x, weights)

    def interleave(self, rows: Sequence[Any], channels: int, first: int, lanes: int, dtype: str) -> Any:
        """``[lanes, taps]`` elements of ``dtype`` from byte rows of ``channels``, starting at channel ``first``."""
        if lanes * self.taps == _WIDE:
            return _turned(rows, dtype)
        picked = [channels * tap + first + lane for lane in range(lanes) for tap in range(self.taps)]
        whole = len(rows) == 1 and lanes == channels
        vector = rows[0] if whole else tir.Shuffle(list(rows), picked)
        kind = f"{dtype}x{lanes * self.taps}"
        return vector if self.taps == 4 else tir.cast(vector, kind)

    def as_seen(self, row: Any, channels: int) -> Any:
        """A row of uint8 codes as the unit multiplies them."""
        if not self.flips:
            return row
        return tir.reinterpret(f"int8x{channels}", row ^ splat(tir.uint8(FLIP), channels))


_WIDE: Final = 64  # bytes of a 512 bit vector


def _constants(values: Sequence[int], dtype: str) -> Any:
    """A vector of small constants."""
    count = len(values)
    ramp = tir.Ramp(0, 1, count)
    return tir.Shuffle([ramp if dtype == "int32" else tir.cast(ramp, f"{dtype}x{count}")], list(values))


def _turned(rows: Sequence[Any], dtype: str) -> Any:
    """Four rows of 16 bytes to ``[16][4]`` in two permutations: words to their lane of 128 bits, bytes within it."""
    joined = tir.reinterpret("int32x16", tir.Shuffle(list(rows), list(range(_WIDE))))
    words = _constants([4 * (k % 4) + k // 4 for k in range(16)], "int32")
    spread = tir.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.permvar.si.512", joined, words)
    places = _constants([4 * (k % 4) + k // 4 for k in range(16)] * 4, "int8")
    turned = tir.call_llvm_pure_intrin("int8x64", "llvm.x86.avx512.pshuf.b.512", tir.reinterpret("int8x64", spread), places)
    return turned if dtype == "int8" else tir.reinterpret(f"{dtype}x64", turned)


_BYTES: Final = "llvm.x86.avx512.vpdpbusd."
UNITS: Final = {
    "avx512vnni": TapUnit(4, 16, "uint8", 16, ((16, _BYTES + "512"), (8, _BYTES + "256"), (4, _BYTES + "128"))),
    "avxvnni": TapUnit(4, 8, "uint8", 8, ((8, _BYTES + "256"), (4, _BYTES + "128"))),
    "avx2": TapUnit(2, 8, "int16", 8, ((8, "llvm.x86.avx2.pmadd.wd"), (4, "llvm.x86.sse2.pmadd.wd"))),
    "x86-64": TapUnit(2, 4, "int16", 8, ((4, "llvm.x86.sse2.pmadd.wd"),)),
    "dotprod": TapUnit(4, 4, "int8", 14, ((4, "llvm.aarch64.neon.sdot.v4i32.v16i8"),)),
    "neon": TapUnit(1, 8, "int16", 8, ()),
}
