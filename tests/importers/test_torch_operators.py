"""Every aten operator in its forms, as exported and after the decompositions, against torch; the oldest ones stand in test_torch.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from qcompiler.importers.load import import_model
from tests.importers.check import check_graph, positive_numbers, problem_of, whole_numbers
from tests.importers.test_torch import BATCH, Function, batch_norm, ops, run

torch.manual_seed(0)
IMAGE = (3, 9, 11)
EVEN = (4, 6, 8)
SEQUENCE = (4, 10)
VOLUME = (2, 5, 6, 7)

FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "elu": lambda x: F.elu(x, 0.7),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 2.0),
    "softplus": F.softplus,
    "softplus_beta": lambda x: F.softplus(x, 2.0),
    "mish": F.mish,
    "log_sigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
    "softsign": F.softsign,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 0.5),
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "erf": torch.erf,
    "abs": torch.abs,
    "neg": torch.neg,
    "sin": torch.sin,
    "cos": torch.cos,
    "floor": torch.floor,
    "round": torch.round,
    "sign": torch.sign,
    "square": torch.square,
    "power": lambda x: x**3,
    "power_of_two": lambda x: 2**x,
}
SEVERAL = ("tanhshrink", "softsign")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    graph = check(Function(FUNCTIONS[name]), IMAGE)
    if name not in SEVERAL:
        assert ops(graph) == ["function"]


def test_decomposed_functions() -> None:
    check(Function(lambda x: [function(x) for function in FUNCTIONS.values()]), IMAGE, decomposed=True)


@pytest.mark.parametrize(
    "function",
    [torch.log, torch.sqrt, torch.rsqrt, torch.log2, torch.log1p, torch.reciprocal, lambda x: 3 / x, lambda x: x**-0.7],
)
def test_function_of_positive_numbers(function: Callable[..., torch.Tensor]) -> None:
    model = Function(function)
    check_graph(import_model(model, torch.rand(2, *IMAGE)), run(model), draw=positive_numbers)


def check(model: nn.Module, shape: tuple[int, ...], decomposed: bool = False) -> Any:
    program = torch.export.export(model.eval(), (torch.randn(2, *shape),), dynamic_shapes=(BATCH,))
    graph = import_model(program.run_decompositions() if decomposed else program)
    check_graph(graph, run(model))
    return graph


class Prelu(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prelu = nn.PReLU(channels)
        nn.init.normal_(self.prelu.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.prelu(x)


OTHERS = torch.randn(3, 1, 1)
TABLE = torch.randn(5, 4)
CASES: dict[str, tuple[nn.Module, tuple[int, ...], list[str] | None]] = {
    "leaky_relu": (nn.LeakyReLU(0.2), IMAGE, ["prelu"]),
    "rrelu": (nn.RReLU(), IMAGE, ["prelu"]),
    "prelu": (Prelu(3), IMAGE, ["prelu"]),
    "prelu_one": (Prelu(1), IMAGE, ["prelu"]),
    "sub": (Function(lambda x: 1 - (x - OTHERS) - 0.5), IMAGE, ["sub"] * 3),
    "sub_alpha": (Function(lambda x: torch.sub(x, x.relu(), alpha=2)), IMAGE, ["clip", "mul", "sub"]),
    "mul": (Function(lambda x: 2 * x * OTHERS * x.relu()), IMAGE, ["mul", "mul", "clip", "mul"]),
    "div": (Function(lambda x: x / 4 / (OTHERS.abs() + 1)), IMAGE, ["mul", "mul"]),
    "div_function": (Function(lambda x: x / x.mean(1, keepdim=True).exp()), IMAGE, ["mean", "function", "mul"]),
    "max": (Function(lambda x: torch.maximum(x, -x).max(OTHERS).clamp(min=OTHERS * 2)), IMAGE, ["function"] + ["maximum"] * 3),
    "min": (Function(lambda x: torch.minimum(x, -x).min(torch.tensor(0.5))), IMAGE, ["function", "minimum", "clip"]),
    "where": (Function(lambda x: torch.where(x > 0, x, 0.1 * x)), IMAGE, ["prelu"]),
    "where_function": (Function(lambda x: torch.where(x <= 0.5, x.exp(), 2.0)), IMAGE, ["function"]),
    "where_less": (Function(lambda x: torch.where(x < -0.5, 0.0, x * x)), IMAGE, ["function"]),
    "glu": (nn.GLU(1), EVEN, ["slice", "slice", "function", "mul"]),
    "normalize": (Function(F.normalize), IMAGE, None),
    "div_limited": (Function(lambda x: x / x.mean(1, keepdim=True).clamp(0.5, 0.75)), IMAGE, ["mean", "function", "mul"]),
    "addcmul": (Function(lambda x: torch.addcmul(x, x.relu(), OTHERS, value=0.5)), IMAGE, None),
    "squeeze_and_excite": (
        Function(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x)),
        IMAGE,
        ["mean", "function", "mul"],
    ),
    "in_place": (
        Function(lambda x: F.silu(x + 1).mul_(x).add_(1).sigmoid_()),
        IMAGE,
        ["add", "function", "mul", "add", "function"],
    ),
    "cat": (Function(lambda x: torch.cat((x, x.relu(), torch.ones(x.size(0), 1, 9, 11)), 1)), IMAGE, ["clip", "concat"]),
    "cat_zeros": (
        Function(lambda x: torch.cat((torch.zeros_like(x), x, x.new_full((x.shape[0], 1, 9, 11), 2.0)), 1)),
        IMAGE,
        ["concat"],
    ),
    "class_token": (Function(lambda x: torch.cat((TABLE[:1, None].expand(x.size(0), -1, -1), x), 1)), (6, 4), ["concat"]),
    "stack": (Function(lambda x: torch.stack((x, x.relu()), 2)), IMAGE, None),
    "split": (Function(lambda x: torch.cat(x.split(2, 1)[::-1], 1)), (5, 4), ["slice"] * 3 + ["concat"]),
    "split_sizes": (Function(lambda x: x.split([1, 3], 1)), EVEN, ["slice"] * 2),
    "chunk": (Function(lambda x: x.chunk(3, 2)), EVEN, ["slice"] * 3),
    "tensor_split": (Function(lambda x: x.tensor_split(4, 2)), EVEN, ["slice"] * 4),
    "unbind": (Function(lambda x: x.unbind(1)), (2, 6), ["slice", "reshape"] * 2),
    "select": (Function(lambda x: x[:, 1, ..., -2]), IMAGE, ["slice", "reshape"] * 2),
    "slice": (Function(lambda x: x[:, :, 1::3, :-2]), IMAGE, None),
    "permute": (Function(lambda x: x.permute(0, 2, 3, 1)), IMAGE, ["transpose"]),
    "transpose": (Function(lambda x: x.transpose(1, -1).movedim(1, 2)), IMAGE, ["transpose"] * 2),
    "reflect": (nn.ReflectionPad2d((1, 2, 3, 0)), IMAGE, ["take", "take"]),
    "reflect_1d": (nn.ReflectionPad1d(2), SEQUENCE, ["take"]),
    "replicate": (nn.ReplicationPad2d((1, 2, 3, 0)), IMAGE, ["take", "take"]),
    "replicate_3d": (nn.ReplicationPad3d(1), VOLUME, ["take"] * 3),
    "circular": (Function(lambda x: F.pad(x, (1, 2, 3, 0), mode="circular")), IMAGE, None),
    "shuffle": (nn.ChannelShuffle(2), EVEN, ["take"]),
    "shuffle_by_hand": (Function(lambda x: x.view(-1, 2, 2, 6, 8).transpose(1, 2).reshape(-1, 4, 6, 8)), EVEN, ["take"]),
    "pixel_shuffle": (nn.PixelShuffle(2), (8, 3, 5), ["reshape", "transpose", "reshape"]),
    "pixel_unshuffle": (nn.PixelUnshuffle(2), EVEN, ["reshape", "transpose", "reshape"]),
    "nearest": (nn.Upsample(scale_factor=2), IMAGE, ["take", "take"]),
    "nearest_size": (nn.Upsample(size=(5, 20)), IMAGE, None),
    "nearest_scale": (nn.Upsample(scale_factor=(1.7, 0.6)), IMAGE, None),
    "nearest_exact": (nn.Upsample(scale_factor=(1.7, 0.6), mode="nearest-exact"), IMAGE, None),
    "nearest_1d": (nn.Upsample(scale_factor=3), SEQUENCE, ["take"]),
    "nearest_3d": (nn.Upsample(scale_factor=2), VOLUME, ["take"] * 3),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE, ["resize_linear"]),
    "bilinear_corners": (nn.UpsamplingBilinear2d(size=(20, 5)), IMAGE, ["resize_linear"]),
    "bilinear_scale": (nn.Upsample(scale_factor=(1.7, 0.6), mode="bilinear"), IMAGE, ["resize_linear"]),
    "linear_1d": (nn.Upsample(scale_factor=2, mode="linear"), SEQUENCE, ["reshape", "resize_linear", "reshape"]),
    "conv1d": (nn.Conv1d(4, 6, 3, 2, 1, 2, groups=2), SEQUENCE, ["reshape", "conv2d", "reshape"]),
    "conv1d_same": (nn.Conv1d(4, 6, 4, padding="same"), SEQUENCE, None),
    "conv3d": (nn.Conv3d(2, 4, (2, 3, 2), (1, 2, 1), (1, 1, 0), (2, 1, 1), groups=2), VOLUME, ["conv3d"]),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, groups=2), SEQUENCE, ["reshape", "conv_transpose2d", "reshape"]),
    "conv_transpose2d": (nn.ConvTranspose2d(3, 4, (3, 2), (2, 3), (1, 0), (1, 2), dilation=(1, 2)), IMAGE, ["conv_transpose2d"]),
    "batch_norm_3d": (nn.BatchNorm3d(2), VOLUME, ["batch_norm"]),
    "max_pool1d": (nn.MaxPool1d(3, 2, 1), SEQUENCE, None),
    "max_pool3d": (
        nn.MaxPool3d((2, 3, 2), 2, (1, 1, 0), ceil_mode=True),
        VOLUME,
        ["max_pool2d", "reshape", "max_pool2d", "reshape"],
    ),
    "avg_pool1d": (nn.AvgPool1d(3, 2, 1), SEQUENCE, None),
    "avg_pool3d": (nn.AvgPool3d((2, 3, 2), 2, (1, 1, 0)), VOLUME, ["average_pool2d", "reshape", "average_pool2d", "reshape"]),
    "adaptive_avg_1d": (nn.AdaptiveAvgPool1d(5), SEQUENCE, None),
    "adaptive_avg_1d_of_one": (nn.AdaptiveAvgPool1d(1), SEQUENCE, None),
    "adaptive_avg_3d": (nn.AdaptiveAvgPool3d(1), VOLUME, ["mean"]),
    "adaptive_max_1d": (nn.AdaptiveMaxPool1d(5), SEQUENCE, None),
    "linear_3d": (nn.Sequential(nn.Linear(10, 6), nn.Linear(6, 3, bias=False)), SEQUENCE, ["linear", "linear"]),
    "matmul": (Function(lambda x: x @ x.transpose(1, 2)), SEQUENCE, ["transpose", "matmul"]),
    "matmul_4d": (Function(lambda x: x @ x.transpose(2, 3)), IMAGE, ["transpose", "matmul"]),
    "matmul_constant": (Function(lambda x: TABLE @ x), SEQUENCE, None),
    "matmul_vector": (Function(lambda x: x @ torch.arange(10.0)), SEQUENCE, None),
    "bmm": (Function(lambda x: torch.bmm(x, x.transpose(1, 2))), SEQUENCE, ["transpose", "matmul"]),
    "baddbmm": (Function(lambda x: torch.baddbmm(x, x, x, beta=0.5, alpha=2)), (5, 5), ["matmul", "mul", "mul", "add"]),
    "sum": (Function(lambda x: x.sum((1, -1))), IMAGE, ["sum"]),
    "amax": (Function(lambda x: x.amax((2, 3)) + x.amin((2, 3))), IMAGE, ["amax", "amin", "add"]),
    "max_dim": (Function(lambda x: x.max(1, keepdim=True).values + x.min(1, keepdim=True)[0]), IMAGE, ["amax", "amin", "add"]),
    "argmax": (Function(lambda x: (x.argmax(1), x.argmin(2, keepdim=True))), IMAGE, ["argmax", "argmax"]),
    "topk": (Function(lambda x: torch.topk(x, 3)), IMAGE, ["topk_values", "topk_indices"]),
    "norm": (Function(lambda x: torch.linalg.vector_norm(x, dim=1)), IMAGE, None),
    "flip": (Function(lambda x: x.flip(2, 3)), IMAGE, ["slice"]),
    "roll": (Function(lambda x: x.roll((1, -2), (2, 3))), IMAGE, None),
    "expand": (Function(lambda x: x.unsqueeze(2).expand(-1, -1, 4, -1).relu()), SEQUENCE, ["reshape", "take", "clip"]),
    "repeat": (Function(lambda x: x.repeat(1, 2, 3)), SEQUENCE, None),
    "repeat_interleave": (Function(lambda x: x.repeat_interleave(2, 1)), SEQUENCE, None),
    "index_select": (Function(lambda x: x.index_select(1, torch.tensor([2, 0, 1, 1]))), SEQUENCE, ["take"]),
    "index": (Function(lambda x: x[:, [2, 0], :]), SEQUENCE, None),
    "index_grid": (Function(lambda x: x[:, :, torch.tensor([[1], [0]]), torch.tensor([3, 1, 1])]), IMAGE, ["take", "take"]),
    "local_response_norm": (nn.LocalResponseNorm(3, 0.5), IMAGE, None),
    "flatten": (Function(lambda x: x.flatten(1, 2).unflatten(1, (3, 9))), IMAGE, ["reshape", "reshape"]),
    "double": (Function(lambda x: x.double().float().relu()), IMAGE, ["clip"]),
}


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    model, shape, expected = CASES[name]
    graph = check(batch_norm(model), shape)
    if expected is not None:
        assert ops(graph) == expected


# What the decompositions write by operators that are not supported: slice_scatter, a product of merged axes, random slopes.
NOT_DECOMPOSED = {"circular", "matmul_vector", "rrelu"}


class Together(nn.Module):
    """The results of several modules for one input: decomposing is slow, once for all is quicker."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        results = [model(x) for model in self.models]
        return [y for result in results for y in (result if isinstance(result, tuple | list) else [result])]


