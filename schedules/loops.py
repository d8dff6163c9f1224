"""Kernels written as explicit loops and vectors: a thin layer over TVM's IR builder.

A kernel body is a Python function that is run once and emits TIR; Python loops in it unroll. Buffers are
flat; ``load`` and ``store`` move whole vectors of ``lanes`` elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm.tirx.script.builder.ir as tir
from tvm.script.ir_builder import IRBuilder

Buffers = Mapping[str, Any]


def build_function(arguments: Mapping[str, tuple[int, str]], body: Callable[[Buffers], None]) -> Any:
    """A PrimFunc with the flat buffers ``arguments`` (name to elements and dtype, in order) and what ``body`` emits."""
    with IRBuilder() as builder, tir.prim_func(s_tir=True):
        tir.func_name("kernel")
        buffers = {name: tir.arg(name, tir.buffer((elements,), dtype)) for name, (elements, dtype) in arguments.items()}
        with tir.sblock("root"):
            tir.reads()
            tir.writes()
            body(buffers)
    return builder.get()


def scratch(elements: int, dtype: str, align: int = 64) -> Any:
    """A buffer on the kernel's stack."""
    return tir.alloc_buffer((elements,), dtype, scope="local", align=align)


def span(index: Any, lanes: int) -> Any:
    """The indices ``index .. index + lanes``; the scalar itself for one lane."""
    return index if lanes == 1 else tir.Ramp(index, 1, lanes)


def load(buffer: Any, index: Any, lanes: int) -> Any:
    """``lanes`` consecutive elements."""
    return buffer[span(index, lanes)]


def store(buffer: Any, value: Any, index: Any, lanes: int) -> None:
    """Write ``lanes`` consecutive elements."""
    tir.buffer_store(buffer, value, [span(index, lanes)])


def splat(value: Any, lanes: int) -> Any:
    """``value`` in every lane."""
    return value if lanes == 1 else tir.Broadcast(value, lanes)
