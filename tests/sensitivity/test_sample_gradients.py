"""Fisher and Taylor scores against gradients that autograd gives for one tensor and one sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.ir.graph import Graph
from qcompiler.passes.activation_codes import choose_codes
from qcompiler.passes.weight_codes import rounded_weights
from qcompiler.sensitivity.analyze import sensitivities
from qcompiler.sensitivity.candidates import Candidates, with_class_bits
from qcompiler.sensitivity.draws import normal
from qcompiler.sensitivity.float_run import FloatRun, float_constants
from tests.sensitivity.networks import Mixed, TwoOutputs, calibrated, plain_run, samples_of

LABELS = np.arange(10) % 5


def weight_products(graph: Graph, x: np.ndarray, name: str, bits: int, labels: np.ndarray | None) -> list[torch.Tensor]:
    """Gradient times perturbation, element by element, for each sample."""
    data = graph.constant[name].data
    error = torch.from_numpy((rounded_weights(data, bits) - data).astype(np.float32))
    found = []
    for index in range(len(x)):
        weight = torch.tensor(data, requires_grad=True)
        (logits,) = plain_run(graph, [torch.from_numpy(x[index : index + 1])], weights={name: weight})
        label = logits.argmax(1) if labels is None else torch.from_numpy(labels[index : index + 1])
        torch.nn.functional.cross_entropy(logits, label).backward()
        assert weight.grad is not None
        found.append((weight.grad * error).to(torch.float64))
    return found


@pytest.mark.parametrize("labels", [None, LABELS], ids=["predicted", "labels"])
def test_weights(labels: np.ndarray | None) -> None:
    graph, (x,) = calibrated(Mixed), samples_of(Mixed)
    fisher, taylor = (sensitivities(graph, [x], metric, labels) for metric in ("fisher", "taylor"))
    for name in fisher.weights:
        for bits in (2, 4, 8):
            products = weight_products(graph, x, name, bits, labels)
            squares = [0.5 * float(p.square().sum()) for p in products]
            assert fisher.weights[name][bits] == pytest.approx(np.mean(squares), rel=1e-4)
            assert fisher.errors[name][bits] == pytest.approx(np.std(squares, ddof=1) / len(x) ** 0.5, rel=1e-4)
            assert taylor.weights[name][bits] == pytest.approx(np.mean([abs(float(p.sum())) for p in products]), rel=1e-3)


@pytest.mark.parametrize("name", ["x", "relu", "relu_1"])
def test_activations(name: str) -> None:
    """Rounding acts once on each class here: pooling and reshaping only move what was rounded."""
    graph, (x,) = calibrated(Mixed), samples_of(Mixed)
    table = sensitivities(graph, [x], "fisher", LABELS)
    codes = choose_codes(with_class_bits(graph, [name, "max_pool2d"] if name == "relu_1" else [name], 4), 16)[name]
    squares = []
    for index in range(len(x)):
        sample = [torch.from_numpy(x[index : index + 1])]
        values = FloatRun(graph, sample, float_constants(graph)).values
        shift = torch.zeros_like(values[name], requires_grad=True)
        (logits,) = plain_run(graph, sample, shifts={name: shift})
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS[index : index + 1])).backward()
        assert shift.grad is not None
        squares.append(0.5 * float((shift.grad * (codes.rounded(values[name]) - values[name])).square().sum()))
    assert table.activations[name][4] == pytest.approx(np.mean(squares), rel=1e-4)


def test_a_concatenation_adds_only_the_errors_of_parts_with_other_codes() -> None:
    """%cat has %sigmoid's class, whose errors count once; those of %max_pool2d begin at %cat."""
    graph, (x,) = calibrated(Mixed), samples_of(Mixed)
    candidates = Candidates(graph, (2,), (4,))
    values = FloatRun(graph, [torch.from_numpy(x)], float_constants(graph)).values
    errors = candidates.own_errors("sigmoid", 4, values)
    codes = candidates.codes("sigmoid", 4)["cat"]
    assert list(errors) == ["sigmoid", "cat"]
    assert torch.equal(errors["sigmoid"], codes.rounded(values["sigmoid"]) - values["sigmoid"])
    assert torch.equal(errors["cat"][:, :4], codes.rounded(values["max_pool2d"]) - values["max_pool2d"])
    assert errors["cat"][:, 4:].abs().max() < 1e-6
    assert list(candidates.own_errors("relu_1", 4, values)) == ["relu_1"]


def test_4_bits_have_the_range_of_4_bits() -> None:
    graph = calibrated(Mixed)
    value = graph.values["relu"]
    assert value.range4 is not None
    candidates = Candidates(graph, (2,), (4, 8))
    assert candidates.codes("relu", 4)["relu"].scale == pytest.approx(value.range4[1] / 15)
    assert value.range is not None
    assert candidates.codes("relu", 8)["relu"].scale == pytest.approx(value.range[1] / 255)


def test_regressions_have_noisy_targets() -> None:
    """The mean over many draws of the squared gradient is the Hessian's diagonal; each draw is that of its seed."""
    graph, (x,) = calibrated(TwoOutputs), samples_of(TwoOutputs, 400)
    table = sensitivities(graph, [x], "fisher", seed=5)
    assert table == sensitivities(graph, [x], "fisher", seed=5)
    assert table.weights != sensitivities(graph, [x], "fisher", seed=6).weights
    data = graph.constant["left.weight"].data
    error = torch.from_numpy((rounded_weights(data, 2) - data).astype(np.float32))
    values = FloatRun(graph, [torch.from_numpy(x)], float_constants(graph)).values
    exact = 0.5 * float((values["relu"].square() @ error.T.square()).sum()) / 3 / len(x)  # d2/dw2 of sum (w h - t)^2 / (2 * 3)
    assert table.weights["left.weight"][2] == pytest.approx(exact, abs=4 * table.errors["left.weight"][2])
    assert normal(5, "a", (3,)).tolist() == normal(5, "a", (3,)).tolist() != normal(5, "b", (3,)).tolist()
