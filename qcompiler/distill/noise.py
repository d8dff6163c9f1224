"""Where distillation starts: noise that is strong at low frequencies, as natural images and other signals are."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_MODES: Final = {3: "linear", 4: "bilinear", 5: "trilinear"}


def smooth_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Gaussian noise ``[n, C, ...]`` of deviation 1, summed over every scale: full size, half, a quarter, down to one number.

    Without axes after the channels, or with more than three, it is white.
    """
    total, size = torch.randn(shape, generator=generator), shape[2:]
    factor = 2
    while len(shape) in _MODES and factor <= max(size):
        small = [max(1, length // factor) for length in size]
        coarse = torch.randn((*shape[:2], *small), generator=generator)
        total += functional.interpolate(coarse, size=list(size), mode=_MODES[len(shape)], align_corners=False)
        factor *= 2
    return total / total.square().mean().sqrt()
