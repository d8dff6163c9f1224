"""Products of two activations: int32 sums in registers, a tile of the result at a time.

Lanes are the innermost stored axis of the result: with rank 3 the rows of x (a vector of rows times one element of the other
operand), with higher ranks the first axis between batch and matrix, such as the heads of attention, where both are vectors.
x86 takes two terms of the sum at once, as 16 bit numbers side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod
from typing import Any, Final

import tvm.tirx.script.builder.ir as tir

from qcompiler import arith
from qcompiler.backend.image import PHYSICAL, Image
from qcompiler.backend.index_map import strides
from qcompiler.backend.kernel import SCALARS, Kernel, MatmulSpec, Scalar, physical_channels
from qcompiler.backend.tir import arithmetic, converted, lanes_of
from qcompiler.schedules.loops import Buffers, build_function, load, scratch, splat, store

LANES: Final = {"avx512vnni": 16, "avxvnni": 8, "avx2": 8, "x86-64": 4, "dotprod": 4, "neon": 4}
PAIRS: Final = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd", 4: "llvm.x86.sse2.pmadd.wd"}  # by lanes
TILES: Final = {"avx512vnni": (4, 4), "avxvnni": (2, 4), "avx2": (2, 4), "x86-64": (2, 4), "dotprod": (4, 4), "neon": (4, 4)}


def build(spec: MatmulSpec, instruction_set: str) -> Kernel:
    """The product ``spec``; one form for every instruction set."""
    body = _Body(spec, instruction_set)
    arguments = {
        "x": (Image(spec.a_shape, spec.a_dtype, PHYSICAL).elements, spec.a_dtype),
        "residual": (Image(spec.b_shape, spec.b_dtype, PHYSICAL).elements, spec.b_dtype),
        "scalars": (SCALARS, "int32"),
        "y": (Image(body.shape, spec.out_dtype, PHYSICAL).elements, spec.out_dtype),
    }
    return Kernel(
        function=build_function(arguments, body.emit),
        arguments=tuple(arguments),
        tasks=body.tasks,
        schedule=f"matmul, tiles of {body.rows.tile} x {body.columns.tile} x {body.lanes}",
    )


@dataclass(frozen=True)
class _Axis:
    """An axis of the result, ``tile`` of it at a time; steps in the result and in both operands (0: not an axis of it)."""

    extent: int
    y: int
    a: int
    b: int
    tile: int = 1

    @property
    def tiles(self) -> int:
        return -(-self.extent // self.tile)

    def first(self, index: Any) -> Any:
        """Where a tile begins; the last one overlaps the one before it rather than go past the end."""
        return tir.min(index * self.tile, self.extent - self.tile) if self.extent % self.tile else index * self.tile


class _Body:
    """Emits the loops of one kernel."""

    def __init__(self, spec: MatmulSpec, instruction_set: str) -> None:
        self.spec, tile = spec, TILES[instruction_set]
        self.arithmetic = arithmetic(instruction_set)
        narrow = "int32" not in (spec.a_dtype, spec.b_dtype)  # zero-free codes fit int16
        self.depth = 2 if narrow and instruction_set not in ("dotprod", "neon") else 1
        rank = len(spec.a_shape)
        row, column = rank - 2, rank - 1
        between = tuple(max(a, b) for a, b in zip(spec.a_shape[:row], spec.b_shape[:row], strict=True))
        self.shape = (*between, spec.a_shape[row], spec.b_shape[column])
        steps = [strides(shape, PHYSICAL) for shape in (self.shape, spec.a_shape, spec.b_shape)]
        self.a_step, self.b_step = steps[1][column], steps[2][row]  # along the sum
        self.terms = spec.a_shape[column]

        def axis(index: int, tile: int = 1) -> _Axis:
            extent = self.shape[index]
            a = 0 if index == column or spec.a_shape[index] != extent else steps[1][index]
            b = 0 if index == row or spec.b_shape[index] != extent else steps[2][index]
            return _Axis(extent, steps[0][index], a, b, min(tile, extent))

        self.channels = axis(1)
        stored = physical_channels(self.shape[1])
        self.lanes = gcd(stored, LANES[instruction_set])
        vectors = stored // self.lanes
        vector_step = (self.lanes, self.lanes * self.channels.a, self.lanes * self.channels.b)
        self.columns = axis(column, tile[1])
        if rank == 3:
            self.rows, self.vectors = _Axis(vectors, *vector_step, min(tile[0], vectors)), _Axis(1, 0, 0, 0)
        else:
            self.rows, self.vectors = axis(row, tile[0]), _Axis(vectors, *vector_step)
        self.places = [
            (i, j, (i * self.columns.tile + j) * self.lanes) for i in range(self.rows.tile) for j in range(self.columns.tile)
        ]  # of the sums of a tile
        self.outer = [axis(0), *(axis(index) for index in range(2, row))]
        self.tasks = prod(outer.extent for outer in self.outer) * self.columns.tiles

    def emit(self, buffers: Buffers) -> None:
        columns, rows, vectors = self.columns, self.rows, self.vectors
        with tir.serial(self.tasks) as task:
            column, rest = tir.Bind(columns.first(task % columns.tiles)), task // columns.tiles
            places = [column * columns.y, column * columns.a, column * columns.b]
            for outer in reversed(self.outer):
                places = _moved(places, outer, rest % outer.extent)
                rest = rest // outer.extent
            places = [tir.Bind(place) for place in places]
            with tir.serial(rows.tiles) as tile, tir.serial(vectors.extent) as vector:
                self.tile(buffers, *(tir.Bind(p) for p in _moved(_moved(places, rows, rows.first(tile)), vectors, vector)))

    def tile(self, buffers: Buffers, y: Any, a: Any, b: Any) -> None:
        """A tile of sums, and their codes."""
        rows, columns, lanes = self.rows, self.columns, self.lanes
        sums = scratch(rows.tile * columns.tile * lanes, "int32")
        for _, _, place in self.places:
            store(sums, splat(tir.int32(0), lanes), place, lanes)
        with tir.serial(self.terms // self.depth) as step:
            self.multiply(buffers, sums, a, b, step * self.depth, self.depth)
        if self.terms % self.depth:
            self.multiply(buffers, sums, a, b, self.terms - 1, 1)
        scalars = buffers["scalars"]
        multiplier, shift, zero, low, high = (
            scalars[s] for s in (Scalar.X_MULTIPLIER, Scalar.SHIFT, Scalar.Y_ZERO, Scalar.LO, Scalar.HI)
        )
        for i, j, place in self.places:
            total, bits = load(sums, place, lanes), self.spec.headroom
            code = arith.requantize_within(total, bits, multiplier, shift, zero, low, high, self.arithmetic)
            store(buffers["y"], converted(code, self.spec.out_dtype), y + i * rows.y + j * columns.y, lanes)

    def multiply(self, buffers: Buffers, sums: Any, a: Any, b: Any, k: Any, terms: int) -> None:
        """Add ``terms`` products from ``k`` on to every sum of a tile."""

        def factor(name: str, place: Any, along: int, step: int) -> Any:
            code = self.factor(buffers, [(name, place + (k + term) * along) for term in range(terms)], step)
            return code if step else splat(code, self.lanes)

        rows, columns, channels = self.rows, self.columns, self.channels
        left = [factor("x", a + i * rows.a, self.a_step, channels.a) for i in range(rows.tile)]
        right = [factor("residual", b + j * columns.b, self.b_step, channels.b) for j in range(columns.tile)]
        for i, j, place in self.places:
            store(sums, load(sums, place, self.lanes) + self.product(left[i], right[j]), place, self.lanes)

    def factor(self, buffers: Buffers, elements: list[tuple[str, Any]], step: int) -> Any:
        """Zero-free codes, for every lane or (``step`` 0) one for all: the terms of a sum as halves of a 32 bit number."""
        codes = []
        for name, place in elements:
            zero = buffers["scalars"][Scalar.X_ZERO if name == "x" else Scalar.RESIDUAL_ZERO]
            codes.append(converted(load(buffers[name], place, self.lanes if step else 1), "int32") - zero)
        if self.depth == 1:
            return tir.Bind(codes[0])
        pair = tir.bitwise_and(codes[0], _like(codes[0], 0xFFFF))
        return tir.Bind(tir.bitwise_or(pair, tir.shift_left(codes[1], _like(codes[1], 16))) if len(codes) == 2 else pair)

    def product(self, left: Any, right: Any) -> Any:
        """What a step adds to a sum."""
        if self.depth == 1:
            return left * right
        halves, result = f"int16x{2 * self.lanes}", f"int32x{self.lanes}"
        intrinsic = tir.llvm_lookup_intrinsic_id(PAIRS[self.lanes])
        return tir.call_llvm_pure_intrin(result, intrinsic, tir.reinterpret(halves, left), tir.reinterpret(halves, right))


def _like(value: Any, number: int) -> Any:
    return splat(tir.int32(number), lanes_of(value))


def _moved(places: list[Any], axis: _Axis, index: Any) -> list[Any]:
    return [place + index * step if step else place for place, step in zip(places, (axis.y, axis.a, axis.b), strict=True)]
