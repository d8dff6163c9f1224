"""Convolutions on AVX512-VNNI: 16 output channels by 4 input channels in one ``vpdpbusd``, or 4 by 4 where there are fewer."""

from __future__ import annotations

from qcompiler.backend.kernel import ConvolutionSpec, Kernel
from qcompiler.schedules import convolution_direct, convolution_generic
from qcompiler.schedules.intrinsics_x86 import AVX512_VNNI, VNNI_128


def build(spec: ConvolutionSpec, instruction_set: str) -> Kernel:
    """The kernel for ``instruction_set`` "avx512vnni"; what no tile serves runs as plain loops."""
    for instruction in (AVX512_VNNI, VNNI_128):
        if convolution_direct.serves(spec, instruction):
            return convolution_direct.build(spec, instruction, "convolution_vnni")
    return convolution_generic.build(spec, instruction_set)
