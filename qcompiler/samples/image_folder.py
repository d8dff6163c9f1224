"""A folder of images as calibration data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.samples.preprocessing import Preprocessing

SUFFIXES: Final = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
IMAGES_READ: Final = 16  # at once


class ImageFolder:
    """The images in ``path`` and the folders below it, in the order of their names, read when they are needed.

    ``preprocessing``, or its fields as keywords: ``ImageFolder("photos", size=224, resize=256, mean=..., std=...)``. An iterable
    of float32 batches ``[16, C, H, W]``, the last one smaller. Raises CompileError: SAMPLES004 no images, one that cannot be
    read, or no pillow; SAMPLES005 a wrong specification.
    """

    def __init__(self, path: str | Path, *, preprocessing: Preprocessing | None = None, **fields: Any) -> None:
        if preprocessing is not None and fields:
            raise CompileError("SAMPLES005", "preprocessing", "it is given twice", "pass preprocessing, or its fields")
        try:
            self.preprocessing = preprocessing or Preprocessing(**fields)
        except TypeError:
            known = ", ".join(Preprocessing.__dataclass_fields__)
            problem = f"the fields are {', '.join(fields) or 'none'}"
            raise CompileError("SAMPLES005", "preprocessing", problem, f"give size, and others of {known}") from None
        self.path = Path(path)
        self.files = sorted(file for file in self.path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not self.files:
            problem = "there are no images in this folder" if self.path.is_dir() else "there is no such folder"
            raise CompileError("SAMPLES004", str(self.path), problem, f"name a folder with {' '.join(SUFFIXES)} files")
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            remedy = "pip install 'qcompiler[images]'"
            raise CompileError("SAMPLES004", str(self.path), "reading images needs pillow", remedy) from None

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        for start in range(0, len(self.files), IMAGES_READ):
            yield np.stack([self.read(file) for file in self.files[start : start + IMAGES_READ]])

    def read(self, file: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One image as the model takes it."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(file) as image:
                return self.preprocessing(image)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as problem:
            why = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
            raise CompileError("SAMPLES004", str(file), f"the image cannot be read: {why}", "repair or remove it") from None
