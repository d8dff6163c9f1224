"""Moves of codes: chains are one copy, reshapes that move nothing are none, and the library equals the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompiler.backend.lower import lower
from qcompiler.backend.program import Program
from qcompiler.targets.target import host_architecture, load_target
from tests.backend.integer_library import build, compare, fills, read

needs_x86 = pytest.mark.skipif(host_architecture() != "x86_64", reason="the libraries of these tests are for x86-64")
CODES = "scale=0x1p-7 zero=3"


def value(name: str, shape: str, operation: str, dtype: str = "u8") -> str:
    return f"  %{name}: {dtype}[{shape}] {CODES} = {operation}\n"


def add(name: str, shape: str, a: str, b: str) -> str:
    return value(name, shape, f"add(%{a}, %{b}, limits=(0, 255), multipliers=(1048576, 1048576), shift=21)")


def scaled(name: str, shape: str, x: str) -> str:
    return value(name, shape, f"rescale(%{x}, limits=(0, 255), multiplier=1048576, shift=21)")


def indices(name: str, *values: int) -> str:
    return f"  const %{name}: i32[{len(values)}] = [{', '.join(map(str, values))}]\n"


def text(inputs: str, *lines: str) -> str:
    *body, outputs = lines
    return f"graph @moves stage=integer ({inputs}) {{\n{''.join(body)}  return {outputs}\n}}\n"


def program(source: str, batch_tile: int = 1) -> Program:
    target = load_target("x86-avx2")
    return lower(read(source), target.instruction_set, target.tvm_target, batch_tile)


IMAGE = f"%x: u8[N,24,6,4] {CODES}"
SHUFFLE = (
    value("s1", "N,4,6,6,4", 'reshape(%x, shape=("N", 4, 6, 6, 4))')
    + value("s2", "N,6,4,6,4", "transpose(%s1, order=(0, 2, 1, 3, 4))")
    + value("s3", "N,24,6,4", 'reshape(%s2, shape=("N", 24, 6, 4))')
)
CASES = {
    "shuffle, pixels, slices": text(
        IMAGE,
        SHUFFLE,
        add("sum", "N,24,6,4", "s3", "x"),
        value("d1", "N,6,2,2,6,4", 'reshape(%x, shape=("N", 6, 2, 2, 6, 4))'),
        value("d2", "N,6,6,2,4,2", "transpose(%d1, order=(0, 1, 4, 2, 5, 3))"),
        value("d3", "N,6,12,8", 'reshape(%d2, shape=("N", 6, 12, 8))'),
        value("b", "N,12,6,4", "slice(%x, axes=(1, 3), starts=(22, 3), steps=(-2, -1), stops=(-1, -1))"),
        value("p", "N,24,7,7", "pad(%x, after=(0, 0, 1, 0), before=(0, 0, 0, 3), code=9)"),
        value("q", "N,24,8,7", "pad(%p, after=(0, 0, 0, 0), before=(0, 0, 1, 0), code=200)"),
        value("r", "N,8,24,7", "transpose(%q, order=(0, 2, 1, 3))"),
        "%sum, %d3, %b, %r",
    ),
    "takes": text(
        IMAGE,
        indices("up", 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5),
        indices("edge", 2, 1, 0, 1, 2, 3, 2, 1),
        indices("odd", 23, 0, 0, 7),
        value("u", "N,24,12,4", "take(%x, %up, axis=2)"),
        value("v", "N,24,12,8", "take(%u, %edge, axis=3)"),
        value("w", "N,4,6,4", "take(%x, %odd, axis=1)"),
        "%v, %w",
    ),
    "concat": text(
        f"{IMAGE}, %z: u8[N,5,6,4] {CODES}",
        f"  const %c: u8[1,3,6,4] = [{', '.join(str(7 * i % 256) for i in range(72))}]\n",
        add("a", "N,24,6,4", "x", "x"),
        value("y", "N,80,6,4", "concat(%a, %z, %x, %c, %a, axis=1)"),
        value("t", "N,24,4,6", "transpose(%x, order=(0, 1, 3, 2))"),
        value("t2", "N,24,6,4", 'reshape(%t, shape=("N", 24, 6, 4))'),
        value("rows", "N,24,12,4", "concat(%t2, %a, axis=2)"),
        value("columns", "N,5,6,8", "concat(%z, %z, axis=3)"),
        value("one", "N,5,6,4", "concat(%z, axis=1)"),
        value("flat", "N,120", 'reshape(%one, shape=("N", 120))'),
        "%y, %rows, %columns, %flat, %z, %one, %x, %x",
    ),
    "ranks": text(
        f"%l: u8[N,6,10] {CODES}, %s: u8[N] {CODES}, %v: u8[N,2,3,2,3,4] {CODES}, %k: i16[N,3,5] scale=0x1p-7 zero=0",
        value("l4", "N,6,1,10", 'reshape(%l, shape=("N", 6, 1, 10))'),
        value("m", "N,6,1,5", "max_pool2d(%l4, ceil_mode=0, dilation=(1, 1), kernel=(1, 2), padding=(0, 0, 0, 0), strides=(1, 2))"),
        value("m3", "N,6,5", 'reshape(%m, shape=("N", 6, 5))'),
        value("turned", "N,5,6", "transpose(%m3, order=(0, 2, 1))"),
        add("ss", "N", "s", "s"),
        value("s2", "N,1,1", 'reshape(%ss, shape=("N", 1, 1))'),
        value("vt", "N,4,2,3,2,3", "transpose(%v, order=(0, 5, 1, 2, 3, 4))"),
        value("v5", "N,2,3,2,12", 'reshape(%v, shape=("N", 2, 3, 2, 12))'),
        value("v5m", "N,2,3,1,6", "max_pool2d(%v5, ceil_mode=0, dilation=(1, 1), kernel=(2, 2), padding=(0, 0, 0, 0), strides=(2, 2))"),
        value("odd", "N,3,2,4,6", 'reshape(%v, shape=("N", 3, 2, 4, 6))'),
        "  %kk: i16[N,5,3] scale=0x1p-7 zero=0 = transpose(%k, order=(0, 2, 1))\n",
        "%m3, %turned, %ss, %s2, %vt, %v5m, %odd, %kk, %l",
    ),
}  # fmt: skip


@needs_x86
@pytest.mark.parametrize(
    ("name", "batch_tile"), [("shuffle, pixels, slices", 1), ("takes", 1), ("concat", 2), ("ranks", 1), ("ranks", 3)]
)
def test_libraries_equal_the_reference(name: str, batch_tile: int, tmp_path: Path) -> None:
    graph = read(CASES[name])
    with build(graph, tmp_path / "net", batch_tile) as library:
        for inputs in zip(*(fills(v, 3) for v in graph.inputs), strict=True):
            compare(library, graph, inputs)


def test_a_chain_is_one_copy() -> None:
    found = program(text(IMAGE, SHUFFLE, add("y", "N,24,6,4", "s3", "s3"), "%y"))
    assert [call.symbol.split("_")[-1] for call in found.calls if "layout" not in call.layer] == ["move", "elementwise"]


def test_free_reshapes_are_no_calls() -> None:
    lines = [
        scaled("a", "N,24,6,4", "x"),
        value("b", "N,24,24", 'reshape(%a, shape=("N", 24, 24))'),
        scaled("c", "N,24,24", "b"),
        value("d", "N,24,2,3,4", 'reshape(%c, shape=("N", 24, 2, 3, 4))'),
        scaled("e", "N,24,2,3,4", "d"),
    ]
    found = program(text(IMAGE, *lines, "%e"))
    assert len([call for call in found.calls if "layout" not in call.layer]) == 3
    assert found.largest_live_bytes == 24 * 32  # every result in the place of its operand


def test_a_free_reshape_of_an_operand_that_lives_on_is_not_overwritten() -> None:
    lines = [
        add("a", "N,24,6,4", "x", "x"),
        value("b", "N,24,24", 'reshape(%a, shape=("N", 24, 24))'),
        add("c", "N,24,24", "b", "b"),
        add("d", "N,24,6,4", "a", "x"),
    ]
    found = program(text(IMAGE, *lines, "%c, %d"))
    first = next(call for call in found.calls if call.layer == "c")
    assert first.arguments[-1] not in first.arguments[:2]
