"""``compile`` and ``build``: a float model in, an integer-only C library out."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qcompiler.bits import Bits
from qcompiler.calibrate import FirstSamples
from qcompiler.dump import Dumper
from qcompiler.errors import CompileError
from qcompiler.interrupts import temporary_folder
from qcompiler.ir.graph import WEIGHTED, Graph, Stage
from qcompiler.loading import load_with_samples
from qcompiler.observers.choice import ObserverChoice, ObserverWish
from qcompiler.output_quality import measure_quality, quality_samples
from qcompiler.passes.correct_bias import CorrectBias
from qcompiler.pipeline import Settings, to_calibrated, to_integer
from qcompiler.progress import Progress, progress_bars
from qcompiler.report import Report, artifact_facts, layer_reports
from qcompiler.samples.source import open_samples
from qcompiler.search.budget import Budget, size_notes
from qcompiler.tuning.round_weights import QUALITIES

if TYPE_CHECKING:
    from qcompiler.backend.artifact import Artifact
    from qcompiler.backend.library import Library
    from qcompiler.importers.builder import ImportedModel
    from qcompiler.search.pareto import Curve
    from qcompiler.targets.target import Target
    from qcompiler.training.module import TrainableModel
    from qcompiler.training.train import Loss

RATE: Final = 0.3
"""Of fine-tuning, see ``qcompiler.training.module``."""
VERIFY_SHARE: Final = 0.05
"""Of the time of a compilation: how long the reference may take for more samples than it runs at least."""

BitsWish = int | str | Bits | Mapping[str, int | str | Bits]


@dataclass(frozen=True)
class Options:
    """How to compile; every field is a keyword of :func:`compile` and :func:`build`.

    ``calibration``: samples to choose ranges from, see ``qcompiler.calibrate``; or the path of a ``.npy`` or ``.npz`` file; or a
    folder of images as :class:`qcompiler.ImageFolder`; by default samples distilled from the model's batch norms, see
    ``qcompiler.distill``.
    ``target``: "native" (the best that this CPU runs), "x86", "arm64", or a name that ``qcompiler targets`` lists.
    ``bits``: for all layers (4, "w4a4") or by patterns over layer names ({"layer3.*": 4}); 8 where nothing is said.
    ``budget``: limits within which bits are chosen for every layer that ``bits`` says nothing about, see
    :class:`qcompiler.Budget`.
    ``name``: prefix of the C symbols, a C identifier; by default made from the model's name.
    ``observer``: how calibration chooses ranges: "minmax", "moving-average", "percentile", "mse" or "entropy" for every tensor,
    or a dict by kind of tensor and by patterns over layer names, see ``qcompiler.observers.choice``; by default "minmax" for
    inputs and "mse" for the rest.
    ``quality``: how much is done for the accuracy of few bits: "fast", "good" or "best", see ``qcompiler.tuning.round_weights``.
    ``output_bits``: 8, 16 or 32 bits for network outputs.
    ``batch_tile``: samples that kernels work on at once; any batch size can be run whatever the tile.
    ``input_layout``: "NCHW", or "NHWC" if the caller has images with the channels last.
    ``pool``: put a pthread pool into the library.
    ``tune``: how kernels are tiled where a model of the machine is not trusted alone: "off" (by the table that ships with the
    target, so that the bytes depend on the input alone), "cached" (also by what was measured on this machine before) or "full"
    (what is not known yet is measured now), see ``qcompiler.cost.tile_search``.
    ``verify``: run the library on a few samples beside the reference before it is written, here or under an installed emulator;
    a difference is an InternalError that names the layer. Where nothing runs the target, or without it, the report says so.
    ``dump_ir``: a folder that gets one readable file after each pass, the TIR and the assembly.
    ``progress``: show bars on a terminal.
    """

    calibration: Any = None
    target: str = "native"
    bits: BitsWish | None = None
    budget: Budget | None = None
    name: str | None = None
    observer: ObserverWish = None
    quality: str = "good"
    output_bits: int = 16
    batch_tile: int = 1
    input_layout: str = "NCHW"
    pool: bool = True
    tune: str = "off"
    verify: bool = True
    dump_ir: str | Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        choices = {
            "quality": QUALITIES,
            "output_bits": (8, 16, 32),
            "input_layout": ("NCHW", "NHWC"),
            "tune": ("off", "cached", "full"),
            "verify": (True, False),
        }
        for key, legal in choices.items():
            if getattr(self, key) not in legal:
                problem = f"{key} is {getattr(self, key)!r}"
                raise CompileError("OPTION001", key, problem, f"choose one of {', '.join(map(repr, legal))}")
        if not isinstance(self.batch_tile, int) or not 1 <= self.batch_tile <= 64:
            raise CompileError("OPTION001", "batch_tile", f"batch_tile is {self.batch_tile!r}", "choose 1 to 64")
        if self.name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", self.name):
            raise CompileError("OPTION002", "name", f"{self.name!r} is not a C identifier", "use letters, digits and _")
        ObserverChoice.parse(self.observer)


def compile(model: Any, example_inputs: Any = None, **options: Any) -> Library:
    """Compile ``model`` and load the library into this process.

    ``model``: an ``nn.Module``, ``fx.GraphModule``, ``ExportedProgram``, ONNX ``ModelProto``, or the path of an ONNX file or of a
    dump (``.qir``). ``example_inputs``: a tensor or tuple of tensors for an ``nn.Module`` or an ONNX model that leaves sizes
    open; by default the first calibration sample. Options: the fields of :class:`Options`. Raises CompileError with what to
    change.

    The artifact is gone once it is loaded; use :func:`build` to keep it.
    """
    from qcompiler.backend.library import Library
    from qcompiler.targets.target import host_refusal, load_target

    refusal = host_refusal(load_target(options.get("target", "native")))
    if refusal:  # Library says so too, but only when everything is built
        remedy = "compile for 'native', or build for this target and run it where it belongs"
        raise CompileError("RUN002", f"target {options['target']!r}", refusal, remedy)
    with temporary_folder() as folder:
        build(model, example_inputs, out=folder / "library", **options)
        return Library(folder / "library")


def build(model: Any, example_inputs: Any = None, *, out: str | Path, **options: Any) -> Artifact:
    """Compile ``model`` ahead of time into the folder ``out``: net.o, libnet.a, libnet.so, net.h, net.json, net.report.json.

    ``model``, ``example_inputs`` and options as for :func:`compile`. The folder appears when everything is done: nothing
    half-written is left behind. Raises CompileError with what to change.
    """
    settings = read_options(options)
    with progress_bars(settings.progress) as progress:
        return _build(model, example_inputs, Path(out), settings, progress)


def export_onnx(model: Any, path: str | Path, example_inputs: Any = None, *, as_float: bool = False, **options: Any) -> Path:
    """Quantize ``model`` and write its integer graph to the file ``path`` as ONNX in QDQ form, float in and float out.

    ``model``: what :func:`compile` takes, a graph, or a dump of any stage; ``as_float``: write the float graph as it is, with
    nothing quantized. Options as for :func:`compile`; those about machine code change nothing here. Gives ``path``.
    What is written, and where a runtime's numbers differ from the library's: ``qcompiler.exporters.onnx_model``.
    Raises CompileError with what to change.
    """
    from qcompiler.exporters.onnx_model import to_onnx, write_onnx
    from qcompiler.targets.target import load_target

    settings = read_options(options)
    with progress_bars(settings.progress) as progress:
        progress.advance("import", 0)
        imported, graph, calibration = import_model(model, example_inputs, settings, progress, distilling=not as_float)
        if as_float and graph.stage is Stage.INTEGER:
            remedy = "export a dump of an earlier stage, or the model itself"
            raise CompileError("OPTION004", "as_float", f"{graph.name} is a graph of integers", remedy)
        if not as_float:
            pins = parse_bits(settings.bits)
            passing = _settings(calibration, pins, settings, FirstSamples(), progress, imported)
            passing, _ = _with_chosen_bits(graph, passing, settings, load_target(settings.target))
            graph = to_integer(graph, passing, lambda *_: progress.advance("passes"))
        write_onnx(to_onnx(graph, imported.final_activations), Path(path))
    return Path(path)


def pareto(model: Any, example_inputs: Any = None, *, by: str = "size", points: int = 8, **options: Any) -> Curve:
    """The best bits at every size (or ``by`` "latency" or "bops"), at most ``points`` of them, each quantized, built and run.

    ``model``, ``example_inputs`` and options as for :func:`compile`; ``budget`` may limit the other resources, and says the
    metric and the choices of bits. Raises CompileError with what to change.
    """
    from qcompiler.search.choose import sweep
    from qcompiler.search.pareto import check_sweep
    from qcompiler.targets.target import load_target

    check_sweep(by, points)
    settings = read_options(options)
    budget = settings.budget or Budget(size="100%")
    settings = replace(settings, budget=budget)
    target = load_target(settings.target)
    with progress_bars(settings.progress) as progress:
        progress.advance("import", 0)
        imported, graph, calibration = import_model(model, example_inputs, settings, progress)
        passing = _settings(calibration, parse_bits(settings.bits), settings, FirstSamples(), progress, imported)
        calibrated = to_calibrated(graph, passing, lambda *_: progress.advance("passes"))
        return sweep(graph, calibrated, passing, budget, target, settings.input_layout, by, points, settings.tune)


def trainable(model: Any, example_inputs: Any = None, **options: Any) -> TrainableModel:
    """``model``, quantized, as a torch module to train in a loop of one's own; see ``qcompiler.training.module``.

    ``model``, ``example_inputs`` and options as for :func:`compile`; the parameters begin as what ``quality`` gives on the
    calibration samples. ``compile(module)`` and ``build(module, ...)`` compile what it has become. Raises CompileError with what
    to change.
    """
    from qcompiler.targets.target import load_target
    from qcompiler.training.module import TrainableModel

    settings = read_options(options)
    with progress_bars(settings.progress) as progress:
        progress.advance("import", 0)
        imported, graph, calibration = import_model(model, example_inputs, settings, progress)
        passing = _settings(calibration, parse_bits(settings.bits), settings, FirstSamples(), progress, imported)
        allocated: dict[Stage, Graph] = {}
        passing, _ = _with_chosen_bits(graph, passing, settings, load_target(settings.target))
        to_integer(graph, passing, lambda _, g: allocated.update({g.stage: g}))
        return TrainableModel(allocated[Stage.ALLOCATED], allocated[Stage.CALIBRATED], passing, imported)


def fine_tune(
    model: Any,
    data: Any,
    example_inputs: Any = None,
    *,
    epochs: int = 3,
    loss: Loss | None = None,
    rate: float = RATE,
    seed: int = 0,
    **options: Any,
) -> TrainableModel:
    """Train ``model`` as the integer network that it becomes, with straight-through gradients and learned steps.

    ``model``: what :func:`trainable` takes, with options as there, or what it gave. ``data``: arrays ``(inputs, labels)`` or
    ``inputs``, or an iterable of batches such as a ``DataLoader``, see ``qcompiler.training.data``. ``loss``: of the outputs,
    those of the float model, and the labels or None; by default the KL divergence from the float model, and the cross entropy
    of labels. ``rate`` multiplies all learning rates. The module that it gives can be compiled, or trained further.
    Raises CompileError with what to change.
    """
    from qcompiler.training.module import TrainableModel
    from qcompiler.training.train import train

    module = model if isinstance(model, TrainableModel) else trainable(model, example_inputs, **options)
    with progress_bars(read_options(options).progress) as progress:
        module.history += train(module, data, epochs, loss, rate, seed, progress)
    return module


def read_options(options: Mapping[str, Any]) -> Options:
    """Keywords as :class:`Options`; OPTION003 where there is no such option."""
    known = {f: v for f, v in options.items() if f in Options.__dataclass_fields__}
    if len(known) != len(options):
        wrong = ", ".join(sorted(set(options) - set(known)))
        legal = ", ".join(Options.__dataclass_fields__)
        raise CompileError("OPTION003", "options", f"there is no option {wrong}", f"the options are {legal}")
    return Options(**known)


def import_model(
    model: Any, example_inputs: Any, options: Options, progress: Progress | None = None, distilling: bool = True
) -> tuple[ImportedModel, Graph, Any]:
    """What the import gave, its graph under the name that was wished for, and the calibration data, with nothing taken away.

    ``distilling``: where data is needed and there is none, make it of the model's batch norms if it has some, and say so.
    """
    imported, calibration = load_with_samples(model, example_inputs, open_samples(options.calibration))
    graph = replace(imported.graph, name=options.name or identifier(imported.graph.name))
    if distilling and calibration is None:
        from qcompiler.distill.stand_in import stand_in

        distilled = stand_in(graph, progress)
        if distilled is not None:
            calibration, imported = distilled.samples, replace(imported, notes=(distilled.note(), *imported.notes))
    return imported, graph, calibration


def _build(model: Any, example_inputs: Any, out: Path, options: Options, progress: Progress) -> Artifact:
    from qcompiler.backend.artifact import BuiltLibrary, build_library
    from qcompiler.backend.lower import lower
    from qcompiler.cost.tile_cache import tiles_for
    from qcompiler.cost.trace import trace
    from qcompiler.targets.target import load_target
    from qcompiler.verification.runner import refusal
    from qcompiler.verification.verify import verify

    begin = time.perf_counter()

    target = load_target(options.target)
    pins = parse_bits(options.bits)
    progress.advance("import", 0)
    imported, graph, calibration = import_model(model, example_inputs, options, progress)
    dumper = Dumper(Path(options.dump_ir)) if options.dump_ir is not None else None
    if dumper:
        dumper.graph("import", graph)
    samples = FirstSamples()
    settings = _settings(calibration, pins, options, samples, progress, imported)
    settings, choice = _with_chosen_bits(graph, settings, options, target)
    calibrated: list[Graph] = []
    notes = list(imported.notes)
    seconds: dict[str, float] = {}
    clock = [time.perf_counter()]

    def after(name: str, result: Graph) -> None:
        now = time.perf_counter()
        seconds[name] = round(seconds.get(name, 0.0) + now - clock[0], 3)
        if result.stage is Stage.CALIBRATED:
            calibrated.append(result)
        if name == CorrectBias.name and not all(n.get("bias_corrected") for n in result.nodes if n.op in WEIGHTED):
            notes.append("biases are not corrected for the rounding of weights: there were no calibration samples")
        if dumper:
            dumper.graph(name, result)
        progress.advance("passes")
        clock[0] = time.perf_counter()

    integer = to_integer(graph, settings, after)
    check_bit_pairs(integer, target)
    batches = sorted({options.batch_tile, 1}, reverse=True)
    traces = [trace(integer, target.name, f"batch {batch}", options.input_layout, batch) for batch in batches]
    tiles = tiles_for(traces, target, options.tune, progress=progress)
    metadata = {"final_activations": [asdict(activation) for activation in imported.final_activations]}

    def library(wanted: Graph, layout: str) -> BuiltLibrary:
        program = lower(wanted, target.instruction_set, target.tvm_target, options.batch_tile, layout, progress, tiles)
        return build_library(program, target, options.pool, metadata=metadata)

    built = library(integer, options.input_layout)
    if dumper:
        dumper.text("net.tir", built.listings.tir)
        dumper.text("net.s", built.listings.assembly)
    sizes = built.description["sizes"]
    if options.budget is not None:
        notes += size_notes(options.budget, sizes["packed_code_bytes"], sizes["weight_code_bytes"])
    samples.fill(integer, settings.calibration)
    measured = quality_samples(imported.graph, integer, samples.inputs)
    quality = measure_quality(imported.graph, calibrated[-1] if calibrated else None, integer, measured)
    notes += quality.warn()
    unverified = refusal(target) if options.verify else "verify is off"
    verified = ""
    if unverified is None:
        seconds_for_it = VERIFY_SHARE * (time.perf_counter() - begin)
        dumps = dumper.folder if dumper else None
        verified = verify(built, integer, measured, library, options.input_layout, seconds_for_it, dumps)
    else:
        notes.append(f"the library was not run beside its reference: {unverified}")
    facts = {
        "SQNR samples": len(measured[0]) if quality.layers else 0,
        "output SQNR dB": quality.outputs,
        "output agreement %": quality.agreement,
        "verified": verified,
        "notes": notes,
        "pass seconds": seconds,
    }
    if choice is not None:
        facts["search"] = choice
    report = Report(integer.name, layer_reports(integer, quality.layers), {**artifact_facts(built.description), **facts})
    return built.publish(out, report.to_json())


def _settings(
    calibration: Any, pins: dict[str, Bits], options: Options, samples: FirstSamples, progress: Progress, imported: ImportedModel
) -> Settings:
    return Settings(
        calibration=calibration,
        observer=options.observer,
        pins=pins,
        output_bits=options.output_bits,
        samples=samples,
        progress=progress,
        quality=options.quality,
        fewest_bits=8 if options.budget is None else min(options.budget.weight_bits),
    )


def _with_chosen_bits(
    graph: Graph, settings: Settings, options: Options, target: Target
) -> tuple[Settings, dict[str, Any] | None]:
    """The settings with the bits that a budget chose, where there is one, and what is to be said about the choice."""
    if options.budget is None:
        return settings, None
    from qcompiler.search.choose import choice_facts, choose_bits

    if graph.stage not in (Stage.FLOAT, Stage.CALIBRATED):
        remedy = "give the model itself, or a dump from before allocation"
        raise CompileError("OPTION005", "budget", f"the bits of {graph.name} are chosen already", remedy)
    begin = time.perf_counter()
    calibrated = to_calibrated(graph, settings)
    choice = choose_bits(graph, calibrated, settings, options.budget, target, options.input_layout, options.tune)
    facts = choice_facts(calibrated, choice, options.budget, time.perf_counter() - begin)
    return replace(settings.again(), assignment=choice.bits), facts


def check_bit_pairs(graph: Graph, target: Target) -> None:
    """BITS004 where a layer's bits have no kernel on ``target`` that computes from packed storage."""
    for node in graph.nodes:
        if node.op in WEIGHTED:
            activation, weight = (graph.type_of(name).dtype.bits for name in node.inputs[:2])
            pair = f"w{weight}a{activation}"
            if pair not in target.bit_pairs:
                problem = f"target {target.name!r} has no kernel for {pair}"
                remedy = f"choose one of {', '.join(target.bit_pairs)}"
                raise CompileError("BITS004", node.origin or node.output.name, problem, remedy)


def parse_bits(bits: BitsWish | None) -> dict[str, Bits]:
    """Patterns over layer names to bits; a bare value is for all layers."""
    if bits is None:
        return {}
    if isinstance(bits, Mapping):
        return {pattern: Bits.parse(value) for pattern, value in bits.items()}
    return {"*": Bits.parse(bits)}


def identifier(name: str) -> str:
    """``name`` as a lower-case C identifier."""
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40]
    return word if word and not word[0].isdigit() else f"net_{word}".rstrip("_")
