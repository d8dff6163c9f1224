"""What is passed for a model and is none, or only wraps one."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn

from qcompiler import api
from qcompiler.errors import CompileError
from qcompiler.importers.load import import_model
from tests.importers.check import problem_of

NET = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
X = torch.zeros(2, 4)
JIT = "which torch.export does not take"
MODULE = "pass the torch.nn.Module that it was made from, or the path of an ONNX file that torch.onnx.export wrote of it"


@pytest.mark.parametrize(
    ("model", "problem", "remedy"),
    [
        (torch.jit.trace(NET, X), f"it is a torch.jit TopLevelTracedModule, traced or scripted, {JIT}", MODULE),
        (torch.jit.script(NET), f"it is a torch.jit RecursiveScriptModule, traced or scripted, {JIT}", MODULE),
        (nn.Sequential(torch.jit.script(NET)), f"it is a torch.jit RecursiveScriptModule, traced or scripted, {JIT}", MODULE),
        (nn.Linear, "the model is the class Linear, not an instance of it", "pass an instance, Linear(...)"),
        (functools.partial(NET), "the model is a functools.partial of Sequential", "pass a torch.nn.Module whose forward makes this call"),
        (import_model, "the model is the function import_model", "pass the torch.nn.Module that it calls, or one whose forward calls it"),
        (NET.state_dict(), "the model is a OrderedDict of 2 entries", "load a state_dict into its torch.nn.Module and pass that"),
        (b"abc", "the model is 3 bytes", "pass onnx.load_from_string(...) of them, or the path of the file"),
        (5, "the model is a int", "pass a torch.nn.Module, an ExportedProgram, the path of an ONNX file or a ModelProto"),
    ],
)  # fmt: skip
def test_no_model(model: object, problem: str, remedy: str) -> None:
    text = problem_of(model, X)
    assert text.startswith("IMPORT002 at ")
    assert text.endswith(f"\n  problem: {problem}\n  remedy:  {remedy}")


@pytest.mark.parametrize("model", [copy.deepcopy(NET).to("meta"), nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(3, bias=False))])
def test_no_numbers(model: nn.Module) -> None:
    count = len(list(model.parameters()))
    assert problem_of(model, X) == (
        "IMPORT002 at Sequential\n"
        f"  problem: {count} of {count} parameters and buffers have no numbers, '0.weight' among them: "
        "they are on the meta device or not initialized\n"
        "  remedy:  load the weights first: model.to_empty(device='cpu'), then load_state_dict; run a model with lazy modules once"
    )


def test_wrapped() -> None:
    assert import_model(torch.compile(nn.DataParallel(NET)), X) == import_model(NET, X)


def test_a_traced_module_without_an_example() -> None:
    with pytest.raises(CompileError, match="IMPORT002 at Sequential"):
        api.import_model(torch.jit.trace(NET, X), None, api.Options(calibration=X.numpy()))
