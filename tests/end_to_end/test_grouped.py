"""Whole networks with grouped convolutions whose groups are no whole vectors: the codes are the reference's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import qcompiler as qc
from qcompiler.backend.library import load
from qcompiler.dump import read_dump
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.targets.target import host_refusal, load_target
from tests.backend.c_program import CROSS, EMULATOR, codes_program, need

from .conftest import integer_dump

BATCH = 2


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1 and a residual."""

    def __init__(self, inputs: int, middle: int, groups: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, middle, 1)
        self.grouped = nn.Conv2d(middle, middle, 3, stride, 1, groups=groups)
        self.expand = nn.Conv2d(middle, outputs, 1)
        same = (inputs, 1) == (outputs, stride)
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.grouped(functional.relu(self.reduce(x))))
        return functional.relu(self.expand(y) + self.shortcut(x))


def regnet() -> nn.Module:
    """RegNetX: groups of 8, channels in no whole vectors."""
    return nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), Bottleneck(24, 24, 3, 24, 1), Bottleneck(24, 56, 7, 56, 2))


def resnext() -> nn.Module:
    """ResNeXt: groups of 4 and, in a network that was made thinner, of 6."""
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), Bottleneck(16, 32, 8, 64, 1), Bottleneck(64, 42, 7, 64, 2))


@pytest.mark.parametrize(
    ("network", "bits", "target"),
    [
        (regnet, "w8a8", "x86-avx512vnni"),
        (resnext, "w4a8", "x86-baseline"),
        pytest.param(regnet, "w8a8", "arm64-neon", marks=pytest.mark.arm64),
        pytest.param(resnext, "w4a8", "arm64-dotprod", marks=pytest.mark.arm64),
    ],
)
def test_codes_equal_the_reference(network: Callable[[], nn.Module], bits: str, target: str, tmp_path: Path) -> None:
    emulated = load_target(target).architecture == "aarch64"
    if emulated:
        need(CROSS, EMULATOR)
    elif refusal := host_refusal(load_target(target)):
        pytest.skip(refusal)
    torch.manual_seed(0)
    model = nn.Sequential(network(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = np.random.default_rng(0).standard_normal((2 * BATCH + 1, 3, 12, 12)).astype(np.float32)
    out, dumps = tmp_path / "out", tmp_path / "dumps"
    artifact = qc.build(model, calibration=x, target=target, bits=bits, batch_tile=BATCH, out=out, dump_ir=dumps, progress=False)
    graph = read_dump(integer_dump(tmp_path))
    codes = quantize_input(graph.inputs[0], x)
    found = codes_program(artifact, tmp_path).run(codes, 1) if emulated else load(out).run_int(codes)
    assert np.array_equal(found, run_integer(graph, [codes])[0])
