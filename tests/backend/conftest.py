"""A tiny program of two kernels, built from real TIR, and its meaning in numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm.script import tirx as T  # noqa: N812

from qcompiler.backend.artifact import Artifact, write_artifact
from qcompiler.backend.program import Address, Call, Port, Program, Space
from qcompiler.backend.tir import lower_kernel
from qcompiler.targets.target import load_target
from tests.tools import need_compiler

ROWS, COLUMNS = 8, 16
ALL_TARGETS = ("x86-avx512vnni", "x86-avxvnni", "x86-avx2", "x86-baseline", "arm64-dotprod", "arm64-neon")


def scale_function(rows: int) -> Any:
    """``clamp(((x - s[0]) * w + b) >> s[1], s[2], s[3])``."""

    @T.prim_func(s_tir=True)
    def scale(
        x: T.Buffer((rows, COLUMNS), "uint8"),
        w: T.Buffer((COLUMNS,), "int8"),
        b: T.Buffer((COLUMNS,), "int32"),
        s: T.Buffer((4,), "int32"),
        y: T.Buffer((rows, COLUMNS), "uint8"),
    ):
        for i in range(rows):
            for j in T.vectorized(COLUMNS):
                with T.sblock("scale"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = T.cast(
                        T.min(T.max(((T.cast(x[vi, vj], "int32") - s[0]) * T.cast(w[vj], "int32") + b[vj]) >> s[1], s[2]), s[3]),
                        "uint8",
                    )

    return scale


def mix_function(rows: int) -> Any:
    """``3 x - r`` as int16."""

    @T.prim_func(s_tir=True)
    def mix(x: T.Buffer((rows, COLUMNS), "uint8"), r: T.Buffer((rows, COLUMNS), "uint8"), y: T.Buffer((rows, COLUMNS), "int16")):
        for i in range(rows):
            for j in T.vectorized(COLUMNS):
                with T.sblock("mix"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = T.cast(T.cast(x[vi, vj], "int32") * 3 - T.cast(r[vi, vj], "int32"), "int16")

    return mix


def _constants(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-127, 128, COLUMNS).astype(np.int8)
    bias = rng.integers(-5000, 5000, COLUMNS).astype(np.int32)
    return weights, bias, np.array([100, 6, 0, 255], dtype=np.int32)


def _scaled(x: np.ndarray, seed: int) -> np.ndarray:
    weights, bias, scalars = _constants(seed)
    return np.clip(((x.astype(np.int64) - scalars[0]) * weights + bias) >> scalars[1], scalars[2], scalars[3])


def expected(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """What the program gives for codes ``[N, 8, 16]``."""
    first = _scaled(x, seed)
    return (first * 3 - _scaled(first, seed + 1)).astype(np.int16)


def make_program(name: str, target: str, batch_tile: int = 1, seed: int = 0) -> Program:
    """Two scalings and a mix; the same kernel runs two layers."""
    blob = b""
    offsets = []
    for layer_seed in (seed, seed + 1):
        for array in _constants(layer_seed):
            blob += bytes(-len(blob) % 64)
            offsets.append(len(blob))
            blob += array.tobytes()
    bound = load_target(target).tvm_target
    functions, calls = [], {}
    plane = ROWS * COLUMNS
    for tile in sorted({batch_tile, 1}):
        names = {part: f"qc_{name}_k_{part}{tile}" for part in ("scale", "mix")}
        functions += [
            lower_kernel(scale_function(tile * ROWS), names["scale"], bound),
            lower_kernel(mix_function(tile * ROWS), names["mix"], bound),
        ]
        workspace = [Address(Space.WORKSPACE, index * batch_tile * plane) for index in range(2)]
        weights = [Address(Space.WEIGHTS, offset) for offset in offsets]
        calls[tile] = (
            Call(names["scale"], (Address(Space.INPUT, 0), *weights[:3], workspace[0]), tile * ROWS, "layer.0"),
            Call(names["scale"], (workspace[0], *weights[3:], workspace[1]), tile * ROWS, "layer.1 */ evil"),
            Call(names["mix"], (*workspace, Address(Space.OUTPUT, 0)), tile * ROWS, "add", alone=tile == 1),
        )
    return Program(
        name=name,
        inputs=(Port("x", "uint8", 8, (ROWS, COLUMNS), "", 0.1, 100),),
        outputs=(Port("y", "int16", 16, (ROWS, COLUMNS), "", 2.0**-7, -3),),
        batch_tile=batch_tile,
        calls=calls[batch_tile],
        tail_calls=calls[1],
        workspace_bytes=2 * batch_tile * plane,
        largest_live_bytes=2 * batch_tile * plane,
        weights=blob,
        packed_code_bytes=2 * COLUMNS,
        weight_code_bytes=2 * COLUMNS,
        functions=tuple(functions),
    )


@pytest.fixture(scope="session")
def program_maker() -> Callable[..., Program]:
    """``make_program``."""
    return make_program


@pytest.fixture(scope="session")
def meaning() -> Callable[..., np.ndarray]:
    """``expected``."""
    return expected


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """The artifact of the tiny program by (name, target, options), each built once."""
    built: dict[Any, Artifact] = {}

    def get(name: str = "tiny", target: str = "x86-baseline", batch_tile: int = 1, seed: int = 0, pool: bool = True) -> Artifact:
        key = (name, target, batch_tile, seed, pool)
        if key not in built:
            need_compiler(target)
            out: Path = tmp_path_factory.mktemp("artifact") / "net"
            built[key] = write_artifact(make_program(name, target, batch_tile, seed), load_target(target), out, pool=pool)
        return built[key]

    return get
