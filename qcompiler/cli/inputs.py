"""What arguments name: models, calibration data, samples.

Errors: CLI001 the model cannot be made or loaded, CLI002 --preprocess without images, CLI004 an input has no array.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompiler.errors import CompileError

if TYPE_CHECKING:
    import numpy as np

    from qcompiler.backend.library import Library


def load_model(text: str) -> Any:
    """What the MODEL argument names; CLI001 if it is nothing of the kind."""
    if text.endswith(".pt2") and Path(text).exists():
        import torch

        try:
            return torch.export.load(text)
        except Exception as problem:
            first = str(problem).partition("\n")[0]
            remedy = "name a file that torch.export.save wrote, with this version of torch"
            raise CompileError("CLI001", text, f"the program cannot be loaded: {first}", remedy) from None
    module, mark, attribute = text.partition(":")
    if not mark or Path(text).exists():
        return text
    from importlib import import_module

    sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(import_module(module), attribute)()
    except Exception as problem:
        what = f"the model cannot be made: {type(problem).__name__}: {problem}"
        raise CompileError("CLI001", text, what, "name a function without arguments as package.module:function") from None
    finally:
        sys.path.pop(0)
    return made


def calibration_data(path: Path | None, preprocess: Path | None) -> Any:
    """What ``--calibration`` and ``--preprocess`` name; CLI002 for the latter alone, SAMPLES errors for what cannot be read."""
    from qcompiler.samples.preprocessing import Preprocessing
    from qcompiler.samples.source import open_samples

    if path is None:
        if preprocess is not None:
            problem = "there are no images to preprocess"
            raise CompileError("CLI002", "--preprocess", problem, "name a folder of images with --calibration")
        return None
    return open_samples(path, None if preprocess is None else Preprocessing.read(preprocess))


def load_samples(path: Path) -> Any:
    """The arrays of a .npy or .npz file, whole; SAMPLES001 if it is neither."""
    from qcompiler.samples.numpy_files import NpzSamples, open_numpy

    opened = open_numpy(path)
    if not isinstance(opened, NpzSamples):
        return opened
    arrays = opened.read()
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def named_inputs(library: Library, samples: Any) -> list[np.ndarray[Any, Any]]:
    """Float arrays for the library's inputs out of what :func:`load_samples` gave; CLI004 if one is not there."""
    import numpy as np

    if not isinstance(samples, dict):
        samples = {port.name: samples for port in library.inputs[:1]}
    missing = [port.name for port in library.inputs if port.name not in samples]
    if missing:
        problem = f"there are the arrays {sorted(samples)}, but not {', '.join(missing)}"
        raise CompileError("CLI004", library.name, problem, "save one array for each input, by its name, with numpy.savez")
    arrays = [samples[port.name] for port in library.inputs]
    return [x.astype(np.float32) if x.dtype.kind in "iub" else x for x in arrays]
