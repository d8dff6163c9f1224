"""torch modules and exported programs to a float graph.

A module is exported by ``torch.export`` in evaluation mode with a dynamic batch; where the model is written for one batch
size, it is exported for that size and the reshapes are rewritten. An ``ExportedProgram`` is taken as it is, before or
after its decompositions.

Codes of this module:
    IMPORT003: example inputs that are missing, no tensors, empty, or of different batch sizes.
    IMPORT004: ``torch.export`` cannot export the model.
    IMPORT005: an input without a batch in front, or inputs with different batches.
    IMPORT006: a dimension other than the batch is not known.
    IMPORT007: an input that is neither a float32 tensor nor one of integers, or an output that is no tensor.
    IMPORT008: the model branches on values that it computes from its input.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.importers.builder import ImportedModel
from qcompiler.importers.kinds import check_numbers
from qcompiler.importers.rejections import FIXED_BATCH
from qcompiler.importers.torch_graph import TorchGraph
from qcompiler.importers.torch_operators import MAKES_FRESH
from qcompiler.importers.torch_quantized import settled_observers

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


def import_module(model: torch.nn.Module, example_inputs: object) -> ImportedModel:
    """Export ``model`` in evaluation mode and import the program. The module's modes are as before afterwards."""
    name = type(model).__name__
    check_numbers(name, {**dict(model.named_parameters()), **dict(model.named_buffers())})
    examples = _tensors(model, example_inputs)
    with _evaluation(model), settled_observers(model):
        try:
            return import_program(_export(model, examples, dynamic=True), name)
        except CompileError as problem:
            if problem.code not in ("IMPORT004", "IMPORT005") and FIXED_BATCH not in problem.problem:
                raise
            first = problem
        # The model is written for one batch size: export it for that one and generalize.
        try:
            imported = import_program(_export(model, examples, dynamic=False), name)
        except CompileError as second:
            raise first if first.code == "IMPORT001" != second.code else second  # noqa: B904
    size = examples[0].shape[0]
    note = f"{name} is written for a batch of {size}: its reshapes were rewritten for any batch"
    return replace(imported, notes=(note, *imported.notes))


def import_program(program: ExportedProgram, name: str | None = None) -> ImportedModel:
    """Import an exported program, with a dynamic batch or a static one, which becomes symbolic."""
    import torch

    name = name or _program_name(program)
    check_numbers(name, program.state_dict)
    if _in_place_hazard(program):
        with torch.no_grad():  # autograd forbids to write to the parts that split gives
            program = program.run_decompositions({})
    return TorchGraph(program, name).convert()


def _program_name(program: ExportedProgram) -> str:
    for node in program.graph.nodes:
        for path, kind in node.meta.get("nn_module_stack", {}).values():
            if path == "":
                return str(kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
    return "model"


def _tensors(model: torch.nn.Module, example_inputs: object) -> tuple[torch.Tensor, ...]:
    """The examples as tensors on the model's device, floats of its type; IMPORT003 unless they are tensors of one batch size."""
    import torch

    name = type(model).__name__

    def error(problem: str) -> CompileError:
        return CompileError("IMPORT003", name, problem, "pass example_inputs=x, or a tuple of one float32 tensor for each input")

    if example_inputs is None:
        raise error("a torch module needs example inputs: its input shapes are not part of it")
    given = example_inputs if isinstance(example_inputs, Sequence) else (example_inputs,)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    tensors: list[torch.Tensor] = []
    for index, x in enumerate(given):
        if not isinstance(x, torch.Tensor | np.ndarray):
            raise error(f"example input {index} is a {type(x).__name__}, not a tensor")
        tensor = torch.as_tensor(x).detach().to(device)
        if parameter is not None and tensor.is_floating_point():
            tensor = tensor.to(parameter.dtype)
        if not tensor.ndim or not tensor.numel():
            raise error(f"example input {index} has the shape {list(tensor.shape)}: a batch in front and elements are needed")
        tensors.append(tensor)
    if len({t.shape[0] for t in tensors}) != 1:
        raise error(f"the example inputs have {', '.join(str(t.shape[0]) for t in tensors) or 'no'} samples in their batches")
    return tuple(tensors)


def _export(model: torch.nn.Module, examples: tuple[torch.Tensor, ...], dynamic: bool) -> ExportedProgram:
    """The exported program; IMPORT004 or IMPORT008 where torch cannot export."""
    import torch

    if dynamic:
        # torch takes sizes 0 and 1 for constants. The copies are because it marks the tensors that it gets as dynamic.
        examples = tuple(torch.cat((x, x)) if x.shape[0] == 1 else x.clone() for x in examples)
    try:
        shapes = _dynamic_shapes(model, examples) if dynamic else None
        with torch.no_grad(), _quiet():
            return torch.export.export(model, examples, dynamic_shapes=shapes)
    except Exception as problem:  # whatever the model's own code or torch raises
        raise _export_error(type(model).__name__, problem) from problem


def _dynamic_shapes(model: torch.nn.Module, examples: tuple[torch.Tensor, ...]) -> tuple[object, ...]:
    """A dynamic batch for each parameter of ``model.forward``; for ``*x`` a tuple of them."""
    import torch

    batch = {0: torch.export.Dim.DYNAMIC}
    given = inspect.signature(model.forward).bind(*examples).arguments.values()
    return tuple(tuple(batch for _ in x) if isinstance(x, tuple) else batch for x in given)


def _export_error(name: str, problem: Exception) -> CompileError:
    text = str(problem)
    if "data-dependent" in text:
        call = re.search(r"File .*, line \d+, in \w+\n +(.+)", text)
        return CompileError(
            "IMPORT008",
            name,
            "the model branches on values that it computes from its input" + (f": {call[1].strip()}" if call else ""),
            "make the branch independent of the values, or take it out of the model",
        )
    short = text.strip().partition("\n\n")[0][:400]
    return CompileError(
        "IMPORT004",
        name,
        f"torch.export fails: {type(problem).__name__}: {short}",
        "check that model(*example_inputs) runs, and export the model yourself to see torch's whole message",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch from logging and printing the programs that it cannot export: the error says it."""
    loggers = [logging.getLogger(name) for name in ("torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
        sys.stderr.write(said.getvalue())
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _evaluation(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    with contextlib.suppress(NotImplementedError):  # what ExportedProgram.module() returns has no modes
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _in_place_hazard(program: ExportedProgram) -> bool:
    """Whether an in-place operator may change what another operator reads: it comes after a view or an input."""
    for node in program.graph.nodes:
        schema: Any = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        changed: Any = node.args[0] if node.args else None
        name = getattr(getattr(changed, "target", None), "_opname", None)
        if name not in MAKES_FRESH or len(changed.users) != 1:
            return True
    return False
