"""torch modules with odd shapes and odd code; ``random.Random`` draws which."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

Tensors = torch.Tensor | tuple[torch.Tensor, ...]


class Code(nn.Module):
    """A module that calls a function, with layers that it may use."""

    def __init__(self, function: Callable[[Any, Any], Any], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


class TwoInputs(nn.Module):
    """Adds what two inputs give; the third is not used."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x + y.relu()


def _image(random: Random, channels: int = 3) -> torch.Tensor:
    return torch.randn(random.choice((1, 1, 2, 3)), channels, random.choice((1, 2, 5, 8, 9)), random.choice((1, 3, 8)))


def convolution(random: Random) -> tuple[nn.Module, Tensors]:
    """Kernels larger than the image, large strides, dilation and padding, odd groups."""
    groups = random.choice((1, 1, 2, 3, 6))
    numbers: dict[str, Any] = {
        "stride": random.choice((1, 2, 7, 1000)),
        "padding": random.choice((0, 1, 3, 40, "same") if random.random() < 0.9 else (5000,)),
        "dilation": random.choice((1, 2, 5, 100)),
        "padding_mode": random.choice(("zeros", "zeros", "reflect", "replicate", "circular")),
        "bias": random.random() < 0.5,
    }
    if numbers["padding"] == "same":
        numbers["stride"] = 1
    return nn.Conv2d(6, 6, random.choice((1, 2, 3, 9, (1, 5))), groups=groups, **numbers), _image(random, 6)


def wrong_channels(random: Random) -> tuple[nn.Module, Tensors]:
    """A layer for other channels than the image has."""
    return nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU()), _image(random, random.choice((1, 3, 5)))


def transposed(random: Random) -> tuple[nn.Module, Tensors]:
    """Transposed convolutions."""
    stride = random.choice((1, 2, 5, 50))
    numbers = {
        "padding": random.choice((0, 1, 3)),
        "output_padding": random.choice((0, stride - 1)),
        "dilation": random.choice((1, 3)),
    }
    return nn.ConvTranspose2d(3, 4, random.choice((1, 2, 3, 7)), stride, **numbers), _image(random)


