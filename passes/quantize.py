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

A function of one tensor becomes a table of its input's codes, whose range is limited to where the function varies. Constants
that vary along several axes are operands of 16 bits.

Errors: QUANT001 an operand of an operator must not be a constant or must be one, QUANT002 an operator has no integer form,
QUANT003 a sum has too many terms for 32 bits, QUANT004 weights or biases are NaN or infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from qcompiler import arith
from qcompiler.errors import CompileError
from qcompiler.ir.dtypes import I16, I32, IntegerType
from qcompiler.ir.graph import (
    MOVES,
    RANKS,
    Array,
    Attribute,
    Graph,
    Node,
    Stage,
    TensorType,
    Value,
    rename_inputs,
)
from qcompiler.ir.names import Constants
from qcompiler.ops.functions import function_table, limited_expression
from qcompiler.ops.pooling import counted_taps
from qcompiler.passes.accumulators import fused_accumulators
from qcompiler.passes.activation_codes import Codes, choose_codes, represented, wide_codes
from qcompiler.passes.weight_codes import weight_codes

LARGEST_FACTOR: Final = 2.0**29  # output steps per input step: beyond it everything saturates
LARGEST_TERM: Final = 2.0**27  # output steps that one operand of an addition may be worth


@dataclass(frozen=True)
class Quantize:
    """``output_bits``: 8, 16 or 32."""

    output_bits: int = 16
    name: str = "quantize"
    requires: Stage = Stage.ALLOCATED
    gives: Stage = Stage.INTEGER

    def __call__(self, graph: Graph) -> Graph:
        return _Quantizer(graph, self.output_bits).run()


def addition_multipliers(factors: Array, sizes: Array) -> tuple[Array, int]:
    """Whole multipliers and a shift (1 to 30) for ``sum(code * factor)`` with every intermediate within int32.

    ``factors`` float64: output steps per code, of any sign; ``sizes``: the largest magnitude of each operand's codes.
    """
    factors = np.clip(factors, -LARGEST_TERM / sizes, LARGEST_TERM / sizes)
    span = float((np.abs(factors) * sizes).sum()) * 1.001 + 0.5
    shift = min(math.floor(math.log2(I32.maximum / span)), 30)
    while True:
        multipliers = np.floor(np.ldexp(factors, shift) + 0.5).astype(np.int64)
        if int((np.abs(multipliers) * sizes).sum()) + (1 << (shift - 1)) <= I32.maximum or shift == 1:
            return multipliers, shift
        shift -= 1


def dyadic(factors: Array) -> tuple[Array, int]:
    """Multipliers and shift of factors that are not negative; what would saturate anyway is limited."""
    return arith.dyadic(np.minimum(factors, LARGEST_FACTOR), arith.MULTIPLIER_BITS)


