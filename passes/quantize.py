"""From allocated float layers to the integer graph: codes, accumulators, requantizations.

Each convolution and linear layer becomes an int32 accumulator and a requantization that also applies the layer's clamp.
An addition whose operand is such an accumulator that nothing else reads takes it as it is: ``requantize_add`` rounds once.
Network outputs are codes of ``output_bits`` bits; where other layers read such a value too, they get it as 8-bit codes.

Before:
    const %w: f32[8,3,1,1] bits=8 = ...
    %y: f32[N,8,4,4] range=(0x0p+0, 0x1p+2) bits=8 = conv2d(%x, %w, %b, clamp=(0x0p+0, inf), ...)  # conv
After:
    const %y.weight: i8[8,3,1,1] scale=[...] = ...
    const %y.bias: i32[8] = ...
    const %y.multiplier: i32[8] = ...
    %y.sum: i32[N,8,4,4] = conv2d(%x, %y.weight, %y.bias, ...)  # conv
    %y: u8[N,8,4,4] scale=0x1.010101p-6 zero=0 = requantize(%y.sum, %y.multiplier, limits=(0, 255), shift=38)  # conv

Errors: QUANT001 an operand of an operator must not be a constant or must be one, QUANT002 an operator has no integer form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from qcompiler import arith
from qcompiler.errors import CompileError
from qcompiler.ir.dtypes import I32, IntegerType
from qcompiler.ir.graph import WEIGHTED, Array, Constant, Graph, Node, Stage, TensorType, Value
from qcompiler.ops.pooling import counted_taps
from qcompiler.passes.activation_classes import MOVES, activation_classes
from qcompiler.passes.weight_codes import weight_codes

HEADROOM: Final = 4.0  # of wide outputs over the calibrated range: 16 bits have precision to spare, saturated logits tie
SMALLEST_RANGE: Final = 2.0**-20
ADD_MULTIPLIER_BITS: Final = 21  # 9-bit differences times 21 bits, twice, and the rounding term fit int32
ADD_MAXIMUM_SHIFT: Final = 29


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

    def limits(self, clamp: tuple[float, float] | None) -> tuple[int, int]:
        """The smallest and largest output code under a float clamp."""
        low, high = clamp or (-math.inf, math.inf)
        return self.code(low), self.code(high)


def affine_codes(low: float, high: float, bits: int) -> Codes:
    """Unsigned codes with a zero point for ``low <= 0 <= high``."""
    dtype = IntegerType(bits, signed=False)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, SMALLEST_RANGE) / dtype.maximum
    return Codes(dtype, scale, min(max(math.floor(-low / scale + 0.5), 0), dtype.maximum))


def wide_codes(low: float, high: float, bits: int) -> Codes:
    """Signed codes with zero point 0 and headroom, for outputs of 16 or 32 bits."""
    dtype = IntegerType(bits, signed=True)
    return Codes(dtype, max(-low, high, SMALLEST_RANGE) * HEADROOM / dtype.maximum, 0)


@dataclass(frozen=True)
class Quantize:
    """``output_bits``: 8, 16 or 32."""

    output_bits: int = 16
    name: str = "quantize"
    requires: Stage = Stage.ALLOCATED
    gives: Stage = Stage.INTEGER

    def __call__(self, graph: Graph) -> Graph:
        return _Quantizer(graph, self.output_bits).run()


def choose_codes(graph: Graph, output_bits: int) -> dict[str, Codes]:
    """The codes of every value: one choice per class; a class that only leaves the network is wide."""
    chosen: dict[str, Codes] = {}
    for group in activation_classes(graph):
        ranges = [r for r in (graph.values[name].range for name in group) if r is not None]
        low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
        computed = all(name in graph.producer for name in group)
        read = any(node.op not in MOVES for name in group for node in graph.consumers[name])
        leaves = any(name in graph.outputs for name in group)
        if leaves and computed and not read and output_bits > 8:
            codes = wide_codes(low, high, output_bits)
        else:
            codes = affine_codes(low, high, graph.values[group[0]].bits or 8)
        chosen.update(dict.fromkeys(group, codes))
    return chosen


@dataclass
class _Quantizer:
    graph: Graph
    output_bits: int
    codes: dict[str, Codes] = field(init=False)
    nodes: list[Node] = field(default_factory=list, init=False)
    constants: dict[str, Constant] = field(default_factory=dict, init=False)
    units: dict[str, Array] = field(default_factory=dict, init=False)  # real value of 1 in a layer's accumulators, float64[O]

    def __post_init__(self) -> None:
        self.codes = choose_codes(self.graph, self.output_bits)

    def run(self) -> Graph:
        fused = dict(filter(None, map(self._fused_operand, self.graph.nodes)))  # accumulator's name -> its addition
        for node in self.graph.nodes:
            match node.op:
                case "conv2d" | "linear":
                    self._accumulate(node)
                    if node.output.name not in fused:
                        self._requantize(node)
                case "add" if node.output.name in fused.values():
                    self._requantize_add(node, next(name for name in node.inputs if fused.get(name) == node.output.name))
                case "add":
                    self._add(node)
                case "average_pool2d":
                    self._average(node)
                case "clip":
                    self._rescale(node, node.inputs[0], self._coded(node.output), node["clamp"])
                case "max_pool2d" | "reshape" | "slice":
                    self.nodes.append(replace(node, outputs=(self._coded(node.output),)))
                case "pad":
                    code = self.codes[node.output.name].code(node["value"])
                    self.nodes.append(replace(node, outputs=(self._coded(node.output),)).with_attributes(value=None, code=code))
                case _:
                    raise CompileError(
                        "QUANT002", node.origin or node.output.name, f"{node.op} has no integer form", "replace the layer"
                    )
        outputs = tuple(self._output(name) for name in self.graph.outputs)
        inputs = tuple(map(self._coded, self.graph.inputs))
        integer = replace(self.graph, stage=Stage.INTEGER, inputs=inputs, outputs=outputs)
        return integer.with_nodes(self.nodes, self.constants.values())

    def _coded(self, value: Value) -> Value:
        codes = self.codes[value.name]
        return Value(value.name, TensorType(codes.dtype, value.type.shape), scale=codes.scale, zero=codes.zero)

    def _constant(self, name: str, data: Array, dtype: IntegerType = I32, scale: Array | None = None) -> str:
        data = np.ascontiguousarray(data, dtype=dtype.container)
        self.constants[name] = Constant(name, TensorType(dtype, tuple(data.shape)), data, scale=scale)
        return name

    def _operand(self, node: Node, index: int, constant: bool) -> str:
        name = node.inputs[index]
        if (name in self.graph.constant) != constant:
            kind = "a constant" if constant else "computed from the input"
            raise CompileError(
                "QUANT001",
                node.origin or node.output.name,
                f"operand {index} of {node.op} must be {kind}",
                "give weights as parameters; additions of constants must be one number per channel",
            )
        return name

    def _fused_operand(self, node: Node) -> tuple[str, str] | None:
        """The operand of an addition that can stay an accumulator, with the addition's name: the one computed last."""
        if node.op != "add" or len(set(node.inputs)) != 2:
            return None
        order = [n.output.name for n in self.graph.nodes]
        fit = [
            name
            for name in node.inputs
            if (source := self.graph.producer.get(name)) is not None
            and source.op in WEIGHTED
            and source.get("clamp") is None
            and self.graph.uses(name) == 1
            and all(self.graph.type_of(i) == node.output.type for i in node.inputs)
        ]
        return (max(fit, key=order.index), node.output.name) if fit else None

    def _accumulate(self, node: Node) -> None:
        """Emit the sums of a layer and note what one unit of them is worth."""
        name = node.output.name
        x = self._operand(node, 0, constant=False)
        weight = self.graph.constant[self._operand(node, 1, constant=True)]
        bias = self.graph.constant[self._operand(node, 2, constant=True)].data if len(node.inputs) == 3 else None
        codes, bits = self.codes[x], weight.bits or 8
        found = weight_codes(weight.data, bias, bits, codes.scale, codes.zero, codes.dtype.maximum)
        inputs = (
            x,
            self._constant(f"{name}.weight", found.codes, IntegerType(bits, signed=True), found.scale),
            self._constant(f"{name}.bias", found.bias),
        )
        total = Value(f"{name}.sum", TensorType(I32, node.output.type.shape))
        self.nodes.append(replace(node, inputs=inputs, outputs=(total,)).with_attributes(clamp=None, bias_corrected=None))
        self.units[name] = found.scale * codes.scale

    def _requantize(self, node: Node) -> None:
        name, codes = node.output.name, self.codes[node.output.name]
        multiplier, shift = arith.dyadic(self.units[name] / codes.scale, arith.MULTIPLIER_BITS)
        inputs = (f"{name}.sum", self._constant(f"{name}.multiplier", multiplier))
        attributes = (("limits", codes.limits(node.get("clamp"))), ("shift", shift))
        self.nodes.append(Node("requantize", inputs, (self._coded(node.output),), attributes, node.origin))

    def _requantize_add(self, node: Node, accumulated: str) -> None:
        codes = self.codes[node.output.name]
        (other,) = (i for i in node.inputs if i != accumulated)
        factors = np.append(self.units[accumulated], self.codes[other].scale) / codes.scale
        multiplier, shift = arith.dyadic(factors, arith.MULTIPLIER_BITS)
        inputs = (f"{accumulated}.sum", self._constant(f"{accumulated}.multiplier", multiplier[:-1]), other)
        attributes = (
            ("limits", codes.limits(node.get("clamp"))),
            ("other_multiplier", int(multiplier[-1])),
            ("shift", shift),
        )
        self.nodes.append(Node("requantize_add", inputs, (self._coded(node.output),), attributes, node.origin))

    def _add(self, node: Node) -> None:
        codes = self.codes[node.output.name]
        operands = [self._operand(node, index, constant=False) for index in (0, 1)]
        if self.graph.type_of(operands[0]).shape != self.graph.type_of(operands[1]).shape:
            shapes = " and ".join(str(self.graph.type_of(name)) for name in operands)
            raise CompileError(
                "QUANT002", node.origin or node.output.name, f"add of {shapes} broadcasts", "add tensors of equal shapes"
            )
        factors = np.array([self.codes[name].scale for name in operands]) / codes.scale
        multipliers, shift = arith.dyadic(factors, ADD_MULTIPLIER_BITS, ADD_MAXIMUM_SHIFT)
        attributes = (
            ("limits", codes.limits(node.get("clamp"))),
            ("multipliers", tuple(map(int, multipliers))),
            ("shift", shift),
        )
        self.nodes.append(Node("add", node.inputs, (self._coded(node.output),), attributes, node.origin))

    def _average(self, node: Node) -> None:
        x, codes = self.codes[node.inputs[0]], self.codes[node.output.name]
        rows, columns = counted_taps(node, self.graph.type_of(node.inputs[0]))
        counts = tuple(sorted({r * c for r in rows for c in columns}))
        multipliers, shift = arith.dyadic(x.scale / codes.scale / np.array(counts), arith.MULTIPLIER_BITS)
        changed = node.with_attributes(
            clamp=None,
            counts=counts,
            multipliers=tuple(map(int, multipliers)),
            shift=shift,
            limits=codes.limits(node.get("clamp")),
        )
        self.nodes.append(replace(changed, outputs=(self._coded(node.output),)))

    def _rescale(self, node: Node, x: str, output: Value, clamp: tuple[float, float] | None) -> None:
        assert output.scale is not None
        assert output.zero is not None
        assert isinstance(output.type.dtype, IntegerType)
        multiplier, shift = arith.dyadic(np.array([self.codes[x].scale / output.scale]), arith.MULTIPLIER_BITS)
        limits = Codes(output.type.dtype, output.scale, output.zero).limits(clamp)
        attributes = (("limits", limits), ("multiplier", int(multiplier[0])), ("shift", shift))
        self.nodes.append(Node("rescale", (x,), (output,), attributes, node.origin))

    def _output(self, name: str) -> str:
        """The value that leaves the network for the float output ``name``: wide codes, rescaled where they are not."""
        value, codes = self.graph.values[name], self.codes[name]
        if self.output_bits == 8 or codes.dtype.bits > 8:
            return name
        assert value.range is not None
        wide = wide_codes(*value.range, self.output_bits)
        leaving = Value(f"{name}.output", TensorType(wide.dtype, value.type.shape), scale=wide.scale, zero=0)
        if all(n.output.name != leaving.name for n in self.nodes):
            origin = self.graph.producer[name].origin if name in self.graph.producer else ""
            self._rescale(Node("rescale", (), (leaving,), origin=origin), name, leaving, None)
        return leaving.name
