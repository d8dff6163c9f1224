"""Small networks that call modules several times, and graphs whose names are those that passes like to give."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn


class Affine(nn.Module):
    """One's own scale and shift, with the parameter names that passes give to layers."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(shape) + 0.5), nn.Parameter(torch.randn(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight + self.bias


class Shared(nn.Module):
    """Modules that are called at several places; every output has its own, ``PLACES`` says which."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.norm, self.first = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.alone = nn.BatchNorm2d(4)
        self.d, self.weight, self.bias = nn.Conv2d(4, 4, 1), Affine(4, 1, 1), Affine(8)
        self.fc, self.each = nn.Linear(8, 8), nn.Linear(8, 8)
        self.same, self.up = nn.ConvTranspose2d(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 3, 2)
        self.volume, self.norm3 = nn.Conv3d(2, 2, 3, padding=1), nn.BatchNorm3d(2)
        self.sequence, self.norm1 = nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4)
        self.kernel = nn.Parameter(torch.randn(4, 4, 3, 3) * 0.3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        f = nn.functional
        volume = self.norm3(self.volume(x.reshape(-1, 2, 2, 8, 8)))
        sequence = self.norm1(self.sequence(x.flatten(2))).relu()
        tied = f.conv_transpose2d(f.conv2d(x, self.kernel, padding=1).relu(), self.kernel, stride=2)
        return (
            self.norm(self.c(self.norm(self.c(x)))),
            self.alone(self.alone(x).relu()),
            self.first(x / 255),
            self.first(x),
            self.first(x + 3),
            self.bias(self.fc(self.bias(self.fc(self.weight(self.d(self.weight(self.d(x)).relu())))))),
            self.each(self.each(x).relu()),
            self.each(x.mean((1, 2))),
            self.same(self.same(x).relu()),
            self.up(self.up(x).relu()),
            self.norm3(self.volume(volume)),
            self.norm1(self.sequence(sequence)),
            f.conv2d(tied, self.kernel),
        )


PLACES: Final = (
    "norm twice", "norm alone twice", "x / 255", "plain", "x + 3", "own affine module", "linear of rank 4", "linear of rank 2",
    "transposed, stride 1", "transposed, stride 2", "volume", "sequence", "tied",
)  # fmt: skip


class Levels(nn.Module):
    """RetinaNet's head on three levels."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, stride, 1), nn.ReLU()) for stride in (1, 2, 2))
        wide = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), wide, nn.ReLU(), nn.Conv2d(8, 2, 1)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = []
        for level, enter in enumerate(self.levels):
            x = enter(x)
            found.append(self.head(x * 4**level))
        return tuple(found)


def prepared(model: nn.Module) -> nn.Module:
    """``model`` with random statistics, in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.3, 2)  # type: ignore[arg-type]
            nn.init.normal_(module.bias)
    return model.eval()


TEXTS: Final = {
    "taken by constants": """graph @g stage=float (%x: f32[N,2,4]) {
      const %n.weight: f32[2] = [0x1p+0, 0x1.8p+1]
      const %n.bias: f32[2] = [0x1p+1, 0x1p-1]
      const %y.weight: f32[2,1] = [0x1p+1, -0x1p+0]
      const %y.image: f32[2,1] = [0x1p+0, 0x1p-2]

      %n: f32[N,2,4] = batch_norm(%x, %n.weight, %n.bias, %n.bias, %n.weight, epsilon=0x1p-8)
      %y: f32[N,2,4] = mul(%n, %y.weight)
      %y.affine: f32[N,2,4] = add(%y, %y.image)
      %y.bias: f32[N,2,4] = mul(%y.affine, %y.weight)
      %wide: f32[N,2,1,4] = reshape(%y.bias, shape=("N", 2, 1, 4))
      %z: f32[N,2,1,4] = conv2d(%wide, %z.weight, %n.weight, dilation=(1, 1), groups=1, padding=(0, 0, 0, 0), strides=(1, 1))
      %z.sum: f32[N,2,1,4] = conv2d(%z, %z.weight, %n.bias, dilation=(1, 1), groups=1, padding=(0, 0, 0, 0), strides=(1, 1))
      const %z.weight: f32[2,2,1,1] = [0x1p+0, 0x1p-2, -0x1p-1, 0x1.8p+0]
      return %z.sum
    }""",
    "taken by values": """graph @g stage=float (%y.weight: f32[N,2,4,4]) {
      const %w: f32[2,2,2,2] = [0x1p+0, 0x1p-1, 0x1p-2, 0x1p-3, 0x1p+0, 0x1p-1, 0x1p-2, 0x1p-3, 0x1p+0, 0x1p-1, 0x1p-2, 0x1p-3, 0x1p+0, 0x1p-1, 0x1p-2, -0x1p-3]
      const %y.grid: f32[2] = [0x1p+1, -0x1p+1]
      %y.turned: f32[N,2,4,4] = clip(%y.weight, clamp=(0x0p+0, inf))
      %y.phases: f32[N,2,4,4] = pad(%y.turned, after=(0, 0, 0, 0), before=(0, 0, 0, 0), value=0x0p+0)
      %y: f32[N,2,8,8] = conv_transpose2d(%y.phases, %w, %y.grid, dilation=(1, 1), groups=1, output_padding=(0, 0), padding=(0, 0, 0, 0), strides=(2, 2))
      %y.full: f32[N,2] = mean(%y, axes=(2, 3), keepdims=0)
      %y.pooled: f32[N,2,4,4] = mul(%y.turned, %y.weight)
      %y.bias: f32[N,2] = mean(%y.pooled, axes=(2, 3), keepdims=0)
      %y.full.pooled: f32[N,2] = add(%y.full, %y.bias)
      return %y.full.pooled
    }""",
}  # fmt: skip
