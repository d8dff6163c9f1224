"""AdaRound (Nagel et al., arXiv 2004.10568): whether each weight goes to one code or the next is learned, softly at first.

A weight is ``scale * (code + side * h(v))``, ``h(v) = clamp(1.2 sigmoid(v) - 0.1, 0, 1)``: ``code`` is the one that was chosen
before (by GPTQ, say), ``side`` says on which side of it the weight itself lies. ``1 - |2 h - 1|^beta``, with a beta that falls,
drives every h to 0 or 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Tensor

STRETCH: Final = 1.2
START: Final = 0.02
"""The first h where the code that was chosen is not the nearest one on its side."""


class SoftRounding(torch.nn.Module):
    """Of weights ``exact`` ``[O, ...]`` around ``codes``; ``scale`` broadcasts against them."""

    def __init__(self, exact: Tensor, codes: Tensor, scale: Tensor, low: int, high: int) -> None:
        super().__init__()
        distance = exact / scale - codes
        self.side = torch.where(distance >= 0, 1.0, -1.0)
        self.side = torch.where((codes + self.side > high) | (codes + self.side < low), -self.side, self.side)
        self.base, self.scale = codes.clone(), scale
        share = torch.full_like(codes, START)
        self.v = torch.nn.Parameter(torch.logit((share + (STRETCH - 1.0) / 2.0) / STRETCH))

    def share(self) -> Tensor:
        """h: 0 for the code that was chosen, 1 for its neighbour."""
        return (STRETCH * torch.sigmoid(self.v) - (STRETCH - 1.0) / 2.0).clamp(0.0, 1.0)

    def forward(self) -> Tensor:
        """The weights between codes."""
        return (self.base + self.side * self.share()) * self.scale

    def undecided(self, beta: float) -> Tensor:
        """What is added to the loss, before its factor."""
        return (1.0 - (2.0 * self.share() - 1.0).abs().pow(beta)).sum()

    def decided(self) -> Tensor:
        """The codes."""
        return self.base + self.side * (self.share() >= 0.5).to(self.base.dtype)
