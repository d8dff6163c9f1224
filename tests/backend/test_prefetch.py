"""Which lines of weights are fetched ahead, and which kernels do it."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import tvm
from tvm import tirx
from tvm_ffi import structural_map

from qcompiler.backend.prefetch import PIXELS, STEPS, insert
from qcompiler.backend.tir import CompiledKernels, lower_kernel
from qcompiler.schedules.convolution import build
from tests.schedules.harness import TARGETS
from tests.schedules.test_convolution import spec

BLOCKS, LINE = 5, 64


def walk(tiles: int, taps: int, words: int, lines: int) -> tuple[Any, dict[str, int]]:
    """``for block, tile, tap, word: x[0] = weights[...]`` where a step reads ``lines`` lines; the extents."""
    block, tile, tap, word = (tirx.Var(name, "int32") for name in ("block", "tile", "tap", "word"))
    walked = taps * words * lines * LINE
    weights = tirx.decl_buffer((BLOCKS * walked,), "int8", name="weights")
    place = block * walked + (tap * words + word) * (lines * LINE)
    body: Any = tirx.BufferStore(tirx.decl_buffer((1,), "int8", name="x"), tirx.BufferLoad(weights, [place]), [0])
    loops = ((word, words, {STEPS: walked}), (tap, taps, {STEPS: walked}), (tile, tiles, {PIXELS: 1}), (block, BLOCKS, {}))
    for variable, extent, marks in loops:
        body = tirx.For(variable, 0, extent, tirx.ForKind.SERIAL, body, None, marks)
    return body, {str(variable.name): extent for variable, extent, _ in reversed(loops)}


def fetched(body: Any, extents: dict[str, int]) -> list[Counter[int]]:
    """For every block, how often every line of the weights is fetched while it is in use."""
    found: list[str] = []

    def collect(call: Any) -> Any:
        if call.op.name == "tirx.address_of":
            found.append(str(call.args[0].indices[0]).splitlines()[-1])
        return call

    structural_map(body, (tvm.ir.Call, collect))
    operators = SimpleNamespace(Add=operator.add, Mul=operator.mul)
    counts = [Counter[int]() for _ in range(BLOCKS)]
    for values in product(*map(range, extents.values())):
        names = dict(zip(extents, values, strict=True))
        for text in found:
            place = eval(text, {"T": operators}, names)
            assert place % LINE == 0
            counts[names["block"]][place // LINE] += 1
    return counts


@pytest.mark.parametrize(
    ("tiles", "taps", "words", "lines"), [(7, 9, 8, 8), (4, 1, 16, 8), (28, 9, 2, 8), (3, 1, 8, 8), (6, 1, 4, 16)]
)
def test_the_next_weights_are_fetched_about_once(tiles: int, taps: int, words: int, lines: int) -> None:
    body, extents = walk(tiles, taps, words, lines)
    per_block = taps * words * lines
    for block, counts in enumerate(fetched(insert(body), extents)):
        following = range((block + 1) * per_block, (block + 2) * per_block)
        covered = sum(1 for line in following if counts[line])
        assert covered >= 0.7 * per_block
        assert max(counts.values()) == 1
        assert min(counts) == following[0]


def test_where_it_would_take_too_many_instructions_nothing_is_fetched() -> None:
    body, extents = walk(2, 9, 8, 8)
    assert not any(fetched(insert(body), extents))


@pytest.mark.parametrize("instruction_set", ["avx512vnni", "avx2", "dotprod"])
def test_kernels_with_large_weights_fetch_ahead(instruction_set: str) -> None:
    word = "prfm" if instruction_set == "dotprod" else "prefetcht1"
    large = spec(7, 512, 512)
    for what, expected in ((large, True), (replace(large, in_channels=64, out_channels=64), False)):
        kernel = build(what, instruction_set)
        target = TARGETS[instruction_set]
        assembly = CompiledKernels([lower_kernel(kernel.function, "k", target)], target).assembly
        assert (word in assembly) == expected
