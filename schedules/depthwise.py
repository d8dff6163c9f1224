"""Depthwise convolution: several vertical taps of a channel in one multiply-add, requantized in registers.

A task is a block of output rows by a block of channels. Per step of ``rows`` output rows it gathers the
input rows they need once, interleaved for :mod:`taps` and padded, into a stack buffer
``[channel block][row group][padded column][lane, tap]``; then tiles of output pixels walk over it with
accumulators in registers. Output rows of one step share the gathered rows: each has its own copy of
the kernel, moved down by the stride and filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import tvm.tirx.script.builder.ir as tir

from qcompiler.backend import short_form
from qcompiler.backend.kernel import LANES, ConvolutionSpec, Kernel, Scalar, physical_channels
from qcompiler.schedules.depthwise_pack import make_kernel, unpack_rows
from qcompiler.schedules.depthwise_plan import TOGETHER, Plan, plan
from qcompiler.schedules.epilogue import EpilogueArguments, apply_epilogue
from qcompiler.schedules.loops import Buffers, load, scratch, splat, store
from qcompiler.schedules.taps import UNITS


def build(spec: ConvolutionSpec, instruction_set: str) -> Kernel:
    """The depthwise convolution ``spec`` for an instruction set."""
    unit = UNITS[instruction_set]
    chosen = plan(spec, unit)
    schedule = f"depthwise: {chosen.rows}x{chosen.tile} pixels, {chosen.blocks_per_task}x{chosen.channels} channels"
    return make_kernel(spec, unit, chosen.tasks, schedule, lambda buffers: _Body(chosen, buffers).emit())


class _Body:
    """Emits the loops of one kernel."""

    def __init__(self, chosen: Plan, buffers: Buffers) -> None:
        self.plan, self.spec, self.unit, self.buffers = chosen, chosen.spec, chosen.unit, buffers
        self.word = chosen.word
        self.vectors = chosen.vectors
        names = ("residual", "bias", "multiplier", "pre_shift", "lower", "upper", "scalars")
        self.epilogue = EpilogueArguments(*(buffers.get(name) for name in names))

    def emit(self) -> None:
        chosen = self.plan
        with tir.serial(chosen.tasks) as task:
            self.weights = scratch(chosen.blocks_per_task * len(self.vectors) * self.word, self.unit.weight_dtype)
            self.gathered = scratch(chosen.blocks_per_task * chosen.groups * chosen.columns * self.word, self.unit.x_dtype)
            self.first_block = tir.Bind(task % chosen.block_tasks * chosen.blocks_per_task)
            rest = task // chosen.block_tasks
            self.first_pixel = tir.Bind(rest % chosen.segments * chosen.segment) if chosen.segments > 1 else 0
            row_task = tir.Bind(rest // chosen.segments % chosen.row_tasks)
            image = tir.Bind(rest // (chosen.segments * chosen.row_tasks))
            zero = tir.cast(self.buffers["scalars"][int(Scalar.X_ZERO)], "uint8")
            self.padding = tir.Bind(splat(zero, chosen.channels))
            self.expand_weights()
            self.fill_border()
            with tir.serial(chosen.steps_per_task) as step:
                first_row = (row_task * chosen.steps_per_task + step) * chosen.rows
                if chosen.steps % chosen.steps_per_task:
                    with tir.If(first_row < self.spec.out_height), tir.Then():
                        self.step(image, tir.Bind(first_row))
                else:
                    self.step(image, tir.Bind(first_row))

    def expand_weights(self) -> None:
        """Packed codes to the stack: ``[channel block][vector][lane, tap]``, zero for taps outside of the kernel."""
        chosen, bits = self.plan, self.spec.weight_bits
        stored = LANES * bits // 8
        kernel_height, kernel_width = self.spec.kernel
        with tir.serial(chosen.blocks_per_task) as block:
            base = tir.Bind((self.first_block + block) * (kernel_height * kernel_width * stored))
            codes = [
                tir.Bind(unpack_rows(load(self.buffers["weights"], base + tap * stored, stored), bits, 1, chosen.channels))
                for tap in range(kernel_height * kernel_width)
            ]
            nothing = splat(tir.int8(0), chosen.channels)
            for place, (row, column, group) in enumerate(self.vectors):
                rows = [
                    nothing if kernel_row is None else codes[kernel_row * kernel_width + column]
                    for kernel_row in chosen.kernel_rows(row, group)
                ]
                self.write_word(self.weights, (block * len(self.vectors) + place) * self.word, rows, self.unit.weight_dtype)

    def write_word(self, target: Any, index: Any, rows: list[Any], dtype: str) -> None:
        """Interleave rows of a channel block into ``target`` at ``index``."""
        lanes = self.plan.channels if self.unit.taps == 1 else self.plan.lanes
        for first in range(0, self.plan.channels, lanes):
            word = self.unit.interleave(rows, self.plan.channels, first, lanes, dtype)
            store(target, word, index + first * self.unit.taps, lanes * self.unit.taps)

    def place(self, block: Any, group: Any, column: Any) -> Any:
        return ((block * self.plan.groups + group) * self.plan.columns + column) * self.word

    @property
    def inside(self) -> tuple[int, int]:
        """The padded columns to gather: those that lie inside of the input, or all of a segment."""
        left = self.spec.padding[1]
        if self.plan.segments > 1:
            return 0, self.plan.columns
        return min(left, self.plan.columns), min(left + self.spec.width, self.plan.columns)

    def fill_border(self) -> None:
        """The columns left and right of the input; steps do not change them."""
        chosen = self.plan
        begin, end = self.inside
        with tir.serial(chosen.blocks_per_task * chosen.groups) as group:
            for column in (*range(begin), *range(end, chosen.columns)):
                rows = [self.unit.as_seen(self.padding, chosen.channels)] * self.unit.taps
                self.write_word(self.gathered, self.place(0, group, column), rows, self.unit.x_dtype)

    def step(self, image: Any, first_row: Any) -> None:
        top = tir.Bind(first_row * self.spec.strides[0] - self.spec.padding[0])
        offsets = self.plan.offsets
        last = (self.plan.steps - 1) * self.plan.rows * self.spec.strides[0] + offsets[-1]
        if self.plan.segments > 1:
            self.gather(image, top, border=True)
        elif self.spec.padding[0] == 0 and last < self.spec.height:
            self.gather(image, top, border=False)
        else:
            with tir.If(tir.And(top >= 0, top + offsets[-1] < self.spec.height)):
                with tir.Then():
                    self.gather(image, top, border=False)
                with tir.Else():
                    self.gather(image, top, border=True)
        self.multiply(image, first_row)

    def gather(self, image: Any, top: Any, border: bool) -> None:
        """Rows ``top + offsets`` of the task's channels into the stack buffer; with ``border`` some lie outside."""
        chosen, spec = self.plan, self.spec
        channels = physical_channels(spec.in_channels)
        begin, end = self.inside
        nothing = splat(tir.uint8(0), chosen.channels)
        for group in range(chosen.groups):
            offsets = chosen.offsets[group * self.unit.taps : (group + 1) * self.unit.taps]
            bases, valid = [], []
            for offset in offsets:
                row = top + offset
                valid.append(tir.Bind(tir.And(row >= 0, row < spec.height)) if border else None)
                row = tir.max(tir.min(row, spec.height - 1), 0) if border else row
                bases.append(tir.Bind((image * spec.height + row) * spec.width * channels))
            with tir.serial(begin, end) as column, tir.serial(chosen.blocks_per_task) as block:
                x_column = tir.Bind(self.first_pixel * spec.strides[1] + column - spec.padding[1])
                reached = tir.Bind(tir.And(x_column >= 0, x_column < spec.width)) if chosen.segments > 1 else None
                x_column = tir.max(tir.min(x_column, spec.width - 1), 0) if chosen.segments > 1 else x_column
                offset = tir.Bind(x_column * channels + (self.first_block + block) * chosen.channels)
                rows = []
                for base, inside in zip(bases, valid, strict=True):
                    # Bound, as TVM takes an index in a Select to be used only where its condition holds, and drops the clamps.
                    row = tir.Bind(load(self.buffers["x"], base + offset, chosen.channels))
                    inside = inside if reached is None else tir.And(inside, reached)
                    row = row if inside is None else tir.Select(inside, row, self.padding)
                    rows.append(self.unit.as_seen(row, chosen.channels))
                rows += [self.unit.as_seen(nothing, chosen.channels)] * (self.unit.taps - len(rows))
                self.write_word(self.gathered, self.place(block, group, column), rows, self.unit.x_dtype)

    def multiply(self, image: Any, first_row: Any) -> None:
        chosen, width = self.plan, self.plan.segment
        with tir.serial(chosen.blocks_per_task) as block:
            if width // chosen.tile:
                with tir.serial(width // chosen.tile) as tile:
                    if chosen.segments == 1:
                        self.tile(image, first_row, block, tir.Bind(tile * chosen.tile), chosen.tile)
                    else:
                        with tir.If(self.first_pixel + tile * chosen.tile < self.spec.out_width), tir.Then():
                            self.tile(image, first_row, block, tir.Bind(tile * chosen.tile), chosen.tile)
            if width % chosen.tile:
                self.tile(image, first_row, block, width - width % chosen.tile, width % chosen.tile)

    def tile(self, image: Any, first_row: Any, block: Any, first_pixel: Any, pixels: int) -> None:
        """``rows * pixels`` outputs of one channel block."""
        chosen, spec = self.plan, self.spec
        rows, lanes, taps = chosen.rows, chosen.lanes, self.unit.taps
        channel = tir.Bind((self.first_block + block) * chosen.channels)
        sums = scratch(rows * pixels * chosen.channels, "int32")
        for first in range(0, chosen.channels, lanes):
            bias = tir.Bind(load(self.buffers["bias"], channel + first, lanes))
            accumulators = {(row, pixel): bias for row in range(rows) for pixel in range(pixels)}
            for column in range((pixels - 1) * spec.strides[1] + (spec.kernel[1] - 1) * spec.dilation[1] + 1):
                for group in range(chosen.groups):
                    uses = [
                        (row, pixel, place)
                        for pixel in range(pixels)
                        for place, (row, kernel_column, used) in enumerate(self.vectors)
                        if used == group and pixel * spec.strides[1] + kernel_column * spec.dilation[1] == column
                    ]
                    if not uses:
                        continue
                    index = self.place(block, group, first_pixel * spec.strides[1] + column) + first * taps
                    x = tir.Bind(load(self.gathered, index, lanes * taps))
                    for row, pixel, place in uses:
                        weights = load(self.weights, (block * len(self.vectors) + place) * self.word + first * taps, lanes * taps)
                        total = self.unit.multiply_add(accumulators[row, pixel], x, weights, lanes)
                        accumulators[row, pixel] = tir.Bind(total)
            for (row, pixel), total in accumulators.items():
                store(sums, total, (row * pixels + pixel) * chosen.channels + first, lanes)
        for row in range(rows):
            if spec.out_height % rows and row:
                with tir.If(first_row + row < spec.out_height), tir.Then():
                    self.write_row(sums, image, first_row + row, row, channel, first_pixel, pixels)
            else:
                self.write_row(sums, image, first_row + row, row, channel, first_pixel, pixels)

    def write_row(self, sums: Any, image: Any, out_row: Any, row: int, channel: Any, first_pixel: Any, pixels: int) -> None:
        """Requantize the sums of one row of the tile."""
        chosen, spec = self.plan, self.spec
        channels = physical_channels(spec.in_channels)
        together = spec.epilogue.short and spec.epilogue.residual is None
        codes = self.short_codes(sums, row, channel, pixels) if together else []

        def write(pixel: int, place: Any) -> None:
            index = tir.Bind(((image * spec.out_height + out_row) * spec.out_width + place) * channels + channel)
            if spec.epilogue.short:
                code = codes[pixel] if codes else self.added_code(sums, row * pixels + pixel, channel, index)
                store(self.buffers["y"], code, index, chosen.channels)
                return
            with tir.vectorized(chosen.channels) as lane:
                total = sums[(row * pixels + pixel) * chosen.channels + lane]
                value = apply_epilogue(spec.epilogue, self.epilogue, total, channel + lane, (index + lane,), spec.places)
                tir.buffer_store(self.buffers["y"], value, [index + lane])

        for pixel in range(pixels):
            place = self.first_pixel + first_pixel + pixel
            if chosen.segments > 1 and spec.out_width % chosen.tile:
                with tir.If(place < spec.out_width), tir.Then():
                    write(pixel, place)
            else:
                write(pixel, place)

    def added_code(self, sums: Any, pixel: int, channel: Any, index: Any) -> Any:
        """The codes of one pixel with the other operand's added."""
        channels = self.plan.channels
        places = (Scalar.SHIFT, Scalar.Y_ZERO, Scalar.RESIDUAL_ZERO, Scalar.RESIDUAL_MULTIPLIER)
        shift, zero, *other = (self.buffers["scalars"][int(place)] for place in places)
        added = short_form.Added(load(self.buffers["residual"], index, channels), *other)
        word = load(self.buffers["multiplier"], channel, channels)
        total = load(sums, pixel * channels, channels)
        return tir.Bind(short_form.codes(total, word, self.spec.epilogue, shift, zero, added))

    def short_codes(self, sums: Any, row: int, channel: Any, pixels: int) -> list[Any]:
        """The codes of every pixel of a row of the tile: a few at a time, as packing takes several vectors."""
        channels, found = self.plan.channels, []
        for first in range(0, pixels, TOGETHER):
            count = min(TOGETHER, pixels - first)
            word = tir.Bind(load(self.buffers["multiplier"], channel, channels))
            words = tir.Shuffle([word] * count, list(range(count * channels))) if count > 1 else word
            total = load(sums, (row * pixels + first) * channels, count * channels)
            scalars = [self.buffers["scalars"][int(place)] for place in (Scalar.SHIFT, Scalar.Y_ZERO)]
            value = tir.Bind(short_form.codes(total, words, self.spec.epilogue, *scalars))
            places = [list(range(pixel * channels, (pixel + 1) * channels)) for pixel in range(count)]
            found += [tir.Shuffle([value], lanes) if count > 1 else value for lanes in places]
        return found
