"""Operators of ONNX Runtime's own domain that its optimizer writes into float models: layers with their activation, GELUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from qcompiler.importers import emit_elementwise, onnx_convolution, onnx_reduction, operands
from qcompiler.importers.builder import UnsupportedError
from qcompiler.importers.onnx_call import Call, Handler
from qcompiler.ir.graph import Value
from qcompiler.ops.functions import NAMED


def _inner(c: Call, what: str) -> Call:
    """The call whose result is not the last of the layer."""
    return replace(c, layer=replace(c.layer, name=f"{c.layer.name}.{what}"))


def _activated(c: Call, y: object, name: str, parameters: list[float]) -> Value:
    """``y`` behind the activation of this name."""
    first, second = (*parameters, None, None)[:2]
    if name == "Relu":
        return emit_elementwise.clip(c.layer, y, 0.0, None)
    if name == "Clip":
        return emit_elementwise.clip(c.layer, y, first, second)
    if name == "LeakyRelu":
        return emit_elementwise.leaky_relu(c.layer, operands.value(y), 0.01 if first is None else first)
    if name == "HardSigmoid":
        slope, offset = (0.2 if first is None else first), (0.5 if second is None else second)
        return emit_elementwise.function(c.layer, y, NAMED["hard_sigmoid"](slope, offset))
    if name not in ("Sigmoid", "Tanh"):
        raise UnsupportedError(f"its activation {name!r} is not supported")
    return emit_elementwise.function(c.layer, y, f"{name.lower()}(x)")


def _fused_conv(c: Call) -> object:
    activation, addend = c.get("activation"), c.operand(3)
    y = onnx_convolution.OPERATORS["Conv"](_inner(c, "conv") if activation or addend is not None else c)
    if addend is not None:
        y = emit_elementwise.binary(c.layer, "add", y, addend, ".sum" if activation else "")
    return _activated(c, y, activation, list(c.get("activation_params", []))) if activation else y


def _fused_gemm(c: Call) -> object:
    activation, parameters = c.get("activation"), [c.get("activation_alpha"), c.get("activation_beta")]
    y = onnx_reduction.OPERATORS["Gemm"](_inner(c, "gemm") if activation else c)
    return _activated(c, y, activation, [p for p in parameters if p is not None]) if activation else y


def _gelu(name: str) -> Handler:
    """GELU of the first operand plus a bias, where there is one."""

    def handler(c: Call) -> Value:
        x: Any = c.operand(0)
        if c.operand(1) is not None:
            x = emit_elementwise.binary(c.layer, "add", x, c.operand(1), ".biased")
        return emit_elementwise.function(c.layer, x, NAMED[name]())

    return handler


def _quick_gelu(c: Call) -> Value:
    return emit_elementwise.function(c.layer, c.operand(0), f"x * sigmoid({c.get('alpha', 1.702)!r} * x)")


OPERATORS: Final[dict[str, Handler]] = {
    "com.microsoft.BiasGelu": _gelu("gelu"),
    "com.microsoft.FastGelu": _gelu("gelu_tanh"),
    "com.microsoft.FusedConv": _fused_conv,
    "com.microsoft.FusedGemm": _fused_gemm,
    "com.microsoft.Gelu": _gelu("gelu"),
    "com.microsoft.QuickGelu": _quick_gelu,
}
