"""Top eigenvalues against those of whole Hessians."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.sensitivity import eigenvalue
from qcompiler.sensitivity.analyze import make_problem, sensitivities
from qcompiler.sensitivity.eigenvalue import top_eigenvalue
from tests.sensitivity.networks import Tiny, calibrated, samples_of
from tests.sensitivity.test_hessian import LABELS, whole_hessian


@pytest.mark.parametrize("labels", [None, LABELS], ids=["predicted", "labels"])
@pytest.mark.parametrize("name", ["body.weight", "head.weight"])
def test_power_iteration(name: str, labels: np.ndarray | None) -> None:
    graph, (x,) = calibrated(Tiny), samples_of(Tiny, 12)
    exact = torch.linalg.eigvalsh(whole_hessian(graph, x, name, labels).to(torch.float64))
    found = top_eigenvalue(make_problem(graph, [x], labels), name, change=1e-6)
    assert found == pytest.approx(float(exact[-1]), rel=1e-3)
    assert exact[0] < 0.0


def test_the_largest_in_magnitude_may_be_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the iteration goes on with a shift, and finds the largest of all."""
    matrix = torch.diag(torch.tensor([-5.0, 3.0, 1.0, *[0.0] * 27]))
    monkeypatch.setattr(eigenvalue, "_hessian_product", lambda problem, name, v: (matrix @ v.flatten()).reshape(v.shape))
    problem = make_problem(calibrated(Tiny), samples_of(Tiny))
    assert top_eigenvalue(problem, "body.weight", change=1e-7) == pytest.approx(3.0, rel=1e-3)


def test_scores_are_half_the_eigenvalue_times_the_squared_perturbation() -> None:
    graph, (x,) = calibrated(Tiny), samples_of(Tiny, 12)
    table = sensitivities(graph, [x], "hessian_top", LABELS)
    problem = make_problem(graph, [x], LABELS)
    assert table.activations == table.errors == {}
    for name, by_bits in table.weights.items():
        top = top_eigenvalue(problem, name)
        for bits, score in by_bits.items():
            norm = float(problem.candidates.perturbation(name, bits).square().sum())
            assert score == pytest.approx(0.5 * top * norm, rel=1e-6)
