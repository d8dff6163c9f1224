"""Additions, rescalings, tables, operators of two tensors that broadcast, and prelu."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from qcompiler import arith
from qcompiler.backend.image import PHYSICAL
from qcompiler.backend.index_map import stored_array
from qcompiler.backend.kernel import AddSpec, BinarySpec, Kernel, LookupSpec, PreluSpec, RescaleSpec
from qcompiler.schedules import broadcast
from tests.schedules.forms.family import DTYPES, OTHER_SETS, SETS, Array, Family, Run, by_pixel, fills
from tests.schedules.harness import scalars

ELEMENTS: Final = (128, 4, 8192 + 64 + 36)


def zero_of(dtype: str, code: int) -> int:
    """The zero point: signed codes have none."""
    return code if dtype == "uint8" else 0


def tail(out_dtype: str, shift: int, few: bool) -> dict[str, int]:
    """The scalars of the end of a formula; ``few``: limits that cut most codes off."""
    limits, zero = np.iinfo(out_dtype), zero_of(out_dtype, 90)
    ends = (zero, zero + 30) if few else (int(limits.min), int(limits.max))
    return {"shift": shift, "y_zero": zero, "lo": ends[0], "hi": ends[1]}


def pairs(a_shape: tuple[int, ...], a_dtype: str, b_shape: tuple[int, ...], b_dtype: str) -> Iterator[tuple[str, Array, Array]]:
    """Codes of two operands, of which int32 ones are small enough for what multiplies them."""
    within = {"int32": (-(1 << 12), 1 << 12)}
    first = list(fills(a_shape, a_dtype, within.get(a_dtype)))
    second = list(fills(b_shape, b_dtype, within.get(b_dtype)))[::-1]
    for (name, a), (other, b) in zip(first + first[:2], second + second[2:], strict=True):
        yield f"{name}, {other}", a, b


def _added(
    spec: AddSpec | BinarySpec, a: Array, b: Array, kind: str, few: bool, headroom: int | None
) -> tuple[Array, dict[str, int]]:
    """A result and the scalars that give it."""
    zeros = zero_of(spec.a_dtype, 17), zero_of(spec.b_dtype, 200)
    p, q = a.astype(np.int64) - zeros[0], b.astype(np.int64) - zeros[1]
    scalar = {"x_zero": zeros[0], "residual_zero": zeros[1]}
    if kind == "mul":
        largest = [
            max(abs(int(np.iinfo(d).min) - z), int(np.iinfo(d).max))
            for d, z in zip((spec.a_dtype, spec.b_dtype), zeros, strict=True)
        ]
        shift = (
            38 if headroom is None else next(s for s in range(30, 62) if arith.headroom(largest[0] * largest[1], s) == headroom)
        )
        scalar |= {"x_multiplier": 2**31 - 1, **tail(spec.out_dtype, shift, few)}
        return arith.requantize(p * q, 2**31 - 1, *_ends(scalar), arith.NUMPY), scalar
    factors = (12345, -31000) if kind == "add" else (30001, 16384)
    scalar |= {"x_multiplier": factors[0], "residual_multiplier": factors[1], **tail(spec.out_dtype, 15, few)}
    if kind == "add":
        return arith.add(p, factors[0], q, factors[1], *_ends(scalar), arith.NUMPY), scalar
    return arith.extremum(p, factors[0], q, factors[1], *_ends(scalar), arith.NUMPY, largest=kind == "maximum"), scalar


def _ends(scalar: dict[str, int]) -> tuple[int, int, int, int]:
    return scalar["shift"], scalar["y_zero"], scalar["lo"], scalar["hi"]


def _add(instruction_set: str, elements: int, a: str, b: str, out: str) -> AddSpec:
    return AddSpec(elements, a, b, out)


def _add_runs(spec: AddSpec, kernel: Kernel) -> Iterator[Run]:
    for few in (False, True):
        for name, a, b in pairs((spec.elements,), spec.a_dtype, (spec.elements,), spec.b_dtype):
            wanted, scalar = _added(spec, a, b, "add", few, None)
            yield Run(name, {"x": a, "residual": b, "scalars": scalars(**scalar)}, wanted.astype(spec.out_dtype))


def _rescale(instruction_set: str, elements: int, dtype: str, out: str, fast: bool) -> RescaleSpec | None:
    largest = {"uint8": 255, "int8": 128, "int16": 1 << 15, "int32": 1 << 31}[dtype]
    bits = arith.headroom(largest, 36)
    return None if fast and bits is None else RescaleSpec(elements, dtype, out, bits if fast else None)


def _rescale_runs(spec: RescaleSpec, kernel: Kernel) -> Iterator[Run]:
    zero = zero_of(spec.in_dtype, 100)
    for few in (False, True):
        for multiplier, shift in ((2**31 - 1, 36), (1 << 30, 36)) + (((3, 1),) if spec.headroom is None else ()):
            scalar = {"x_zero": zero, "x_multiplier": multiplier, **tail(spec.out_dtype, shift, few)}
            for name, x in fills((spec.elements,), spec.in_dtype):
                wanted = arith.requantize(x.astype(np.int64) - zero, multiplier, *_ends(scalar), arith.NUMPY)
                yield Run(name, {"x": x, "scalars": scalars(**scalar)}, wanted.astype(spec.out_dtype))


def _lookup(instruction_set: str, elements: int, out: str) -> LookupSpec:
    return LookupSpec(elements, out)


def _lookup_runs(spec: LookupSpec, kernel: Kernel) -> Iterator[Run]:
    for (_, table), (name, x) in zip(fills((256,), spec.out_dtype), fills((spec.elements,), "uint8"), strict=True):
        for codes in (x, np.arange(spec.elements).astype(np.uint8)):
            yield Run(name, {"x": codes, "table": table}, table[codes])


SHAPES: Final = {
    "same": ((2, 33, 5, 7), (2, 33, 5, 7)),
    "whole": ((1, 64, 4, 4), (1, 64, 4, 4)),
    "channels": ((2, 48, 5, 7), (2, 48, 1, 1)),
    "pixels": ((1, 20, 9, 9), (1, 1, 9, 9)),
    "one": ((1, 1), (2, 20)),
    "long": ((1, 64, 12, 12), (1, 1, 12, 12)),
    "both": ((2, 24, 1, 6), (1, 24, 4, 1)),
    "few": ((3, 3, 40, 1), (1, 1, 1, 9)),
}


def _binary(instruction_set: str, kind: str, shapes: str, a: str, b: str, out: str, fast: bool) -> BinarySpec | None:
    bits = None
    if fast:
        largest = [{"uint8": 255, "int8": 128, "int16": 1 << 15, "int32": 1 << 31}[dtype] for dtype in (a, b)]
        bits = arith.headroom(largest[0] * largest[1], 44)
        if kind != "mul" or bits is None:
            return None
    return BinarySpec(kind, *SHAPES[shapes], a, b, out, bits)


def _binary_runs(spec: BinarySpec, kernel: Kernel) -> Iterator[Run]:
    for few in (False, True):
        for name, a, b in pairs(spec.a_shape, spec.a_dtype, spec.b_shape, spec.b_dtype):
            wanted, scalar = _added(spec, a, b, spec.kind, few, spec.headroom)
            arrays = {"x": stored_array(a, PHYSICAL), "residual": stored_array(b, PHYSICAL), "scalars": scalars(**scalar)}
            yield Run(name, arrays, *by_pixel(wanted.astype(spec.out_dtype)))


def _prelu(instruction_set: str, shape: tuple[int, ...], dtype: str, out: str, fast: bool) -> PreluSpec | None:
    bits = arith.headroom({"uint8": 255, "int8": 128, "int16": 1 << 15, "int32": 1 << 31}[dtype], 36)
    return None if fast and bits is None else PreluSpec(shape, dtype, out, bits if fast else None)


def _prelu_runs(spec: PreluSpec, kernel: Kernel) -> Iterator[Run]:
    zero, channels = zero_of(spec.in_dtype, 100), spec.shape[1]
    random = np.random.default_rng(5)
    negative = random.integers(-(2**31) + 1, 2**31, (1, channels, *(1 for _ in spec.shape[2:]))).astype(np.int32)
    for few in (False, True):
        scalar = {"x_zero": zero, "x_multiplier": 2**31 - 1, **tail(spec.out_dtype, 36, few)}
        for name, x in fills(spec.shape, spec.in_dtype):
            wanted = arith.prelu(x.astype(np.int64) - zero, 2**31 - 1, negative.astype(np.int64), *_ends(scalar), arith.NUMPY)
            arrays: dict[str, Any] = {"x": stored_array(x, PHYSICAL), "multiplier": stored_array(negative, PHYSICAL)}
            yield Run(name, arrays | {"scalars": scalars(**scalar)}, *by_pixel(wanted.astype(spec.out_dtype)))


PRELU_SHAPES: Final = ((2, 80, 5, 7), (1, 3, 50, 50), (3, 40), (2, 1))
BOTH: Final = (False, True)
SHORT_TYPES: Final = DTYPES[:3]
FAMILIES: Final = (
    Family(
        "elementwise",
        {"instruction_set": OTHER_SETS, "elements": ELEMENTS, "a": SHORT_TYPES, "b": SHORT_TYPES, "out": DTYPES},
        _add,
        _add_runs,
        core=("a", "b", "out"),
    ),
    Family(
        "elementwise",
        {"instruction_set": OTHER_SETS, "elements": ELEMENTS, "dtype": DTYPES, "out": DTYPES, "fast": BOTH},
        _rescale,
        _rescale_runs,
        core=("dtype", "out", "fast"),
    ),
    Family("lookup", {"instruction_set": SETS, "elements": ELEMENTS, "out": DTYPES}, _lookup, _lookup_runs, everywhere=True),
    Family(
        "broadcast",
        {
            "instruction_set": OTHER_SETS, "kind": tuple(broadcast.FORMULAS), "shapes": tuple(SHAPES),
            "a": SHORT_TYPES, "b": SHORT_TYPES, "out": DTYPES, "fast": BOTH,
        },
        _binary,
        _binary_runs,
        core=("kind", "a", "b", "out", "fast"),
    ),
    Family(
        "broadcast",
        {"instruction_set": OTHER_SETS, "shape": PRELU_SHAPES, "dtype": DTYPES, "out": DTYPES, "fast": BOTH},
        _prelu,
        _prelu_runs,
        core=("dtype", "out", "fast"),
    ),
)  # fmt: skip
