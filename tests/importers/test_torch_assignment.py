"""Assignments to parts of tensors in torch: exact, and one concatenation of their parts where they fill a tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from qcompiler.importers.load import import_model
from tests.importers.check import check_graph, problem_of
from tests.importers.test_torch import Function, ops, run

IMAGE = (4, 6, 6)


def yolo_head(x: torch.Tensor) -> torch.Tensor:
    y = x.permute(0, 2, 3, 1).contiguous().sigmoid()
    y[..., 0:1] = (y[..., 0:1] * 2 - 0.5) * 8
    y[..., 1:3] = (y[..., 1:3] * 2) ** 2 * torch.tensor([10.0, 13.0])
    return y


def numbers(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, 1] = 0
    y[:, -1, 2:4, ::2] = 1.5
    y[:, 0].fill_(3).add_(x[:, 0])
    y[:, :2] += x[:, 2:]
    return y


def indices(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, [0, -2]] = x[:, [1, 3]]
    chosen = torch.tensor([1, 3])
    y[:, chosen] = y[:, chosen] * 2
    y[:, :, [True, False, False, True, False, False]] = 5
    return y.index_fill(3, torch.tensor([1]), 0.0).index_copy(1, torch.tensor([3, 0]), x[:, :2])


def window_moves(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(x)
    y[:, :2, :, 1:] = x[:, :2, :, :-1]
    y[:, 2:, :, :-1] = x[:, 2:, :, 1:]
    z = x.new_zeros(x.shape)
    z[:, :, :-1] = x[:, :, 1:]
    z[:, :, -1:] = x[:, :, :1]
    return y + z


def inverse_wavelets(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty(x.size(0), 1, 12, 12)
    for channel, (row, column) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        y[:, :, row::2, column::2] = x[:, channel : channel + 1]
    return y


def parts_in_place(x: torch.Tensor) -> torch.Tensor:
    a, b = (x * 2).chunk(2, 1)
    a.mul_(3)
    b += a
    return torch.cat((a, b), 1)


def whole(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    y[:] = x * 2
    y.copy_(y + x)
    return y


def truth_values(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[y < 0] = -1
    return y


def constants(x: torch.Tensor) -> torch.Tensor:
    mask = x.new_zeros((1, 6, 6))
    mask[:, :3, :3] = 1
    mask[:, 3:] = 2
    return x * (mask != 1) + mask.masked_fill(mask == 2, -3.0)


FUNCTIONS = (yolo_head, numbers, indices, window_moves, inverse_wavelets, parts_in_place, whole, truth_values, constants)


def test_assignments() -> None:
    model = Function(lambda x: [function(x) for function in FUNCTIONS])
    check_graph(import_model(model, torch.randn(2, *IMAGE)), run(model))


def test_assignments_with_a_constant_batch() -> None:
    model = Function(lambda x: [window_moves(x), inverse_wavelets(x), indices(x)])
    for batch in (1, 2):
        check_graph(import_model(torch.export.export(model, (torch.randn(batch, *IMAGE),))), run(model))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            yolo_head,
            [
                "transpose",
                "function",
                "slice",
                "mul",
                "sub",
                "mul",
                "slice",
                "slice",
                "mul",
                "function",
                "mul",
                "slice",
                "concat",
            ],
        ),
        (window_moves, ["slice", "slice", "concat", "slice", "slice", "concat", "concat", "slice", "slice", "concat", "add"]),
    ],
)
def test_what_was_joined_is_not_sliced(function: Callable[..., torch.Tensor], expected: list[str]) -> None:
    graph = import_model(Function(function), torch.randn(2, *IMAGE))
    assert [op for op in ops(graph) if op != "identity"] == expected


def half_written(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    y[:, :2] = x[:, :2]
    return y


def whole_numbers(x: torch.Tensor) -> torch.Tensor:
    return x + torch.empty(6, dtype=torch.int64)


def one_sample(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[0] = 0
    return y


def added(x: torch.Tensor) -> torch.Tensor:
    return (x * 2).index_put((torch.tensor([0]),), torch.tensor(1.0), accumulate=True)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (half_written, "(aten.empty_like.default): elements that nothing has written are read; use torch.zeros"),
        (whole_numbers, "(aten.empty.memory_format): its whole numbers are whatever the memory holds; use torch.zeros"),
        (one_sample, "(aten.select_scatter.default): it assigns to samples of the batch"),
        (added, "(aten.index_put.default): it adds to the elements that it chooses"),
    ],
)
def test_what_cannot_be_assigned(function: Callable[..., torch.Tensor], problem: str) -> None:
    assert problem in problem_of(Function(function), torch.randn(2, *IMAGE))
