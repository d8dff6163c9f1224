"""What is passed for a model: wrappers are taken off, and what cannot be imported is refused with what to pass instead.

Codes of this module:
    IMPORT002: the argument is no model, or one without the code or the numbers that an import needs.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qcompiler.errors import CompileError

if TYPE_CHECKING:
    import torch

_LEGAL = "pass a torch.nn.Module, an ExportedProgram, the path of an ONNX file or a ModelProto"


def unwrapped(model: Any) -> Any:
    """The model inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``; IMPORT002 for a torch.jit module."""
    if "torch" not in sys.modules:
        return model
    import torch

    while True:
        if isinstance(model, torch.nn.Module) and hasattr(model, "_orig_mod"):  # what torch.compile gives
            model = model._orig_mod
        elif isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            break
    modules = model.named_modules() if isinstance(model, torch.nn.Module) else [("", model)]
    for path, part in modules:
        if isinstance(part, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            raise CompileError(
                "IMPORT002",
                path or getattr(model, "original_name", None) or "model",
                f"it is a torch.jit {type(part).__name__}, traced or scripted, which torch.export does not take",
                "pass the torch.nn.Module that it was made from, or the path of an ONNX file that torch.onnx.export wrote of it",
            )
    return model


def no_model(model: object) -> CompileError:
    """IMPORT002 for an argument that is no model."""
    name = type(model).__name__
    if isinstance(model, type):
        return _error(f"the class {model.__name__}, not an instance of it", f"pass an instance, {model.__name__}(...)")
    if isinstance(model, functools.partial):
        inner = getattr(model.func, "__qualname__", type(model.func).__name__)
        return _error(f"a functools.partial of {inner}", "pass a torch.nn.Module whose forward makes this call")
    if isinstance(model, Mapping):
        return _error(f"a {name} of {len(model)} entries", "load a state_dict into its torch.nn.Module and pass that")
    if inspect.isroutine(model):
        remedy = "pass the torch.nn.Module that it calls, or one whose forward calls it"
        return _error(f"the function {getattr(model, '__name__', name)}", remedy)
    if isinstance(model, bytes):
        return _error(f"{len(model)} bytes", "pass onnx.load_from_string(...) of them, or the path of the file")
    return _error(f"a {name}", _LEGAL)


def _error(what: str, remedy: str) -> CompileError:
    return CompileError("IMPORT002", "model", f"the model is {what}", remedy)


def check_numbers(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """IMPORT002 where parameters or buffers have no numbers yet."""
    import torch

    def missing(tensor: torch.Tensor) -> bool:
        return torch.nn.parameter.is_lazy(tensor) or tensor.is_meta or isinstance(tensor, torch._subclasses.FakeTensor)

    empty = [key for key, tensor in tensors.items() if missing(tensor)]
    if not empty:
        return
    raise CompileError(
        "IMPORT002",
        name,
        f"{len(empty)} of {len(tensors)} parameters and buffers have no numbers, {empty[0]!r} among them: "
        "they are on the meta device or not initialized",
        "load the weights first: model.to_empty(device='cpu'), then load_state_dict; run a model with lazy modules once",
    )
