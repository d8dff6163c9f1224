"""ggml's product of a quantized matrix with one vector on one thread: the peer of :mod:`examples.benchmarks.linear`."""

from __future__ import annotations

import ctypes
import mmap
from itertools import takewhile
from typing import Any, Final

import numpy as np

from qcompiler.ir.graph import Array

FORMATS: Final = {8: "Q8_0", 4: "Q4_K", 2: "Q2_K"}
"""By bits of a weight; with the scales of its blocks Q8_0 stores 8.5 bits, Q4_K 4.5 and Q2_K 2.625."""
REPACKED: Final = (4, 2)
"""Bits whose format ggml repacks for kernels of x86."""
_LEAST_COSINE: Final = {8: 0.999, 4: 0.98, 2: 0.8}


class GgmlLinear:
    """``count`` equal matrices at different places of memory, multiplied one after the other with the same vector.

    ``ggml`` is the module of ggml-python. Raises RuntimeError where ggml fails or a product is not what it should be.
    """

    def __init__(self, ggml: Any, inputs: int, outputs: int, bits: int, count: int, huge_pages: bool) -> None:
        self._ggml = ggml
        kind = getattr(ggml, f"GGML_TYPE_{FORMATS[bits].upper()}")
        self._backend = ggml.ggml_backend_cpu_init()
        ggml.ggml_backend_cpu_set_n_threads(self._backend, 1)
        overhead = 4 * (count + 2) * ggml.ggml_tensor_overhead() + ggml.ggml_graph_overhead_custom(2 * count + 2, False)
        self._contexts = [ggml.ggml_init(ggml.ggml_init_params(overhead, None, True)) for _ in range(2)]
        matrices, values = self._contexts
        tensors = [ggml.ggml_new_tensor_2d(matrices, kind, inputs, outputs) for _ in range(count)]
        x = ggml.ggml_new_tensor_2d(values, ggml.GGML_TYPE_F32, inputs, 1)
        results = [ggml.ggml_mul_mat(values, tensor, x) for tensor in tensors]
        self._graph = ggml.ggml_new_graph_custom(values, 2 * count + 2, False)
        for result in results:
            ggml.ggml_build_forward_expand(self._graph, result)
        buffer_type = _repacked(ggml) if bits in REPACKED else ggml.ggml_backend_get_default_buffer_type(self._backend)
        self._buffers = [
            ggml.ggml_backend_alloc_ctx_tensors_from_buft(matrices, buffer_type),
            ggml.ggml_backend_alloc_ctx_tensors(values, self._backend),
        ]
        if not all(self._buffers):
            raise RuntimeError("ggml could not allocate the matrices")
        _advise(ggml, self._buffers[0], huge_pages)
        random = np.random.default_rng(0)
        weights = random.standard_normal((outputs, inputs), np.float32)
        stored = np.empty(ggml.ggml_row_size(kind, inputs) * outputs, np.uint8)
        source = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        ggml.ggml_quantize_chunk(kind, source, stored.ctypes.data, 0, outputs, inputs, None)
        for tensor in tensors:
            ggml.ggml_backend_tensor_set(tensor, stored.ctypes.data, 0, stored.nbytes)
        vector = random.standard_normal(inputs, np.float32)
        ggml.ggml_backend_tensor_set(x, vector.ctypes.data, 0, vector.nbytes)
        self.bytes = stored.nbytes
        self.run()
        for result in (results[0], results[-1]):
            self._check(result, weights @ vector, _LEAST_COSINE[bits])

    def run(self) -> None:
        """Multiplies all of them."""
        if self._ggml.ggml_backend_graph_compute(self._backend, self._graph) != 0:
            raise RuntimeError("ggml could not compute the products")

    def close(self) -> None:
        """Gives the memory back."""
        for buffer in self._buffers:
            self._ggml.ggml_backend_buffer_free(buffer)
        for context in self._contexts:
            self._ggml.ggml_free(context)
        self._ggml.ggml_backend_free(self._backend)

    def _check(self, result: Any, expected: Array, least: float) -> None:
        found = np.empty(len(expected), np.float32)
        self._ggml.ggml_backend_tensor_get(result, found.ctypes.data, 0, found.nbytes)
        cosine = float(found @ expected / np.sqrt((found @ found) * (expected @ expected)))
        if not cosine >= least:
            raise RuntimeError(f"ggml's product has a cosine of {cosine:.4f} with the float one, less than {least}")


def _repacked(ggml: Any) -> Any:
    """The type of buffers that weights are repacked into, for the kernels of the CPU."""
    registry = ggml.ggml_backend_cpu_reg()
    address = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(
        ggml.ggml_backend_reg_dev_get(registry, 0)
    )
    for kind in takewhile(bool, kinds):
        if ggml.ggml_backend_buft_name(kind) == b"CPU_REPACK":
            return kind
    raise RuntimeError("ggml was built without kernels for repacked weights")


def _advise(ggml: Any, buffer: Any, huge_pages: bool) -> None:
    """Asks for huge pages, or for none, before the memory is touched."""
    base = ctypes.cast(ggml.ggml_backend_buffer_get_base(buffer), ctypes.c_void_p).value or 0
    begin = -(-base // 4096) * 4096
    end = (base + ggml.ggml_backend_buffer_get_size(buffer)) // 4096 * 4096
    libc = ctypes.CDLL(None, use_errno=True)
    advice = mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE
    if libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice):
        raise RuntimeError(f"madvise failed with errno {ctypes.get_errno()}")
