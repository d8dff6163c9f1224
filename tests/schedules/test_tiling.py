"""Whatever tiling a kernel is told to have, it computes the same or is refused."""

from __future__ import annotations

import ctypes
import random
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest

from qcompiler.backend.kernel import ConvolutionSpec, PoolSpec
from qcompiler.backend.tile_table import shipped_tiles
from qcompiler.backend.tir import MAXIMUM_STACK_BYTES, CompiledKernels, lower_kernel
from qcompiler.schedules import convolution
from qcompiler.schedules.convolution import refuses
from qcompiler.schedules.convolution_plan import plan_convolution
from qcompiler.schedules.table import build_kernel, fitting, tilings
from qcompiler.schedules.tile_ranking import MOST_TILINGS
from qcompiler.schedules.tiling import STACK_BYTES, Tile, Tiling, parse_tiling, tasks_of, tiling_text
from qcompiler.targets.target import available_targets, load_target
from tests.backend.test_tile_table import spec_of

from .harness import TARGETS, instruction_sets
from .test_convolution import CASES, RESIDUAL, WIDE, arguments, generate, reference, spec

X86 = [parameter for parameter in instruction_sets() if parameter.values[0] in ("avx512vnni", "avxvnni", "avx2", "x86-64")]
SETS = tuple(TARGETS)

LARGE = {
    "resnet": spec(56, 64, 64, 3),
    "stride": spec(28, 256, 256, 3, strides=(2, 2)),
    "pointwise": spec(14, 256, 1024),
    "residual": spec(14, 256, 1024, epilogue=RESIDUAL),
    "small": spec(7, 512, 512, 3),
    "w4": spec(28, 128, 128, 3, weight_bits=4),
    "batch": spec(7, 512, 2048, batch=4),
    "stem": spec(224, 3, 64, 7, strides=(2, 2)),
}
BY_TAPS = spec(14, 256, 64, 3, weight_bits=4)
"""With VNNI a task keeps its sums while weights are unpacked tap by tap."""


def random_spec(draw: random.Random) -> ConvolutionSpec:
    """A small convolution of any kind that a dot product serves."""
    kernel, groups = (draw.choice((1, 1, 2, 3)), draw.choice((1, 3))), draw.choice((1, 1, 2, 3))
    return spec(
        (draw.randint(4, 14), draw.randint(4, 14)),
        draw.choice((1, 3, 16, 20, 36)) if groups == 1 else groups * draw.choice((5, 16, 19)),
        draw.choice((16, 24, 48, 64)) if groups == 1 else groups * draw.choice((10, 19, 32)),
        kernel,
        strides=(draw.choice((1, 1, 2)), draw.choice((1, 1, 2))),
        padding=tuple(draw.choice((0, 1)) for _ in range(4)),
        dilation=(1, draw.choice((1, 1, 2)) if kernel[1] == 1 else 1),
        groups=groups,
        weight_bits=draw.choice((8, 8, 4, 2)),
        batch=draw.choice((1, 1, 3)),
        epilogue=draw.choice((RESIDUAL, WIDE, spec(1, 16, 16).epilogue)),
    )


def random_tiling(draw: random.Random, models: Tiling) -> Tiling:
    """The model's tiling with another cut, other pixels, vectors and tasks; mostly one that does not fit."""
    width = sum(tile.width for tile in models)
    first = draw.choice((width, draw.randint(1, width)))

    def tile(columns: int) -> Tile:
        pixels, blocks = (draw.choice((1, 1, 2, 4)), draw.randint(1, min(columns, 14))), draw.choice((1, 2, 4))
        rows = pixels[0] * draw.randint(1, 4)
        return Tile(columns, *pixels, blocks, rows, pixels[1] * draw.randint(1, 3), blocks * draw.choice((1, 2)))

    return tuple(map(tile, (first, width - first) if first < width else (width,)))


@pytest.mark.parametrize("instruction_set", X86)
@pytest.mark.parametrize("count", [3, pytest.param(12, marks=pytest.mark.exhaustive)])
def test_every_tiling_that_is_taken_is_exact(count: int, instruction_set: str, tmp_path: Path) -> None:
    draw = random.Random(instruction_set)
    cases = []
    for _ in range(count):
        case = random_spec(draw)
        found = tilings(case, instruction_set)
        wild = [tiling for _ in range(300) if fitting(case, instruction_set, tiling := random_tiling(draw, found[0]))]
        cases += [(case, tiling) for tiling in dict.fromkeys((*found[:4], *wild[:4]))]
    assert len(cases) > 4 * count
    check_exact(cases, instruction_set, tmp_path)


