"""Affine maps of channels: the form of their kernel follows from the bounds, and the library equals the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcompiler import arith
from qcompiler.backend.kernel import ConvolutionSpec
from qcompiler.backend.lower import plan_steps
from tests.backend.integer_library import build, compare, fills, read
from tests.backend.test_lower_arithmetic import X86, constant, needs_x86

CHANNELS = 40


def affine(least: int, most: int) -> str:
    """A map with sums in ``least`` to ``most`` that its codes depend on, where 0 is the smallest code."""
    random = np.random.default_rng(3)
    weights = random.choice([-127, 127], CHANNELS)
    multiplier = (np.int64(255) << 24) // random.integers(most // 2, most, CHANNELS)
    bias = random.integers(least, most, CHANNELS) - np.where(weights > 0, 0, least)
    ends = np.full(CHANNELS, least, np.int64), np.full(CHANNELS, most, np.int64)
    lower, upper = arith.saturation_bounds(multiplier, np.zeros_like(multiplier), *ends, arith.SATURATED_SHIFT, 0, 0, 255)
    constants = {"w": ("i8", f"{CHANNELS},1,1,1", weights)}
    for name, values in {"b": bias, "m": multiplier, "p": 0 * bias, "l": lower, "u": upper}.items():
        constants[name] = ("i32", str(CHANNELS), values)
    return (
        f"graph @g stage=integer (%x: u8[N,{CHANNELS},5,7] scale=0x1p-7 zero=0) {{\n"
        + "".join(constant(name, dtype, shape, *values) for name, (dtype, shape, values) in constants.items())
        + f"  %s: i32[N,{CHANNELS},5,7] = conv2d(%x, %w, %b, dilation=(1, 1), groups={CHANNELS}, padding=(0, 0, 0, 0), strides=(1, 1))\n"
        + f"  %y: u8[N,{CHANNELS},5,7] scale=0x1p-7 zero=0 = requantize_narrow(%s, %m, %p, %l, %u, limits=(0, 255), shift=24)\n"
        + "  return %y\n}\n"
    )


@needs_x86
@pytest.mark.parametrize("target", X86)
@pytest.mark.parametrize(("most", "words"), [(20_000, True), (32_000, True), (60_000, False)])
def test_equals_the_reference(most: int, words: bool, target: str, tmp_path: Path) -> None:
    graph = read(affine(-1000, most))
    (epilogue,) = [step.spec.epilogue for step in plan_steps(graph).steps if isinstance(step.spec, ConvolutionSpec)]
    assert (epilogue.saturated, epilogue.short, epilogue.word_bounds) == (True, False, words)
    library = build(graph, tmp_path, target=target)
    for x in fills(graph.inputs[0], 3):
        compare(library, graph, [x])
