"""Closed-form rounding: small errors on the inputs, not on the weights, and always on the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import Attribute, Node, TensorType, Value
from qcompiler.passes.weight_codes import code_limits, rounded_weights
from qcompiler.tuning.gptq import measure, round_rows

LINEAR = Node("linear", ("x", "w"), (Value("y", TensorType(F32, ("N", 24))),))


def convolution(shape: tuple[int, ...], groups: int, strides: tuple[int, int], dilation: tuple[int, int]) -> Node:
    attributes: dict[str, Attribute] = {
        "groups": groups,
        "strides": strides,
        "dilation": dilation,
        "padding": (1, 0, 2, 1),
    }
    return Node("conv2d", ("x", "w"), (Value("y", TensorType(F32, shape)),), tuple(attributes.items()))


def correlated(count: int, depth: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(depth, depth, generator=generator)
    return torch.randn(count, depth, generator=generator) @ mixing + 0.5


def output_error(weight: torch.Tensor, rounded: torch.Tensor, exact: torch.Tensor, x: torch.Tensor) -> float:
    """Of centred outputs: the mean is the bias's business."""
    difference = exact.to(torch.float64) @ weight.T.to(torch.float64) - x.to(torch.float64) @ rounded.T
    return float((difference - difference.mean(0)).square().mean())


@pytest.mark.parametrize("bits", [2, 4])
def test_errors_on_correlated_inputs_are_far_below_those_of_nearest_codes(bits: int) -> None:
    x = correlated(4000, 32, 1)
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(2))
    rounded, scale = round_rows(weight, measure(LINEAR, [x], [x], weight.shape), bits)
    codes = (rounded / scale[:, None]).numpy()
    low, high = code_limits(bits)
    assert np.abs(codes - np.rint(codes)).max() < 1e-9
    assert low <= np.rint(codes).min() <= np.rint(codes).max() <= high
    nearest = torch.from_numpy(rounded_weights(weight.numpy(), bits))
    assert output_error(weight, rounded, x, x) < 0.5 * output_error(weight, nearest, x, x)


def test_inputs_without_correlation_give_nearest_codes() -> None:
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(2))
    x = torch.eye(32).repeat(100, 1) * 3.0
    statistics = measure(LINEAR, [x], [x], weight.shape)
    diagonal = torch.diag_embed(statistics.rounded.diagonal(dim1=1, dim2=2))
    plain = type(statistics)(diagonal, diagonal, statistics.exact_mean, statistics.rounded_mean)
    rounded, scale = round_rows(weight, plain, 4)
    nearest = torch.floor(weight.to(torch.float64) / scale[:, None] + 0.5).clamp(-8, 7) * scale[:, None]
    torch.testing.assert_close(rounded, nearest)


def test_rows_make_up_for_errors_of_their_inputs() -> None:
    """Inputs that came out too small by a factor, and mixed up: at 8 bits the refitted row takes nearly all of it back."""
    exact = correlated(4000, 16, 3)
    generator = torch.Generator().manual_seed(4)
    x = exact @ (0.8 * torch.eye(16) + 0.05 * torch.randn(16, 16, generator=generator))
    weight = torch.randn(24, 16, generator=generator)
    rounded, _ = round_rows(weight, measure(LINEAR, [exact], [x], weight.shape), 8)
    nearest = torch.from_numpy(rounded_weights(weight.numpy(), 8))
    assert output_error(weight, rounded, exact, x) < 0.02 * output_error(weight, nearest, exact, x)


@pytest.mark.parametrize(
    ("groups", "strides", "dilation"), [(1, (1, 1), (1, 1)), (1, (2, 1), (1, 2)), (4, (1, 2), (1, 1)), (8, (1, 1), (2, 1))]
)
def test_columns_are_what_convolutions_multiply(groups: int, strides: tuple[int, int], dilation: tuple[int, int]) -> None:
    """``w H w^T`` is the mean square of the convolution's centred output."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(6, 8, 9, 10, generator=generator)
    weight = torch.randn(16, 8 // groups, 3, 2, generator=generator)
    y = functional.conv2d(functional.pad(x, (0, 1, 1, 2)), weight, None, strides, 0, dilation, groups)
    node = convolution(("N", *y.shape[1:]), groups, strides, dilation)
    statistics = measure(node, [x[:3], x[3:]], [x[:3], x[3:]], weight.shape)
    rows = weight.to(torch.float64).reshape(groups, 16 // groups, -1)
    found = ((rows @ statistics.rounded) * rows).sum(2).reshape(-1)
    torch.testing.assert_close(found, y.to(torch.float64).var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(statistics.cross, statistics.rounded)


def test_of_large_images_some_positions_are_enough() -> None:
    generator = torch.Generator().manual_seed(6)
    x = functional.interpolate(torch.randn(8, 4, 12, 12, generator=generator), size=(96, 96), mode="bilinear")
    weight = torch.randn(8, 4, 1, 1, generator=generator)
    node = Node(
        "conv2d",
        ("x", "w"),
        (Value("y", TensorType(F32, ("N", 8, 96, 96))),),
        (("groups", 1), ("strides", (1, 1)), ("dilation", (1, 1)), ("padding", (0, 0, 0, 0))),
    )
    found = measure(node, [x], [x], weight.shape).rounded[0]
    flat = x.permute(1, 0, 2, 3).reshape(4, -1).to(torch.float64)
    torch.testing.assert_close(found, torch.cov(flat, correction=0), rtol=0.1, atol=0.02)


def test_a_layer_that_sees_nothing_keeps_its_codes() -> None:
    x = torch.zeros(10, 32)
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(2))
    weight[3] = 0.0
    rounded, scale = round_rows(weight, measure(LINEAR, [x], [x], weight.shape), 4)
    assert torch.isfinite(rounded).all()
    assert (scale > 0).all()
    assert not rounded[3].any()
    assert float((rounded - weight).abs().max()) < float(weight.abs().max()) / 7


def test_a_few_large_inputs_that_hardly_change() -> None:
    """Their products in float32 are off by more than the damping of the others: the matrix is indefinite at first."""
    x = 1e-3 * torch.randn(64, 512, generator=torch.Generator().manual_seed(3))
    x[:, :6] += torch.linspace(1000, 3000, 6)
    weight = torch.randn(24, 512, generator=torch.Generator().manual_seed(4))
    statistics = measure(LINEAR, [x], [x], weight.shape)
    assert float(torch.linalg.eigvalsh(statistics.rounded[0])[0]) < 0
    rounded, scale = round_rows(weight, statistics, 4)
    codes = rounded / scale[:, None]
    assert codes.abs().max() <= 8
    assert float(((codes - codes.round()).abs()).max()) < 1e-6
    assert output_error(weight, rounded, x, x) < float(weight.square().mean())
