"""Shapes that a model computes while it runs: Shape -> Gather -> Concat -> Reshape, with a batch that is not known.

A tensor of sizes is kept element by element: a number, ``N`` for the batch, or None for what nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.importers.builder import Known
from qcompiler.ir.graph import BATCH, Dim, Value

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True)
class Sizes:
    """A scalar (rank 0) or a list (rank 1) of sizes, at least one of them no number."""

    items: tuple[Dim | None, ...]
    rank: int = 1


Partial = Sizes | Known


def _result(items: tuple[Dim | None, ...], rank: int, name: str) -> Partial:
    if all(isinstance(d, int) for d in items):
        data = np.array(items, dtype=np.int64)
        return Known(data if rank else data.reshape(()), name)
    return Sizes(items, rank)


def _items(x: object) -> tuple[Dim | None, ...] | None:
    """The elements of a partly or fully known tensor of at most one dimension."""
    if isinstance(x, Sizes):
        return x.items
    if isinstance(x, Known) and x.data.ndim <= 1 and x.data.dtype.kind in "iu":
        return tuple(int(d) for d in x.data.reshape(-1))
    return None


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _shape(node: NodeProto, inputs: list[Any]) -> Partial | None:
    (x,) = inputs
    if not isinstance(x, Value):
        return None
    start, end = _attribute(node, "start", 0), _attribute(node, "end", None)
    return _result(tuple(x.type.shape)[start:end], 1, node.output[0])


def _size(node: NodeProto, inputs: list[Any]) -> Partial | None:
    (x,) = inputs
    if not isinstance(x, Value):
        return None
    return Sizes((BATCH if x.type.elements == 1 else None,), 0)


def _same(node: NodeProto, inputs: list[Any]) -> Partial | None:
    x = inputs[0]
    return x if isinstance(x, Sizes) else None


def _gather(node: NodeProto, inputs: list[Any]) -> Partial | None:
    x, index = inputs
    if not isinstance(x, Sizes) or not isinstance(index, Known) or index.data.ndim > 1:
        return None
    chosen = tuple(x.items[int(i)] for i in index.data.reshape(-1))
    return _result(chosen, index.data.ndim, node.output[0])


def _slice(node: NodeProto, inputs: list[Any]) -> Partial | None:
    x, *rest = inputs
    if not isinstance(x, Sizes):
        return None
    given = [_items(r) for r in rest] or [tuple(_attribute(node, "starts", ())), tuple(_attribute(node, "ends", ()))]
    numbers = [[d for d in g or () if isinstance(d, int)] for g in given]
    if any(len(n) != 1 for n in numbers):
        return None
    (start,), (end,) = numbers[:2]
    step = numbers[3][0] if len(numbers) > 3 else 1
    return _result(x.items[start:end:step], 1, node.output[0])


def _concat(node: NodeProto, inputs: list[Any]) -> Partial | None:
    parts = [_items(x) for x in inputs]
    if not any(isinstance(x, Sizes) for x in inputs):
        return None
    return _result(tuple(d for part in parts for d in ((None,) if part is None else part)), 1, node.output[0])


def _unsqueeze(node: NodeProto, inputs: list[Any]) -> Partial | None:
    x = inputs[0]
    return _result(x.items, 1, node.output[0]) if isinstance(x, Sizes) and x.rank == 0 else None


def _squeeze(node: NodeProto, inputs: list[Any]) -> Partial | None:
    x = inputs[0]
    return _result(x.items, 0, node.output[0]) if isinstance(x, Sizes) and len(x.items) == 1 else None


def _arithmetic(operation: Callable[[int, int], int]) -> Callable[[NodeProto, list[Any]], Partial | None]:
    """Element by element; only numbers give a number, so a product with the batch is not known."""

    def handler(node: NodeProto, inputs: list[Any]) -> Partial | None:
        if not any(isinstance(x, Sizes) for x in inputs):
            return None
        a, b = (_items(x) for x in inputs)
        if a is None or b is None:
            return None
        rank = max(x.rank if isinstance(x, Sizes) else x.data.ndim for x in inputs)
        size = max(len(a), len(b))
        a, b = (items * size if len(items) == 1 else items for items in (a, b))
        pairs = zip(a, b, strict=True)
        items = tuple(operation(p, q) if isinstance(p, int) and isinstance(q, int) else None for p, q in pairs)
        return _result(items, rank, node.output[0])

    return handler


def _reduce_product(node: NodeProto, inputs: list[Any]) -> Partial | None:
    if not isinstance(inputs[0], Sizes):
        return None
    return Sizes((BATCH if inputs[0].items == (BATCH,) else None,), int(_attribute(node, "keepdims", 1)))


def _where(node: NodeProto, inputs: list[Any]) -> Partial | None:
    condition, a, b = inputs
    if not isinstance(condition, Known) or not (isinstance(a, Sizes) or isinstance(b, Sizes)):
        return None
    chosen, yes, no = condition.data.reshape(-1), _items(a), _items(b)
    if yes is None or no is None:
        return None
    size = max(len(chosen), len(yes), len(no))
    parts = [list(p) * size if len(p) == 1 else list(p) for p in (chosen, yes, no)]
    return _result(tuple(y if c else n for c, y, n in zip(*parts, strict=True)), 1, node.output[0])


def _equal(node: NodeProto, inputs: list[Any]) -> Partial | None:
    """Compares sizes; the batch is equal to no number, what is computed from it may be."""
    a, b = (_items(x) for x in inputs)
    if a is None or b is None or not any(isinstance(x, Sizes) for x in inputs):
        return None
    size = max(len(a), len(b))
    a, b = (items * size if len(items) == 1 else items for items in (a, b))
    if None in a or None in b:
        return Sizes((None,) * size)
    return Known(np.array([p == q for p, q in zip(a, b, strict=True)]), node.output[0])


# Each gives None where the operands are no sizes; then the operator means what it means for activations.
SIZE_OPERATORS: Final[dict[str, Callable[[NodeProto, list[Any]], Partial | None]]] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _same,
    "Cast": _same,
    "Reshape": lambda node, inputs: _unsqueeze(node, inputs) or _same(node, inputs),
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Add": _arithmetic(lambda a, b: a + b),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b),
    "Div": _arithmetic(lambda a, b: int(a / b) if b else 0),
    "ReduceProd": _reduce_product,
    "Where": _where,
    "Equal": _equal,
    "Greater": _arithmetic(lambda a, b: a > b),
    "GreaterOrEqual": _arithmetic(lambda a, b: a >= b),
    "Less": _arithmetic(lambda a, b: a < b),
    "LessOrEqual": _arithmetic(lambda a, b: a <= b),
    "And": _arithmetic(lambda a, b: a and b),
    "Or": _arithmetic(lambda a, b: a or b),
    "Not": _same,
}
