"""Every operator by its name."""

from __future__ import annotations

from typing import Final

from qcompiler.ops.batch_norm import BatchNorm
from qcompiler.ops.binary import Add, Maximum, Minimum, Mul, Sub
from qcompiler.ops.clip import Clip
from qcompiler.ops.convolution import Convolution2d
from qcompiler.ops.functions import Function, Lookup
from qcompiler.ops.linear import Linear
from qcompiler.ops.matmul import Embedding, Matmul
from qcompiler.ops.operator import Operator
from qcompiler.ops.other_convolutions import Convolution3d, ConvTranspose2d
from qcompiler.ops.pooling import AveragePool2d, MaxPool2d
from qcompiler.ops.prelu import Prelu
from qcompiler.ops.quantizer import Quantizer
from qcompiler.ops.reduction import Amax, Amin, Argmax, Mean, Sum, TopkIndices, TopkValues
from qcompiler.ops.requantize import Requantize, RequantizeAdd, RequantizeAddNarrow, RequantizeNarrow, Rescale
from qcompiler.ops.resize import ResizeLinear
from qcompiler.ops.shape import Concat, Identity, Pad, Reshape, Slice, Take, Transpose

OPERATORS: Final[dict[str, Operator]] = {
    operator.name: operator
    for operator in (
        Add(),
        Amax(),
        Amin(),
        Argmax(),
        AveragePool2d(),
        BatchNorm(),
        Clip(),
        Concat(),
        ConvTranspose2d(),
        Convolution2d(),
        Convolution3d(),
        Embedding(),
        Function(),
        Identity(),
        Linear(),
        Lookup(),
        Matmul(),
        MaxPool2d(),
        Maximum(),
        Mean(),
        Minimum(),
        Mul(),
        Pad(),
        Prelu(),
        Quantizer(),
        Requantize(),
        RequantizeAdd(),
        RequantizeAddNarrow(),
        RequantizeNarrow(),
        Rescale(),
        Reshape(),
        ResizeLinear(),
        Slice(),
        Sub(),
        Sum(),
        Take(),
        TopkIndices(),
        TopkValues(),
        Transpose(),
    )
}
