"""Every convolution schedule equals plain int64 numpy, bit for bit, on each instruction set that can run here.

One half of the cases runs on one half of the instruction sets, the other half on the others; all of them everywhere under the mark
``exhaustive``.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler import arith
from qcompiler.backend.kernel import ConvolutionSpec, Epilogue, Kernel, Scalar, physical_channels
from qcompiler.backend.tir import CompiledKernels, lower_kernel
from qcompiler.schedules import convolution, convolution_generic
from tests.schedules.harness import TARGETS, instruction_sets, saturated, short, short_factor, stored_constants
from tests.tools import CROSS, EMULATOR, need

EXPECTED = {
    "avx512vnni": r"vpdpbusd\t.*%zmm",
    "avxvnni": r"vpdpbusd\t.*%ymm",
    "avx2": r"vpmaddwd\t.*%ymm",
    "x86-64": r"pmaddwd\t.*%xmm",
    "dotprod": r"sdot\tv",
    "neon": r"smlal\tv",
}
BY_TAPS = "w4_by_taps"
EVERY = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
MODES = ("random", "maximum", "minimum", "zero", "ties")
CODES = {8: (-127, 127), 4: (-8, 7), 2: (-2, 1)}
OUTPUTS = {"uint8": (0, 255), "int16": (-(1 << 15), (1 << 15) - 1), "int32": (-(1 << 31), (1 << 31) - 1)}


def spec(size: Any, in_channels: int, out_channels: int, kernel: Any = 1, **changes: Any) -> ConvolutionSpec:
    height, width = size if isinstance(size, tuple) else (size, size)
    rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    base = ConvolutionSpec(
        1, height, width, in_channels, out_channels, (rows, columns), (1, 1), (rows // 2, columns // 2) * 2, (1, 1), 1, 8,
        Epilogue(True, None, "uint8", short=True),
    )  # fmt: skip
    return replace(base, **changes)


WIDE = Epilogue(False, None, "uint8")
RESIDUAL = Epilogue(True, "uint8", "uint8")
SHORT_RESIDUAL = replace(RESIDUAL, short=True)
FAR = {"dilation": (60, 60), "padding": (60,) * 4}
"""Taps so far apart that the rows of one output do not fit the scratch of a task."""
CASES = {
    "resnet": spec(32, 16, 16, 3),
    "stem": spec((17, 15), 3, 32, 3, strides=(2, 2), padding=(0, 0, 1, 1)),
    "dense_one": spec((49, 10), 1, 64, strides=(2, 2), kernel=(10, 4), padding=(4, 1, 5, 1)),
    "dense_two": spec((9, 31), 2, 20, 5, strides=(1, 3), padding=(2, 0, 2, 0), batch=2, epilogue=RESIDUAL),
    "dense_rows": spec((700, 3), 1, 16, (3, 2), padding=(0, 1, 0, 0), weight_bits=4, dilation=(3, 1), epilogue=WIDE),
    "dense_valid": spec((3, 40), 2, 16, (1, 7), padding=(0, 0, 0, 0), weight_bits=2),
    "pointwise": spec(14, 40, 80),
    "pointwise_tail": spec((1, 131), 24, 24),
    "row_tail": spec((3, 31), 20, 40, 3, epilogue=RESIDUAL),
    "wide_tail": spec((3, 31), 20, 40, 3, epilogue=Epilogue(False, "uint8", "uint8"), batch=2),
    "batch": spec(9, 24, 112, 3, batch=3, epilogue=WIDE),
    "saturated": spec((5, 13), 24, 48, 3, epilogue=Epilogue(True, None, "uint8", saturated=True)),
    "saturated_unshifted": spec(
        9, 24, 112, 3, batch=2, epilogue=Epilogue(True, None, "uint8", pre_shifted=False, saturated=True)
    ),
    "unshifted": spec(9, 24, 112, 3, batch=2, epilogue=Epilogue(True, None, "uint8", pre_shifted=False, short=True)),
    "five_vectors": spec((3, 4), 24, 80),
    "left": spec((3, 7), 4, 48, epilogue=Epilogue(True, None, "uint8", short=True, left=6)),
    "left_unshifted": spec((3, 7), 4, 24, 3, epilogue=Epilogue(True, None, "uint8", pre_shifted=False, short=True, left=4)),
    "w4_left": spec((3, 7), 4, 24, 3, weight_bits=4, epilogue=Epilogue(True, None, "uint8", short=True, left=2)),
    "left_grouped": spec((4, 5), 6, 9, kernel=2, groups=3, epilogue=Epilogue(True, None, "uint8", short=True, left=5)),
    "left_far": spec((62, 5), 6, 9, 3, **FAR, groups=3, epilogue=Epilogue(True, None, "uint8", short=True, left=5)),
    "two_vectors": spec((3, 10), 24, 32, 3, batch=2),
    "one_vector": spec((3, 7), 24, 16, 3),
    "clamped": spec(9, 24, 48, 3, epilogue=Epilogue(True, None, "uint8")),
    "unshifted_residual": spec(14, 24, 48, epilogue=Epilogue(True, "uint8", "uint8", pre_shifted=False)),
    "asymmetric": spec((10, 13), 12, 48, 3, padding=(2, 0, 1, 3), strides=(1, 2), epilogue=WIDE),
    "dilated": spec(11, 32, 16, 3, dilation=(2, 3), padding=(2, 3, 2, 3)),
    "five": spec(7, 17, 33, 5, epilogue=Epilogue(False, None, "int32")),
    "strided_pointwise": spec(16, 32, 64, strides=(2, 2)),
    "residual": spec(8, 64, 64, 3, epilogue=RESIDUAL),
    "short_residual": spec(8, 64, 256, epilogue=SHORT_RESIDUAL),
    "short_residual_tail": spec((3, 31), 20, 40, 3, epilogue=SHORT_RESIDUAL, batch=2),
    "short_residual_one": spec((3, 5), 24, 16, 3, epilogue=replace(SHORT_RESIDUAL, pre_shifted=False)),
    "short_residual_grouped": spec((4, 5), 6, 9, kernel=2, groups=3, epilogue=SHORT_RESIDUAL),
    "short_residual_few": spec((4, 5), 6, 3, epilogue=SHORT_RESIDUAL),
    "wide_residual": spec(7, 48, 192, epilogue=Epilogue(False, "int16", "int16")),
    "narrow_residual16": spec(6, 16, 32, epilogue=Epilogue(True, "int16", "int16")),
    "linear": spec(1, 100, 10, epilogue=Epilogue(False, None, "int16")),
    "linear_large": spec(1, 640, 1000, epilogue=Epilogue(True, None, "int16")),
    "linear_batch": spec(1, 64, 10, batch=3, epilogue=Epilogue(False, None, "int32")),
    "linear_streams": spec(1, 68, 512, weight_bits=4),
    "linear_streams_batch": spec(1, 68, 512, batch=5, weight_bits=4),
    "linear_uneven_streams": spec(1, 36, 1000, weight_bits=2),
    "deep": spec((2, 7), 1024, 32, 3),
    "fetched_ahead": spec(7, 192, 1152),
    "w4": spec(16, 16, 32, 3, weight_bits=4),
    "w4_unshifted": spec(16, 16, 32, 3, weight_bits=4, epilogue=Epilogue(True, None, "uint8", pre_shifted=False, short=True)),
    "w2_short_residual": spec(9, 24, 48, 3, weight_bits=2, epilogue=SHORT_RESIDUAL),
    "w4_saturated": spec((5, 13), 24, 48, 3, weight_bits=4, epilogue=Epilogue(True, None, "uint8", saturated=True)),
    "w4_odd": spec(9, 20, 40, 3, weight_bits=4, epilogue=WIDE),
    "w4_inline": spec(2, 200, 80, weight_bits=4),
    "w4_linear": spec(1, 100, 10, weight_bits=4, epilogue=Epilogue(False, None, "int16")),
    "w4_deep": spec(4, 512, 32, 3, weight_bits=4),
    "w4_by_taps": spec(7, 512, 64, 3, weight_bits=4),
    "w4_by_taps_residual": spec((14, 6), 288, 32, 3, weight_bits=4, batch=2, epilogue=SHORT_RESIDUAL),
    "w2_by_taps": spec((8, 14), 256, 96, 3, weight_bits=2, epilogue=WIDE),
    "w2": spec(12, 24, 48, 3, weight_bits=2, epilogue=RESIDUAL),
    "w2_inline": spec(2, 72, 64, weight_bits=2, epilogue=Epilogue(False, None, "int32")),
    "w2_stem": spec(8, 3, 16, 3, weight_bits=2),
    "few_outputs": spec(8, 32, 3, 3, epilogue=RESIDUAL),
    "grouped_vectors": spec(10, 64, 96, 3, groups=2, epilogue=RESIDUAL, strides=(2, 1)),
    "grouped_pointwise": spec(7, 32, 64, groups=4, weight_bits=4),
    "grouped": spec(10, 32, 64, 3, groups=4, epilogue=RESIDUAL),
    "grouped_uneven": spec((6, 7), 6, 9, 3, groups=3, weight_bits=4, epilogue=WIDE),
    "grouped_few": spec((4, 5), 16, 8, kernel=2, groups=2, padding=(1, 2, 0, 2)),
    "width_2": spec((3, 5), 14, 14, 3, groups=7),
    "width_3": spec((4, 5), 21, 42, 3, groups=7, weight_bits=4, epilogue=WIDE),
    "width_4": spec(6, 20, 20, 3, groups=5, strides=(2, 2), epilogue=SHORT_RESIDUAL),
    "width_6": spec((3, 4), 42, 21, (1, 3), groups=7, weight_bits=2),
    "width_8": spec((5, 4), 40, 40, 3, groups=5, batch=2, epilogue=RESIDUAL),
    "width_10": spec(3, 80, 80, groups=8, weight_bits=4),
    "width_12": spec(5, 36, 36, 3, groups=3, dilation=(2, 2), padding=(2,) * 4, epilogue=Epilogue(False, None, "int16")),
    "width_19": spec((3, 7), 57, 76, groups=19, weight_bits=4, epilogue=SHORT_RESIDUAL),
    "width_19_pixels": spec((1, 37), 57, 57, groups=3),
    "width_24": spec((2, 9), 72, 72, (2, 1), groups=3, weight_bits=2, epilogue=Epilogue(True, None, "uint8", saturated=True)),
    "width_38": spec((4, 3), 152, 152, 3, groups=4, epilogue=WIDE),
    "width_40": spec((1, 3), 120, 60, (1, 3), groups=3, weight_bits=4, batch=3),
    "width_76": spec((2, 3), 152, 152, (1, 3), groups=2, strides=(1, 2), weight_bits=4),
    "far": spec((5, 62), 6, 9, 3, **FAR, groups=3, weight_bits=4, epilogue=WIDE),
    "far_residual": spec((62, 5), 6, 9, 3, **FAR, groups=3, weight_bits=2, epilogue=SHORT_RESIDUAL),
    "multiplier": spec(7, 16, 32, 3, groups=16, weight_bits=2, strides=(2, 2)),
}


def generate(case: ConvolutionSpec, mode: str) -> dict[str, np.ndarray[Any, Any]]:
    """Logical tensors of a layer, all int64."""
    random = np.random.default_rng(list(mode.encode()))
    low, high = CODES[case.weight_bits]
    channels = case.out_channels
    x = random.integers(0, 256, (case.batch, case.height, case.width, case.in_channels))
    weights = random.integers(low, high + 1, (channels, case.in_channels // case.groups, *case.kernel))
    if mode in ("maximum", "minimum", "zero"):
        x[:], weights[:] = 0 if mode == "zero" else 255, high if mode == "maximum" else low
    out = case.epilogue.out_dtype
    deviation = float(np.sqrt(weights[0].size)) * 74 * max(1.0, -low * 0.58)
    target = 60.0 if out == "uint8" else 3000.0
    bits = 13 if case.epilogue.narrow else 31
    values = {"x": x, "weights": weights, "bias": random.integers(-2000, 2000, channels)}
    values["pre_shift"] = random.integers(0, 4, channels) + max(0, int(np.log2(deviation)) - 11)
    reduced = deviation / 2.0 ** values["pre_shift"].mean() if case.epilogue.narrow else deviation
    shift = max(2, int(np.log2((1 << (bits - 1)) * reduced / target)))
    values["multiplier"] = random.integers(1 << (bits - 2), 1 << bits, channels)
    if case.epilogue.narrow:  # a step of the sum is at most one of the code
        shift = min(max(shift, bits), 22)
        values["pre_shift"] *= case.epilogue.pre_shifted
    if mode == "ties":  # small sums, halved: every odd one is a tie, or one past it
        shift = min(shift, 22)
        weights[:] = np.clip(weights, -1, 1) * (random.random(weights.shape) < 2.0 / weights[0].size)
        values["bias"] = random.integers(-50, 50, channels)
        values["multiplier"] = (1 << (shift - 1)) + random.integers(0, 2, channels)
        values["pre_shift"] = random.integers(0, 2, channels) * case.epilogue.pre_shifted
    if case.epilogue.saturated:
        values["multiplier"] <<= arith.SATURATED_SHIFT - shift
        shift = arith.SATURATED_SHIFT
    if case.epilogue.short:
        if not case.epilogue.residual:
            most = case.places + case.epilogue.left
            values["pre_shift"] -= random.integers(0, most + 1, channels) if case.epilogue.pre_shifted else most
        short_shift = int(random.choice(arith.SHORT_SHIFTS))
        scaled = values["multiplier"] << max(short_shift - shift, 0)
        values["multiplier"] = np.minimum(scaled, arith.SHORT_LIMIT - random.integers(1, 3, channels))
        if mode == "ties":
            values["multiplier"][:] = 1 << 14
        shift = short_shift
    bound = random.integers(1 << 12, 1 << 14, channels)
    if case.epilogue.narrow and mode == "ties":
        bound = np.minimum(bound, (1 << 29) // (1 << (shift - 1)))
    values["lower"], values["upper"] = -(bound << values["pre_shift"]), bound << values["pre_shift"]
    residual = case.epilogue.residual
    scalars = np.zeros(8, np.int64)
    scalars[Scalar.X_ZERO] = random.integers(0, 256)
    scalars[Scalar.SHIFT] = shift
    scalars[Scalar.Y_ZERO] = random.integers(0, 256) if out == "uint8" else 0
    scalars[Scalar.LO], scalars[Scalar.HI] = OUTPUTS[out]
    if residual:
        scalars[Scalar.RESIDUAL_ZERO] = random.integers(0, 256) if residual == "uint8" else 0
        scalars[Scalar.RESIDUAL_MULTIPLIER] = random.integers(1, 1 << (bits if residual == "uint8" else max(bits - 10, 3)))
        if case.epilogue.short:
            largest = short_factor(int(values["multiplier"].max()), shift, int(scalars[Scalar.Y_ZERO]))
            scalars[Scalar.RESIDUAL_MULTIPLIER] = largest if mode == "maximum" else largest // 3 >> 7 << 7
        shape = (case.batch, case.out_height, case.out_width, channels)
        values["residual"] = random.integers(*OUTPUTS[residual], shape, endpoint=True)
    values["scalars"] = scalars
    if case.epilogue.short:
        return short(values, scalars, bool(residual))
    return saturated(values, scalars) if case.epilogue.saturated else values


def reference(case: ConvolutionSpec, values: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Output codes ``[batch, height, width, channels]`` in int64; float64 holds the products and their sums exactly, and is fast."""
    top, left, bottom, right = case.padding
    scalars = values["scalars"]
    edges = ((0, 0), (top, bottom), (left, right), (0, 0))
    x = np.pad(values["x"].astype(np.float64), edges, constant_values=scalars[Scalar.X_ZERO])
    weights = values["weights"].astype(np.float64)
    rows, columns = case.out_height, case.out_width
    inputs, outputs = case.in_channels // case.groups, case.out_channels // case.groups
    sums = np.zeros((case.batch, rows, columns, case.out_channels))
    for i, j in np.ndindex(*case.kernel):
        h, w = i * case.dilation[0], j * case.dilation[1]
        taken = x[:, h : h + (rows - 1) * case.strides[0] + 1 : case.strides[0], w : w + (columns - 1) * case.strides[1] + 1 : case.strides[1]]  # fmt: skip
        for group in range(case.groups):
            chosen = slice(group * outputs, (group + 1) * outputs)
            sums[..., chosen] += taken[..., group * inputs : (group + 1) * inputs] @ weights[chosen, :, i, j].T
    total = sums.astype(np.int64) + values["bias"]
    if case.epilogue.narrow:
        total = np.clip(total, values["lower"], values["upper"])
        total = arith.moved_right(total, values["pre_shift"])  # its rounding term is in the bias
    total = total * values["multiplier"]
    if case.epilogue.residual:
        total = total + (values["residual"] - scalars[Scalar.RESIDUAL_ZERO]) * scalars[Scalar.RESIDUAL_MULTIPLIER]
    if case.epilogue.narrow and not case.epilogue.saturated and not case.epilogue.short:
        assert np.abs(total).max() + (scalars[Scalar.Y_ZERO] << scalars[Scalar.SHIFT]) < 1 << 31
    rounded = (total + (1 << (scalars[Scalar.SHIFT] - 1))) >> scalars[Scalar.SHIFT]
    return np.clip(rounded + scalars[Scalar.Y_ZERO], scalars[Scalar.LO], scalars[Scalar.HI])


