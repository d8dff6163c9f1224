"""ONNX's own backend tests, run as a user's models: imported, calibrated on their input, quantized, compared.

A case passes when the float graph gives the expected output and the integer reference gives it up to quantization. The tests of
single operators know no batch: their first dimension is taken for it. All inputs are computed tensors first; where that is not
supported, every input but the first is bound as an initializer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper

from qcompiler.errors import CompileError, QCompilerError
from qcompiler.importers.load import load_model
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.graph import Graph
from qcompiler.pipeline import Settings, to_integer

Array = np.ndarray[Any, Any]
KINDS: Final = ("node", "pytorch-operator", "pytorch-converted")

REASONS: Final = {
    "operator": "the operator is not one of convolutional networks",
    "form": "this form of the operator is not supported",
    "batch": "it works across its first dimension, which is taken for the batch",
    "type": "its input is not float32",
    "sizes": "its sizes are not known before it runs",
    "constant": "nothing in it depends on a float input",
    "range": "its numbers are larger than any of float32",
    "precision": "the 8 bits of its input do not hold the differences that its output is made of",
    "model": "onnx's checker or version converter refuses the model",
}
"""Why a case is unsupported: the whole list."""

CODES: Final = {"IMPORT002": "model", "IMPORT005": "batch", "IMPORT006": "sizes", "IMPORT007": "type"}
FLOAT_TOLERANCE: Final = 1e-3  # of the largest expected value
INTEGER_TOLERANCE: Final = 0.05  # of the same, for at least 95 % of the elements: functions with steps may round to either side


@dataclass(frozen=True)
class Case:
    """``inputs`` and ``outputs`` of the first data set."""

    name: str
    kind: str
    model: ModelProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]

    @property
    def operators(self) -> tuple[str, ...]:
        """The model's operators."""
        return tuple(sorted({node.op_type for node in self.model.graph.node}))


@dataclass(frozen=True)
class Outcome:
    """``status``: passed, unsupported or failed; ``reason``: a key of ``REASONS``, or what is wrong."""

    case: Case
    status: str
    reason: str = ""
    detail: str = ""
    integer: Graph | None = None


