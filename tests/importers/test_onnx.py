"""ONNX files and protos: every operator in old and new operator sets, shapes that are computed, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from qcompiler.errors import CompileError
from qcompiler.importers.builder import FinalActivation
from qcompiler.importers.load import import_model, load_model
from qcompiler.importers.rejections import SUPPORTED
from qcompiler.interpret import run_float
from tests.importers.check import problem_of
from tests.importers.onnx_models import check, constant_node, ints, model_of, node, normal, ops, shaped

W = normal(6, 3, 3, 2)
STATISTICS = {"s": normal(3), "b": normal(3), "m": normal(3), "v": np.abs(normal(3)) + 0.5}
BN = ("x", "s", "b", "m", "v")
LIMITS = {"lo": np.float32(-0.5), "hi": np.float32(0.25)}
LINEAR = {"w": normal(11, 4), "wt": normal(4, 11), "c": normal(4), "c1": normal(1, 4), "c0": np.float32(2)}
FLAT = ("batch", 11)
CEIL = {"kernel_shape": [3, 3], "strides": [2, 2]}
POOL = {"kernel_shape": [3, 2], "strides": [2, 2]}

CASES: dict[str, tuple[onnx.ModelProto, list[str]]] = {
    "conv": (model_of([node("Conv", "x", "w", pads=[1, 0, 2, 1], strides=[2, 1])], constants={"w": W}), ["conv2d"]),
    "conv_7": (model_of([node("Conv", "x", "w", "b")], constants={"w": W, "b": normal(6)}, opset=7), ["conv2d"]),
    "conv_depthwise": (
        model_of([node("Conv", "x", "w", group=3, dilations=[2, 2], auto_pad="VALID")], constants={"w": normal(6, 1, 3, 2)}),
        ["conv2d"],
    ),
    "conv_upper": (model_of([node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[2, 3])], constants={"w": W}), ["conv2d"]),
    "conv_lower": (model_of([node("Conv", "x", "w", auto_pad="SAME_LOWER", strides=[2, 2])], constants={"w": W}), ["conv2d"]),
    "gemm": (
        model_of([node("Gemm", "x", "w", "c", alpha=0.5, beta=2.0)], FLAT, {k: LINEAR[k] for k in ("w", "c")}),
        ["linear"],
    ),
    "gemm_t": (model_of([node("Gemm", "x", "wt", "c1", transB=1)], FLAT, {k: LINEAR[k] for k in ("wt", "c1")}), ["linear"]),
    "gemm_scalar": (model_of([node("Gemm", "x", "w", "c0")], FLAT, {k: LINEAR[k] for k in ("w", "c0")}), ["linear"]),
    "gemm_7": (model_of([node("Gemm", "x", "w", "c")], FLAT, {k: LINEAR[k] for k in ("w", "c")}, 7), ["linear"]),
    "matmul": (
        model_of(
            [node("MatMul", "x", "w", output="z"), node("Add", "c", "z")],
            ("batch", 3, 11),
            {k: LINEAR[k] for k in ("w", "c")},
        ),
        ["linear", "add"],
    ),
    "batch_norm": (model_of([node("BatchNormalization", *BN, epsilon=0.01)], constants=STATISTICS), ["batch_norm"]),
    "batch_norm_9": (model_of([node("BatchNormalization", *BN)], constants=STATISTICS, opset=9), ["batch_norm"]),
    "relu": (model_of([node("Relu")]), ["clip"]),
    "clip": (model_of([node("Clip", "x", "lo", "hi")], constants=LIMITS), ["clip"]),
    "clip_one": (model_of([node("Clip", "x", "", "hi")], constants={"hi": LIMITS["hi"]}), ["clip"]),
    "clip_7": (model_of([node("Clip", min=-0.5, max=0.25)], opset=7), ["clip"]),
    "add": (model_of([node("Relu", output="z"), node("Add", "x", "z")]), ["clip", "add"]),
    "max_pool": (model_of([node("MaxPool", pads=[1, 0, 2, 1], **POOL)]), ["max_pool2d"]),
    "max_pool_same": (model_of([node("MaxPool", auto_pad="SAME_LOWER", **POOL)]), ["max_pool2d"]),
    "max_pool_ceil": (model_of([node("MaxPool", ceil_mode=1, dilations=[2, 2], **POOL)]), ["max_pool2d"]),
    "max_pool_8": (model_of([node("MaxPool", **POOL)], opset=8), ["max_pool2d"]),
    "average": (model_of([node("AveragePool", pads=[1, 0, 2, 1], **POOL)]), ["average_pool2d"]),
    "average_include": (
        model_of([node("AveragePool", pads=[1, 0, 2, 1], count_include_pad=1, **POOL)]),
        ["average_pool2d"],
    ),
    "average_ceil": (model_of([node("AveragePool", ceil_mode=1, **POOL)], opset=19), ["average_pool2d"]),
    "average_ceil_include": (
        model_of([node("AveragePool", ceil_mode=1, count_include_pad=1, pads=[1, 1, 1, 1], **CEIL)], ("n", 3, 10, 12), opset=19),
        ["average_pool2d"],
    ),
    "average_same": (model_of([node("AveragePool", auto_pad="SAME_UPPER", **POOL)]), ["average_pool2d"]),
    "average_7": (model_of([node("AveragePool", **POOL)], opset=7), ["average_pool2d"]),
    "global_average": (model_of([node("GlobalAveragePool")]), ["mean"]),
    "global_max": (model_of([node("GlobalMaxPool")]), ["max_pool2d"]),
    "mean": (model_of([node("ReduceMean", axes=[-1, 2], keepdims=0)]), ["mean"]),
    "mean_18": (model_of([node("ReduceMean", "x", "a")], constants={"a": ints(2, 3)}, opset=18), ["mean"]),
    "mean_noop": (
        model_of([node("ReduceMean", output="z", noop_with_empty_axes=1), node("Relu", "z")], opset=18),
        ["clip"],
    ),
    "pad_7": (model_of([node("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 0], value=0.5)], opset=7), ["pad"]),
    "pad": (
        model_of([node("Pad", "x", "p", "c")], constants={"p": ints(0, 1, 0, 2, 0, 0, -3, 0), "c": np.float32(2)}),
        ["pad", "slice"],
    ),
    "pad_axes": (model_of([node("Pad", "x", "p", "", "a")], constants={"p": ints(1, 2), "a": ints(-1)}, opset=18), ["pad"]),
    "slice_7": (model_of([node("Slice", starts=[1, -4], ends=[9, -1], axes=[2, 3])], opset=7), ["slice"]),
    "slice": (
        model_of(
            [node("Slice", "x", "s", "e", "a", "t")],
            constants={"s": ints(0, 1), "e": ints(2**63 - 1, 2**31), "a": ints(0, -1), "t": ints(1, 3)},
        ),
        ["slice"],
    ),
    "reshape": (model_of([node("Reshape", "x", "s")], constants={"s": ints(0, -1, 11)}), ["reshape"]),
    "reshape_front": (model_of([node("Reshape", "x", "s")], constants={"s": ints(-1, 297)}), ["reshape"]),
    "flatten": (model_of([node("Flatten")]), ["reshape"]),
    "flatten_axis": (model_of([node("Flatten", axis=-1)], ("batch", 1, 5)), ["reshape"]),
    "squeeze_7": (model_of([node("Squeeze", axes=[2, 3])], ("batch", 5, 1, 1), opset=7), ["reshape"]),
    "squeeze": (model_of([node("Squeeze", "x", "a")], ("batch", 5, 1), {"a": ints(-1)}), ["reshape"]),
    "unsqueeze_7": (model_of([node("Unsqueeze", axes=[1, 3])], ("batch", 5), opset=7), ["reshape"]),
    "unsqueeze": (model_of([node("Unsqueeze", "x", "a")], ("batch", 5), {"a": ints(-1, 1)}), ["reshape"]),
    "identity": (model_of([node("Identity", output="z"), node("Dropout", "z")]), ["identity", "identity"]),
    "dropout_7": (model_of([node("Dropout", ratio=0.5)], opset=7), ["identity"]),
    "cast": (model_of([node("Cast", output="z", to=TensorProto.FLOAT), node("Relu", "z")]), ["clip"]),
    "transpose": (model_of([node("Transpose", perm=[0, 2, 3, 1])], ("batch", 5, 1, 1)), ["reshape"]),
    "transposed_weight": (
        model_of([node("Transpose", "wt", output="w"), node("MatMul", "x", "w")], FLAT, {"wt": LINEAR["wt"]}),
        ["linear"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    model, expected = CASES[name]
    graph = check(model)
    assert ops(graph) == expected
    assert graph.outputs == ("y",)
    assert [n.origin for n in graph.nodes][-1] == "y"


def flatten_by_shape(first: str = "n0") -> list[onnx.NodeProto]:
    """What exporters write for x.view(x.size(0), -1)."""
    return [
        node("Shape", output="shape"),
        constant_node("zero", 0),
        node("Gather", "shape", "zero", output="n0", axis=0),
        constant_node("rest", -1),
        node("Concat", first, "rest", output="target", axis=0),
        node("Reshape", "x", "target"),
    ]


def test_flatten_by_shape() -> None:
    assert ops(check(model_of(flatten_by_shape()))) == ["reshape"]


def test_flatten_by_shape_with_a_scalar_and_arithmetic() -> None:
    nodes = [
        node("Shape", output="shape"),
        node("Gather", "shape", "scalar", output="n", axis=0),
        node("Unsqueeze", "n", "axis", output="n1"),
        node("Slice", "shape", "one", "end", output="tail"),
        node("ReduceProd", "tail", output="features", keepdims=1),
        node("Div", "features", "three", output="third"),
        node("Cast", "n1", output="n2", to=TensorProto.INT64),
        node("Concat", "n2", "three", "third", output="target", axis=0),
        node("Reshape", "x", "target"),
    ]
    constants = {"scalar": np.int64(0), "axis": ints(0), "one": ints(1), "end": ints(9), "three": ints(3)}
    graph = check(model_of(nodes, constants={k: np.asarray(v) for k, v in constants.items()}))
    assert str(graph.nodes[-1].output.type) == "f32[N,3,99]"


@pytest.mark.parametrize("batch", [1, 4])
def test_static_batch(batch: int) -> None:
    nodes = [node("Reshape", "x", "s", output="z"), node("Relu", "z")]
    model = model_of(nodes, (batch, 3, 9, 11), {"s": ints(batch, -1, 27)})
    dynamic = model_of(nodes, constants={"s": ints(0, -1, 27)})
    assert ops(check(model, dynamic=dynamic)) == ["reshape", "clip"]
    check(model_of(flatten_by_shape(), (batch, 3, 9, 11)), dynamic=model_of(flatten_by_shape()))


def test_dynamic_padding_of_the_torch_exporter() -> None:
    nodes = [
        node("ConstantOfShape", "four", output="zeros", value=numpy_helper.from_array(ints(0))),
        node("Concat", "counts", "zeros", output="all", axis=0),
        node("Reshape", "all", "pairs", output="two"),
        node("Slice", "two", "last", "least", "axis0", "last", output="turned"),
        node("Transpose", "turned", output="columns", perm=[1, 0]),
        node("Reshape", "columns", "last", output="row"),
        node("Cast", "row", output="pads", to=TensorProto.INT64),
        node("Pad", "x", "pads", ""),
    ]
    constants = {"four": ints(4), "counts": ints(0, 1, 2, 3), "pairs": ints(-1, 2), "last": ints(-1), "axis0": ints(0)}
    graph = check(model_of(nodes, constants={**constants, "least": ints(-(2**63) + 1)}))
    assert (graph.nodes[0]["before"], graph.nodes[0]["after"]) == ((0, 0, 2, 0), (0, 0, 3, 1))


def test_initializers_listed_as_inputs_are_constants() -> None:
    info = helper.make_tensor_value_info("w", TensorProto.FLOAT, [11, 4])
    graph = import_model(model_of([node("MatMul", "x", "w")], FLAT, {"w": LINEAR["w"]}, inputs=[info]))
    assert [v.name for v in graph.inputs] == ["x"]


def test_several_inputs_and_outputs() -> None:
    info = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 3, 1, 11])
    model = model_of([node("Add", "x", "z"), node("Relu", "x", output="r")], inputs=[info])
    model.graph.output.extend([helper.make_tensor_value_info("r", TensorProto.FLOAT, None)])
    graph = check(shaped(model))
    assert graph.outputs == ("y", "r")


def test_nodes_that_no_output_needs_are_left_out() -> None:
    assert ops(check(model_of([node("Sigmoid", output="unused"), node("Relu")]))) == ["clip"]


def test_local_functions_are_inlined() -> None:
    model = model_of([helper.make_node("Twice", ["x"], ["y"], "twice", domain="custom")])
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Add", ["b", "b"], ["c"])]
    model.functions.append(helper.make_function("custom", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 17)]))
    assert ops(check(model)) == ["clip", "add"]


@pytest.mark.parametrize(("op", "function"), [("Softmax", "softmax"), ("LogSoftmax", "log_softmax")])
def test_final_softmax(op: str, function: str) -> None:
    model = model_of([node("Relu", output="z"), node(op, "z", name="prob")], ("N", 5))
    imported = load_model(model)
    assert ops(imported.graph) == ["clip"]
    assert imported.final_activations == (FinalActivation(0, function, 1, "prob"),)  # type: ignore[arg-type]
    note = f"the {function} prob at the end is not compiled: output 0 has its operand, with the same argmax"
    assert imported.notes == (note,)
    x = normal(3, 5)
    (ours,) = run_float(imported.graph, [torch.from_numpy(x)])
    (theirs,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    assert np.allclose(getattr(torch, function)(ours, 1).numpy(), theirs, atol=1e-5)


def test_path_with_external_data(tmp_path: Path) -> None:
    model = model_of([node("MatMul", "x", "w")], FLAT, {"w": LINEAR["w"]})
    path = tmp_path / "classifier.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    graph = import_model(str(path))
    assert graph.name == "classifier"
    assert np.array_equal(graph.constants[0].data, LINEAR["w"].T)
    loaded = onnx.load(path, load_external_data=False)
    assert problem_of(loaded) == (
        "IMPORT002 at net\n"
        "  problem: the weights of this ModelProto lie in files that it does not name fully\n"
        "  remedy:  pass the path of the file, or call onnx.load_external_data_for_model"
    )
    (tmp_path / "weights.bin").unlink()
    assert problem_of(path).startswith(f"IMPORT002 at {path}\n  problem: its external data cannot be read: ")


def test_all_unsupported_operators_at_once() -> None:
    nodes = [
        node("Conv", "x", "w", output="a", name="/stem/Conv"),
        node("LayerNormalization", "a", "g", output="b", name="/norm/LayerNormalization"),
        node("Softmax", "b", output="d", name="/attention/Softmax"),
        helper.make_node("Fancy", ["d"], ["e"], domain="custom"),
        node("Pad", "a", "p", output="f", name="/edge/Pad", mode="reflect"),
        node("Add", "e", "f"),
    ]
    model = model_of(nodes, constants={"w": normal(3, 3, 1, 1), "p": ints(0, 0, 9, 1, 0, 0, 1, 1), "g": normal(11)})
    assert problem_of(model) == (
        "IMPORT001 at net\n"
        "  problem: 4 operators are not supported:\n"
        "           /norm/LayerNormalization (LayerNormalization): not supported: it normalizes by the statistics of its input\n"
        "           /attention/Softmax (Softmax): supported only as the model's last step, or before argmax or topk over the same"
        " axis, not the batch\n"
        "           e (custom.Fancy): not supported\n"
        "           /edge/Pad (Pad): it reflects 9 elements of an axis of 9\n"
        f"  remedy:  replace them, or cut the model before them; supported are {SUPPORTED}"
    )


SEQUENCE = ("batch", 3, 9)
WHY: dict[str, tuple[onnx.ModelProto, str]] = {
    "weight": (
        model_of([node("Conv", "x", "x")], ("batch", 3, 1, 1)),
        "(Conv): the weight is computed from the model's input, only constants are supported",
    ),
    "trans_a": (
        model_of([node("Gemm", "x", "w", transA=1)], FLAT, {"w": normal(3, 4)}),
        "(Gemm): transA=1 is not supported: the batch would not be in front",
    ),
    "bias": (
        model_of([node("Gemm", "x", "w", "c")], FLAT, {"w": LINEAR["w"], "c": normal(3, 1)}),
        "(Gemm): the bias [3,1] is not one number for each of 4 features",
    ),
    "training": (
        model_of([node("BatchNormalization", *BN, training_mode=1)], constants=STATISTICS),
        "(BatchNormalization): it is in training mode; export the model for inference",
    ),
    "spatial": (
        model_of([node("BatchNormalization", *BN, spatial=0)], constants=STATISTICS, opset=7),
        "(BatchNormalization): spatial=0 is not supported",
    ),
    "dropout": (
        model_of([node("Dropout", "x", "", "t")], constants={"t": np.array(True)}),
        "(Dropout): it is in training mode; export the model for inference",
    ),
    "dilation": (
        model_of([node("AveragePool", dilations=[2, 2], kernel_shape=[2, 2], ceil_mode=1)], opset=19),
        "(AveragePool): dilations (2, 2) with ceil_mode, or with padding that is not counted, are not supported",
    ),
    "all": (model_of([node("ReduceMean")]), "(ReduceMean): it averages over the batch of f32[N,3,9,11]"),
    "cast": (
        model_of([node("Cast", output="z", to=TensorProto.INT32), node("Cast", "z", to=TensorProto.FLOAT)]),
        "z (Cast): it converts activations to int32",
    ),
    "softmax_11": (
        model_of([node("Softmax")], SEQUENCE, opset=11),
        "(Softmax): before operator set 13 a softmax of f32[N,3,9] from axis 1 on is not supported",
    ),
    "random": (
        model_of([helper.make_node("RandomNormal", [], ["r"], shape=[1]), node("Add", "x", "r")]),
        "r (RandomNormal): random values are not supported",
    ),
    "window": (
        model_of([node("MaxPool", kernel_shape=[12, 2])]),
        "(MaxPool): a window of 12 does not fit 9 elements padded by 0 and 0",
    ),
    "output": (model_of([node("Relu", "c")], constants={"c": normal(3)}), "(output 0): does not depend on the input"),
}


@pytest.mark.parametrize("name", WHY)
def test_why_unsupported(name: str) -> None:
    model, why = WHY[name]
    assert f"{why}\n" in problem_of(model)


def test_indices_of_max_pooling() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "indices"], "pool", kernel_shape=[2, 2])
    model = model_of([pool])
    model.graph.output.extend([helper.make_tensor_value_info("indices", TensorProto.INT64, None)])
    assert "pool (MaxPool): its second output (indices) is not supported\n" in problem_of(shaped(model))


def test_fixed_batch_is_rejected_by_name() -> None:
    assert problem_of(model_of([node("Reshape", "x", "s", name="/head/Reshape")], constants={"s": ints(1, -1)})) == (
        "IMPORT005 at net\n"
        "  problem: the batch cannot be made symbolic:\n"
        "           /head/Reshape (Reshape): it reshapes f32[N,3,9,11] to [1,-1], which does not keep the batch in front\n"
        "  remedy:  keep the batch as the first dimension and write it as -1 or x.size(0) in reshapes"
    )


FIXED: dict[str, tuple[onnx.ModelProto, str]] = {
    "flatten": (model_of([node("Flatten", axis=2)]), "(Flatten): it flattens f32[N,3,9,11] from axis 2 on"),
    "squeeze": (model_of([node("Squeeze")], (1, 3, 1)), "(Squeeze): it takes the batch of 1 away"),
    "slice": (
        model_of([node("Slice", starts=[0], ends=[1])], opset=7),
        "(Slice): it slices the batch by [0:1:1]",
    ),
    "pad": (model_of([node("Pad", pads=[1, 0, 0, 0])], ("batch", 3), opset=7), "(Pad): it pads the batch by 1 and 0"),
    "transpose": (
        model_of([node("Transpose", perm=[1, 0, 2])], ("batch", 1, 4)),
        "(Transpose): it moves the batch of f32[N,1,4] by (1, 0, 2)",
    ),
    "add": (
        model_of([node("Add", "x", "c")], ("batch", 3), {"c": normal(2, 1, 3)}),
        "(Add): its result f32[2,N,3] does not have the batch in front",
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_why_the_batch_is_fixed(name: str) -> None:
    model, why = FIXED[name]
    text = problem_of(model)
    assert text.startswith("IMPORT005 at net\n")
    assert why in text


def test_bad_paths(tmp_path: Path) -> None:
    remedy = "  remedy:  pass the path of an ONNX file (with its external data beside it), or another model"
    missing, text, empty = tmp_path / "no.onnx", tmp_path / "text.onnx", tmp_path / "empty.onnx"
    text.write_text("not a model")
    empty.write_bytes(b"")
    assert problem_of(missing) == f"IMPORT002 at {missing}\n  problem: there is no such file\n{remedy}"
    assert problem_of(str(text)) == f"IMPORT002 at {text}\n  problem: the file is not an ONNX model\n{remedy}"
    assert problem_of(empty) == (
        "IMPORT002 at empty\n"
        "  problem: the file is not an ONNX model: it has no graph with nodes\n"
        "  remedy:  check the file with onnx.checker.check_model, or export the model again"
    )


def test_models_that_the_checker_rejects() -> None:
    lines = problem_of(model_of([node("Conv", "x")])).splitlines()
    assert lines[0] == "IMPORT002 at net"
    assert lines[1].startswith("  problem: the ONNX checker rejects the model: ")


def test_examples_say_sizes_that_the_model_leaves_open() -> None:
    model = model_of([node("Relu")], ("N", 3, "height", None))
    x = np.zeros((2, 3, 5, 7), np.float32)
    for examples in (x, (x,), {"x": x}, torch.from_numpy(x)):
        assert import_model(model, examples).inputs[0].type.shape == ("N", 3, 5, 7)
    with pytest.raises(CompileError) as caught:
        import_model(model, x[:, :2])
    assert str(caught.value) == (
        "IMPORT003 at net, input x\n  problem: the example input is [2,2,5,7], the model takes [N,3,height,?]\n"
        "  remedy:  pass an example with the model's own sizes, the batch in front"
    )


def test_a_softmax_before_an_identity_is_the_last_step() -> None:
    model = model_of([node("Softmax", output="s"), node("Identity", "s")], ("N", 3))
    assert load_model(model).final_activations[0].function == "softmax"


def test_inputs() -> None:
    assert problem_of(model_of([node("Not")], type=TensorProto.BOOL)) == (
        "IMPORT007 at net, input x\n"
        "  problem: the input has elements of type bool, not float32\n"
        "  remedy:  export the model with float32 inputs"
    )
    assert problem_of(model_of([node("Relu")], ("N", 3, "height", None))) == (
        "IMPORT006 at net, input x\n"
        "  problem: the input is [N,3,height,?]: only the batch may be dynamic\n"
        "  remedy:  give example_inputs (calibration samples serve too): their sizes are taken, or set them in the model"
    )
    assert problem_of(model_of([node("Relu")], ())) == (
        "IMPORT005 at net, input x\n  problem: the input is a scalar, so no batch\n  remedy:  give it a batch in front"
    )
    other = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])
    assert problem_of(model_of([node("Add", "x", "z")], (4, 3), inputs=[other])) == (
        "IMPORT005 at net, input z\n"
        "  problem: the input has a batch of 2, the inputs before it of 4\n"
        "  remedy:  export all inputs with the same batch dimension in front"
    )


@pytest.mark.data
@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet56", "dscnn_kws"])
def test_real_model(name: str, data_folder: Path) -> None:
    path = data_folder / f"{name}.onnx"
    graph = check(onnx.load(path))
    assert graph.outputs == ("logits",)
    assert import_model(path).name == name
    assert set(ops(graph)) <= {"conv2d", "clip", "add", "mean", "reshape", "linear", "pad", "slice"}