@dataclass
class _Quantizer:
    graph: Graph
    output_bits: int
    codes: dict[str, Codes] = field(init=False)
    nodes: list[Node] = field(default_factory=list, init=False)
    constants: Constants = field(init=False)
    sums: dict[str, str] = field(default_factory=dict, init=False)  # the accumulators of a layer, by the layer's value
    units: dict[str, Array] = field(default_factory=dict, init=False)  # real value of 1 in a layer's accumulators, float64[O]
    renames: dict[str, str] = field(default_factory=dict, init=False)  # results of quantizers that change nothing

    def __post_init__(self) -> None:
        self.codes = choose_codes(self.graph, self.output_bits)
        self.constants = Constants(self.graph)
        for node in self.graph.nodes:
            if node.op not in MOVES:  # theirs are indices; everything else becomes codes
                self.constants.release(node)

    def run(self) -> Graph:
        fused = fused_accumulators(self.graph)
        for node in self.graph.nodes:
            node = rename_inputs(node, self.renames)
            match node.op:
                case "conv2d" | "linear":
                    self._accumulate(node)
                    if node.output.name not in fused:
                        self._requantize(node)
                case "add" if node.output.name in fused.values():
                    self._requantize_add(node, next(name for name in node.inputs if fused.get(name) == node.output.name))
                case "add" | "sub" | "maximum" | "minimum":
                    self._add(node)
                case "mul" | "matmul":
                    self._multiply(node)
                case "average_pool2d":
                    self._average(node)
                case "sum":
                    self._sum(node)
                case "prelu":
                    self._prelu(node)
                case "quantizer" if self._is_idle(node):
                    self.renames[node.output.name] = node.inputs[0]
                case "clip" | "identity" | "quantizer":
                    self._rescale(node, node.inputs[0], self._coded(node.output), node.get("clamp"))
                case "function":
                    self._lookup(node)
                case "concat":
                    self._concat(node)
                case "embedding":
                    self._embedding(node)
                case "resize_linear":
                    self._resize(node)
                case op if op in (*MOVES, *RANKS):
                    self._move(node)
                case _:
                    raise CompileError(
                        "QUANT002", node.origin or node.output.name, f"{node.op} has no integer form", "replace the layer"
                    )
        leaving = {name: self._output(self.renames.get(name, name)) for name in dict.fromkeys(self.graph.outputs)}
        inputs = tuple(map(self._coded, self.graph.inputs))
        outputs = tuple(leaving[name] for name in self.graph.outputs)
        integer = replace(self.graph, stage=Stage.INTEGER, inputs=inputs, outputs=outputs)
        return integer.with_nodes(self.nodes, self.constants.values())

    def _coded(self, value: Value) -> Value:
        codes = self.codes[value.name]
        return Value(value.name, TensorType(codes.dtype, value.type.shape), scale=codes.scale, zero=codes.zero)

    def _constant(self, stem: str, data: Array, dtype: IntegerType = I32, scale: Array | None = None) -> str:
        return self.constants.add(stem, data, dtype, scale).name

    def _operand(self, node: Node, index: int, constant: bool) -> str:
        name = node.inputs[index]
        if (name in self.graph.constant) != constant:
            kind = "a constant" if constant else "computed from the input"
            raise CompileError(
                "QUANT001",
                node.origin or node.output.name,
                f"operand {index} of {node.op} must be {kind}",
                "give weights as parameters of the model",
            )
        return name

    def _is_idle(self, node: Node) -> bool:
        """Whether the operand of a quantizer has its codes already, and none beyond its limits."""
        codes, source = self.codes[node.output.name], self.graph.producer.get(node.inputs[0])
        if codes != self.codes[node.inputs[0]]:
            return False
        low, high = codes.limits(None if source is None else source.get("clamp"))
        least, most = codes.limits(node["clamp"])
        return least <= low and high <= most

    def _accumulate(self, node: Node) -> None:
        """Emit the sums of a layer and note what one unit of them is worth."""
        name = node.output.name
        x = self._operand(node, 0, constant=False)
        weight = self.graph.constant[self._operand(node, 1, constant=True)]
        bias = self.graph.constant[self._operand(node, 2, constant=True)].data if len(node.inputs) == 3 else None
        codes, bits = self.codes[x], weight.bits or 8
        for what, data in (("weights", weight.data), ("biases", bias)):
            if data is not None and not np.isfinite(data).all():
                problem = f"{int((~np.isfinite(data)).sum())} of its {data.size} {what} are NaN or infinite"
                raise CompileError("QUANT004", node.origin or name, problem, "repair the model's parameters")
        found = weight_codes(weight.data, bias, bits, codes.scale, codes.zero, codes.dtype.maximum, weight.scale)
        inputs = (
            x,
            self._constant(f"{name}.weight", found.codes, IntegerType(bits, signed=True), found.scale),
            self._constant(f"{name}.bias", found.bias),
        )
        total = Value(self.constants.fresh(f"{name}.sum"), TensorType(I32, node.output.type.shape))
        self.sums[name] = total.name
        self.nodes.append(replace(node, inputs=inputs, outputs=(total,)).with_attributes(clamp=None, bias_corrected=None))
        self.units[name] = found.scale * codes.scale

    def _requantize(self, node: Node) -> None:
        name, codes = node.output.name, self.codes[node.output.name]
        multiplier, shift = dyadic(self.units[name] / codes.scale)
        inputs = (self.sums[name], self._constant(f"{name}.multiplier", multiplier))
        attributes = (("limits", codes.limits(node.get("clamp"))), ("shift", shift))
        self.nodes.append(Node("requantize", inputs, (self._coded(node.output),), attributes, node.origin))

    def _requantize_add(self, node: Node, accumulated: str) -> None:
        codes = self.codes[node.output.name]
        (other,) = (i for i in node.inputs if i != accumulated)
        factors = np.append(self.units[accumulated], self.codes[other].scale) / codes.scale
        multiplier, shift = dyadic(factors)
        inputs = (self.sums[accumulated], self._constant(f"{accumulated}.multiplier", multiplier[:-1]), other)
        attributes = (
            ("limits", codes.limits(node.get("clamp"))),
            ("other_multiplier", int(multiplier[-1])),
            ("shift", shift),
        )
        self.nodes.append(Node("requantize_add", inputs, (self._coded(node.output),), attributes, node.origin))

    def _binary_operands(self, node: Node) -> tuple[tuple[str, ...], list[float], list[int]]:
        """Names, scales and the largest codes of two operands, of which one may be a constant."""
        names, scales, sizes = [], [], []
        for name in node.inputs:
            if name in self.graph.constant:
                name, scale = self._constant_operand(node, name)
                size = I16.maximum
            else:
                codes = self.codes[name]
                scale, size = codes.scale, max(codes.zero - codes.dtype.minimum, codes.dtype.maximum - codes.zero)
            names.append(name)
            scales.append(scale)
            sizes.append(size)
        return tuple(names), scales, sizes

    def _constant_operand(self, node: Node, name: str) -> tuple[str, float]:
        """A constant as codes of 16 bits with the result's rank, and their scale."""
        data = self.graph.constant[name].data.astype(np.float64)
        data = data.reshape((1,) * (len(node.output.type.shape) - data.ndim) + data.shape)
        scale = represented(float(np.abs(data).max(initial=0.0))) / I16.maximum
        codes = np.floor(data / scale + 0.5)
        return self._constant(f"{node.output.name}.{name}", codes, I16, np.array([scale])), scale

    def _append(self, node: Node, op: str, inputs: tuple[str, ...], **attributes: Attribute) -> None:
        """A node that ends in a rounding, with the limits of the result's codes under the node's clamp."""
        limits = self.codes[node.output.name].limits(node.get("clamp"))
        kept = tuple((k, v) for k, v in node.attributes if k not in ("clamp", "factor", "expression"))
        made = Node(op, inputs, (self._coded(node.output),), kept, node.origin)
        self.nodes.append(made.with_attributes(limits=limits, **attributes))

    def _add(self, node: Node) -> None:
        """Sums, differences and extremes of two tensors."""
        names, scales, sizes = self._binary_operands(node)
        signs = (1.0, -1.0 if node.op == "sub" else 1.0)
        factors = np.array(scales) * signs / self.codes[node.output.name].scale
        multipliers, shift = addition_multipliers(factors, np.array(sizes))
        op = "add" if node.op == "sub" else node.op
        self._append(node, op, names, multipliers=tuple(map(int, multipliers)), shift=shift)

    def _multiply(self, node: Node) -> None:
        """Products of two tensors, element by element or as matrices."""
        names, scales, sizes = self._binary_operands(node)
        if node.op == "matmul":
            depth = self.graph.type_of(node.inputs[0]).shape[-1]
            assert isinstance(depth, int)
            self._require_room(node, depth, sizes[0] * sizes[1])
        multiplier, shift = dyadic(np.array([scales[0] * scales[1] / self.codes[node.output.name].scale]))
        self._append(node, node.op, names, multiplier=int(multiplier[0]), shift=shift)

    def _require_room(self, node: Node, terms: int, largest: int) -> None:
        if terms * largest > I32.maximum:
            problem = f"a sum of {terms} terms of up to {largest} does not fit 32 bits"
            remedy = "split it into smaller sums in the model"
            raise CompileError("QUANT003", node.origin or node.output.name, problem, remedy)

    def _sum(self, node: Node) -> None:
        x = self.codes[self._operand(node, 0, constant=False)]
        sizes = self.graph.type_of(node.inputs[0]).with_batch(1)
        self._require_room(node, math.prod(sizes[axis] for axis in node["axes"]), x.dtype.maximum - x.dtype.minimum)
        factor = node.get("factor", 1.0) * x.scale / self.codes[node.output.name].scale
        multiplier, shift = dyadic(np.array([factor]))
        self._append(node, "sum", node.inputs, multiplier=int(multiplier[0]), shift=shift)

    def _prelu(self, node: Node) -> None:
        x, name = self.codes[self._operand(node, 0, constant=False)], node.output.name
        slope = self.graph.constant[self._operand(node, 1, constant=True)].data.astype(np.float64)
        shape = node.output.type.with_batch(1)
        slope = np.broadcast_to(slope, shape[1] if len(shape) > 1 else 1)
        unit = x.scale / self.codes[name].scale
        multipliers, shift = dyadic(unit * np.append(np.abs(slope), 1.0))
        negative = self._constant(f"{name}.negative", multipliers[:-1] * np.where(slope < 0, -1, 1))
        self._append(node, "prelu", (node.inputs[0], negative), multiplier=int(multipliers[-1]), shift=shift)

    def _lookup(self, node: Node) -> None:
        x, y = self.codes[self._operand(node, 0, constant=False)], self.codes[node.output.name]
        expression = limited_expression(node)
        table = function_table(expression, x.dtype, x.scale, x.zero, y.dtype, y.scale, y.zero)
        inputs = (node.inputs[0], self._constant(f"{node.output.name}.table", table, y.dtype))
        attributes = (("expression", expression),)
        self.nodes.append(Node("lookup", inputs, (self._coded(node.output),), attributes, node.origin))

    def _concat(self, node: Node) -> None:
        """Parts with other codes than the whole are rescaled first."""
        output, codes = self._coded(node.output), self.codes[node.output.name]
        names: list[str] = []
        for index, name in enumerate(node.inputs):
            if name in self.graph.constant:
                data = np.floor(self.graph.constant[name].data.astype(np.float64) / codes.scale + 0.5) + codes.zero
                data = np.clip(data, codes.dtype.minimum, codes.dtype.maximum)
                name = self._constant(f"{node.output.name}.{name}", data, codes.dtype, np.array([codes.scale]))
            elif self.codes[name] != codes:
                type_ = TensorType(codes.dtype, self.graph.type_of(name).shape)
                part = Value(self.constants.fresh(f"{node.output.name}.part{index}"), type_, scale=codes.scale, zero=codes.zero)
                self._rescale(node, name, part, None)
                name = part.name
            names.append(name)
        self.nodes.append(replace(node, inputs=tuple(names), outputs=(output,)).with_attributes(own=None))

    def _embedding(self, node: Node) -> None:
        table, codes = self.graph.constant[self._operand(node, 1, constant=True)], self.codes[node.output.name]
        data = np.floor(table.data.astype(np.float64) / codes.scale + 0.5) + codes.zero
        data = np.clip(data, codes.dtype.minimum, codes.dtype.maximum)
        name = self._constant(f"{node.output.name}.table", data, codes.dtype, np.array([codes.scale]))
        indices = self._operand(node, 0, constant=False)
        if self.codes[indices].dtype != I32:
            problem = "the indices are computed in the model; only indices that are inputs of the model are supported"
            raise CompileError("QUANT002", node.origin or node.output.name, problem, "compute them outside of the model")
        self.nodes.append(replace(node, inputs=(indices, name), outputs=(self._coded(node.output),)))

    def _move(self, node: Node) -> None:
        """What works on codes as on floats; padding is a code, indices stay."""
        moved = replace(node, outputs=(self._coded(node.output),))
        if node.op == "pad":
            moved = moved.with_attributes(value=None, code=self.codes[node.output.name].code(node["value"]))
        self.nodes.append(moved)

    def _resize(self, node: Node) -> None:
        parts, codes = math.prod(node["denominators"]), self.codes[node.output.name]
        self._require_room(node, parts, codes.dtype.maximum - codes.dtype.minimum)
        multiplier, shift = dyadic(np.array([1.0 / parts]))
        changed = node.with_attributes(multiplier=int(multiplier[0]), shift=shift)
        self.nodes.append(replace(changed, outputs=(self._coded(node.output),)))

    def _average(self, node: Node) -> None:
        x, codes = self.codes[node.inputs[0]], self.codes[node.output.name]
        rows, columns = counted_taps(node, self.graph.type_of(node.inputs[0]))
        counts = tuple(sorted({r * c for r in rows for c in columns}))
        multipliers, shift = dyadic(x.scale / codes.scale / np.array(counts))
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
        multiplier, shift = dyadic(np.array([self.codes[x].scale / output.scale]))
        limits = Codes(output.type.dtype, output.scale, output.zero).limits(clamp)
        attributes = (("limits", limits), ("multiplier", int(multiplier[0])), ("shift", shift))
        self.nodes.append(Node("rescale", (x,), (output,), attributes, node.origin))

    def _output(self, name: str) -> str:
        """The value that leaves the network for the float output ``name``: wide codes, rescaled where they are not."""
        value, codes = self.graph.values[name], self.codes[name]
        indices = codes == Codes(I32, 1.0, 0)
        if self.output_bits == 8 or codes.dtype.bits == self.output_bits or indices:
            return name
        assert value.range is not None
        wide = wide_codes(*value.range, self.output_bits)
        type_ = TensorType(wide.dtype, value.type.shape)
        leaving = Value(self.constants.fresh(f"{name}.output"), type_, scale=wide.scale, zero=0)
        origin = self.graph.producer[name].origin if name in self.graph.producer else ""
        self._rescale(Node("rescale", (), (leaving,), origin=origin), name, leaving, None)
        return leaving.name