def cases(kinds: Sequence[str] = KINDS) -> Iterator[Case]:
    """Every case that installed onnx carries."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx makes its data with divisions by zero
        for kind in kinds:
            for case in load_model_tests(kind=kind):
                if case.model is not None:
                    inputs, outputs = case.data_sets[0]
                    yield Case(case.name, kind, case.model, inputs, outputs)
                else:
                    yield _stored(case.name, kind, Path(case.model_dir))


def _stored(name: str, kind: str, folder: Path) -> Case:
    data = folder / "test_data_set_0"

    def arrays(what: str) -> list[Array]:
        count = len(list(data.glob(f"{what}_*.pb")))
        return [numpy_helper.to_array(onnx.load_tensor(data / f"{what}_{i}.pb")) for i in range(count)]

    return Case(name, kind, onnx.load(folder / "model.onnx"), arrays("input"), arrays("output"))


def bound(case: Case) -> ModelProto | None:
    """The model with every input but the first as an initializer; None where that is not possible."""
    if len(case.inputs) < 2 or not all(isinstance(x, np.ndarray) for x in case.inputs):
        return None
    model = ModelProto()
    model.CopyFrom(case.model)
    names = [value.name for value in model.graph.input]
    for name, x in zip(names[1:], case.inputs[1:], strict=False):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(x), name))
    if model.ir_version >= 4:  # before, initializers stood among the inputs as well
        kept = [value for value in model.graph.input if value.name not in names[1:]]
        del model.graph.input[:]
        model.graph.input.extend(kept)
    return model


def run(case: Case) -> Outcome:
    """Import, quantize and compare one case."""
    first = _attempt(case, case.model, case.inputs)
    if first.status == "passed":
        return first
    model = bound(case)
    second = _attempt(case, model, case.inputs[:1]) if model is not None else first
    # A failure of either is a failure.
    return first if first.status == "failed" or (second.status == "unsupported" and len(case.inputs) < 2) else second


def _attempt(case: Case, model: ModelProto, inputs: Sequence[Any]) -> Outcome:
    if not inputs or not all(isinstance(x, np.ndarray) for x in [*inputs, *case.outputs]):
        return Outcome(case, "unsupported", "type" if inputs else "constant")
    if any(x.dtype == np.float64 and np.abs(x).max(initial=0) > np.finfo(np.float32).max for x in (*case.inputs, *case.outputs)):
        return Outcome(case, "unsupported", "range")
    try:
        imported = load_model(model)
        graph = imported.graph
        data = [np.asarray(x, dtype=np.float32) for x in inputs][: len(graph.inputs)]
        floats = run_float(graph, [torch.from_numpy(x) for x in data])
        steps = _output_steps(model)
        expected = [_numbers(np.asarray(y), step) for y, step in zip(case.outputs, steps, strict=False)]
        for activation in imported.final_activations:
            function = torch.softmax if activation.function == "softmax" else torch.log_softmax
            floats[activation.output] = function(floats[activation.output], activation.axis)
        rounded = [
            x.numpy() if step is None else np.round(x.numpy() / step[0]) * step[0] for x, step in zip(floats, steps, strict=True)
        ]
        wrong = [_difference(y, x, FLOAT_TOLERANCE, 1.0) for y, x in zip(expected, rounded, strict=False)]
        if any(wrong):
            return Outcome(case, "failed", "the float graph", "; ".join(filter(None, wrong)))
        if not all(np.isfinite(x.numpy()).all() for x in floats):
            return Outcome(case, "unsupported", "form", "not finite")
        integer = to_integer(graph, Settings(tuple(data), "minmax"))
        codes = [quantize_input(v, x) for v, x in zip(integer.inputs, data, strict=True)]
        results = run_integer(integer, codes)
        # What 8 bits leave of the input decides where a function with steps, or a small difference of large numbers, lands.
        left = [torch.from_numpy(dequantize(v, x)) for v, x in zip(integer.inputs, codes, strict=True)]
        again = run_float(graph, left)
        names = zip(expected, again, integer.outputs, results, strict=False)
        left_out = {a.output for a in imported.final_activations}
        wrong = [
            _difference(y, dequantize(integer.values[name], x), INTEGER_TOLERANCE, 0.95, other.numpy())
            for index, (y, other, name, x) in enumerate(names)
            if index not in left_out
        ]
        if any(wrong):
            lost = [_difference(y, x.numpy(), INTEGER_TOLERANCE, 0.95) for y, x in zip(expected, again, strict=False)]
            if any(lost):
                return Outcome(case, "unsupported", "precision")
            return Outcome(case, "failed", "the integer graph", "; ".join(filter(None, wrong)))
        return Outcome(case, "passed", integer=integer)
    except CompileError as problem:
        return Outcome(case, "unsupported", _reason(problem), problem.problem)
    except QCompilerError as problem:
        return Outcome(case, "failed", "a mistake of the compiler", str(problem))


def _output_steps(model: ModelProto) -> list[tuple[float, int] | None]:
    """Of every output that is a tensor of codes in the model, and float here, its scale and zero point."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    steps: list[tuple[float, int] | None] = []
    for output in model.graph.output:
        node = makers.get(output.name)
        names = node.input[6:8] if node is not None and node.op_type == "QLinearMatMul" else ()
        if names and all(name in constants for name in names):
            scale, zero = (float(numpy_helper.to_array(constants[name]).item()) for name in names)
            steps.append((scale, int(zero)))
        else:
            steps.append(None)
    return steps


def _numbers(y: Array, step: tuple[float, int] | None) -> Array:
    """What codes stand for."""
    return y if step is None else (y.astype(np.float32) - step[1]) * np.float32(step[0])


def _difference(expected: Array, found: Array, tolerance: float, share: float, rounded: Array | None = None) -> str:
    """What is wrong with ``found``, or nothing; elements may be near ``rounded`` as well."""
    if expected.shape != found.shape:
        return f"shape {list(found.shape)} instead of {list(expected.shape)}"
    largest = float(np.nanmax(np.abs(expected), initial=0.0)) + 1e-6

    def near(wanted: Array) -> Array:
        with np.errstate(invalid="ignore"):
            close: Array = np.abs(wanted.astype(np.float64) - found) <= tolerance * largest
        return close | (wanted == found) | (np.isnan(wanted) & np.isnan(found))

    fine = near(expected) if rounded is None else near(expected) | near(rounded)
    return (
        ""
        if not fine.size or fine.mean() >= share
        else f"{(~fine).sum()} of {fine.size} elements differ, the largest is {largest:.3g}"
    )


def _reason(problem: CompileError) -> str:
    """The key of ``REASONS`` for an error."""
    if problem.code == "IMPORT001":
        if "does not depend on the input" in problem.problem:
            return "constant"
        lines = problem.problem.splitlines()[1:]
        return "operator" if all(line.rstrip().endswith(": not supported") for line in lines) else "form"
    return CODES.get(problem.code, "form")
