"""``export_onnx`` and ``qcompiler export``: what they take, what they write, and what they say when they cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import qcompiler as qc
from qcompiler import cli
from qcompiler.dump import Dumper
from qcompiler.exporters.onnx_model import to_onnx, write_onnx
from qcompiler.importers.builder import FinalActivation
from qcompiler.importers.load import load_model
from qcompiler.ir.graph import Graph, Node

from .conftest import Digits, compare, integer_graph, run_onnx


class Net(nn.Module):
    """A residual addition of a convolution, an 8-bit value that leaves too, and a softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.first(x))
        z = torch.relu(self.second(y) + y)
        return torch.softmax(self.head(z.mean((2, 3))), 1), z


DATA = np.random.default_rng(0).normal(size=(8, 3, 6, 6)).astype(np.float32)


def test_a_module_goes_in_and_a_runnable_file_comes_out(tmp_path: Path) -> None:
    path = qc.export_onnx(Net(), tmp_path / "net.onnx", calibration=DATA, bits="w4a8")
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    onnx.checker.check_model(path, full_check=True)
    probabilities, features = run_onnx(path, DATA)
    with torch.no_grad():
        expected, z = Net()(torch.from_numpy(DATA))
    np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)
    assert np.abs(probabilities - expected.numpy()).max() < 0.05
    assert np.abs(features - z.numpy()).mean() < 0.1 * np.abs(z.numpy()).mean()


def test_a_file_does_not_depend_on_the_run(tmp_path: Path) -> None:
    first, second = (qc.export_onnx(Net(), tmp_path / name, calibration=DATA) for name in ("a.onnx", "b.onnx"))
    assert first.read_bytes() == second.read_bytes()


def test_dumps_of_all_stages_and_graphs(tmp_path: Path) -> None:
    qc.build(Net(), calibration=DATA, out=tmp_path / "build", dump_ir=tmp_path / "dumps", progress=False, name="net")
    whole = qc.export_onnx(Net(), tmp_path / "net.onnx", calibration=DATA, name="net")
    with torch.no_grad():
        z = Net()(torch.from_numpy(DATA))[1].numpy()
    for dump in sorted((tmp_path / "dumps").glob("*.qir")):
        if " stage=integer " not in dump.read_text(encoding="utf-8"):
            path = qc.export_onnx(dump, tmp_path / "float.onnx", as_float=True)
            np.testing.assert_allclose(run_onnx(path, DATA)[1], z, rtol=1e-2, atol=1e-2)
        path = qc.export_onnx(dump, tmp_path / "dump.onnx", calibration=DATA)
        np.testing.assert_allclose(run_onnx(path, DATA)[1], run_onnx(whole, DATA)[1], atol=0.05)


def test_float_export_of_an_integer_dump(tmp_path: Path) -> None:
    graph = integer_graph(Net(), DATA)
    with pytest.raises(qc.CompileError) as caught:
        qc.export_onnx(graph, tmp_path / "net.onnx", as_float=True)
    assert str(caught.value) == (
        "OPTION004 at as_float\n  problem: net is a graph of integers\n"
        "  remedy:  export a dump of an earlier stage, or the model itself"
    )
    assert list(tmp_path.iterdir()) == []


def test_operators_without_an_emitter_are_named_at_once() -> None:
    graph = integer_graph(Net(), DATA)
    odd = [replace(node, op=f"odd_{node.op}") if node.op == "conv2d" else node for node in graph.nodes]
    with pytest.raises(qc.CompileError) as caught:
        to_onnx(graph.with_nodes(odd))
    text = str(caught.value)
    assert text.startswith(
        f"EXPORT001 at {graph.name}\n  problem: 2 operators cannot be written as ONNX:\n"
        "           first (odd_conv2d)\n           second (odd_conv2d)\n  remedy:  replace them; known are add, "
    )


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    model = to_onnx(integer_graph(Net(), DATA))
    with pytest.raises(qc.CompileError) as caught:
        write_onnx(model, tmp_path / "missing" / "net.onnx")
    assert str(caught.value) == (
        f"EXPORT002 at {tmp_path / 'missing' / 'net.onnx'}\n  problem: the file cannot be written: No such file or directory\n"
        "  remedy:  name a file in a folder that exists and can be written"
    )


