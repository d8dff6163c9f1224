"""Rankings, embeddings and resizing: the library equals the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qcompiler.backend.lower import lower
from qcompiler.errors import CompileError
from qcompiler.interpret import run_integer
from qcompiler.targets.target import host_architecture, load_target
from tests.backend.integer_library import build, compare, fills, read
from tests.backend.test_lower_movement import CODES, text, value

needs_x86 = pytest.mark.skipif(host_architecture() != "x86_64", reason="the libraries of these tests are for x86-64")


def index(name: str, shape: str, operation: str) -> str:
    return f"  %{name}: i32[{shape}] scale=0x1p0 zero=0 = {operation}\n"


RANKINGS = text(
    f"%x: u8[N,21,3,5] {CODES}, %v: i16[N,33] scale=0x1p-7 zero=0",
    index("a", "N,3,5", "argmax(%x, axis=1, keepdims=0, largest=1, last=0)"),
    index("b", "N,21,1,5", "argmax(%x, axis=2, keepdims=1, largest=0, last=1)"),
    index("c", "N,21,3", "argmax(%x, axis=3, keepdims=0, largest=1, last=1)"),
    index("d", "N", "argmax(%v, axis=1, keepdims=0, largest=1, last=0)"),
    index("e", "N,1", "argmax(%v, axis=1, keepdims=1, largest=0, last=0)"),
    index("f", "N,5", "topk_indices(%v, axis=1, k=5, largest=1)"),
    value("g", "N,33", "topk_values(%v, axis=1, k=33, largest=0)", "i16").replace("zero=3", "zero=0"),
    value("h", "N,21,2,5", "topk_values(%x, axis=2, k=2, largest=1)"),
    index("i", "N,3,3,5", "topk_indices(%x, axis=1, k=3, largest=0)"),
    index("j", "N,21,3,4", "topk_indices(%x, axis=3, k=4, largest=1)"),
    "%a, %b, %c, %d, %e, %f, %g, %h, %i, %j",
)


@needs_x86
def test_rankings(tmp_path: Path) -> None:
    graph = read(RANKINGS)
    with build(graph, tmp_path / "net") as library:
        for inputs in [*zip(*(fills(v, 3) for v in graph.inputs), strict=True), [fills(v, 3, (0, 3))[0] for v in graph.inputs]]:
            compare(library, graph, inputs)


def table(name: str, rows: int, width: int) -> str:
    return f"  const %{name}: u8[{rows},{width}] = [{', '.join(str(11 * i % 256) for i in range(rows * width))}]\n"


INDICES = "scale=0x1p0 zero=0"
EMBEDDINGS = text(
    f"%t: i32[N,20] {INDICES}, %one: i32[N] {INDICES}, %few: i32[N,3,5] {INDICES}, %many: i32[N,7,2,3] {INDICES}",
    table("wide", 9, 37),
    table("narrow", 30, 6),
    value("a", "N,20,37", "embedding(%t, %wide)"),
    value("b", "N,37", "embedding(%one, %wide)"),
    value("c", "N,3,5,6", "embedding(%few, %narrow)"),
    value("d", "N,7,2,3,37", "embedding(%many, %wide)"),
    value("e", "N,20,6", "embedding(%t, %narrow)"),
    "%a, %b, %c, %d, %e",
)


@needs_x86
def test_embeddings(tmp_path: Path) -> None:
    graph = read(EMBEDDINGS)
    with build(graph, tmp_path / "net", 2) as library:
        for inputs in zip(*(fills(v, 3) for v in graph.inputs), strict=True):
            compare(library, graph, inputs)
        compare(library, graph, [fills(v, 5, (-2, 31))[0] for v in graph.inputs])


def resize(
    name: str,
    source: str,
    dtype: str,
    shape: str,
    numerators: tuple[int, int],
    offsets: tuple[int, int],
    denominators: tuple[int, int],
) -> str:
    sizes = tuple(map(int, shape.split(",")[2:]))
    product = denominators[0] * denominators[1]
    shift = 30 + (product - 1).bit_length()
    operation = (
        f"resize_linear(%{source}, denominators={denominators}, multiplier={round((1 << shift) / product)}, numerators={numerators}, "
        f"offsets={offsets}, shift={shift}, sizes={sizes})"
    )
    line = value(name, shape, operation, dtype)
    return line.replace("zero=3", "zero=0") if dtype == "i16" else line


RESIZINGS = text(
    f"%x: u8[N,20,3,4] {CODES}, %w: i16[N,3,5,4] scale=0x1p-7 zero=0, %q: u4[N,64,2,2] {CODES}",
    resize("twice", "x", "u8", "N,20,6,8", (2, 2), (-1, -1), (4, 4)),
    resize("corners", "x", "u8", "N,20,5,7", (2, 3), (0, 0), (4, 6)),
    resize("smaller", "w", "i16", "N,3,3,3", (10, 8), (2, 1), (6, 6)),
    resize("wider", "q", "u4", "N,64,2,3", (1, 4), (0, -1), (1, 6)),
    "%twice, %corners, %smaller, %wider",
)


@needs_x86
def test_resizings(tmp_path: Path) -> None:
    graph = read(RESIZINGS)
    with build(graph, tmp_path / "net") as library:
        for inputs in zip(*(fills(v, 3) for v in graph.inputs), strict=True):
            compare(library, graph, inputs)


def test_doubling_needs_no_wide_products() -> None:
    target = load_target("x86-avx2")
    functions = lower(read(RESIZINGS), target.instruction_set, target.tvm_target).functions
    wide = {str(f.attrs["global_symbol"]): "int64" in f.script() for f in functions if "resize" in str(f.attrs["global_symbol"])}
    assert sorted(wide.values()) == [False, True, True, True]


@needs_x86
def test_indices_stay_integers(tmp_path: Path) -> None:
    body = [
        table("rows", 9, 8),
        value("embedded", "N,6,8", "embedding(%tokens, %rows)"),
        index("place", "N,6", "argmax(%embedded, axis=2, keepdims=0, largest=1, last=0)"),
        index("turned", "N,2,3", 'reshape(%place, shape=("N", 2, 3))'),
    ]
    graph = read(text(f"%tokens: i32[N,6] {INDICES}", *body, "%turned, %embedded"))
    library = build(graph, tmp_path / "net")
    assert [port.kind for port in (*library.inputs, *library.outputs)] == ["index", "index", "value"]
    tokens = np.random.default_rng(3).integers(-3, 12, (4, 6))
    tokens[0, 0], tokens[0, 1] = 1 << 40, -(1 << 40)
    wanted = run_integer(graph, [np.clip(tokens, -5, 20).astype(np.int32)])[0]
    for given in (tokens, tokens.clip(-100, 100).astype(np.int8), tokens.clip(-5, 20).astype(np.float32)):
        place, embedded = library(given)
        assert (place.dtype, embedded.dtype) == (np.int64, np.float32)
        np.testing.assert_array_equal(place, wanted)
    place, _ = library(torch.from_numpy(tokens))
    assert place.dtype == torch.int64
    assert np.array_equal(place.numpy(), wanted)
    assert "a code c stands for the index c" in (tmp_path / "net" / "net.h").read_text()
    with pytest.raises(CompileError, match="RUN005"):
        library(tokens[:, :3])
