"""Constants of torch models that depend on the batch, or only on the shape of a tensor."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from qcompiler.importers.load import import_model
from tests.importers.check import check_graph, problem_of
from tests.importers.test_torch import Function, ops, run


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        positions = torch.arange(5).unsqueeze(0).expand(x.shape[0], -1)
        return [
            x + x.new_ones(x.shape) * x.new_full((5,), 2.0) + torch.full_like(x, 3.0) + torch.zeros(x.size(0), 1, 1),
            x + F.dropout(self.weight, 0.5, self.training)[:3],
            x.flatten(1).view_as(x) + torch.ones(1, 1, 5).expand_as(x),
            self.weight[0].double().type_as(x) + x.to(self.weight) + x.reshape(-1, 15).reshape_as(x),
            x + F.embedding(positions, self.weight).mean(2).unsqueeze(1),
            x + (torch.arange(len(x) * 5) % 5).view(-1, 1, 5).float(),
        ]


class Recurrent(nn.Module):
    """A cell written by hand, whose first states are zeros, with the batch as the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = torch.zeros(2, x.size(0), 4)
        first, second = states[0], states[1]
        for step in x.unbind(1):
            first = torch.tanh(self.linear(first) + step)
            second = torch.sigmoid(self.linear(second) + first)
        return second


def test_constants() -> None:
    model = Constants()
    check_graph(import_model(model, torch.randn(2, 3, 5)), run(model))


def test_states_of_zeros() -> None:
    model = Recurrent()
    check_graph(import_model(model, torch.randn(2, 3, 4)), run(model))


def test_constant_that_differs_from_sample_to_sample() -> None:
    text = problem_of(Function(lambda x: x + torch.arange(x.size(0)).float().unsqueeze(1)), torch.randn(2, 3))
    assert "(aten.add.Tensor): its constant operand [2,1] differs from sample to sample" in text


def test_operators_of_which_nothing_is_used() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.linalg.svd(x)
        F.layer_norm(x.cumsum(1), (5,))
        torch._check(x.shape[1] == 3)
        torch._assert(x.shape[2] == 5, "five")
        return x.relu()

    assert ops(import_model(Function(function), torch.randn(2, 3, 5))) == ["clip"]
