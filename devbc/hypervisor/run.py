"""A run of accesses: what the native loop works on, and what became of each."""

from __future__ import annotations

import ctypes
from array import array

from devbc.abi import EXIT_FIELDS
from devbc.hypervisor.layouts import ACCESS, CURSOR

#: Arguments of a hypercall.
ARGUMENTS = EXIT_FIELDS["arg"].count


class Run:
    """Accesses to be run, and what became of them; an element an access in each array.

    `arguments`: six numbers for each access, for hypercalls. `turns`: each access's place among those of all
    vCPUs, which then run in that order, whatever their threads do. `recorded`: whether a read's value is what
    the recorded emulator returned. `timed`: whether each exit's time is taken, which costs a reading of the
    time-stamp counter, more than all the rest; untimed, `ticks` is empty and no handler's histogram grows.
    """

    def __init__(
        self,
        accesses: bytes | bytearray,
        *,
        arguments: array[int] | None = None,
        turns: array[int] | None = None,
        recorded: bool = True,
        timed: bool = True,
    ) -> None:
        if len(accesses) % ACCESS.size:
            raise ValueError("accesses are not whole records")
        self._arguments, self._turns = arguments, turns
        self.count = len(accesses) // ACCESS.size
        for given, each in ((arguments, ARGUMENTS), (turns, 1)):
            if given is not None and (given.itemsize != 8 or len(given) != each * self.count):
                raise ValueError("arguments and turns have an element for each access")
        self.accesses = (ACCESS.struct * self.count).from_buffer_copy(accesses)
        self.outcomes = bytearray(self.count)
        self.answers = array("Q", bytes(8 * self.count))
        self.ticks = array("I", bytes(4 * self.count * timed))
        self.cursor = CURSOR.struct(
            accesses=ctypes.addressof(self.accesses),
            arguments=_address(arguments) if arguments else None,
            turns=_address(turns) if turns else None,
            count=self.count,
            mask=(1 << 64) - 1,
            recorded=recorded,
            outcomes=_address(self.outcomes),
            answers=_address(self.answers),
            ticks=_address(self.ticks) if timed else None,
        )

    def arguments(self, index: int) -> tuple[int, ...]:
        """The arguments of the hypercall at an index."""
        given = self._arguments
        return tuple(given[ARGUMENTS * index : ARGUMENTS * (index + 1)]) if given else (0,) * ARGUMENTS

    @property
    def done(self) -> int:
        """Accesses that are done."""
        return int(self.cursor.index)


def _address(buffer: bytearray | array[int]) -> int:
    """Where a buffer's bytes are; it must not be resized while native code uses it."""
    if not buffer:
        return 0
    return ctypes.addressof((ctypes.c_char * (len(buffer) * memoryview(buffer).itemsize)).from_buffer(buffer))
