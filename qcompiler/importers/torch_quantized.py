"""Quantized torch models as float graphs with quantizers: fake quantization, and modules prepared by ``torch.ao.quantization``.

A prepared module holds an observer or a fake-quantizing module behind every tensor that is to be quantized. They branch on what
they see, which cannot be exported, so that :func:`settled_observers` lets plain quantization with their present scales stand in
for them. Those of weights are then computed as all constants are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from qcompiler.importers.builder import Known, UnsupportedError
from qcompiler.importers.emit_quantizer import Quantization, quantizer
from qcompiler.importers.torch_call import Call, Handler
from qcompiler.ir.graph import Value

if TYPE_CHECKING:
    import torch


def _number(x: Any) -> float:
    """A scale or zero point: a number, or a constant tensor of one."""
    if isinstance(x, Known) and x.data.size == 1:
        return float(x.data.reshape(-1)[0])
    if isinstance(x, int | float):
        return x
    raise UnsupportedError("activations need one constant scale for the whole tensor")


def _per_tensor(call: Call) -> Value:
    lowest, highest = int(call["quant_min"]), int(call["quant_max"])
    by = Quantization(_number(call["scale"]), int(_number(call["zero_point"])), lowest, highest)
    return quantizer(call.layer, call.x, by)


def _per_channel(call: Call) -> Value:
    raise UnsupportedError("activations need one scale for the whole tensor")


def _dequantize(call: Call) -> Value:
    """What was quantized before it: the two are one quantizer."""
    return call.x


OPERATORS: Final[dict[str, Handler]] = {
    "aten.fake_quantize_per_channel_affine.default": _per_channel,
    "aten.fake_quantize_per_tensor_affine.default": _per_tensor,
    "aten.fake_quantize_per_tensor_affine.tensor_qparams": _per_tensor,
    "quantized_decomposed.dequantize_per_tensor.default": _dequantize,
    "quantized_decomposed.dequantize_per_tensor.tensor": _dequantize,
    "quantized_decomposed.quantize_per_tensor.default": _per_tensor,
    "quantized_decomposed.quantize_per_tensor.tensor": _per_tensor,
}


@contextlib.contextmanager
def settled_observers(model: torch.nn.Module) -> Iterator[None]:
    """Inside, quantization with constant scales stands for the model's observers and fake-quantizing modules."""
    places = [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in list(parent._modules.items())
        if child is not None and hasattr(child, "calculate_qparams") and hasattr(child, "quant_min")
    ]
    for parent, name, child in places:
        parent._modules[name] = _stand_in(child)
    try:
        yield
    finally:
        for parent, name, child in places:
            parent._modules[name] = child


def _stand_in(module: Any) -> torch.nn.Module:
    """Fake quantization as ``module`` does it now; nothing where it has not seen anything yet."""
    import torch
    import torch.ao.quantization.fx._decomposed  # defines the operators, which fake_quantize lacks for a batch of any size

    observer = getattr(module, "activation_post_process", module)
    seen = getattr(observer, "min_val", None)
    if isinstance(seen, torch.Tensor) and (not seen.numel() or not torch.isfinite(seen).all()):
        return torch.nn.Identity()
    learned = isinstance(getattr(module, "scale", None), torch.Tensor)
    given: Any = module
    scale, zero = (given.scale, given.zero_point) if learned else given.calculate_qparams()
    low, high = int(observer.quant_min), int(observer.quant_max)
    axis = int(getattr(observer, "ch_axis", -1))

    class FakeQuantize(torch.nn.Module):
        """A module, as its place is one."""

        scale: torch.Tensor
        zero_point: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", scale.detach().clone().to(torch.float32).reshape(-1))
            self.register_buffer("zero_point", zero.detach().clone().to(torch.int32).reshape(-1))

        def forward(self, x: torch.Tensor) -> Any:
            if self.scale.numel() > 1:
                return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero_point, axis, low, high)
            one = float(scale), int(zero), low, high, torch.int32
            codes = torch.ops.quantized_decomposed.quantize_per_tensor(x, *one)
            return torch.ops.quantized_decomposed.dequantize_per_tensor(codes, *one)

    return FakeQuantize()
