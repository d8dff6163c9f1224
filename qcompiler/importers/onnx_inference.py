"""The types that ONNX's own shape inference gives the results of one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qcompiler.importers.builder import Known
from qcompiler.importers.onnx_external import SMALL
from qcompiler.ir.graph import BATCH, Array, Dim, Value

if TYPE_CHECKING:
    from onnx import NodeProto, OperatorSetIdProto, TypeProto


def inferred_types(
    node: NodeProto, operands: Mapping[str, object], opsets: Sequence[OperatorSetIdProto]
) -> dict[str, TypeProto.Tensor]:
    """The tensor type of every result of ``node`` whose type onnx can tell; ``operands``: what it reads, by name."""
    from onnx import TypeProto, helper, numpy_helper, shape_inference

    arrays: dict[str, Array] = {name: x.data for name, x in operands.items() if isinstance(x, Known)}
    inner = [_declared(name, x) for name, x in operands.items()]
    outer = [helper.make_value_info(name, TypeProto()) for name in node.output if name]
    small = [numpy_helper.from_array(x, name) for name, x in arrays.items() if x.size <= SMALL and x.dtype.kind in "biuf"]
    graph = helper.make_graph([node], "node", inner, outer, small)
    try:
        inferred = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets), data_prop=True)
    except Exception:  # whatever its C++ code raises
        return {}
    found = {info.name: info.type for info in [*inferred.graph.output, *inferred.graph.value_info]}
    return {name: found[name].tensor_type for name in node.output if name in found and found[name].HasField("tensor_type")}


def _declared(name: str, x: object) -> Any:
    from onnx import TensorProto, TypeProto, helper

    if isinstance(x, Known):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.data.dtype), x.data.shape)
    if isinstance(x, Value):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, x.type.shape)
    return helper.make_value_info(name, TypeProto())


def float_shape(kind: TypeProto.Tensor, batch: int | str | None) -> list[Dim | str | None]:
    """The shape of a tensor of floats, with ``N`` in front where it has the model's ``batch`` there; empty for other tensors."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    if kind.elem_type not in floats or not kind.HasField("shape"):
        return []
    shape: list[Dim | str | None] = [d.dim_value if d.dim_value > 0 else d.dim_param or None for d in kind.shape.dim]
    return [BATCH, *shape[1:]] if shape and shape[0] in (BATCH, batch) else shape
