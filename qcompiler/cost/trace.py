"""The kernels that a network calls for one sample, one after the other, with the places of what they read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from qcompiler.backend.image import DENSE
from qcompiler.backend.kernel import ConvolutionSpec, KernelSpec
from qcompiler.backend.kernel_key import kernel_key
from qcompiler.backend.lower import plan_steps
from qcompiler.backend.ports import ports
from qcompiler.backend.program import Address
from qcompiler.backend.tile_table import TileTable
from qcompiler.ir.graph import Graph
from qcompiler.schedules.tiling import Tiling, tiling_text


@dataclass(frozen=True)
class TracedCall:
    """A call: ``places`` of the tensors among its arguments (x, residual, y); ``sums``: those of the layer that it is, or "".

    ``kernel``: the key of the kernel as the model tiles it; ``tiling``: empty for that one.
    """

    kernel: str
    spec: KernelSpec
    places: Mapping[str, Address]
    sums: str
    tiling: Tiling = ()

    @property
    def key(self) -> str:
        """The key of the kernel as it ships."""
        return f"{self.kernel} tiling={tiling_text(self.tiling)}" if self.tiling else self.kernel


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

    def tiled(self, tiling: Callable[[TracedCall], Tiling]) -> Trace:
        """The same with other tilings."""
        return replace(self, calls=tuple(replace(call, tiling=tiling(call)) for call in self.calls))


def trace(graph: Graph, target: str, name: str = "", input_layout: str = DENSE, batch: int = 1) -> Trace:
    """The trace of an integer graph for ``batch`` samples, tiled as the model chooses; no kernel is scheduled."""
    plan = plan_steps(graph, batch, input_layout)
    calls = []
    for step in plan.steps:
        places = {argument: plan.addresses[buffer] for argument, buffer in step.reads.items()}
        places["y"] = plan.addresses[step.writes]
        sums = graph.producer[step.writes].inputs[0] if isinstance(step.spec, ConvolutionSpec) else ""
        calls.append(TracedCall(kernel_key(step.spec, target), step.spec, places, sums))
    inputs, outputs = ports(graph, input_layout)
    read, written = (tuple(port.sample_bytes * batch for port in group) for group in (inputs, outputs))
    return Trace(name, tuple(calls), read, written, plan.workspace_bytes)


def kernel_keys(graph: Graph, target: str, input_layout: str = DENSE, tiles: TileTable | None = None) -> tuple[str, ...]:
    """The keys of what an integer graph calls for one sample, in order, with the tilings of ``tiles``; nothing is scheduled."""
    found = trace(graph, target, "", input_layout)
    return found.keys if tiles is None else found.tiled(lambda call: tiles.tiling(call.spec)).keys


def _weight_bytes(spec: KernelSpec) -> int:
    if not isinstance(spec, ConvolutionSpec):
        return 0
    return spec.out_channels * spec.in_channels // spec.groups * prod(spec.kernel) * spec.weight_bits // 8