def test_the_softmax_at_the_end_has_the_outputs_name() -> None:
    graph = load_model(nn.Linear(4, 3), torch.zeros(1, 4)).graph
    model = to_onnx(graph, [FinalActivation(0, "log_softmax", 1, "last")])
    assert [o.name for o in model.graph.output] == list(graph.outputs)
    assert (model.graph.node[-1].op_type, model.graph.node[-1].name) == ("LogSoftmax", "last")


def test_biases_are_the_users() -> None:
    graph = integer_graph(Net(), DATA)
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in to_onnx(graph).graph.initializer}
    for layer, bias in (("first", Net().first.bias), ("second", Net().second.bias), ("head", Net().head.bias)):
        assert bias is not None
        node = next(n for n in graph.nodes if n.origin.startswith(layer) and n.op in ("conv2d", "linear"))
        name = node.inputs[2]
        assert stored[name].dtype == np.int32
        # Bias correction moves them by a little.
        np.testing.assert_allclose(stored[name] * stored[f"{name}.scale"], bias.detach().numpy(), atol=0.02)


def test_a_layer_without_a_bias_and_one_whose_scales_are_the_multipliers(
    digits: Digits, digits_graph: Callable[..., Graph]
) -> None:
    graph = digits_graph("w8a8", 8)
    bare = [replace(n, inputs=n.inputs[:2]) if n.op == "linear" else n for n in graph.nodes]
    model = to_onnx(graph.with_nodes(bare))
    gemm = next(n for n in model.graph.node if n.op_type == "Gemm")
    assert len(gemm.input) == 2
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    for constant in graph.constants:
        if constant.scale is not None:
            np.testing.assert_allclose(stored[f"{constant.name}.scale"], constant.scale, rtol=0.05)


def test_wide_outputs_keep_their_clamp() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6())
    data = DATA * 4
    for output_bits in (8, 16, 32):
        graph = integer_graph(model, data, output_bits=output_bits)
        found = compare(graph, to_onnx(graph), data)
        real = found.found * (graph.values[graph.outputs[0]].scale or 0.0)
        assert (real.min(), real.max()) == (pytest.approx(0.0, abs=1e-6), pytest.approx(6.0, rel=1e-2))
        assert np.abs(found.expected - found.found).max() <= (1.01 if output_bits == 8 else 300 if output_bits == 16 else np.inf)


def test_an_input_that_is_an_output() -> None:
    graph = integer_graph(nn.Conv2d(3, 4, 1), DATA)
    both = replace(graph, outputs=(graph.inputs[0].name, *graph.outputs))
    model = to_onnx(both)
    assert model.graph.output[0].name == f"{graph.inputs[0].name}.output"
    assert np.abs(run_onnx(model, DATA)[0] - DATA).max() < 0.1


def test_the_command(tmp_path: Path) -> None:
    onnx.save(
        onnx.shape_inference.infer_shapes(to_onnx(load_model(Net().second, torch.zeros(1, 8, 6, 6)).graph)), tmp_path / "net.onnx"
    )
    np.save(tmp_path / "inputs.npy", np.abs(np.random.default_rng(0).normal(size=(4, 8, 6, 6))).astype(np.float32))

    def invoke(*arguments: object) -> str:
        done = CliRunner().invoke(cli.app, ["export", *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.stdout

    source, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    assert invoke(source, "--out", out, "--calibration", tmp_path / "inputs.npy", "--bits", "w4a4") == f"written: {out}\n"
    kinds = {i.data_type for i in onnx.load(out).graph.initializer}
    assert {onnx.TensorProto.INT4, onnx.TensorProto.UINT4} <= kinds
    facts = json.loads(invoke(source, "--out", out, "--float", "--json"))
    assert facts == {"file": str(out), "bytes": out.stat().st_size}
    assert {n.op_type for n in onnx.load(out).graph.node} == {"Conv"}
    dump = Dumper(tmp_path / "dumps")
    dump.graph("import", load_model(source, None).graph)
    invoke(tmp_path / "dumps" / "00-import.qir", "--out", out, "--float")


def test_names_that_operators_need_too() -> None:
    graph = load_model(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 2, 2)).graph
    (node,) = graph.nodes
    clash = Node("identity", (node.output.name,), (replace(node.output, name="y.scale"),))
    both = replace(graph, outputs=("y.scale",)).with_nodes([*graph.nodes, clash])
    assert [o.name for o in to_onnx(both).graph.output] == ["y.scale"]