@pytest.mark.parametrize("instruction_set", X86)
def test_tilings_where_weights_come_tap_by_tap(instruction_set: str, tmp_path: Path) -> None:
    plan = plan_convolution(BY_TAPS, convolution.serving_instruction(BY_TAPS, instruction_set))
    assert plan is not None
    assert plan.problem.by_taps == ("vnni" in instruction_set)
    texts = "14:1x7x1/2x14x4", "14:1x2x4/2x14x4", "14:2x14x1/2x14x1", "8:1x8x2/2x8x4+6:1x6x2/2x6x4", "14:1x2x2/1x14x2"
    given = [tiling for text in texts if fitting(BY_TAPS, instruction_set, tiling := parse_tiling(text))]
    assert len(given) >= (5 if instruction_set == "avx512vnni" else 1)
    check_exact([(BY_TAPS, tiling) for tiling in (*tilings(BY_TAPS, instruction_set), *given)], instruction_set, tmp_path)
    if instruction_set == "avx512vnni":  # 16 x 16 pixels of 256, 2 vectors of 64 words, 14 x 14 sums of each
        problem = f"it needs {16 * 16 * 256 + 2 * (64 * 64 + 14 * 14 * 64)} bytes of stack of 64512"
        assert refuses(BY_TAPS, instruction_set, parse_tiling("14:1x14x2/14x14x4")) == problem


@pytest.mark.parametrize("instruction_set", X86)
def test_what_ships_is_exact(instruction_set: str, tmp_path: Path) -> None:
    for target in map(load_target, available_targets()):
        shipped = shipped_tiles(target).kernels
        if target.instruction_set == instruction_set and shipped:
            check_exact([(spec_of(key), parse_tiling(tuned.tiling)) for key, tuned in shipped.items()], instruction_set, tmp_path)


