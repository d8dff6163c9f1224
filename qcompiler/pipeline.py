"""The order of the passes, once: from an imported float graph to a proven integer graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from qcompiler.bits import Bits
from qcompiler.calibrate import Calibrate, FirstSamples
from qcompiler.check_float import check_float, some_inputs
from qcompiler.ir.graph import Graph, Stage
from qcompiler.observers.choice import ObserverWish
from qcompiler.passes.absorb_affine import AbsorbAffine
from qcompiler.passes.allocate_bits import AllocateBits
from qcompiler.passes.canonicalize_means import CanonicalizeMeans
from qcompiler.passes.copy_ranked import CopyRanked
from qcompiler.passes.correct_bias import CorrectBias
from qcompiler.passes.decompose_layers import DecomposeLayers
from qcompiler.passes.drop_identities import DropIdentities
from qcompiler.passes.equalize_channels import EqualizeChannels
from qcompiler.passes.fold_affine import FoldAffine
from qcompiler.passes.fold_constants import FoldConstants
from qcompiler.passes.fold_pad import FoldPad
from qcompiler.passes.forward_slices import ForwardSlices
from qcompiler.passes.fuse_activations import FuseActivations
from qcompiler.passes.fuse_functions import FuseFunctions
from qcompiler.passes.graph_pass import Pass, run_passes
from qcompiler.passes.narrow_requantization import NarrowRequantization
from qcompiler.passes.prove_overflow import ProveOverflow
from qcompiler.passes.quantize import Quantize
from qcompiler.passes.separate_codes import SeparateCodes
from qcompiler.passes.simplify_moves import SimplifyMoves
from qcompiler.passes.split_elementwise import SplitElementwise
from qcompiler.passes.stabilize_exponentials import StabilizeExponentials
from qcompiler.passes.take_ranges import TakeRanges
from qcompiler.progress import Progress
from qcompiler.samples.restartable import Restartable
from qcompiler.tuning.round_weights import RoundWeights

STAGES: Final = (Stage.FLOAT, Stage.CALIBRATED, Stage.ALLOCATED, Stage.INTEGER)


@dataclass(frozen=True)
class Settings:
    """What the passes are told.

    ``assignment``: bits of tensors by name, see ``passes.allocate_bits``; channels are equalized for them. ``samples`` keeps the
    first calibration samples, for whatever needs more than ranges. ``quality``: see ``tuning.round_weights``. ``fewest_bits``:
    what weights may get at least that have no bits yet. Of a model that came quantized, channels are not equalized, and weights
    are rounded to the nearest codes, which are those that it had.
    """

    calibration: Any = None
    observer: ObserverWish = None
    pins: Mapping[str, Bits] = field(default_factory=dict)
    assignment: Mapping[str, int] = field(default_factory=dict)
    output_bits: int = 16
    samples: FirstSamples = field(default_factory=FirstSamples)
    progress: Progress | None = None
    quality: str = "good"
    fewest_bits: int = 8

    def again(self) -> Settings:
        """For another run of passes that calibrate: data that was used up by the first is represented by the samples it kept."""
        if not isinstance(self.calibration, Iterator) or not self.samples.inputs:
            return self
        return replace(self, calibration=tuple(self.samples.inputs))


def passes(settings: Settings) -> tuple[Pass, ...]:
    """Every pass in its order."""
    calibration, samples = Restartable.of(settings.calibration), settings.samples
    bits = settings.assignment, settings.fewest_bits
    return (
        DropIdentities(),
        FoldConstants(),
        ForwardSlices(),
        SimplifyMoves(),
        SplitElementwise(),
        StabilizeExponentials(),
        CanonicalizeMeans(),
        FuseFunctions(),
        FoldAffine(),
        AbsorbAffine(),
        FoldPad(),
        FuseActivations(),
        DecomposeLayers(),
        SimplifyMoves(),
        EqualizeChannels(samples, calibration, settings.pins, *bits),
        TakeRanges(),
        Calibrate(calibration, settings.observer, samples, settings.progress),
        CopyRanked(settings.output_bits),
        SeparateCodes(),
        AllocateBits(settings.pins, settings.assignment),
        RoundWeights(settings.quality, samples, calibration, settings.progress),
        CorrectBias(samples, calibration),
        Quantize(settings.output_bits),
        NarrowRequantization(),
        ProveOverflow(),
    )


def to_calibrated(graph: Graph, settings: Settings, after: Callable[[str, Graph], None] | None = None) -> Graph:
    """The calibrated graph of a float graph; graphs that have ranges stay as they are."""
    return _run(graph, settings, Stage.CALIBRATED, after)


def to_integer(graph: Graph, settings: Settings, after: Callable[[str, Graph], None] | None = None) -> Graph:
    """The integer graph of a graph of any stage, as it ships."""
    return _run(graph, settings, None, after)


def _run(graph: Graph, settings: Settings, end: Stage | None, after: Callable[[str, Graph], None] | None) -> Graph:
    """Run the passes up to the one that reaches ``end``; what the float passes give is compared with ``graph``."""
    settings = replace(settings, calibration=Restartable.of(settings.calibration))
    steps = _remaining(graph, settings, end)
    count = sum(step.gives is Stage.FLOAT for step in steps)
    result = run_passes(graph, steps[:count], after)
    if count:
        inputs = some_inputs(graph, settings.calibration, settings.samples)
        check_float(graph, result, steps[:count], inputs)
    return run_passes(result, steps[count:], after)


def _remaining(graph: Graph, settings: Settings, end: Stage | None) -> list[Pass]:
    """The passes from the stage of ``graph`` on, up to the last one that gives the stage ``end``."""
    begin, stop = STAGES.index(graph.stage), STAGES.index(Stage.INTEGER if end is None else end)
    return [step for step in passes(settings) if begin <= STAGES.index(step.requires) and STAGES.index(step.gives) <= stop]
