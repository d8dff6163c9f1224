"""What the name of a file or folder stands for as calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qcompiler.errors import CompileError
from qcompiler.samples.image_folder import ImageFolder
from qcompiler.samples.numpy_files import open_numpy
from qcompiler.samples.preprocessing import Preprocessing


def open_samples(source: Any, preprocessing: Preprocessing | None = None) -> Any:
    """Calibration data for ``source``: a path of a ``.npy`` or ``.npz`` file or of a folder of images; anything else as it is.

    Nothing is read but what says which arrays or images there are. SAMPLES001: a file that cannot be read; SAMPLES002: a
    folder without ``preprocessing``, or a file with it.
    """
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if path.is_dir():
        if preprocessing is None:
            problem = "this is a folder; images in it need to be preprocessed as in training"
            remedy = "pass calibration=qcompiler.ImageFolder(path, size=...), or --preprocess spec.toml on the command line"
            raise CompileError("SAMPLES002", str(path), problem, remedy)
        return ImageFolder(path, preprocessing=preprocessing)
    if preprocessing is not None:
        problem = "preprocessing is for folders of images, and this is none"
        raise CompileError("SAMPLES002", str(path), problem, "name a folder of images, or leave --preprocess away")
    return open_numpy(path)
