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
from qcompiler.observers.octaves import OctaveObserver


def watched(observer: Observer, data: np.ndarray, parts: int = 1) -> Observer:
    for part in np.array_split(data.astype(np.float32), parts):
        assert observer.see(torch.from_numpy(part))
    return observer


def long_tailed(shape: tuple[int, int] = (64, 2048)) -> np.ndarray:
    return np.random.default_rng(0).standard_t(3, shape)


@pytest.mark.parametrize("outlier", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_ranges_do_not_depend_on_how_batches_are_cut(name: str, outlier: int) -> None:
    data = long_tailed((100, 64))
    data[17, 3] = 1e5 * outlier
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


def test_entropy_keeps_what_is_uniform() -> None:
    data = np.random.default_rng(0).uniform(-1, 2, (64, 2048))
    low, high = watched(EntropyObserver(), data).range(8)
    assert low == pytest.approx(-1.0, abs=0.05)
    assert high == pytest.approx(2.0, abs=0.05)


def test_entropy_has_the_least_divergence_of_its_candidates() -> None:
    observer = EntropyObserver()
    watched(observer, np.maximum(long_tailed(), 0.0))
    high = observer.range(8)[1]
    bins = observer.distribution()
    assert bins.divergence(0.0, high, 8) < bins.divergence(0.0, observer.high, 8)
    assert bins.divergence(0.0, high, 8) < bins.divergence(0.0, 0.5 * high, 8)


def test_levels_are_spread_by_the_widths_of_their_bins() -> None:
    counts, widths = np.array([4.0, 0.0, 6.0]), np.array([1.0, 1.0, 2.0])
    assert spread(counts, widths, np.array([0, 1, 1])).tolist() == [4.0, 2.0, 4.0]


@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_percentiles(percentile: float) -> None:
    data = np.random.default_rng(0).normal(size=(64, 2048)) + 0.5
    low, high = watched(make_observer(f"percentile:{percentile}"), data).range(8)
    assert high == pytest.approx(np.percentile(data, percentile), rel=0.01)
    assert low == pytest.approx(np.percentile(data, 100 - percentile), rel=0.01)
    zeros = np.maximum(data, 0.0)
    assert watched(make_observer(f"percentile:{percentile}"), zeros).range(8)[1] == pytest.approx(high, rel=0.01)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["entropy", "percentile:99.9"])
def test_outliers_cost_no_resolution(name: str, bits: int) -> None:
    """One value of ten thousand (or a hundred million) times all others, on one side or on both."""
    data = np.random.default_rng(0).normal(size=(64, 2048))
    low, high = watched(make_observer(name), data).range(bits)
    for upper, lower in ((1e4, None), (1e8, None), (1e4, -3e4), (1e-4, -1e4)):
        far = data.copy()
        far[9, 1000] = upper
        far[40, 3] = far[40, 3] if lower is None else lower
        assert watched(make_observer(name), far).range(bits) == pytest.approx((low, high), rel=0.25)


def test_bins_of_octaves() -> None:
    """Every number is in the bin whose borders are around it, also where its octave was the uppermost one once."""
    data = np.array(
        [[0.0, 1e-30, -3e-9, 0.0], [1e-4, 2e-4, -0.75, 1.5], [1.0, -1.0, 3.25, 1e3], [-1e6, 2.0, 2.001, 5e5]], np.float32
    )
    observer = watched(OctaveObserver(), data, 4)
    assert isinstance(observer, OctaveObserver)
    edges = observer.edges()
    assert observer.zeros == 2
    for sign, counts in zip((1, -1), observer.counts, strict=True):
        expected, _ = np.histogram((sign * data)[sign * data > 0], edges)
        assert np.array_equal(expected, counts)
    assert observer.counts[0, 0] == 3  # 1e-30 to 2e-4 are nothing beside 1e6
    assert np.all(np.diff(edges)[1:] / edges[1:-1] <= 2.0**-observer.octave_bits)


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
