"""A run of accesses: what the native loop works on, and what became of each."""

from __future__ import annotations

import ctypes
from array import array

from devbc.hypervisor.layouts import ACCESS, CURSOR


class Run:
    """Accesses to be run, and what became of them; an element an access in each array."""

    def __init__(self, accesses: bytes | bytearray) -> None:
        if len(accesses) % ACCESS.size:
            raise ValueError("accesses are not whole records")
        self.count = len(accesses) // ACCESS.size
        self.accesses = (ACCESS.struct * self.count).from_buffer_copy(accesses)
        self.outcomes = bytearray(self.count)
        self.answers = array("Q", bytes(8 * self.count))
        self.ticks = array("I", bytes(4 * self.count))
        self.cursor = CURSOR.struct(
            accesses=ctypes.addressof(self.accesses),
            count=self.count,
            outcomes=_address(self.outcomes),
            answers=_address(self.answers),
            ticks=_address(self.ticks),
        )

    @property
    def done(self) -> int:
        """Accesses that are done."""
        return int(self.cursor.index)


def _address(buffer: bytearray | array[int]) -> int:
    """Where a buffer's bytes are; it must not be resized while native code uses it."""
    if not buffer:
        return 0
    return ctypes.addressof((ctypes.c_char * (len(buffer) * memoryview(buffer).itemsize)).from_buffer(buffer))
