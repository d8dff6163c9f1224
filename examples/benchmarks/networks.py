"""Networks for timing, in torch: well-known shapes with random weights, and two of ``QC_DATA``'s ONNX files.

Batch norms take their statistics from the images given, so that codes are used as in a trained network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import nn


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: nn.Module | None = None
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *([] if activation is None else [activation]))


class _Residual(nn.Module):
    """``relu(body(x) + shortcut(x))``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _Sum(nn.Module):
    """``x + body(x)``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class _Branches(nn.Module):
    """The outputs of several modules, concatenated along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]


def resnet(blocks: tuple[int, ...], bottleneck: bool) -> nn.Sequential:
    """ResNet of He et al., arXiv 1512.03385, the stride on the 3x3 convolution."""
    layers: list[nn.Module] = [_unit(3, 64, 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        outputs = 4 * width if bottleneck else width
        for block in range(count):
            stride = 2 if stage and not block else 1
            if bottleneck:
                first, second = (
                    _unit(channels, width, 1, activation=nn.ReLU()),
                    _unit(width, width, 3, stride, activation=nn.ReLU()),
                )
                body = nn.Sequential(first, second, _unit(width, outputs, 1))
            else:
                body = nn.Sequential(_unit(channels, width, 3, stride, activation=nn.ReLU()), _unit(width, outputs, 3))
            same = stride == 1 and channels == outputs
            layers.append(_Residual(body, nn.Identity() if same else _unit(channels, outputs, 1, stride)))
            channels = outputs
    return nn.Sequential(*layers, *_head(channels))


def mobilenet_v2() -> nn.Sequential:
    """MobileNetV2 of Sandler et al., arXiv 1801.04381, width 1."""
    layers: list[nn.Module] = [_unit(3, 32, 3, 2, activation=nn.ReLU6())]
    channels = 32
    for expansion, outputs, count, first in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for block in range(count):
            stride, width = first if block == 0 else 1, channels * expansion
            body = nn.Sequential(
                *([_unit(channels, width, 1, activation=nn.ReLU6())] if expansion > 1 else []),
                _unit(width, width, 3, stride, width, nn.ReLU6()),
                _unit(width, outputs, 1),
            )
            layers.append(_Sum(body) if stride == 1 and channels == outputs else body)
            channels = outputs
    return nn.Sequential(*layers, _unit(channels, 1280, 1, activation=nn.ReLU6()), *_head(1280))


def squeezenet() -> nn.Sequential:
    """SqueezeNet 1.1 of Iandola et al., arXiv 1602.07360; it has no batch norms."""

    def convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU())

    def fire(inputs: int, squeezed: int, expanded: int) -> nn.Sequential:
        expand = _Branches(convolution(squeezed, expanded, 1), convolution(squeezed, expanded, 3))
        return nn.Sequential(convolution(inputs, squeezed, 1), expand)

    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2),
        nn.ReLU(),
        pool(),
        fire(64, 16, 64),
        fire(128, 16, 64),
        pool(),
        fire(128, 32, 128),
        fire(256, 32, 128),
        pool(),
        fire(256, 48, 192),
        fire(384, 48, 192),
        fire(384, 64, 256),
        fire(512, 64, 256),
        convolution(512, 1000, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def densenet(growth: int = 32, blocks: tuple[int, ...] = (6, 12, 24, 16)) -> nn.Sequential:
    """DenseNet-121 of Huang et al., arXiv 1608.06993."""

    def dense(channels: int) -> _Branches:
        body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            _unit(channels, 4 * growth, 1, activation=nn.ReLU()),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )
        return _Branches(nn.Identity(), body)

    layers: list[nn.Module] = [_unit(3, 64, 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate(blocks):
        for _ in range(count):
            layers.append(dense(channels))
            channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if stage < len(blocks) - 1:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, *_head(channels))


def mlperf_resnet8() -> nn.Sequential:
    """ResNet-8 of MLPerf Tiny, batch norms folded."""

    def unit(inputs: int, outputs: int, stride: int, relu: bool) -> nn.Sequential:
        pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.ZeroPad2d(1)
        return nn.Sequential(pad, nn.Conv2d(inputs, outputs, 3, stride), *([nn.ReLU()] if relu else []))

    def residual(inputs: int, outputs: int, stride: int) -> _Residual:
        body = nn.Sequential(unit(inputs, outputs, stride, relu=True), unit(outputs, outputs, 1, relu=False))
        return _Residual(body, nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride))

    layers = (unit(3, 16, 1, relu=True), residual(16, 16, 1), residual(16, 32, 2), residual(32, 64, 2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mlperf_dscnn() -> nn.Sequential:
    """The keyword spotter of MLPerf Tiny, batch norms folded."""
    layers: list[nn.Module] = [nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(1, 64, (10, 4), 2), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))


def with_weights_of(module: nn.Module, path: Path) -> nn.Module:
    """``module`` with the weights of an ONNX file's layers, whose names begin with their numbers."""
    graph = onnx.load(path).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    layers.sort(key=lambda node: [int(number) for number in re.findall(r"\d+", node.name)] or [len(graph.node)])
    parameters = [stored[name] for node in layers for name in node.input[1:]]
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), parameters, strict=True):
            parameter.copy_(torch.from_numpy(value.copy()))
    return module.eval()


MLPERF: Final[Mapping[str, tuple[str, Callable[[], nn.Module]]]] = {
    "resnet8": ("resnet8.onnx", mlperf_resnet8),
    "dscnn": ("dscnn_kws.onnx", mlperf_dscnn),
}
"""Files and modules."""
NETWORKS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "resnet18": lambda: resnet((2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda: resnet((3, 4, 6, 3), bottleneck=True),
    "mobilenet-v2": mobilenet_v2,
    "squeezenet": squeezenet,
    "densenet121": densenet,
}


def network(name: str, images: np.ndarray[Any, Any], seed: int = 0) -> nn.Module:
    """One of ``NETWORKS``; ``images`` float32 ``[N, 3, 224, 224]`` set the batch norms' statistics."""
    torch.manual_seed(seed)
    module = NETWORKS[name]()
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_in" if isinstance(part, nn.Linear) else "fan_out", nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        module.train()(torch.from_numpy(images))
    return module.eval()
