"""The dump: one typed node a line, and the parser that reads it back to an equal graph.

Constants of up to 16 elements stand in the text. Larger ones are named by the SHA-256 of their content and kept in a
:class:`ConstantStore` (a folder ``constants/`` beside the dumps, or memory), which all dumps of one compilation share.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np

from qcompiler.ir.dtypes import DType, parse_dtype
from qcompiler.ir.graph import BATCH, Array, Attribute, Constant, Dim, Graph, Node, Stage, TensorType, Value

INLINE_ELEMENTS: Final = 16


class ConstantStore(Protocol):
    """Where large constants are kept."""

    def put(self, data: Array) -> str:
        """Keep ``data``; its key."""

    def get(self, key: str) -> Array:
        """The data kept under ``key``; KeyError where there is none."""


class MemoryStore:
    """Constants in a dictionary."""

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}

    def put(self, data: Array) -> str:
        key = content_key(data)
        self._kept[key] = data
        return key

    def get(self, key: str) -> Array:
        return self._kept[key]


class FolderStore:
    """Constants as ``<key>.npy`` in a folder; written under a temporary name and renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: Array) -> str:
        key = content_key(data)
        path = self.folder / f"{key}.npy"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            try:
                with temporary.open("wb") as file:
                    np.save(file, data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return key

    def get(self, key: str) -> Array:
        path = self.folder / f"{key}.npy"
        if not path.exists():
            raise KeyError(key)
        return cast(Array, np.load(path, allow_pickle=False))


def content_key(data: Array) -> str:
    """SHA-256 of the array as ``.npy`` holds it (type, shape, elements)."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(data).reshape(data.shape))
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def print_graph(graph: Graph, store: ConstantStore | None = None) -> str:
    """The text of ``graph``; without a store, every constant stands in the text."""
    lines = [f"graph @{_word(graph.name)} stage={graph.stage.value} ({', '.join(map(_value, graph.inputs))}) {{"]
    lines += [f"  {_constant(c, store)}" for c in graph.constants]
    lines += [f"  {_node(n)}" for n in graph.nodes]
    lines += [f"  return {', '.join(f'%{name}' for name in graph.outputs)}", "}", ""]
    return "\n".join(lines)


def _word(text: str) -> str:
    return text if re.fullmatch(r"[\w.$-]+", text) else _string(text)


def _string(text: str) -> str:
    return json.dumps(text).replace("#", "\\u0023")  # a bare # begins the comment


def _value(value: Value) -> str:
    text = f"%{value.name}: {value.type}"
    if value.range is not None:
        text += f" range={_attribute(value.range)}"
    if value.range4 is not None:
        text += f" range4={_attribute(value.range4)}"
    if value.bits is not None:
        text += f" bits={value.bits}"
    if value.scale is not None:
        text += f" scale={_hex(value.scale)}"
    if value.zero is not None:
        text += f" zero={value.zero}"
    return text


def _array(data: Array, store: ConstantStore | None) -> str:
    if store is not None and data.size > INLINE_ELEMENTS:
        return f"@{store.put(data)}"
    return f"[{', '.join(_scalar(x) for x in data.ravel().tolist())}]"


def _constant(constant: Constant, store: ConstantStore | None) -> str:
    text = f"const %{constant.name}: {constant.type}"
    if constant.bits is not None:
        text += f" bits={constant.bits}"
    if constant.scale is not None:
        text += f" scale={_array(constant.scale, store)}"
    return f"{text} = {_array(constant.data, store)}"


def _scalar(value: object) -> str:
    if isinstance(value, float):
        return _hex(value)
    return _string(value) if isinstance(value, str) else str(value)


def _hex(value: float) -> str:
    """The exact value, without the zeros that ``float.hex`` ends in."""
    return re.sub(r"\.?0+p", "p", value.hex())


def _attribute(value: Attribute) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_scalar, value))}{',' if len(value) == 1 else ''})"
    return _scalar(value)


def _node(node: Node) -> str:
    arguments = [f"%{name}" for name in node.inputs] + [f"{key}={_attribute(v)}" for key, v in node.attributes]
    comment = f"  # {json.dumps(node.origin)[1:-1]}" if node.origin else ""
    return f"{', '.join(map(_value, node.outputs))} = {node.op}({', '.join(arguments)}){comment}"


_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<name>%[\w.$-]+)|(?P<blob>@[0-9a-f]{64})|(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<number>[+-]?(?:0x[0-9a-f.]+p[+-]?\d+|inf|nan|\d+))|(?P<word>[\w.$-]+)|(?P<sign>[\[\](){},:=@]))""",
    re.VERBOSE,
)


