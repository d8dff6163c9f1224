"""Operators on constants are run at import; where their sizes depend on the batch, for two batch sizes.

``torch.zeros(x.size(0), 4)`` is such a constant. What is equal for all samples and both batches becomes ``[1, ...]``
(:class:`~qcompiler.importers.builder.Repeated`) for whoever computes with it. Elements of ``torch.empty`` are NaN until something
is written over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.importers.builder import Known, Repeated, UnsupportedError, check_size
from qcompiler.ir.graph import Array

if TYPE_CHECKING:
    import torch

PROBES: Final = (2, 3)
"""The values of the batch's symbol for which what depends on it is computed."""

SHAPE_ONLY: Final = {
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"), 0),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "empty_like", "fill", "zero", "copy"), 0),
    **dict.fromkeys(("expand_as", "view_as", "reshape_as", "type_as", "to"), 1),
}
"""The argument of which an operator reads the shape and the type, and not the numbers."""

EMPTY: Final = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")
"""Operators whose result has whatever stood in the memory."""


@dataclass(frozen=True)
class Symbolic:
    """A number that depends on the batch: what it is at each of ``PROBES``; none where it depends on something else."""

    numbers: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class BatchConstant:
    """A constant that depends on the batch: what it is at each of ``PROBES``."""

    data: tuple[Array, ...]
    name: str


def expression_of(size: Any) -> Any:
    """A size as a number, or as sympy's expression where it is symbolic."""
    expression = getattr(getattr(size, "node", None), "expr", size)
    return int(expression) if getattr(expression, "is_Integer", False) else expression


def at_probes(expression: Any, batch: Any) -> tuple[Any, ...]:
    """An expression of the batch's symbol at each of ``PROBES``; nothing where it has other symbols."""
    symbols: set[Any] = getattr(batch, "free_symbols", set())
    if isinstance(expression, bool | int | float):
        return (expression,) * len(PROBES)
    if not symbols or not expression.free_symbols <= symbols:
        return ()
    values = [expression.subs(dict.fromkeys(symbols, probe)) for probe in PROBES]
    return tuple(bool(v) if v.is_Boolean else int(v) if v.is_integer else float(v) for v in values)


def shape_of(tensor: torch.Tensor, batch: Any, name: str) -> Known | BatchConstant | None:
    """A constant of the shape and the type of a traced ``tensor``; None where its shape depends on more than the batch."""
    import torch

    zero = torch.zeros((), dtype=tensor.dtype).numpy() if tensor.dtype is not torch.bfloat16 else np.zeros((), np.float32)
    sizes = [at_probes(expression_of(d), batch) for d in tensor.shape]
    if not all(sizes):
        return None
    shapes = list(zip(*sizes, strict=True)) or [()] * len(PROBES)
    if len(set(shapes)) == 1:
        return Known(np.broadcast_to(zero, shapes[0]), name)
    return BatchConstant(tuple(np.broadcast_to(zero, shape) for shape in shapes), name)


def check_constant(val: object) -> None:
    """UnsupportedError where a result of the traced value ``val`` would be larger than anything that is compiled."""
    import torch

    for part in val if isinstance(val, tuple | list) else (val,):
        if isinstance(part, torch.Tensor):
            check_size([max(d, 1) for d in map(expression_of, part.shape) if isinstance(d, int)], "a constant")


def fold(target: Any, args: Any, kwargs: Any, name: str, batch: Any) -> Any:
    """What the operator ``target`` gives for constants; ``batch``: its size, or the expression of it."""
    from torch.fx.node import map_aggregate

    flat: list[Any] = []
    map_aggregate((args, kwargs), flat.append)
    if not any(isinstance(x, Symbolic | BatchConstant | Repeated) for x in flat):
        return _each(lambda result: Known(_array(result), name), _run(target, args, kwargs, name))
    sizes = at_probes(batch, batch)

    def at(index: int) -> Callable[[Any], Any]:
        def operand(x: Any) -> Any:
            if isinstance(x, Symbolic):
                return x.numbers[index]
            if isinstance(x, BatchConstant):
                return Known(x.data[index], x.name)
            if isinstance(x, Repeated):
                return Known(np.broadcast_to(x.data, (sizes[index], *x.data.shape[1:])), x.name)
            return x

        return operand

    runs = [_run(target, map_aggregate(args, at(i)), map_aggregate(kwargs, at(i)), name) for i in range(len(PROBES))]
    return _each(lambda *results: _settled([_array(r) for r in results], name, sizes), *runs)


def _run(target: Any, args: Any, kwargs: Any, name: str) -> Any:
    import torch
    from torch.fx.node import map_aggregate

    def tensor(x: Any) -> Any:
        return torch.from_numpy(np.array(x.data)) if isinstance(x, Known) else x

    with torch.no_grad():
        result = target(*map_aggregate(args, tensor), **map_aggregate(kwargs, tensor))
    if target._opname not in EMPTY:
        return result
    if not result.is_floating_point():
        raise UnsupportedError("its whole numbers are whatever the memory holds; use torch.zeros")
    return result.fill_(float("nan"))


def _each(make: Callable[..., Any], *results: Any) -> Any:
    """``make`` of every tensor of the results, which may be tuples."""
    import torch

    first = results[0]
    if isinstance(first, tuple | list):
        return tuple(_each(make, *parts) for parts in zip(*results, strict=True))
    return make(*results) if isinstance(first, torch.Tensor) else first


def _array(tensor: torch.Tensor) -> Array:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _settled(data: Sequence[Array], name: str, sizes: Sequence[int]) -> Known | BatchConstant:
    """The constant without its dependence on the batch, if it has none but its size."""
    shapes = [x.shape for x in data]
    if len(set(shapes)) == 1:
        return Known(data[0], name) if _same(data) else BatchConstant(tuple(data), name)
    in_front = all(x.ndim and x.shape[0] == size for x, size in zip(data, sizes, strict=True))
    samples = [x[:1] for x in data]
    if in_front and _same(samples) and all(_same([x, np.broadcast_to(x[:1], x.shape)]) for x in data):
        return Repeated(samples[0], name)
    return BatchConstant(tuple(data), name)


def _same(data: Sequence[Array]) -> bool:
    return all(np.array_equal(data[0], x, equal_nan=x.dtype.kind == "f") for x in data[1:])
