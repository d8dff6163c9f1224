"""The command line: ``qcompiler compile | build | export | run | inspect | targets``.

Exit codes: 0 done, 1 a problem of the input (a CompileError), 2 wrong usage, 3 a mistake of the compiler itself.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcompiler.errors import CompileError, InternalError, QCompilerError

if TYPE_CHECKING:
    import numpy as np

    from qcompiler.backend.library import Library

app = typer.Typer(
    name="qcompiler",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Compile float models to integer-only machine code with no runtime.\n\n"
    "A first try, with an ONNX file and a .npy of model inputs to calibrate on:\n\n"
    "`qcompiler compile net.onnx --calibration inputs.npy`\n\n"
    "`qcompiler build net.onnx --calibration inputs.npy --target arm64 --out build/`\n\n"
    "Exit codes: 0 done, 1 a problem of the input, 2 wrong usage, 3 a mistake of qcompiler itself.",
)


def show_version(wanted: bool) -> None:
    """Print the version and end, if ``wanted``."""
    if wanted:
        from importlib.metadata import version

        typer.echo(version("qcompiler"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="print the version")] = False,
) -> None:
    """Options of the program itself."""


class Layout(StrEnum):
    """How 4-D inputs lie in memory."""

    NCHW = "NCHW"
    NHWC = "NHWC"


Model = Annotated[
    str,
    typer.Argument(
        help="an ONNX file (.onnx), a torch ExportedProgram (.pt2), a dump (.qir), or package.module:function, a Python function "
        "without arguments that returns an nn.Module"
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help=".npy with samples [S, ...] as the model takes them, .npz with one array, or one per input by name, or a folder of "
        "images, with --preprocess"
    ),
]
Preprocess = Annotated[
    Path | None, typer.Option(help="TOML or JSON file that says how images become inputs: size, resize, mean, std, channels, ...")
]
TargetName = Annotated[str, typer.Option(help="native, x86, arm64, or a name that `qcompiler targets` lists")]
BitsOption = Annotated[str | None, typer.Option(help="bits of all layers: 4 (weights), w4a8, w4a4, w2a8, ...")]
Pins = Annotated[
    list[str] | None, typer.Option("--pin", help="bits of some layers, PATTERN=BITS, as in 'layer3.*=w4a8'; may be repeated")
]
Name = Annotated[str | None, typer.Option(help="prefix of the C symbols; default: the model's name")]
DumpIr = Annotated[Path | None, typer.Option(help="folder for one text file after each pass, the TIR and the assembly")]
OutputBits = Annotated[int, typer.Option(help="bits of the network's outputs: 8, 16 or 32")]
BatchTile = Annotated[int, typer.Option(help="samples that kernels work on at once; any batch can be run")]
InputLayout = Annotated[Layout, typer.Option(help="layout of 4-D inputs")]
Observer = Annotated[
    list[str] | None,
    typer.Option(
        help="how calibration chooses ranges: minmax, moving-average, percentile:99.99, mse or entropy, for all tensors or as "
        "KIND=NAME for input, activation, output or a pattern over layer names; may be repeated"
    ),
]
Pool = Annotated[bool, typer.Option(help="put a pthread pool into the library")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]


def emit(as_json: bool, data: Callable[[], Any], text: Callable[[], str]) -> None:
    """Print ``data`` as JSON or ``text`` for people."""
    typer.echo(json.dumps(data(), indent=2, sort_keys=True) if as_json else text().rstrip("\n"))


@contextmanager
def errors_as_exit_codes(as_json: bool) -> Iterator[None]:
    """Turns what qcompiler raises into a message and an exit code."""
    try:
        yield
    except CompileError as error:
        if as_json:
            parts = {"code": error.code, "where": error.where, "problem": error.problem, "remedy": error.remedy}
            typer.echo(json.dumps({"error": parts}, indent=2))
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except BrokenPipeError:
        raise  # whoever read the output has seen enough
    except Exception as error:
        if isinstance(error, QCompilerError):
            typer.echo(str(error), err=True)
        else:
            traceback.print_exc()
        typer.echo("This is a mistake of qcompiler, not of your model: please report it.", err=True)
        raise typer.Exit(3) from None


def load_model(text: str) -> Any:
    """What the MODEL argument names; CLI001 if it is nothing of the kind."""
    if text.endswith(".pt2") and Path(text).exists():
        import torch

        try:
            return torch.export.load(text)
        except Exception as problem:
            first = str(problem).partition("\n")[0]
            remedy = "name a file that torch.export.save wrote, with this version of torch"
            raise CompileError("CLI001", text, f"the program cannot be loaded: {first}", remedy) from None
    module, mark, attribute = text.partition(":")
    if not mark or Path(text).exists():
        return text
    from importlib import import_module

    sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(import_module(module), attribute)()
    except Exception as problem:
        what = f"the model cannot be made: {type(problem).__name__}: {problem}"
        raise CompileError("CLI001", text, what, "name a function without arguments as package.module:function") from None
    finally:
        sys.path.pop(0)
    return made


def calibration_data(path: Path | None, preprocess: Path | None) -> Any:
    """What ``--calibration`` and ``--preprocess`` name; CLI002 for the latter alone, SAMPLES errors for what cannot be read."""
    from qcompiler.samples.preprocessing import Preprocessing
    from qcompiler.samples.source import open_samples

    if path is None:
        if preprocess is not None:
            problem = "there are no images to preprocess"
            raise CompileError("CLI002", "--preprocess", problem, "name a folder of images with --calibration")
        return None
    return open_samples(path, None if preprocess is None else Preprocessing.read(preprocess))


def load_samples(path: Path) -> Any:
    """The arrays of a .npy or .npz file, whole; SAMPLES001 if it is neither."""
    from qcompiler.samples.numpy_files import NpzSamples, open_numpy

    opened = open_numpy(path)
    if not isinstance(opened, NpzSamples):
        return opened
    arrays = opened.read()
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def parse_observers(wishes: list[str] | None) -> str | dict[str, str] | None:
    """``--observer`` as the ``observer`` of the Python interface; CLI006 for a name for all tensors among others."""
    if not wishes:
        return None
    if len(wishes) == 1 and "=" not in wishes[0]:
        return wishes[0]
    pairs = [wish.rpartition("=") for wish in wishes]
    if any(not mark for _, mark, _ in pairs):
        problem = f"{next(name for _, mark, name in pairs if not mark)!r} is for all tensors, but there are others"
        raise CompileError("CLI006", "--observer", problem, "write KIND=NAME for each, as in input=minmax")
    return {kind: name for kind, _, name in pairs}


def named_inputs(library: Library, samples: Any) -> list[np.ndarray[Any, Any]]:
    """Float arrays for the library's inputs out of what :func:`load_samples` gave; CLI004 if one is not there."""
    import numpy as np

    if not isinstance(samples, dict):
        samples = {port.name: samples for port in library.inputs[:1]}
    missing = [port.name for port in library.inputs if port.name not in samples]
    if missing:
        problem = f"there are the arrays {sorted(samples)}, but not {', '.join(missing)}"
        raise CompileError("CLI004", library.name, problem, "save one array for each input, by its name, with numpy.savez")
    arrays = [samples[port.name] for port in library.inputs]
    return [x.astype(np.float32) if x.dtype.kind in "iub" else x for x in arrays]