class _Line:
    """A cursor over the tokens of one line."""

    def __init__(self, text: str, number: int) -> None:
        self.number = number
        self.tokens: list[tuple[str, str]] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"cannot read {text[position : position + 20]!r}")
            self.tokens.append((cast(str, match.lastgroup), match[cast(str, match.lastgroup)]))
            position = match.end()
        self.next = 0

    def error(self, problem: str) -> ValueError:
        return ValueError(f"line {self.number} of the dump: {problem}")

    def peek(self, text: str) -> bool:
        return self.next < len(self.tokens) and self.tokens[self.next][1] == text

    def accept(self, text: str) -> bool:
        found = self.peek(text)
        self.next += found
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"expected {text!r}, found {self.rest()!r}")

    def take(self, *kinds: str) -> str:
        if self.next >= len(self.tokens) or self.tokens[self.next][0] not in kinds:
            raise self.error(f"expected a {' or '.join(kinds)}, found {self.rest()!r}")
        self.next += 1
        return self.tokens[self.next - 1][1]

    def rest(self) -> str:
        return " ".join(text for _, text in self.tokens[self.next : self.next + 4])

    def end(self) -> None:
        if self.next != len(self.tokens):
            raise self.error(f"did not expect {self.rest()!r}")

    def name(self) -> str:
        return self.take("name")[1:]

    def define(self, names: Iterable[str], defined: set[str]) -> None:
        """``names`` are ``defined`` here, and nowhere before."""
        for name in names:
            if name in defined:
                raise self.error(f"%{name} is defined twice")
            defined.add(name)

    def scalar(self) -> int | float | str:
        if self.next < len(self.tokens) and self.tokens[self.next][0] == "string":
            return str(json.loads(self.take("string")))
        text = self.take("number", "word")
        if text in (BATCH, "True", "False"):
            return text
        try:
            return float.fromhex(text) if re.search("[px]|inf|nan", text) else int(text)
        except ValueError:
            raise self.error(f"{text!r} is not a number") from None

    def attribute(self) -> Attribute:
        if not self.accept("("):
            return self.scalar()
        items: list[int | float | str] = []
        while not self.accept(")"):
            items.append(self.scalar())
            if not self.peek(")"):
                self.expect(",")
            elif len(items) == 1:
                raise self.error("a tuple of one element ends in a comma")
            if self.peek(")"):
                continue
        return cast(Attribute, tuple(items))

    def type(self) -> TensorType:
        text = self.take("word")
        try:
            dtype = parse_dtype(text)
        except ValueError as problem:
            raise self.error(str(problem)) from None
        self.expect("[")
        shape: list[Dim] = []
        while not self.accept("]"):
            if shape:
                self.expect(",")
            shape.append(BATCH if self.accept(BATCH) else int(self.take("number")))
        return TensorType(dtype, tuple(shape))

    def value(self) -> Value:
        name = self.name()
        self.expect(":")
        type_ = self.type()
        found: dict[str, Any] = {}
        for key in ("range", "range4", "bits", "scale", "zero"):
            if self.accept(key):
                self.expect("=")
                found[key] = self.attribute()
        return Value(name, type_, **found)

    def array(self, dtype: DType | None, shape: tuple[int, ...] | None, store: ConstantStore | None) -> Array:
        if self.next < len(self.tokens) and self.tokens[self.next][0] == "blob":
            key = self.take("blob")[1:]
            try:
                return (store or MemoryStore()).get(key)
            except KeyError:
                raise self.error(f"constant {key} is not in the constants folder beside the dump") from None
        self.expect("[")
        items: list[int | float | str] = []
        while not self.accept("]"):
            if items:
                self.expect(",")
            items.append(self.scalar())
        container = np.dtype(np.float64) if dtype is None else dtype.container
        data = np.array(items, dtype=container)
        return data if shape is None else data.reshape(shape)


