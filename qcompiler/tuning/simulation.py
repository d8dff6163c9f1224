"""An allocated graph as a torch module that rounds wherever the integer graph does, with gradients.

Every value that has codes of up to 8 bits is rounded to them; a layer's result that an addition takes as its accumulator is
not, nor are wide outputs. What remains between this and the integer graph are the multipliers' last bits: codes can differ
where a value lies on the border of two.

:class:`SimulatedGraph` is what rounding works on, and what can be trained. Its parameters are the weights (latent, float), their
scales by output channel, the biases and the activations' scales; :meth:`SimulatedGraph.to_graph` writes them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

from qcompiler.interpret import last_reads
from qcompiler.ir.graph import WEIGHTED, Array, Constant, Graph, Node, Value
from qcompiler.ir.names import Constants
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.activation_classes import activation_classes
from qcompiler.passes.activation_codes import WIDE_BITS, Codes, affine_codes, choose_codes
from qcompiler.passes.correct_bias import stays_accumulator
from qcompiler.passes.weight_codes import channel_scales, code_limits
from qcompiler.tuning.quantizers import to_codes
from qcompiler.tuning.soft_rounding import SoftRounding

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_SCALE: Final = 2.0**-100  # a learned scale stays positive

Rounding = Callable[[str, "Tensor"], "Tensor"]
"""From a value's name and what was computed for it to what its readers get."""


class WeightQuantizer(torch.nn.Module):
    """The weights ``[O, ...]`` of one constant: latent floats and a scale for each output channel."""

    def __init__(self, constant: Constant) -> None:
        super().__init__()
        self.bits = constant.bits or 8
        self.low, self.high = code_limits(self.bits)
        scale = channel_scales(constant.data, self.bits) if constant.scale is None else constant.scale
        shape = (-1, *[1] * (constant.data.ndim - 1))
        self.weight = torch.nn.Parameter(torch.from_numpy(constant.data.copy()))
        self.scale = torch.nn.Parameter(torch.from_numpy(scale.astype(np.float32)).reshape(shape))
        self.soft: SoftRounding | None = None

    def forward(self) -> Tensor:
        """The weights as their codes represent them; between codes while it is being decided which ones to take."""
        if self.soft is not None:
            return cast("Tensor", self.soft())
        return to_codes(self.weight, self.scale.clamp(min=SMALLEST_SCALE), 0, self.low, self.high)

    def soften(self, exact: Tensor) -> SoftRounding:
        """From now on, every weight lies between its present code and the next one on the side of ``exact``."""
        scale = self.scale.detach().clamp(min=SMALLEST_SCALE)
        codes = torch.floor(self.weight.detach() / scale + 0.5).clamp(self.low, self.high)
        self.soft = SoftRounding(exact, codes, scale, self.low, self.high)
        return self.soft

    @torch.no_grad()
    def harden(self) -> None:
        """Take the codes that were decided on."""
        if self.soft is not None:
            self.weight.copy_(self.soft.decided() * self.soft.scale)
            self.soft = None

    def rounded(self) -> tuple[Array, Array]:
        """The weights as their codes represent them, float32, and their scales, float64[O]."""
        scale = self.scale.detach().clamp(min=SMALLEST_SCALE).to(torch.float64).numpy()
        codes = np.clip(np.floor(self.weight.detach().numpy() / scale + 0.5), self.low, self.high)
        return (codes * scale).astype(np.float32), scale.reshape(-1)


