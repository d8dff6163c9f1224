"""An ONNX model before it is walked: held against ONNX's rules, in a supported operator set, its own functions inlined.

Weights are left out of what the checker gets, or it gets the path of the file: no copy of them is made, and a model of more than
2 GiB cannot be handed over as a whole.

Codes of this module:
    IMPORT002: a model that the ONNX checker rejects, or that onnx cannot convert to a newer version.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qcompiler.errors import CompileError
from qcompiler.importers.onnx_external import is_external, tensors

if TYPE_CHECKING:
    from onnx import ModelProto, TypeProto

OLDEST_OPSET: Final = 6
"""Older models are converted to this operator set by onnx's version converter."""

_REMEDY: Final = "check the file with onnx.checker.check_model, or export the model again"
_SMALL: Final = 1 << 12
"""Bytes of a tensor that the checker gets to see."""


def first_line(problem: Exception) -> str:
    """The first line of an exception's text, its name where it has none."""
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)


def operator_set(model: ModelProto) -> int:
    """The version of ONNX's own operators that the model uses."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), OLDEST_OPSET)


def checked_model(model: ModelProto, name: str, path: Path | None) -> ModelProto:
    """The model with its local functions inlined; IMPORT002 unless it is a valid one of a supported version.

    ``path``: of the file that it was read from, if it was; only then may its data lie in other files.
    """
    import onnx
    from onnx import inliner

    if not model.graph.node:
        raise CompileError("IMPORT002", name, "the file is not an ONNX model: it has no graph with nodes", _REMEDY)
    if path is None and any(map(is_external, tensors(model.graph))):
        remedy = "pass the path of the file, or call onnx.load_external_data_for_model"
        raise CompileError("IMPORT002", name, "the weights of this ModelProto lie in files that it does not name fully", remedy)
    whole = all(kind.tensor_type.HasField("shape") for kind in _tensor_types(model))
    try:
        onnx.checker.check_model(_without_data(model) if path is None or not whole else str(path))
    except Exception as problem:  # the checker raises whatever its C++ code does
        raise CompileError("IMPORT002", name, f"the ONNX checker rejects the model: {first_line(problem)}", _REMEDY) from problem
    model = _converted(model, name)
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except Exception as problem:  # as above
        raise CompileError(
            "IMPORT002", name, f"the model's own functions cannot be inlined: {first_line(problem)}", _REMEDY
        ) from problem


def _tensor_types(model: ModelProto) -> Iterator[TypeProto]:
    """The types of the model's inputs and outputs that are tensors."""
    return (x.type for x in [*model.graph.input, *model.graph.output] if x.type.HasField("tensor_type"))


def _without_data(model: ModelProto) -> ModelProto:
    """The model for the checker: large tensors are inputs of it; inputs and outputs without a shape get one, it asks for that."""
    from onnx import ModelProto, helper

    light = ModelProto(opset_import=model.opset_import, functions=model.functions, metadata_props=model.metadata_props)
    if model.HasField("ir_version"):
        light.ir_version = model.ir_version
    graph = light.graph
    graph.name = model.graph.name
    for part in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(graph, part).extend(getattr(model.graph, part))
    inputs = {info.name for info in graph.input}
    for tensor in model.graph.initializer:
        if not is_external(tensor) and tensor.ByteSize() <= _SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for kind in _tensor_types(light):
        kind.tensor_type.shape.SetInParent()
    return light


def _converted(model: ModelProto, name: str) -> ModelProto:
    """The model in a supported operator set."""
    from onnx import version_converter

    opset = operator_set(model)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as problem:  # the converter raises whatever its C++ code does
        why = f"the model uses operator set {opset}, and onnx cannot convert it to {OLDEST_OPSET}: {first_line(problem)}"
        raise CompileError("IMPORT002", name, why, "export the model again, with operator set 13 or later") from problem
