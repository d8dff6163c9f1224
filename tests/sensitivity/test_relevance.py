"""Relevance is handed back in proportion to contributions, and nothing of it is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.ir.graph import Graph
from qcompiler.ir.text import parse_graph
from qcompiler.sensitivity import relevance
from qcompiler.sensitivity.analyze import make_problem, sensitivities
from qcompiler.sensitivity.float_run import FloatRun, float_constants
from qcompiler.sensitivity.relevance import output_relevance, propagate
from tests.sensitivity.networks import Mixed, calibrated, samples_of

TEXT = """graph @g stage=calibrated (%x: f32[N,2] range=(-0x1p+2, 0x1p+2)) {
  const %v: f32[2,2] = [0x1p+0, 0x1p+1, -0x1p+0, 0x1p-1]
  const %w: f32[2,2] = [0x1.8p+1, 0x1p+0, 0x1p+0, 0x1p+0]
  %h: f32[N,2] range=(0x0p+0, 0x1p+3) = linear(%x, %v, clamp=(0x0p+0, inf))  # first
  %s: f32[N,2] range=(-0x1p+2, 0x1p+3) = add(%x, %h)
  %t: f32[N,2] range=(-0x1p+2, 0x1p+3) = function(%s, expression="tanh(x)")
  %u: f32[N,2] range=(-0x1p+2, 0x1p+3) = mul(%s, %t)
  %y: f32[N,2] range=(-0x1p+5, 0x1p+5) = linear(%u, %w)  # second
  return %y
}
"""
"""Without biases: the relevance that goes in comes out."""


def propagated(graph: Graph, x: np.ndarray, labels: np.ndarray | None = None) -> tuple[FloatRun, dict[str, torch.Tensor]]:
    run = FloatRun(graph, [torch.from_numpy(x)], float_constants(graph))
    return run, propagate(run, output_relevance(make_problem(graph, [x], labels), run, 0))


def test_relevance_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relevance, "EPSILON", 1e-7)
    x = np.random.default_rng(0).uniform(-2.0, 2.0, (20, 2)).astype(np.float32)
    run, found = propagated(parse_graph(TEXT), x)
    best = run.values["y"].max(1).values
    for name in ("y", "u", "s", "x"):
        assert torch.allclose(found[name].sum(1), best, rtol=1e-3, atol=1e-4), name
    assert torch.allclose(found["t"], found["u"] / 2, rtol=1e-3)


def test_the_epsilon_rule() -> None:
    """``x w / (z + epsilon) R`` of a layer, with epsilon on the side of z."""
    x = np.array([[1.0, -0.5], [2.0, 1.0]], dtype=np.float32)
    run, found = propagated(parse_graph(TEXT), x, np.array([1, 0]))
    z = run.values["y"]
    assert found["y"].tolist() == [[0.0, float(z[0, 1])], [float(z[1, 0]), 0.0]]
    floor = relevance.EPSILON * z.square().mean().sqrt()
    ratio = found["y"] / (z + floor * torch.where(z < 0, -1.0, 1.0))
    expected = run.values["u"] * (ratio @ run.constants["w"])
    assert torch.allclose(found["u"], expected)


def test_scores_are_shares_times_relative_perturbations() -> None:
    graph, (x,) = calibrated(Mixed), samples_of(Mixed)
    table = sensitivities(graph, [x], "relevance")
    run, found = propagated(graph, x)
    layers = {"first.weight": "relu", "second.weight": "second", "third.weight": "third", "head.weight": "head"}
    magnitudes = {weight: found[value].abs().flatten(1).sum(1) for weight, value in layers.items()}
    whole = torch.stack(list(magnitudes.values())).sum(0)
    candidates = make_problem(graph, [x]).candidates
    shares = {name: float((magnitude / whole).mean()) for name, magnitude in magnitudes.items()}
    for name, share in shares.items():
        error, data = candidates.perturbation(name, 2), torch.from_numpy(graph.constant[name].data.copy())
        assert table.weights[name][2] == pytest.approx(share * float(error.square().sum() / data.square().sum()), rel=1e-4)
    error = candidates.own_errors("relu", 4, run.values)["relu"]
    power = error.square().flatten(1).sum(1) / run.values["relu"].square().flatten(1).sum(1)
    score = (magnitudes["first.weight"] / whole * power).mean()
    assert table.activations["relu"][4] == pytest.approx(float(score), rel=1e-4)
    assert table == sensitivities(graph, [x], "relevance")
    assert table.weights != sensitivities(graph, [x], "relevance", np.zeros(10, int)).weights
