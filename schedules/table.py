"""Which schedule serves which kernel on which instruction set.

| kernel                                   | avx512vnni,      | avx2, x86-64     | dotprod, neon    |
|                                          | avxvnni          |                  |                  |
|------------------------------------------|------------------|------------------|------------------|
| convolution, linear                      | convolution: convolution_direct with an instruction of the set |
| convolution, taps that lie too far apart | convolution: convolution_generic                       |
| depthwise convolution, 1x1               | affine           | affine           | affine           |
| depthwise convolution                    | depthwise        | depthwise        | depthwise        |
| max and average pooling                  | pooling          | pooling          | pooling          |
| add, rescale                             | elementwise      | elementwise      | elementwise      |
| pad, slice, reshape, change of layout    | copy             | copy             | copy             |
| transpose, take, concat, chains of these | move             | move             | move             |
| argmax, top-k                            | ranking          | ranking          | ranking          |
| embedding                                | embedding        | embedding        | embedding        |
| linear resizing                          | resize           | resize           | resize           |
| mul, maximum, broadcast operands, prelu  | broadcast        | broadcast        | broadcast        |
| functions of one byte                    | lookup           | lookup           | lookup           |
| sum, amax, amin                          | reduction        | reduction        | reduction        |
| matmul of activations                    | matmul           | matmul           | matmul           |

What the convolutions' common schedule (convolution_direct, decisions in convolution_plan) does by shape and bits:

| shape, bits                              | how                                                             |
|------------------------------------------|-----------------------------------------------------------------|
| 1x1, stride 1, no padding                | all pixels of the batch are one row; nothing is copied          |
| padding, or a type that is not the codes'| rows of a task are copied to the stack, borders filled          |
| groups                                   | a vector of outputs reads a window of channels, those of other  |
|                                          | groups than an output's with weights of 0 (channel_windows)     |
| 1 or 2 input channels                    | copied without padding channels: a dot product takes 2-4 columns|
| a single pixel (linear)                  | weights of 16 vectors side by side: one stream from memory      |
| codes 0 to 255                           | several vectors of sums become one of codes, in 16 bits         |
| residual                                 | small tiles: the long epilogue overlaps with the next tile      |
| 4 or 2 bits                              | unpacked once for a task's vectors, on the stack                |
| 4 or 2 bits, long sums over several taps | unpacked tap by tap; the sums of a task's pixels are kept       |
| 4 or 2 bits, few pixels, or neither fits | unpacked in registers                                           |
| 4 or 2 bits, a single pixel              | the stream of weights is fetched 8 KB ahead                     |
| 128 KB of weights and more               | those of the next vectors are fetched while a tile is computed  |
| widths that no tile divides              | a main part and a rest, each with a tile of its own             |

What depthwise convolutions with a 1x1 kernel, stride 1, no padding do (affine) by epilogue:

| epilogue                                 | how                                                             |
|------------------------------------------|-----------------------------------------------------------------|
| saturated within 16 bits, not shifted    | products, sums and their requantization in 16 bits              |
| short, with or without a residual        | dot products of four bytes with one weight, then as above       |
| short, neon                              | codes widened to 32 bits, then as above                         |
| short, x86-64, and all others            | depthwise                                                       |
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Final, TypeGuard

from qcompiler.backend.kernel import (
    AddSpec,
    ArgmaxSpec,
    BinarySpec,
    ConvolutionSpec,
    CopySpec,
    EmbeddingSpec,
    Kernel,
    KernelSpec,
    LookupSpec,
    MatmulSpec,
    MoveSpec,
    PoolSpec,
    PreluSpec,
    ReduceSpec,
    RescaleSpec,
    ResizeSpec,
    TopkSpec,
)
from qcompiler.schedules import (
    affine,
    broadcast,
    convolution,
    convolution_direct,
    convolution_generic,
    copy,
    depthwise,
    elementwise,
    embedding,
    lookup,
    matmul,
    move,
    pooling,
    ranking,
    reduction,
    resize,
)
from qcompiler.schedules.tiling import Tiling

OTHERS: Final[Mapping[type, ModuleType]] = {
    PoolSpec: pooling,
    AddSpec: elementwise,
    RescaleSpec: elementwise,
    CopySpec: copy,
    MoveSpec: move,
    ArgmaxSpec: ranking,
    TopkSpec: ranking,
    EmbeddingSpec: embedding,
    ResizeSpec: resize,
    BinarySpec: broadcast,
    LookupSpec: lookup,
    PreluSpec: broadcast,
    ReduceSpec: reduction,
    MatmulSpec: matmul,
}
"""The schedule of every kernel but convolutions: a module with ``build(spec, instruction_set)``."""


def build_kernel(spec: KernelSpec, instruction_set: str, tiling: Tiling = ()) -> Kernel:
    """The scheduled kernel for ``spec``; where ``tiling`` is empty, as the schedule chooses.

    Raises ValueError for a tiling that does not fit, see :func:`fitting`.
    """
    if _is_tiled(spec):
        return convolution.build(spec, instruction_set, tiling)
    if tiling:
        raise ValueError(f"the schedule has no tiling: {spec}")
    kernel: Kernel = schedule_of(spec, instruction_set).build(spec, instruction_set)
    return kernel


def schedule_of(spec: KernelSpec, instruction_set: str) -> ModuleType:
    """The module that schedules a kernel."""
    if not isinstance(spec, ConvolutionSpec):
        return OTHERS[type(spec)]
    if spec.is_depthwise:
        return affine if affine.serves(spec, instruction_set) else depthwise
    direct = convolution.serving_instruction(spec, instruction_set) is not None
    return convolution_direct if direct else convolution_generic


def tilings(spec: KernelSpec, instruction_set: str) -> tuple[Tiling, ...]:
    """What :func:`build_kernel` may be told to do and is worth a measurement, its own choice first; empty where it has none."""
    return convolution.tilings(spec, instruction_set) if _is_tiled(spec) else ()


def fitting(spec: KernelSpec, instruction_set: str, tiling: Tiling) -> bool:
    """Whether :func:`build_kernel` takes a tiling."""
    return _is_tiled(spec) and not convolution.refuses(spec, instruction_set, tiling)


def _is_tiled(spec: KernelSpec) -> TypeGuard[ConvolutionSpec]:
    return isinstance(spec, ConvolutionSpec) and not spec.is_depthwise
