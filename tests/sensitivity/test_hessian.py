"""Traces against whole Hessians of a network small enough for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.ir.graph import Graph
from qcompiler.sensitivity.analyze import make_problem, sensitivities
from qcompiler.sensitivity.cache import Measured
from qcompiler.sensitivity.draws import signs
from qcompiler.sensitivity.float_run import FloatRun, float_constants
from qcompiler.sensitivity.hessian import layer_traces
from tests.sensitivity.networks import Tiny, TwoOutputs, calibrated, plain_run, samples_of

LABELS = np.arange(12) % 3


def whole_hessian(graph: Graph, x: np.ndarray, name: str, labels: np.ndarray | None) -> torch.Tensor:
    """Of the mean cross entropy by the weights ``name``, ``[elements, elements]``."""
    inputs = [torch.from_numpy(x)]
    targets = plain_run(graph, inputs)[0].argmax(1) if labels is None else torch.from_numpy(labels)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(plain_run(graph, inputs, weights={name: weight})[0], targets)

    weight = torch.from_numpy(graph.constant[name].data.copy())
    return torch.func.hessian(loss)(weight).reshape(weight.numel(), weight.numel())


@pytest.mark.parametrize("labels", [None, LABELS], ids=["predicted", "labels"])
def test_traces_of_weights(labels: np.ndarray | None) -> None:
    graph, (x,) = calibrated(Tiny), samples_of(Tiny, 12)
    problem = make_problem(graph, [x], labels, (2,), (), None, 0, tolerance=0.0, maximum_probes=200)
    traces = layer_traces(problem, Measured(None))
    assert list(traces) == ["body.weight", "head.weight"]
    for name, found in traces.items():
        exact = float(whole_hessian(graph, x, name, labels).trace())
        assert 0.0 < found.error < 0.15 * abs(exact)
        assert found.trace == pytest.approx(exact, abs=3 * found.error)
        assert found.elements == graph.constant[name].data.size


def test_traces_of_activations_are_means_over_the_samples() -> None:
    graph, (x,) = calibrated(Tiny), samples_of(Tiny, 12)
    problem = make_problem(graph, [x], LABELS, (2,), (4,), None, 0, tolerance=0.0, maximum_probes=200)
    traces = layer_traces(problem, Measured(None))

    def loss(shift: torch.Tensor, sample: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        (logits,) = plain_run(graph, [sample], shifts={"body": shift})
        return torch.nn.functional.cross_entropy(logits, label)

    exact = []
    for index in range(len(x)):
        sample, label = torch.from_numpy(x[index : index + 1]), torch.from_numpy(LABELS[index : index + 1])
        hessian = torch.func.hessian(lambda shift, s=sample, t=label: loss(shift, s, t))(torch.zeros(1, 6))
        exact.append(float(hessian.reshape(6, 6).trace()))
    assert traces["body"].trace == pytest.approx(np.mean(exact), abs=3 * traces["body"].error)
    assert traces["body"].elements == 6
    assert set(traces) == {"body.weight", "head.weight", "x", "body", "tanh"}


def test_regressions_have_the_hessian_at_their_own_outputs() -> None:
    """``sum over outputs of |J|^2 / elements``: here of a linear layer, whose trace is that of the squared inputs."""
    graph, (x,) = calibrated(TwoOutputs), samples_of(TwoOutputs)
    problem = make_problem(graph, [x], None, (2,), (), None, 0, tolerance=0.0, maximum_probes=400)
    traces = layer_traces(problem, Measured(None))
    hidden = torch.relu(
        torch.from_numpy(x) @ torch.from_numpy(graph.constant["body.weight"].data.T.copy())
        + torch.from_numpy(graph.constant["body.bias"].data.copy())
    )
    assert traces["left.weight"].trace == pytest.approx(float(hidden.square().sum(1).mean()), abs=3 * traces["left.weight"].error)
    assert sensitivities(graph, [x], "hessian").weights["left.weight"][2] > 0


def test_scores_are_half_the_mean_curvature_times_the_squared_perturbation() -> None:
    graph, (x,) = calibrated(Tiny), samples_of(Tiny, 12)
    table = sensitivities(graph, [x], "hessian", LABELS, tolerance=0.0, maximum_probes=8)
    problem = make_problem(graph, [x], LABELS, (2, 4, 8), (4, 8), None, 0, 0.0, 8)
    traces = layer_traces(problem, Measured(None))
    assert traces["body.weight"].trace < 0.0 < traces["head.weight"].trace  # the labels are not what the network learned
    for name, trace in list(traces.items())[:2]:
        factor = 0.5 / trace.elements * float(problem.candidates.perturbation(name, 2).square().sum())
        assert table.weights[name][2] == pytest.approx(max(factor * trace.trace, 0.0))
        assert table.errors[name][2] == pytest.approx(factor * trace.error)
    assert set(table.activations) == {"x", "body", "tanh"}
    assert table == sensitivities(graph, [x], "hessian", LABELS, tolerance=0.0, maximum_probes=8)
    assert table.weights != sensitivities(graph, [x], "hessian", LABELS, seed=1, tolerance=0.0, maximum_probes=8).weights


def test_activations_count_what_rounding_adds() -> None:
    graph, (x,) = calibrated(Tiny), samples_of(Tiny, 12)
    table = sensitivities(graph, [x], "hessian", maximum_probes=8, tolerance=0.0)
    problem = make_problem(graph, [x], None, (2, 4, 8), (4, 8), None, 0, 0.0, 8)
    trace = layer_traces(problem, Measured(None))["tanh"]
    values = FloatRun(graph, [torch.from_numpy(x)], float_constants(graph)).values
    norm = float(problem.candidates.own_errors("tanh", 4, values)["tanh"].square().sum()) / len(x)
    assert trace.trace > 0
    assert table.activations["tanh"][4] == pytest.approx(0.5 * trace.trace / 6 * norm)


def test_rounds_end_when_the_traces_are_known() -> None:
    graph, (x,) = calibrated(Tiny), samples_of(Tiny, 12)
    for tolerance, rounds in ((0.0, 30), (100.0, 4)):
        measured = Measured(None)
        layer_traces(make_problem(graph, [x], None, (2,), (), None, 0, tolerance, 30), measured)
        assert (measured.get(f"round {rounds - 1} batch 0") is None, measured.get(f"round {rounds} batch 0")) == (False, None)


def test_probes_are_signs() -> None:
    probe = signs(0, "a", (1000,))
    assert set(probe.tolist()) == {-1.0, 1.0}
    assert abs(float(probe.mean())) < 0.1
