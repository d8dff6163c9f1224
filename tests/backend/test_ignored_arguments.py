"""What a kernel is asked takes part in its result: contradictions cannot be asked, arguments cannot be left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qcompiler.backend.kernel import ConvolutionSpec, Epilogue, KernelSpec
from qcompiler.backend.lower import lower
from qcompiler.backend.tir import lower_kernel
from qcompiler.errors import InternalError
from qcompiler.schedules import table
from qcompiler.schedules.loops import Buffers, build_function, load, store
from qcompiler.targets.target import load_target
from tests.backend.integer_library import read

TARGET = load_target("x86-baseline")
SHORT = Epilogue(True, None, "uint8", short=True)
SATURATED = Epilogue(True, None, "uint8", saturated=True, pre_shifted=False)
DEPTHWISE = ConvolutionSpec(1, 4, 4, 16, 16, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 16, 8, SHORT)


@pytest.mark.parametrize(
    ("record", "changes", "problem"),
    [
        (SHORT, {"narrow": False}, "short or saturated, not both, are narrow forms of bytes"),
        (SHORT, {"saturated": True}, "short or saturated, not both"),
        (SATURATED, {"out_dtype": "int16"}, "are narrow forms of bytes"),
        (SATURATED, {"residual": "uint8"}, "saturated forms add no other operand"),
        (SHORT, {"residual": "int16"}, "short ones bytes"),
        (SHORT, {"residual": "uint8", "left": 1}, "only short forms without another operand move sums left"),
        (SATURATED, {"left": 1}, "only short forms"),
        (SHORT, {"word_bounds": True}, "bounds of 16 bits are those of saturated forms without first shift"),
        (SATURATED, {"word_bounds": True, "pre_shifted": True}, "without first shift"),
        (DEPTHWISE, {"epilogue": replace(SATURATED, word_bounds=True), "kernel": (3, 3)}, "those of affine maps"),
        (DEPTHWISE, {"epilogue": replace(SATURATED, word_bounds=True), "weight_bits": 4}, "weights of 8 bits"),
        (
            DEPTHWISE,
            {"epilogue": replace(SHORT, residual="uint8", pre_shifted=False), "weight_bits": 4},
            "have to be moved right",
        ),
    ],
)
def test_contradictions_cannot_be_asked(record: Any, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InternalError, match=problem):
        replace(record, **changes)


def test_a_kernel_uses_every_argument() -> None:
    import tvm.tirx.script.builder.ir as tir

    def emit(buffers: Buffers) -> None:
        with tir.serial(1):
            store(buffers["y"], load(buffers["x"], 0, 16), 0, 16)

    function = build_function(dict.fromkeys(("x", "residual", "y"), (16, "uint8")), emit)
    with pytest.raises(InternalError, match="kernel k neither reads nor writes its residual"):
        lower_kernel(function, "k", TARGET.tvm_target)


def test_a_kernel_has_a_place_for_every_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = read(
        """graph @g stage=integer (%a: u8[N,16] scale=0x1p-7 zero=0, %b: u8[N,16] scale=0x1p-7 zero=0) {
  %y: u8[N,16] scale=0x1p-7 zero=0 = add(%a, %b, limits=(0, 255), multipliers=(1, 1), shift=1)
  return %y
}
"""
    )
    build = table.build_kernel

    def forgetful(spec: KernelSpec, instruction_set: str, tiling: Any = ()) -> Any:
        kernel = build(spec, instruction_set, tiling)
        return replace(kernel, arguments=tuple(name for name in kernel.arguments if name != "residual"))

    monkeypatch.setattr(table, "build_kernel", forgetful)
    with pytest.raises(InternalError, match="the kernel has no place for residual: AddSpec"):
        lower(graph, TARGET.instruction_set, TARGET.tvm_target)
