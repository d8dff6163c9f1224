"""Windows of input channels hold what their outputs read, and cost no more than all channels do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from qcompiler.backend.kernel import ConvolutionSpec, physical_channels
from qcompiler.schedules import convolution
from qcompiler.schedules.channel_windows import choose_windows
from qcompiler.schedules.dot_product import DEPTH

from .test_convolution import spec

LANES = (4, 8, 16)


def grouped() -> Iterator[ConvolutionSpec]:
    """Convolutions of groups of many widths, with as many outputs, more and fewer."""
    for width in (*range(1, 13), 16, 19, 24, 38, 40):
        for groups in (2, 3, 7, 19):
            for outputs in (width, 2 * width, 5):
                yield spec(7, width * groups, outputs * groups, 3, groups=groups)


@pytest.mark.parametrize("lanes", LANES)
def test_a_window_holds_the_channels_of_its_outputs(lanes: int) -> None:
    for case in grouped():
        windows = choose_windows(case, lanes)
        inputs, outputs = case.in_channels // case.groups, case.out_channels // case.groups
        every = np.arange(case.out_channels)
        firsts = np.array([windows.first(vector) for vector in every // lanes])
        begins = every // outputs * inputs
        assert (firsts <= begins).all()
        assert (begins + inputs <= firsts + windows.words * DEPTH).all()
        stored = [windows.first(vector) for vector in range(-(-physical_channels(case.out_channels) // lanes))]
        assert max(stored) + windows.words * DEPTH == windows.channels <= physical_channels(case.in_channels)
        assert min(stored) == 0
        assert {first % DEPTH for first in stored} == {0}


@pytest.mark.parametrize("lanes", LANES)
def test_codes_are_where_their_channels_are(lanes: int) -> None:
    for case in list(grouped())[::11]:
        windows = choose_windows(case, lanes)
        inputs, outputs = case.in_channels // case.groups, case.out_channels // case.groups
        codes = np.random.default_rng(0).integers(-127, 128, (case.out_channels, inputs, 1, 2)).astype(np.int8)
        spread = windows.spread(codes)
        x = np.random.default_rng(1).integers(0, 256, physical_channels(case.in_channels))
        for output in range(case.out_channels):
            first, group = windows.first(output // lanes), output // outputs
            seen = x[first : first + spread.shape[1]]
            expected = x[group * inputs : (group + 1) * inputs] @ codes[output, :, 0]
            assert np.array_equal(seen @ spread[output, :, 0].astype(np.int64), expected)


def test_whole_groups_have_no_zeros() -> None:
    for lanes in LANES:
        for width in (16, 32, 48, 80):
            windows = choose_windows(spec(7, 5 * width, 5 * width, 3, groups=5), lanes)
            assert (windows.words * DEPTH, windows.together * lanes, windows.stride) == (width, width, width)


def test_no_groups_is_one_window() -> None:
    for lanes in LANES:
        windows = choose_windows(spec(7, 21, 37, 3), lanes)
        assert (windows.starts, windows.words, windows.channels) == ((0,), 6, 24)


@pytest.mark.parametrize("instruction_set", convolution.INSTRUCTIONS)
def test_never_more_dot_products_than_without_groups(instruction_set: str) -> None:
    """Nearly always fewer; where vectors of outputs are narrower, a dot product of fewer outputs takes no longer."""
    for case in list(grouped())[::5]:
        plain = spec(7, case.in_channels, case.out_channels, 3)
        counts = []
        for one in (case, plain):
            instruction = convolution.serving_instruction(one, instruction_set)
            assert instruction is not None
            counts.append(choose_windows(one, instruction.lanes).dot_products)
        assert counts[0] <= counts[1]
        if case.groups == 19 and case.out_channels > 2 * 19:
            assert counts[0] <= 0.6 * counts[1]
