"""Truth values of torch models: functions of one tensor where they are, exact numbers 0 and 1 elsewhere."""

from __future__ import annotations

import pytest
import torch

from qcompiler.importers.load import import_model
from tests.importers.check import check_graph, problem_of
from tests.importers.test_torch import Function, ops, run

SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])


def functions_of_one_tensor(x: torch.Tensor) -> list[torch.Tensor]:
    return [
        (x > 0).float(),
        ((x > 0) & (x < 1)).float() + ((x > 2) | ~(x >= -1)).to(x.dtype),
        ((x > 0) ^ (x > 1)).float() + (x.round() == 1).float() + (x.round() != 2).long(),
        torch.where((x > 0.5).logical_not(), x, 2.0),
        x.masked_fill(x.round().bool(), 3.0),
        torch.heaviside(x.round(), torch.tensor(0.5)) + x.trunc() + x.frac() + x.remainder(2),
    ]


def of_several(x: torch.Tensor) -> list[torch.Tensor]:
    mean = x.mean(1, keepdim=True)
    return [
        (x > mean).float() + (mean != x) * x,
        torch.where(x > 0, x, mean) + torch.where(x > 0, mean, 0.0) + torch.where(x > 1, 1.0, mean),
        ((x > 0) & (mean > 0)).float() + ((x > 0) | (mean > 0)).float() * 2 + ((x > 0) ^ (mean > 0)).float() * 4,
        x * (SIGNS > 0) + x.masked_fill(SIGNS < 0, 2.0) + torch.where(SIGNS > 0, x, mean),
        ((x > 0) & (SIGNS > 0)).float() + ((x > 0) | (SIGNS > 0)).float() * 2 + ((x > 0) ^ (SIGNS > 0)).float() * 4,
        (x > 0).sum(1) + x[:, torch.tensor([True, False, True])].sum(1),
    ]


def test_conditions() -> None:
    model = Function(lambda x: functions_of_one_tensor(x) + of_several(x))
    check_graph(import_model(model, torch.randn(2, 3, 5)), run(model))


def test_functions_of_one_tensor_are_functions() -> None:
    model = Function(lambda x: functions_of_one_tensor(x)[:4])
    assert set(ops(import_model(model, torch.randn(2, 3, 5)))) == {"function", "add"}


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda x: x > 0, "(output 0): its elements are truth values; return numbers, as of (x > 0).float()"),
        (lambda x: x.masked_fill(x.mean(1, keepdim=True) > 0, -torch.inf), "(aten.masked_fill.Scalar): it chooses -inf for some"),
        (
            lambda x: torch.nn.functional.max_pool1d(x, 2, return_indices=True)[1],
            "(aten.max_pool1d_with_indices.default): the positions of its maxima are read, and only the maxima are supported",
        ),
    ],
)
def test_why_truth_values_and_positions_are_refused(function: object, problem: str) -> None:
    assert problem in problem_of(Function(function), torch.randn(2, 3, 5))  # type: ignore[arg-type]
