"""What an operator on constants would give, before it is computed: a few bytes of a model can ask for terabytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qcompiler.importers.builder import Known, check_size
from qcompiler.importers.onnx_inference import inferred_types

if TYPE_CHECKING:
    from onnx import NodeProto, OperatorSetIdProto


def check_folded(node: NodeProto, operands: Mapping[str, Known], opsets: Sequence[OperatorSetIdProto]) -> None:
    """UnsupportedError where ONNX's shape inference says that a result is larger than anything that is compiled.

    What it cannot tell, or refuses, is left to the evaluation.
    """
    for kind in inferred_types(node, operands, opsets).values():
        dims = kind.shape.dim
        if all(dim.HasField("dim_value") for dim in dims) and all(dim.dim_value > 0 for dim in dims):
            check_size([dim.dim_value for dim in dims])
