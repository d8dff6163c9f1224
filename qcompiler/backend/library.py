"""Runs an artifact in this process: the shared library that ships, loaded through ctypes."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from qcompiler.backend.artifact import FORMAT, REPORT
from qcompiler.backend.program import Port
from qcompiler.codes import Array, dequantize, quantize
from qcompiler.errors import CompileError, InternalError
from qcompiler.interrupts import temporary_folder
from qcompiler.ir.dtypes import IntegerType
from qcompiler.report import Report, read_report
from qcompiler.targets.target import host_architecture, host_cpu_flags

LIBRARY: Final = "libnet.so"
DESCRIPTION: Final = "net.json"
_ALIGNMENT: Final = 64
_MAXIMUM_THREADS: Final = 1024
_MAXIMUM_BATCH: Final = (1 << 31) - 1


class _Options(ctypes.Structure):
    """``qc_<name>_options`` of net.h."""

    _fields_ = [
        ("struct_bytes", ctypes.c_uint32),
        ("weights", ctypes.c_void_p),
        ("parallel", ctypes.c_void_p),
        ("parallel_context", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
        ("state", ctypes.c_void_p),
    ]


def _aligned_buffer(size: int) -> Array:
    """``size`` bytes at an address that is a multiple of 64."""
    memory = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


class _Frame:
    """What one running call needs besides its arrays: a workspace, and the arguments of the C function, made once."""

    def __init__(self, workspace_bytes: int, inputs: int, outputs: int) -> None:
        self.workspace = _aligned_buffer(workspace_bytes)
        self.address = self.workspace.ctypes.data
        self.inputs = (ctypes.c_void_p * max(inputs, 1))()
        self.outputs = (ctypes.c_void_p * max(outputs, 1))()
        self.options = _Options(struct_bytes=ctypes.sizeof(_Options), threads=1)
        self.arguments = ctypes.byref(self.options)

    def use_threads(self, threads: int, parallel_for: int | None, pool: int | None) -> None:
        """Run on ``threads`` threads, by a pool's function and its address."""
        self.options.threads, self.options.parallel, self.options.parallel_context = threads, parallel_for, pool


def _address(x: Array) -> int:
    """Of the first element; ``x.ctypes.data``, which takes three times as long."""
    address: int = x.__array_interface__["data"][0]
    return address