def check_exact(cases: Sequence[tuple[ConvolutionSpec, Tiling]], instruction_set: str, folder: Path) -> None:
    """Runs kernels with their tilings beside the reference."""
    kernels = [build_kernel(case, instruction_set, tiling) for case, tiling in cases]
    target = TARGETS[instruction_set]
    functions = [lower_kernel(kernel.function, f"k{index}", target) for index, kernel in enumerate(kernels)]
    (folder / "kernels.o").write_bytes(CompiledKernels(functions, target).content)
    subprocess.run(["cc", "-shared", "-o", "kernels.so", "kernels.o"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernels.so"))
    for index, ((case, tiling), kernel) in enumerate(zip(cases, kernels, strict=True)):
        values = generate(case, "random")
        physical = arguments(case, kernel, values)
        pointers = [ctypes.c_void_p(physical[argument].ctypes.data) for argument in kernel.arguments]
        library[f"k{index}"](*pointers, 0, kernel.tasks // 2)
        library[f"k{index}"](*pointers, kernel.tasks // 2, kernel.tasks)
        found_codes = physical["y"][..., : case.out_channels]
        np.testing.assert_array_equal(found_codes, reference(case, values), err_msg=f"{case} {tiling_text(tiling)}")


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("name", LARGE)
def test_what_is_worth_a_measurement(name: str, instruction_set: str) -> None:
    case = LARGE[name]
    models, *others = tilings(case, instruction_set)
    assert 1 <= len(others) <= MOST_TILINGS + 2
    assert len({models, *others}) == len(others) + 1
    assert not any(refuses(case, instruction_set, tiling) for tiling in (models, *others))
    instruction = convolution.serving_instruction(case, instruction_set)
    assert instruction is not None
    plan = plan_convolution(case, instruction)
    assert plan is not None
    tasks = [tasks_of(plan.problem, tiling) for tiling in (models, *others)]
    assert min(tasks) >= min(tasks[0], 8)  # what is fastest on one thread must not be slow on several
    for tiling, count in zip((models, others[-1]), (tasks[0], tasks[-1]), strict=True):
        assert build_kernel(case, instruction_set, tiling).tasks >= count


def test_the_layout_of_weights_does_not_depend_on_the_tiling() -> None:
    draw = random.Random(1)
    for case in (LARGE["resnet"], LARGE["w4"], LARGE["batch"], BY_TAPS, random_spec(draw)):
        codes = np.arange(prod((case.out_channels, case.in_channels // case.groups, *case.kernel)), dtype=np.int64) % 4 - 2
        codes = codes.astype(np.int8).reshape(case.out_channels, -1, *case.kernel)
        for instruction_set in ("avx512vnni", "x86-64"):
            packs = [build_kernel(case, instruction_set, tiling).pack for tiling in tilings(case, instruction_set)[:3]]
            first, *rest = [pack(codes) for pack in packs if pack is not None]
            assert all(np.array_equal(first, other) for other in rest)


REFUSED = {
    "56:1x14x2/14x28x4+1:1x1x1/1x1x1": "its parts are not 56 columns together",
    "55:1x11x2/14x11x4": "its parts are not 56 columns together",
    "56:1x13x2/14x26x4": "26 columns of a task do not divide 56",
    "56:1x13x2/14x28x4": "13 columns of pixels do not divide 28",
    "56:1x14x3/14x28x3": "3 vectors do not divide 4",
    "56:3x14x1/14x28x4": "3 rows of pixels do not divide 14",
    "56:1x14x2/13x28x4": "13 rows of a task do not divide 56",
    "56:1x14x2/14x28x3": "2 vectors do not divide 3",
    "56:1x14x2/14x28x8": "8 vectors of a task do not divide 4",
    "56:0x14x2/14x28x4": "0 rows of pixels do not divide 14",
    "56:1x28x2/14x28x4": "56:1x28x2/14x28x4 needs 60 registers of 32",
    "56:1x14x2/56x56x4": "it needs 217088 bytes of stack of 64512",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_tiling_that_does_not_fit_is_refused(text: str) -> None:
    case, tiling = LARGE["resnet"], parse_tiling(text)
    assert refuses(case, "avx512vnni", tiling) == REFUSED[text]
    with pytest.raises(ValueError) as caught:
        build_kernel(case, "avx512vnni", tiling)
    assert str(caught.value) == f"the tiling {text} does not fit {case}: {REFUSED[text]}"
    assert not fitting(case, "avx512vnni", tiling)


def test_what_tasks_keep_is_within_what_kernels_may_use() -> None:
    assert STACK_BYTES == MAXIMUM_STACK_BYTES - 1024


def test_groups_and_unpacked_weights_limit_tiles() -> None:
    grouped = spec(10, 64, 96, 3, groups=2)
    assert refuses(grouped, "avx512vnni", parse_tiling("10:1x5x2/10x10x6")) == "2 vectors do not divide 3"
    uneven = spec(7, 57, 96, 3, groups=3)  # windows begin at the channels 0, 16 and 36
    problem = "tasks of 3 vectors read unequal numbers of channels"
    for case in (uneven, spec(7, 96, 96, 3, groups=3)):  # a task of 3 vectors reads two windows, in part or whole
        assert refuses(case, "avx512vnni", parse_tiling("7:1x7x1/7x7x3")) == problem
        assert refuses(case, "avx512vnni", parse_tiling("7:1x7x1/7x7x6")) == ""
    assert refuses(uneven, "avx512vnni", parse_tiling("7:1x7x1/7x7x1")) == problem.replace("3", "1")
    deep = spec(8, 128, 64, 3, weight_bits=4)
    assert refuses(deep, "x86-64", parse_tiling("8:1x1x2/8x8x16")) == ""
    assert refuses(deep, "x86-64", parse_tiling("8:1x1x8/8x8x16")) == "it needs 99968 bytes of stack of 64512"


def test_kernels_without_tiles_take_none() -> None:
    depthwise = spec(8, 16, 16, 3, groups=16)
    pool = PoolSpec("max", 1, 8, 8, 16, 4, 4, (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), "uint8", "uint8")
    plain = CASES["far"]
    tiling = parse_tiling("8:1x8x1/8x8x1")
    for other in (depthwise, pool, plain):
        assert tilings(other, "avx2") == ()
        assert not fitting(other, "avx2", tiling)
        with pytest.raises(ValueError, match="tiling"):
            build_kernel(other, "avx2", tiling)


def test_tilings_as_text() -> None:
    text = "24:1x12x2/7x12x8+4:2x4x2/14x4x8"
    tiling = (Tile(24, 1, 12, 2, 7, 12, 8), Tile(4, 2, 4, 2, 14, 4, 8))
    assert tiling_text(tiling) == text
    assert parse_tiling(text) == tiling
    assert replace(tiling[1], width=8) == parse_tiling("8:2x4x2/14x4x8")[0]
    for wrong in ("", "24", "24:1x12/7x12x8", text + "+", "-1:1x1x1/1x1x1", " 8:2x4x2/14x4x8"):
        with pytest.raises(ValueError, match="no tiling"):
            parse_tiling(wrong)
