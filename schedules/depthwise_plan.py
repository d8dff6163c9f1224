"""How a depthwise convolution is cut: tasks, steps of output rows, tiles of output pixels, blocks of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qcompiler.backend.kernel import LANES, ConvolutionSpec, physical_channels
from qcompiler.schedules.taps import TapUnit

SCRATCH_BYTES: Final = 16 << 10  # of a 32 KiB first-level cache that also streams the input
ROWS: Final = 2  # per step, at most: more did not pay
WHOLE_ROW_BYTES: Final = 40 << 10
UNROLLED: Final = 1500  # multiply-adds in the code of a tile
TOGETHER: Final = 4  # pixels whose codes are packed at a time
TASKS: Final = 32  # enough ranges for several threads
FEWEST_TASKS: Final = 4
TASK_VECTORS: Final = 128  # of outputs; smaller tasks spend their time on unpacking weights


@dataclass(frozen=True)
class Plan:
    """The sizes of the loops. ``offsets``: input rows of a step, relative to its first."""

    spec: ConvolutionSpec
    unit: TapUnit
    rows: int

    @property
    def channels(self) -> int:
        """Channels of a block."""
        return min(LANES, physical_channels(self.spec.in_channels))

    @property
    def lanes(self) -> int:
        return min(self.channels, self.unit.lanes)

    @property
    def offsets(self) -> list[int]:
        spec = self.spec
        return sorted({r * spec.strides[0] + k * spec.dilation[0] for r in range(self.rows) for k in range(spec.kernel[0])})

    @property
    def groups(self) -> int:
        return -(-len(self.offsets) // self.unit.taps)

    @property
    def columns(self) -> int:
        """Padded input columns that a segment of a row of output reads."""
        return (self.segment - 1) * self.spec.strides[1] + (self.spec.kernel[1] - 1) * self.spec.dilation[1] + 1

    def kernel_rows(self, row: int, group: int) -> list[int | None]:
        """The kernel row that output row ``row`` multiplies each tap of ``group`` with."""
        found: list[int | None] = []
        for tap in range(group * self.unit.taps, (group + 1) * self.unit.taps):
            distance = self.offsets[tap] - row * self.spec.strides[0] if tap < len(self.offsets) else -1
            kernel_row, rest = divmod(distance, self.spec.dilation[0])
            found.append(kernel_row if rest == 0 and 0 <= kernel_row < self.spec.kernel[0] else None)
        return found

    @property
    def vectors(self) -> list[tuple[int, int, int]]:
        """(row, kernel column, group) of every weight vector that is not all zero."""
        return [
            (row, column, group)
            for row in range(self.rows)
            for column in range(self.spec.kernel[1])
            for group in range(self.groups)
            if any(k is not None for k in self.kernel_rows(row, group))
        ]

    @property
    def cost(self) -> float:
        """Rough vector operations per output column of an image: multiply-adds, and about two to gather a vector."""
        return (len(self.vectors) + 2 * self.groups * self.spec.strides[1]) * self.steps

    @property
    def word(self) -> int:
        """Elements of one gathered position: the taps of a block's channels."""
        return self.channels * self.unit.taps

    @property
    def segment(self) -> int:
        """Output pixels of a row that a task does: all, unless their input does not fit the stack."""
        spec = self.spec
        position = self.groups * self.word * np.dtype(self.unit.x_dtype).itemsize
        reach = (spec.kernel[1] - 1) * spec.dilation[1] + 1
        if ((spec.out_width - 1) * spec.strides[1] + reach) * position <= WHOLE_ROW_BYTES:
            return spec.out_width
        fitting = (SCRATCH_BYTES // position - reach) // spec.strides[1] + 1
        return max(fitting // self.tile, 1) * self.tile

    @property
    def segments(self) -> int:
        return -(-self.spec.out_width // self.segment)

    @property
    def gathered_bytes(self) -> int:
        """Stack bytes per channel block."""
        return self.groups * self.columns * self.word * np.dtype(self.unit.x_dtype).itemsize

    @property
    def blocks(self) -> int:
        return physical_channels(self.spec.in_channels) // self.channels

    @property
    def blocks_per_task(self) -> int:
        """Two or a few, which share cache lines, where they fit the stack."""
        fitting = [b for b in (2, 3, 4) if self.blocks % b == 0 and b * self.gathered_bytes <= SCRATCH_BYTES]
        return fitting[0] if fitting else 1

    @property
    def steps(self) -> int:
        return -(-self.spec.out_height // self.rows)

    @property
    def steps_per_task(self) -> int:
        vectors = self.spec.out_height * self.spec.out_width * self.blocks
        tasks = min(TASKS, max(FEWEST_TASKS, vectors // TASK_VECTORS))
        wanted = -(-tasks * self.blocks_per_task // self.blocks)
        return -(-self.steps // min(self.steps, wanted))

    @property
    def row_tasks(self) -> int:
        return -(-self.steps // self.steps_per_task)

    @property
    def block_tasks(self) -> int:
        return self.blocks // self.blocks_per_task

    @property
    def tasks(self) -> int:
        return self.spec.batch * self.row_tasks * self.segments * self.block_tasks

    @property
    def tile(self) -> int:
        """Output pixels per row whose accumulators stay in registers."""
        parts = self.channels // self.lanes  # one after the other
        most = max(1, min(self.unit.accumulators // self.rows, UNROLLED // (len(self.vectors) * parts)))
        width = self.spec.out_width
        dividing = [t for t in range(1, most + 1) if width % t == 0]
        return dividing[-1] if 2 * dividing[-1] > most else min(most, width)


def plan(spec: ConvolutionSpec, unit: TapUnit) -> Plan:
    """The cheapest number of output rows per step."""
    most = 1 if spec.dilation[0] > 1 else min(ROWS, spec.out_height)
    return min((Plan(spec, unit, rows) for rows in range(1, most + 1)), key=lambda p: (p.cost, p.rows))
