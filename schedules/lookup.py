"""Tables of 256 entries: the functions of one byte.

Where there are instructions that look sixteen (or 64) bytes up in registers, tables of bytes go through them, and tables of
16 bit numbers twice: AVX2 and AVX-512 sum (by xor) what each sixteenth of the table adds to the one before it, ARM has a form
that leaves out what a part of the table does not hold. Everything else is one load and one store an element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import tvm.tirx.script.builder.ir as tir

from qcompiler.backend.kernel import Kernel, LookupSpec
from qcompiler.schedules.loops import Buffers, build_function, load, store

TASK_ELEMENTS: Final = 8192
ENTRIES: Final = 256
PART: Final = 16  # entries that an instruction looks up in one register
VECTORS: Final[Mapping[str, Mapping[str, int]]] = {
    "uint8": {"avx512vnni": 64, "avxvnni": 32, "avx2": 32, "dotprod": 16, "neon": 16},
    "int16": {"avx512vnni": 64, "dotprod": 16, "neon": 16},  # on AVX2 single loads are faster
}
"""Entries at once, by element type and instruction set, where registers are faster than loads."""


def build(spec: LookupSpec, instruction_set: str) -> Kernel:
    """The table ``spec``."""
    arguments = {"x": (spec.elements, "uint8"), "table": (ENTRIES, spec.out_dtype), "y": (spec.elements, spec.out_dtype)}
    tasks = -(-spec.elements // TASK_ELEMENTS)
    lanes = VECTORS.get(spec.out_dtype, {}).get(instruction_set, 1)
    numbers = np.dtype(spec.out_dtype).itemsize if lanes > 1 else 0  # of one byte each in an entry
    whole = spec.elements // lanes

    def body(buffers: Buffers) -> None:
        with tir.serial(tasks) as task:
            parts = [_parts(buffers["table"], byte, instruction_set, lanes) for byte in range(numbers)]
            first, last = task * (TASK_ELEMENTS // lanes), tir.min((task + 1) * (TASK_ELEMENTS // lanes), whole)
            with tir.serial(first, last) as index:
                if lanes == 1:
                    _one(buffers, index)
                else:
                    codes = tir.Bind(load(buffers["x"], index * lanes, lanes))
                    found = [_LOOKUPS[instruction_set](part, codes, lanes) for part in parts]
                    store(buffers["y"], _joined(found, lanes), index * lanes, lanes)
            if whole * lanes < spec.elements:
                with tir.If(task == tasks - 1), tir.Then(), tir.serial(whole * lanes, spec.elements) as element:
                    _one(buffers, element)

    return Kernel(
        function=build_function(arguments, body),
        arguments=tuple(arguments),
        tasks=tasks,
        schedule=f"lookup, {lanes} at once",
    )


def _one(buffers: Buffers, index: Any) -> None:
    tir.buffer_store(buffers["y"], buffers["table"][tir.cast(buffers["x"][index], "int32")], [index])


def _intrinsic(name: str, dtype: str, *operands: Any) -> Any:
    return tir.call_llvm_pure_intrin(dtype, tir.llvm_lookup_intrinsic_id(name), *operands)


def _parts(table: Any, byte: int, instruction_set: str, lanes: int) -> list[Any]:
    """One byte of every entry of the table, in registers."""
    parts = []
    for first in range(0, ENTRIES, PART):
        part = load(table, first, PART)
        if table.dtype != "uint8":
            part = tir.cast(tir.shift_right(part, tir.Broadcast(tir.int16(8 * byte), PART)), f"uint8x{PART}")
        parts.append(tir.Bind(part))
    return _changes(parts, lanes) if instruction_set in ("avx512vnni", "avxvnni", "avx2") else parts


def _joined(found: list[Any], lanes: int) -> Any:
    """Numbers from their bytes, the lowest first."""
    if len(found) == 1:
        return found[0]
    low, high = (tir.cast(part, f"int16x{lanes}") for part in found)
    return tir.bitwise_or(low, tir.shift_left(high, tir.Broadcast(tir.int16(8), lanes)))


def _changes(parts: list[Any], lanes: int) -> list[Any]:
    """Every sixteenth of a table, in halves of 128, as the change from the one before it; repeated in every 16 lanes."""
    half = len(parts) // 2
    changes = [tir.bitwise_xor(part, parts[i - 1]) if i % half else part for i, part in enumerate(parts)]
    return [tir.Bind(tir.Shuffle([tir.Bind(change)] * (lanes // PART), list(range(lanes)))) for change in changes]


def _x86(parts: list[Any], codes: Any, lanes: int) -> Any:
    """A part gives 0 for negative indices: codes fall below 0 after as many steps of 16 as their part is far."""
    shuffle = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}[lanes]
    signed, half = f"int8x{lanes}", len(parts) // 2
    found: Any = None
    for start in (0, half):
        place = tir.reinterpret(signed, codes)
        if start:
            place = tir.bitwise_xor(place, tir.Broadcast(tir.int8(-128), lanes))
        for part in parts[start : start + half]:
            place = tir.Bind(place)
            entry = _intrinsic(shuffle, signed, tir.reinterpret(signed, part), place)
            found = tir.Bind(entry if found is None else tir.bitwise_xor(found, entry))
            place = _intrinsic("llvm.ssub.sat", signed, place, tir.Broadcast(tir.int8(PART), lanes))
    return tir.reinterpret(f"uint8x{lanes}", found)


def _arm(parts: list[Any], codes: Any, lanes: int) -> Any:
    """Four registers at a time; codes beyond them leave what is known."""
    dtype = f"uint8x{lanes}"
    found = _intrinsic("llvm.aarch64.neon.tbl4", dtype, *parts[:4], codes)
    for first in range(4, len(parts), 4):
        place = codes - tir.Broadcast(tir.uint8(first * lanes), lanes)
        found = _intrinsic("llvm.aarch64.neon.tbx4", dtype, found, *parts[first : first + 4], place)
    return found


_LOOKUPS: Final[Mapping[str, Callable[[list[Any], Any, int], Any]]] = {
    "avx512vnni": _x86,
    "avxvnni": _x86,
    "avx2": _x86,
    "dotprod": _arm,
    "neon": _arm,
}
