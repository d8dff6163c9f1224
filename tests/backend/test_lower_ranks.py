"""Convolutions and pools on one and three dimensions of space, and on what reshapes share with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompiler.targets.target import host_architecture
from tests.backend.integer_library import build, compare, fills, read
from tests.backend.test_lower_movement import CODES, value

pytestmark = pytest.mark.skipif(host_architecture() != "x86_64", reason="the libraries of these tests are for x86-64")


def convolution(
    name: str, source: str, channels: tuple[int, int], kernel: tuple[int, int], padding: str, shape: str, residual: str = ""
) -> str:
    inputs, outputs = channels
    count = outputs * inputs * kernel[0] * kernel[1]
    weights = ", ".join(str(37 * i % 255 - 127) for i in range(count))
    operator = "requantize_add" if residual else "requantize"
    other = f", %{residual}" if residual else ""
    factor = "other_multiplier=1048576, " if residual else ""
    multiplier = 40 if residual else 1 << 18
    return (
        f"  const %{name}.w: i8[{outputs},{inputs},{kernel[0]},{kernel[1]}] = [{weights}]\n"
        f"  const %{name}.m: i32[{outputs}] = [{', '.join([str(multiplier)] * outputs)}]\n"
        f"  %{name}.s: i32[{shape}] = conv2d(%{source}, %{name}.w, dilation=(1, 1), groups=1, padding={padding}, strides=(1, 1))\n"
        f"  %{name}: u8[{shape}] {CODES} = {operator}(%{name}.s, %{name}.m{other}, limits=(0, 255), {factor}shift={21 if residual else 30})\n"
    )  # fmt: skip


POOL = "ceil_mode=0, count_include_pad=0, counts=(4, 6), kernel=(2, 3), limits=(0, 255), multipliers=(268435456, 178956971), padding=(0, 1, 0, 0), shift=30, strides=(2, 2)"
GRAPH = (
    f"graph @ranks stage=integer (%v: u8[N,5,3,4,6] {CODES}, %l: u8[N,7,19] {CODES}) {{\n"
    + convolution("a", "v", (5, 6), (3, 3), "(1, 1, 1, 1)", "N,6,3,4,6")
    + convolution("b", "a", (6, 6), (1, 1), "(0, 0, 0, 0)", "N,6,3,4,6", "a")
    + value("p", "N,6,3,2,3", f"average_pool2d(%b, {POOL})")
    + value("q", "N,6,3,2,3", "max_pool2d(%b, ceil_mode=0, dilation=(1, 1), kernel=(2, 2), padding=(0, 0, 0, 0), strides=(2, 2))")
    + value("l4", "N,7,1,19", 'reshape(%l, shape=("N", 7, 1, 19))')
    + convolution("c", "l4", (7, 20), (1, 3), "(0, 1, 0, 1)", "N,20,1,19")
    + value("c3", "N,20,19", 'reshape(%c, shape=("N", 20, 19))')
    + value("sum", "N,20,19", "add(%c3, %c3, limits=(0, 255), multipliers=(1048576, 524288), shift=21)")
    + value("s4", "N,20,1,19", 'reshape(%sum, shape=("N", 20, 1, 19))')
    + convolution("d", "s4", (20, 20), (1, 1), "(0, 0, 0, 0)", "N,20,1,19", "c")
    + value("d3", "N,20,19", 'reshape(%d, shape=("N", 20, 19))')
    + "  return %p, %q, %d3, %c3\n}\n"
)


@pytest.mark.parametrize(("batch_tile", "layout"), [(1, "NCHW"), (2, "NHWC")])
def test_any_rank(batch_tile: int, layout: str, tmp_path: Path) -> None:
    graph = read(GRAPH)
    with build(graph, tmp_path / "net", batch_tile, layout=layout) as library:
        for inputs in zip(*(fills(v, 3) for v in graph.inputs), strict=True):
            compare(library, graph, inputs)
