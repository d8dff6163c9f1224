"""Binary operators, tables, reductions and matrix products: the library equals the reference on every operator's forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompiler.backend.lower import lower
from qcompiler.targets.target import host_architecture, load_target
from tests.backend.integer_library import build, compare, fills, read
from tests.backend.test_lower_movement import CODES, text, value

needs_x86 = pytest.mark.skipif(host_architecture() != "x86_64", reason="the libraries of these tests are for x86-64")
X86 = ("x86-baseline", "x86-avx2", "x86-avx512vnni")
SIGNED = "scale=0x1p-7 zero=0"


def binary(name: str, shape: str, op: str, a: str, b: str, dtype: str = "u8", shift: int = 15) -> str:
    factors = "multiplier=2147483647" if op in ("mul", "matmul") else "multipliers=(12345, -20001)"
    if op in ("maximum", "minimum"):
        factors = "multipliers=(12345, 20001)"
    limits = "(3, 250)" if dtype == "u8" else "(-32768, 32767)"
    line = value(name, shape, f"{op}(%{a}, %{b}, limits={limits}, {factors}, shift={shift})", dtype)
    return line if dtype == "u8" else line.replace("zero=3", "zero=0")


def constant(name: str, dtype: str, shape: str, *values: int) -> str:
    return f"  const %{name}: {dtype}[{shape}] = [{', '.join(map(str, values))}]\n"


BINARY = text(
    f"%x: u8[N,20,4,6] {CODES}, %gate: u8[N,20,1,1] {CODES}, %mask: u8[N,1,4,6] {CODES}, %w: i16[N,20,4,6] {SIGNED}, %s: u8[N] {CODES}",
    constant("shift", "i16", "20,1,1", *range(-20000, 20000, 2000)),
    constant("rows", "i16", "6", *range(-3, 3)),
    constant("one", "i16", "", 7),
    binary("a", "N,20,4,6", "mul", "x", "gate", shift=38),
    binary("b", "N,20,4,6", "mul", "mask", "w", "i16", shift=35),
    binary("c", "N,20,4,6", "mul", "w", "w", "i16", shift=46),
    binary("d", "N,20,4,6", "add", "shift", "x", shift=18),
    binary("e", "N,20,4,6", "add", "gate", "mask"),
    binary("f", "N,20,4,6", "maximum", "x", "rows"),
    binary("g", "N,20,4,6", "minimum", "w", "x", "i16"),
    binary("h", "N", "mul", "s", "one", shift=34),
    binary("i", "N", "maximum", "s", "s"),
    binary("j", "N,20,4,6", "add", "x", "x"),
    binary("k", "N,20,4,6", "mul", "x", "x", shift=17),
    "%a, %b, %c, %d, %e, %f, %g, %h, %i, %j, %k",
)
UNARY = text(
    f"%x: u8[N,21,4,6] {CODES}, %q: u4[N,5] {CODES}, %w: i16[N,3,7] {SIGNED}",
    constant("square", "u8", "256", *((i * i) % 256 for i in range(256))),
    constant("wide", "i16", "256", *(129 * i - 16000 for i in range(256))),
    constant("few", "u8", "16", *(3 * i for i in range(16))),
    constant("slopes", "i32", "21", *range(-2147483647, 2147483648, 214748364)),
    constant("three", "i32", "3", -5, 0, 1 << 30),
    value("a", "N,21,4,6", 'lookup(%x, %square, expression="x")'),
    value("b", "N,21,4,6", 'lookup(%a, %wide, expression="x")', "i16").replace("zero=3", "zero=0"),
    value("c", "N,5", 'lookup(%q, %few, expression="x")'),
    value("d", "N,21,4,6", "prelu(%x, %slopes, limits=(0, 255), multiplier=2147483647, shift=31)"),
    value("e", "N,3,7", "prelu(%w, %three, limits=(0, 255), multiplier=1073741824, shift=37)"),
    constant("leaky", "i32", "21", *[300000001] * 21),
    value("f", "N,21,4,6", "prelu(%x, %leaky, limits=(0, 255), multiplier=2147483647, shift=31)", "i16").replace(
        "zero=3", "zero=0"
    ),
    value("g", "N,5", "rescale(%q, limits=(1, 14), multiplier=2000000011, shift=32)", "u4"),
    value("h", "N,3,7", "rescale(%w, limits=(0, 255), multiplier=2000000011, shift=38)"),
    "%a, %b, %c, %d, %e, %f, %g, %h",
)


def total(name: str, shape: str, axes: str, keepdims: int, x: str = "x") -> str:
    return value(name, shape, f"sum(%{x}, axes={axes}, keepdims={keepdims}, limits=(0, 255), multiplier=2147483647, shift=36)")


REDUCTIONS = text(
    f"%x: u8[N,21,4,6] {CODES}, %w: i16[N,3,37] {SIGNED}",
    total("a", "N,21", "(2, 3)", 0),
    total("b", "N,1,4,6", "(1,)", 1),
    total("c", "N,4,6", "(1,)", 0),
    total("d", "N,6", "(2, 1)", 0),
    total("e", "N", "(1, 2, 3)", 0),
    total("f", "N,3,1", "(2,)", 1, "w"),
    value("g", "N,21,6", "amax(%x, axes=(2,), keepdims=0)"),
    value("h", "N,1,1,6", "amin(%x, axes=(1, 2), keepdims=1)"),
    value("i", "N,37", "amax(%w, axes=(1,), keepdims=0)", "i16").replace("zero=3", "zero=0"),
    "%a, %b, %c, %d, %e, %f, %g, %h, %i",
)
MATMUL = text(
    f"%q: u8[N,4,9,8] {CODES}, %k: u8[N,4,8,9] {CODES}, %one: u8[N,1,9,5] {CODES}, %l: i16[N,9,21] {SIGNED}, %r: u8[N,21,18] {CODES}",
    binary("a", "N,4,9,9", "matmul", "q", "k", shift=42),
    binary("b", "N,4,9,5", "matmul", "a", "one", "i16", shift=36),
    binary("c", "N,9,18", "matmul", "l", "r", shift=50),
    "%a, %b, %c",
)
CASES = {"binary": BINARY, "unary": UNARY, "reductions": REDUCTIONS, "matmul": MATMUL}


@needs_x86
@pytest.mark.parametrize(
    ("name", "target", "batch_tile"),
    [(name, X86[0], 1 + place % 2) for place, name in enumerate(CASES)]
    + [(name, X86[1 + place // 2], 2 - place % 2) for place, name in enumerate(CASES)],
)
def test_libraries_equal_the_reference(name: str, target: str, batch_tile: int, tmp_path: Path) -> None:
    graph = read(CASES[name])
    with build(graph, tmp_path / "net", batch_tile, target) as library:
        for inputs in zip(*(fills(v, 3) for v in graph.inputs), strict=True):
            compare(library, graph, inputs)


def test_results_take_the_place_of_an_operand_of_their_shape() -> None:
    target = load_target("x86-avx2")
    graph = read(
        text(
            f"%x: u8[N,16,8,8] {CODES}, %gate: u8[N,16,1,1] {CODES}",
            constant("table", "u8", "256", *range(256)),
            binary("a", "N,16,8,8", "add", "x", "x"),
            value("g", "N,16,1,1", 'lookup(%gate, %table, expression="x")'),
            binary("b", "N,16,8,8", "mul", "g", "a", shift=38),
            value("c", "N,16,8,8", 'lookup(%b, %table, expression="x")'),
            "%c",
        )
    )
    program = lower(graph, target.instruction_set, target.tvm_target)
    calls = {call.layer: call for call in program.calls}
    assert calls["b"].arguments[-1] == calls["b"].arguments[1]
    assert calls["c"].arguments[-1] == calls["c"].arguments[0]
