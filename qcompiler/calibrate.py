"""Calibration: run the float graph over samples and give every value the range it is quantized to.

Data may be one array ``[S, ...]`` (or a tuple or dict of them, one per input), or any iterable of batches: arrays, tensors,
tuples of them (where the model has one input, only the first is used: a loader's labels are ignored) or dicts by input
name; a sample without its batch axis gets one, and a tuple of three and more arrays that all are inputs is a list of batches;
files and folders of images come as ``qcompiler.samples`` opens them. Only one batch and the observers are in memory at a
time, whatever the number of samples.

Errors: CALIB001 no data given, none that could be distilled (``qcompiler.distill``), and no quantizers in the model that say
every range; CALIB002 no samples, CALIB003 NaN or infinite samples, CALIB004 wrong shape, CALIB005 wrong type, CALIB006 a layer
gives NaN or infinite values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.interpret import run_float
from qcompiler.ir.graph import BATCH, Array, Graph, Stage, Value
from qcompiler.observers.choice import ObserverChoice, ObserverWish
from qcompiler.ops.quantizer import is_quantized
from qcompiler.progress import Progress
from qcompiler.samples.numbers import is_array, no_samples, numbers
from qcompiler.samples.numpy_files import NpzSamples
from qcompiler.samples.restartable import Restartable

if TYPE_CHECKING:
    import torch

BATCH_SIZE: Final = 16
LISTED: Final = 20
"""Values that a message names."""

_ACCEPTED = "an array [samples, ...], an iterable of batches (arrays, tensors, tuples of them), or a dict by input name"


def _error(code: str, problem: str, remedy: str) -> CompileError:
    return CompileError(code, "calibration", problem, remedy)


def batches(graph: Graph, data: Any) -> Iterator[list[torch.Tensor]]:
    """Float32 batches of at most ``BATCH_SIZE`` samples in the order of the graph's inputs, checked."""
    if data is None:
        raise _error(
            "CALIB001",
            "no calibration data was given, and samples cannot be made up either: the imported graph has no batch norms whose "
            "running statistics say what every input is (exporters often fold them into convolutions)",
            f"pass calibration={_ACCEPTED}; 64 to 512 samples are enough; or give the model with its batch norms as they were",
        )
    if isinstance(data, str | bytes) or not (is_array(data) or isinstance(data, Iterable)):
        raise _error("CALIB005", f"the data is a {type(data).__name__}", f"pass {_ACCEPTED}")
    if isinstance(data, NpzSamples):
        data = data.batches([value.name for value in graph.inputs])
    whole = is_array(data) or isinstance(data, Mapping) or (isinstance(data, tuple) and not _are_batches(graph, data))
    seen = 0
    for item in [data] if whole else data:
        parts = _parts(graph, item)
        for start in range(0, len(parts[0]), BATCH_SIZE):
            slices = (part[start : start + BATCH_SIZE] for part in parts)
            yield [_tensor(value, part, seen + start) for value, part in zip(graph.inputs, slices, strict=True)]
        seen += len(parts[0])
    if seen == 0:
        raise no_samples()


def _are_batches(graph: Graph, data: tuple[Any, ...]) -> bool:
    """Whether a tuple is a list: not all are arrays, or three and more are what the model's only input takes.

    Two arrays may be inputs and what is wanted of them, of one shape.
    """
    if not all(map(is_array, data)):
        return True
    return len(graph.inputs) == 1 and len(data) > 2 and all(_fits(graph.inputs[0], tuple(part.shape)) for part in data)


def _fits(value: Value, shape: tuple[int, ...]) -> bool:
    """Whether ``shape`` is that of samples of ``value``, with the batch in front or one without."""
    expected = value.type.shape
    shape = shape if len(shape) == len(expected) else (1, *shape)
    return len(shape) == len(expected) and all(e in (BATCH, s) for e, s in zip(expected, shape, strict=True))


def input_tensors(graph: Graph, item: Any) -> list[torch.Tensor]:
    """One batch in any of the forms that calibration takes, as float32 tensors in the order of the graph's inputs, checked."""
    return [_tensor(value, part, 0) for value, part in zip(graph.inputs, _parts(graph, item), strict=True)]


def _parts(graph: Graph, item: Any) -> list[Any]:
    """What ``item`` has for each input: arrays or tensors with the batch in front, equally many samples, nothing copied."""
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
    parts = [_with_batch(value, part) for value, part in zip(graph.inputs, parts, strict=True)]
    if len({len(part) for part in parts}) > 1:
        counts = [len(part) for part in parts]
        raise _error("CALIB004", f"the inputs of a batch have {counts} samples", "pass equally many samples for every input")
    return parts


