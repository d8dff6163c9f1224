"""Convolutions on arm64, with the dot-product extension or plain NEON."""

from __future__ import annotations

from qcompiler.backend.kernel import ConvolutionSpec, Kernel
from qcompiler.schedules import convolution_direct, convolution_generic
from qcompiler.schedules.intrinsics_arm import DOTPROD, NEON


def build(spec: ConvolutionSpec, instruction_set: str) -> Kernel:
    """The kernel for ``instruction_set`` "dotprod" or "neon"; what no tile serves runs as plain loops."""
    instruction = {"dotprod": DOTPROD, "neon": NEON}[instruction_set]
    if convolution_direct.serves(spec, instruction):
        return convolution_direct.build(spec, instruction, "convolution_arm")
    return convolution_generic.build(spec, instruction_set)
