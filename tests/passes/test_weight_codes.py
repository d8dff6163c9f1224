"""Weight codes: limits, error, dead channels, and scales that make the overflow proof hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler import arith
from qcompiler.passes.weight_codes import code_limits, weight_codes


@pytest.mark.parametrize(("bits", "limits"), [(8, (-127, 127)), (4, (-8, 7)), (2, (-2, 1))])
def test_limits(bits: int, limits: tuple[int, int]) -> None:
    assert code_limits(bits) == limits


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_codes_are_close_to_the_weights(bits: int) -> None:
    weight = np.random.default_rng(0).normal(size=(16, 8, 3, 3)).astype(np.float32) * np.geomspace(0.01, 1, 16).reshape(
        -1, 1, 1, 1
    )
    found = weight_codes(weight, None, bits, 0.05, 3, 255)
    low, high = code_limits(bits)
    assert low <= found.codes.min() <= found.codes.max() <= high
    rebuilt = found.codes * found.scale.reshape(-1, 1, 1, 1)
    error = ((rebuilt - weight) ** 2).sum((1, 2, 3)) / (weight**2).sum((1, 2, 3))
    assert error.max() < {8: 1e-4, 4: 0.02, 2: 0.2}[bits]


@pytest.mark.parametrize("bits", [4, 2])
def test_narrow_scales_beat_the_largest_weight(bits: int) -> None:
    weight = np.random.default_rng(0).laplace(size=(32, 256)).astype(np.float32)
    found = weight_codes(weight, None, bits, 1.0, 0, 255)
    plain = np.abs(weight).max(1) / code_limits(bits)[1]
    naive = np.clip(np.floor(weight / plain[:, None] + 0.5), *code_limits(bits)) * plain[:, None]
    assert (((found.codes * found.scale[:, None]) - weight) ** 2).sum() < 0.8 * ((naive - weight) ** 2).sum()


def test_an_all_zero_channel_with_a_bias_keeps_its_bias() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    weight[1] = 0.0
    bias = np.array([0.5, 3.0, -0.25], dtype=np.float32)
    found = weight_codes(weight, bias, 8, 0.01, 7, 255)
    real = (found.bias + 7 * found.codes.sum(1)) * found.scale * 0.01
    assert np.allclose(real, bias, atol=1e-3)
    assert np.all(found.codes[1] == 0)
    assert found.scale[1] >= found.scale[[0, 2]].max()


def test_all_channels_dead() -> None:
    found = weight_codes(np.zeros((2, 4), np.float32), np.array([1.0, -2.0], np.float32), 8, 0.1, 0, 255)
    assert np.allclose(found.bias * found.scale * 0.1, [1.0, -2.0], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([2, 4, 8]),
    st.floats(1e-9, 1e3),
    st.integers(0, 255),
    st.floats(0, 1e12),
)
def test_the_overflow_proof_holds_by_construction(
    seed: int, bits: int, input_scale: float, zero: int, largest_bias: float
) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(4, 64)).astype(np.float32)
    bias = (generator.uniform(-1, 1, 4) * largest_bias).astype(np.float32)
    found = weight_codes(weight, bias, bits, input_scale, zero, 255)
    start = found.bias.astype(np.int64)
    assert np.abs(start).max() <= arith.MAXIMUM_BIAS
    assert arith.largest_partial_sum(found.codes, start, 255).max() <= arith.LARGEST_ACCUMULATOR
    real = (start + zero * found.codes.astype(np.int64).sum(1)) * found.scale * input_scale
    assert np.all(np.abs(real - bias) <= found.scale * input_scale * 0.51 + np.abs(bias) * 1e-6)


def test_weights_on_a_grid_keep_their_codes() -> None:
    codes = np.random.default_rng(3).integers(-50, 51, (4, 40))
    codes[:, 0] = (50, -50, 50, 25)
    codes[3] = codes[3] // 2
    scale = np.array([0.013, 0.7, 1e-3, 0.031])
    weight = (codes * scale[:, None]).astype(np.float32)
    found = weight_codes(weight, None, 8, 0.1, 0, 255)
    assert np.abs(found.codes * found.scale[:, None] - weight).max() < 1e-5
    assert (np.abs(found.codes).max(axis=1) > 63).all()
    noise = np.random.default_rng(4).normal(size=(4, 40)).astype(np.float32)
    assert np.allclose(weight_codes(noise, None, 8, 0.1, 0, 255).scale, np.abs(noise).max(axis=1) / 127)
