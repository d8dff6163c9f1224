"""Many integer graphs in one library: compiled together, run together, compared with the reference one by one."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from qcompiler.backend.artifact import Artifact, write_artifact
from qcompiler.backend.library import Library
from qcompiler.backend.lower import lower
from qcompiler.bits import Bits
from qcompiler.interpret import run_integer
from qcompiler.ir.dtypes import I32, IntegerType
from qcompiler.ir.graph import WEIGHTED, Graph, Stage, Value
from qcompiler.ir.text import print_graph
from qcompiler.pipeline import Settings, to_integer
from qcompiler.targets.target import load_target
from tests.backend.c_program import STRICT
from tests.tools import CROSS, EMULATOR, need_compiler
from tests.wall.random_graphs import BITS, random_graph, random_inputs

Array = np.ndarray[Any, Any]
SAMPLES = 3  # with batch_tile=2 both the tiled and the single-sample kernels run
MAIN = Path(__file__).with_name("run_many.c")


def random_integer_graph(seed: int) -> Graph:
    """A random float graph, quantized with random bits on random data."""
    random = Random(seed)
    graph = random_graph(random)
    bits = random.choice(BITS)
    weighted = any(node.op in (*WEIGHTED, "conv3d", "conv_transpose2d") for node in graph.nodes)
    pins = {"*": Bits.parse(bits)} if weighted else {}
    settings = Settings(tuple(random_inputs(graph, 4, seed)), "minmax", pins=pins, output_bits=random.choice((8, 16, 16, 32)))
    return to_integer(graph, settings)


def joined(graphs: Sequence[Graph]) -> Graph:
    """One graph with all inputs, nodes and outputs; names begin with ``g<index>_``."""
    inputs, constants, nodes, outputs = [], [], [], list[str]()
    for index, graph in enumerate(graphs):

        def renamed(name: str, prefix: str = f"g{index}_") -> str:
            return prefix + name

        inputs += [replace(v, name=renamed(v.name)) for v in graph.inputs]
        constants += [replace(c, name=renamed(c.name)) for c in graph.constants]
        nodes += [
            replace(
                node,
                inputs=tuple(map(renamed, node.inputs)),
                outputs=tuple(replace(v, name=renamed(v.name)) for v in node.outputs),
                origin=renamed(node.origin),
            )
            for node in graph.nodes
        ]
        outputs += map(renamed, graph.outputs)
    return Graph("many", Stage.INTEGER, tuple(inputs), tuple(constants), tuple(nodes), tuple(outputs))


def codes(value: Value, random: np.random.Generator, extreme: int | None) -> Array:
    """Random codes of one input, or all its smallest (0) or largest (1)."""
    dtype = value.type.dtype
    assert isinstance(dtype, IntegerType)
    shape = value.type.with_batch(SAMPLES)
    low, high = (-3, 9) if dtype == I32 else (dtype.minimum, dtype.maximum)  # indices may lie outside of their table
    if extreme is not None:
        return np.full(shape, (low, high)[extreme], dtype.container)
    return random.integers(low, high, shape, endpoint=True).astype(dtype.container)


@dataclass(frozen=True)
class Mismatch:
    """A graph of which an output differs; ``text`` is its dump."""

    index: int
    output: str
    wrong: int
    text: str


def build_many(graphs: Sequence[Graph], target: str, folder: Path, batch_tile: int = 1) -> Artifact:
    """The library of all graphs for one target; skips the test where nothing compiles for it."""
    need_compiler(target)
    chosen = load_target(target)
    return write_artifact(lower(joined(graphs), chosen.instruction_set, chosen.tvm_target, batch_tile), chosen, folder)


def mismatches(graphs: Sequence[Graph], artifact: Artifact, seed: int = 0) -> list[Mismatch]:
    """Run the library on random, smallest and largest codes; what is not the reference's, bit for bit."""
    found: list[Mismatch] = []
    emulated = load_target(artifact.description["target"]).architecture == "aarch64"
    library = None if emulated else Library(artifact.folder)
    for extreme in (None, 0, 1):
        random = np.random.default_rng(seed)
        inputs = [[codes(v, random, extreme) for v in graph.inputs] for graph in graphs]
        flat = [x for xs in inputs for x in xs]
        results = iter(_emulate(artifact, flat) if library is None else _called(library, flat))
        for index, (graph, xs) in enumerate(zip(graphs, inputs, strict=True)):
            for name, wanted in zip(graph.outputs, run_integer(graph, xs), strict=True):
                got = next(results)
                if got.dtype != wanted.dtype or got.shape != wanted.shape or not np.array_equal(got, wanted):
                    wrong = int((got != wanted).sum()) if got.shape == wanted.shape else -1
                    found.append(Mismatch(index, name, wrong, print_graph(graph)))
    return found


def _called(library: Library, inputs: Sequence[Array]) -> Sequence[Array]:
    result = library.run_int(*inputs)
    return (result,) if isinstance(result, np.ndarray) else result


def _emulate(artifact: Artifact, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of the statically linked library under qemu-user."""
    folder, name = artifact.folder, artifact.description["name"]
    program, ports = folder / "run_many", artifact.description["outputs"]
    sizes = [x.nbytes // SAMPLES for x in inputs]
    outputs = [int(np.prod(port["shape"])) * np.dtype(port["dtype"]).itemsize for port in ports]
    if not program.exists():
        flags = [f"-DMODEL={name}", f"-DINPUT_BYTES={','.join(map(str, sizes))}", f"-DOUTPUT_BYTES={','.join(map(str, outputs))}"]
        command = [CROSS, *STRICT, "-std=c11", "-O1", "-static", *flags, f"-I{folder}", str(MAIN), str(folder / "libnet.a")]
        subprocess.run([*command, "-pthread", "-o", str(program)], check=True)
    (folder / "in").write_bytes(b"".join(x.tobytes() for x in inputs))
    paths = [str(folder / "in"), str(folder / "out")]
    subprocess.run([EMULATOR, str(program), str(SAMPLES), *paths], check=True, timeout=600)
    data, start, arrays = (folder / "out").read_bytes(), 0, list[Array]()
    for port, size in zip(ports, outputs, strict=True):
        part = np.frombuffer(data[start : start + size * SAMPLES], dtype=port["dtype"])
        arrays.append(part.reshape(SAMPLES, *port["shape"]))
        start += size * SAMPLES
    return arrays