class _Pools:
    """The library's thread pools by (process, number of threads); a forked child makes its own."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._bytes = library[f"qc_{name}_pool_bytes"]
        self._bytes.argtypes, self._bytes.restype = [ctypes.c_int32], ctypes.c_size_t
        self._create = library[f"qc_{name}_pool_create"]
        self._create.argtypes, self._create.restype = [ctypes.c_void_p, ctypes.c_int32], ctypes.c_void_p
        self._destroy = library[f"qc_{name}_pool_destroy"]
        self._destroy.argtypes, self._destroy.restype = [ctypes.c_void_p], None
        self.parallel_for = ctypes.cast(library[f"qc_{name}_pool_parallel_for"], ctypes.c_void_p).value
        self._pools: dict[tuple[int, int], tuple[int, Array]] = {}
        self._lock = threading.Lock()

    def get(self, threads: int) -> int:
        """The address of the pool of so many threads."""
        key = (os.getpid(), threads)
        known = self._pools.get(key)
        if known is None:
            with self._lock:
                known = self._pools.get(key)
                if known is None:
                    memory = _aligned_buffer(self._bytes(threads))
                    known = self._pools[key] = (self._create(memory.ctypes.data, threads), memory)
        return known[0]

    def close(self) -> None:
        """Ends the threads that this process started."""
        for process, threads in list(self._pools):
            address, _ = self._pools.pop((process, threads))
            if process == os.getpid():
                self._destroy(address)


def _port(description: Mapping[str, Any]) -> Port:
    return Port(
        name=description["name"],
        dtype=description["dtype"],
        bits=description["bits"],
        shape=tuple(description["shape"]),
        layout=description["layout"],
        scale=float.fromhex(description["scale_hex"]),
        zero=description["zero"],
        kind=description.get("kind", "value"),
    )


def _code_type(port: Port) -> IntegerType:
    """The codes that a port may carry."""
    return IntegerType(port.bits, signed=not port.dtype.startswith("u"))


def _is_tensor(x: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _holds_integers(x: object) -> bool:
    """Whether x is an array or tensor of an integer type."""
    if _is_tensor(x):
        return not (x.is_floating_point() or x.is_complex() or str(x.dtype) == "torch.bool")  # type: ignore[attr-defined]
    return isinstance(x, np.ndarray) and x.dtype.kind in "iu"


def _softmax(x: Array, axis: int, function: str) -> Array:
    """Softmax or log-softmax in float64: the end of the float model, which the library leaves to its caller."""
    shifted = x.astype(np.float64) - x.max(axis=axis, keepdims=True)
    logarithm = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    result: Array = logarithm if function == "log_softmax" else np.exp(logarithm)
    return result.astype(np.float32)


class Library:
    """A network loaded from an artifact's folder.

    ``library(x)`` takes and gives float arrays, ``run_int`` integer codes. Any number of Python threads may run it at
    once; each run has a workspace of its own. ``description`` is net.json; ``inputs`` and ``outputs`` are the ports.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Loads everything that it needs, so that the folder may go afterwards.

        Raises CompileError RUN001 or, if this machine cannot run it, RUN002.
        """
        self.folder = Path(folder)
        self.description = self._read_description()
        self._check_host()
        self.inputs = tuple(_port(port) for port in self.description["inputs"])
        self.outputs = tuple(_port(port) for port in self.description["outputs"])
        self.name: str = self.description["name"]
        try:
            self._file = os.open(self.folder / LIBRARY, os.O_RDONLY | os.O_CLOEXEC)  # for copies: the folder may go
            weakref.finalize(self, os.close, self._file)
            self._library = ctypes.CDLL(str((self.folder / LIBRARY).absolute()))
        except OSError as error:
            raise self._broken(f"{LIBRARY} cannot be loaded: {error}") from error
        self._run = self._library[f"qc_{self.name}_run"]
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(_Options)]
        self._run.restype = ctypes.c_int32
        workspace_bytes = self._library[f"qc_{self.name}_workspace_bytes"]
        workspace_bytes.argtypes, workspace_bytes.restype = [ctypes.c_void_p], ctypes.c_size_t
        self.workspace_bytes = int(workspace_bytes(None))
        self._report = read_report(self.folder) if (self.folder / REPORT).is_file() else None
        self._frames: list[_Frame] = []
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._running = 0
        self._closed = False
        self._pools = _Pools(self._library, self.name) if self.description["pool"] else None
        if self._pools is not None:
            # Not at exit: a daemon thread may still be running then, and the system ends the pool's threads anyway.
            weakref.finalize(self, self._pools.close).atexit = False

    def _broken(self, problem: str) -> CompileError:
        return CompileError("RUN001", str(self.folder), problem, "name a folder that qcompiler build wrote, or build it again")

    def _read_description(self) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._broken(f"{DESCRIPTION} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise self._broken(f"{DESCRIPTION} is not of format {FORMAT}")
        return content

    def _check_host(self) -> None:
        architecture = self.description["architecture"]
        present = host_cpu_flags()
        missing = [flag for flag in self.description["cpu_flags"] if flag not in present]
        problem = ""
        if sys.platform != "linux":
            problem = f"the library is an ELF file for Linux, this system is {sys.platform}"
        elif architecture != host_architecture():
            problem = f"the library is for {architecture}, this machine is {host_architecture()}"
        elif missing:
            problem = f"the library is for target {self.description['target']!r}, this CPU lacks {', '.join(missing)}"
        if problem:
            raise CompileError("RUN002", str(self.folder), problem, "build for target 'native', or run it where it belongs")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Library], tuple[Any, ...]]:
        """The artifact's files as bytes, and what makes a library of them. Raises CompileError RUN009 when closed."""
        self._check_open()
        contents = {
            LIBRARY: Path(f"/proc/self/fd/{self._file}").read_bytes(),
            DESCRIPTION: json.dumps(self.description).encode(),
        }
        if self._report is not None:
            contents[REPORT] = self._report.to_json().encode()
        return _loaded, (type(self), str(self.folder), contents)

    def report(self) -> Report:
        """The table of layers: bits, shapes, bytes, SQNR against float. Raises CompileError REPORT001 without one."""
        return self._report or read_report(self.folder)

    def close(self) -> None:
        """Waits for running calls and ends the pool's threads; later calls raise CompileError RUN009."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: self._running == 0)
        if self._pools is not None:
            self._pools.close()
        self._frames.clear()

    def __call__(self, *arrays: Any, threads: int = 1) -> Any:
        """Float in, float out: ``[N, ...]`` numpy arrays or torch tensors; float32 of the same kind comes back.

        Indices stay integers: tokens are given as integers of any type, places (argmax, top-k) come back as int64.
        A softmax at the model's end is applied here; ``run_int`` gives the codes before it.

        One output comes as an array, several as a tuple. Values outside of the calibrated range saturate. Raises
        CompileError RUN003 (number of inputs), RUN004 (types), RUN005 (shapes), RUN007 (NaN), RUN008 (threads), RUN009.
        """
        self._check_count(arrays)
        codes = [
            self._indices(port, x) if port.kind == "index" and _holds_integers(x) else self._quantize(port, self._numpy(port, x))
            for port, x in zip(self.inputs, arrays, strict=True)
        ]
        results = [
            y.astype(np.int64) if port.kind == "index" else dequantize(y, port.scale, port.zero)
            for port, y in zip(self.outputs, self._execute(codes, threads), strict=True)
        ]
        for activation in self.description.get("final_activations", ()):
            results[activation["output"]] = _softmax(results[activation["output"]], activation["axis"], activation["function"])
        tensors = [x for x in arrays if _is_tensor(x)]
        converted: list[Any] = results
        if tensors:
            import torch

            converted = [torch.from_numpy(result).to(tensors[0].device) for result in results]
        return converted[0] if len(converted) == 1 else tuple(converted)

    def run_int(self, *codes: Any, threads: int = 1) -> Any:
        """Codes in, codes out: ``[N, ...]`` numpy arrays of the ports' types; any strides.

        One output comes as an array, several as a tuple. Raises CompileError RUN003 (number of inputs), RUN004 (types),
        RUN005 (shapes), RUN006 (a code that has more bits than the port), RUN008 (threads), RUN009 (closed).
        """
        self._check_count(codes)
        for port, x in zip(self.inputs, codes, strict=True):
            if not isinstance(x, np.ndarray) or x.dtype != np.dtype(port.dtype):
                found = str(x.dtype) if isinstance(x, np.ndarray) else type(x).__name__
                problem = f"codes are {found}, not a numpy array of {port.dtype}"
                raise CompileError(
                    "RUN004", self._place(port), problem, f"give a numpy array of {port.dtype}; floats go to lib(x)"
                )
            self._check_shape(port, x.shape)
            if port.bits == 8 * x.dtype.itemsize or not x.size:
                continue
            kind = _code_type(port)
            if not kind.minimum <= int(x.min()) <= int(x.max()) <= kind.maximum:
                problem = f"codes go from {x.min()} to {x.max()}, but {kind} holds {kind.minimum} to {kind.maximum}"
                raise CompileError("RUN006", self._place(port), problem, f"give codes of {port.bits} bits")
        results = self._execute(codes, threads)
        return results[0] if len(results) == 1 else tuple(results)

    def _place(self, port: Port) -> str:
        return f"{self.name} (input {port.name!r})"

    def _check_count(self, arrays: Sequence[object]) -> None:
        if len(arrays) != len(self.inputs):
            wanted = ", ".join(f"{p.name} [N{''.join(f', {extent}' for extent in p.shape)}]" for p in self.inputs)
            problem = f"{len(arrays)} arrays for {len(self.inputs)} inputs"
            raise CompileError("RUN003", self.name, problem, f"give one array for each of: {wanted}")

    def _check_shape(self, port: Port, shape: tuple[int, ...]) -> None:
        if not shape or tuple(shape[1:]) != port.shape or shape[0] > _MAXIMUM_BATCH:
            wanted = f"[N{''.join(f', {extent}' for extent in port.shape)}]"
            hint = "; one sample needs a batch in front, x[None]" if tuple(shape) == port.shape else ""
            problem = f"shape {list(shape)} is not {wanted}"
            raise CompileError("RUN005", self._place(port), problem, f"give an array of shape {wanted}{hint}")

    def _numpy(self, port: Port, x: Any) -> Array:
        """A float array or tensor as numpy, its kind and shape checked; whole numbers are taken where each has a code."""
        if port.scale == 1.0 and _holds_integers(x):
            x = (x.detach().cpu().numpy() if _is_tensor(x) else np.asarray(x)).astype(np.float64)
        if _is_tensor(x):
            import torch

            if x.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
                x = x.detach().to(device="cpu", dtype=torch.float64 if x.dtype == torch.float64 else torch.float32).numpy()
        if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
            found = str(x.dtype) if hasattr(x, "dtype") else type(x).__name__
            problem = f"values are {found}, not floats"
            raise CompileError(
                "RUN004", self._place(port), problem, "give a numpy array or torch tensor of float32; codes go to run_int"
            )
        self._check_shape(port, x.shape)
        return x

    def _indices(self, port: Port, x: Any) -> Array:
        """Integers of any type as int32, those beyond it at its ends."""
        if _is_tensor(x):
            x = x.detach().cpu().numpy()
        self._check_shape(port, x.shape)
        kind = _code_type(port)
        indices: Array = np.clip(x, kind.minimum, kind.maximum).astype(port.dtype)
        return indices

    def _quantize(self, port: Port, x: Array) -> Array:
        if x.size and np.isnan(x.max()):
            first = tuple(int(i) for i in np.argwhere(np.isnan(x))[0])
            problem = f"{int(np.isnan(x).sum())} values are NaN, the first at {list(first)}"
            raise CompileError("RUN007", self._place(port), problem, "replace NaN before the network sees it")
        kind = _code_type(port)
        return quantize(x, port.scale, port.zero, kind.minimum, kind.maximum, port.dtype)

    def _check_open(self) -> None:
        if self._closed:
            raise CompileError("RUN009", self.name, "the library is closed", "load it again")

    def _enter(self) -> _Frame:
        """A frame that is this call's own, and the library kept open until :meth:`_leave`."""
        with self._lock:
            self._check_open()
            frame = self._frames.pop() if self._frames else None
            self._running += 1
        try:
            return frame or _Frame(self.workspace_bytes, len(self.inputs), len(self.outputs))
        except BaseException:  # no memory, Ctrl-C
            self._leave(None)
            raise

    def _leave(self, frame: _Frame | None) -> None:
        with self._lock:
            self._running -= 1
            if frame is not None:
                self._frames.append(frame)
            if self._closed:
                self._idle.notify_all()

    def _execute(self, codes: Sequence[Array], threads: int) -> list[Array]:
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= _MAXIMUM_THREADS:
            raise CompileError(
                "RUN008", self.name, f"threads is {threads!r}", f"give a whole number from 1 to {_MAXIMUM_THREADS}"
            )
        if threads > 1 and self._pools is None:
            raise CompileError(
                "RUN008", self.name, f"threads is {threads}, but the library has no thread pool", "build it with pool=True"
            )
        n = len(codes[0]) if codes else 1
        if any(len(x) != n for x in codes):
            batches = sorted({len(x) for x in codes})
            raise CompileError("RUN005", self.name, f"the inputs have batches of {batches}", "give all inputs the same batch")
        held = [x if x.flags.carray else np.require(x, requirements=["C", "ALIGNED"]) for x in codes]
        results = [np.empty((n, *port.shape), dtype=port.dtype) for port in self.outputs]
        frame = self._enter()
        try:
            frame.inputs[: len(held)] = [_address(x) for x in held]
            frame.outputs[: len(results)] = [_address(y) for y in results]
            if threads > 1 and self._pools is not None:
                frame.use_threads(threads, self._pools.parallel_for, self._pools.get(threads))
            elif frame.options.threads != 1:
                frame.use_threads(1, None, None)
            status = self._run(frame.inputs, frame.outputs, n, frame.address, frame.arguments)
        finally:
            self._leave(frame)
        if status:
            raise InternalError(f"qc_{self.name}_run returned {status} for checked arguments")
        return results


def _loaded(kind: type[Library], folder: str, contents: Mapping[str, bytes]) -> Library:
    """A library from an artifact's files by their names; ``folder`` is where they came from, for messages."""
    with temporary_folder() as place:
        for name, content in contents.items():
            (place / name).write_bytes(content)
        library = kind(place)
    library.folder = Path(folder)
    return library


def load(folder: str | os.PathLike[str]) -> Library:
    """The library in an artifact's folder. Raises CompileError RUN001 or RUN002."""
    return Library(folder)
