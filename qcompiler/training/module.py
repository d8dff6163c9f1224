"""The torch module that is trained: it computes what the integer graph computes, and has gradients.

Going forward, every value that is rounded is the one of the integer graph that the present parameters give: the passes run at
each step (30 ms for ResNet-20), and the integer reference runs on the batch. Going backward, gradients are those of
``tuning.simulation``: straight through what is rounded, exact for the steps (Esser et al., arXiv 1902.08153). So the loss that
training sees is the loss of the codes that the built library gives, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from qcompiler.importers.builder import ImportedModel
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.graph import Array, Graph, Node
from qcompiler.pipeline import Settings, to_integer
from qcompiler.tuning.rates import parameter_groups
from qcompiler.tuning.simulation import SimulatedGraph

if TYPE_CHECKING:
    from torch import Tensor


class TrainableModel(torch.nn.Module):
    """A quantized network to train; :func:`qcompiler.compile` takes it as it is at that moment.

    Its inputs and outputs are float tensors ``[N, ...]`` like the model's, without a softmax at the end (the library has it
    again). Its parameters are latent weights, the steps of weights and activations, and biases, which have very different sizes:
    give :meth:`parameter_groups` to an optimizer. ``original`` is the float graph that it was made of.
    """

    def __init__(self, graph: Graph, original: Graph, settings: Settings, imported: ImportedModel) -> None:
        super().__init__()
        self.simulated = SimulatedGraph(graph)
        self.original = original
        self.settings = replace(settings, calibration=None, progress=None)
        self.imported_as = imported
        self.history: list[float] = []

    @override
    def forward(self, *inputs: Tensor) -> Any:
        exact = self._exact([x.detach().to(torch.float32) for x in inputs])
        if torch.is_grad_enabled():
            return self.simulated(*inputs, rounding=lambda name, x: self._as_exact(name, x, exact))
        outputs = [exact[name] for name in self.simulated.graph.outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @torch.no_grad()
    def float_outputs(self, *inputs: Tensor) -> Any:
        """What the float model gives, without gradients."""
        outputs = run_float(self.original, inputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def to_graph(self) -> Graph:
        """The allocated graph of the present parameters."""
        return self.simulated.to_graph()

    def to_integer(self) -> Graph:
        """The integer graph of the present parameters: the one that is compiled."""
        return to_integer(self.to_graph(), self.settings)

    def imported(self) -> ImportedModel:
        """The allocated graph with what the import of the model had to say."""
        return replace(self.imported_as, graph=self.to_graph())

    def parameter_groups(self, rate: float = 1.0) -> list[dict[str, Any]]:
        """Parameters with learning rates for an optimizer whose steps have the size of the rate, such as Adam.

        ``rate`` multiplies the rates of all: at 1, a step moves a weight by at most 5 % of the distance of two codes, the
        distance itself by 0.5 %, a bias by 2 % of the distance of two codes of the layer's result.
        """
        return parameter_groups(self.simulated, self.simulated.graph.nodes, rate)

    def _as_exact(self, name: str, x: Tensor, exact: Mapping[str, Tensor]) -> Tensor:
        """The value of the integer graph with the gradients of the simulation; sums that an addition takes are no codes."""
        result = self.simulated.rounded(name, x)
        if name in exact and name not in self.simulated.accumulators:
            result = result + (exact[name] - result).detach()
        return result

    @torch.no_grad()
    def _exact(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """What the codes of every value of the integer graph stand for."""
        graph = self.to_integer()
        found: dict[str, Tensor] = {}

        def keep(node: Node, codes: Array) -> None:
            if node.output.scale is not None:
                found[node.output.name] = torch.from_numpy(dequantize(node.output, codes))

        codes = [quantize_input(value, np.asarray(x)) for value, x in zip(graph.inputs, inputs, strict=True)]
        for value, x in zip(graph.inputs, codes, strict=True):
            found[value.name] = torch.from_numpy(dequantize(value, x))
        run_integer(graph, codes, keep)
        return found
