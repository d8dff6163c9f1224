"""Fetches weights that come next while others are in use.

A tile of pixels walks the weights of some vectors of output channels, and so does the next tile. Only the first of them waits for
memory; the weights of the next vectors could come meanwhile. A schedule says so with two annotations: :data:`PIXELS` on the loops
over tiles that walk the same weights, :data:`STEPS` on the loops of a walk. :func:`insert` puts an instruction into the innermost
of these, spread such that the next vectors' weights are fetched about once.

A layer of one pixel reads every weight once. Where they are unpacked the processor by itself does not look far enough ahead to
keep memory busy all the time; :data:`STREAM` on the loop that reads them has what lies some KB ahead fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import tvm
from tvm import tirx
from tvm_ffi import structural_map

PIXELS: Final = "prefetch_pixels"
STEPS: Final = "prefetch_steps"
"""Its value is the bytes of weights that a walk reads."""
STREAM: Final = "prefetch_stream"
"""Its value is the bytes of weights that an iteration reads."""
_LINE: Final = 64
_MOST: Final = 3
"""Lines that an iteration may fetch: with 4, a kernel took a fourth longer."""
_AHEAD: Final = 8192
"""Bytes of a stream that are under way: 4 KB to 32 KB were alike, within 3 %."""
_LEVEL_2: Final = (0, 2, 1)  # for reading, into the second-level cache, data


@dataclass(frozen=True)
class _Walk:
    """The loops around a statement: variables and extents, the outermost first."""

    pixels: tuple[tuple[Any, int], ...] = ()
    steps: tuple[tuple[Any, int], ...] = ()
    unpacked: Any = None
    """Where those weights begin that were unpacked before, for the tiles of pixels to walk."""

    @property
    def iterations(self) -> int:
        return prod(extent for _, extent in (*self.pixels, *self.steps))

    @property
    def place(self) -> Any:
        """How many iterations there were before this one."""
        total: Any = tirx.const(0, "int32")
        for variable, extent in (*self.pixels, *self.steps):
            total = total * extent + variable
        return total


def insert(body: Any) -> Any:
    """A lowered body, before common expressions are taken out, with the instructions that its annotations ask for."""
    asked = any({PIXELS, STEPS, STREAM} & set(loop.annotations) for loop in _found(body, tirx.For))
    return _visited(body, _Walk()) if asked else body


def _visited(statement: Any, walk: _Walk) -> Any:
    if isinstance(statement, tirx.SeqStmt):
        return _sequence(statement, walk)
    if isinstance(statement, tirx.For):
        return _loop(statement, walk)
    if isinstance(statement, tirx.IfThenElse):
        other = None if statement.else_case is None else _visited(statement.else_case, walk)
        return tirx.IfThenElse(statement.condition, _visited(statement.then_case, walk), other)
    return statement


def _sequence(sequence: Any, walk: _Walk) -> Any:
    parts = []
    for part in sequence.seq:
        parts.append(_visited(part, walk))
        if not any(PIXELS in dict(loop.annotations) for loop in _found(part, tirx.For)):
            walk = replace(walk, unpacked=_begin(part, walk))
    return tirx.SeqStmt(parts)


def _loop(loop: Any, walk: _Walk) -> Any:
    annotations = dict(loop.annotations)
    entry = ((loop.loop_var, int(loop.extent)),) if PIXELS in annotations or STEPS in annotations else ()
    if PIXELS in annotations:
        walk = replace(walk, pixels=walk.pixels + entry)
    if STREAM in annotations:
        return _rebuilt(loop, tirx.SeqStmt([*_stream(loop.body, walk, int(annotations[STREAM])), loop.body]))
    if STEPS not in annotations:
        return _rebuilt(loop, _visited(loop.body, walk))
    walk = replace(walk, steps=walk.steps + entry)
    body = _visited(loop.body, walk)
    if not any(STEPS in dict(inner.annotations) for inner in _found(loop.body, tirx.For)):
        instructions = _instructions(loop.body, walk, int(annotations[STEPS]))
        body = tirx.SeqStmt([body, *instructions]) if instructions else body
    return _rebuilt(loop, body)


def _rebuilt(loop: Any, body: Any) -> Any:
    return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, loop.thread_binding, loop.annotations)


def _found(statement: Any, kind: type) -> list[Any]:
    found: list[Any] = []

    def collect(node: Any) -> Any:
        found.append(node)
        return node

    structural_map(statement, (kind, collect))
    return found


def _instructions(body: Any, walk: _Walk, walked: int) -> list[Any]:
    """For one iteration of the innermost loop."""
    first = _begin(body, walk)
    count = max(round(walked / (_LINE * walk.iterations)), 1)
    if first is None or count > _MOST:
        return []
    place = walk.place * count
    return [_fetch(first, walked + (place + line) * _LINE) for line in range(count)]


def _stream(body: Any, walk: _Walk, size: int) -> list[Any]:
    first = _begin(body, walk)
    return [_fetch(first, _AHEAD + line) for line in range(0, size, _LINE)]


def _fetch(first: Any, offset: Any) -> Any:
    """The instruction for what lies ``offset`` bytes after a load."""
    address = tirx.address_of(tirx.BufferLoad(first.source, [first.indices[-1] + offset]))
    return tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, *(tirx.const(n, "int32") for n in _LEVEL_2)))


def _begin(statement: Any, walk: _Walk) -> Any:
    """The first load of weights in a statement, in the first steps of the walk and of all loops inside; or ``walk.unpacked``."""
    loads = [load for load in _found(statement, tvm.ir.TensorLoad) if load.source.name == "weights"]
    if not loads:
        return walk.unpacked
    index = loads[0].indices[-1]
    inside = [loop.loop_var for loop in _found(statement, tirx.For)]
    variables = [*inside, *(variable for variable, _ in walk.steps)]
    return tirx.BufferLoad(loads[0].source, [_without(index.base if isinstance(index, tirx.Ramp) else index, variables)])


def _without(expression: Any, variables: Sequence[Any]) -> Any:
    """An expression where ``variables`` are 0."""

    def zero(variable: Any) -> Any:
        return tirx.const(0, "int32") if any(variable.same_as(other) for other in variables) else variable

    return structural_map(expression, (tirx.Var, zero))
