"""The report on outputs: compared with the imported model, part by part, with a reason in plain words where one is bad."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qcompiler as qc
from qcompiler.bits import Bits
from qcompiler.importers.load import load_model
from qcompiler.ir.graph import Graph, Stage
from qcompiler.output_parts import parts_of
from qcompiler.output_quality import OutputQuality, measure_quality, quality_samples
from qcompiler.pipeline import Settings, to_integer
from qcompiler.report import sqnr_db

Array = np.ndarray[Any, Any]

LARGEST = float(np.finfo(np.float32).max)


class Head(nn.Module):
    """Boxes times ``scale``, and scores: reshaped, joined, and joined again over two levels, as detectors do."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.raw, self.scale = nn.Conv2d(3, 6, 1), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = []
        for level in (self.raw(x), self.raw(torch.max_pool2d(x, 2))):
            boxes, scores = level.flatten(2).transpose(1, 2).sigmoid().split((2, 4), 2)
            levels.append(torch.cat((boxes * self.scale, scores), 2))
        return torch.cat(levels, 1)


class Units(nn.Module):
    """A batch norm of four sensors, then two layers."""

    def __init__(self, samples: Array) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.first, self.last = nn.BatchNorm1d(4), nn.Linear(4, 8), nn.Linear(8, 3)
        self.norm.running_mean = torch.from_numpy(samples.mean(0))
        self.norm.running_var = torch.from_numpy(samples.var(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(self.norm(x))))


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


UNITS = np.float32((1013, 20, 0.5, 50000)) + normal(32, 4) * np.float32((10, 5, 0.1, 10000))


def quality(model: nn.Module, samples: Array, bits: str = "w8a8") -> tuple[Graph, OutputQuality]:
    """The imported graph, and what its integer graph has lost on the calibration samples."""
    imported = load_model(model.eval(), (torch.from_numpy(samples[:1]),)).graph
    stages: dict[Stage, Graph] = {}
    settings = Settings(samples, "minmax", {"*": Bits.parse(bits)}, quality="fast")
    integer = to_integer(imported, settings, lambda _, found: stages.update({found.stage: found}))
    return imported, measure_quality(imported, stages[Stage.CALIBRATED], integer, quality_samples(imported, integer, [samples]))


def test_parts_of_an_output_are_found_through_moves_and_inner_concatenations() -> None:
    imported, found = quality(Head(100.0), normal(16, 3, 4, 4))
    (output,) = imported.outputs
    parts = parts_of(imported, output)
    assert [part.where() for part in parts] == ["[:, 0:16, 2:6]", "[:, 0:16, 0:2]", "[:, 16:20, 2:6]", "[:, 16:20, 0:2]"]
    assert list(found.outputs) == [output, *(f"{output}{part.where()} ({part.layer})" for part in parts)]
    assert all(value > 30.0 for value in found.outputs.values())
    assert found.notes == ()


def test_a_part_that_the_whole_hides_is_named() -> None:
    imported, found = quality(Head(1e5), normal(16, 3, 4, 4))
    (output,) = imported.outputs
    assert found.outputs[output] > 35.0
    first, second = found.notes
    assert first.startswith(
        f"{output}[:, 0:16, 2:6], a part of the output {output} that layer forward (sigmoid) gives, has an SQNR of "
    )
    assert "one scale serves all of them; make it an output of its own, or compile with output_bits=32" in first
    assert f"{output}[:, 16:20, 2:6]" in second


