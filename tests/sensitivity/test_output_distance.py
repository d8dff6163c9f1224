"""Output distances are those of really quantizing one tensor and running the whole graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import Graph, Node, TensorType, Value
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.activation_codes import choose_codes
from qcompiler.passes.weight_codes import rounded_weights
from qcompiler.sensitivity.analyze import sensitivities
from qcompiler.sensitivity.candidates import with_class_bits
from qcompiler.sensitivity.output_distance import METRICS
from tests.sensitivity.networks import Mixed, TwoOutputs, calibrated, plain_run, samples_of


def quantized_run(graph: Graph, x: torch.Tensor, name: str, bits: int) -> list[torch.Tensor]:
    if name in graph.constant:
        rounded = torch.from_numpy(rounded_weights(graph.constant[name].data, bits).astype(np.float32))
        return plain_run(graph, [x], weights={name: rounded})
    members = CLASSES[name]
    codes = choose_codes(with_class_bits(graph, members, bits), 16)
    return plain_run(graph, [x], codes={member: codes[member] for member in members})


CLASSES = {
    "x": ["x"],
    "relu": ["relu"],
    "relu_1": ["relu_1", "max_pool2d"],
    "third": ["third"],
    "sigmoid": ["sigmoid", "cat"],
    "mean.pooled": ["mean.pooled", "mean"],
}
"""Of ``Mixed``. The second convolution's sums go into the addition as they are; the pooled part is read twice."""


@pytest.mark.parametrize("metric", METRICS)
def test_of_every_tensor(metric: str) -> None:
    graph, (x,) = calibrated(Mixed), samples_of(Mixed)
    table = sensitivities(graph, [x], metric)
    assert list(table.weights) == ["first.weight", "second.weight", "third.weight", "head.weight"]
    assert list(table.activations) == list(CLASSES)
    exact = plain_run(graph, [torch.from_numpy(x)])[0].to(torch.float64)
    for name, by_bits in {**table.weights, **table.activations}.items():
        assert list(by_bits) == ([2, 4, 8] if name in graph.constant else [4, 8])
        for bits, score in by_bits.items():
            found = quantized_run(graph, torch.from_numpy(x), name, bits)[0].to(torch.float64)
            each = (exact - found).square().mean(1)
            if metric == "sqnr":
                each = each / exact.square().mean()
            if metric == "kl":
                each = (exact.softmax(1) * (exact.log_softmax(1) - found.log_softmax(1))).sum(1)
            assert score == pytest.approx(float(each.mean()), rel=1e-9)
            assert table.errors[name][bits] == pytest.approx(float(each.std()) / len(x) ** 0.5, rel=1e-6)
        assert by_bits[4] > by_bits[8] > 0.0


def test_several_outputs_are_summed() -> None:
    graph, (x,) = calibrated(TwoOutputs), samples_of(TwoOutputs)
    exact = plain_run(graph, [torch.from_numpy(x)])
    found = quantized_run(graph, torch.from_numpy(x), "body.weight", 2)
    errors = [float((a.double() - b.double()).square().mean()) for a, b in zip(exact, found, strict=True)]
    powers = [float(a.double().square().mean()) for a in exact]
    mse = sensitivities(graph, [x], "mse").weights
    assert mse["body.weight"][2] == pytest.approx(sum(errors), rel=1e-9)
    ratio = sum(error / power for error, power in zip(errors, powers, strict=True))
    assert sensitivities(graph, [x], "sqnr").weights["body.weight"][2] == pytest.approx(ratio, rel=1e-9)
    assert set(mse) == {"body.weight", "left.weight", "right.weight"}


def test_the_default_is_the_divergence_of_classes_or_the_ratio_of_powers() -> None:
    for kind, metric in ((Mixed, "kl"), (TwoOutputs, "sqnr")):
        graph, samples = calibrated(kind), samples_of(kind)
        assert sensitivities(graph, samples) == sensitivities(graph, samples, metric)
        assert sensitivities(graph, samples).metric == metric


@pytest.mark.parametrize("op", ["argmax", "topk_indices", "topk_values"])
def test_what_is_ranked_is_compared_instead_of_its_ranks(op: str) -> None:
    graph, samples = calibrated(Mixed), samples_of(Mixed)
    shape, attributes = (("N",), ("keepdims", 0)) if op == "argmax" else (("N", 2), ("k", 2))
    ranks = Value("ranks", TensorType(F32, shape), range=(0.0, 4.0))
    last = Node(op, ("head",), (ranks,), (("axis", 1), attributes))
    ranked = replace(graph, nodes=(*graph.nodes, last), outputs=("ranks",))
    verify(ranked, OPERATORS)
    assert sensitivities(ranked, samples, "kl").weights == sensitivities(graph, samples, "kl").weights
    assert sensitivities(ranked, samples, "fisher").weights == sensitivities(graph, samples, "fisher").weights


def test_more_samples_than_a_batch() -> None:
    graph, (x,) = calibrated(Mixed), samples_of(Mixed, 70)
    table = sensitivities(graph, [x], "kl", weight_bits=(4,), activation_bits=())
    parts = [sensitivities(graph, [part], "kl", weight_bits=(4,), activation_bits=()) for part in (x[:64], x[64:])]
    assert table.activations == {}
    assert table.samples == 70
    for name, by_bits in table.weights.items():
        assert by_bits[4] == pytest.approx(sum(p.weights[name][4] * p.samples for p in parts) / 70, rel=1e-12)
    assert table == sensitivities(graph, [x], "kl", weight_bits=(4,), activation_bits=())


def test_a_single_sample_has_no_standard_error() -> None:
    assert sensitivities(calibrated(Mixed), samples_of(Mixed, 1), "kl").errors == {}
