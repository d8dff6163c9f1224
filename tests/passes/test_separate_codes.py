"""Concatenations of unlike values: no part costs another one, or what either is moved from, its precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import pytest
import torch

from qcompiler.bits import Bits
from qcompiler.importers.load import import_model
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.graph import Graph, Stage
from qcompiler.passes.activation_classes import activation_classes
from qcompiler.pipeline import Settings, to_integer
from qcompiler.report import sqnr_db
from tests.importers.onnx_models import constant_node, ints, model_of, node

Array = np.ndarray[Any, Any]
Parts = Mapping[str, tuple[slice, slice, float]]
"""Of an output: from where to where along axis 1, and the least SQNR in dB."""

RNG: Final = np.random.default_rng(5)
SAMPLES: Final = RNG.normal(size=(16, 8, 4, 4)).astype(np.float32)
UNSEEN: Final = RNG.normal(size=(16, 8, 4, 4)).astype(np.float32)
CONSTANTS: Final = {
    "w": (RNG.normal(size=(8, 8, 1, 1)) / 2).astype(np.float32),
    "w4": (RNG.normal(size=(4, 4, 1, 1))).astype(np.float32),
    "w16": (RNG.normal(size=(8, 16, 1, 1)) / 4).astype(np.float32),
    "two_six": ints(2, 6),
    "halves": ints(4, 4),
    "hundred": np.float32(100),
    "half": np.float32(0.5),
    "ten": np.float32(10),
    "thirty": np.float32(30),
    "channels": np.linspace(1, 2, 8, dtype=np.float32).reshape(8, 1, 1),
    "thousands": np.full((1, 1, 4, 4), 5000, np.float32),
}
GATED: Final = (node("Conv", "x", "w", output="c"), node("Sigmoid", "c", output="g"))
SPLIT: Final = (
    onnx.helper.make_node("Split", ["g", "two_six"], ["a", "b"], "split", axis=1),
    node("Mul", "a", "hundred", output="d"),
)
RAISED: Final = node("Mul", "g", "hundred", output="d")
HALVES: Final = onnx.helper.make_node("Split", ["r", "halves"], ["a", "b"], "halves", axis=1)
RELU: Final = (node("Conv", "x", "w", output="c"), node("Relu", "c", output="r"))


def join(*names: str, output: str = "y", axis: int = 1) -> onnx.NodeProto:
    return node("Concat", *names, output=output, axis=axis)


CASES: Final[dict[str, tuple[Sequence[onnx.NodeProto], Mapping[tuple[int, int], float]]]] = {
    "split": ([*GATED, *SPLIT, join("d", "b")], {(0, 2): 38.0, (2, 8): 35.0}),
    "squared part": ([*GATED, *SPLIT, node("Mul", "d", "d", output="e"), join("e", "b")], {(0, 2): 35.0}),
    "exponential part": (
        [*RELU, HALVES, node("Mul", "b", "half", output="h"), node("Exp", "h", output="e"), node("Mul", "e", "thirty", output="d"),
         join("d", "a")],
        {(0, 4): 33.0, (4, 8): 30.0},
    ),
    "reshape": (
        [*GATED, RAISED, constant_node("s", -1, 16, 8), node("Reshape", "d", "s", output="e"),
         node("Reshape", "g", "s", output="f"), join("e", "f")],
        {(0, 16): 38.0, (16, 32): 35.0},
    ),
    "transpose": (
        [*GATED, RAISED, node("Transpose", "g", output="t", perm=[0, 1, 3, 2]), join("d", "t")],
        {(0, 8): 38.0, (8, 16): 35.0},
    ),
    "max pooling": (
        [*GATED, RAISED, node("MaxPool", "g", output="p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), join("d", "p")],
        {(0, 8): 38.0, (8, 16): 35.0},
    ),
    "levels": (  # inner concatenations, reshaped and joined, as heads of detectors have them
        [*GATED, *SPLIT, join("d", "b", output="j"), constant_node("s", -1, 8, 16), node("Reshape", "j", "s", output="k"),
         node("MaxPool", "k", output="m", kernel_shape=[2], strides=[2]), join("k", "m", axis=2)],
        {(0, 2): 35.0, (2, 8): 35.0},
    ),
    "crop beside a way up": (
        [*RELU, node("MaxPool", "r", output="p", kernel_shape=[2, 2], strides=[2, 2]), node("Conv", "p", "w", output="q"),
         node("Mul", "q", "thirty", output="u"), constant_node("st", 1, 1), constant_node("en", 3, 3), constant_node("ax", 2, 3),
         node("Slice", "r", "st", "en", "ax", output="k"), join("u", "k")],
        {(0, 8): 30.0, (8, 16): 30.0},
    ),
    "half goes through": (
        [*RELU, HALVES, node("Conv", "b", "w4", output="e"), node("Mul", "e", "thirty", output="d"), join("a", "d")],
        {(0, 4): 30.0, (4, 8): 30.0},
    ),
    "growing": (
        [*RELU, node("Mul", "r", "ten", output="i"), node("Conv", "i", "w", output="d"), join("r", "d", output="j"),
         node("Conv", "j", "w16", output="f"), node("Mul", "f", "ten", output="e"), join("j", "e")],
        {(8, 16): 25.0, (16, 24): 28.0},
    ),
    "constant": ([*GATED, join("g", "thousands")], {(8, 9): 60.0}),
    "an input": ([*GATED, RAISED, constant_node("st", 0), constant_node("en", 2), constant_node("ax", 1),
                  node("Slice", "x", "st", "en", "ax", output="k"), join("d", "k")], {(0, 8): 38.0, (8, 10): 35.0}),
    "slices of the whole": (
        [*GATED, *SPLIT, join("d", "b", output="j"), constant_node("st", 0), constant_node("en", 3), constant_node("ax", 1),
         node("Slice", "j", "st", "en", "ax")],
        {(0, 2): 38.0, (2, 3): 35.0},
    ),
    "slices that are assigned to": (
        [*GATED, *SPLIT, join("d", "b", output="j"), constant_node("ax", 1), *(constant_node(f"k{i}", i) for i in (0, 2, 4, 8)),
         node("Slice", "j", "k0", "k2", "ax", output="s"), node("Slice", "j", "k2", "k4", "ax", output="t"),
         node("Slice", "j", "k4", "k8", "ax", output="u"), node("Mul", "t", "thirty", output="v"), join("s", "v", "u")],
        {(0, 2): 38.0, (2, 4): 35.0, (4, 8): 35.0},
    ),
    "alone": ([*RELU, join("r")], {(0, 8): 35.0}),
    "clipped on the way out": ([*GATED, *SPLIT, join("d", "b", output="j"), node("Relu", "j")], {(0, 2): 38.0, (2, 8): 35.0}),
    "scaled on the way out": (
        [*GATED, *SPLIT, join("d", "b", output="j"), node("Mul", "j", "channels")], {(0, 2): 38.0, (2, 8): 30.0},
    ),
    "averaged on the way out": (
        [*GATED, *SPLIT, join("d", "b", output="j"), node("GlobalAveragePool", "j")], {(0, 2): 38.0, (2, 8): 35.0},
    ),
    "twice the same": ([*RELU, join("r", "r")], {(0, 8): 35.0, (8, 16): 35.0}),
}  # fmt: skip


def quantized(nodes: Sequence[onnx.NodeProto], **settings: Any) -> tuple[Graph, dict[Stage, Graph]]:
    """The imported graph, and the last graph of every stage."""
    read = {name for made in nodes for name in made.input}
    constants = {name: data for name, data in CONSTANTS.items() if name in read}
    graph = import_model(model_of(nodes, ("batch", 8, 4, 4), constants))
    stages: dict[Stage, Graph] = {}
    to_integer(
        graph, Settings(SAMPLES, "minmax", quality="fast", **settings), lambda _, found: stages.update({found.stage: found})
    )
    return graph, stages


def output_parts(graph: Graph, integer: Graph, ends: Sequence[tuple[int, int]]) -> list[float]:
    """SQNR of parts of the output along axis 1, in dB."""
    (expected,) = run_float(graph, [torch.from_numpy(UNSEEN)])
    (codes,) = run_integer(integer, [quantize_input(integer.inputs[0], UNSEEN)])
    found = dequantize(integer.values[integer.outputs[0]], codes)
    return [sqnr_db(expected.numpy()[:, start:stop], found[:, start:stop]) for start, stop in ends]


@pytest.mark.parametrize("name", CASES)
def test_every_part_of_an_output_keeps_its_precision(name: str) -> None:
    nodes, least = CASES[name]
    graph, stages = quantized(nodes)
    found = output_parts(graph, stages[Stage.INTEGER], list(least))
    assert all(quality > limit for quality, limit in zip(found, least.values(), strict=True)), found


def test_classes_are_the_same_at_every_stage_and_bits_change_nothing_about_them() -> None:
    """The range of 4 bits is another one, and so are learned ranges: what is shared was decided before."""
    _, stages = quantized([*GATED, *SPLIT, join("d", "b", output="j"), node("Conv", "j", "w")], pins={"y": Bits.parse("w4a4")})
    classes = activation_classes(stages[Stage.CALIBRATED])
    assert classes == activation_classes(stages[Stage.ALLOCATED])
    assert ("d", "j") in classes
    bits = {name: value.bits for name, value in stages[Stage.ALLOCATED].values.items()}
    assert (bits["d"], bits["j"], bits["g"], bits["split.1"]) == (4, 4, 8, 8)


def test_inside_of_a_network_other_readers_of_a_part_keep_their_precision() -> None:
    scaled = [*GATED, *SPLIT, join("d", "b", output="j"), node("Conv", "j", "w", output="z")]
    _, stages = quantized([*scaled, node("Relu", "z"), node("Exp", "a", output="unread")])
    scales = {name: value.scale or 0.0 for name, value in stages[Stage.INTEGER].values.items()}
    assert scales["g"] == scales["split.1"] < 0.005
    assert scales["d"] == scales["j"] > 0.3


def shared(nodes: Sequence[onnx.NodeProto]) -> bool:
    """Whether nothing is rescaled."""
    return not any(n.op == "rescale" for n in quantized(nodes)[1][Stage.INTEGER].nodes)


def test_sharing_stays_where_it_is_free() -> None:
    """Parts that nothing else reads, whatever their range; moved ones of about the same range; two readers of one source."""
    end = node("Conv", "j", "w")
    other = node("Conv", "x", "w", output="q")
    assert shared([*RELU, node("Conv", "r", "w", output="e"), node("Mul", "e", "hundred", output="d"), other,
                   join("d", "q", output="j"), node("Conv", "j", "w16")])  # fmt: skip
    assert shared([*RELU, HALVES, join("b", "a", output="j"), end])
    turned = [node("Transpose", "r", output=name, perm=[0, 1, 3, 2]) for name in "pq"]
    assert shared([*RELU, *turned, join("p", "p", output="j1"), join("q", "q", output="j2"),
                   node("Conv", "j1", "w16", output="y1"), node("Conv", "j2", "w16", output="y2"), node("Add", "y1", "y2")])  # fmt: skip
