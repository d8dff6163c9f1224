"""Dot products of arm64: ``sdot``, and ``smull``/``smlal``/``sadalp`` where it is missing.

Both multiply signed bytes, so a code is stored as ``x ^ 0x80``, which is ``x - 128`` in two's complement; the 128
times the sum of the weights goes into the bias. Two products of such bytes are at most ``2 * 128 * 127 = 32512``
(weights may not be -128 then), so they may be added in 16 bits.
"""

from __future__ import annotations

from typing import Any, Final

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from qcompiler.schedules.dot_product import DEPTH, DotProduct


@T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
def _sdot(x: T.handle, weights: T.handle, accumulator: T.handle) -> None:
    X = T.match_buffer(x, (DEPTH,), "int8", offset_factor=1)
    W = T.match_buffer(weights, (1, 4, DEPTH), "int8", offset_factor=1)
    A = T.match_buffer(accumulator, (4,), "int32", offset_factor=1)
    with T.sblock("root"):
        T.reads(A[0:4], X[0:DEPTH], W[0:1, 0:4, 0:DEPTH])
        T.writes(A[0:4])
        A[T.ramp(0, 1, 4)] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.sdot.v4i32.v16i8"),
            A.vload([0], "int32x4"),
            T.reinterpret(T.broadcast(T.reinterpret(X.vload([0], "int8x4"), dtype="int32"), 4), dtype="int8x16"),
            W.vload([0, 0, 0], "int8x16"),
            dtype="int32x4",
        )


@T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
def _smull(x: T.handle, weights: T.handle, accumulator: T.handle) -> None:
    X = T.match_buffer(x, (DEPTH,), "int8", offset_factor=1)
    W = T.match_buffer(weights, (2, 4, 2), "int8", offset_factor=1)
    A = T.match_buffer(accumulator, (4,), "int32", offset_factor=1)
    with T.sblock("root"):
        T.reads(A[0:4], X[0:DEPTH], W[0:2, 0:4, 0:2])
        T.writes(A[0:4])
        A[T.ramp(0, 1, 4)] = A.vload([0], "int32x4") + T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.saddlp.v4i32.v8i16"),
            T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.smull.v8i16"),
                T.reinterpret(T.broadcast(T.reinterpret(X.vload([0], "int8x2"), dtype="int16"), 4), dtype="int8x8"),
                W.vload([0, 0, 0], "int8x8"),
                dtype="int16x8",
            )
            + T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id("llvm.aarch64.neon.smull.v8i16"),
                T.reinterpret(T.broadcast(T.reinterpret(X.vload([2], "int8x2"), dtype="int16"), 4), dtype="int8x8"),
                W.vload([1, 0, 0], "int8x8"),
                dtype="int16x8",
            ),
            dtype="int32x4",
        )


def _flip(code: Any) -> Any:
    return (code ^ tirx.const(128, "uint8")).astype("int8")


DOTPROD: Final = DotProduct("qc_sdot_4x4", 4, 4, "int8", "int8", _flip, 128, 32, 24, 1, 2.0, 4.0, _sdot)
NEON: Final = DotProduct("qc_smull_4x4", 4, 2, "int8", "int8", _flip, 128, 32, 16, 3, 0.67, 6.0, _smull, -127)
