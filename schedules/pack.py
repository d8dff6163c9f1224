"""Weight codes as dot-product kernels read them, eight bits or packed below that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompiler.arith import weight_places
from qcompiler.backend.kernel import BiasAdjustment
from qcompiler.schedules.dot_product import DEPTH


@dataclass(frozen=True)
class PackedSteps:
    """Weights as ``[blocks / together][steps][together][DEPTH / group][lanes][group]``; a step is four input channels of one tap.

    ``together``: blocks that are read side by side, so that one stream of memory serves them. ``words``: steps per tap.
    Below 8 bits a byte holds the same place of ``8 / bits`` successive steps, the first in the low bits. Unpacking is a shift to
    the upper bits and an and of whole vectors.
    """

    blocks: int
    lanes: int
    group: int
    taps: int
    words: int
    bits: int
    together: int = 1

    @property
    def per_byte(self) -> int:
        """Codes in a byte."""
        return 8 // self.bits

    @property
    def steps(self) -> int:
        return self.taps * self.words

    @property
    def stored(self) -> int:
        """Steps as stored, each holding the codes of ``per_byte`` steps."""
        return -(-self.steps // self.per_byte)

    @property
    def step_shape(self) -> tuple[int, int, int]:
        return (DEPTH // self.group, self.lanes, self.group)

    def pack(self, codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Codes ``[CO, CI, KH, KW]`` int8 to a flat uint8 array."""
        out_channels, in_channels = codes.shape[:2]
        padded = np.zeros((self.blocks * self.lanes, self.words * DEPTH, self.taps), np.int8)
        padded[:out_channels, :in_channels] = codes.reshape(out_channels, in_channels, self.taps)
        split = padded.reshape(self.blocks, self.lanes, self.words, DEPTH // self.group, self.group, self.taps)
        ordered = np.ascontiguousarray(split.transpose(0, 5, 2, 3, 1, 4)).reshape(self.blocks, self.steps, self.lanes * DEPTH)
        stored = ordered.view(np.uint8) if self.bits == 8 else pack_codes(ordered, self.bits)
        streams = stored.reshape(-1, self.together, *stored.shape[1:]).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(streams).reshape(-1)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of the packed array; :meth:`place` gives its indices."""
        return (self.blocks // self.together, self.stored, self.together, *self.step_shape)

    def place(self, block: Any, stored_step: Any) -> tuple[Any, ...]:
        """The first three indices of a stored step of a block."""
        return (block // self.together, stored_step, block % self.together)


def pack_codes(codes: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """``[blocks, steps, places]`` int8 to ``[blocks, stored steps, places]`` uint8, ``8 / bits`` steps in each byte."""
    blocks, steps, places = codes.shape
    per_byte = 8 // bits
    stored = -(-steps // per_byte)
    padded = np.zeros((blocks, stored * per_byte, places), np.uint8)
    padded[:, :steps] = codes.view(np.uint8) & (0xFF >> (8 - bits))
    grouped = padded.reshape(blocks, stored, per_byte, places)
    packed = np.zeros((blocks, stored, places), np.uint8)
    for position in range(per_byte):
        packed |= grouped[:, :, position] << (position * bits)
    return packed


def unpack_code(byte: Any, position: Any, bits: int) -> Any:
    """The code at ``position`` of a stored byte in the upper bits of an int8, as a TVM expression."""
    from tvm import tirx  # numpy alone must suffice to pack

    code = byte << (weight_places(bits) - position * bits).astype("uint8")
    return (code & tirx.const(0xFF << weight_places(bits) & 0xFF, "uint8")).astype("int8")


def bias_adjustment(offset: int, places: int) -> BiasAdjustment | None:
    """Makes the bias of sums over ``x`` that of sums over ``x - offset`` moved left by ``places``; None if they are the same."""
    if not offset and not places:
        return None

    def adjust(bias: np.ndarray[Any, Any], codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sums: np.ndarray[Any, Any] = codes.reshape(codes.shape[0], -1).astype(np.int64).sum(axis=1)
        adjusted: np.ndarray[Any, Any] = ((bias.astype(np.int64) + offset * sums) << places).astype(np.int32)
        return adjusted

    return adjust
