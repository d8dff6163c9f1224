"""Rows of a table by index. Where tokens are the channels (innermost), square blocks of rows are turned."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tvm.tirx.script.builder.ir as tir

from qcompiler.backend.image import PHYSICAL, Image
from qcompiler.backend.kernel import EmbeddingSpec, Kernel, physical_channels
from qcompiler.schedules.loops import Buffers, build_function, load, store
from qcompiler.schedules.transpose import BLOCK_BYTES, interleaved


def build(spec: EmbeddingSpec, instruction_set: str) -> Kernel:
    """The embedding ``spec``, one form for every instruction set."""
    del instruction_set
    indices = Image(spec.in_shape if len(spec.in_shape) > 1 else (*spec.in_shape, 1), "int32", PHYSICAL)
    result = Image((*spec.in_shape, spec.width), spec.dtype, PHYSICAL)
    arguments = {
        "x": (indices.elements, "int32"),
        "table": (spec.rows * spec.width, spec.dtype),
        "y": (result.elements, spec.dtype),
    }
    body = _Body(spec)
    function = build_function(arguments, body.emit)
    return Kernel(function=function, arguments=tuple(arguments), tasks=body.tasks, schedule=f"embedding, {body.form}")


class _Body:
    """Emits the loops of one kernel: a task is one place in space, with all tokens that lie there as channels."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        self.spec = spec
        self.tokens = spec.in_shape[1] if len(spec.in_shape) > 1 else 1
        self.side = BLOCK_BYTES // np.dtype(spec.dtype).itemsize
        self.stored = physical_channels(self.tokens)
        self.tasks = spec.in_shape[0] * prod(spec.in_shape[2:])
        self.rows = len(spec.in_shape) == 1  # the width itself is the channels
        self.blocks = not self.rows and spec.width >= self.side and self.stored % self.side == 0
        self.form = "row after row" if self.rows else f"blocks of {self.side}" if self.blocks else "element by element"

    def emit(self, buffers: Buffers) -> None:
        with tir.serial(self.tasks) as task:
            x = tir.Bind(task * self.stored)
            if self.rows:
                self.row(buffers, x, tir.Bind(task * physical_channels(self.spec.width)))
            elif self.blocks:
                self.turned(buffers, x, tir.Bind(task * self.spec.width * self.stored))
            else:
                self.elements(buffers, x, tir.Bind(task * self.spec.width * self.stored))

    def begin(self, buffers: Buffers, place: Any) -> Any:
        """Where the row of the index at ``place`` begins in the table."""
        index = tir.max(tir.min(buffers["x"][place], self.spec.rows - 1), 0)
        return tir.Bind(index * self.spec.width)

    def row(self, buffers: Buffers, x: Any, y: Any) -> None:
        width, begin = self.spec.width, self.begin(buffers, x)
        vectors = width // self.side
        if vectors:
            with tir.serial(vectors) as vector:
                store(
                    buffers["y"], load(buffers["table"], begin + vector * self.side, self.side), y + vector * self.side, self.side
                )
        with tir.serial(vectors * self.side, max(width, vectors * self.side)) as column:
            tir.buffer_store(buffers["y"], buffers["table"][begin + column], [y + column])
        with tir.serial(width, max(physical_channels(width), width)) as column:
            tir.buffer_store(buffers["y"], tir.cast(0, self.spec.dtype), [y + column])

    def turned(self, buffers: Buffers, x: Any, y: Any) -> None:
        side, width = self.side, self.spec.width
        with tir.serial(self.stored // side) as block:
            first = tir.Bind(block * side)  # tokens that there are not repeat the last one
            rows = [self.begin(buffers, x + tir.min(first + lane, self.tokens - 1)) for lane in range(side)]
            with tir.serial(-(-width // side)) as part:
                column = tir.Bind(tir.min(part * side, width - side))
                taken = [tir.Bind(load(buffers["table"], row + column, side)) for row in rows]
                for lane, vector in enumerate(interleaved(taken, side)):
                    store(buffers["y"], vector, y + (column + lane) * self.stored + first, side)

    def elements(self, buffers: Buffers, x: Any, y: Any) -> None:
        with tir.serial(self.tokens) as token:
            begin = self.begin(buffers, x + token)
            with tir.serial(self.spec.width) as column:
                tir.buffer_store(buffers["y"], buffers["table"][begin + column], [y + column * self.stored + token])
        if self.stored > self.tokens:
            with tir.serial(self.spec.width) as column, tir.serial(self.tokens, self.stored) as token:
                tir.buffer_store(buffers["y"], tir.cast(0, self.spec.dtype), [y + column * self.stored + token])