def pooling(random: Random) -> tuple[nn.Module, Tensors]:
    """Windows of all kinds over images of all sizes."""
    kernel, stride = random.choice((1, 2, 3, 9)), random.choice((1, 2, 5))
    padding, ceil_mode = random.choice((0, kernel // 2)), random.random() < 0.5
    layer = random.choice(
        (
            nn.MaxPool2d(kernel, stride, padding, random.choice((1, 2)), ceil_mode=ceil_mode),
            nn.AvgPool2d(kernel, stride, padding, ceil_mode, random.random() < 0.5),
            nn.AvgPool2d(kernel, stride, padding, divisor_override=random.choice((None, 3))),
            nn.AdaptiveAvgPool2d(random.choice((1, 2, 3, (1, 3), (None, 1)))),
            nn.AdaptiveMaxPool2d(random.choice((1, 2, (3, 1)))),
            nn.MaxPool2d(kernel, stride, return_indices=True),
            nn.FractionalMaxPool2d(2, output_size=(1, 1)),
            nn.LPPool2d(2, 2),
        )
    )
    return layer, _image(random)


def empty_sizes(random: Random) -> tuple[nn.Module, Tensors]:
    """Tensors without elements, scalars, no batch."""
    shape = random.choice(((0, 3, 4, 4), (1, 0, 4, 4), (2, 3, 0, 4), (), (0,), (1,), (5,), (1, 1), (1, 1, 1, 1, 1, 1, 1)))
    return random.choice((nn.ReLU(), nn.Flatten(), nn.Linear(4, 0), nn.Linear(4, 2), nn.Conv2d(3, 2, 1))), torch.randn(shape)


def input_types(random: Random) -> tuple[nn.Module, Tensors]:
    """Inputs of other types than float32."""
    kind = random.choice(
        (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64)
    )
    module = random.choice((nn.ReLU(), nn.Flatten(), Code(lambda m, x: x.float() * 2), Code(lambda m, x: x + 1)))
    return module, torch.ones(2, 3, 4).to(kind)


def weights(random: Random) -> tuple[nn.Module, Tensors]:
    """Weights that are NaN, infinite, enormous, zero, of another type, shared, or a view that is not contiguous."""
    layer = nn.Linear(6, 6)
    what = random.randrange(6)
    value = random.choice((float("nan"), float("inf"), 1e30, -3e38, 1e-44, 0.0))
    with torch.no_grad():
        if what == 0:
            layer.weight[random.randrange(6), 0] = value
        elif what == 1:
            layer.bias.fill_(value)
        elif what == 2:
            layer.weight.fill_(value)
        elif what == 3:
            layer.weight = nn.Parameter(torch.randn(6, 12)[:, ::2])
        elif what == 4:
            layer = layer.to(random.choice((torch.float64, torch.float16)))
        else:
            return nn.Sequential(layer, nn.ReLU(), layer, nn.Tanh(), layer), torch.randn(2, 6)
    return nn.Sequential(layer, nn.ReLU()), torch.randn(2, 6)


def fixed_batch(random: Random) -> tuple[nn.Module, Tensors]:
    """Views that know the batch, or join it with others."""
    functions: tuple[Callable[[Any, Any], Any], ...] = (
        lambda m, x: x.view(1, -1),
        lambda m, x: x.view(2, 12),
        lambda m, x: x.reshape(-1, 4) @ torch.ones(4, 2),
        lambda m, x: x.flatten(0, 1),
        lambda m, x: x[0],
        lambda m, x: x[:1] + x,
        lambda m, x: x.permute(1, 0, 2),
        lambda m, x: x.squeeze(),
        lambda m, x: x.mean(0),
        lambda m, x: x.sum(),
        lambda m, x: torch.cat([x, x]),
        lambda m, x: x.unsqueeze(0),
        lambda m, x: x.expand(5, *x.shape),
        lambda m, x: x.repeat(2, 1, 1),
        lambda m, x: x - x.mean(dim=0, keepdim=True),
        lambda m, x: x.flip(0),
    )
    return Code(random.choice(functions)), torch.randn(random.choice((1, 2)), 3, 4)


def control_flow(random: Random) -> tuple[nn.Module, Tensors]:
    """Branches and loops on values, on shapes, on the batch."""

    def branch(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x - 1

    def loop(m: Any, x: torch.Tensor) -> torch.Tensor:
        while x.abs().max() > 0.1:
            x = x / 2
        return x

    def on_shape(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x.relu() if x.shape[0] > 1 else x.sigmoid()

    def per_sample(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([row * 2 for row in x])

    def masked(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0]

    def item(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x * x.max().item()

    def where(m: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, -x)

    def random_numbers(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)

    def raises(m: Any, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("the model's own error\n\nwith a second part")

    chosen = random.choice((branch, loop, on_shape, per_sample, masked, item, where, random_numbers, raises))
    return Code(chosen), torch.randn(random.choice((1, 3)), 6)


def in_place(random: Random) -> tuple[nn.Module, Tensors]:
    """Operators that change their operand, views of it, a buffer."""

    def on_input(m: Any, x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x.relu()

    def on_view(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[:, 0] = 0
        y[:, 1:].mul_(3)
        return y + x

    def twice(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = x + 0
        z = y.relu_()
        return z + y.neg_()

    def on_buffer(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.count += 1
        return x * m.count

    module = Code(random.choice((on_input, on_view, twice, on_buffer)))
    module.register_buffer("count", torch.zeros(1))
    return module, torch.randn(random.choice((1, 2)), 4)


def outputs(random: Random) -> tuple[nn.Module, Tensors]:
    """Results that are no single new tensor."""
    functions: tuple[Callable[[Any, Any], Any], ...] = (
        lambda m, x: x,
        lambda m, x: (x, x.relu()),
        lambda m, x: {"a": x.relu(), "b": x.relu()},
        lambda m, x: [x.sigmoid(), (x.tanh(), {"c": x})],
        lambda m, x: (x.relu(), None, 3),
        lambda m, x: None,
        lambda m, x: (),
        lambda m, x: torch.ones(4),
        lambda m, x: torch.ones(len(x), 4),
        lambda m, x: x.shape[1],
        lambda m, x: x > 0,
        lambda m, x: x.argmax(1),
        lambda m, x: x.double(),
        lambda m, x: x.softmax(1) * 2,
        lambda m, x: x.softmax(1),
        lambda m, x: x.sort(1),
        lambda m, x: x.to(torch.int64),
        lambda m, x: x[:, :0],
        lambda m, x: x.topk(2).indices,
    )
    return Code(random.choice(functions)), torch.randn(random.choice((1, 2)), 4)


def inputs(random: Random) -> tuple[nn.Module, Tensors]:
    """Several inputs: not used, of different batches, too many, too few, broadcast."""
    shapes = random.choice(
        ([(2, 3)] * 3, [(2, 3), (1, 3), (2, 3)], [(2, 3)] * 2, [(2, 3)] * 4, [(2, 3), (2, 1), (2,)], [(1, 3)] * 3)
    )
    return TwoInputs(), tuple(torch.randn(shape) for shape in shapes)


def enormous(random: Random) -> tuple[nn.Module, Tensors]:
    """Results of which nobody has the memory, from a small input."""
    size = random.choice((1000, 30_000, 1 << 20))
    functions: tuple[Callable[[Any, Any], Any], ...] = (
        lambda m, x: functional.pad(x, (size, size, size, 0)),
        lambda m, x: functional.interpolate(x, scale_factor=size),
        lambda m, x: x.repeat(1, 1, size, size),
        lambda m, x: x.expand(-1, -1, size, size) + 1,
        lambda m, x: x * torch.ones(1, 1, size, size),
        lambda m, x: functional.pad(x, (size, size, size, size), value=1.0).mean((2, 3)),
    )
    return Code(random.choice(functions)), torch.randn(1, 2, 1, 1)


def layers(random: Random) -> tuple[nn.Module, Tensors]:
    """Layers of which some are not supported, on shapes that some refuse."""
    channels = random.choice((1, 4, 6))
    layer = random.choice(
        (
            nn.BatchNorm2d(channels),
            nn.BatchNorm2d(channels, affine=False),
            nn.BatchNorm2d(channels, track_running_stats=False),
            nn.GroupNorm(1, channels),
            nn.LayerNorm(5),
            nn.InstanceNorm2d(channels),
            nn.LocalResponseNorm(random.choice((1, 2, 3))),
            nn.PixelShuffle(2),
            nn.PixelUnshuffle(2),
            nn.ChannelShuffle(2),
            nn.Upsample(scale_factor=random.choice((0.5, 1.5, 2)), mode=random.choice(("nearest", "bilinear", "bicubic"))),
            nn.Dropout(1.0),
            nn.AlphaDropout(0.5),
            nn.Softmax2d(),
            nn.GLU(1),
            nn.PReLU(channels),
            nn.RReLU(),
            nn.Hardtanh(0.0, 1e-6),
            nn.Threshold(0.5, float("nan")),
            nn.Softplus(beta=1e6),
            nn.ELU(alpha=-3.0),
            nn.Unfold(2),
            nn.ZeroPad2d((-1, 0, 0, -1)),
            nn.ReflectionPad2d(4),
            nn.Identity(),
            nn.Unflatten(1, (1, -1)),
            nn.Flatten(2),
            nn.Bilinear(5, 5, 2),
            nn.MultiheadAttention(5, 1),
            nn.LSTM(5, 3),
        )
    )
    module: nn.Module = layer if random.random() < 0.7 else nn.Sequential(layer, nn.Conv2d(channels, 2, 1))
    return module.train(random.random() < 0.3), torch.randn(random.choice((1, 2)), channels, 4, random.choice((4, 5)))


ODD: Final[tuple[Callable[[Random], tuple[nn.Module, Tensors]], ...]] = (
    *(convolution,) * 3,
    wrong_channels,
    transposed,
    *(pooling,) * 2,
    empty_sizes,
    input_types,
    weights,
    *(fixed_batch,) * 2,
    control_flow,
    in_place,
    outputs,
    inputs,
    enormous,
    *(layers,) * 3,
)


def odd_module(random: Random) -> tuple[str, nn.Module, Tensors]:
    """What it is, the module, and example inputs."""
    torch.manual_seed(random.randrange(1 << 30))
    make = random.choice(ODD)
    module, examples = make(random)
    return f"{make.__name__} {type(module).__name__}", module, examples