def parse_pins(bits: str | None, pins: list[str] | None) -> dict[str, int | str]:
    """``--bits`` and ``--pin`` as the ``bits`` of the Python interface; CLI003 for a pin without ``=``."""
    wishes: dict[str, int | str] = {}
    if bits is not None:
        wishes["*"] = int(bits) if bits.isdigit() else bits
    for pin in pins or []:
        pattern, mark, value = pin.rpartition("=")
        if not mark:
            raise CompileError("CLI003", "--pin", f"{pin!r} has no =", "write PATTERN=BITS, as in 'layer3.*=w4a8'")
        wishes[pattern] = int(value) if value.isdigit() else value
    return wishes


@app.command(name="compile")
def compile_command(
    model: Model,
    calibration: Calibration = None,
    preprocess: Preprocess = None,
    target: TargetName = "native",
    bits: BitsOption = None,
    pin: Pins = None,
    name: Name = None,
    observer: Observer = None,
    output_bits: OutputBits = 16,
    batch_tile: BatchTile = 1,
    input_layout: InputLayout = Layout.NCHW,
    pool: Pool = True,
    dump_ir: DumpIr = None,
    as_json: AsJson = False,
) -> None:
    """Compile MODEL, load it here, check it against the reference, and report layer by layer; nothing is kept.

    `qcompiler compile net.onnx --calibration inputs.npy --dump-ir dumps/`
    """
    import qcompiler
    from qcompiler.interrupts import temporary_folder

    with errors_as_exit_codes(as_json), temporary_folder() as temporary:
        dumps = dump_ir or temporary
        library = qcompiler.compile(
            load_model(model),
            calibration=calibration_data(calibration, preprocess),
            target=target,
            bits=parse_pins(bits, pin),
            name=name,
            observer=parse_observers(observer),
            output_bits=output_bits,
            batch_tile=batch_tile,
            input_layout=input_layout.value,
            pool=pool,
            dump_ir=dumps,
            progress=not as_json,
        )
        checked = check_against_reference(library, dumps)
        latency = measure_latency(library)
        report = library.report()

        def text() -> str:
            check = f"output codes equal the reference's on {checked} random samples"
            return f"{report}{check}\nlatency: {latency:.3f} ms (batch 1, 1 thread, median of this run)"

        emit(as_json, lambda: {**as_data(report.to_json()), "checked_samples": checked, "latency_ms": latency}, text)