@pytest.mark.parametrize("shape", sorted({shape for _, shape, _ in CASES.values()}))
def test_decomposed_operators(shape: tuple[int, ...]) -> None:
    models = [model for name, (model, wanted, _) in CASES.items() if wanted == shape and name not in NOT_DECOMPOSED]
    check(Together(models), shape, decomposed=True)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_embedding(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    graph = import_model(model, torch.zeros(2, 4, dtype=dtype))
    assert ops(graph) == ["embedding", "linear"]
    check_graph(graph, run(model), draw=whole_numbers)


def test_static_batch_of_constants() -> None:
    model = Function(lambda x: torch.cat((torch.ones(2, 1, 4), x.view(2, 3, 4)), 1) + torch.full((2, 1, 1), 3.0))
    imported = import_model(torch.export.export(model, (torch.randn(2, 3, 4),)))
    dynamic = Function(lambda x: torch.cat((torch.ones(len(x), 1, 4), x), 1) + 3)
    check_graph(imported, run(dynamic))


WHY = {
    "divide": (lambda x: x / x.mean(1, keepdim=True), "div.Tensor", "it divides by a tensor that is computed from the model's input and is no function of one tensor"),
    "floor_divide": (lambda x: torch.div(x, 2, rounding_mode="floor"), "div.Tensor_mode", "rounding_mode='floor' is not supported"),
    "layer_norm": (lambda x: F.layer_norm(x, (11,)), "layer_norm.default", "not supported: it normalizes by the statistics of its input"),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), "upsample_bicubic2d.vec", "not supported: only nearest and linear resizing are"),
    "variance": (lambda x: x.var(1), "var.dim", "it takes the variance of its input"),
    "mask": (lambda x: x[:, :, torch.eye(9, 11).bool()], "index.Tensor", "it chooses by truth values"),
    "indices": (lambda x: x.argmax(1) * 2, "mul.Tensor", "it reads the integers 'argmax', which only embeddings can read"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHY)
