"""Fisher scores: half the mean over the samples of the squared gradient times the squared perturbation, element by element.

The diagonal of the empirical Fisher information stands for the Hessian's, so a score is the expected increase of the loss, in its
unit (nats for classes), by perturbations without correlations (Theis et al., "Faster gaze prediction with dense networks and
Fisher pruning", arXiv 1801.05787). The gradients are those of single samples, at labels or at what
``problem.py`` puts in their place.
"""

from __future__ import annotations

import torch


def fisher_harm(gradient: torch.Tensor, perturbation: torch.Tensor) -> float:
    """Half the sum of squares of products."""
    return 0.5 * float((gradient * perturbation).square().sum(dtype=torch.float64))
