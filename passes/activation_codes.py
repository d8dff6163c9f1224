"""How activations are coded: one choice of type, scale and zero point for every class of values that share their codes.

Values are unsigned codes of 4 or 8 bits, with exceptions: what only leaves the network, joined to others or not, or is only
ranked there, is wide; what only PReLU reads, or several quantizers of a quantized model, has 16 bits, because it is rounded
again; indices are what they are; and what only functions read is limited to where the functions vary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qcompiler.ir.dtypes import I32, IntegerType
from qcompiler.ir.graph import RANKS, Graph, Node
from qcompiler.ops.functions import evaluate, limited_expression
from qcompiler.passes.activation_classes import activation_classes, leaving_values, shared_operands
from qcompiler.passes.quantizers import has_few_steps, limits_its_source

if TYPE_CHECKING:
    import torch

HEADROOM: Final = 4.0  # of wide outputs over the calibrated range: 16 bits have precision to spare, saturated logits tie
LEAST_HEADROOM: Final = 2.0  # where outputs join small values to large ones
EMPTY_SPAN: Final = 2.0**-20  # of values that are all zero: any scale serves them
SMALLEST_SPAN: Final = 2.0**-100  # what float32 has room for on both sides of
WIDE_BITS: Final = 16  # of codes so fine that values may be taken as they are
GRID: Final = 4096  # points at which a function is looked at


@dataclass(frozen=True)
class Codes:
    """How a class of values is coded."""

    dtype: IntegerType
    scale: float
    zero: int

    def code(self, real: float) -> int:
        """The code nearest to ``real``, within the type."""
        if math.isinf(real):
            return self.dtype.minimum if real < 0 else self.dtype.maximum
        return min(max(math.floor(real / self.scale + 0.5) + self.zero, self.dtype.minimum), self.dtype.maximum)

    def rounded(self, values: torch.Tensor) -> torch.Tensor:
        """The real numbers that the codes of ``values`` stand for."""
        result = values.mul(1.0 / self.scale).add_(self.zero + 0.5).floor_()
        return result.clamp_(self.dtype.minimum, self.dtype.maximum).sub_(self.zero).mul_(self.scale)

    def limits(self, clamp: tuple[float, float] | None) -> tuple[int, int]:
        """The smallest and largest output code under a float clamp."""
        low, high = clamp or (-math.inf, math.inf)
        return self.code(low), self.code(high)


def represented(span: float) -> float:
    """A span that codes can have: ``span`` itself unless there is nothing to represent, however small the numbers are."""
    return max(span, SMALLEST_SPAN) if span > 0.0 else EMPTY_SPAN


def affine_codes(low: float, high: float, bits: int) -> Codes:
    """Unsigned codes with a zero point for ``low <= 0 <= high``."""
    dtype = IntegerType(bits, signed=False)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = represented(high - low) / dtype.maximum
    return Codes(dtype, scale, min(max(math.floor(-low / scale + 0.5), 0), dtype.maximum))


def wide_codes(low: float, high: float, bits: int, headroom: float = HEADROOM) -> Codes:
    """Signed codes with zero point 0 and headroom, of 16 or 32 bits."""
    dtype = IntegerType(bits, signed=True)
    return Codes(dtype, represented(max(-low, high)) * headroom / dtype.maximum, 0)


def choose_codes(graph: Graph, output_bits: int) -> dict[str, Codes]:
    """The codes of every value, one choice per class; later classes first, because functions look at their results."""
    chosen: dict[str, Codes] = {}
    leaving = leaving_values(graph)
    for group in reversed(activation_classes(graph)):
        chosen.update(dict.fromkeys(group, _codes(graph, group, output_bits, chosen, leaving)))
    return chosen


def _codes(graph: Graph, group: Sequence[str], output_bits: int, chosen: dict[str, Codes], leaving: frozenset[str]) -> Codes:
    """The codes of one class."""
    readers = [
        node
        for name in group
        for node in graph.consumers[name]
        if name not in shared_operands(graph, node) and node.op != "identity"  # a copy has codes of its own, whatever these are
    ]
    others = [n for n in readers if n.op not in RANKS and not (n.op == "concat" and n.output.name in leaving)]
    sources = [graph.producer[name] for name in group if name in graph.producer]
    computed = len(sources) == len(group)
    leaves = len(others) < len(readers) or any(name in graph.outputs for name in group)
    looked_up = bool(others) and not computed and all(node.op == "embedding" for node in others)
    if looked_up or any(node.op in RANKS for node in sources):
        return Codes(I32, 1.0, 0)
    low, high = _range(graph, group)
    bits = graph.values[group[0]].bits or 8
    given = [node for node in sources if node.op == "quantizer"]
    requantized = bool(others) and not given and all(node.op == "quantizer" for node in others)  # fine enough for each of them
    widens = all(limits_its_source(graph, node) and not has_few_steps(node) for node in given)
    if leaves and computed and widens and (not others or (requantized and output_bits == 16)) and output_bits > 8:
        interpolated = any(node.op == "resize_linear" for node in sources)  # weighted sums of 32-bit codes do not fit
        return wide_codes(low, high, 16 if interpolated else output_bits, _headroom(graph, group, low, high))
    if not leaves and bits == 8 and (requantized or (computed and others and all(node.op == "prelu" for node in others))):
        return wide_codes(low, high, 16, headroom=1.0)
    codes = affine_codes(low, high, bits)
    varying = bool(others) and all(node.op == "function" and node.output.name in chosen for node in others)
    if varying and not leaves and not given:
        spans = [varying_range(node, low, high, chosen[node.output.name]) for node in others]
        narrow = affine_codes(min(a for a, _ in spans), max(b for _, b in spans), bits)
        # One step more, so that the last codes lie where the function is constant whatever the zero point's rounding.
        start, end = ((limit - narrow.zero) * narrow.scale for limit in (-1, narrow.dtype.maximum + 1))
        codes = affine_codes(max(start, low), min(end, high), bits)
    return codes


def _range(graph: Graph, group: Sequence[str]) -> tuple[float, float]:
    """What the values of a class span, with the constants that are joined to them."""
    ranges = [r for r in (graph.values[name].range for name in group) if r is not None]
    ranges += joined_constants(graph, group)
    return min(r[0] for r in ranges), max(r[1] for r in ranges)


def _headroom(graph: Graph, group: Sequence[str], low: float, high: float) -> float:
    """Less where 16 bits have no precision to spare: the smallest part of what is joined should keep that of its 8 bits."""
    joined = [graph.producer[name] for name in group if name in graph.producer and graph.producer[name].op == "concat"]
    ranges = [found for node in joined for name in node.inputs if name in graph.values and (found := graph.values[name].range)]
    finest = min((affine_codes(*found, 8).scale for found in ranges), default=math.inf)
    return min(max(finest / wide_codes(low, high, 16, 1.0).scale, LEAST_HEADROOM), HEADROOM)


def joined_constants(graph: Graph, group: Sequence[str]) -> list[tuple[float, float]]:
    """The ranges of the constants that concatenations among ``group`` join."""
    joined = [graph.producer[name] for name in group if name in graph.producer and graph.producer[name].op == "concat"]
    constants = [graph.constant[name].data for node in joined for name in node.inputs if name in graph.constant]
    return [(float(data.min(initial=0.0)), float(data.max(initial=0.0))) for data in constants]


def varying_range(node: Node, low: float, high: float, output: Codes) -> tuple[float, float]:
    """The part of ``low .. high`` outside of which the codes of a function's result do not change."""
    import torch

    x = np.linspace(low, high, GRID)
    y = np.nan_to_num(evaluate(limited_expression(node), torch.from_numpy(x)).numpy(), posinf=np.inf, neginf=-np.inf)
    codes = np.clip(np.floor(y / output.scale + 0.5) + output.zero, output.dtype.minimum, output.dtype.maximum)
    rising = np.flatnonzero(codes != codes[0])
    falling = np.flatnonzero(codes != codes[-1])
    if not len(rising):
        return low, high
    return float(x[max(int(rising[0]) - 1, 0)]), float(x[min(int(falling[-1]) + 1, GRID - 1)])
