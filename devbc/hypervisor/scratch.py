"""The shared area of a device: a memfd that the machine and userspace map, a header and then variables.

The header holds the device's lock and a sequence count; `layouts.AREA_HEADER` is its definition. Programs
are given the address behind the header, and cannot reach the header itself: the verifier bounds them to
their variables. Userspace is not trusted with either: whatever it writes here can make the device wrong
for its own guest, and nothing else.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

from devbc.abi import SCRATCH_HEADER


class SharedArea:
    """One device's shared area.

    `view` is the program's variables as the ctypes structure made from its BTF (plain bytes without BTF);
    `address` is where they start, for native code. The mapping lives as long as this object and its view.
    """

    def __init__(self, image: bytes, view_type: type[ctypes.Structure] | None) -> None:
        size = max(SCRATCH_HEADER + len(image), 1)
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.fd = sealed_memfd(pages, "devbc-scratch") if hasattr(os, "memfd_create") else -1
        self.map = mmap.mmap(self.fd, pages) if self.fd >= 0 else mmap.mmap(-1, pages)
        self.map[SCRATCH_HEADER : SCRATCH_HEADER + len(image)] = image
        base = (ctypes.c_char * pages).from_buffer(self.map)
        self.header_address = ctypes.addressof(base)
        self.address = self.header_address + SCRATCH_HEADER
        self.bytes = memoryview(self.map)[SCRATCH_HEADER : SCRATCH_HEADER + len(image)]
        self.view: Any = view_type.from_buffer(self.map, SCRATCH_HEADER) if view_type else self.bytes
        self._base = base

    def close(self) -> None:
        """Give the descriptor back; the mapping stays while this object or its view lives."""
        if getattr(self, "fd", -1) >= 0:
            os.close(self.fd)
            self.fd = -1

    __del__ = close


def sealed_memfd(size: int, name: str) -> int:
    """A memfd that nobody can shrink under another's mapping."""
    import fcntl

    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd
