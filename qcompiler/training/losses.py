"""What training minimizes where nothing else is said: the distance from the float model, and from labels if there are any."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn import functional

TEMPERATURE: Final = 4.0
"""Of the softmax: what the float model thinks of the other classes counts too, though it is sure of the one."""
SMALLEST: Final = 1e-12


def default_loss(outputs: Any, expected: Any, target: Any) -> torch.Tensor:
    """The mean over outputs of their distance from the float model's; plus the cross entropy of labels.

    ``outputs``, ``expected``: a tensor ``[N, ...]``, or a tuple of them where the model has several outputs. Scores ``[N, C]``
    are compared by the KL divergence of their softmax at ``TEMPERATURE``, times its square (Hinton et al., arXiv 1503.02531),
    others by the squared error over the mean square. ``target``: class labels int64[N] of the first output, or None.
    """
    found = outputs if isinstance(outputs, tuple) else (outputs,)
    exact = expected if isinstance(expected, tuple) else (expected,)
    loss = torch.stack([_distance(a, b) for a, b in zip(found, exact, strict=True)]).mean()
    if target is None:
        return loss
    return loss + functional.cross_entropy(found[0], target.reshape(-1).to(torch.int64))


def _distance(found: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    if found.ndim == 2 and found.shape[1] > 1:
        ours, theirs = ((scores / TEMPERATURE).log_softmax(1) for scores in (found, exact))
        return TEMPERATURE**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return (found - exact).square().mean() / exact.square().mean().clamp(min=SMALLEST)