def arguments(case: ConvolutionSpec, kernel: Kernel, values: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Physical arrays, garbage in the padding channels; the residual, where there is one, is the output itself."""
    garbage = np.random.default_rng(5)
    stored = physical_channels(case.out_channels)
    x = garbage.integers(0, 256, (case.batch, case.height, case.width, physical_channels(case.in_channels)), np.uint8)
    x[..., : case.in_channels] = values["x"]
    codes = values["weights"].astype(np.int8)
    bias = values["bias"].astype(np.int32)
    assert kernel.pack is not None
    physical: dict[str, np.ndarray[Any, Any]] = {"x": x, "weights": kernel.pack(codes)}
    channels = stored_constants(case.epilogue, values, case.places)
    channels["bias"] = kernel.adjust_bias(bias, codes) if kernel.adjust_bias else bias
    for name, value in channels.items():
        physical[name] = np.zeros(stored, np.int32)
        physical[name][: case.out_channels] = value
    physical["scalars"] = values["scalars"].astype(np.int32)
    y = np.zeros((case.batch, case.out_height, case.out_width, stored), case.epilogue.out_dtype)
    if case.epilogue.residual:
        y[..., : case.out_channels] = values["residual"]
        physical["residual"] = y
    physical["y"] = y
    return physical


def chosen(instruction_set: str, every: bool) -> dict[str, ConvolutionSpec]:
    """The cases of an instruction set: all, or those at its turn and the one whose assembly is looked at."""
    turn = tuple(TARGETS).index(instruction_set) % 2
    return {name: case for place, (name, case) in enumerate(CASES.items()) if every or place % 2 == turn or name == BY_TAPS}


def build_all(cases: dict[str, ConvolutionSpec], instruction_set: str, folder: Path) -> tuple[dict[str, Kernel], str]:
    """The kernels of cases in one object file, and its assembly."""
    kernels = {name: convolution.build(case, instruction_set) for name, case in cases.items()}
    target = TARGETS[instruction_set]
    compiled = CompiledKernels([lower_kernel(k.function, name, target) for name, k in kernels.items()], target)
    content, assembly = compiled.content, compiled.assembly
    (folder / "kernels.o").write_bytes(content)
    return kernels, assembly


def check_assembly(instruction_set: str, kernels: dict[str, Kernel], assembly: str) -> None:
    for name, kernel in kernels.items():
        body = re.search(rf"^{name}:(.*?)^\.Lfunc_end", assembly, re.S | re.M)
        assert body is not None
        if kernel.schedule == "convolution_generic":
            continue
        instruction = convolution.serving_instruction(CASES[name], instruction_set)
        assert instruction is not None
        pattern = re.sub("[xyz]mm", {4: "xmm", 8: "ymm", 16: "zmm"}[instruction.lanes], EXPECTED[instruction_set])
        assert re.search(pattern, body.group(1)), name
        if name == BY_TAPS and instruction_set == "avx512vnni":  # sums are in registers during a tap
            products = body.group(1)[body.group(1).index("vpdpbusd") : body.group(1).rindex("vpdpbusd")]
            assert not re.search(r"vmov\w+\t%zmm\d+, -?\d*\(", products)
    plain = {name for name, kernel in kernels.items() if kernel.schedule == "convolution_generic"}
    assert plain == {"far", "far_residual", "left_far"} & set(kernels)


@pytest.mark.parametrize("instruction_set", instruction_sets(leave_out=("dotprod", "neon")))
@EVERY
def test_x86_equals_numpy(every: bool, instruction_set: str, tmp_path: Path) -> None:
    cases = chosen(instruction_set, every)
    kernels, assembly = build_all(cases, instruction_set, tmp_path)
    check_assembly(instruction_set, kernels, assembly)
    subprocess.run(["cc", "-shared", "-o", "kernels.so", "kernels.o"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "kernels.so"))
    for name, case in cases.items():
        for mode in MODES:
            values = generate(case, mode)
            physical = arguments(case, kernels[name], values)
            expected = reference(case, values)
            pointers = [ctypes.c_void_p(physical[argument].ctypes.data) for argument in kernels[name].arguments]
            middle = kernels[name].tasks // 2
            for begin, end in ((middle, kernels[name].tasks), (0, middle)):
                getattr(library, name)(*pointers, begin, end)
            np.testing.assert_array_equal(physical["y"][..., : case.out_channels], expected, err_msg=f"{name} {mode}")


HARNESS = """#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
static void *argument(FILE *file, int32_t *bytes) {
  if (fread(bytes, 4, 1, file) != 1) exit(1);
  void *memory = aligned_alloc(64, (*bytes + 63) / 64 * 64);
  if (fread(memory, 1, *bytes, file) != (size_t)*bytes) exit(2);
  return memory;
}
DECLARATIONS
int main(void) {
  FILE *in = fopen("in", "rb"), *out = fopen("out", "wb");
  int32_t bytes;
  void *a[16];
CALLS
  fclose(out);
  return 0;
}
"""


@pytest.mark.arm64
@pytest.mark.parametrize("instruction_set", ["dotprod", "neon"])
@EVERY
def test_arm64_equals_numpy(every: bool, instruction_set: str, tmp_path: Path) -> None:
    need(CROSS, EMULATOR)
    cases = chosen(instruction_set, every)
    kernels, assembly = build_all(cases, instruction_set, tmp_path)
    check_assembly(instruction_set, kernels, assembly)
    declarations, calls, content, expected = [], [], bytearray(), []
    for name, case in cases.items():
        names = kernels[name].arguments
        in_place = case.epilogue.residual is not None
        loaded = [argument for argument in names if not (in_place and argument == "residual")]
        place = {argument: f"a[{loaded.index('y' if in_place and argument == 'residual' else argument)}]" for argument in names}
        declarations.append(f"void {name}({', '.join(['void *'] * len(names))}, int32_t, int32_t);")
        for mode in MODES:
            values = generate(case, mode)
            physical = arguments(case, kernels[name], values)
            for argument in loaded:
                content += np.int32(physical[argument].nbytes).tobytes() + physical[argument].tobytes()
            calls.append(f"  for (int i = 0; i < {len(loaded)}; i++) a[i] = argument(in, &bytes);")
            calls.append(f"  {name}({', '.join(place[argument] for argument in names)}, 0, {kernels[name].tasks});")
            calls.append(f"  fwrite({place['y']}, 1, bytes, out);")
            expected.append((f"{name} {mode}", physical["y"], reference(case, values)))
    source = HARNESS.replace("DECLARATIONS", "\n".join(declarations)).replace("CALLS", "\n".join(calls))
    (tmp_path / "main.c").write_text(source)
    (tmp_path / "in").write_bytes(content)
    subprocess.run([CROSS, "-O1", "-static", "-o", "main", "main.c", "kernels.o"], cwd=tmp_path, check=True)
    subprocess.run([EMULATOR, "-cpu", "max", "./main"], cwd=tmp_path, check=True)
    result = (tmp_path / "out").read_bytes()
    offset = 0
    for label, y, codes in expected:
        found = np.frombuffer(result, y.dtype, y.size, offset).reshape(y.shape)
        offset += y.nbytes
        np.testing.assert_array_equal(found[..., : codes.shape[3]], codes, err_msg=label)
    assert offset == len(result)


def test_stack_limit() -> None:
    """A kernel that needs more than 64 KiB of stack is refused, with the numbers."""
    import tvm
    from tvm import s_tir, te

    x = te.placeholder((4, 40000), "int32", name="x")
    t = te.compute((4, 40000), lambda i, j: x[i, j] + 1, name="t")
    y = te.compute((4, 40000), lambda i, j: t[i, 39999 - j], name="y")
    schedule = s_tir.Schedule(tvm.IRModule({"main": te.create_prim_func([x, y])}))
    schedule.compute_at(schedule.get_sblock("t"), schedule.get_loops(schedule.get_sblock("y"))[0])
    with pytest.raises(ValueError, match="kernel big needs 160000 bytes of stack, more than 65536"):
        lower_kernel(schedule.mod["main"], "big", TARGETS["x86-64"])


def test_generic_serves_what_others_do() -> None:
    """The plain loops are a schedule of every case, so nothing can be left without a kernel."""
    for case in CASES.values():
        assert convolution_generic.build(case, "x86-64").tasks > 0
