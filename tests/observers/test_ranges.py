"""What observers choose: from known distributions, in any order of the samples, for one-sided and constant tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.observers.choice import NAMES, make_observer
from qcompiler.observers.entropy import EntropyObserver, spread
from qcompiler.observers.extremes import GROUP, MinMaxObserver, MovingAverageObserver
from qcompiler.observers.mse import MseObserver
from qcompiler.observers.observer import Observer


def watched(observer: Observer, data: np.ndarray, parts: int = 1) -> Observer:
    for part in np.array_split(data.astype(np.float32), parts):
        assert observer.see(torch.from_numpy(part))
    return observer


def long_tailed(shape: tuple[int, int] = (64, 2048)) -> np.ndarray:
    return np.random.default_rng(0).standard_t(3, shape)


@pytest.mark.parametrize("name", NAMES)
def test_ranges_do_not_depend_on_how_batches_are_cut(name: str) -> None:
    data = long_tailed((100, 64))
    whole, parts = watched(make_observer(name), data), watched(make_observer(name), data, 13)
    for bits in (8, 4):
        assert whole.range(bits) == parts.range(bits)
        if name != "moving-average":
            assert watched(make_observer(name), data[::-1].copy(), 7).range(bits) == whole.range(bits)


@pytest.mark.parametrize("name", NAMES)
def test_one_sided_and_constant_tensors(name: str) -> None:
    observer = make_observer(name)
    assert observer.see(torch.zeros(3, 4))
    assert observer.range(8) == (0.0, 0.0)
    observer = make_observer(name)
    assert observer.see(torch.full((2, 4), 3.0))
    low, high = observer.range(8)
    assert low == 0.0
    assert 2.0 < high <= 3.0 + 1e-9
    for bad in ("nan", "inf", "-inf"):
        assert not observer.see(torch.tensor([[float(bad)]]))
    assert observer.range(8) == (low, high)
    low, high = watched(make_observer(name), -np.abs(long_tailed())).range(8)
    assert low < -1.0
    assert high == 0.0


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("spike", [False, True], ids=["signed", "after a ReLU"])
def test_a_long_tail_is_clipped_by_all_but_minmax(bits: int, spike: bool) -> None:
    data = long_tailed()
    if spike:
        data = np.maximum(data, 0.0)
    low, high = watched(MinMaxObserver(), data).range(bits)
    assert (low, high) == (min(np.float32(data.min()), 0.0), np.float32(data.max()))
    for name in NAMES[1:]:
        lower, upper = watched(make_observer(name), data).range(bits)
        assert upper < 0.95 * high, name
        assert (lower == 0.0) if spike else (lower > 0.95 * low), name


def test_entropy_differs_from_minmax_and_clips_both_sides_by_themselves() -> None:
    """A peer's histogram of 128 bins gave the extremes for every tensor: no level was wider than a bin."""
    data = np.where(long_tailed() > 0, long_tailed(), np.random.default_rng(1).uniform(-1, 0, (64, 2048)))
    low, high = watched(EntropyObserver(), data).range(8)
    assert high < 0.6 * data.max()
    assert low < 0.9 * data.min()
    assert EntropyObserver.half_bins >= 2048


def test_entropy_keeps_what_is_uniform() -> None:
    data = np.random.default_rng(0).uniform(-1, 2, (64, 2048))
    low, high = watched(EntropyObserver(), data).range(8)
    assert low == pytest.approx(-1.0, abs=0.05)
    assert high == pytest.approx(2.0, abs=0.05)


def test_entropy_has_the_least_divergence_of_its_candidates() -> None:
    observer = EntropyObserver()
    watched(observer, np.maximum(long_tailed(), 0.0))
    high = observer.range(8)[1]
    assert observer.divergence(0.0, high, 8) < observer.divergence(0.0, observer.high, 8)
    assert observer.divergence(0.0, high, 8) < observer.divergence(0.0, 0.5 * high, 8)


def test_levels_are_spread_over_bins_that_hold_values() -> None:
    counts, held = np.array([4.0, 0.0, 2.0, 6.0]), np.array([True, False, True, True])
    assert spread(counts, held, np.array([0, 0, 1, 1])).tolist() == [4.0, 0.0, 4.0, 4.0]


@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_percentiles(percentile: float) -> None:
    data = np.random.default_rng(0).normal(size=(64, 2048)) + 0.5
    low, high = watched(make_observer(f"percentile:{percentile}"), data).range(8)
    assert high == pytest.approx(np.percentile(data, percentile), rel=0.01)
    assert low == pytest.approx(np.percentile(data, 100 - percentile), rel=0.01)
    zeros = np.maximum(data, 0.0)
    assert watched(make_observer(f"percentile:{percentile}"), zeros).range(8)[1] == pytest.approx(high, rel=0.01)


def test_percentile_100_is_minmax() -> None:
    data = long_tailed()
    assert watched(make_observer("percentile:100"), data).range(8) == watched(MinMaxObserver(), data).range(8)


def test_moving_average_follows_its_formula() -> None:
    data = long_tailed((3 * GROUP + 5, 32)).astype(np.float32)
    low, high, weight = 0.0, 0.0, 0.0
    for start in range(0, len(data), GROUP):
        part = data[start : start + GROUP]
        low, high, weight = (a + 0.1 * (b - a) for a, b in ((low, part.min()), (high, part.max()), (weight, 1.0)))
    found = watched(make_observer("moving-average:0.1"), data).range(8)
    assert found == pytest.approx((low / weight, high / weight))
    assert watched(MovingAverageObserver(1.0), data).range(8) == (data[3 * GROUP :].min(), data[3 * GROUP :].max())


def test_zeros_do_not_speak_for_a_finer_step() -> None:
    """Exact zeros have no rounding error: ninety of a hundred must not change the range."""
    data = np.random.default_rng(0).exponential(size=(64, 512))
    padded = np.concatenate([data, np.zeros((64, 9 * 512))], axis=1)
    for observer in (MseObserver, EntropyObserver):
        assert watched(observer(), padded).range(4)[1] == pytest.approx(watched(observer(), data).range(4)[1], rel=0.1)