class ActivationQuantizer(torch.nn.Module):
    """The codes of one class of values: a scale that can be learned, a zero point that stays."""

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        self.zero, self.low, self.high = codes.zero, codes.dtype.minimum, codes.dtype.maximum
        self.scale = torch.nn.Parameter(torch.tensor(codes.scale, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return to_codes(x, self.scale.clamp(min=SMALLEST_SCALE), self.zero, self.low, self.high)

    def codes(self, x: Tensor) -> Tensor:
        """The codes of ``x``, uint8."""
        return torch.floor(x / self.scale + (self.zero + 0.5)).clamp_(self.low, self.high).to(torch.uint8)

    def values(self, codes: Tensor) -> Tensor:
        """What codes stand for, float32."""
        return (codes.to(torch.float32) - self.zero) * self.scale

    def range(self) -> tuple[float, float]:
        """What the codes span: ``affine_codes`` makes these codes of it."""
        scale = max(float(self.scale.detach()), SMALLEST_SCALE)
        return (self.low - self.zero) * scale, (self.high - self.zero) * scale


class SimulatedGraph(torch.nn.Module):
    """``graph``: an allocated graph. Calling it takes and gives float tensors ``[N, ...]``, one for each input and output."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        chosen = {name: codes for name, codes in choose_codes(graph, WIDE_BITS).items() if codes.dtype.bits < WIDE_BITS}
        self.quantizers = torch.nn.ModuleList()
        self.quantizer_of: dict[str, int] = {}
        self.accumulators = {node.output.name for node in graph.nodes if stays_accumulator(graph, node)}
        for group in activation_classes(graph):
            coded = [name for name in group if name in chosen]
            if not self.accumulators.issuperset(coded):
                self.quantizer_of.update(dict.fromkeys(coded, len(self.quantizers)))
                self.quantizers.append(ActivationQuantizer(chosen[coded[0]]))
                if not learnable(graph, group, chosen[coded[0]]):
                    self.quantizers[-1].requires_grad_(False)
        layers = [node for node in graph.nodes if node.op in WEIGHTED and node.inputs[1] in graph.constant]
        self.weights = torch.nn.ModuleList()
        self.weight_of: dict[str, int] = {}
        self.biases = torch.nn.ParameterList()
        self.bias_of: dict[str, int] = {}  # by the layer's value: layers may share a constant, but not what it becomes
        for node in layers:
            if node.inputs[1] not in self.weight_of:
                self.weight_of[node.inputs[1]] = len(self.weights)
                self.weights.append(WeightQuantizer(graph.constant[node.inputs[1]]))
            channels = len(graph.constant[node.inputs[1]].data)
            bias = graph.constant[node.inputs[2]].data if len(node.inputs) == 3 else np.zeros(channels, dtype=np.float32)
            self.bias_of[node.output.name] = len(self.biases)
            self.biases.append(torch.nn.Parameter(torch.from_numpy(bias.copy())))
        others = {name for node in graph.nodes if node.output.name not in self.bias_of for name in node.inputs}
        self.fixed = {c.name: torch.from_numpy(c.data.copy()) for c in graph.constants if c.name in others}
        self.last = last_reads(graph)
        self.position = {node.output.name: index for index, node in enumerate(graph.nodes)}

    def quantizer(self, name: str) -> ActivationQuantizer | None:
        """The quantizer of the value ``name``; None where it is not rounded."""
        if name in self.accumulators or name not in self.quantizer_of:
            return None
        return self.activation_quantizers()[self.quantizer_of[name]]

    def activation_quantizers(self) -> list[ActivationQuantizer]:
        """One for every class of values with codes."""
        return cast("list[ActivationQuantizer]", list(self.quantizers))

    def weight_quantizers(self) -> list[WeightQuantizer]:
        """One for every constant that is a layer's weights."""
        return cast("list[WeightQuantizer]", list(self.weights))

    def weight(self, node: Node) -> WeightQuantizer:
        """The weights of a layer."""
        return self.weight_quantizers()[self.weight_of[node.inputs[1]]]

    def bias(self, node: Node) -> torch.nn.Parameter:
        """The bias of a layer, zeros where it had none."""
        return cast("torch.nn.Parameter", self.biases[self.bias_of[node.output.name]])

    def operands(self, node: Node, values: Mapping[str, Tensor]) -> list[Tensor]:
        """What ``node`` reads: values, quantized weights, constants."""
        if node.output.name in self.bias_of:
            return [values[node.inputs[0]], self.weight(node)(), self.bias(node)]
        return [values[name] if name in values else self.fixed[name] for name in node.inputs]

    def rounded(self, name: str, x: Tensor) -> Tensor:
        """``x`` as the codes of the value ``name`` represent it; ``x`` itself where it is not rounded."""
        quantizer = self.quantizer(name)
        return x if quantizer is None else quantizer(x)

    def run(self, nodes: Sequence[Node], values: dict[str, Tensor], rounding: Rounding | None = None) -> None:
        """Put what ``nodes`` give into ``values``, and take out what nothing further down reads.

        ``rounding``: what to do in place of :meth:`rounded`.
        """
        rounding = rounding or self.rounded
        for node in nodes:
            name = node.output.name
            values[name] = rounding(name, OPERATORS[node.op].run_float(node, self.operands(node, values)))
            for read in node.inputs:
                if self.last[read] <= self.position[name]:
                    values.pop(read, None)

    def forward(self, *inputs: Tensor, rounding: Rounding | None = None) -> Any:
        given = zip(self.graph.inputs, inputs, strict=True)
        values = {value.name: (rounding or self.rounded)(value.name, x) for value, x in given}
        self.run(self.graph.nodes, values, rounding)
        outputs = [values[name] for name in self.graph.outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @torch.no_grad()
    def to_graph(self) -> Graph:
        """The allocated graph with what the parameters are now: weights on their codes' grid, biases, ranges."""
        graph = self.graph
        constants = Constants(graph)
        for node in graph.nodes:
            if node.output.name in self.bias_of:
                constants.release(node)
        weights: dict[str, str] = {}
        for name, index in self.weight_of.items():  # under their old names, but where something else reads what they were
            data, scale = self.weight_quantizers()[index].rounded()
            weights[name] = constants.add(name, data, scale=scale, bits=graph.constant[name].bits).name
        nodes = []
        for node in graph.nodes:
            if node.output.name in self.bias_of:
                bias = constants.add(f"{node.output.name}.bias", self.bias(node).detach().numpy())
                inputs = (node.inputs[0], weights[node.inputs[1]], bias.name)
                node = replace(node, inputs=inputs).with_attributes(bias_corrected=1)
            nodes.append(replace(node, outputs=tuple(map(self._with_range, node.outputs))))
        changed = graph.with_nodes(nodes, constants.values())
        return replace(changed, inputs=tuple(map(self._with_range, graph.inputs)))

    def _with_range(self, value: Value) -> Value:
        index = self.quantizer_of.get(value.name)
        if index is None or not self.activation_quantizers()[index].scale.requires_grad:
            return value
        return replace(value, range=self.activation_quantizers()[index].range())


def learnable(graph: Graph, group: Sequence[str], codes: Codes) -> bool:
    """Whether the codes of a class are what its calibrated range says, so that another range gives other codes.

    Those at a function stay: what the function reads depends on how its result is coded.
    """
    touched = [
        *(graph.producer[name] for name in group if name in graph.producer),
        *(n for g in group for n in graph.consumers[g]),
    ]
    if any(node.op == "function" for node in touched):
        return False
    ranges = [found for name in group if (found := graph.values[name].range) is not None]
    if not ranges:
        return False
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return affine_codes(low, high, codes.dtype.bits) == codes
