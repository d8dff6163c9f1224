"""Collects the nodes and initializers of an ONNX graph, with names that are free, and the operator set that they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.exporters.element_types import ElementType
from qcompiler.ir.graph import BATCH, Array, Dim

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

OLDEST_OPSET: Final = 13
"""The first operator set with a quantization axis."""


class OnnxBuilder:
    """The graph so far.

    ``opset`` is the operator set that nodes are written for; ``needed`` the one that they turned out to need. Where it is
    higher the graph has to be written again: some operators take as an operand what was an attribute before.
    """

    def __init__(self, taken: Iterable[str], opset: int) -> None:
        self.opset = opset
        self.needed = OLDEST_OPSET
        self._taken = set(taken)
        self._node_names: set[str] = set()
        self._nodes: list[NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def require(self, opset: int) -> None:
        """Note that something needs this operator set."""
        self.needed = max(self.needed, opset)

    def unique(self, name: str) -> str:
        """``name``, or one like it that no tensor has."""
        unique, count = name, 0
        while unique in self._taken:
            count += 1
            unique = f"{name}_{count}"
        self._taken.add(unique)
        return unique

    def node(self, op: str, inputs: Sequence[str], name: str, *outputs: str, **attributes: Any) -> str:
        """Append a node; the caller has made sure of its output tensors' names. Gives that of the last."""
        from onnx import helper

        unique, count = name, 0
        while unique in self._node_names:
            count += 1
            unique = f"{name}_{count}"
        self._node_names.add(unique)
        self._nodes.append(helper.make_node(op, list(inputs), list(outputs), name=unique, **attributes))
        return outputs[-1]

    def rename_last(self, tensor: str, name: str) -> bool:
        """Call ``tensor`` by another name if the node that was appended last makes it; whether it does."""
        if not self._nodes or self._nodes[-1].output[0] != tensor:
            return False
        self._nodes[-1].output[0] = name
        return True

    def initializer(self, name: str, data: Any, dtype: Any = np.float32) -> str:
        """A constant of a numpy type; gives the name it got."""
        from onnx import numpy_helper

        unique = self.unique(name)
        self._initializers.append(numpy_helper.from_array(np.array(data, dtype=dtype, order="C"), unique))
        return unique

    def codes(self, name: str, codes: Array, element: ElementType) -> str:
        """A constant of integer codes, packed where an element is narrower than a byte; gives the name it got."""
        from onnx import helper

        self.require(element.opset)
        unique = self.unique(name)
        content = element.packed(codes)
        self._initializers.append(helper.make_tensor(unique, element.onnx, list(codes.shape), content, raw=True))
        return unique

    def input(self, name: str, element: int, shape: Sequence[Dim]) -> None:
        """Declare an input of the graph; the batch is called N."""
        self._inputs.append(_port(name, element, shape))

    def output(self, name: str, element: int, shape: Sequence[Dim]) -> None:
        """Declare an output of the graph."""
        self._outputs.append(_port(name, element, shape))

    def finish(self, name: str) -> ModelProto:
        """The model; QuantizeLinear and its kind are of the default domain, so there is no other."""
        from importlib.metadata import version

        from onnx import helper

        opsets = [helper.make_opsetid("", self.opset)]
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers)
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="qcompiler",
            producer_version=version("qcompiler"),
        )


def _port(name: str, element: int, shape: Sequence[Dim]) -> ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, element, ["N" if d == BATCH else d for d in shape])
