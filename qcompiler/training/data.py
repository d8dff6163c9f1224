"""Training data as batches: tensors for the model's inputs, and what is to be learned about them, if it is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from qcompiler.calibrate import input_tensors
from qcompiler.errors import CompileError
from qcompiler.ir.graph import Graph

BATCH: Final = 64

Batch = tuple[list[torch.Tensor], Any]
"""Float32 tensors ``[N, ...]``, one for each input; the target of the loss, or None."""


@dataclass(frozen=True)
class TrainingData:
    """``data``: arrays, or an iterable of batches that can be iterated over once for every epoch.

    One array ``[S, ...]`` for each input, in a tuple where there are several or a target follows; they are shuffled, in batches
    of ``BATCH``. An iterable (a torch ``DataLoader``) gives such arrays for a batch, or dicts by input name, and shuffles itself.
    Errors: TRAIN001 data that cannot be iterated over twice, TRAIN002 no data, TRAIN004 arrays of different lengths; CALIB003 to
    CALIB005 for what does not fit the model.
    """

    graph: Graph
    data: Any

    def __post_init__(self) -> None:
        if isinstance(self.data, Iterator):
            raise CompileError(
                "TRAIN001", "data", "an iterator gives its batches only once", "pass arrays, a list of batches or a DataLoader"
            )
        if self.data is None or isinstance(self.data, str | bytes) or not (self._whole or isinstance(self.data, Iterable)):
            problem = f"the data is a {type(self.data).__name__}"
            raise CompileError("TRAIN001", "data", problem, "pass arrays, a list of batches or a DataLoader")
        lengths = {len(x) for x in self.data} if self._whole and isinstance(self.data, tuple) else set()
        if len(lengths) > 1:
            problem = f"the arrays have {sorted(lengths)} samples"
            raise CompileError("TRAIN004", "data", problem, "pass equally many inputs and labels")

    @property
    def _whole(self) -> bool:
        return hasattr(self.data, "shape") or (isinstance(self.data, tuple) and all(hasattr(x, "shape") for x in self.data))

    def epoch(self, generator: np.random.Generator) -> Iterator[Batch]:
        """The batches of one epoch; ``generator`` shuffles what is given as arrays."""
        if not self._whole:
            yield from map(self._batch, self.data)
            return
        arrays = self.data if isinstance(self.data, tuple) else (self.data,)
        order = generator.permutation(len(arrays[0]))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            yield self._batch(tuple(np.asarray(x)[chosen] for x in arrays))

    def count(self) -> int | None:
        """The number of batches of an epoch, where that is known."""
        if self._whole:
            first = self.data[0] if isinstance(self.data, tuple) else self.data
            return -(-len(first) // BATCH)
        return len(self.data) if hasattr(self.data, "__len__") else None

    def _batch(self, item: Any) -> Batch:
        inputs = len(self.graph.inputs)
        target = item[inputs] if not isinstance(item, Mapping) and isinstance(item, tuple | list) and len(item) > inputs else None
        if target is not None and not isinstance(target, torch.Tensor):
            target = torch.as_tensor(np.asarray(target))
        return input_tensors(self.graph, item), target
