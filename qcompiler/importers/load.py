"""Any model that a user may pass, as a float graph with a symbolic batch.

The codes of the importers stand in their modules.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompiler.importers.builder import ImportedModel
from qcompiler.importers.kinds import no_model, unwrapped
from qcompiler.ir.graph import Graph

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto
    from torch.export import ExportedProgram

    Model = torch.nn.Module | ExportedProgram | ModelProto | str | Path


def import_model(model: Model, example_inputs: object = None) -> Graph:
    """The float graph of a torch module, ``fx.GraphModule``, ``ExportedProgram``, ONNX path or ``ModelProto``.

    ``example_inputs``: a tensor (torch or numpy) of float32, or of integers that choose rows of embeddings, with the batch in
    front, or a tuple of them; needed for modules only. Raises CompileError IMPORT001 to IMPORT008. A final softmax is left
    out; :func:`load_model` says so.
    """
    return load_model(model, example_inputs).graph


def load_model(model: Model, example_inputs: object = None) -> ImportedModel:
    """As :func:`import_model`, with the notes of the import and the final activations that were left out."""
    model = unwrapped(model)
    if isinstance(model, str | Path):
        from qcompiler.importers.onnx_model import import_path

        return import_path(model, example_shapes(example_inputs))
    # Whoever has a torch or ONNX object has imported its package: nothing else needs to be imported to ask.
    if "torch" in sys.modules:
        import torch
        from torch.export import ExportedProgram

        from qcompiler.importers.torch_export import import_module, import_program

        if isinstance(model, ExportedProgram):
            return import_program(model)
        if isinstance(model, torch.nn.Module):
            return import_module(model, example_inputs)
    if "onnx" in sys.modules:
        from onnx import ModelProto

        from qcompiler.importers.onnx_model import import_proto

        if isinstance(model, ModelProto):
            return import_proto(model, examples=example_shapes(example_inputs))
    raise no_model(model)


def example_shapes(example_inputs: object) -> list[tuple[int, ...]]:
    """The shapes of an array or tensor, or of a sequence or dict of them; none for None."""
    if example_inputs is None:
        return []
    if isinstance(example_inputs, Mapping):
        example_inputs = tuple(example_inputs.values())
    given: Sequence[Any] = example_inputs if isinstance(example_inputs, list | tuple) else [example_inputs]
    return [tuple(int(d) for d in x.shape) for x in given]