@app.command()
def build(
    model: Model,
    out: Annotated[Path, typer.Option(help="folder for net.o, libnet.a, libnet.so, net.h, net.json and net.report.json")],
    calibration: Calibration = None,
    preprocess: Preprocess = None,
    target: TargetName = "native",
    bits: BitsOption = None,
    pin: Pins = None,
    name: Name = None,
    observer: Observer = None,
    output_bits: OutputBits = 16,
    batch_tile: BatchTile = 1,
    input_layout: InputLayout = Layout.NCHW,
    pool: Pool = True,
    dump_ir: DumpIr = None,
    as_json: AsJson = False,
) -> None:
    """Compile MODEL ahead of time into a C library for a device.

    `qcompiler build net.onnx --calibration inputs.npy --target arm64-dotprod --pin 'layer3.*=w4a8' --out build/`
    """
    import qcompiler

    with errors_as_exit_codes(as_json):
        artifact = qcompiler.build(
            load_model(model),
            out=out,
            calibration=calibration_data(calibration, preprocess),
            target=target,
            bits=parse_pins(bits, pin),
            name=name,
            observer=parse_observers(observer),
            output_bits=output_bits,
            batch_tile=batch_tile,
            input_layout=input_layout.value,
            pool=pool,
            dump_ir=dump_ir,
            progress=not as_json,
        )

        def text() -> str:
            return f"{artifact.report()}written to {out}/: {', '.join(artifact.files())}"

        emit(as_json, lambda: {**as_data(artifact.report().to_json()), "files": artifact.files()}, text)


@app.command()
def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="the ONNX file to write")],
    as_float: Annotated[bool, typer.Option("--float", help="write the float graph; nothing is quantized")] = False,
    calibration: Calibration = None,
    preprocess: Preprocess = None,
    bits: BitsOption = None,
    pin: Pins = None,
    name: Name = None,
    observer: Observer = None,
    output_bits: OutputBits = 16,
    as_json: AsJson = False,
) -> None:
    """Write MODEL, quantized, as ONNX in QDQ form, for Netron and other runtimes; or as float ONNX, of any stage of a dump.

    `qcompiler export net.onnx --calibration inputs.npy --bits w4a8 --out net.qdq.onnx`
    """
    import qcompiler

    with errors_as_exit_codes(as_json):
        qcompiler.export_onnx(
            load_model(model),
            out,
            as_float=as_float,
            calibration=calibration_data(calibration, preprocess),
            bits=parse_pins(bits, pin),
            name=name,
            observer=parse_observers(observer),
            output_bits=output_bits,
            progress=not as_json,
        )
        emit(as_json, lambda: {"file": str(out), "bytes": out.stat().st_size}, lambda: f"written: {out}")


