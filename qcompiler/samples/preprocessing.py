"""How an image becomes a model's input: a specification that is a dataclass in Python and a TOML or JSON file elsewhere.

A file has the same keys as the dataclass:
    size = [224, 224]
    resize = 256
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qcompiler.errors import CompileError

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS: Final = {"RGB": 3, "BGR": 3, "L": 1}
LAYOUTS: Final = ("NCHW", "NHWC")
INTERPOLATIONS: Final = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
PIXEL_SCALE: Final = 1.0 / 255.0


@dataclass(frozen=True)
class Preprocessing:
    """``(scale * pixels - mean) / std`` of a resized and cropped image.

    ``size``: height and width in pixels of what the model takes (one number: a square).
    ``resize``: before the crop; the shorter side's pixels, or height and width. Without it the image is resized to ``size``
    as it is, whatever its proportions, and nothing is cropped.
    ``scale``: on 8-bit pixels, 1/255 by default; ``mean`` and ``std`` are in units after it, one number or one per channel.
    ``channels``: "RGB", "BGR" or "L" (gray). ``layout``: "NCHW" or "NHWC". ``interpolation``: one of ``INTERPOLATIONS``.
    """

    size: Any
    resize: Any = None
    scale: float = PIXEL_SCALE
    mean: Any = 0.0
    std: Any = 1.0
    channels: str = "RGB"
    layout: str = "NCHW"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for key, legal in (("channels", tuple(CHANNELS)), ("layout", LAYOUTS), ("interpolation", INTERPOLATIONS)):
            if getattr(self, key) not in legal:
                raise _error(f"{key} is {getattr(self, key)!r}", f"choose one of {', '.join(map(repr, legal))}")
        object.__setattr__(self, "size", _sides("size", self.size, 2))
        if self.resize is not None:
            object.__setattr__(self, "resize", _sides("resize", self.resize, 1))
        _numbers("scale", self.scale, 1)
        for key in ("mean", "std"):
            object.__setattr__(self, key, _numbers(key, getattr(self, key), CHANNELS[self.channels]))
        if 0.0 in self.std:
            raise _error("std has a 0", "write 1 for a channel that is not to be divided")
        if self.resize is not None and any(a < b for a, b in zip(self.resized_sides(), self.size, strict=True)):
            raise _error(f"resize gives {self.resize} pixels, less than size {self.size}", "resize to at least the size")

    def resized_sides(self) -> tuple[int, int]:
        """The least height and width before the crop."""
        sides = self.size if self.resize is None else self.resize
        return (sides[0], sides[-1])

    @classmethod
    def read(cls, path: Path) -> Preprocessing:
        """The specification in a TOML or JSON file; SAMPLES005 names the file and what is wrong with it."""
        try:
            text = path.read_text(encoding="utf-8")
            keys = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except OSError as problem:
            raise _error(f"the file cannot be read: {problem.strerror}", "name a TOML or JSON file", str(path)) from None
        except ValueError as problem:
            raise _error(f"this is neither TOML nor JSON: {problem}", "name a .toml or .json file", str(path)) from None
        known = {field.name for field in fields(cls)}
        if not isinstance(keys, dict) or set(keys) - known or "size" not in keys:
            found = ", ".join(sorted(keys)) if isinstance(keys, dict) else type(keys).__name__
            raise _error(f"the keys are {found}", f"give size, and if needed {', '.join(sorted(known - {'size'}))}", str(path))
        try:
            return cls(**keys)
        except CompileError as error:
            raise _error(error.problem, error.remedy, str(path)) from None

    def __call__(self, image: Image) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Float32 ``[C, H, W]``, or ``[H, W, C]`` where the layout is NHWC."""
        from PIL.Image import Resampling

        image = image.convert("L" if self.channels == "L" else "RGB")
        width, height = image.size
        if self.resize is None:
            sides = self.size
        elif len(self.resize) == 1:
            shorter = min(width, height)
            sides = (round(height * self.resize[0] / shorter), round(width * self.resize[0] / shorter))
        else:
            sides = self.resize
        image = image.resize((sides[1], sides[0]), Resampling[self.interpolation.upper()])
        top, left = ((whole - part) // 2 for whole, part in zip(sides, self.size, strict=True))
        image = image.crop((left, top, left + self.size[1], top + self.size[0]))
        pixels = np.asarray(image, dtype=np.float32).reshape(*self.size, CHANNELS[self.channels])
        if self.channels == "BGR":
            pixels = pixels[:, :, ::-1]
        mean, std = (np.asarray(numbers, dtype=np.float32) for numbers in (self.mean, self.std))
        normalized = (pixels * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(normalized.transpose(2, 0, 1) if self.layout == "NCHW" else normalized)


def _error(problem: str, remedy: str, where: str = "preprocessing") -> CompileError:
    return CompileError("SAMPLES005", where, problem, remedy)


def _sides(key: str, given: Any, least: int) -> tuple[int, ...]:
    """One or two positive numbers of pixels; one is repeated until there are ``least``."""
    sides = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,) * least
    if len(sides) not in (least, 2) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise _error(f"{key} is {given!r}", "give pixels: one number, or height and width")
    return sides


def _numbers(key: str, given: Any, channels: int) -> tuple[float, ...]:
    """One number, or one for each channel."""
    numbers = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if len(numbers) not in (1, channels) or not all(isinstance(n, int | float) and np.isfinite(n) for n in numbers):
        raise _error(f"{key} is {given!r}", "give a number" + (f", or {channels}, one per channel" if channels > 1 else ""))
    return tuple(map(float, numbers))
