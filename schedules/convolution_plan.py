"""How a direct convolution is computed: which way weights are unpacked, its tiling, and how its weights are packed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from qcompiler.backend.kernel import ConvolutionSpec, physical_channels
from qcompiler.schedules.channel_windows import ChannelWindows, choose_windows
from qcompiler.schedules.dot_product import DEPTH, DotProduct
from qcompiler.schedules.pack import PackedSteps
from qcompiler.schedules.tile import choose_tiling
from qcompiler.schedules.tiling import STACK_BYTES, Problem, Tile, Tiling, divisors, refusal, scratch_bytes

_DENSE_CHANNELS: Final = 2
"""Up to so many input channels fill half a dot product at most."""
_INLINE_ACCUMULATORS: Final = 24
_INLINE_BLOCKS: Final = 3
"""Vectors of sums and of weights beside which unpacking in registers finds some for itself,"""
_MANY_PIXELS: Final = 7
"""which is worth it for tiles of so many pixels."""
_RESIDUAL_ACCUMULATORS: Final = 16
"""The long epilogue of a small tile overlaps with the next tile's dot products."""
MOST_TOGETHER: Final = 16
_FETCHED_AHEAD: Final = 128 << 10
"""Bytes of weights from which on they are not in the second-level cache when a layer begins, and take time to come."""
_WORTH_UNPACKING: Final = 16
"""Pixels of a task from which on weights are unpacked to scratch, not in registers;"""
_WORTH_UNPACKING_ONE: Final = 32
"""where scratch has those of one vector only, and registers need two instructions."""
_WORTH_KEEPING: Final = 28
"""Pixels of a task from which on its sums are kept while weights are unpacked to scratch tap by tap."""
_TAPS_TOGETHER: Final = 2
"""Vectors of a tile then, whose weights of a tap are one stream."""


@dataclass(frozen=True)
class Plan:
    """All decisions about one kernel; ``tiling`` is the model's, within the limits of ``problem``."""

    spec: ConvolutionSpec
    windows: ChannelWindows
    instruction: DotProduct
    problem: Problem
    tiling: Tiling
    steps: PackedSteps
    copied: bool
    converted: bool  # weights are not stored as the instruction wants them
    inline: bool  # they are converted in the innermost loop, else into scratch, all of a tile's vectors or those of one tap
    dense: bool  # rows are copied without padding channels, and a step goes over the columns of the kernel too

    @property
    def lowered(self) -> int:
        """By how many places unpacked weights are moved down again, as the instruction does not take the smallest one else."""
        return self.spec.places if self.instruction.least_weight > -128 else 0

    def refusal(self, tiling: Tiling) -> str:
        """Why the kernel cannot be tiled so; "" if it can."""
        return refusal(self.problem, self.instruction, tiling)


@dataclass(frozen=True)
class Part(Plan):
    """The columns of the output from ``first`` on, as many as ``tile`` says."""

    first: int
    tile: Tile

    @property
    def walked_bytes(self) -> int:
        """Stored weights that a tile of pixels reads before the next tile does: all of its vectors, or those of one tap."""
        walks = self.steps.taps if self.problem.by_taps else 1
        return self.tile.blocks * math.prod(self.steps.stored_shape[1:]) // (self.steps.together * walks)

    @property
    def fetches_ahead(self) -> bool:
        """Whether there is time to fetch the next vectors' weights while those of a tile are in use."""
        tiles = self.tile.rows // self.tile.pixel_rows * (self.tile.columns // self.tile.pixel_columns)
        many = self.problem.weight_bytes >= _FETCHED_AHEAD
        adjacent = (self.tile.blocks,) if self.problem.by_taps else (1, self.tile.blocks)
        return many and tiles > 1 and self.steps.together in adjacent

    @property
    def streams(self) -> bool:
        """Whether weights are unpacked in the order in which they lie in memory."""
        packed = self.inline and self.steps.per_byte > 1
        return packed and self.steps.together > 1 and self.tile.blocks == self.steps.together


