"""Whether a damaged model or an odd module gives a right result or a clear error: one case, checked.

A case is named by two numbers, ``seed`` and ``index``; every fifth is a torch module. Right means: the imported graph gives what ONNX
Runtime or torch gives for the same model (where they take it), the integer graph runs, and a built library gives its codes.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import numpy as np
from onnx import ModelProto

from qcompiler.errors import CompileError
from qcompiler.importers.builder import ImportedModel
from qcompiler.ir.graph import Graph
from tests.wall.damaged_models import damaged_model
from tests.wall.seed_models import QUANTIZED

Array = np.ndarray[Any, Any]
Kind = Literal["right", "error", "wrong", "mistake", "crash", "time", "memory"]
FINE: Final = ("right", "error")
SAMPLES: Final = 4
LARGEST_BUILD: Final = 20_000  # elements of all values of a graph that is built as well
Stage = Callable[[str], None]
Runtime = Callable[[list[Array]], list[Array] | None]


@dataclass(frozen=True)
class Outcome:
    """What became of one case. ``detail``: an error's code, how a result was checked, or what went wrong, in full."""

    index: int
    what: str
    kind: Kind
    detail: str
    seconds: float = 0.0


def check_case(seed: int, index: int, build: bool, folder: Path, stage: Stage = lambda _: None) -> Outcome:
    """Import, compare, calibrate, quantize, perhaps ``build``; ``stage`` hears what comes next."""
    random = Random(f"{seed}.{index}")
    what = "?"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if index % 5 == 4:
                from tests.wall.odd_modules import odd_module

                what, module, examples = odd_module(random)
                checked = _check(module, examples, _torch(module), build, folder, stage)
            else:
                what, damaged = damaged_model(random)
                model: Any = damaged
                if isinstance(damaged, bytes):
                    model = folder / "model.onnx"
                    model.write_bytes(damaged)
                theirs = None if what.startswith(QUANTIZED) else _onnxruntime(model)
                checked = _check(model, None, theirs, build, folder, stage)
    except CompileError as error:
        parts = (error.code, error.where, error.problem, error.remedy)
        if "allocate" in error.problem or "MemoryError" in error.problem:
            return Outcome(index, what, "memory", str(error))
        clear = all(isinstance(part, str) and part.strip() for part in parts)
        return Outcome(index, what, "error" if clear else "mistake", error.code if clear else str(error))
    except AssertionError as problem:
        text = str(problem)
        return Outcome(index, what, *(("wrong", text) if text.startswith("differs") else ("mistake", traceback.format_exc())))
    except MemoryError:
        return Outcome(index, what, "memory", traceback.format_exc())
    except Exception:
        return Outcome(index, what, "mistake", traceback.format_exc())
    return Outcome(index, what, "right", checked)


def _check(model: Any, examples: Any, theirs: Any, build: bool, folder: Path, stage: Stage) -> str:
    """How far the model was found to be right; an AssertionError that begins with ``differs`` where it is not."""
    from qcompiler.importers.load import load_model
    from qcompiler.interpret import quantize_input, run_integer
    from qcompiler.ir.verify import verify
    from qcompiler.ops.table import OPERATORS
    from qcompiler.pipeline import Settings, to_integer

    stage("import")
    imported = load_model(model, examples)
    graph = imported.graph
    verify(graph, OPERATORS)
    inputs = _inputs(imported, SAMPLES)
    checked = "quantized"
    examples = examples if isinstance(examples, tuple) else (examples,)
    batches: tuple[int, ...] = (2, 1)
    if any("is written for a batch" in note for note in imported.notes):
        batches = (len(examples[0]),)
    if theirs is not None and _compare(imported, theirs, batches, stage):
        checked = "compared"
    stage("quantize")
    integer = to_integer(graph, Settings(tuple(inputs)))
    codes = [quantize_input(value, x) for value, x in zip(integer.inputs, inputs, strict=True)]
    expected = run_integer(integer, codes)
    if build and sum(value.type.elements for value in integer.values.values()) <= LARGEST_BUILD:
        stage("build")
        _build(integer, codes, expected, folder)
        checked += ", built"
    return checked


