"""Checks that float passes changed nothing: the graph before and after them gives the same outputs for a few samples.

Float arithmetic is not exact, and how much a network makes of one rounding is its own affair. So the graph before is run a second
time with a little noise in every constant and every result (as in Monte Carlo arithmetic: Parker, "Monte Carlo Arithmetic",
UCLA CSD-970002): what that changes, slice by slice of an output, is what rounding differently may change. A network that answers
chaotically, cancels almost all of what it computes or steps at a tie says so itself; an overwritten constant is thousands of
times above the noise. What is NaN or infinite before says nothing; where an index leaves the network, what it ranks is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.calibrate import FirstSamples
from qcompiler.dump import Dumper
from qcompiler.errors import InternalError
from qcompiler.interpret import run_float
from qcompiler.ir.graph import MOVES, RANKS, Array, Graph, Value

if TYPE_CHECKING:
    import torch

NOISE: Final = 2.0**-20
"""Of every number: eight times what float32 rounds away."""
MARGIN: Final = 64.0
"""Times the noise of a slice is what it may differ by: its size is estimated from few numbers."""
DRAWS: Final = 8
"""Of noise, before a difference is believed; the first one is what a sound graph costs."""
SAMPLES: Final = 2
LARGEST: Final = 2.0**60
"""Sums and products of larger numbers may overflow float32 in one order and not in another: such outputs are not compared."""


def some_inputs(graph: Graph, data: Any, kept: FirstSamples, seed: int = 0) -> list[Array]:
    """Float32 inputs of a few samples: those that were ``kept``, the first of ``data``, or where there is none, random ones.

    Random numbers are within the limits of a quantizer that reads the input, or normal; indices are rows of their tables.
    """
    first = kept if kept.inputs else FirstSamples(SAMPLES)
    first.fill(graph, data)
    if first.inputs:
        return first.first(SAMPLES)
    random, rows, inputs = np.random.default_rng(seed), _table_rows(graph), []
    ranges: dict[str, tuple[float, float]] = {n.inputs[0]: n["clamp"] for n in graph.nodes if n.op == "quantizer"}
    for value in graph.inputs:
        shape = value.type.with_batch(SAMPLES)
        if value.name in rows:
            x = random.integers(0, rows[value.name], shape).astype(np.float64)
        elif value.name in ranges:
            x = random.uniform(*ranges[value.name], size=shape)
        else:
            x = random.standard_normal(shape)
        inputs.append(x.astype(np.float32))
    return inputs


def _table_rows(graph: Graph) -> dict[str, int]:
    """Of every value that is an index, how many rows the table has."""
    rows: dict[str, int] = {}
    for node in reversed(graph.nodes):
        if node.op == "embedding":
            found = graph.type_of(node.inputs[1]).with_batch(1)[0]
            rows[node.inputs[0]] = min(found, rows.get(node.inputs[0], found))
        elif node.op in MOVES and node.output.name in rows:
            rows.setdefault(node.inputs[0], rows[node.output.name])
    return rows


def check_float(
    imported: Graph, result: Graph, steps: Sequence[Callable[[Graph], Graph]], inputs: Sequence[Array], folder: Path | None = None
) -> None:
    """InternalError unless ``result``, which ``steps`` made of ``imported``, gives the same for the first of ``inputs``.

    ``inputs``: float32 ``[S, ...]`` for each input. The error names the pass at fault, and the ``folder`` that the graphs are
    written to, by default a new temporary one.
    """
    problem = difference(imported, result, inputs)
    if problem is None:
        return
    dumper = Dumper(Path(mkdtemp(prefix="qcompiler-")) if folder is None else folder)
    dumper.graph("import", imported)
    fault, before = "the float stage", imported
    for step in steps:
        after = step(before)
        found = difference(imported, after, inputs)
        if found is not None:
            fault, problem = f"pass {getattr(step, 'name', step)}", found
            dumper.graph("before", before)
            result = after
            break
        before = after
    dumper.graph("after", result)
    raise InternalError(f"{fault} changes what {imported.name} computes: {problem}; the graphs are in {dumper.folder}")


def difference(before: Graph, after: Graph, inputs: Sequence[Array]) -> str | None:
    """How the outputs of two float graphs differ for the first samples of ``inputs``; None where they do not."""
    import torch

    if not all(np.isfinite(c.data).all() for graph in (before, after) for c in graph.constants):
        return None  # quantization says what is wrong
    before, after = _with_compared_outputs(before), _with_compared_outputs(after)
    tensors = [torch.from_numpy(x[:SAMPLES]) for x in inputs]
    problem: str | None = None
    with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
        exact, found = (_arrays(run_float(graph, tensors)) for graph in (before, after))
        noise = [np.zeros_like(x) for x in exact]
        for draw in range(DRAWS):
            for most, x, noisy in zip(noise, exact, _noisy_outputs(before, tensors, draw), strict=True):
                np.maximum(most, np.abs(noisy - x), out=most)
            problem = next(filter(None, map(_differing_slice, before.outputs, exact, found, noise)), None)
            if problem is None:
                break
    return problem


def _with_compared_outputs(graph: Graph) -> Graph:
    """``graph`` that returns what is ranked where it returned indices."""
    outputs = []
    for name in graph.outputs:
        node = graph.producer.get(name)
        while node is not None and node.op in MOVES:
            node = graph.producer.get(node.inputs[0])
        outputs.append(node.inputs[0] if node is not None and node.op in RANKS else name)
    return replace(graph, outputs=tuple(outputs))


def _arrays(tensors: Sequence[torch.Tensor]) -> list[Array]:
    return [x.numpy().astype(np.float32) for x in tensors]


def _noisy_outputs(graph: Graph, inputs: Sequence[torch.Tensor], draw: int) -> list[Array]:
    """The outputs with noise in all that is rounded; what only moves, and indices, stay."""
    import torch

    generator = torch.Generator().manual_seed(draw)
    exact = {*_table_rows(graph), *(node.output.name for node in graph.nodes if node.op in (*MOVES, *RANKS))}

    def disturb(value: Value, tensor: torch.Tensor) -> None:
        if value.name not in exact and tensor.is_floating_point() and 0 not in tensor.stride():
            tensor.mul_(torch.rand(tensor.shape, generator=generator).mul_(2 * NOISE).add_(1 - NOISE))

    constants = {}
    for constant in graph.constants:
        constants[constant.name] = torch.from_numpy(constant.data.copy())
        disturb(Value(constant.name, constant.type), constants[constant.name])
    return _arrays(run_float(graph, [x.clone() for x in inputs], disturb, constants))


def _differing_slice(name: str, exact: Array, found: Array, noise: Array) -> str | None:
    """What is wrong with an output, along each of its axes by itself: parts of it may be of unlike sizes."""
    if exact.shape != found.shape:
        return f"%{name} has the shape {list(found.shape)}, not {list(exact.shape)}"
    usable = np.isfinite(exact) & np.isfinite(noise)
    if (np.abs(exact, where=usable, out=np.zeros_like(exact)) > LARGEST).any():
        return None
    largest = float(np.abs(exact, where=usable, out=np.zeros_like(exact)).max(initial=0.0)) or 1.0
    squares = [np.where(usable, x / largest, 0.0) ** 2 for x in (found - exact, noise, exact)]
    for axis in range(min(1, exact.ndim - 1), exact.ndim):
        others = tuple(other for other in range(exact.ndim) if other != axis)
        errors, noises, sizes = (largest * np.sqrt(x.mean(axis=others, dtype=np.float64)) for x in squares)
        excess = ~(errors <= MARGIN * (noises + NOISE * sizes))
        if excess.any():
            place = int(excess.argmax())
            return (
                f"slice {place} of axis {axis} of %{name} is off by {errors[place]:.3g}, of {sizes[place]:.3g}, "
                f"where rounding explains {noises[place]:.3g}"
            )
    return None
