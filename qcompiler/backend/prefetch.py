"""Fetches weights that come next while others are in use.

A tile of pixels walks the weights of some vectors of output channels, and so does the next tile. Only the first of them waits for
memory; the weights of the next vectors could come meanwhile. A schedule says so with two annotations: :data:`PIXELS` on the loops
over tiles that walk the same weights, :data:`STEPS` on the loops of a walk. :func:`insert` puts an instruction into the innermost
of these, spread such that the next vectors' weights are fetched about once.
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
_LINE: Final = 64
_MOST: Final = 3
"""Lines that an iteration may fetch: with 4, a kernel took a fourth longer."""
_LEVEL_2: Final = (0, 2, 1)  # for reading, into the second-level cache, data


@dataclass(frozen=True)
class _Walk:
    """The loops around a statement: variables and extents, the outermost first."""

    pixels: tuple[tuple[Any, int], ...] = ()
    steps: tuple[tuple[Any, int], ...] = ()

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
    return _visited(body, _Walk())


def _visited(statement: Any, walk: _Walk) -> Any:
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([_visited(part, walk) for part in statement.seq])
    if isinstance(statement, tirx.For):
        return _loop(statement, walk)
    if isinstance(statement, tirx.IfThenElse):
        other = None if statement.else_case is None else _visited(statement.else_case, walk)
        return tirx.IfThenElse(statement.condition, _visited(statement.then_case, walk), other)
    return statement


def _loop(loop: Any, walk: _Walk) -> Any:
    annotations = dict(loop.annotations)
    entry = ((loop.loop_var, int(loop.extent)),) if PIXELS in annotations or STEPS in annotations else ()
    if PIXELS in annotations:
        walk = replace(walk, pixels=walk.pixels + entry)
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
    loads = [load for load in _found(body, tvm.ir.TensorLoad) if load.source.name == "weights"]
    count = max(round(walked / (_LINE * walk.iterations)), 1)
    if not loads or count > _MOST:
        return []
    index = loads[0].indices[-1]
    inside = [loop.loop_var for loop in _found(body, tirx.For)]
    first = _without(index.base if isinstance(index, tirx.Ramp) else index, [*inside, *(variable for variable, _ in walk.steps)])
    place = walk.place * count
    statements = []
    for line in range(count):
        address = tirx.address_of(tirx.BufferLoad(loads[0].source, [first + walked + (place + line) * _LINE]))
        numbers = [tirx.const(value, "int32") for value in _LEVEL_2]
        statements.append(tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, *numbers)))
    return statements


def _without(expression: Any, variables: Sequence[Any]) -> Any:
    """An expression where ``variables`` are 0."""

    def zero(variable: Any) -> Any:
        return tirx.const(0, "int32") if any(variable.same_as(other) for other in variables) else variable

    return structural_map(expression, (tirx.Var, zero))
