"""Calibration: run the float graph over samples and give every value the range it is quantized to.

Data may be one array ``[S, ...]`` (or a tuple or dict of them, one per input), or any iterable of batches: arrays, tensors,
tuples of them (where the model has one input, only the first is used: a loader's labels are ignored) or dicts by input
name. Only one batch and the observers are in memory at a time.

Errors: CALIB001 no data given, CALIB002 no samples, CALIB003 NaN or infinite samples, CALIB004 wrong shape, CALIB005 wrong
type, CALIB006 a layer gives NaN or infinite values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.interpret import run_float
from qcompiler.ir.graph import BATCH, Array, Graph, Stage, Value
from qcompiler.observers import MinMaxObserver, MseObserver, Observer
from qcompiler.progress import Progress

if TYPE_CHECKING:
    import torch

BATCH_SIZE: Final = 16
OBSERVERS: Final[dict[str, type[MinMaxObserver]]] = {"minmax": MinMaxObserver, "mse": MseObserver}

_ACCEPTED = "an array [samples, ...], an iterable of batches (arrays, tensors, tuples of them), or a dict by input name"


def _error(code: str, problem: str, remedy: str) -> CompileError:
    return CompileError(code, "calibration", problem, remedy)


def _is_array(data: object) -> bool:
    return hasattr(data, "__array__") and hasattr(data, "shape")


def batches(graph: Graph, data: Any) -> Iterator[list[torch.Tensor]]:
    """Float32 batches of at most ``BATCH_SIZE`` samples in the order of the graph's inputs, checked."""
    if data is None:
        raise _error(
            "CALIB001",
            "no calibration data was given, and calibrating from batch-norm statistics alone is not supported",
            f"pass calibration={_ACCEPTED}; 64 to 512 samples are enough",
        )
    if isinstance(data, str | bytes) or not (_is_array(data) or isinstance(data, Iterable)):
        raise _error("CALIB005", f"the data is a {type(data).__name__}", f"pass {_ACCEPTED}")
    whole = _is_array(data) or isinstance(data, Mapping) or (isinstance(data, tuple) and all(map(_is_array, data)))
    seen = 0
    for item in [data] if whole else data:
        tensors = _tensors(graph, item, seen)
        for start in range(0, len(tensors[0]), BATCH_SIZE):
            yield [t[start : start + BATCH_SIZE] for t in tensors]
        seen += len(tensors[0])
    if seen == 0:
        raise _error("CALIB002", "the calibration data has no samples", "pass at least one sample; 64 to 512 are enough")


def _tensors(graph: Graph, item: Any, seen: int) -> list[torch.Tensor]:
    names = [v.name for v in graph.inputs]
    if isinstance(item, Mapping):
        if set(item) != set(names):
            raise _error("CALIB004", f"a batch has the inputs {sorted(item)}", f"name every input of the model: {names}")
        parts = [item[name] for name in names]
    elif isinstance(item, tuple | list):
        parts = list(item[: len(names)])
        if len(parts) != len(names):
            raise _error("CALIB004", f"a batch has {len(parts)} tensors, the model has {len(names)} inputs", "pass one per input")
    else:
        parts = [item]
        if len(names) != 1:
            raise _error(
                "CALIB004", f"a batch is one tensor, the model has {len(names)} inputs", f"pass tuples or dicts of {names}"
            )
    tensors = [_tensor(value, part, seen) for value, part in zip(graph.inputs, parts, strict=True)]
    if len({len(t) for t in tensors}) > 1:
        counts = [len(t) for t in tensors]
        raise _error("CALIB004", f"the inputs of a batch have {counts} samples", "pass equally many samples for every input")
    return tensors


