"""ONNX files as people have them: weights in files beside them, more than memory holds twice, shapes that nobody wrote."""

from __future__ import annotations

import mmap
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from qcompiler.errors import CompileError
from qcompiler.importers import constant_data
from qcompiler.importers.constant_data import owned_data
from qcompiler.importers.load import import_model
from qcompiler.ir.graph import Graph
from tests.importers.check import problem_of
from tests.importers.onnx_models import check, ints, model_of, node, normal

CONSTANTS = {
    "w": normal(4, 3, 3, 3),
    "bias": normal(4).astype(np.float16),
    "shape": ints(0, -1),
    "m": normal(4 * 9 * 11, 20),
}
NODES = [
    node("Cast", "bias", output="b", to=TensorProto.FLOAT),
    node("Conv", "x", "w", "b", output="c", pads=[1, 1, 1, 1]),
    node("Reshape", "c", "shape", output="r"),
    node("MatMul", "r", "m"),
]


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def saved_outside(model: onnx.ModelProto, path: Path) -> Path:
    """The file of the model, with all its tensors in another file."""
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def data_of(graph: Graph) -> list[bytes]:
    return [constant.data.tobytes() for constant in graph.constants]


@pytest.mark.parametrize("shaped", [True, False])
def test_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shaped: bool) -> None:
    model = model_of(NODES, constants=CONSTANTS)
    expected = check(model)
    path = saved_outside(model if shaped else without_shapes(model), tmp_path / "net.onnx")
    checked: list[object] = []
    original = onnx.checker.check_model
    monkeypatch.setattr(onnx.checker, "check_model", lambda m: (checked.append(m), original(m)))
    monkeypatch.setattr(constant_data, "BLOCK", 100)
    graph = import_model(path)
    (tmp_path / "weights.bin").write_bytes(b"\xff" * (tmp_path / "weights.bin").stat().st_size)
    assert data_of(graph) == data_of(expected)
    (given,) = checked
    if shaped:
        assert given == str(path)
    else:
        assert isinstance(given, onnx.ModelProto)
        assert {x.name for x in given.graph.input} == {"x", "w", "m"}  # sizes stay constants


def test_a_model_in_memory_is_checked_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(onnx.checker, "check_model", lambda m: sizes.append(m.ByteSize()))
    import_model(model_of(NODES, constants=CONSTANTS))
    assert sizes[0] < 4096 < CONSTANTS["m"].nbytes


def test_weights_outside_are_in_memory_once(tmp_path: Path) -> None:
    weights = {name: normal(600, 600) for name in ("a", "b")} | {"half": normal(600, 100).astype(np.float16)}
    nodes = [
        node("MatMul", "x", "a", output="p"),
        node("Gemm", "p", "b", output="q", transB=1),
        node("Cast", "half", output="c", to=TensorProto.FLOAT),
        node("MatMul", "q", "c"),
    ]
    path = saved_outside(model_of(nodes, ("batch", 600), weights), tmp_path / "net.onnx")
    import_model(path)
    tracemalloc.start()
    graph = import_model(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * sum(constant.data.nbytes for constant in graph.constants)


def test_bytes_outside_that_do_not_fit_the_shape(tmp_path: Path) -> None:
    model = model_of([node("MatMul", "x", "m")], ("batch", 20), {"m": normal(20, 20)})
    path = saved_outside(model, tmp_path / "net.onnx")
    (tmp_path / "weights.bin").write_bytes(b"0" * 100)
    assert problem_of(path).splitlines()[1] == (
        "  problem: its external data cannot be read: the tensor 'm' is 1600 bytes from 0 on, but 'weights.bin' ends after 100"
    )


def test_mapped_data_is_copied_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(7 * 300, dtype=np.float32).reshape(7, 300)
    (tmp_path / "w").write_bytes(array.tobytes())
    with (tmp_path / "w").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = np.frombuffer(mapped, np.float32).reshape(7, 300)
    monkeypatch.setattr(constant_data, "BLOCK", 2500)
    for x in (view, view.T, view[::-1, 3:], view.reshape(7, 3, 100).transpose(2, 0, 1)):
        copy = owned_data(x, np.dtype(np.float32))
        assert copy.flags.c_contiguous
        assert not np.shares_memory(copy, view)
        np.testing.assert_array_equal(copy, x)


def test_only_what_nobody_can_write_to_is_not_copied() -> None:
    float32, array = np.dtype(np.float32), normal(4, 5)
    frozen = array.copy()
    frozen.setflags(write=False)
    read_only_view = array.view()
    read_only_view.setflags(write=False)
    from_bytes = np.frombuffer(array.tobytes(), np.float32).reshape(4, 5)
    assert [np.shares_memory(owned_data(x, float32), x) for x in (array, read_only_view, frozen, from_bytes, from_bytes.T)] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_inputs_and_outputs_without_a_shape() -> None:
    model = without_shapes(model_of([node("Conv", "x", "w")], constants={"w": CONSTANTS["w"]}))
    assert str(import_model(model).nodes[-1].output.type) == "f32[N,4,7,9]"
    model.graph.input[0].type.tensor_type.ClearField("shape")
    graph = import_model(model, np.zeros((2, 3, 5, 7), np.float32))
    assert graph.inputs[0].type.shape == ("N", 3, 5, 7)
    with pytest.raises(CompileError) as caught:
        import_model(model)
    assert str(caught.value) == (
        "IMPORT006 at net, input x\n  problem: the input has no shape\n"
        "  remedy:  give example_inputs (calibration samples serve too): their sizes are taken, or set them in the model"
    )


def test_layers_that_the_optimizer_of_onnx_runtime_fuses() -> None:
    def fused(op: str, *inputs: str, shape: tuple[int | str, ...] = ("batch", 3, 9, 11), **attributes: object) -> list[str]:
        made = node(op, *inputs, **attributes)
        made.domain = "com.microsoft"
        constants = {"w": CONSTANTS["w"], "b": normal(4), "g": normal(11, 4)}
        graph = check(model_of([made], shape, {name: constants[name] for name in inputs if name in constants}))
        assert graph.outputs == ("y",)
        return [n.op for n in graph.nodes]

    assert fused("FusedConv", "x", "w", "b", activation="Relu") == ["conv2d", "clip"]
    assert fused("FusedConv", "x", "w", activation="LeakyRelu", activation_params=[0.2]) == ["conv2d", "prelu"]
    assert fused("FusedConv", "x", "w", activation="HardSigmoid", activation_params=[0.3, 0.4]) == ["conv2d", "function"]
    gemm = {"shape": ("batch", 11), "activation": "LeakyRelu", "activation_alpha": 0.3}
    assert fused("FusedGemm", "x", "g", "b", **gemm) == ["linear", "prelu"]
    assert fused("BiasGelu", "x", "b", shape=("batch", 4)) == ["add", "function"]
    assert fused("QuickGelu", "x") == ["function"]
