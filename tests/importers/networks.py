"""Small networks in the manner of those that people use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn
from torch.nn import functional


def convolution(
    channels: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out), act()
    )


class SqueezeExcite(nn.Module):
    """Channels weighted by a sigmoid of their means (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, reduced: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.squeeze, self.excite, self.gate = nn.Linear(channels, reduced), nn.Linear(reduced, channels), gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.gate(self.excite(functional.relu(self.squeeze(x.mean((2, 3))))))
        return x * weight[:, :, None, None]


class Fire(nn.Module):
    """SqueezeNet's module (arXiv 1602.07360)."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.small, self.large = nn.Conv2d(squeezed, expanded, 1), nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.squeeze(x))
        return torch.cat([self.act(self.small(x)), self.act(self.large(x))], 1)


class Inception(nn.Module):
    """Four branches (arXiv 1409.4842)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = convolution(channels, 4, 1)
        self.three = nn.Sequential(convolution(channels, 3, 1), convolution(3, 5))
        self.five = nn.Sequential(convolution(channels, 2, 1), convolution(2, 4, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(channels, 3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class Dense(nn.Module):
    """DenseNet's block and transition (arXiv 1608.06993)."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        widths = [channels + growth * index for index in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, growth, 3, padding=1, bias=False)) for w in widths
        )
        last = channels + growth * layers
        self.transition = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU(), nn.Conv2d(last, last // 2, 1), nn.AvgPool2d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.transition(x)


class Shuffle(nn.Module):
    """ShuffleNet V2's unit (arXiv 1807.11164)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            convolution(half, half, 1), convolution(half, half, 3, groups=half, act=nn.Identity), convolution(half, half, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], 1)
        n, c, h, w = x.size()
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class UNet(nn.Module):
    """One level down and up again (arXiv 1505.04597); ``bilinear`` says how up."""

    def __init__(self, bilinear: bool) -> None:
        super().__init__()
        self.enter, self.down = convolution(3, 4), nn.Sequential(nn.MaxPool2d(2), convolution(4, 8))
        self.up: nn.Module = nn.ConvTranspose2d(8, 4, 2, stride=2)
        if bilinear:
            self.up = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(8, 4, 1))
        self.leave = nn.Sequential(convolution(8, 4), nn.Conv2d(4, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.enter(x)
        x = self.up(self.down(skip))
        right, below = skip.size(3) - x.size(3), skip.size(2) - x.size(2)
        x = functional.pad(x, [right // 2, right - right // 2, below // 2, below - below // 2])
        return self.leave(torch.cat([skip, x], 1))


class OptionA(nn.Module):
    """A shortcut of every second pixel and zeros for the new channels, by concatenation (arXiv 1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = convolution(channels, 2 * channels, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = functional.avg_pool2d(x, 1, 2)
        return functional.relu(self.body(x) + torch.cat([short, torch.zeros_like(short)], 1))


class InvertedResidual(nn.Module):
    """MobileNet V3's block (arXiv 1905.02244)."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand = convolution(channels, wide, 1, act=nn.Hardswish)
        self.depthwise = convolution(wide, wide, 5, groups=wide, act=nn.Hardswish)
        self.gate = SqueezeExcite(wide, 4, nn.Hardsigmoid)
        self.project = convolution(wide, channels, 1, act=nn.Identity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.project(self.gate(self.depthwise(self.expand(x))))


class EfficientBlock(nn.Module):
    """EfficientNet's block: SiLU, squeeze and excitation by 1x1 convolutions (arXiv 1905.11946)."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand = convolution(channels, wide, 1, act=nn.SiLU)
        self.depthwise = convolution(wide, wide, 3, groups=wide, act=nn.SiLU)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 4, 1), nn.SiLU(), nn.Conv2d(4, wide, 1), nn.Sigmoid())
        self.project = convolution(wide, channels, 1, act=nn.Identity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.expand(x))
        return x + self.project(y * self.gate(y))


def sequence_network() -> nn.Sequential:
    """1-d convolutions with batch norm, as for sensors and speech."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, 2, 2),
        nn.BatchNorm1d(8),
        nn.LeakyReLU(0.1),
        nn.Conv1d(8, 8, 3, dilation=2, groups=8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def volume_network() -> nn.Sequential:
    """3-d convolutions, as for video."""
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    )  # fmt: skip


IMAGE: Final = (3, 12, 16)
NETWORKS: Final[dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]] = {
    "squeeze_excite": (lambda: nn.Sequential(convolution(3, 8), SqueezeExcite(8, 2)), IMAGE),
    "squeezenet": (lambda: nn.Sequential(Fire(3, 2, 4), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 2, 4)), IMAGE),
    "inception": (lambda: nn.Sequential(Inception(3), Inception(16)), IMAGE),
    "densenet": (lambda: nn.Sequential(convolution(3, 6), Dense(6, 4, 3)), IMAGE),
    "shufflenet": (lambda: nn.Sequential(convolution(3, 8), Shuffle(8), Shuffle(8)), IMAGE),
    "unet": (lambda: UNet(bilinear=False), (3, 13, 16)),
    "unet_bilinear": (lambda: UNet(bilinear=True), IMAGE),
    "option_a": (lambda: nn.Sequential(convolution(3, 4), OptionA(4)), IMAGE),
    "mobilenet_v3": (lambda: nn.Sequential(convolution(3, 8, act=nn.Hardswish), InvertedResidual(8, 16)), IMAGE),
    "efficientnet": (lambda: nn.Sequential(convolution(3, 8, act=nn.SiLU), EfficientBlock(8, 16)), IMAGE),
    "sequence": (sequence_network, (3, 40)),
    "volume": (volume_network, (2, 6, 8, 8)),
}


def network(name: str) -> nn.Module:
    """The network with random weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    model = NETWORKS[name][0]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()
