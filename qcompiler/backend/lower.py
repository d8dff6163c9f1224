"""From the integer graph to a program: which kernel computes what, and where every tensor lies.

A kernel is an accumulator together with its requantization, or one of the other integer operators. Tensors of any rank lie
with their channels (axis 1) innermost and padded (``kernel.physical_channels``); the user's layout is met by copies at the
network's ends. :func:`plan_steps` says which kernels are called on which addresses and schedules none of them; :func:`lower`
builds them, once per distinct description, for the batch tile and for the single samples left over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from qcompiler.backend.constants import ConstantPool
from qcompiler.backend.emit_binary import add, binary, matmul
from qcompiler.backend.emit_convolution import convolution
from qcompiler.backend.emit_elementwise import lookup, prelu, rescale
from qcompiler.backend.emit_indexing import argmax, embedding, topk
from qcompiler.backend.emit_movement import concat, move
from qcompiler.backend.emit_pooling import pool
from qcompiler.backend.emit_reduction import reduce
from qcompiler.backend.emit_resize import resize
from qcompiler.backend.image import CHANNELS_LAST, DENSE, PHYSICAL, Image
from qcompiler.backend.kernel import CopySpec, Kernel, physical_channels, replaceable, work
from qcompiler.backend.kernel_table import KernelTable
from qcompiler.backend.lowering import Lowering, Step
from qcompiler.backend.memory_plan import Lifetime, plan_memory
from qcompiler.backend.ports import ports
from qcompiler.backend.program import Address, Call, Program, Space
from qcompiler.errors import InternalError
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import WEIGHTED, Graph, Node, Stage, Value
from qcompiler.progress import Progress

if TYPE_CHECKING:
    from qcompiler.backend.tile_table import TileTable

EMITTERS: Final[Mapping[str, Callable[[Lowering, Node], None]]] = {
    "add": add,
    "amax": reduce,
    "amin": reduce,
    "argmax": argmax,
    "average_pool2d": pool,
    "concat": concat,
    "embedding": embedding,
    "lookup": lookup,
    "matmul": matmul,
    "max_pool2d": pool,
    "maximum": binary,
    "minimum": binary,
    "mul": binary,
    "pad": move,
    "prelu": prelu,
    "requantize": convolution,
    "requantize_add": convolution,
    "requantize_add_narrow": convolution,
    "requantize_narrow": convolution,
    "rescale": rescale,
    "reshape": move,
    "resize_linear": resize,
    "slice": move,
    "sum": reduce,
    "take": move,
    "topk_indices": topk,
    "topk_values": topk,
    "transpose": move,
}
"""What each operator of the integer stage becomes; those with weights go with their requantization."""


LEAST_SHARED_WORK: Final = 1_500_000
"""Of :func:`kernel.work`, from which on several threads do it: some three microseconds of a fast core."""


def lower(
    graph: Graph,
    instruction_set: str,
    target: Mapping[str, object],
    batch_tile: int = 1,
    input_layout: str = DENSE,
    progress: Progress | None = None,
    tiles: TileTable | None = None,
) -> Program:
    """The program of an integer graph for an instruction set; ``target`` is TVM's description of it.

    ``input_layout`` ("NCHW" or "NHWC") holds for inputs of rank 4; outputs keep the model's layout. ``tiles``: tilings of
    kernels; by default the model chooses all.
    """
    kernels = KernelTable(graph.name, instruction_set, target, progress)
    constants = ConstantPool()
    tiled = plan_steps(graph, batch_tile, input_layout, constants)

    def call(step: Step, plan: StepPlan) -> Call:
        tiling = () if tiles is None else tiles.tiling(step.spec)
        return _call(step, plan.addresses, kernels.get(step.spec, tiling), constants)

    calls = tail_calls = tuple(call(step, tiled) for step in tiled.steps)
    tail = tiled
    if batch_tile > 1:
        tail = plan_steps(graph, 1, input_layout, constants)
        tail_calls = tuple(call(step, tail) for step in tail.steps)
    inputs, outputs = ports(graph, input_layout)
    return Program(
        name=graph.name,
        inputs=inputs,
        outputs=outputs,
        batch_tile=batch_tile,
        calls=calls,
        tail_calls=tail_calls,
        workspace_bytes=max(tiled.workspace_bytes, tail.workspace_bytes),
        largest_live_bytes=max(tiled.largest_live_bytes, tail.largest_live_bytes),
        weights=constants.blob(),
        packed_code_bytes=packed_code_bytes(graph),
        weight_code_bytes=constants.weight_code_bytes,
        functions=kernels.functions(),
        tilings=kernels.tilings(),
    )


def packed_code_bytes(graph: Graph) -> int:
    """Bytes of an integer graph's weight codes, every tensor's packed by itself and counted once."""
    names = dict.fromkeys(node.inputs[1] for node in graph.nodes if node.op in WEIGHTED and node.inputs[1] in graph.constant)
    types = [graph.constant[name].type for name in names]
    return sum(-(-type_.elements * type_.dtype.bits // 8) for type_ in types if isinstance(type_.dtype, IntegerType))


@dataclass(frozen=True)
class StepPlan:
    """What a network of one batch size calls, in order, and where its buffers lie; no kernel is scheduled yet."""

    steps: tuple[Step, ...]
    addresses: Mapping[str, Address]  # by buffer
    workspace_bytes: int
    largest_live_bytes: int


def plan_steps(graph: Graph, batch: int = 1, input_layout: str = DENSE, constants: ConstantPool | None = None) -> StepPlan:
    """The steps of an integer graph for ``batch`` samples; what they read from the weights blob is added to ``constants``."""
    if graph.stage is not Stage.INTEGER:
        raise InternalError(f"lower takes an integer graph, not one of stage {graph.stage.value}")
    lowering = Lowering(graph, batch, input_layout, ConstantPool() if constants is None else constants)
    for index, value in enumerate(graph.inputs):
        _enter(lowering, index, value)
    for node in graph.nodes:
        if node.op in WEIGHTED:
            continue
        if node.op not in EMITTERS:
            raise InternalError(f"%{node.output.name} = {node.op} has no kernel")
        EMITTERS[node.op](lowering, node)
    for index, name in enumerate(graph.outputs):
        _leave(lowering, index, graph.values[name])
    return _place(lowering)


def _enter(lowering: Lowering, index: int, value: Value) -> None:
    """An input: used in place if it already lies as kernels want it, copied otherwise."""
    inner = lowering.image(value.type, value.name)
    channels_last = lowering.input_layout == "NHWC" and len(inner.shape) == 4
    outer = replace(inner, layout=CHANNELS_LAST if channels_last else DENSE)
    given = lowering.new(f"{value.name}@input", outer)
    lowering.fixed[given] = Address(Space.INPUT, index)
    if inner.stored == outer.stored:
        lowering.buffers[value.name] = given
        lowering.images[given] = inner
        return
    lowering.buffers[value.name] = lowering.new(value.name, inner)
    _copy(lowering, given, outer, value.name, inner, value.name)


def _leave(lowering: Lowering, index: int, value: Value) -> None:
    """An output: the kernel writes the caller's memory itself where the layouts agree."""
    buffer = lowering.buffers[value.name]
    inner = lowering.image(value.type, value.name)  # the buffer's own image may have another shape: reshapes move nothing
    outer = replace(inner, layout=DENSE)
    address = Address(Space.OUTPUT, index)
    read = any(buffer in step.reads.values() for step in lowering.steps)
    if inner.stored == outer.stored and not read and buffer not in lowering.fixed:
        lowering.fixed[buffer] = address
        return
    given = lowering.new(f"{value.name}@output{index}", outer)
    lowering.fixed[given] = address
    _copy(lowering, buffer, inner, given, outer, value.name)


