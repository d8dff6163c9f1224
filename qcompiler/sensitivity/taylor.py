"""First-order Taylor scores: the mean over the samples of |gradient . perturbation|, in the loss's unit.

It is how much a single sample's loss moves, up or down: the mean movement itself is next to zero where the network is trained out
(Molchanov et al., "Importance Estimation for Neural Network Pruning", arXiv 1906.10771, use its square).
"""

from __future__ import annotations

import torch


def taylor_harm(gradient: torch.Tensor, perturbation: torch.Tensor) -> float:
    """The magnitude of the sum of products."""
    return abs(float((gradient * perturbation).sum(dtype=torch.float64)))
