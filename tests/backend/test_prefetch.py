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

from qcompiler.backend.prefetch import PIXELS, STEPS, STREAM, insert
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


def test_weights_unpacked_before_a_walk_are_fetched_about_once() -> None:
    """``for block: (for step: unpacked[...] = weights[...]; for tile, tap, word: x[0] = unpacked[...])``."""
    body, extents = walk(4, 3, 8, 4)
    walked = 3 * 8 * 4 * LINE
    step = tirx.Var("step", "int32")
    weights = tirx.decl_buffer((BLOCKS * walked,), "int8", name="weights")
    unpacked = tirx.decl_buffer((walked,), "int8", name="unpacked")
    load = tirx.BufferLoad(weights, [body.loop_var * walked + step * LINE])
    unpack = tirx.For(step, 0, walked // LINE, tirx.ForKind.SERIAL, tirx.BufferStore(unpacked, load, [step * LINE]))

    def from_scratch(load: Any) -> Any:
        return tirx.BufferLoad(unpacked, [0]) if load.source.name == "weights" else load

    tiles = structural_map(body.body, (tvm.ir.TensorLoad, from_scratch))
    whole = tirx.For(body.loop_var, 0, BLOCKS, tirx.ForKind.SERIAL, tirx.SeqStmt([unpack, tiles]))
    for block, counts in enumerate(fetched(insert(whole), extents)):
        following = range((block + 1) * walked // LINE, (block + 2) * walked // LINE)
        assert sum(1 for line in following if counts[line]) >= 0.7 * len(following)
        assert max(counts.values()) == 1
        assert min(counts) == following[0]


def test_a_stream_is_fetched_ahead_once() -> None:
    step, lines = tirx.Var("block", "int32"), 4
    weights = tirx.decl_buffer((BLOCKS * lines * LINE,), "int8", name="weights")
    x = tirx.decl_buffer((1,), "int8", name="x")
    body = tirx.SeqStmt(
        [tirx.BufferStore(x, tirx.BufferLoad(weights, [(step * lines + line) * LINE]), [0]) for line in range(lines)]
    )
    loop = tirx.For(step, 0, BLOCKS, tirx.ForKind.SERIAL, body, None, {STREAM: lines * LINE})
    for step_, counts in enumerate(fetched(insert(loop), {"block": BLOCKS})):
        assert sorted(counts) == [128 + step_ * lines + line for line in range(lines)]
        assert max(counts.values()) == 1


@pytest.mark.parametrize("instruction_set", ["avx512vnni", "avx2", "dotprod"])
def test_kernels_with_large_weights_fetch_ahead(instruction_set: str) -> None:
    word = "prfm" if instruction_set == "dotprod" else "prefetcht1"
    large = spec(7, 512, 512)
    streamed = spec(1, 512, 1024, weight_bits=4)
    one_stream = instruction_set != "avx2"  # whose registers hold the sums of fewer vectors than lie side by side
    cases = (large, True), (replace(large, in_channels=64, out_channels=64), False), (streamed, one_stream)
    for what, expected in (*cases, (replace(streamed, weight_bits=8), False)):
        kernel = build(what, instruction_set)
        target = TARGETS[instruction_set]
        assembly = CompiledKernels([lower_kernel(kernel.function, "k", target)], target).assembly
        assert (word in assembly) == expected
