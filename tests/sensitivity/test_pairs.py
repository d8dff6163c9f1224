"""Interactions are measured: both quantized, less each alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qcompiler.errors import CompileError
from qcompiler.sensitivity.analyze import make_problem, sensitivities
from qcompiler.sensitivity.cache import Measured
from qcompiler.sensitivity.pairs import adjacent_pairs, pairwise_sensitivities
from tests.sensitivity.networks import Mixed, calibrated, plain_run, samples_of

ADJACENT = [
    ("x", "first.weight"),
    ("first.weight", "second.weight"),
    ("first.weight", "third.weight"),
    ("relu", "second.weight"),
    ("second.weight", "third.weight"),
    ("relu_1", "third.weight"),
    ("third.weight", "head.weight"),
    ("mean.pooled", "head.weight"),
]
"""Of ``Mixed``. From the first two convolutions to the head there are an addition and a concatenation: too far."""


def test_adjacent_pairs() -> None:
    graph, samples = calibrated(Mixed), samples_of(Mixed)
    candidates = make_problem(graph, samples).candidates
    assert sorted(adjacent_pairs(graph, candidates)) == sorted(ADJACENT)
    found = pairwise_sensitivities(graph, samples, weight_bits=(4,), activation_bits=(4,))
    assert list(found) == [(a, 4, b, 4) for a, b in adjacent_pairs(graph, candidates)]


@pytest.mark.parametrize("metric", ["mse", "kl"])
def test_joint_less_singles(metric: str) -> None:
    graph, (x,) = calibrated(Mixed), samples_of(Mixed)
    pairs = [("relu", "second.weight"), ("first.weight", "head.weight")]
    found = pairwise_sensitivities(graph, [x], pairs, metric, weight_bits=(2, 4), activation_bits=(4,))
    assert len(found) == 2 + 4
    candidates, table = make_problem(graph, [x]).candidates, sensitivities(graph, [x], metric)
    exact = plain_run(graph, [torch.from_numpy(x)])[0].double()
    for (a, bits_a, b, bits_b), interaction in found.items():
        change = candidates.change(a, bits_a) | candidates.change(b, bits_b)
        both = plain_run(graph, [torch.from_numpy(x)], change.weights, change.codes)[0].double()
        joint = (exact - both).square().mean()
        if metric == "kl":
            joint = (exact.softmax(1) * (exact.log_softmax(1) - both.log_softmax(1))).sum(1).mean()
        singles = {**table.weights, **table.activations}
        assert interaction == pytest.approx(float(joint) - singles[a][bits_a] - singles[b][bits_b], rel=1e-6, abs=1e-12)
    assert any(abs(interaction) > 1e-6 for interaction in found.values())


def test_singles_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, samples = calibrated(Mixed), samples_of(Mixed)
    sensitivities(graph, samples, "kl", cache=tmp_path)
    units: list[str] = []
    plain = Measured.put
    monkeypatch.setattr(Measured, "put", lambda self, unit, numbers: (units.append(unit), plain(self, unit, numbers))[1])
    first = pairwise_sensitivities(graph, samples, [("relu", "second.weight")], "mse", cache=tmp_path)
    assert len(units) == len(first) == 6
    assert pairwise_sensitivities(graph, samples, [("relu", "second.weight")], "mse", cache=tmp_path) == first
    assert len(units) == 6


def test_wishes() -> None:
    graph, samples = calibrated(Mixed), samples_of(Mixed)
    with pytest.raises(CompileError) as caught:
        pairwise_sensitivities(graph, samples, [("x", "second")])
    assert str(caught.value) == (
        "SENS009 at sensitivity\n"
        "  problem: a pair names 'second', which has no choice of bits\n"
        "  remedy:  name weights or the first values of activation classes: first.weight, second.weight, third.weight, "
        "head.weight, x, relu, relu_1, third, sigmoid, mean.pooled"
    )
    with pytest.raises(CompileError) as caught:
        pairwise_sensitivities(graph, samples, metric="fisher")
    assert str(caught.value) == (
        "SENS001 at sensitivity\n"
        "  problem: there is no metric 'fisher'\n"
        "  remedy:  choose one of kl, mse, sqnr"
    )  # fmt: skip
