"""Rounding to codes: values as the contract says, gradients as the rule of learned step sizes says."""

from __future__ import annotations

import pytest
import torch

from qcompiler.tuning.quantizers import to_codes

X = torch.tensor([-3.0, -0.26, -0.25, 0.0, 0.24, 0.25, 0.7, 1.9, 5.0], dtype=torch.float64)


def test_values_are_those_of_the_codes() -> None:
    """Halves go up, what lies beyond the limits stays at them."""
    y = to_codes(X, torch.tensor(0.5, dtype=torch.float64), 3, 0, 7)
    assert (y / 0.5 + 3).tolist() == [0, 2, 3, 3, 3, 4, 4, 7, 7]


@pytest.mark.parametrize(("zero", "low", "high"), [(3, 0, 7), (0, -8, 7)])
def test_gradients(zero: int, low: int, high: int) -> None:
    x, scale = X.clone().requires_grad_(), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(1.0, 2.0, len(X), dtype=torch.float64)
    (to_codes(x, scale, zero, low, high) * weights).sum().backward()
    codes = torch.floor(X / 0.5 + zero + 0.5)
    inside = (codes >= low) & (codes <= high)
    slope = torch.where(inside, codes - zero - X / 0.5, codes.clamp(low, high) - zero)
    assert x.grad is not None
    assert scale.grad is not None
    assert torch.equal(x.grad, weights * inside)
    assert torch.isclose(scale.grad, (weights * slope).sum())


def test_a_scale_for_each_row_has_a_gradient_for_each_row() -> None:
    x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    scale = torch.full((4, 1, 1), 0.3, requires_grad=True)
    to_codes(x, scale, 0, -8, 7).sum().backward()
    assert scale.grad is not None
    assert scale.grad.shape == (4, 1, 1)
    alone = torch.tensor(0.3, requires_grad=True)
    to_codes(x[2], alone, 0, -8, 7).sum().backward()
    assert alone.grad is not None
    assert torch.isclose(scale.grad[2, 0, 0], alone.grad)