@app.command()
def run(
    artifact: Annotated[Path, typer.Argument(help="folder that `qcompiler build` wrote")],
    inputs: Annotated[Path, typer.Argument(help=".npy or .npz with samples as the float model takes them")],
    output: Annotated[Path | None, typer.Option(help=".npy for the first output, as float32")] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads of the library's own pool")] = 1,
    top: Annotated[int, typer.Option(min=1, help="how many classes to print for each sample")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a library on samples from a file and print the best classes of each.

    `qcompiler run build/ inputs.npy --output logits.npy`
    """
    import numpy as np

    from qcompiler.backend.library import load

    with errors_as_exit_codes(as_json):
        library = load(artifact)
        result = library(*named_inputs(library, load_samples(inputs)), threads=threads)
        first = np.asarray(result[0] if isinstance(result, tuple) else result)
        if output is not None:
            try:
                np.save(output, first)
            except OSError as problem:
                what = f"the output cannot be written: {problem.strerror}"
                raise CompileError(
                    "CLI005", str(output), what, "name a file in a folder that exists and can be written"
                ) from None
        flat = first.reshape(len(first), -1)
        best = np.argsort(-flat, axis=1, kind="stable")[:, :top]

        def text() -> str:
            lines = (", ".join(f"{c} ({flat[i, c]:.4g})" for c in row) for i, row in enumerate(best))
            return "\n".join(f"{i}: {line}" for i, line in enumerate(lines))

        emit(as_json, lambda: {"top": best.tolist(), "shape": list(first.shape)}, text)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="an artifact folder, a dump (.qir), or a model (.onnx, .pt2)")],
    as_json: AsJson = False,
) -> None:
    """Show what an artifact, a dump or a model consists of.

    An artifact gives its report; a dump is checked and printed; a model is imported and printed as the float graph.

    `qcompiler inspect build/` or `qcompiler inspect dumps/16-quantize.qir`
    """
    from qcompiler.api import load_graph
    from qcompiler.ir.text import MemoryStore, print_graph
    from qcompiler.ir.verify import verify
    from qcompiler.ops.table import OPERATORS
    from qcompiler.report import read_report

    with errors_as_exit_codes(as_json):
        if path.is_dir():
            report = read_report(path)
            emit(as_json, lambda: as_data(report.to_json()), lambda: str(report))
            return
        imported = load_graph(load_model(str(path)), None)
        graph, notes = imported.graph, list(imported.notes)
        verify(graph, OPERATORS)

        def data() -> Any:
            nodes = [
                {"op": n.op, "inputs": list(n.inputs), "output": n.output.name, "type": str(n.output.type), "layer": n.origin}
                for n in graph.nodes
            ]
            return {"name": graph.name, "stage": graph.stage.value, "nodes": nodes, "notes": notes}

        emit(as_json, data, lambda: "\n".join([print_graph(graph, MemoryStore()).rstrip(), *notes]))


@app.command()
def targets(as_json: AsJson = False) -> None:
    """List the targets, and which of them this machine runs.

    `qcompiler targets --json`
    """
    from qcompiler.targets.target import ALIASES, NATIVE_ORDER, available_targets, host_runs, load_target

    with errors_as_exit_codes(as_json):
        known = [load_target(name) for name in available_targets()]
        native = next((name for name in NATIVE_ORDER if host_runs(load_target(name))), None)
        rows = [
            {
                "name": t.name,
                "description": t.description,
                "bits": list(t.bit_pairs),
                "runs_here": host_runs(t),
                "native": t.name == native,
                "short": [short for short, name in ALIASES.items() if name == t.name],
            }
            for t in known
        ]

        def text() -> str:
            return target_table(rows)

        emit(as_json, lambda: rows, text)


def target_table(rows: list[dict[str, Any]]) -> str:
    """The targets for people."""
    import io

    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("target", "runs here", "bits", "description"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        here = "native" if row["native"] else ("yes" if row["runs_here"] else "no")
        name = " = ".join((row["name"], *row["short"]))
        table.add_row(name, here, " ".join(row["bits"]), row["description"])
    text = io.StringIO()
    Console(file=text, width=110).print(table)
    return text.getvalue()


def as_data(text: str) -> dict[str, Any]:
    """The object that a JSON text holds."""
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def check_against_reference(library: Library, dumps: Path, samples: int = 2) -> int:
    """Compare the library with the integer graph of the last dump on random codes, for every input of the network.

    Returns the number of samples. Raises InternalError if a single bit differs.
    """
    import numpy as np

    from qcompiler.dump import read_dump
    from qcompiler.interpret import run_integer
    from qcompiler.ir.dtypes import IntegerType

    graph = read_dump(max(dumps.glob("*.qir")))
    generator = np.random.default_rng(0)
    given, codes = [], []
    for value, port in zip(graph.inputs, library.inputs, strict=True):
        kind = value.type.dtype
        assert isinstance(kind, IntegerType)
        random = generator.integers(kind.minimum, kind.maximum + 1, (samples, *value.type.with_batch(1)[1:]), dtype=port.dtype)
        codes.append(random)
        given.append(np.ascontiguousarray(np.moveaxis(random, 1, -1)) if port.layout == "NHWC" else random)
    found = library.run_int(*given)
    for index, (a, b) in enumerate(zip(found if isinstance(found, tuple) else (found,), run_integer(graph, codes), strict=True)):
        if not np.array_equal(a, b):
            raise InternalError(f"output {index} of {library.name} differs from the reference in {int((a != b).sum())} codes")
    return samples


def zero_inputs(library: Library) -> list[np.ndarray[Any, Any]]:
    """One sample of codes, all zero points, for every input."""
    import numpy as np

    return [np.full((1, *p.shape), p.zero, dtype=p.dtype) for p in library.inputs]


def measure_latency(library: Library, runs: int = 30) -> float:
    """Median milliseconds of ``runs`` calls with one sample and one thread, after a warm-up."""
    import statistics
    import time

    codes = zero_inputs(library)
    library.run_int(*codes)
    times: list[float] = []
    for _ in range(runs):
        begin = time.perf_counter()
        library.run_int(*codes)
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def main() -> None:
    """The entry point of the console script. SIGTERM ends it as Ctrl-C does: what is temporary is removed."""
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    app()