def test_why_unsupported(name: str) -> None:
    function, target, why = WHY[name]
    assert f"           forward (aten.{target}): {why}" in problem_of(Function(function), torch.randn(2, *IMAGE)).splitlines()


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: torch.cat((x, x), 0), "(aten.cat.default): it joins samples to the batch of f32[N,3]"),
        (lambda x: x.flip(0), "(aten.flip.default): it turns the batch of f32[N,3]"),
        (lambda x: x * x.shape[0], "(aten.mul.Tensor): it computes with a number that depends on the batch"),
        (lambda x: x.view(-1).relu(), "does not keep the batch in front"),
        (lambda x: x.repeat(2, 1), "(aten.repeat.default): it repeats f32[N,3] by (2, 1), which does not leave the batch alone"),
        (lambda x: x.topk(2, 0).values, "(aten.topk.default): it ranks over the batch of f32[N,3]"),
    ],
)
def test_why_the_batch_is_fixed(function: Callable[..., object], why: str) -> None:
    assert why in problem_of(torch.export.export(Function(function), (torch.randn(2, 3),), dynamic_shapes=(BATCH,)))


def test_tensors_stacked_in_front_of_the_batch_and_joined() -> None:
    def function(x: torch.Tensor) -> list[torch.Tensor]:
        stacked = torch.stack((x, x * 2, x.relu()))
        return [
            stacked.sum(0) + torch.stack((x, x.relu())).mean(0) + stacked[1],
            stacked.max(0).values + torch.hstack(stacked.unbind(0)[:2])[:, :3],
            torch.dstack((x, x)) + torch.column_stack((x, x)).reshape(-1, 3, 18, 11),
            x.tril(1) - x.triu(-1),
        ]

    check(Function(function), IMAGE)


def test_what_cannot_be_read_of_a_stack() -> None:
    text = problem_of(Function(lambda x: torch.stack((x, x)).relu().sum(0)), torch.randn(2, 3))
    assert "(aten.relu.default): it reads 2 tensors that are stacked in front of the batch" in text
    text = problem_of(Function(lambda x: F.layer_norm(x.reshape(2, -1), (9,))[:1]), torch.randn(2, 9))
    assert text.startswith("IMPORT001")
    assert "the batch cannot be made symbolic" in text
