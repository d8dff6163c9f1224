"""The kernels that a network calls for one sample, one after the other, with the places of what they read and write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from qcompiler.backend.image import DENSE
from qcompiler.backend.kernel import ConvolutionSpec, KernelSpec
from qcompiler.backend.lower import plan_steps
from qcompiler.backend.ports import ports
from qcompiler.backend.program import Address
from qcompiler.cost.kernel_key import kernel_key
from qcompiler.ir.graph import Graph


@dataclass(frozen=True)
class TracedCall:
    """A call: ``places`` of the tensors among its arguments (x, residual, y); ``sums``: those of the layer that it is, or ""."""

    key: str
    spec: KernelSpec
    places: Mapping[str, Address]
    sums: str


@dataclass(frozen=True)
class Trace:
    """``name`` says the bits. Sizes in bytes: of every input and output, and of the workspace."""

    name: str
    calls: tuple[TracedCall, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    workspace: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The calls' keys, in order."""
        return tuple(call.key for call in self.calls)

    @property
    def touched_bytes(self) -> int:
        """What one pass touches: all tensors and the weights' codes."""
        weights = sum(_weight_bytes(call.spec) for call in self.calls)
        return self.workspace + sum(self.inputs) + sum(self.outputs) + weights


def trace(graph: Graph, target: str, name: str = "", input_layout: str = DENSE) -> Trace:
    """The trace of an integer graph; no kernel is scheduled."""
    plan = plan_steps(graph, 1, input_layout)
    calls = []
    for step in plan.steps:
        places = {argument: plan.addresses[buffer] for argument, buffer in step.reads.items()}
        places["y"] = plan.addresses[step.writes]
        sums = graph.producer[step.writes].inputs[0] if isinstance(step.spec, ConvolutionSpec) else ""
        calls.append(TracedCall(kernel_key(step.spec, target), step.spec, places, sums))
    inputs, outputs = ports(graph, input_layout)
    read, written = (tuple(port.sample_bytes for port in group) for group in (inputs, outputs))
    return Trace(name, tuple(calls), read, written, plan.workspace_bytes)


def _weight_bytes(spec: KernelSpec) -> int:
    if not isinstance(spec, ConvolutionSpec):
        return 0
    return spec.out_channels * spec.in_channels // spec.groups * prod(spec.kernel) * spec.weight_bits // 8