def _inputs(imported: ImportedModel, samples: int) -> list[Array]:
    """Random numbers for every input; indices where the graph reads indices."""
    generator = np.random.default_rng(0)
    graph = imported.graph
    tokens = {node.inputs[0] for node in graph.nodes if node.op == "embedding"}
    shapes = [(value.name in tokens, value.type.with_batch(samples)) for value in graph.inputs]
    return [
        generator.integers(0, 4, shape).astype(np.float32) if token else generator.normal(size=shape).astype(np.float32)
        for token, shape in shapes
    ]


def _compare(imported: ImportedModel, theirs: Runtime, batches: Sequence[int], stage: Stage) -> bool:
    """Whether the model's own runtime takes it with one of the batches, and gives what the imported graph gives."""
    import torch

    from qcompiler.interpret import run_float

    stage("runtime")
    for samples in batches:
        inputs = _inputs(imported, samples)
        expected = theirs(inputs)
        if expected is not None:
            break
    stage("compare")
    if expected is None or not all(np.isfinite(y).all() for y in expected if y.dtype.kind == "f"):
        return False
    with torch.no_grad():
        found = run_float(imported.graph, [torch.from_numpy(x) for x in inputs])
    if not all(bool(y.isfinite().all()) for y in found):
        return False  # runtimes differ in what becomes of NaN; calibration rejects it
    for activation in imported.final_activations:
        function = torch.log_softmax if activation.function == "log_softmax" else torch.softmax
        found[activation.output] = function(found[activation.output], activation.axis)
    assert len(found) == len(expected), f"differs: {len(found)} outputs, not {len(expected)}"
    for index, (mine, other) in enumerate(zip(found, expected, strict=True)):
        assert tuple(mine.shape) == other.shape, f"differs: output {index} is {tuple(mine.shape)}, not {other.shape}"
        size = float(np.abs(other).max(initial=1e-3))
        error = float(np.abs(mine.numpy().astype(np.float64) - other).max(initial=0))
        assert error <= 2e-3 * size, f"differs: output {index} by {error} of {size}"
    return True


def _onnxruntime(model: ModelProto | Path) -> Runtime:
    def run(inputs: list[Array]) -> list[Array] | None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = model.SerializeToString() if isinstance(model, ModelProto) else str(model)
        try:
            session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
            ports = session.get_inputs()
            feed = {p.name: x.astype(kinds.get(p.type, np.float32)) for p, x in zip(ports, inputs, strict=True)}
            if any(not np.array_equal(feed[p.name], x) for p, x in zip(ports, inputs, strict=True)):
                return None  # fractions for integers that nothing reads as such
            results: list[Array] = session.run(None, feed)
        except Exception:  # it does not take this model: whatever it raises, there is nothing to compare with
            return None
        return results

    return run


def _torch(module: Any) -> Runtime:
    def run(inputs: list[Array]) -> list[Array] | None:
        import torch
        from torch.utils._pytree import tree_leaves

        module.eval()
        try:
            with torch.no_grad():
                result = module(*(torch.from_numpy(x.copy()) for x in inputs))
        except Exception:  # as above: it was exported with other inputs, such as one batch size
            return None
        return [y.numpy() for y in tree_leaves(result) if isinstance(y, torch.Tensor)]

    return run


def _build(integer: Graph, codes: Sequence[Array], expected: Sequence[Array], folder: Path) -> None:
    """The library for this machine, which must give the reference's codes."""
    from tempfile import TemporaryDirectory

    from qcompiler.backend.artifact import write_artifact
    from qcompiler.backend.library import Library
    from qcompiler.backend.lower import lower
    from qcompiler.targets.target import load_target

    target = load_target("native")
    with TemporaryDirectory(dir=folder) as out:
        artifact = write_artifact(lower(integer, target.instruction_set, target.tvm_target), target, Path(out) / "net")
        with Library(artifact.folder) as library:
            given = [x.astype(port.dtype) for x, port in zip(codes, library.inputs, strict=True)]
            results = library.run_int(*given)
        for index, (mine, other) in enumerate(zip(results if isinstance(results, tuple) else (results,), expected, strict=True)):
            assert np.array_equal(mine, other), f"differs: output {index} of the library from the reference"
