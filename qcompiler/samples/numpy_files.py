"""Numpy files as samples: ``.npy`` is mapped into memory, arrays of a ``.npz`` are decompressed a few samples at a time."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from qcompiler.errors import CompileError

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLES_READ: Final = 16  # of every array of a .npz at once
MAGIC: Final = b"\x93NUMPY"


def unreadable(path: Path, problem: Exception | str) -> CompileError:
    """SAMPLES001 for a file that is not there or not what it should be."""
    why = problem.strerror or str(problem) if isinstance(problem, OSError) else str(problem)
    remedy = "pass a .npy or .npz file of numbers, as numpy.save and numpy.savez write it"
    return CompileError("SAMPLES001", str(path), f"no samples can be read: {why}", remedy)


def open_numpy(path: Path) -> Array | NpzSamples:
    """The mapped array of a ``.npy``, or the arrays of a ``.npz``, of which nothing is read yet; SAMPLES001 for other files."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
        if zipfile.is_zipfile(path):
            return NpzSamples.open(path)
        if magic != MAGIC:
            raise unreadable(path, "this is no numpy file of numbers")
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as problem:
        raise unreadable(path, problem) from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise unreadable(path, "this is no numpy file of numbers") from None
    return mapped


@dataclass(frozen=True)
class NpzSamples:
    """The arrays of a ``.npz``: one for each input, by name, or a single one. Others, such as labels, are not read."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def open(cls, path: Path) -> NpzSamples:
        """Read the shapes of all arrays."""
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            shapes = {}
            for member in members:
                with archive.open(member) as file:
                    shapes[member.removesuffix(".npy")] = _read_header(file)[0]
        if not shapes:
            raise unreadable(path, "there are no arrays in it")
        return cls(path, shapes)

    def __iter__(self) -> Iterator[Any]:
        """Batches of all arrays: an array where there is one, a dict by name where there are several."""
        for batch in self.batches(list(self.shapes)):
            yield batch if len(self.shapes) > 1 else next(iter(batch.values()))

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Batches by input name; a single array serves a single input whatever its name. SAMPLES003 where one is missing."""
        if len(names) == 1 and len(self.shapes) == 1:
            sources = dict(zip(names, self.shapes, strict=True))
        else:
            sources = {name: name for name in names}
        missing = [name for name in sources.values() if name not in self.shapes]
        if missing:
            problem = f"there are the arrays {sorted(self.shapes)}, but not {', '.join(missing)}"
            remedy = "save one array for each input of the model, by its name, with numpy.savez"
            raise CompileError("SAMPLES003", str(self.path), problem, remedy)
        counts = {name: self.shapes[source][0] if self.shapes[source] else 0 for name, source in sources.items()}
        if len(set(counts.values())) > 1:
            problem = f"the arrays have different numbers of samples: {counts}"
            raise CompileError("SAMPLES003", str(self.path), problem, "save equally many samples for every input")
        try:
            with zipfile.ZipFile(self.path) as archive:
                readers = {name: _read_slices(archive, f"{source}.npy") for name, source in sources.items()}
                for _ in range(0, next(iter(counts.values()), 0), SAMPLES_READ):
                    yield {name: next(reader) for name, reader in readers.items()}
        except OSError as problem:
            raise unreadable(self.path, problem) from None
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as problem:
            raise unreadable(self.path, f"the file is damaged: {problem}") from None

    def read(self) -> dict[str, Array]:
        """All arrays, whole."""
        with np.load(self.path, allow_pickle=False) as arrays:
            return dict(arrays)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and element type; ValueError for objects."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("this is no numpy file of numbers")
    return shape, columns_first, dtype


def _read_slices(archive: zipfile.ZipFile, member: str) -> Iterator[Array]:
    """An array, ``SAMPLES_READ`` samples at a time; whole where its columns come first in the file."""
    with archive.open(member) as file:
        shape, columns_first, dtype = _read_header(file)
        if columns_first and len(shape) > 1:
            whole = np.frombuffer(_read_exactly(file, math.prod(shape) * dtype.itemsize), dtype).reshape(shape, order="F")
        else:
            whole = None
        for start in range(0, shape[0], SAMPLES_READ):
            count = min(SAMPLES_READ, shape[0] - start)
            if whole is not None:
                yield whole[start : start + count]
            else:
                data = _read_exactly(file, count * math.prod(shape[1:]) * dtype.itemsize)
                yield np.frombuffer(data, dtype).reshape(count, *shape[1:])


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"{size - len(data)} bytes are missing")
    return data