def _with_batch(value: Value, part: Any) -> Any:
    """``part`` as an array or tensor shaped like ``value``; one sample without its batch axis is accepted."""
    part = numbers(part, f"input {value.name}")
    expected, shape = value.type.shape, tuple(part.shape)
    single = len(shape) == len(expected) - 1
    if not _fits(value, shape):
        raise _error(
            "CALIB004",
            f"input {value.name} has shape {list(shape)}, the model takes [{', '.join(map(str, expected))}]"
            + (": axis 0, the batch, is missing, and the others differ" if single else ""),
            "pass samples in the model's own layout, with the batch in front" + (", x[None] for one sample" if single else ""),
        )
    return part[None] if single else part


def _tensor(value: Value, part: Any, seen: int) -> torch.Tensor:
    """``part`` as a finite float32 tensor; ``seen`` samples came before."""
    import torch

    if isinstance(part, torch.Tensor):
        part = part.detach().cpu()
        part = part.float() if part.is_floating_point() else part  # numpy has no bfloat16
    array = np.asarray(part)
    if array.dtype.kind not in "fiub":
        raise _error("CALIB005", f"input {value.name} has elements of type {array.dtype}", "pass float or integer arrays")
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
    """Keeps the first ``count`` calibration samples, one array per input, for what needs them before or after calibration.

    Of large ones fewer are kept, not more than fit in ``most_bytes`` (but one).
    """

    count: int = 512
    inputs: list[Array] = field(default_factory=list)
    most_bytes: int = 1 << 28

    def see(self, batch: list[torch.Tensor]) -> bool:
        """Take from ``batch`` what is still missing; whether there are enough now."""
        parts = [t.numpy() for t in batch]
        enough = max(1, min(self.count, self.most_bytes // max(1, sum(x[:1].nbytes for x in parts))))
        if not self.inputs or len(self.inputs[0]) < enough:
            kept = [np.concatenate(pair) for pair in zip(self.inputs, parts, strict=True)] if self.inputs else parts
            self.inputs = [array[:enough] for array in kept]
        return len(self.inputs[0]) >= enough

    def first(self, count: int) -> list[Array]:
        """The first ``count`` samples of each input, or all where there are fewer."""
        return [array[:count] for array in self.inputs]

    def fill(self, graph: Graph, data: Any) -> None:
        """Look at the first samples of ``data`` if there is any and none were kept before."""
        if self.inputs or data is None:
            return
        for batch in batches(graph, data.peek() if isinstance(data, Restartable) else data):
            if self.see(batch):
                return


def calibrate(
    graph: Graph,
    data: Any,
    observer: ObserverWish = None,
    samples: FirstSamples | None = None,
    progress: Progress | None = None,
) -> Graph:
    """The calibrated graph: every value has the range that its observer chose, see ``qcompiler.observers.choice``.

    Values that have a range keep it; where all have one, ``data`` may be None.
    """
    given = {v.name: (v.range, v.range4 or v.range) for v in graph.values.values() if v.range is not None}
    missing = [value for value in graph.values.values() if value.name not in given]
    if data is None and not missing:
        return with_ranges(graph, given)
    if data is None and is_quantized(graph):
        raise _partly_quantized(graph, missing)
    seen = ObserverChoice.parse(observer).observers(graph)
    keeping = None if samples is None or samples.inputs else samples  # an earlier pass may have looked at them

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
            if keeping is not None:
                keeping.see(batch)
            if progress:
                progress.advance("calibrate", len(batch[0]))

    observed = {name: (observer.range(8), observer.range(4)) for name, observer in seen.items()}
    return with_ranges(graph, observed | given)


def _partly_quantized(graph: Graph, missing: Sequence[Value]) -> CompileError:
    """What to say where a quantized model says the ranges of some values only."""
    layers = {v.name: graph.producer[v.name].origin if v.name in graph.producer else "" for v in missing}
    lines = [f"{name} ({layer})" if layer and layer != name else name for name, layer in layers.items()]
    listed = "\n".join([*lines[:LISTED], *([f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else [])])
    problem = (
        "no calibration data was given, and the model is quantized in part only: its quantizers do not say the ranges of\n"
        + listed
    )
    return _error("CALIB001", problem, f"pass calibration={_ACCEPTED}, or quantize these tensors in the model")


def with_ranges(graph: Graph, ranges: Mapping[str, tuple[tuple[float, float], tuple[float, float]]]) -> Graph:
    """The calibrated graph whose values have these ranges, for 8 bits and for 4."""

    def with_range(value: Value) -> Value:
        wide, narrow = ranges[value.name]
        return replace(value, range=wide, range4=narrow)

    return replace(
        graph,
        stage=Stage.CALIBRATED,
        inputs=tuple(map(with_range, graph.inputs)),
        nodes=tuple(
            replace(node, outputs=tuple(map(with_range, node.outputs))).with_attributes(equalized=None) for node in graph.nodes
        ),
    )


@dataclass(frozen=True)
class Calibrate:
    """:func:`calibrate` as a pass."""

    data: Any
    observer: ObserverWish = None
    samples: FirstSamples | None = None
    progress: Progress | None = None
    name: str = "calibrate"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.CALIBRATED

    def __call__(self, graph: Graph) -> Graph:
        return calibrate(graph, self.data, self.observer, self.samples, self.progress)
