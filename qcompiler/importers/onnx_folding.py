"""What an operator on constants would give, before it is computed: a few bytes of a model can ask for terabytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from qcompiler.importers.builder import check_size
from qcompiler.ir.graph import Array

if TYPE_CHECKING:
    from onnx import NodeProto, OperatorSetIdProto

SMALL: Final = 64
"""Elements of a tensor that may hold sizes, which the shape of the result may follow from."""


def check_folded(node: NodeProto, operands: Mapping[str, Array], opsets: Sequence[OperatorSetIdProto]) -> None:
    """UnsupportedError where ONNX's shape inference says that a result is larger than anything that is compiled.

    What it cannot tell, or refuses, is left to the evaluation.
    """
    from onnx import TypeProto, helper, numpy_helper, shape_inference

    known = {name: x for name, x in operands.items() if x.size <= SMALL and x.dtype.kind in "biuf"}
    inner = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for name, x in operands.items()
    ]
    outer = [helper.make_value_info(name, TypeProto()) for name in node.output if name]
    constants = [numpy_helper.from_array(x, name) for name, x in known.items()]
    graph = helper.make_graph([node], "fold", inner, outer, constants)
    try:
        inferred = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets), data_prop=True)
    except Exception:  # whatever its C++ code raises
        return
    for info in inferred.graph.output:
        shape = info.type.tensor_type.shape
        if all(dim.HasField("dim_value") for dim in shape.dim) and all(dim.dim_value > 0 for dim in shape.dim):
            check_size([dim.dim_value for dim in shape.dim])
