"""Which input channels the vectors of outputs of a convolution with groups read.

A vector of outputs may belong to several groups. It reads a window of successive input channels that holds those of all of them,
and its weights are 0 where a channel is not of an output's own group. All windows are as wide as the widest, so that one loop
serves them. Where groups are whole vectors of outputs and whole dot products of inputs, they are the windows, without a zero;
where there is one window, the convolution is computed as if it had no groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from qcompiler.backend.kernel import ConvolutionSpec, physical_channels
from qcompiler.schedules.dot_product import DEPTH
from qcompiler.schedules.tiling import divisors


@dataclass(frozen=True)
class ChannelWindows:
    """``together`` successive vectors of ``lanes`` outputs read the same window: ``words`` dot products of input channels.

    ``in_channels``, ``out_channels``: of all ``groups``.
    """

    in_channels: int
    out_channels: int
    groups: int
    lanes: int
    together: int
    words: int

    @property
    def dot_products(self) -> int:
        """Dot products of all vectors for one tap."""
        return self.words * self._vectors

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first channel of every window, ascending; the last ones begin earlier if they would end beyond what is stored."""
        last = physical_channels(self.in_channels) - self.words * DEPTH
        return tuple(min(self._begin(vector), last) for vector in range(0, self._vectors, self.together))

    @cached_property
    def stride(self) -> int | None:
        """By how many channels every window begins behind the one before it; None where that differs."""
        starts = self.starts
        stride = starts[1] if len(starts) > 1 else 0
        return stride if starts == tuple(stride * place for place in range(len(starts))) else None

    @property
    def channels(self) -> int:
        """Channels that are read, from the first one on."""
        return self.starts[-1] + self.words * DEPTH

    def widened(self, multiple: int) -> ChannelWindows:
        """The same, with the words of a window filled up to a ``multiple``."""
        return replace(self, words=-(-self.words // multiple) * multiple)

    def first(self, vector: Any, least: Callable[[Any, Any], Any] = min) -> Any:
        """The first channel that a vector reads; for an expression ``least`` is the minimum of expressions."""
        if self.stride is None:
            return least(self._begin(vector), self.starts[-1])
        return vector // self.together * self.stride if self.stride else 0

    def spread(self, codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Weight codes ``[CO, CI / groups, KH, KW]`` as ``[CO, channels of a window, KH, KW]``."""
        if self.groups == 1:
            return codes
        inputs, outputs = codes.shape[1], np.arange(len(codes))
        firsts = np.array([self.first(vector) for vector in outputs // self.lanes])
        places = outputs // self._outputs * inputs - firsts
        spread = np.zeros((len(codes), min(self.words * DEPTH, self.in_channels), *codes.shape[2:]), codes.dtype)
        for channel in range(inputs):
            spread[outputs, places + channel] = codes[:, channel]
        return spread

    @property
    def _vectors(self) -> int:
        return -(-physical_channels(self.out_channels) // self.lanes)

    @property
    def _outputs(self) -> int:
        """Output channels of a group."""
        return self.out_channels // self.groups

    def _begin(self, vector: Any) -> Any:
        """Where the first group of a vector's window begins, in whole dot products."""
        output = vector // self.together * (self.together * self.lanes)
        return output // self._outputs * (self.in_channels // self.groups) // DEPTH * DEPTH


def choose_windows(spec: ConvolutionSpec, lanes: int) -> ChannelWindows:
    """The narrowest windows for vectors of ``lanes`` outputs; of equally narrow ones those that most vectors share."""
    choices = divisors(-(-physical_channels(spec.out_channels) // lanes))
    return min((_windows(spec, lanes, together) for together in choices), key=lambda found: (found.words, -found.together))


def _windows(spec: ConvolutionSpec, lanes: int, together: int) -> ChannelWindows:
    inputs, outputs = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    words = 0
    for first in range(0, spec.out_channels, together * lanes):
        last = min(first + together * lanes, spec.out_channels) - 1
        begin, end = first // outputs * inputs // DEPTH, -(-(last // outputs + 1) * inputs // DEPTH)
        words = max(words, end - begin)
    return ChannelWindows(spec.in_channels, spec.out_channels, spec.groups, lanes, together, words)
