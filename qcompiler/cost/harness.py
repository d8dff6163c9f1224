"""The C program that runs traces: its source, its kernels, and the memory in which everything lies.

The memory (the arena) begins with inputs, outputs and workspace, which all traces share, at the places that the network's own
plan gives them. Then every call has constants of its own, as in the library. Weights, tables and inputs are random bytes in the
packed form's size: integer instructions take as long for any of them. What places are computed from is what ships.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jinja2
import numpy as np

from qcompiler.backend.constants import ConstantPool
from qcompiler.backend.elf import data_object, merge_objects
from qcompiler.backend.kernel import SCALARS, Kernel, Scalar
from qcompiler.backend.kernel_table import KernelTable
from qcompiler.backend.memory_plan import aligned
from qcompiler.backend.program import Address, Space
from qcompiler.backend.toolchain import MACHINES
from qcompiler.cost.trace import Trace, TracedCall
from qcompiler.progress import Progress
from qcompiler.targets.target import Target

EXPORTED: Final = ("qc_profile_prepare", "qc_profile_calls", "qc_profile_passes")

_FILLS: Final[Mapping[str, int]] = {
    "bias": 0,
    "multiplier": 1 << 14,
    "pre_shift": 4,
    "lower": -(1 << 14),
    "upper": 1 << 14,
}
"""Values of constants for each channel: any would do, these keep sums apart from their limits."""

_SCALARS: Final[Mapping[Scalar, int]] = {
    Scalar.X_ZERO: 128,
    Scalar.SHIFT: 20,
    Scalar.Y_ZERO: 128,
    Scalar.LO: 0,
    Scalar.HI: 255,
    Scalar.RESIDUAL_MULTIPLIER: 1 << 10,
    Scalar.RESIDUAL_ZERO: 128,
    Scalar.X_MULTIPLIER: 1 << 14,
}


@dataclass(frozen=True)
class Harness:
    """``source``: C; ``kernels``: an object with the kernels and their constants; ``arena_bytes``: the memory that it needs."""

    source: str
    kernels: bytes
    arena_bytes: int


def build_harness(
    traces: Sequence[Trace], target: Target, progress: Progress | None = None, same_weights: bool = False
) -> Harness:
    """Schedules and compiles the kernels of ``traces`` and writes the C source that calls them.

    ``same_weights``: the traces are one network, differently tiled, and have one set of weights between them.
    """
    from qcompiler.backend.tir import CompiledKernels

    table = KernelTable("profile", target.instruction_set, target.tvm_target, progress)
    arena = _Arena(table, max((found.workspace for found in traces), default=0), same_weights)
    written = [
        {"name": found.name, "calls": [list(arena.words(found, *call)) for call in enumerate(found.calls)]} for found in traces
    ]
    kernels = [{"symbol": symbol, "arguments": len(kernel.arguments)} for symbol, kernel in arena.kernels.items()]
    source = render(
        "profile.c.jinja",
        kernels=kernels,
        traces=written,
        arena_bytes=arena.size,
        copies=arena.copies,
        fills=arena.fills,
        maximum_arguments=max(len(kernel.arguments) for kernel in arena.kernels.values()),
    )
    compiled = CompiledKernels(table.functions(), target.tvm_target).content
    symbol = "qc_profile_constants"
    constants = data_object(MACHINES[target.architecture], symbol, f".rodata.{symbol}", arena.constants.blob() or bytes(64))
    exported = [symbol, *arena.kernels]
    return Harness(source, merge_objects([compiled, constants], exported), arena.size)


def render(template: str, **values: Any) -> str:
    """The text of a template beside this module."""
    loader = jinja2.PackageLoader("qcompiler.cost", "")
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.get_template(template).render(values)


def argument_bytes(kernel: Kernel) -> dict[str, int]:
    """Bytes of every argument of a kernel."""
    function = kernel.function[0] if isinstance(kernel.function, Sequence) else kernel.function
    sizes = [
        math.prod(int(extent) for extent in parameter.shape) * np.dtype(str(parameter.dtype)).itemsize
        for parameter in function.params
    ]
    return dict(zip(kernel.arguments, sizes, strict=True))


@dataclass
class _Arena:
    """Gives everything its place; what is written there at the start is in ``copies`` and ``fills``."""

    table: KernelTable
    workspace_bytes: int
    same_weights: bool
    size: int = field(init=False)
    constants: ConstantPool = field(default_factory=ConstantPool, init=False)
    kernels: dict[str, Kernel] = field(default_factory=dict, init=False)
    copies: list[tuple[int, int, int]] = field(default_factory=list, init=False)
    fills: list[tuple[int, int, int]] = field(default_factory=list, init=False)
    ports: dict[tuple[Address, int], int] = field(default_factory=dict, init=False)
    weights: dict[tuple[int, int], int] = field(default_factory=dict, init=False)  # by place of the call and bytes

    def __post_init__(self) -> None:
        self.size = aligned(self.workspace_bytes)

    def words(self, found: Trace, index: int, call: TracedCall) -> Iterator[int]:
        """The call at place ``index`` as the C source has it."""
        symbol, kernel = self.table.get(call.spec, call.tiling)
        self.kernels.setdefault(symbol, kernel)
        yield list(self.kernels).index(symbol)
        yield kernel.tasks
        sizes = argument_bytes(kernel)
        for name in kernel.arguments:
            place = call.places.get(name)
            if place is not None:
                yield self._place(found, place)
            elif name == "weights" and self.same_weights:
                if (index, sizes[name]) not in self.weights:
                    self.weights[index, sizes[name]] = self._take(sizes[name])
                yield self.weights[index, sizes[name]]
            else:
                yield self._constant(kernel, name, sizes[name])

    def _take(self, size: int) -> int:
        """A place of ``size`` bytes."""
        place = self.size
        self.size += aligned(size)
        return place

    def _place(self, found: Trace, address: Address) -> int:
        if address.space is Space.WORKSPACE:
            return address.offset
        size = (found.inputs if address.space is Space.INPUT else found.outputs)[address.offset]
        if (address, size) not in self.ports:
            self.ports[address, size] = self._take(size)
        return self.ports[address, size]

    def _constant(self, kernel: Kernel, name: str, size: int) -> int:
        place = self._take(size)
        if name in kernel.constants or name == "scalars":
            data = kernel.constants.get(name, _scalars())
            self.copies.append((place, data.nbytes, self.constants.add(data).offset))
        elif name in _FILLS:
            self.fills.append((place, size // 4, _FILLS[name] & 0xFFFFFFFF))
        return place


def _scalars() -> np.ndarray[Any, Any]:
    data = np.zeros(SCALARS, dtype=np.int32)
    for place, value in _SCALARS.items():
        data[place] = value
    return data
