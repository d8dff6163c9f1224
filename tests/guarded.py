"""Memory that lies against pages which may not be accessed, so that a byte read or written outside ends the process."""

from __future__ import annotations

import ctypes
import mmap


class Guarded:
    """``size`` bytes that end (or begin) exactly at a page without access."""

    def __init__(self, size: int, at_end: bool) -> None:
        page = mmap.PAGESIZE
        inner = -(-max(size, 1) // page) * page
        self.memory = mmap.mmap(-1, inner + 2 * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        libc = ctypes.CDLL(None, use_errno=True)
        for address in (base, base + page + inner):
            assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0) == 0
        self.address = base + page + (inner - size if at_end else 0)