class Joined(nn.Module):
    """Unlike things, joined, and what is computed of them elementwise and over other axes; the last output mixes them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.boxes, self.scores = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 1)

    def both(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.boxes(x) * 60 + 300, self.scores(x).sigmoid()), 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        joined = self.both(x)
        scaled = joined.clamp(0, 640) * torch.tensor((2.0, 2.0, 1.0, 1.0, 1.0)).view(5, 1, 1)
        padded = torch.nn.functional.pad(joined + self.both(-x), (1, 0), value=3.0)
        return scaled, padded, joined.mean((2, 3)), joined.sum(1), self.boxes(x) + 1


def test_parts_are_followed_through_what_computes_element_by_element_and_over_other_axes() -> None:
    imported, found = quality(Joined(), normal(16, 3, 4, 4))
    parts = [[part.where() for part in parts_of(imported, output)] for output in imported.outputs]
    assert parts == [["[:, 0:2]", "[:, 2:5]"], ["[:, 0:2, :, 1:5]", "[:, 2:5, :, 1:5]"], ["[:, 0:2]", "[:, 2:5]"], [], []]
    assert len(parts_of(imported, imported.outputs[1])[1].values) == 2
    assert len(found.outputs) == 11
    said = "but one scale serves all of them at layer forward (cat); make it an output of its own"
    assert sum(note.endswith(said) for note in found.notes) >= 2
    assert all("[:, 2:5" in note for note in found.notes)


def test_channels_in_unlike_units_are_named_and_python_is_warned() -> None:
    with pytest.warns(qc.AccuracyWarning) as caught:
        library = qc.compile(Units(UNITS).eval(), calibration=UNITS, quality="fast", progress=False)
    facts = library.report().facts
    (note,) = facts["notes"]
    assert [str(warning.message) for warning in caught] == [note]
    assert caught[0].filename == __file__
    assert "last has an SQNR of" in note
    assert "most is lost at layer norm, from" in note
    assert "the input x has channels in unlike units: channel 3 reaches" in note
    assert "channel 2 varies by 0.0" in note
    assert note.endswith("normalize every channel before the model, or give them as inputs of their own")
    assert list(facts["output SQNR dB"]) == ["last"]
    assert facts["output SQNR dB"]["last"] < 15.0
    assert f"output SQNR dB: last {facts['output SQNR dB']['last']}" in str(library.report())


def test_rare_large_values_are_named() -> None:
    samples = np.abs(normal(32, 8))
    samples[3, 5] = 4000.0
    model = nn.Linear(8, 2).eval()
    imported, found = quality(model, samples)
    assert found.notes == ()
    integer = to_integer(imported, Settings(samples, "minmax", quality="fast"))
    (note,) = measure_quality(imported, None, integer, [np.delete(samples, 3, axis=0)]).notes
    assert "most is lost where the input input becomes codes, with 0." in note
    assert (
        "the input input has few values far above the rest: its codes span 4,000 in steps of 15.7, its root mean square is"
        in note
    )


def test_few_bits_are_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    (note,) = quality(model, normal(32, 8), "w2a8")[1].notes
    assert re.search(r": most is lost at layer \d, from .* dB, whose weights have 2 bits: give it more$", note)
    (note,) = quality(model, normal(32, 8) ** 3, "w8a4")[1].notes
    assert re.search(r"has 4 bits, with steps of [\d.]+ at a root mean square of [\d.]+: give it more$", note)


@pytest.mark.parametrize("offset", [(1000.0,), (1000.0, 1000.0)])
def test_a_large_mean_is_no_unlike_unit(offset: tuple[float, ...]) -> None:
    samples = normal(32, len(offset)) + np.float32(offset)
    model = Units(np.zeros((2, 4), np.float32))
    model.norm, model.first = nn.BatchNorm1d(len(offset)), nn.Linear(len(offset), 8)
    model.norm.running_mean, model.norm.running_var = torch.full((len(offset),), 1000.0), torch.ones(len(offset))
    (note,) = quality(model, samples)[1].notes
    assert re.search(r"the input x varies little about a large mean: channel \d by [\d.]+ about [\d,]+, with steps of", note)


def test_indices_that_do_not_agree_are_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16))

    class Ranked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores = self.model(x)
            return scores.argmax(1), scores.topk(3)[1]

    imported, found = quality(Ranked(), normal(32, 8), "w2a8")
    assert list(found.agreement) == list(imported.outputs)
    argmax, topk = imported.outputs
    assert found.agreement[argmax] >= 90.0
    (note,) = found.notes
    said = (
        f"the output {topk} agrees with the float model in {found.agreement[topk]} % of its indices: most is lost at layer model."
    )
    assert note.startswith(said)
    assert note.endswith("whose weights have 2 bits: give it more")


def test_indices_good_outputs_and_missing_samples_say_nothing() -> None:
    class Ranked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.layer(x), self.layer(x).argmax(1)

    imported, found = quality(Ranked(), normal(16, 4))
    assert list(found.outputs) == [imported.outputs[0]]
    assert found.agreement[imported.outputs[1]] > 90.0
    assert found.notes == ()
    assert measure_quality(imported, None, imported, []) == OutputQuality()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found.warn() == ()


@pytest.mark.parametrize(
    ("signal", "approximation", "expected"),
    [(-LARGEST, -np.inf, 200.0), (1.0, np.inf, -200.0), (0.0, 1e-30, -200.0), (np.nan, 1.0, -200.0), (1e-30, LARGEST, -200.0)],
)
def test_a_ratio_is_bounded_whatever_the_numbers(signal: float, approximation: float, expected: float) -> None:
    with np.errstate(all="raise"):
        assert sqnr_db(np.float32([signal, 0.0]), np.float32([approximation, 0.0])) == expected


def test_a_mask_of_large_numbers_before_a_ranking_is_named() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).masked_fill(torch.arange(6) > 4, torch.finfo(torch.float32).min).argmax(1)

    (note,) = quality(Masked(), normal(32, 4))[1].notes
    assert "the result masked_fill of layer layer reaches 3.4e+38 in steps of" in note
    assert note.endswith("apart: give it a smaller range, as by smaller numbers for what is masked")


def test_samples_with_the_largest_outputs_are_measured_too() -> None:
    samples = normal(96, 4)
    model = nn.Linear(4, 2).eval()
    imported = load_model(model, (torch.from_numpy(samples[:1]),)).graph
    integer = to_integer(imported, Settings(samples, "minmax", quality="fast"))
    assert len(quality_samples(imported, integer, [samples[:30]])[0]) == 30
    (even,) = quality_samples(imported, integer, [np.zeros_like(samples)])
    assert len(even) in (32, 33)
    samples[40] *= 1000.0  # among the 64, not among the 32
    (measured,) = quality_samples(imported, integer, [samples])
    assert (measured == samples[40]).all(1).any()
    assert len(measured) == 33