def _logical_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Number, code and origin of every line that is not empty."""
    for number, line in enumerate(text.splitlines(), 1):
        code, mark, comment = line.partition("  # ")
        if code.strip():
            yield number, code, str(json.loads(f'"{comment}"')) if mark else ""


def parse_graph(text: str, store: ConstantStore | None = None) -> Graph:
    """The graph that :func:`print_graph` wrote; ValueError, naming the line, for anything else."""
    header: tuple[str, Stage, tuple[Value, ...]] | None = None
    constants: list[Constant] = []
    nodes: list[Node] = []
    outputs: tuple[str, ...] = ()
    defined: set[str] = set()
    for number, code, origin in _logical_lines(text):
        line = _Line(code, number)
        if header is None:
            header = _header(line)
            line.define([value.name for value in header[2]], defined)
        elif line.accept("const"):
            constants.append(_parse_constant(line, store))
            line.define([constants[-1].name], defined)
        elif line.accept("return"):
            outputs = (line.name(),)
            while line.accept(","):
                outputs += (line.name(),)
        elif line.accept("}"):
            pass
        else:
            nodes.append(_parse_node(line, origin))
            line.define([value.name for value in nodes[-1].outputs], defined)
        line.end()
    if header is None:
        raise ValueError("the dump is empty")
    return Graph(header[0], header[1], header[2], tuple(constants), tuple(nodes), outputs)


def _header(line: _Line) -> tuple[str, Stage, tuple[Value, ...]]:
    line.expect("graph")
    line.expect("@")
    text = line.take("word", "string", "number")
    name = str(json.loads(text)) if text.startswith('"') else text
    line.expect("stage")
    line.expect("=")
    stage = line.take("word")
    if stage not in [s.value for s in Stage]:
        raise line.error(f"{stage!r} is not a stage")
    line.expect("(")
    inputs: list[Value] = []
    while not line.accept(")"):
        if inputs:
            line.expect(",")
        inputs.append(line.value())
    line.expect("{")
    return name, Stage(stage), tuple(inputs)


def _parse_constant(line: _Line, store: ConstantStore | None) -> Constant:
    name = line.name()
    line.expect(":")
    type_ = line.type()
    bits: int | None = None
    scale: Array | None = None
    if line.accept("bits"):
        line.expect("=")
        bits = int(line.take("number"))
    if line.accept("scale"):
        line.expect("=")
        scale = line.array(None, None, store)
    line.expect("=")
    data = line.array(type_.dtype, type_.with_batch(0), store)
    return Constant(name, type_, data, bits, scale)


def _parse_node(line: _Line, origin: str) -> Node:
    outputs = [line.value()]
    while line.accept(","):
        outputs.append(line.value())
    line.expect("=")
    op = line.take("word")
    line.expect("(")
    inputs: list[str] = []
    attributes: list[tuple[str, Attribute]] = []
    first = True
    while not line.accept(")"):
        if not first:
            line.expect(",")
        first = False
        if line.next < len(line.tokens) and line.tokens[line.next][0] == "name":
            inputs.append(line.name())
        else:
            key = line.take("word")
            line.expect("=")
            attributes.append((key, line.attribute()))
    return Node(op, tuple(inputs), tuple(outputs), tuple(attributes), origin)
