"""Depthwise kernels equal plain numpy loops, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompiler.backend.kernel import ConvolutionSpec, Epilogue
from qcompiler.backend.tir import CompiledKernels, lower_kernel
from qcompiler.schedules.depthwise import build
from tests.schedules.depthwise_cases import SATURATED, WIDE, compare, spec
from tests.schedules.harness import TARGETS, instruction_sets

SPECS = [
    spec(32, (9, 16), (3, 3)),
    spec(48, (11, 11), (3, 3), (2, 2), (0, 0, 1, 1), epilogue=WIDE),
    spec(144, (14, 14), (5, 5), bits=4),
    spec(80, (13, 15), (5, 5), (2, 2), (2, 2, 2, 2), bits=2),
    spec(64, (7, 7), (5, 5), epilogue=Epilogue(True, "uint8", "uint8")),
    spec(64, (7, 9), (3, 3), epilogue=Epilogue(True, "uint8", "uint8", short=True)),
    spec(80, (7, 9), (3, 3), epilogue=Epilogue(True, None, "uint8", short=True, left=4)),
    spec(3, (7, 9), (3, 3), batch=2, epilogue=Epilogue(True, "uint8", "uint8", pre_shifted=False, short=True)),
    spec(48, (6, 15), (3, 3), batch=2, epilogue=Epilogue(True, None, "uint8", pre_shifted=False, saturated=True)),
    spec(32, (6, 9), (3, 3), epilogue=SATURATED),
    spec(96, (6, 113), (3, 3), (2, 2), epilogue=Epilogue(True, None, "uint8", pre_shifted=False, short=True)),
    spec(20, (6, 5), (3, 3), batch=2, epilogue=Epilogue(False, "int16", "int16")),
    spec(3, (8, 9), (3, 3), bits=4, epilogue=WIDE),
    spec(16, (12, 12), (3, 3), (1, 1), (2, 2, 2, 2), dilation=(2, 2)),
    spec(16, (5, 5), (5, 3), (1, 2), (0, 0, 0, 0), epilogue=Epilogue(False, None, "int32")),
    spec(16, (1, 1), (3, 3)),
    spec(96, (5, 5), (1, 1), batch=2, epilogue=WIDE),
    spec(80, (3, 7), (1, 1), bits=4, epilogue=Epilogue(True, "uint8", "uint8")),
    spec(16, (3, 40), (1, 7), (1, 1), (0, 3, 0, 3)),
    spec(16, (2, 1003), (3, 5)),
    spec(16, (20, 3), (7, 1), (3, 1), (3, 0, 3, 0)),
]


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize(
    "what", SPECS, ids=lambda what: f"{what.in_channels}x{what.height}x{what.width}-{what.kernel}-{what.weight_bits}"
)
def test_equals_numpy(what: ConvolutionSpec, instruction_set: str, tmp_path: Path) -> None:
    compare(build, what, instruction_set, tmp_path)


@pytest.mark.parametrize(
    ("instruction_set", "mnemonic"),
    [
        ("avx512vnni", "vpdpbusd"),
        ("avxvnni", "vpdpbusd"),
        ("avx2", "vpmaddwd"),
        ("x86-64", "pmaddwd"),
        ("dotprod", "sdot"),
        ("neon", "smlal"),
    ],
)
def test_uses_the_instruction(instruction_set: str, mnemonic: str) -> None:
    target = TARGETS[instruction_set]
    function = build(SPECS[0], instruction_set).function
    assembly = CompiledKernels([lower_kernel(function, "k", target)], target).assembly
    assert f"\t{mnemonic}\t" in assembly
