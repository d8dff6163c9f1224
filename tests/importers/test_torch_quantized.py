"""Fake quantization, modules prepared for quantization, and modules of half or double precision."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx

from qcompiler.codes import dequantize
from qcompiler.importers.load import load_model
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.pipeline import Settings, to_integer
from qcompiler.report import sqnr_db
from tests.importers.onnx_models import ops

IMAGES = torch.from_numpy(np.random.default_rng(3).normal(size=(8, 3, 6, 6)).astype(np.float32))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def prepared() -> nn.Module:
    module = quantize_fx.prepare_fx(network(), quantization.get_default_qconfig_mapping("x86"), (IMAGES,))
    module(IMAGES)
    return module


def prepared_for_training() -> nn.Module:
    mapping = quantization.get_default_qat_qconfig_mapping("x86")
    module = quantize_fx.prepare_qat_fx(network().train(), mapping, (IMAGES,))
    module(IMAGES)
    return module.eval().apply(quantization.disable_observer)


def prepared_by_hand() -> nn.Module:
    module = nn.Sequential(quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.ReLU(), quantization.DeQuantStub()).eval()
    module.qconfig = quantization.get_default_qconfig("fbgemm")  # type: ignore[assignment]
    module = quantization.prepare(module)
    module(IMAGES)
    return module


class FakeQuantized(nn.Module):
    """4 bits, of weights and of activations."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("scale", self.conv.weight.detach().abs().amax((1, 2, 3)) / 7)
        self.register_buffer("zero", torch.zeros(4, dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.fake_quantize_per_channel_affine(self.conv.weight, self.scale, self.zero, 0, -8, 7)
        y = nn.functional.conv2d(torch.fake_quantize_per_tensor_affine(x, 0.2, 8, 0, 15), weight, self.conv.bias)
        return torch.fake_quantize_per_tensor_affine(y, 0.02, 0, 0, 255)


def agreement(module: nn.Module, expected: torch.Tensor, data: object = None) -> float:
    graph = to_integer(load_model(module, (IMAGES,)).graph, Settings(calibration=data))
    (codes,) = run_integer(graph, [quantize_input(graph.inputs[0], IMAGES.numpy())])
    output = graph.values[graph.outputs[0]]
    return sqnr_db(expected.detach().float().numpy(), dequantize(codes, output.scale or 1.0, output.zero or 0))


MODULES = (prepared, prepared_for_training, prepared_by_hand, FakeQuantized)


@pytest.mark.parametrize("make", MODULES, ids=lambda make: make.__name__)
def test_ranges_are_taken_over(make: Callable[[], nn.Module]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that these move to another package
        module = make()
    before = dict(module.named_modules())
    expected = module(IMAGES)
    assert agreement(module, expected) > 26  # without calibration data
    assert dict(module.named_modules()) == before  # the very modules


def test_observers_that_saw_nothing_say_nothing() -> None:
    mapping = quantization.get_default_qconfig_mapping("x86")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = quantize_fx.prepare_fx(network(), mapping, (IMAGES,))
    assert "quantizer" not in ops(load_model(module, (IMAGES,)).graph)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats(dtype: torch.dtype) -> None:
    module = network()
    expected = module(IMAGES)
    module = module.to(dtype)
    assert agreement(module, expected, IMAGES.numpy()) > 30
    (note,) = load_model(module, (IMAGES,)).notes
    assert note.endswith("in the model; here it takes the same numbers as float32")
