"""The graph of what is handed over as a model, and the example inputs that its calibration data give where it needs some.

An ``nn.Module`` says nothing about its inputs, and an ONNX model may leave sizes open: the first calibration sample says both.
Nothing is taken away from the data by looking at it.

Errors: IMPORT003 example inputs that do not fit, CALIB002 no samples, CALIB005 samples that are no numbers; others are the
importers'.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompiler.dump import read_dump
from qcompiler.errors import CompileError
from qcompiler.importers.kinds import unwrapped
from qcompiler.ir.graph import Graph
from qcompiler.samples.numbers import no_samples, numbers

if TYPE_CHECKING:
    import torch

    from qcompiler.importers.builder import ImportedModel


def load_with_samples(model: Any, example_inputs: Any, calibration: Any) -> tuple[ImportedModel, Any]:
    """What the import of ``model`` gave, and the calibration data with nothing taken away.

    ``example_inputs``: a tensor or a tuple of them; by default the first calibration sample, where the model needs one.
    """
    model = unwrapped(model)
    by_sample = example_inputs is None and _needs_example(model)
    if by_sample:
        example_inputs, calibration = first_sample(calibration, required_inputs(model), input_names(model))
    try:
        imported = _load_by_sample(model, example_inputs) if by_sample else load_graph(model, example_inputs)
    except CompileError as problem:
        if by_sample and calibration is not None:
            single, calibration = first_sample(calibration, required_inputs(model), input_names(model), batched=False)
            imported = _load_with_batch(model, single, problem)
        elif example_inputs is not None and _needs_example(model):
            raise _missing_batch(model, example_inputs, problem) from problem
        elif problem.code == "IMPORT006" and calibration is not None:
            example_inputs, calibration = first_sample(calibration, None)  # samples say the sizes that the model leaves open
            imported = load_graph(model, example_inputs)
        else:
            raise
    return imported, calibration


def load_graph(model: Any, example_inputs: Any) -> ImportedModel:
    """The graph of a model or of a dump (or the graph that ``model`` is), and what the import has to say about it."""
    from qcompiler.importers.builder import ImportedModel
    from qcompiler.importers.load import load_model

    if isinstance(model, Graph):
        return ImportedModel(model)
    if isinstance(model, str | Path) and Path(model).suffix == ".qir":
        return ImportedModel(read_dump(Path(model)))
    from qcompiler.training.module import TrainableModel

    return model.imported() if isinstance(model, TrainableModel) else load_model(model, example_inputs)


def _load_by_sample(model: Any, sample: tuple[torch.Tensor, ...] | None) -> ImportedModel:
    """As :func:`load_graph`: whole numbers of a sample are tried as indices and as measurements; only the model knows.

    Of the problems the last one that is not torch's refusal is told: by then the types were right.
    """
    if sample is None:
        return load_graph(model, None)
    problems: list[CompileError] = []
    for typed in _typed(sample):
        try:
            return load_graph(model, typed)
        except CompileError as problem:
            problems.append(problem)
            if problem.code != "IMPORT004" and all(x.is_floating_point() for x in typed):
                break
    raise next((problem for problem in reversed(problems) if problem.code != "IMPORT004"), problems[0])


def _typed(sample: tuple[torch.Tensor, ...]) -> list[tuple[torch.Tensor, ...]]:
    """The sample in the types that its numbers may be meant in, the most likely first.

    int32 and int64 are what indices have; smaller integers and floats may hold them as well.
    """
    import torch

    def whole(x: torch.Tensor) -> bool:
        return bool(torch.equal(x, x.trunc()))

    readings = (
        tuple(x if x.dtype in (torch.int32, torch.int64) else x.float() for x in sample),
        tuple(x.float() for x in sample),
        tuple(x if x.is_floating_point() else x.long() for x in sample),
        tuple(x.long() if whole(x) else x for x in sample),
    )
    return list({tuple(x.dtype for x in reading): reading for reading in readings}.values())


def _load_with_batch(model: Any, sample: Any, problem: CompileError) -> ImportedModel:
    """The graph by a sample that got its batch axis here; ``problem``, which there was without, where that is no remedy."""
    try:
        return _load_by_sample(model, sample)
    except CompileError:
        raise problem from None


def _missing_batch(model: Any, example_inputs: Any, problem: CompileError) -> CompileError:
    """What to say of example inputs that the model only takes with another axis; else ``problem``."""
    examples = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    try:
        load_graph(model, tuple(x[None] for x in examples))
    except (CompileError, TypeError, IndexError):
        return problem
    shapes = ", ".join(str(list(x.shape)) for x in examples)
    what = f"axis 0, the batch, is missing from the example inputs of shape {shapes}"
    return CompileError("IMPORT003", type(model).__name__, what, "pass example_inputs=x[None]: one sample is a batch of one")


def _needs_example(model: Any) -> bool:
    """Whether ``model`` is an nn.Module (not one that was made of a graph), which says nothing about its inputs' shapes."""
    return hasattr(model, "named_modules") and callable(model) and not hasattr(model, "to_graph")


def required_inputs(model: Any) -> int | None:
    """How many inputs ``model.forward`` needs; None where it takes any number."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def input_names(model: Any) -> list[str]:
    """The names of what ``model.forward`` takes, in order."""
    return list(inspect.signature(model.forward).parameters)


def first_sample(calibration: Any, count: int | None, names: Sequence[str] = (), batched: bool = True) -> tuple[Any, Any]:
    """The first calibration sample as example inputs (at most ``count`` tensors), and the data with nothing taken away.

    Integers stay what they are: they may be indices. A dict whose keys all are ``names`` is taken in their order, another one
    in its own. ``batched``: the data has the batch in front; else what comes first is one sample, and gets it. Raises
    CompileError CALIB002, CALIB005.
    """
    import torch

    def one(part: Any) -> torch.Tensor:
        array = numbers(part, "a calibration sample")
        first = array[:1] if batched and array.shape else array[None]
        tensor = first if isinstance(first, torch.Tensor) else torch.tensor(first)
        return tensor.float() if tensor.is_floating_point() or tensor.dtype == torch.bool else tensor

    if calibration is None:
        return None, None
    item = calibration
    if not hasattr(calibration, "shape") and not isinstance(calibration, Mapping | tuple) and isinstance(calibration, Iterable):
        iterator: Iterator[Any] = iter(calibration)
        item = next(iterator, None)
        if iter(calibration) is iterator:
            calibration = itertools.chain([] if item is None else [item], iterator)
    if isinstance(item, Mapping):
        keys = [name for name in names if name in item]
        item = tuple(item[key] for key in (keys if len(keys) == len(item) else item))
    parts = item[:count] if isinstance(item, tuple | list) else (item,)
    samples = () if item is None else tuple(map(one, parts))
    if not samples or not all(map(len, samples)):
        raise no_samples()
    return samples, calibration
