"""Convolutions other than depthwise ones: the direct schedule with the instruction that suits best, else plain loops.

avx512vnni: 16 output channels by 4 input channels in one ``vpdpbusd``, or 4 by 4 where there are fewer, in all or in a group;
avxvnni: 8 by 4, or 4 by 4. avx2 and x86-64: codes widened to int16 and multiplied in pairs, which is exact. arm64: with the
dot-product extension or plain NEON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qcompiler.backend.kernel import ConvolutionSpec, Kernel
from qcompiler.schedules import convolution_direct, convolution_generic
from qcompiler.schedules.channel_windows import choose_windows
from qcompiler.schedules.dot_product import DotProduct
from qcompiler.schedules.intrinsics_arm import DOTPROD, NEON
from qcompiler.schedules.intrinsics_x86 import AVX2, AVX512_VNNI, AVX_VNNI, SSE2, VNNI_128
from qcompiler.schedules.tiling import Tiling

INSTRUCTIONS: Final[Mapping[str, tuple[DotProduct, ...]]] = {
    "avx512vnni": (AVX512_VNNI, VNNI_128),
    "avxvnni": (AVX_VNNI, VNNI_128),
    "avx2": (AVX2, SSE2),
    "x86-64": (SSE2,),
    "dotprod": (DOTPROD,),
    "neon": (NEON,),
}
_NAMES: Final[Mapping[str, str]] = {
    "avx512vnni": "vnni",
    "avxvnni": "vnni",
    "avx2": "x86",
    "x86-64": "x86",
    "dotprod": "arm",
    "neon": "arm",
}


def build(spec: ConvolutionSpec, instruction_set: str, tiling: Tiling = ()) -> Kernel:
    """The kernel of a convolution, tiled as the model chooses where ``tiling`` is empty.

    Raises ValueError for a tiling that does not fit.
    """
    instruction = serving_instruction(spec, instruction_set)
    if instruction is not None:
        return convolution_direct.build(spec, instruction, f"convolution_{_NAMES[instruction_set]}", tiling)
    if tiling:
        raise ValueError(f"plain loops have no tiling: {spec}")
    return convolution_generic.build(spec, instruction_set)


def tilings(spec: ConvolutionSpec, instruction_set: str) -> tuple[Tiling, ...]:
    """What :func:`build` may be told to do, the model's choice first; empty for plain loops."""
    instruction = serving_instruction(spec, instruction_set)
    return () if instruction is None else convolution_direct.tilings(spec, instruction)


def refuses(spec: ConvolutionSpec, instruction_set: str, tiling: Tiling) -> str:
    """Why :func:`build` does not take a tiling for this convolution; "" if it does."""
    instruction = serving_instruction(spec, instruction_set)
    return "plain loops have no tiling" if instruction is None else convolution_direct.refuses(spec, instruction, tiling)


def serving_instruction(spec: ConvolutionSpec, instruction_set: str) -> DotProduct | None:
    """The instruction with the fewest dot products, of several that with the shortest vectors; None where plain loops serve."""

    def cost(found: DotProduct) -> tuple[int, int]:
        return choose_windows(spec, found.lanes).dot_products, found.lanes

    ranked = sorted(INSTRUCTIONS[instruction_set], key=cost)
    return next((found for found in ranked if convolution_direct.serves(spec, found)), None)
