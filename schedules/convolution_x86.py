"""Convolutions on x86 without VNNI: codes widened to int16 and multiplied in pairs, which is exact."""

from __future__ import annotations

from qcompiler.backend.kernel import ConvolutionSpec, Kernel
from qcompiler.schedules import convolution_direct, convolution_generic
from qcompiler.schedules.intrinsics_x86 import AVX2, SSE2


def build(spec: ConvolutionSpec, instruction_set: str) -> Kernel:
    """The kernel for ``instruction_set`` "avx2" or "x86-64"; what no tile serves runs as plain loops."""
    for instruction in {"avx2": (AVX2, SSE2), "x86-64": (SSE2,)}[instruction_set]:
        if convolution_direct.serves(spec, instruction):
            return convolution_direct.build(spec, instruction, "convolution_x86")
    return convolution_generic.build(spec, instruction_set)
