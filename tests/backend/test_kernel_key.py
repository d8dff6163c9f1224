"""Keys of kernels: readable, equal for equal kernels, other for other ones."""

from __future__ import annotations

from dataclasses import replace

from qcompiler.backend.kernel import ConvolutionSpec, Epilogue, Move, MoveSpec
from qcompiler.backend.kernel_key import kernel_key
from qcompiler.bits import Bits
from qcompiler.cost.candidates import at_bits
from qcompiler.cost.trace import kernel_keys
from tests.cost.networks import TARGET, small_graph

CONVOLUTION = ConvolutionSpec(
    batch=1,
    height=8,
    width=8,
    in_channels=16,
    out_channels=32,
    kernel=(3, 3),
    strides=(1, 1),
    padding=(1, 1, 1, 1),
    dilation=(1, 1),
    groups=1,
    weight_bits=4,
    epilogue=Epilogue(narrow=True, residual=None, out_dtype="uint8"),
)


def test_the_whole_key() -> None:
    assert kernel_key(CONVOLUTION, "arm64-neon") == (
        "arm64-neon convolution batch=1 height=8 width=8 in_channels=16 out_channels=32 kernel=(3,3) strides=(1,1) "
        "padding=(1,1,1,1) dilation=(1,1) groups=1 weight_bits=4 narrow=yes residual=none out_dtype=uint8"
    )


def test_whatever_differs_is_in_the_key() -> None:
    others = [
        replace(CONVOLUTION, weight_bits=8),
        replace(CONVOLUTION, padding=(1, 1, 0, 0)),
        replace(CONVOLUTION, epilogue=replace(CONVOLUTION.epilogue, residual="uint8")),
        replace(CONVOLUTION, epilogue=replace(CONVOLUTION.epilogue, narrow=False)),
    ]
    assert len({kernel_key(spec, TARGET) for spec in (CONVOLUTION, *others)}) == 5
    assert kernel_key(CONVOLUTION, "a") != kernel_key(CONVOLUTION, "b")


def test_long_tables_of_indices_are_hashed() -> None:
    def take(*indices: int) -> str:
        moves = (Move("take", ((1,), indices)),)
        return kernel_key(MoveSpec((1, 64, 4, 4), (1, 64, 4, 4), "NHWC", "NHWC", "uint8", moves), TARGET)

    assert " moves=((take,((1),(0,1,2)))) " in take(0, 1, 2)
    assert len(take(*range(64))) < 200
    assert take(*range(64)) != take(*range(63, -1, -1))
    assert take(*range(64)) == take(*range(64))


def test_a_network_in_order() -> None:
    keys = kernel_keys(at_bits(small_graph(), Bits(8, 8)), TARGET)
    kinds = [key.split()[1] for key in keys]
    assert kinds == ["copy", "convolution", "convolution", "convolution", "convolution", "pool", "pool", "convolution", "copy"]
    assert keys[2] != keys[3]  # the second adds
    assert len(set(keys)) == len(keys)