def _tensor(value: Value, part: Any, seen: int) -> torch.Tensor:
    """``part`` as a finite float32 tensor shaped like ``value``; one sample without its batch axis is accepted."""
    import torch

    array = np.asarray(part.detach().cpu() if isinstance(part, torch.Tensor) else part)
    if array.dtype.kind not in "fiub":
        raise _error("CALIB005", f"input {value.name} has elements of type {array.dtype}", "pass float or integer arrays")
    expected = value.type.shape
    if array.ndim == len(expected) - 1 and array.shape == expected[1:]:
        array = array[None]
    if array.ndim != len(expected) or any(e not in (BATCH, s) for e, s in zip(expected, array.shape, strict=True)):
        raise _error(
            "CALIB004",
            f"input {value.name} has shape {list(array.shape)}, the model takes [{', '.join(map(str, expected))}]",
            "pass samples in the model's own layout, with the batch in front",
        )
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(dim=1) if len(tensor) else torch.ones(0, dtype=torch.bool)
    if not bool(finite.all()):
        first = seen + int((~finite).nonzero()[0])
        raise _error(
            "CALIB003", f"sample {first} of input {value.name} has NaN or infinite values", "remove or repair this sample"
        )
    return tensor


@dataclass
class FirstSamples:
    """Keeps the first ``count`` calibration samples, one array per input, for what needs them after calibration."""

    count: int = 32
    inputs: list[Array] = field(default_factory=list)

    def see(self, batch: list[torch.Tensor]) -> bool:
        """Take from ``batch`` what is still missing; whether there are enough now."""
        if not self.inputs or len(self.inputs[0]) < self.count:
            parts = [t.numpy() for t in batch]
            kept = [np.concatenate(pair) for pair in zip(self.inputs, parts, strict=True)] if self.inputs else parts
            self.inputs = [array[: self.count] for array in kept]
        return len(self.inputs[0]) >= self.count

    def collect(self, data: Iterable[list[torch.Tensor]]) -> None:
        """Take batches until there are enough."""
        for batch in data:
            if self.see(batch):
                return


def calibrate(
    graph: Graph,
    data: Any,
    observer: str = "mse",
    samples: FirstSamples | None = None,
    progress: Progress | None = None,
) -> Graph:
    """The calibrated graph: every value has the range that ``observer`` ("mse" or "minmax") chose.

    Network inputs always keep their smallest and largest value: they are data, not statistics, and clipping them loses more
    than it gains.
    """
    if observer not in OBSERVERS:
        raise _error("CALIB005", f"there is no observer {observer!r}", f"choose one of {', '.join(OBSERVERS)}")
    seen: dict[str, Observer] = {v.name: MinMaxObserver() for v in graph.inputs}
    seen.update((name, OBSERVERS[observer]()) for name in graph.values if name not in seen)

    def observe(value: Value, tensor: torch.Tensor) -> None:
        if not seen[value.name].see(tensor):
            node = graph.producer.get(value.name)
            where = node.origin if node is not None and node.origin else value.name
            problem = "the float model itself gives NaN or infinite values here for calibration data"
            raise CompileError(
                "CALIB006", where, problem, "check the model's weights, and that the data is preprocessed as in training"
            )

    import torch

    with torch.no_grad():
        for batch in batches(graph, data):
            run_float(graph, batch, observe)
            if samples is not None:
                samples.see(batch)
            if progress:
                progress.advance("calibrate", len(batch[0]))

    def with_range(value: Value) -> Value:
        return replace(value, range=seen[value.name].range(8), range4=seen[value.name].range(4))

    return replace(
        graph,
        stage=Stage.CALIBRATED,
        inputs=tuple(map(with_range, graph.inputs)),
        nodes=tuple(replace(node, outputs=tuple(map(with_range, node.outputs))) for node in graph.nodes),
    )


@dataclass(frozen=True)
class Calibrate:
    """:func:`calibrate` as a pass."""

    data: Any
    observer: str = "mse"
    samples: FirstSamples | None = None
    progress: Progress | None = None
    name: str = "calibrate"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.CALIBRATED

    def __call__(self, graph: Graph) -> Graph:
        return calibrate(graph, self.data, self.observer, self.samples, self.progress)