def _copy(lowering: Lowering, source: str, a: Image, result: str, b: Image, layer: str) -> None:
    """Change of layout alone."""
    if a.layout == CHANNELS_LAST:  # pixels become samples of channels alone
        n, channels, height, width = a.shape
        shape = (n * height * width, channels)
        spec = CopySpec(shape, shape, DENSE, PHYSICAL, a.dtype, (0, 0), (1, 1))
    else:
        rank = len(a.shape)
        spec = CopySpec(a.shape, b.shape, a.layout, b.layout, a.dtype, (0,) * rank, (1,) * rank)
    lowering.steps.append(Step(spec, f"{layer} (layout)", {"x": source}, result, {"scalars": lowering.scalars({})}))


def _place(lowering: Lowering) -> StepPlan:
    last: dict[str, int] = {}
    first: dict[str, int] = {}
    for index, step in enumerate(lowering.steps):
        first.setdefault(step.writes, index)
        for name in (*step.reads.values(), step.writes):
            last[name] = index
    owner = _in_place(lowering, last)
    lifetimes: dict[str, Lifetime] = {}
    for name, begin in first.items():
        root = owner.get(name, name)
        if root in lowering.fixed:
            continue
        size, known = lowering.images[name].size, lifetimes.get(root)
        begin, end = (begin, last[name]) if known is None else (min(known.first, begin), max(known.last, last[name]))
        lifetimes[root] = Lifetime(size, begin, end)
    plan = plan_memory(lifetimes)
    addresses = {
        name: Address(Space.WORKSPACE, plan.offsets[owner.get(name, name)])
        for name in first
        if owner.get(name, name) in plan.offsets
    }
    addresses.update(lowering.fixed)
    return StepPlan(tuple(lowering.steps), addresses, plan.size, plan.largest_live)


def _in_place(lowering: Lowering, last: Mapping[str, int]) -> dict[str, str]:
    """Results that take the place of an operand which dies there: buffer -> the buffer whose memory it uses."""
    owner: dict[str, str] = {}
    for index, step in enumerate(lowering.steps):
        for argument in replaceable(step.spec):
            name = step.reads.get(argument)
            if name is None or name in lowering.fixed or step.writes in lowering.fixed or last[name] != index:
                continue
            old, new = lowering.images[name], lowering.images[step.writes]
            if (old.dtype, old.elements) != (new.dtype, new.elements):
                continue
            if any(other == name for key, other in step.reads.items() if key != argument):
                continue
            owner[step.writes] = owner.get(name, name)
            break
    return owner


def _call(step: Step, addresses: Mapping[str, Address], made: tuple[str, Kernel], constants: ConstantPool) -> Call:
    symbol, kernel = made
    known = {**step.constants, **{name: constants.add(data) for name, data in kernel.constants.items()}}
    if step.weights is not None:
        codes, bias = step.weights
        assert kernel.pack is not None
        known["weights"] = constants.add(kernel.pack(codes), weight_codes=True)
        start = kernel.adjust_bias(bias, codes) if kernel.adjust_bias is not None else bias
        padded = np.zeros(physical_channels(len(bias)), dtype=np.int32)
        padded[: len(start)] = start
        known["bias"] = constants.add(padded)
    known.update({argument: addresses[name] for argument, name in step.reads.items()})
    known["y"] = addresses[step.writes]
    ignored = (known.keys() - {"scalars"}) - set(kernel.arguments)
    if ignored:
        raise InternalError(f"{step.layer}: the kernel has no place for {', '.join(sorted(ignored))}: {step.spec}")
    alone = work(step.spec) < LEAST_SHARED_WORK
    return Call(symbol, tuple(known[name] for name in kernel.arguments), kernel.tasks, step.layer, alone)