def plan_convolution(original: ConvolutionSpec, instruction: DotProduct) -> Plan | None:
    """How to compute a convolution; None where this schedule does not serve."""
    if physical_channels(original.out_channels) % instruction.lanes:
        return None
    windows = choose_windows(original, instruction.lanes)
    if len(windows.starts) == 1:
        original = replace(original, groups=1)
    spec = _flatten(original)
    whole = _problem(spec, windows, instruction)
    found = _unpacking(spec, windows, whole, instruction)
    if found is None:
        return None
    problem, tiling, inline = found
    taps, words = _taps(spec, windows)
    if inline:
        per_byte = 8 // spec.weight_bits
        words = -(-words // per_byte) * per_byte
        windows = windows.widened(per_byte)
    together = _vectors_of_taps(whole) if problem.by_taps else _together(original, whole.blocks)
    steps = PackedSteps(whole.blocks, instruction.lanes, instruction.group, taps, words, spec.weight_bits, together)
    converted = inline or problem.unpacked_bytes > 0
    return Plan(spec, windows, instruction, problem, tiling, steps, whole.copied, converted, inline, _is_dense(spec))


def _flatten(spec: ConvolutionSpec) -> ConvolutionSpec:
    """A 1x1 convolution that moves by one pixel sees all pixels of the batch as one row."""
    if spec.kernel != (1, 1) or spec.strides != (1, 1) or any(spec.padding):
        return spec
    return replace(spec, batch=1, height=1, width=spec.batch * spec.height * spec.width, dilation=(1, 1))


def _unpacking(
    spec: ConvolutionSpec, windows: ChannelWindows, whole: Problem, instruction: DotProduct
) -> tuple[Problem, Tiling, bool] | None:
    """The best way to unpack weights: the problem within its limits, its tiling, whether that is in registers; None: no way."""
    plain = instruction.weight_dtype == "int8"
    taps, words = _taps(spec, windows)
    per_byte = 8 // spec.weight_bits
    step_bytes = instruction.lanes * DEPTH * np.dtype(instruction.weight_dtype).itemsize

    def chosen(problem: Problem, inline: bool = False) -> tuple[Problem, Tiling, bool] | None:
        tiling = choose_tiling(problem, instruction)
        fits = sum(scratch_bytes(problem, tile) for tile in tiling) <= STACK_BYTES
        return (problem, tiling, inline) if tiling and fits else None

    def pixels(tiling: Tiling) -> int:
        return max(tile.rows * tile.columns for tile in tiling)

    if plain and spec.weight_bits == 8:
        return chosen(whole)
    all_bytes = (whole.steps + per_byte) * step_bytes
    attempts = (chosen(replace(whole, most_blocks=most, unpacked_bytes=all_bytes)) for most in (32, 2, 1))
    scratch = next(filter(None, attempts), None)
    few = plain and (scratch is None or scratch[0].most_blocks == 1)
    if few and taps > 1 and words % per_byte == 0 and spec.groups == 1 and not _is_dense(spec):
        by_taps = chosen(
            replace(whole, most_accumulators=instruction.accumulators, unpacked_bytes=words * step_bytes, by_taps=True)
        )
        streams = by_taps and all(tile.blocks == _vectors_of_taps(whole) for tile in by_taps[1])
        if by_taps and streams and pixels(by_taps[1]) >= _WORTH_KEEPING:
            return by_taps
    if words == 1 and per_byte > 1:  # nothing to unpack together in registers
        return scratch
    if scratch and pixels(scratch[1]) >= (_WORTH_UNPACKING_ONE if few else _WORTH_UNPACKING):
        return scratch
    if plain and words % per_byte == 0:
        wide = chosen(replace(whole, most_accumulators=_INLINE_ACCUMULATORS, most_blocks=_INLINE_BLOCKS), True)
        if wide and min(tile.pixel_rows * tile.pixel_columns for tile in wide[1]) >= _MANY_PIXELS:
            return wide
    return chosen(whole, True)


def _together(spec: ConvolutionSpec, blocks: int) -> int:
    """Blocks of outputs whose weights lie side by side: the same for any batch, so that kernels of one layer share them.

    A layer without pixels reads every weight once, from memory, for many blocks at a time: one stream is fast, many are not.
    """
    if (spec.height, spec.width, *spec.kernel, spec.groups) != (1, 1, 1, 1, 1):
        return 1
    return max(value for value in divisors(blocks) if value <= MOST_TOGETHER)


def _vectors_of_taps(problem: Problem) -> int:
    """Vectors whose weights of a tap lie side by side, where they are unpacked tap by tap."""
    return math.gcd(_TAPS_TOGETHER, problem.blocks)


def _is_dense(spec: ConvolutionSpec) -> bool:
    """Whether there are so few channels that a dot product holds several columns of the kernel."""
    return spec.in_channels <= _DENSE_CHANNELS and spec.groups == 1 and spec.dilation[1] == 1 and spec.kernel[1] > 1


def _taps(spec: ConvolutionSpec, windows: ChannelWindows) -> tuple[int, int]:
    """Taps, and dot products for each."""
    if _is_dense(spec):
        return spec.kernel[0], -(-spec.kernel[1] * spec.in_channels // DEPTH)
    return spec.kernel[0] * spec.kernel[1], windows.words


def _problem(spec: ConvolutionSpec, windows: ChannelWindows, instruction: DotProduct) -> Problem:
    dense = _is_dense(spec)
    taps, words = _taps(spec, windows)
    steps = taps * words
    blocks = physical_channels(spec.out_channels) // instruction.lanes
    return Problem(
        out_height=spec.out_height,
        out_width=spec.out_width,
        blocks=blocks,
        lanes=instruction.lanes,
        steps=steps,
        weight_bytes=blocks * steps * instruction.lanes * DEPTH * spec.weight_bits // 8,
        copied=any(spec.padding) or instruction.convert is not None or dense,
        stride=spec.strides[0],
        reach=(spec.dilation[0] * (spec.kernel[0] - 1), spec.dilation[1] * (spec.kernel[1] - 1)),
        column_stride=spec.strides[1],
        channel_bytes=(spec.in_channels if dense else windows.channels) * np.dtype(instruction.x_dtype).itemsize,
        row_bytes=words * DEPTH * np.dtype(instruction.x_dtype).itemsize if dense else 0,
        group_blocks=windows.together,
        most_accumulators=_RESIDUAL_ACCUMULATORS if spec.epilogue.residual else instruction.accumulators,
        together=_together(spec, blocks),
        uneven=windows.widened(8 // spec.weight_bits).stride is None,
    )
