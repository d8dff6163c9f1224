"""Every operator by its name."""

from __future__ import annotations

from typing import Final

from qcompiler.ops.add import Add
from qcompiler.ops.batch_norm import BatchNorm
from qcompiler.ops.clip import Clip
from qcompiler.ops.convolution import Convolution2d
from qcompiler.ops.linear import Linear
from qcompiler.ops.operator import Operator
from qcompiler.ops.pooling import AveragePool2d, MaxPool2d, Mean
from qcompiler.ops.requantize import Requantize, RequantizeAdd, RequantizeAddNarrow, RequantizeNarrow, Rescale
from qcompiler.ops.shape import Identity, Pad, Reshape, Slice

OPERATORS: Final[dict[str, Operator]] = {
    operator.name: operator
    for operator in (
        Add(),
        AveragePool2d(),
        BatchNorm(),
        Clip(),
        Convolution2d(),
        Identity(),
        Linear(),
        MaxPool2d(),
        Mean(),
        Pad(),
        Requantize(),
        RequantizeAdd(),
        RequantizeAddNarrow(),
        RequantizeNarrow(),
        Rescale(),
        Reshape(),
        Slice(),
    )
}
