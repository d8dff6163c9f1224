"""What the latency benchmarks time: a float model, the batch that goes in, and samples to calibrate on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from examples.benchmarks.networks import MLPERF, NETWORKS, network, with_weights_of
from tests.real_models import Array, calibration_images, load_real_model, torch_logits, training_photos

MODELS: Final = (
    "resnet50",
    "resnet18",
    "mobilenet-v2",
    "efficientnet-lite0",
    "resnet20-torch",
    "resnet8",
    "dscnn",
    "squeezenet",
    "densenet121",
)
CALIBRATION_SAMPLES: Final = 64
STATISTICS_SAMPLES: Final = 8  # that set the batch norms of networks with random weights


@dataclass(frozen=True)
class Case:
    """One of ``MODELS`` at one batch size; ``data`` is ``QC_DATA``."""

    model: str
    batch: int
    data: Path

    @cached_property
    def calibration(self) -> Array:
        """Float32 ``[CALIBRATION_SAMPLES, ...]``."""
        if self.model in NETWORKS:
            return training_photos(self.data)[:CALIBRATION_SAMPLES].floats()
        return calibration_images(self.model, self.data, CALIBRATION_SAMPLES).floats()

    @cached_property
    def x(self) -> Array:
        """The batch that is timed."""
        return self.calibration[: self.batch]

    def batches(self) -> Iterator[Array]:
        """The calibration samples in batches of this size."""
        for start in range(0, len(self.calibration) - self.batch + 1, self.batch):
            yield self.calibration[start : start + self.batch]

    @cached_property
    def source(self) -> Any:
        """What ``qc.compile`` takes: a torch module or the path of an ONNX file."""
        if self.model in NETWORKS:
            return network(self.model, self.calibration[:STATISTICS_SAMPLES])
        return load_real_model(self.model, self.data).model

    @cached_property
    def module(self) -> torch.nn.Module:
        """The model in torch."""
        if isinstance(self.source, torch.nn.Module):
            return self.source
        name, make = MLPERF[self.model]
        return with_weights_of(make(), self.data / name)

    @cached_property
    def logits(self) -> Array:
        """The float model's outputs for ``x``."""
        if isinstance(self.source, torch.nn.Module):
            return torch_logits(self.source)(self.x)
        return load_real_model(self.model, self.data).logits(self.x)
