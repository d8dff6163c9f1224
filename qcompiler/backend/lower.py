"""From the integer graph to a program: which kernel computes what, and where every tensor lies.

A kernel is an accumulator together with its requantization, or one of the other integer operators. Tensors of rank 4 lie as
NHWC with padded channels (``kernel.physical_channels``), those of rank 2 as one padded row; the user's layout is met by copies
at the network's ends. Kernels are built once per distinct description, for the batch tile and for the single samples left over.

Errors: LOWER001 a tensor's rank has no kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from qcompiler.backend.constants import ConstantPool
from qcompiler.backend.image import CHANNELS_LAST, DENSE, PHYSICAL, Image
from qcompiler.backend.kernel import (
    SCALARS,
    AddSpec,
    ConvolutionSpec,
    CopySpec,
    Epilogue,
    KernelSpec,
    PoolSpec,
    RescaleSpec,
    Scalar,
    physical_channels,
)
from qcompiler.backend.kernel_table import KernelTable
from qcompiler.backend.memory_plan import Lifetime, plan_memory
from qcompiler.backend.program import Address, Call, Port, Program, Space
from qcompiler.errors import CompileError, InternalError
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import BATCH, Array, Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ops.operator import zero_of
from qcompiler.ops.pooling import counted_taps
from qcompiler.progress import Progress


@dataclass
class _Step:
    """A kernel call before addresses are known; buffers are named."""

    spec: KernelSpec
    layer: str
    reads: Mapping[str, str]  # argument (x, residual) -> buffer
    writes: str
    constants: Mapping[str, Address]
    weights: tuple[Array, Array] | None = None  # codes [O, I, KH, KW] and bias, packed as the kernel wants them


def lower(
    graph: Graph,
    instruction_set: str,
    target: Mapping[str, object],
    batch_tile: int = 1,
    input_layout: str = DENSE,
    progress: Progress | None = None,
) -> Program:
    """The program of an integer graph for an instruction set; ``target`` is TVM's description of it.

    ``input_layout`` ("NCHW" or "NHWC") holds for inputs of rank 4; outputs keep the model's layout.
    """
    if graph.stage is not Stage.INTEGER:
        raise InternalError(f"lower takes an integer graph, not one of stage {graph.stage.value}")
    kernels = KernelTable(graph.name, instruction_set, target, progress)
    constants = ConstantPool()
    tiled = _Lowering(graph, batch_tile, input_layout, kernels, constants).run()
    tail = tiled if batch_tile == 1 else _Lowering(graph, 1, input_layout, kernels, constants).run()
    return Program(
        name=graph.name,
        inputs=tuple(_port(v, input_layout) for v in graph.inputs),
        outputs=tuple(_port(graph.values[name], DENSE) for name in graph.outputs),
        batch_tile=batch_tile,
        calls=tiled.calls,
        tail_calls=tail.calls,
        workspace_bytes=max(tiled.size, tail.size),
        largest_live_bytes=max(tiled.largest_live, tail.largest_live),
        weights=constants.blob(),
        weight_code_bytes=constants.weight_code_bytes,
        functions=kernels.functions(),
    )


def _port(value: Value, layout: str) -> Port:
    dtype = value.type.dtype
    assert isinstance(dtype, IntegerType)
    assert value.scale is not None
    shape = value.type.with_batch(1)[1:]
    if len(shape) == 3 and layout == "NHWC":
        shape = (shape[1], shape[2], shape[0])
    return Port(
        name=value.name,
        dtype=dtype.container.name,
        bits=dtype.bits,
        shape=shape,
        layout=layout if len(shape) == 3 else "",
        scale=value.scale,
        zero=value.zero or 0,
    )


@dataclass(frozen=True)
class _Lowered:
    calls: tuple[Call, ...]
    size: int
    largest_live: int


@dataclass
class _Lowering:
    """One walk over the graph for one batch size."""

    graph: Graph
    batch: int
    input_layout: str
    kernels: KernelTable
    constants: ConstantPool
    steps: list[_Step] = field(default_factory=list)
    images: dict[str, Image] = field(default_factory=dict)  # by buffer
    fixed: dict[str, Address] = field(default_factory=dict)  # buffers that are the caller's memory
    buffers: dict[str, str] = field(default_factory=dict)  # value -> the buffer that holds it

    def run(self) -> _Lowered:
        for index, value in enumerate(self.graph.inputs):
            self._enter(index, value)
        for node in self.graph.nodes:
            self._emit(node)
        for index, name in enumerate(self.graph.outputs):
            self._leave(index, self.graph.values[name])
        return self._plan()

    # Where values lie

    def _image(self, type_: TensorType, where: str, layout: str | None = None) -> Image:
        shape = type_.with_batch(self.batch)
        if layout is None:
            if len(shape) not in (2, 4) or type_.shape[0] != BATCH:
                problem = f"{type_} has rank {len(shape)}; kernels exist for [N, C, H, W] and [N, F]"
                raise CompileError("LOWER001", where, problem, "reshape the tensor to rank 2 or 4 in the model")
            layout = PHYSICAL
        return Image(shape, type_.dtype.container.name, layout)

    def _new(self, buffer: str, image: Image) -> str:
        self.images[buffer] = image
        return buffer

    def _enter(self, index: int, value: Value) -> None:
        """An input: used in place if it already lies as kernels want it, copied otherwise."""
        inner = self._image(value.type, value.name)
        channels_last = self.input_layout == "NHWC" and len(inner.shape) == 4
        outer = replace(inner, layout=CHANNELS_LAST if channels_last else DENSE)
        given = self._new(f"{value.name}@input", outer)
        self.fixed[given] = Address(Space.INPUT, index)
        if inner.stored == outer.stored:
            self.buffers[value.name] = given
            self.images[given] = inner
            return
        self.buffers[value.name] = self._new(value.name, inner)
        self._copy(given, self.buffers[value.name], value.name)

    def _leave(self, index: int, value: Value) -> None:
        """An output: the kernel writes the caller's memory itself where the layouts agree."""
        buffer = self.buffers[value.name]
        inner = self.images[buffer]
        outer = replace(inner, layout=DENSE, shape=value.type.with_batch(self.batch))
        address = Address(Space.OUTPUT, index)
        read = any(buffer in step.reads.values() for step in self.steps)
        if inner.stored == outer.stored and not read and buffer not in self.fixed:
            self.fixed[buffer] = address
            return
        given = self._new(f"{value.name}@output{index}", outer)
        self.fixed[given] = address
        self._copy(buffer, given, value.name)

    # Kernels

    def _emit(self, node: Node) -> None:
        match node.op:
            case "conv2d" | "linear":
                return  # with its requantization
            case "requantize" | "requantize_narrow" | "requantize_add" | "requantize_add_narrow":
                self._convolution(node)
            case "add":
                self._add(node)
            case "rescale":
                self._rescale(node)
            case "max_pool2d" | "average_pool2d":
                self._pool(node)
            case "pad" | "slice" | "reshape":
                self._move(node)
            case _:
                raise InternalError(f"%{node.output.name} = {node.op} has no kernel")

    def _step(
        self, node: Node, spec: KernelSpec, reads: Mapping[str, str], scalars: Mapping[Scalar, int], **more: Address
    ) -> _Step:
        buffer = self._new(node.output.name, self._image(node.output.type, node.origin or node.output.name))
        self.buffers[node.output.name] = buffer
        constants = {"scalars": self._scalars(scalars), **more}
        step = _Step(spec, node.origin or node.output.name, {a: self.buffers[v] for a, v in reads.items()}, buffer, constants)
        self.steps.append(step)
        return step

    def _scalars(self, values: Mapping[Scalar, int]) -> Address:
        data = np.zeros(SCALARS, dtype=np.int32)
        for place, value in values.items():
            data[place] = value
        return self.constants.add(data)

    def _requantization(self, node: Node) -> dict[Scalar, int]:
        lo, hi = node["limits"]
        return {Scalar.SHIFT: node["shift"], Scalar.Y_ZERO: node.output.zero or 0, Scalar.LO: lo, Scalar.HI: hi}

    def _channel_constant(self, constant: Constant) -> Address:
        data = np.zeros(physical_channels(len(constant.data)), dtype=np.int32)
        data[: len(constant.data)] = constant.data
        return self.constants.add(data)

    def _convolution(self, node: Node) -> None:
        sums = self.graph.producer[node.inputs[0]]
        x = self.graph.values[sums.inputs[0]]
        weight = self.graph.constant[sums.inputs[1]]
        narrow, residual = node.op.endswith("narrow"), node.op.startswith("requantize_add")
        other = self.graph.values[node.inputs[-1]] if residual else None
        epilogue = Epilogue(
            narrow, None if other is None else other.type.dtype.container.name, node.output.type.dtype.container.name
        )
        assert isinstance(weight.type.dtype, IntegerType)
        shape = self._image(x.type, sums.origin).shape
        space = shape[2:] or (1, 1)
        codes = weight.data.reshape(*weight.data.shape[:2], *(weight.data.shape[2:] or (1, 1)))
        spec = ConvolutionSpec(
            batch=self.batch,
            height=space[0],
            width=space[1],
            in_channels=shape[1],
            out_channels=len(codes),
            kernel=(codes.shape[2], codes.shape[3]),
            strides=sums.get("strides", (1, 1)),
            padding=sums.get("padding", (0, 0, 0, 0)),
            dilation=sums.get("dilation", (1, 1)),
            groups=sums.get("groups", 1),
            weight_bits=weight.type.dtype.bits,
            epilogue=epilogue,
        )
        scalars = {**self._requantization(node), Scalar.X_ZERO: zero_of(x)}
        reads = {"x": x.name}
        if other is not None:
            reads["residual"] = other.name
            scalars[Scalar.RESIDUAL_ZERO] = zero_of(other)
            scalars[Scalar.RESIDUAL_MULTIPLIER] = node["other_multiplier"]
        names = ("multiplier", "pre_shift", "lower", "upper")
        per_channel = [self.graph.constant[name] for name in node.inputs[1 : len(node.inputs) - residual]]
        more = {name: self._channel_constant(c) for name, c in zip(names, per_channel, strict=False)}
        step = self._step(node, spec, reads, scalars, **more)
        bias = self.graph.constant[sums.inputs[2]].data if len(sums.inputs) == 3 else np.zeros(len(codes), dtype=np.int32)
        step.weights = (codes, bias)

    def _add(self, node: Node) -> None:
        a, b = (self.graph.values[name] for name in node.inputs)
        image = self._image(node.output.type, node.origin)
        spec = AddSpec(image.elements, a.type.dtype.container.name, b.type.dtype.container.name, image.dtype)
        scalars = {
            **self._requantization(node),
            Scalar.X_ZERO: zero_of(a),
            Scalar.X_MULTIPLIER: node["multipliers"][0],
            Scalar.RESIDUAL_ZERO: zero_of(b),
            Scalar.RESIDUAL_MULTIPLIER: node["multipliers"][1],
        }
        self._step(node, spec, {"x": a.name, "residual": b.name}, scalars)

    def _rescale(self, node: Node) -> None:
        x = self.graph.values[node.inputs[0]]
        image = self._image(node.output.type, node.origin)
        spec = RescaleSpec(image.elements, x.type.dtype.container.name, image.dtype)
        scalars = {**self._requantization(node), Scalar.X_ZERO: zero_of(x), Scalar.X_MULTIPLIER: node["multiplier"]}
        self._step(node, spec, {"x": x.name}, scalars)

    def _pool(self, node: Node) -> None:
        x = self.graph.values[node.inputs[0]]
        source, result = self._image(x.type, node.origin), self._image(node.output.type, node.origin)
        average = node.op == "average_pool2d"
        spec = PoolSpec(
            kind="average" if average else "max",
            batch=self.batch,
            height=source.shape[2],
            width=source.shape[3],
            channels=source.shape[1],
            out_height=result.shape[2],
            out_width=result.shape[3],
            kernel=node["kernel"],
            strides=node["strides"],
            padding=node["padding"],
            dilation=(1, 1) if average else node["dilation"],
            in_dtype=source.dtype,
            out_dtype=result.dtype,
            counts=counted_taps(node, x.type) if average else ((), ()),
        )
        if not average:
            self._step(node, spec, {"x": x.name}, {})
            return
        table = np.zeros(max(node["counts"]) + 1, dtype=np.int32)
        table[list(node["counts"])] = node["multipliers"]
        scalars = {**self._requantization(node), Scalar.X_ZERO: zero_of(x)}
        self._step(node, spec, {"x": x.name}, scalars, multiplier=self.constants.add(table))

    def _move(self, node: Node) -> None:
        """Pad, slice and reshape; a reshape that leaves every byte in place costs nothing."""
        x = self.buffers[node.inputs[0]]
        source, result = self.images[x], self._image(node.output.type, node.origin)
        if node.op == "reshape" and source.layout == PHYSICAL and source.stored == result.stored and _one_row(source, result):
            self.buffers[node.output.name] = x
            return
        rank = len(source.shape)
        starts, steps, fill = [0] * rank, [1] * rank, 0
        if node.op == "slice":
            for axis, start, step in zip(node["axes"], node["starts"], node["steps"], strict=True):
                starts[axis], steps[axis] = start, step
        elif node.op == "pad":
            starts, fill = [-before for before in node["before"]], node["code"]
        spec = CopySpec(source.shape, result.shape, source.layout, result.layout, result.dtype, tuple(starts), tuple(steps))
        if node.op == "reshape":
            spec = replace(spec, starts=(), steps=(), reshape=True)
        self._step(node, spec, {"x": node.inputs[0]}, {Scalar.X_ZERO: fill})

    def _copy(self, source: str, result: str, layer: str) -> None:
        """Change of layout alone."""
        a, b = self.images[source], self.images[result]
        if a.layout == CHANNELS_LAST:  # pixels become samples of channels alone
            n, channels, height, width = a.shape
            shape = (n * height * width, channels)
            spec = CopySpec(shape, shape, DENSE, PHYSICAL, a.dtype, (0, 0), (1, 1))
        else:
            rank = len(a.shape)
            spec = CopySpec(a.shape, b.shape, a.layout, b.layout, a.dtype, (0,) * rank, (1,) * rank)
        self.steps.append(_Step(spec, f"{layer} (layout)", {"x": source}, result, {"scalars": self._scalars({})}))

    # Addresses

    def _plan(self) -> _Lowered:
        last: dict[str, int] = {}
        first: dict[str, int] = {}
        for index, step in enumerate(self.steps):
            first.setdefault(step.writes, index)
            for name in (*step.reads.values(), step.writes):
                last[name] = index
        owner = self._in_place(last)
        lifetimes: dict[str, Lifetime] = {}
        for name, begin in first.items():
            root = owner.get(name, name)
            if root in self.fixed:
                continue
            size, known = self.images[name].size, lifetimes.get(root)
            begin, end = (begin, last[name]) if known is None else (min(known.first, begin), max(known.last, last[name]))
            lifetimes[root] = Lifetime(size, begin, end)
        plan = plan_memory(lifetimes)
        addresses = {
            name: Address(Space.WORKSPACE, plan.offsets[owner.get(name, name)])
            for name in first
            if owner.get(name, name) in plan.offsets
        }
        addresses.update(self.fixed)
        calls = tuple(self._call(step, addresses) for step in self.steps)
        return _Lowered(calls, plan.size, plan.largest_live)

    def _in_place(self, last: Mapping[str, int]) -> dict[str, str]:
        """Results that take the place of an operand which dies there: buffer -> the buffer whose memory it uses."""
        owner: dict[str, str] = {}
        for index, step in enumerate(self.steps):
            if isinstance(step.spec, ConvolutionSpec):
                candidates: tuple[str, ...] = ("residual",)
            elif isinstance(step.spec, AddSpec | RescaleSpec):
                candidates = ("x", "residual")
            else:
                continue
            for argument in candidates:
                name = step.reads.get(argument)
                if name is None or name in self.fixed or step.writes in self.fixed or last[name] != index:
                    continue
                if self.images[name].stored != self.images[step.writes].stored:
                    continue
                if any(other == name for key, other in step.reads.items() if key != argument):
                    continue
                owner[step.writes] = owner.get(name, name)
                break
        return owner

    def _call(self, step: _Step, addresses: Mapping[str, Address]) -> Call:
        symbol, kernel = self.kernels.get(step.spec)
        known = dict(step.constants)
        if step.weights is not None:
            codes, bias = step.weights
            assert kernel.pack is not None
            known["weights"] = self.constants.add(kernel.pack(codes), weight_codes=True)
            start = kernel.adjust_bias(bias, codes) if kernel.adjust_bias is not None else bias
            padded = np.zeros(physical_channels(len(bias)), dtype=np.int32)
            padded[: len(start)] = start
            known["bias"] = self.constants.add(padded)
        known.update({argument: addresses[name] for argument, name in step.reads.items()})
        known["y"] = addresses[step.writes]
        return Call(symbol, tuple(known[name] for name in kernel.arguments), kernel.tasks, step.layer)


def _one_row(source: Image, result: Image) -> bool:
    """Whether both are one row of channels a sample, so that a reshape moves nothing."""
    return source.shape[1] == result.shape[1] and all(size == 1 for size in (*source.shape[2:], *result.shape[2:]))
