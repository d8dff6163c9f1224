"""Affine kernels equal plain numpy loops, bit for bit, and so do the constants' limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompiler.backend.kernel import ConvolutionSpec, Epilogue
from qcompiler.backend.tir import CompiledKernels, lower_kernel
from qcompiler.schedules import affine, table
from tests.schedules.depthwise_cases import NARROW, SATURATED, WIDE, compare, spec
from tests.schedules.harness import TARGETS, instruction_sets

WORDS = Epilogue(True, None, "uint8", pre_shifted=False, saturated=True, word_bounds=True)
UNSHIFTED = Epilogue(True, None, "uint8", pre_shifted=False, short=True)
ADDED = Epilogue(True, "uint8", "uint8", short=True)
POINT = (1, 1)
SPECS = [
    spec(64, (30, 31), POINT),  # tasks of several ranges
    spec(992, (3, 3), POINT),  # tasks of several blocks, and one that has fewer
    spec(4, (5, 7), POINT, batch=2),
    spec(3, (1, 1), POINT, bits=4),
    spec(2, (3, 3), POINT, bits=2, epilogue=UNSHIFTED),
    spec(16, (1, 1), POINT),
    spec(16, (3, 5), POINT, bits=2),
    spec(20, (1, 1), POINT),
    spec(48, (7, 7), POINT, batch=2, bits=4),
    spec(64, (3, 5), POINT, bits=4, epilogue=UNSHIFTED),
    spec(64, (5, 5), POINT, batch=2, bits=2),
    spec(96, (7, 9), POINT),
    spec(96, (9, 9), POINT, bits=2, epilogue=UNSHIFTED),
    spec(144, (3, 3), POINT, batch=2),
    spec(144, (11, 13), POINT, bits=4),
    spec(96, (7, 9), POINT, epilogue=Epilogue(True, None, "uint8", short=True, left=5)),
    spec(48, (5, 5), POINT, batch=2, epilogue=ADDED),  # whole vectors, and rests of all sizes
    spec(3, (7, 9), POINT, bits=2, epilogue=ADDED),
    spec(144, (3, 4), POINT, epilogue=Epilogue(True, "uint8", "uint8", pre_shifted=False, short=True)),
    spec(96, (7, 9), POINT, epilogue=WORDS),
    spec(4, (5, 7), POINT, batch=2, epilogue=WORDS),
    spec(48, (3, 5), POINT, epilogue=WORDS),
    spec(144, (3, 3), POINT, batch=2, epilogue=WORDS),
    spec(64, (30, 31), POINT, epilogue=WORDS),
    spec(16, (1, 1), POINT, epilogue=WORDS),
]


def name(what: ConvolutionSpec) -> str:
    return f"{what.batch}x{what.in_channels}x{what.height}x{what.width}-w{what.weight_bits}"


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("what", SPECS, ids=name)
def test_equals_numpy(what: ConvolutionSpec, instruction_set: str, tmp_path: Path) -> None:
    compare(affine.build, what, instruction_set, tmp_path, ("random", "largest", "mixed", "limits"))


def test_serves_what_reads_one_input() -> None:
    dilated = spec(16, (5, 5), POINT, dilation=(2, 2))
    others = [spec(16, (5, 5), (3, 3)), spec(16, (5, 5), POINT, (2, 2)), spec(16, (5, 5), POINT, padding=(0, 0, 1, 0))]
    assert [affine.serves(what, "neon") for what in (SPECS[0], dilated, *others)] == [True, True, False, False, False]
    wider = [spec(16, (5, 5), POINT, epilogue=epilogue) for epilogue in (WIDE, SATURATED)]
    assert [table.build_kernel(what, "neon").schedule.split(":")[0] for what in (dilated, *wider)] == ["affine"] + 2 * [
        "depthwise"
    ]


@pytest.mark.parametrize(
    ("epilogue", "instruction_set", "mnemonics", "absent"),
    [
        (NARROW, "avx512vnni", {"vpdpbusd": 4, "vpsravd": 4, "vpshufb": 1}, ("vpmovzx", "vpunpck", "vpmull")),
        (NARROW, "avxvnni", {"vpdpbusd": 4, "vpsravd": 4, "vpshufb": 1}, ("vpmovzx", "vpmull")),
        (NARROW, "avx2", {"vpmaddwd": 4, "vpsravd": 4, "vpshufb": 1}, ("vpmovzx", "vpmull")),
        (NARROW, "dotprod", {"sdot": 4, "tbl": 1}, ("smlal", "ushll")),
        (NARROW, "neon", {"smlal": 2, "smlal2": 2}, ("mla",)),
        (WORDS, "avx512vnni", {"vpmaddubsw": 2, "vpmulhw": 2, "vpmullw": 2}, ("vpmulld", "vpack")),
        (WORDS, "avxvnni", {"vpmaddubsw": 2, "vpmulhw": 2, "vpmullw": 2}, ("vpmulld",)),
        (WORDS, "avx2", {"vpmaddubsw": 2, "vpmulhw": 2, "vpmullw": 2}, ("vpmulld",)),
        (WORDS, "x86-64", {"pmulhw": 2, "pmullw": 4}, ("pmuludq", "pmaddwd")),
        (WORDS, "dotprod", {"smull": 2, "smull2": 2, "sri": 1}, ("sdot",)),
        (WORDS, "neon", {"smull": 2, "smull2": 2, "sri": 1}, ("smlal",)),
    ],
)
def test_one_vector_takes_few_instructions(
    epilogue: Epilogue, instruction_set: str, mnemonics: dict[str, int], absent: tuple[str, ...]
) -> None:
    """Of a kernel without a rest, which has one vector in its code."""
    target = TARGETS[instruction_set]
    function = affine.build(spec(256, (23, 23), POINT, epilogue=epilogue), instruction_set).function
    lines = CompiledKernels([lower_kernel(function, "k", target)], target).assembly.splitlines()
    found = [line.replace("{vex}", "").split()[0] for line in lines if line.startswith("\t")]
    assert {mnemonic: found.count(mnemonic) for mnemonic in mnemonics} == mnemonics
    assert not [mnemonic for mnemonic in found if mnemonic.startswith(absent)]
