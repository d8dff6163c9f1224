"""The state of one walk over the integer graph: the steps so far and the buffers they read and write.

What an operator becomes stands in the ``emit_*`` modules; :mod:`lower` walks the graph and plans the memory.

Errors: LOWER001 a tensor has no batch in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qcompiler.backend.constants import ConstantPool
from qcompiler.backend.image import PHYSICAL, Image
from qcompiler.backend.kernel import SCALARS, KernelSpec, Move, Scalar, physical_channels
from qcompiler.backend.program import Address
from qcompiler.errors import CompileError
from qcompiler.ir.graph import BATCH, Array, Graph, Node, TensorType


@dataclass
class Step:
    """A kernel call before addresses are known; buffers are named."""

    spec: KernelSpec
    layer: str
    reads: Mapping[str, str]  # argument (x, residual) -> buffer
    writes: str
    constants: Mapping[str, Address]
    weights: tuple[Array, Array] | None = None  # codes [O, I, KH, KW] and bias, packed as the kernel wants them


@dataclass(frozen=True)
class Chain:
    """What moves do to a value that lies in memory; ``fill`` is the code that their pads add."""

    source: str
    moves: tuple[Move, ...] = ()
    fill: int | None = None


@dataclass
class Lowering:
    """One walk over the graph for one batch size."""

    graph: Graph
    batch: int
    input_layout: str
    constants: ConstantPool
    steps: list[Step] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)  # by buffer
    fixed: dict[str, Address] = field(default_factory=dict)  # buffers that are the caller's memory
    buffers: dict[str, str] = field(default_factory=dict)  # value -> the buffer that holds it
    deferred: dict[str, Chain] = field(default_factory=dict)  # values that only their readers' chains compute

    def image(self, type_: TensorType, where: str, layout: str | None = None) -> Image:
        """How a tensor lies in memory; LOWER001 where the batch is not in front."""
        if not type_.shape or type_.shape[0] != BATCH:
            raise CompileError("LOWER001", where, f"{type_} has no batch in front", "keep the batch as the first dimension")
        shape = type_.with_batch(self.batch)
        return Image(shape if len(shape) > 1 else (*shape, 1), type_.dtype.container.name, layout or PHYSICAL)

    def image_of(self, name: str) -> Image:
        """How the tensor of a value lies in memory, by the value's name."""
        return self.images[self.buffers[name]]

    def new(self, buffer: str, image: Image) -> str:
        """A buffer of the workspace."""
        self.images[buffer] = image
        return buffer

    def step(
        self, node: Node, spec: KernelSpec, reads: Mapping[str, str], scalars: Mapping[Scalar, int], **more: Address
    ) -> Step:
        """Append the kernel call of ``node``: ``reads`` maps arguments to values, ``more`` to constants."""
        buffer = self.new(node.output.name, self.image(node.output.type, node.origin or node.output.name))
        self.buffers[node.output.name] = buffer
        constants = {"scalars": self.scalars(scalars), **more}
        step = Step(spec, node.origin or node.output.name, {a: self.buffers[v] for a, v in reads.items()}, buffer, constants)
        self.steps.append(step)
        return step

    def scalars(self, values: Mapping[Scalar, int]) -> Address:
        """A kernel's ``scalars`` argument."""
        data = np.zeros(SCALARS, dtype=np.int32)
        for place, value in values.items():
            data[place] = value
        return self.constants.add(data)

    def channel_constant(self, values: Array) -> Address:
        """One int32 per stored channel."""
        data = np.zeros(physical_channels(len(values)), dtype=np.int32)
        data[: len(values)] = values
        return self.constants.add(data)


def output_scalars(node: Node) -> dict[Scalar, int]:
    """The scalars of a node that ends in a shift, a zero point and limits."""
    lo, hi = node["limits"]
    return {Scalar.SHIFT: node["shift"], Scalar.Y_ZERO: node.output.zero or 0, Scalar.LO: lo, Scalar.HI: hi}
