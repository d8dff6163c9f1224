"""Gives the channels between two layers like ranges, so that one scale for all of them wastes fewer codes.

Where only a convolution or linear layer reads another's output, directly or past pooling, channel c of the first layer may be
multiplied and the second layer's weights for it divided by any factor: a ReLU between them lets positive factors through (Nagel
et al., "Data-Free Quantization through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.1). The first layer
loses nothing, its weights have one scale per output channel; a depthwise second layer loses nothing either. Any other reads all
channels with one scale per row of weights, so there factors grow only as far as the expected error falls: that of rounding
activations (step^2 / 12 times the squared weights) and of rounding weights (step^2 / 12 times the mean squared activations).

Before, with 4 and 1 as the largest values of %y's channels:
    const %v: f32[2,1,3,3] = [1, ...; 1, ...]
    %y: f32[N,2,8,8] = conv2d(%x, %w, clamp=(0x0p+0, inf), ...)
    %z: f32[N,2,8,8] = conv2d(%y, %v, groups=2, ...)
After:
    const %y.weight: f32[2,3,1,1] = ...                  the second row times 4
    const %z.weight: f32[2,1,3,3] = [1, ...; 0.25, ...]
    %y: f32[N,2,8,8] = conv2d(%x, %y.weight, clamp=(0x0p+0, inf), equalized=1, ...)
    %z: f32[N,2,8,8] = conv2d(%y, %z.weight, groups=2, ...)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.bits import Bits
from qcompiler.calibrate import BATCH_SIZE, FirstSamples
from qcompiler.interpret import run_float
from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node, Stage, Value
from qcompiler.ir.names import Constants
from qcompiler.ops.quantizer import is_quantized
from qcompiler.passes.weight_codes import code_limits

if TYPE_CHECKING:
    import torch

PAST: Final = ("average_pool2d", "max_pool2d", "reshape")
"""Operators that work on each channel by itself, and let positive factors through."""

LARGEST_FACTOR: Final = 64.0
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)  # candidates for how much of the logarithm of a factor is applied
WORTHWHILE: Final = 0.98  # of the error without the next larger share
ACTIVATION_STEPS: Final = 255
SAMPLES: Final = 32


@dataclass(frozen=True)
class EqualizeChannels:
    """``samples``: those that channels are measured on; missing ones are taken from ``data``. Without any, nothing changes.

    ``pins``: bits of layers by name, as for allocation; ``assignment``: bits that were chosen for weights, by the names that they
    get here; ``fewest``: what any other layer's weights may get at least. The error is that of so many bits: until they are
    chosen, what is lost where a layer gets more is little (the divergence on 6,000 training images that calibration
    did not see, as for fewer bits : as for 8 bits; ResNet-20 at 8 bits 3.1e-4 : 2.8e-4, at 4 bits 2.4e-3 : 2.6e-3, at a mixture
    of both 1.4e-3 : 2.1e-3; ResNet-8 1.00e-3 : 0.99e-3, 1.7e-2 : 1.9e-2, 5.5e-3 : 5.8e-3), but not nothing: for the bits that
    were chosen rather than the fewest, ResNet-8 has 2.96e-3 : 3.08e-3 at 75 % of its size, 5.95e-3 : 6.11e-3 at 62.5 % (3,000).
    """

    samples: FirstSamples
    data: Any = None
    pins: Mapping[str, Bits] = field(default_factory=dict)
    assignment: Mapping[str, int] = field(default_factory=dict)
    fewest: int = 8
    name: str = "equalize_channels"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        pairs = [(node, reader) for node in graph.nodes if (reader := only_reader(graph, node)) is not None]
        if not pairs or is_quantized(graph):
            return graph
        self.samples.fill(graph, self.data)
        if not self.samples.inputs:
            return graph
        measured = measure_channels(graph, self.samples.first(SAMPLES), [(a.output.name, b.inputs[0]) for a, b in pairs])
        pairs = [(a, b) for a, b in pairs if measured[a.output.name].finite and measured[b.inputs[0]].finite]
        constants = Constants(graph)
        changed = {reader.output.name: 1 for _, reader in pairs} | {node.output.name: 2 for node, _ in pairs}
        nodes = {n.output.name: _with_own(n, constants, changed.get(n.output.name, 0)) for n in graph.nodes}
        for node, reader in pairs:
            first, second = nodes[node.output.name], nodes[reader.output.name]
            largest, squares = measured[node.output.name].largest, measured[reader.inputs[0]].squares
            weight = constants[second.inputs[1]].data
            factors = choose_factors(largest, squares, weight, is_depthwise(reader, weight), self._weight_bits(second))
            _scale_rows(first, constants, factors)
            _divide_columns(second, constants, factors)
            nodes[node.output.name] = first.with_attributes(equalized=1)
        return graph.with_nodes(nodes.values(), constants.values())

    def _weight_bits(self, node: Node) -> int:
        wishes = [b.weight for p, b in self.pins.items() if any(fnmatchcase(n, p) for n in (node.origin, node.output.name))]
        chosen = self.assignment.get(node.inputs[1], self.fewest)
        return next((bits for bits in reversed(wishes) if bits is not None), chosen)


def only_reader(graph: Graph, node: Node) -> Node | None:
    """The layer with weights that alone reads the result of ``node``, if both may be rescaled channel by channel."""
    if node.op not in WEIGHTED or node.get("equalized") or not _has_own_weights(graph, node):
        return None
    if node.get("clamp", (0.0, math.inf)) != (0.0, math.inf):
        return None
    value = node.output
    channels = value.type.shape[1] if len(value.type.shape) in (2, 4) else None
    while graph.uses(value.name) == 1 and value.name not in graph.outputs:
        (reader,) = graph.consumers[value.name]
        if reader.op in WEIGHTED and reader.inputs[0] == value.name and _has_own_weights(graph, reader):
            weight = graph.constant[reader.inputs[1]].data
            plain = weight.shape[1] == channels and reader.get("groups", 1) == 1
            return (
                reader
                if plain or (weight.shape[0] % max(reader.get("groups", 1), 1) == 0 and is_depthwise(reader, weight))
                else None
            )
        value = reader.output
        if reader.op not in PAST or reader.get("clamp") is not None or value.type.shape[1:2] != (channels,):
            return None
    return None


def _has_own_weights(graph: Graph, node: Node) -> bool:
    """Whether weights and bias are constants."""
    return all(name in graph.constant for name in node.inputs[1:])


def is_depthwise(node: Node, weight: Array) -> bool:
    """Whether every output channel reads one channel."""
    return node.op == "conv2d" and weight.shape[1] == 1 and node["groups"] > 1


@dataclass
class Channels:
    """Of one value over samples: the largest magnitude and the mean square of each channel, float64[C]."""

    largest: Array
    squares: Array

    @property
    def finite(self) -> bool:
        """Otherwise calibration says what is wrong."""
        return bool(np.isfinite(self.largest).all() and np.isfinite(self.squares).all())


def measure_channels(graph: Graph, samples: list[Array], pairs: Iterable[tuple[str, str]]) -> dict[str, Channels]:
    """The channels of all values that are named in ``pairs``."""
    import torch

    wanted = {name for pair in pairs for name in pair}
    found: dict[str, Channels] = {}

    def observe(value: Value, tensor: torch.Tensor) -> None:
        if value.name in wanted:
            others = [axis for axis in range(tensor.ndim) if axis != 1]
            largest = tensor.abs().amax(others).to(torch.float64).numpy()
            squares = (tensor.to(torch.float64) ** 2).mean(others).numpy() * (len(tensor) / len(samples[0]))
            if value.name in found:
                largest = np.maximum(largest, found[value.name].largest)
                squares = squares + found[value.name].squares
            found[value.name] = Channels(largest, squares)

    with torch.no_grad():
        for start in range(0, len(samples[0]), BATCH_SIZE):
            run_float(graph, [torch.from_numpy(x[start : start + BATCH_SIZE]) for x in samples], observe)
    return found


def choose_factors(largest: Array, squares: Array, weight: Array, depthwise: bool, bits: int) -> Array:
    """What to multiply every channel by, float64[C], 1 to ``LARGEST_FACTOR``; 1 for channels without values.

    ``largest``: of the first layer's channels; ``squares``: means of those that the second layer reads; ``weight``: its weights.
    """
    whole = largest.max(initial=0.0)
    if whole == 0.0:
        return np.ones(len(largest))
    full: Array = np.minimum(whole / np.where(largest > 0.0, largest, whole), LARGEST_FACTOR)
    if depthwise:
        return full
    rows = weight.astype(np.float64).reshape(len(weight), len(largest), -1)
    taps = rows.shape[2]
    best, least = np.ones(len(largest)), math.inf
    for share in SHARES:
        factors = full**share
        activation_error = ((whole / ACTIVATION_STEPS / factors) ** 2 / 12.0) @ (rows**2).sum(axis=(0, 2))
        weight_steps = (np.abs(rows).max(axis=2) / factors).max(axis=1) / code_limits(bits)[1]
        error = activation_error + (weight_steps**2 / 12.0).sum() * taps * (squares * factors**2).sum()
        if error < least * (WORTHWHILE if share else 1.0):
            best, least = factors, error
    return best


def _with_own(node: Node, constants: Constants, count: int) -> Node:
    """``node`` whose first ``count`` of weights and bias are its own: other nodes may read those that it had."""
    old = node.inputs[1 : 1 + count]
    if not old:
        return node
    parameters = dict(zip(("weight", "bias"), (constants[name].data for name in old), strict=False))
    constants.release(node, keeping=node.inputs[1 + count :])
    own = (constants.add(f"{node.output.name}.{role}", data).name for role, data in parameters.items())
    return replace(node, inputs=(node.inputs[0], *own, *node.inputs[1 + count :]))


def _scale_rows(node: Node, constants: Constants, factors: Array) -> None:
    """Multiply the output channels of ``node``."""
    for name in node.inputs[1:]:
        old = constants[name].data
        constants.change(name, old * factors.reshape(-1, *[1] * (old.ndim - 1)))


def _divide_columns(node: Node, constants: Constants, factors: Array) -> None:
    """Divide the weights of ``node`` for each input channel."""
    old = constants[node.inputs[1]].data
    if is_depthwise(node, old):
        divisors = np.repeat(factors, len(old) // len(factors)).reshape(-1, *[1] * (old.ndim - 1))
    else:
        divisors = factors.reshape(1, -1, *[1] * (old.ndim - 2))
    constants.change(node.inputs[1], old / divisors)
