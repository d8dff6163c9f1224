"""Joins operators that compute one function of one tensor, such as ``x * sigmoid(x)``, into a single ``function`` node.

In the integer stage a function is a table: one rounding, whatever it is made of. A chain is joined when its inner values are
read by nothing else and when it holds a function or a product of two parts of x; clips and sums alone stay what they are, to be
fused into layers.

Before:
    %s: f32[N,8] = function(%x, expression="sigmoid(x)")  # act
    %y: f32[N,8] = mul(%x, %s)  # act
After:
    %y: f32[N,8] = function(%x, expression="x * sigmoid(x)")  # act
"""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass

from qcompiler.ir.graph import Graph, Node, Stage
from qcompiler.ops.functions import clipped, limited_expression
from qcompiler.passes.quantizers import has_few_steps

_SYMBOLS = {"add": "+", "sub": "-", "mul": "*"}
LONGEST = 2000  # characters: repeated operands double an expression's length at each step
DEEPEST = 24  # values that a chain may hold


@dataclass(frozen=True)
class _Part:
    """A value as an expression of ``root``; ``inner`` are the values between them; ``curved``: worth a table."""

    root: str
    expression: str
    inner: frozenset[str] = frozenset()
    curved: bool = False


@dataclass(frozen=True)
class FuseFunctions:
    """Each node is tried as the end of a chain, from every value that it can be an expression of; the longest chain wins."""

    name: str = "fuse_functions"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        parts: dict[str, list[_Part]] = {}
        for node in graph.nodes:
            parts[node.output.name] = [_Part(node.output.name, "x"), *_parts(graph, node, parts)]
        nodes: list[Node] = []
        taken: set[str] = set()
        for node in reversed(graph.nodes):
            name = node.output.name
            if name in taken:
                continue
            chains = [part for part in parts[name] if part.curved and part.inner and _closed(graph, name, part)]
            if chains and node.op != "quantizer":
                longest = max(chains, key=lambda part: len(part.inner))
                taken |= longest.inner
                attributes = (("expression", ast.unparse(ast.parse(longest.expression, mode="eval"))),)
                node = Node("function", (longest.root,), node.outputs, attributes, node.origin)
            nodes.append(node)
        return graph.with_nodes(reversed(nodes))


def _closed(graph: Graph, name: str, part: _Part) -> bool:
    """Whether inner values are read by inner nodes and the last one only."""
    members = part.inner | {name}
    return all(
        value not in graph.outputs and all(reader.output.name in members for reader in graph.consumers[value])
        for value in part.inner
    )


def _parts(graph: Graph, node: Node, parts: dict[str, list[_Part]]) -> list[_Part]:
    """``node`` as expressions of one value each."""
    numbers = [_number(graph, name) for name in node.inputs]
    computed = list(dict.fromkeys(name for name, number in zip(node.inputs, numbers, strict=True) if number is None))
    if (
        node.op not in ("clip", "function", "quantizer", *_SYMBOLS)
        or not computed
        or any(name in graph.constant for name in computed)
    ):
        return []
    if any(graph.type_of(name) != node.output.type for name in computed):
        return []
    found: list[_Part] = []
    choices = {name: parts.get(name, [_Part(name, "x")]) for name in computed}
    if node.op == "quantizer" and has_few_steps(node):
        return []
    if node.op == "quantizer":  # one of a function is a clip of it, any other chooses the codes of what a function reads
        choices = {name: [part for part in found if part.curved] for name, found in choices.items()}
    for root in dict.fromkeys(part.root for part in choices[computed[0]]):
        chosen = {name: next((part for part in choices[name] if part.root == root), None) for name in computed}
        operands = {name: part for name, part in chosen.items() if part is not None}
        if len(operands) < len(computed):
            continue
        inner = frozenset[str]().union(*(_inner(part, name) for name, part in operands.items()))
        curved = any(part.curved for part in operands.values()) or node.op == "function"
        curved |= node.op == "mul" and numbers.count(None) == 2
        texts = [operands[n].expression if v is None else v for n, v in zip(node.inputs, numbers, strict=True)]
        expression = _expression(node, texts)
        if len(expression) <= LONGEST and len(inner) <= DEEPEST:
            found.append(_Part(root, expression, inner, curved))
    return found


def _expression(node: Node, operands: list[str | float]) -> str:
    """The node's own expression of its operands, which are expressions of x or numbers."""
    if node.op == "function":
        assert isinstance(operands[0], str)
        return substitute(limited_expression(node), operands[0])
    if node.op in _SYMBOLS:
        texts = [repr(o) if isinstance(o, float) else o for o in operands]
        first, second = (text if text.isidentifier() or text.replace(".", "").isdigit() else f"({text})" for text in texts)
        text = f"{first} {_SYMBOLS[node.op]} {second}"
    else:
        text = str(operands[0])
    limits = node.get("clamp")
    return text if limits is None else clipped(text, *limits)


def _inner(part: _Part, name: str) -> frozenset[str]:
    """The values that a reader of ``name`` takes in with it."""
    return part.inner if part.root == name else part.inner | {name}


def substitute(outer: str, inner: str) -> str:
    """The expression ``outer`` of ``inner`` instead of x."""
    if inner == "x":
        return outer
    replacement = ast.parse(inner, mode="eval").body

    class _Replace(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.AST:
            return replacement if name.id == "x" else name

    return ast.unparse(_Replace().visit(ast.parse(outer, mode="eval")))


def _number(graph: Graph, name: str) -> float | None:
    """The value of a constant of one element, where it is a number that an expression can hold."""
    constant = graph.constant.get(name)
    value = float(constant.data.reshape(-1)[0]) if constant is not None and constant.data.size == 1 else math.inf
    return value if math.isfinite(value) else None
