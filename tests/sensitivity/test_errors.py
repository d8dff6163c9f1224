"""What is wrong with an analysis, in whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qcompiler.errors import CompileError, InternalError
from qcompiler.ir.graph import Stage, float_constant
from qcompiler.sensitivity.analyze import METRICS, sensitivities
from tests.sensitivity.networks import Tiny, TwoOutputs, calibrated, samples_of

X = samples_of(Tiny)[0]
LAYOUT = "pass one float32 array [samples, ...] for each input, in the model's own layout"


@pytest.mark.parametrize(
    ("options", "code", "problem", "remedy"),
    [
        ({"metric": "magic"}, "SENS001", "there is no metric 'magic'", f"choose one of {', '.join(METRICS)}"),
        ({"samples": [X[:0]]}, "SENS002", "there are no samples", "pass at least one sample; 64 to 512 are enough"),
        ({"samples": [X, X]}, "SENS003", "there are 2 arrays, the model has 1 inputs", LAYOUT),
        ({"samples": [X[:, :4]]}, "SENS003", "input x has shape [10, 4], the model takes [N, 5]", LAYOUT),
        ({"samples": [X[0]]}, "SENS003", "input x has shape [5], the model takes [N, 5]", LAYOUT),
        ({"samples": [X.astype(str)]}, "SENS003", "input x has elements of type <U32", LAYOUT),
        (
            {"samples": [X * np.float32(np.inf)]},
            "SENS003",
            "input x has NaN or infinite values",
            "remove or repair these samples",
        ),
        ({"labels": np.zeros(9, int)}, "SENS004", "the labels are int64[9], for 10 samples", "pass integers [10]"),
        ({"labels": np.zeros(10)}, "SENS004", "the labels are float64[10], for 10 samples", "pass integers [10]"),
        (
            {"labels": np.arange(10)},
            "SENS004",
            "the labels are 0 to 9, the network has 3 classes",
            "pass class numbers 0 to 2",
        ),
        ({"weight_bits": (3, 4)}, "SENS007", "weights of 3 bits have no quantizer", "choose of 2, 4, 8"),
        ({"activation_bits": (2,)}, "SENS007", "activations of 2 bits have no quantizer", "choose of 4, 8"),
    ],
)
def test_wishes(options: dict[str, Any], code: str, problem: str, remedy: str) -> None:
    with pytest.raises(CompileError) as caught:
        sensitivities(calibrated(Tiny), **{"samples": [X], **options})
    assert str(caught.value) == f"{code} at sensitivity\n  problem: {problem}\n  remedy:  {remedy}"


def test_inputs_with_different_numbers_of_samples() -> None:
    graph = calibrated(Tiny)
    two = replace(graph, inputs=(*graph.inputs, replace(graph.inputs[0], name="y")))
    with pytest.raises(CompileError) as caught:
        sensitivities(two, [X, X[:4]])
    assert str(caught.value) == (
        "SENS003 at sensitivity\n"
        "  problem: the inputs have [10, 4] samples\n"
        "  remedy:  pass equally many samples for every input"
    )  # fmt: skip


def test_regressions_have_no_classes() -> None:
    graph, samples = calibrated(TwoOutputs), samples_of(TwoOutputs)
    with pytest.raises(CompileError) as caught:
        sensitivities(graph, samples, "kl")
    assert str(caught.value) == (
        "SENS005 at sensitivity\n"
        "  problem: output right is f32[N,1]: it has no classes, so no probabilities to compare\n"
        "  remedy:  choose the metric 'mse' or 'sqnr'"
    )
    with pytest.raises(CompileError) as caught:
        sensitivities(graph, samples, "fisher", np.zeros(10, int))
    assert str(caught.value) == (
        "SENS004 at sensitivity\n"
        "  problem: labels are given, but the outputs (f32[N,3], f32[N,1]) are not the scores of one choice of classes\n"
        "  remedy:  leave the labels away"
    )


def test_scores_that_are_no_numbers() -> None:
    graph = calibrated(Tiny)
    bias = np.full(3, np.nan, np.float32)
    broken = replace(
        graph, constants=tuple(float_constant(c.name, bias) if c.name == "head.bias" else c for c in graph.constants)
    )
    with pytest.raises(CompileError) as caught:
        sensitivities(broken, [X], "mse")
    assert str(caught.value) == (
        "SENS008 at sensitivity (mse)\n"
        "  problem: the score of body.weight at 2 bits is nan\n"
        "  remedy:  check the samples and the model's parameters, or choose another metric"
    )


def test_another_stage_is_our_mistake() -> None:
    with pytest.raises(InternalError, match="is in stage float, not calibrated"):
        sensitivities(replace(calibrated(Tiny), stage=Stage.FLOAT), [X])
