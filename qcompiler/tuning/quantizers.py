"""Rounding to codes that gradients pass through: straight-through for what is rounded, exact for its scale.

Codes are ``clamp(floor(x / scale + zero + 1/2), low, high)``, as everywhere; the value is ``(code - zero) * scale``. The gradient
by x is 1 inside of the limits and 0 outside; by the scale it is that of the value with the rounding held still (Esser et al.,
"Learned Step Size Quantization", arXiv 1902.08153, equation 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


class RoundToCodes(torch.autograd.Function):
    """``apply(x, scale, zero, low, high)``: the values of the codes of ``x``; ``scale`` broadcasts against ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: int, low: int, high: int) -> Tensor:
        steps = x / scale
        codes = torch.floor(steps + (zero + 0.5))
        inside = (codes >= low) & (codes <= high)
        codes = codes.clamp_(low, high).sub_(zero)
        # What the scale is multiplied by, inside of the limits less the share of x.
        slope = torch.where(inside, codes - steps, codes)
        ctx.save_for_backward(inside, slope)
        ctx.scale_shape = scale.shape
        return codes.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        inside, slope = ctx.saved_tensors
        by_x = gradient * inside if ctx.needs_input_grad[0] else None
        by_scale = (gradient * slope).sum_to_size(ctx.scale_shape) if ctx.needs_input_grad[1] else None
        return by_x, by_scale, None, None, None


def to_codes(x: Tensor, scale: Tensor, zero: int, low: int, high: int) -> Tensor:
    """The values of the codes of ``x``, differentiable by ``x`` and ``scale``."""
    result: Tensor = RoundToCodes.apply(x, scale, zero, low, high)  # type: ignore[no-untyped-call]
    return result
