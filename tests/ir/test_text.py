"""The dump parses back to an equal graph, whatever is in it; what is not a dump is refused with its line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.ir.dtypes import F32, IntegerType, parse_dtype
from qcompiler.ir.graph import Attribute, Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ir.text import FolderStore, MemoryStore, parse_graph, print_graph

floats = st.floats(allow_nan=False, width=32).map(float)
dtypes = st.one_of(st.just(F32), st.builds(IntegerType, st.integers(1, 64), st.booleans()))
types = st.builds(TensorType, dtypes, st.tuples(st.just("N"), st.integers(1, 9), st.integers(1, 9)))
attributes = st.one_of(
    st.integers(-(2**40), 2**40),
    floats,
    st.text(max_size=12),
    st.lists(st.integers(-9, 9), max_size=4).map(tuple),
    st.lists(floats, max_size=4).map(tuple),
    st.lists(st.one_of(st.just("N"), st.integers(-1, 9)), max_size=4).map(tuple),
)
optional_pairs = st.one_of(st.none(), st.tuples(floats, floats))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    def value(name: str) -> Value:
        numbers = st.one_of(st.none(), st.integers(-200, 200))
        return Value(name, draw(types), draw(optional_pairs), draw(optional_pairs), draw(numbers), draw(st.one_of(st.none(), floats)), draw(numbers))  # fmt: skip

    elements = draw(st.integers(0, 40))
    dtype = draw(dtypes)
    data = np.arange(elements).astype(dtype.container)
    scale = np.linspace(0.1, 1.0, elements) if draw(st.booleans()) else None
    constant = Constant("layer.weight", TensorType(dtype, (elements,)), data, draw(st.one_of(st.none(), st.just(4))), scale)
    names = [f"v{i}" for i in range(draw(st.integers(1, 5)))]
    nodes = []
    for index, name in enumerate(names):
        given_attributes: dict[str, Attribute] = draw(
            st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), attributes, max_size=3)
        )
        inputs = ("x", "layer.weight", *names[:index])
        origin = draw(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
        nodes.append(Node("some_op", inputs, (value(name),), tuple(given_attributes.items()), origin))
    name = draw(st.one_of(st.just("net"), st.text(min_size=1, max_size=8)))
    return Graph(name, draw(st.sampled_from(Stage)), (value("x"),), (constant,), tuple(nodes), tuple(names))


@given(graphs())
def test_dump_parses_back_to_an_equal_graph(graph: Graph) -> None:
    store = MemoryStore()
    assert parse_graph(print_graph(graph, store), store) == graph
    assert parse_graph(print_graph(graph)) == graph


def test_large_constants_are_files_named_by_content(tmp_path: Path) -> None:
    constant = Constant("w", TensorType(F32, (50,)), np.arange(50, dtype=np.float32))
    graph = Graph("g", Stage.FLOAT, (Value("x", TensorType(F32, ("N", 50))),), (constant,), (Node("add", ("x", "w"), (Value("y", TensorType(F32, ("N", 50))),)),), ("y",))  # fmt: skip
    text = print_graph(graph, FolderStore(tmp_path))
    (file,) = tmp_path.iterdir()
    assert f"@{file.stem}" in text
    assert parse_graph(text, FolderStore(tmp_path)) == graph
    file.unlink()
    with pytest.raises(ValueError, match="line 2 of the dump: constant .* is not in the constants folder"):
        parse_graph(text, FolderStore(tmp_path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the dump is empty"),
        ("graph @g stage=odd () {", "line 1 of the dump: 'odd' is not a stage"),
        ("graph @g stage=float (%x: q8[N]) {", "line 1 of the dump: 'q8' is not an element type such as u8, i4, i32 or f32"),
        ("graph @g stage=float (%x: f32[N]) {\n  %y: f32[N] = f(%x\n", "line 2 of the dump: expected ',', found ''"),
        ("graph @g stage=float (%x: f32[N]) {\n  %y: f32[N] = f(%x, a=(1))\n", "line 2 of the dump: a tuple of one element ends in a comma"),
        ("graph @g stage=float (%x: f32[N]) { ; \n", "line 1 of the dump: cannot read ' ;'"),
    ],
)  # fmt: skip
def test_damaged_dumps_name_the_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_graph(text)
    assert str(caught.value) == problem


def test_dtypes() -> None:
    assert (str(parse_dtype("i4")), str(parse_dtype("f32"))) == ("i4", "f32")
    four = IntegerType(4, signed=True)
    assert (four.minimum, four.maximum, four.container) == (-8, 7, np.dtype("int8"))
    assert IntegerType(16, signed=False).container == np.dtype("uint16")
    for text in ("i0", "i65", "f16", "x8", "i"):
        with pytest.raises(ValueError):
            parse_dtype(text)


def test_constants_are_checked_and_read_only() -> None:
    with pytest.raises(ValueError, match="constant w: data is float64"):
        Constant("w", TensorType(F32, (2,)), np.zeros(2))
    constant = Constant("w", TensorType(F32, (1,)), np.array([math.pi], dtype=np.float32))
    with pytest.raises(ValueError, match="read-only"):
        constant.data[0] = 0.0
