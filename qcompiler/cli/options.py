"""Arguments and options that several commands take, each said once, and groups of them as dataclasses.

A command that takes a group declares one parameter of the group's class and is wrapped in :func:`with_options`; the command
line then has one option for each field.

Errors: CLI003 a pin without =, CLI006 an observer for all tensors among others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from qcompiler.errors import CompileError

if TYPE_CHECKING:
    from qcompiler.search.budget import Budget


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
Quality = Annotated[str, typer.Option(help="how weights are rounded: fast, good or best")]
Size = Annotated[str | None, typer.Option(help="choose bits: at most so many bytes of weights, as in 50% (of 8 bits) or 1.5MiB")]
LatencyMs = Annotated[float | None, typer.Option(help="choose bits: at most so many ms for a sample on one thread, as measured")]
ActivationMemory = Annotated[str | None, typer.Option(help="refuse networks whose activations need more, as in '64 KiB'")]
Bops = Annotated[str | None, typer.Option(help="choose bits: at most so many bit operations, as in 50% (of 8 bits)")]
AccuracyDrop = Annotated[
    float | None, typer.Option(help="choose bits: at most so many percent of the calibration samples change their class")
]
SqnrDb = Annotated[float | None, typer.Option(help="choose bits: at least so many dB of the first output, as measured")]
Minimize = Annotated[str | None, typer.Option(help="what to make small within the limits: sensitivity, size, latency or bops")]
LatencyTable = Annotated[Path | None, typer.Option(help="a file of `qcompiler profile`, instead of measuring here")]
Metric = Annotated[str | None, typer.Option(help="how sensitivity is estimated: mse, kl, fisher, hessian, ...")]
ActivationChoice = Annotated[bool, typer.Option("--choose-activations", help="choose bits of activations as well: 8 or 4")]
Pool = Annotated[bool, typer.Option(help="put a pthread pool into the library")]
Tune = Annotated[
    str,
    typer.Option(
        help="tilings of kernels: off (those that ship), cached (and those measured here before) or full (measured now)"
    ),
]
Verify = Annotated[bool, typer.Option(help="run the library on a few samples beside the reference before it is written")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]


@dataclass(frozen=True)
class CalibrationOptions:
    """How a float model gets ranges."""

    calibration: Calibration = None
    preprocess: Preprocess = None
    observer: Observer = None
    name: Name = None
    output_bits: OutputBits = 16

    def keywords(self) -> dict[str, Any]:
        """Keywords of the Python interface. Raises CompileError for what cannot be read."""
        from qcompiler.cli.inputs import calibration_data

        return {
            "calibration": calibration_data(self.calibration, self.preprocess),
            "observer": parse_observers(self.observer),
            "name": self.name,
            "output_bits": self.output_bits,
        }


@dataclass(frozen=True)
class QuantizationOptions(CalibrationOptions):
    """How a float model becomes integers."""

    bits: BitsOption = None
    pin: Pins = None
    quality: Quality = "good"
    size: Size = None
    latency_ms: LatencyMs = None
    bops: Bops = None
    activation_memory: ActivationMemory = None
    accuracy_drop: AccuracyDrop = None
    sqnr_db: SqnrDb = None
    minimize: Minimize = None
    metric: Metric = None
    choose_activations: ActivationChoice = False
    latency_table: LatencyTable = None

    def keywords(self) -> dict[str, Any]:
        """Keywords of the Python interface. Raises CompileError for what cannot be read."""
        own = {"bits": parse_pins(self.bits, self.pin), "quality": self.quality, "budget": self.budget()}
        return {**super().keywords(), **own}

    def budget(self) -> Budget | None:
        """The budget that the options say; None where they say none."""
        names = (
            "size",
            "latency_ms",
            "bops",
            "activation_memory",
            "accuracy_drop",
            "sqnr_db",
            "minimize",
            "metric",
            "latency_table",
        )
        said = {name: value for name in names if (value := getattr(self, name)) is not None}
        if not said and not self.choose_activations:
            return None
        from qcompiler.cli.budget import CommandLineBudget

        return CommandLineBudget(**said, activation_bits=(8, 4) if self.choose_activations else (8,))


@dataclass(frozen=True)
class SweepOptions(QuantizationOptions):
    """What a sweep over budgets needs: the target says which bits have kernels."""

    target: TargetName = "native"
    tune: Tune = "off"

    def keywords(self) -> dict[str, Any]:
        """Keywords of the Python interface. Raises CompileError for what cannot be read."""
        return {**super().keywords(), "target": self.target, "tune": self.tune}


@dataclass(frozen=True)
class BuildOptions(QuantizationOptions):
    """How a float model becomes a library."""

    target: TargetName = "native"
    batch_tile: BatchTile = 1
    input_layout: InputLayout = Layout.NCHW
    pool: Pool = True
    tune: Tune = "off"
    verify: Verify = True
    dump_ir: DumpIr = None

    def keywords(self) -> dict[str, Any]:
        """Keywords of the Python interface. Raises CompileError for what cannot be read."""
        own = {name: getattr(self, name) for name in ("target", "batch_tile", "pool", "tune", "verify", "dump_ir")}
        return {**super().keywords(), **own, "input_layout": self.input_layout.value}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer reads it: in the place of its parameter of a group's class stand the fields of the group."""
    hints = get_type_hints(command, include_extras=True)
    place, group = next((name, hint) for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint))
    options = get_type_hints(group, include_extras=True)
    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        if parameter.name == place:
            parameters += [
                Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=options[field.name])
                for field in fields(group)
            ]
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def flat(**given: Any) -> None:
        values = {field.name: given.pop(field.name) for field in fields(group)}
        command(**given, **{place: group(**values)})

    flat.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


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
