"""Weights and biases as initializers: floats as they are, codes behind a DequantizeLinear with one scale per channel."""

from __future__ import annotations

import numpy as np

from qcompiler.errors import InternalError
from qcompiler.exporters.element_types import element_type
from qcompiler.exporters.onnx_builder import OnnxBuilder
from qcompiler.ir.dtypes import I32, FloatType, IntegerType
from qcompiler.ir.graph import Array, Constant, Graph, Node, Value


class Constants:
    """The initializers of a graph's constants, each made when it is first asked for."""

    def __init__(self, graph: Graph, builder: OnnxBuilder) -> None:
        self.graph = graph
        self.builder = builder
        self._made: dict[tuple[str, tuple[int, ...] | None], str] = {}

    def real(self, constant: Constant, shape: tuple[int, ...] | None = None) -> str:
        """The tensor with the real numbers of a constant, reshaped where a ``shape`` is given: axis 0 stays what it is."""
        key = (constant.name, shape)
        if key not in self._made:
            data = constant.data if shape is None else constant.data.reshape(shape)
            if not isinstance(constant.type.dtype, IntegerType):
                self._made[key] = self.builder.initializer(constant.name, data)
            elif constant.scale is None:
                raise InternalError(f"constant {constant.name} has codes without a scale")
            else:
                self._made[key] = self.dequantized(constant.name, data, constant.type.dtype, self.scale(constant))
        return self._made[key]

    def coded_as(self, constant: Constant, value: Value) -> str:
        """The tensor with the real numbers of a constant whose codes mean what those of ``value`` mean."""
        assert isinstance(constant.type.dtype, IntegerType)
        if value.scale is None:
            raise InternalError(f"constant {constant.name} has codes without a scale")
        return self.dequantized(constant.name, constant.data, constant.type.dtype, np.array(value.scale), value.zero or 0)

    def dequantized(self, name: str, codes: Array, dtype: IntegerType, scale: Array, zero: int = 0) -> str:
        """The tensor ``(codes - zero) * scale``; ``scale`` is float64[channels] along axis 0, or one number."""
        if scale.size == 1 and codes.shape[:1] != (1,):
            scale = scale.reshape(())
        element = element_type(dtype)
        operands = [self.builder.codes(name, codes, element), self.builder.initializer(f"{name}.scale", scale)]
        if dtype.bits <= 16:
            operands.append(self.builder.codes(f"{name}.zero", np.full(scale.shape, zero), element))
        output = self.builder.unique(f"{name}.real")
        attributes = {"axis": 0} if scale.shape else {}
        return self.builder.node("DequantizeLinear", operands, f"{name}.dequantize", output, **attributes)

    def bias(self, node: Node) -> str | None:
        """The tensor with the real bias of a layer with weights; None where it has none.

        In the integer stage as int32 codes with the scale of the accumulators, as runtimes want it.
        """
        if len(node.inputs) < 3:
            return None
        constant = self.graph.constant[node.inputs[2]]
        if isinstance(constant.type.dtype, FloatType):
            return self.real(constant)
        codes, scale = self.user_bias(node)
        if np.abs(codes).max(initial=0) > I32.maximum:
            return self.builder.initializer(constant.name, codes * scale)
        return self.dequantized(constant.name, codes, I32, scale)

    def user_bias(self, node: Node) -> tuple[Array, Array]:
        """The bias of the user's layer, int64[O] in units of the accumulators, and those units, float64[O].

        The graph's bias has two more terms: ``-zero(x) * sum(w)``, because sums are over raw codes, and the rounding term
        of a narrow requantization's first shift.
        """
        x, weight = self.graph.values[node.inputs[0]], self.graph.constant[node.inputs[1]]
        if x.scale is None or weight.scale is None:
            raise InternalError(f"the operands of %{node.output.name} have no scales")
        codes = self.graph.constant[node.inputs[2]].data.astype(np.int64)
        sums = weight.data.reshape(len(weight.data), -1).astype(np.int64).sum(axis=1)
        codes = codes + (x.zero or 0) * sums - self._rounding_term(node)
        return codes, x.scale * self.scale(weight)

    def scale(self, weight: Constant) -> Array:
        """float64[O], what a weight code is worth by the multipliers that its layer has in the library.

        They are rounded, in the narrow form to few bits for channels with little influence; so are these scales.
        """
        assert weight.scale is not None
        for layer in self.graph.consumers[weight.name]:
            x = self.graph.values[layer.inputs[0]]
            for reader in self.graph.consumers[layer.output.name]:
                if reader.op.startswith("requantize") and reader.inputs[0] == layer.output.name:
                    assert x.scale is not None
                    assert reader.output.scale is not None
                    multiplier = self.graph.constant[reader.inputs[1]].data.astype(np.float64)
                    shift = reader["shift"]
                    if reader.op.endswith("_narrow"):
                        shift = shift + self.graph.constant[reader.inputs[2]].data
                    found = np.ldexp(multiplier, -shift) * reader.output.scale / x.scale
                    return np.where(multiplier > 0, found, weight.scale)
        return weight.scale

    def _rounding_term(self, node: Node) -> Array | int:
        for reader in self.graph.consumers[node.output.name]:
            if reader.op.endswith("_narrow"):
                shift = self.graph.constant[reader.inputs[2]].data.astype(np.int64)
                return (np.int64(1) << shift) >> 1
        return 0
