"""Dot products of x86: AVX512-VNNI, AVX-VNNI, and the exact forms for AVX2 and plain x86-64.

``pmaddubsw`` saturates at 16 bits for full-range codes, so what has no VNNI widens to int16 and uses ``pmaddwd``.
"""

from __future__ import annotations

from typing import Any, Final

from tvm.script import tirx as T  # noqa: N812

from qcompiler.schedules.dot_product import DEPTH, DotProduct


def _vnni(lanes: int) -> Any:
    bytes_, result, intrinsic = 4 * lanes, f"int32x{lanes}", f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def vpdpbusd(x: T.handle, weights: T.handle, accumulator: T.handle) -> None:
        X = T.match_buffer(x, (DEPTH,), "uint8", offset_factor=1)
        W = T.match_buffer(weights, (1, lanes, DEPTH), "int8", offset_factor=1)
        A = T.match_buffer(accumulator, (lanes,), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(A[0:lanes], X[0:DEPTH], W[0:1, 0:lanes, 0:DEPTH])
            T.writes(A[0:lanes])
            word = T.reinterpret(X.vload([0], "uint8x4"), dtype="int32")
            A[T.ramp(0, 1, lanes)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(intrinsic),
                A.vload([0], result),
                T.reinterpret(T.broadcast(word, lanes), dtype=f"uint8x{bytes_}"),
                W.vload([0, 0, 0], f"int8x{bytes_}"),
                dtype=result,
            )

    return vpdpbusd


def _madd(lanes: int, weight_dtype: str, intrinsic: str) -> Any:
    stored = f"{weight_dtype}x{2 * lanes}"
    words, result = f"int16x{2 * lanes}", f"int32x{lanes}"

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def pmaddwd(x: T.handle, weights: T.handle, accumulator: T.handle) -> None:
        X = T.match_buffer(x, (DEPTH,), "int16", offset_factor=1)
        W = T.match_buffer(weights, (2, lanes, 2), weight_dtype, offset_factor=1)
        A = T.match_buffer(accumulator, (lanes,), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(A[0:lanes], X[0:DEPTH], W[0:2, 0:lanes, 0:2])
            T.writes(A[0:lanes])
            A[T.ramp(0, 1, lanes)] = (
                A.vload([0], result)
                + T.call_llvm_pure_intrin(
                    T.llvm_lookup_intrinsic_id(intrinsic),
                    T.reinterpret(T.broadcast(T.reinterpret(X.vload([0], "int16x2"), dtype="int32"), lanes), dtype=words),
                    T.cast(W.vload([0, 0, 0], stored), words),
                    dtype=result,
                )
                + T.call_llvm_pure_intrin(
                    T.llvm_lookup_intrinsic_id(intrinsic),
                    T.reinterpret(T.broadcast(T.reinterpret(X.vload([2], "int16x2"), dtype="int32"), lanes), dtype=words),
                    T.cast(W.vload([1, 0, 0], stored), words),
                    dtype=result,
                )
            )

    return pmaddwd


def _widen(code: Any) -> Any:
    return code.astype("int16")


AVX512_VNNI: Final = DotProduct("qc_vpdpbusd_16x4", 16, 4, "uint8", "int8", None, 0, 32, 28, 1, 2.0, 5.0, _vnni(16))
VNNI_128: Final = DotProduct("qc_vpdpbusd_4x4", 4, 4, "uint8", "int8", None, 0, 32, 24, 1, 2.0, 5.0, _vnni(4))
AVX_VNNI: Final = DotProduct("qc_vpdpbusd_8x4", 8, 4, "uint8", "int8", None, 0, 16, 12, 1, 2.0, 5.0, _vnni(8))
AVX2: Final = DotProduct(
    "qc_pmaddwd_8x4", 8, 2, "int16", "int8", _widen, 0, 16, 8, 4, 0.7, 6.0, _madd(8, "int8", "llvm.x86.avx2.pmadd.wd")
)
# SSE2 has no sign extension of bytes in one instruction, so weights are widened beforehand.
SSE2: Final = DotProduct(
    "qc_pmaddwd_4x4", 4, 2, "int16", "int16", _widen, 0, 16, 8, 4, 0.7, 6.0, _madd(4, "int16", "llvm.x86.sse2.pmadd.wd")
)
