"""Max and average pooling."""

from __future__ import annotations

from math import prod
from typing import Final, Literal

import numpy as np

from qcompiler.backend.kernel import PoolSpec, Scalar
from qcompiler.backend.lowering import Lowering, output_scalars
from qcompiler.ir.graph import Node
from qcompiler.ops.operator import zero_of
from qcompiler.ops.pooling import counted_taps

_KINDS: Final[dict[str, Literal["max", "average"]]] = {"max_pool2d": "max", "average_pool2d": "average"}


def pool(lowering: Lowering, node: Node) -> None:
    """Pooling over height and width."""
    x = lowering.graph.values[node.inputs[0]]
    source, result = lowering.image(x.type, node.origin), lowering.image(node.output.type, node.origin)
    kind = _KINDS[node.op]
    average = kind == "average"
    spec = PoolSpec(
        kind=kind,
        batch=lowering.batch * prod(source.shape[2:-2]),  # every slice in depth is an image
        height=source.shape[-2],
        width=source.shape[-1],
        channels=source.shape[1],
        out_height=result.shape[-2],
        out_width=result.shape[-1],
        kernel=node["kernel"],
        strides=node["strides"],
        padding=node["padding"],
        dilation=(1, 1) if average else node["dilation"],
        in_dtype=source.dtype,
        out_dtype=result.dtype,
        counts=counted_taps(node, x.type) if average else ((), ()),
    )
    if not average:
        lowering.step(node, spec, {"x": x.name}, {})
        return
    table = np.zeros(max(node["counts"]) + 1, dtype=np.int32)
    table[list(node["counts"])] = node["multipliers"]
    scalars = {**output_scalars(node), Scalar.X_ZERO: zero_of(x)}
    lowering.step(node, spec, {"x": x.name}, scalars, multiplier=lowering.constants.add(table))
