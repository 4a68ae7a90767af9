"""Where devices sit: banks at addresses, and the flat dispatch table that the native loop searches.

Every (space, operation, address, size) that a program answers has an entry of its own, ranges expanded;
finding one is a hash and, at a load of a quarter, hardly ever a second probe, however many registers a
machine has. What is not in the table but lies in a bank is its model's; the rest is nobody's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from devbc.abi import AccessBinding, Op, Space
from devbc.diagnostics import Diagnostic, Rejected, Span
from devbc.hypervisor import errors
from devbc.hypervisor.layouts import CLAIM, ENTRY, KEY_BITS, NO_KEY
from devbc.program.program import Bank

#: 2**64 divided by the golden ratio: multiplicative hashing (Knuth, volume 3, section 6.4).
HASH_MULTIPLIER = 0x9E3779B97F4A7C15
_SPACES = {space: index for index, space in enumerate(Space)}
_OPS = {op: index for index, op in enumerate(Op)}
_U64 = (1 << 64) - 1

#: Addresses must fit the key of an access beside its space, operation and size.
ADDRESS_LIMIT = {Space.PIO: 1 << 16, Space.MMIO: 1 << 52}


def access_key(space: Space, op: Op, address: int, size: int) -> int:
    """The dispatch key of an access; the native loop computes the same."""
    return address << KEY_BITS | _SPACES[space] << 3 | _OPS[op] << 2 | (size.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class Placement:
    """A bank of a device at an address."""

    device: int
    bank: Bank
    base: int

    @property
    def end(self) -> int:
        return self.base + self.bank.size


class AddressMap:
    """The placements of a machine; finds the one that holds an address.

    Raises Rejected (H004) if two overlap, (H006) if one leaves its address space.
    """

    def __init__(self, placements: Iterable[Placement], names: Mapping[int, str]) -> None:
        self._by_space = {
            space: sorted((p for p in placements if p.bank.space is space), key=lambda p: p.base)
            for space in Space
        }
        self._bases = {space: [p.base for p in found] for space, found in self._by_space.items()}
        if faults := list(self._faults(names)):
            raise Rejected(*faults)

    def find(self, space: Space, address: int) -> Placement | None:
        index = bisect_right(self._bases[space], address) - 1
        if index < 0:
            return None
        placement = self._by_space[space][index]
        return placement if address < placement.end else None

    def claims(self) -> Any:
        """The `CLAIM` table of the native loop, sorted."""
        top = {Space.PIO: 0, Space.MMIO: 1 << 63}
        rows = [
            (p.base | top[space], (p.end - 1) | top[space])
            for space in (Space.PIO, Space.MMIO)
            for p in self._by_space[space]
        ]
        table: Any = (CLAIM.struct * max(1, len(rows)))()
        for index, row in enumerate(rows):
            table[index].first, table[index].last = row
        return table

    def __len__(self) -> int:
        return sum(len(found) for found in self._by_space.values())

    def _faults(self, names: Mapping[int, str]) -> Iterable[Diagnostic]:
        for space, found in self._by_space.items():
            for placement in found:
                if placement.end > ADDRESS_LIMIT[space]:
                    message = (
                        f"bank `{placement.bank.name}` of `{names[placement.device]}` ends at "
                        f"{placement.end:#x}, beyond the {space} space"
                    )
                    yield Diagnostic(errors.OUTSIDE_BANK, message)
            for one, other in pairwise(found):
                if other.base < one.end:
                    message = (
                        f"`{names[one.device]}` and `{names[other.device]}` both claim "
                        f"{space} {other.base:#x}"
                    )
                    yield Diagnostic(errors.OVERLAP, message)


def check_binding(binding: AccessBinding, banks: Mapping[str, Bank], section: str) -> Diagnostic | None:
    """Why a handler cannot be placed in its device's banks, or None."""
    bank = banks.get(binding.bank)
    if bank is None or bank.space is not binding.space:
        message = (
            f"handler `{section}` names the {binding.space} bank `{binding.bank}`, which is not declared"
        )
        return Diagnostic(errors.OUTSIDE_BANK, message, Span(section))
    end = binding.hi + min(binding.sizes)
    if end > bank.size:
        message = f"handler `{section}` answers up to offset {end - 1:#x} of a bank of {bank.size:#x} bytes"
        return Diagnostic(errors.OUTSIDE_BANK, message, Span(section))
    return None


class DispatchTable:
    """The open-addressing hash table of `ENTRY` records."""

    def __init__(self, entries: Mapping[int, tuple[int, int]]) -> None:
        """`entries`: for each access key, the offset in the bank and the address of the handler's slot."""
        bits = max(4, (4 * len(entries)).bit_length())
        self.mask = (1 << bits) - 1
        self.shift = 64 - bits
        self.records: Any = (ENTRY.struct * (self.mask + 1))()
        for record in self.records:
            record.key = NO_KEY
        for key, (offset, slot) in entries.items():
            position = (key * HASH_MULTIPLIER & _U64) >> self.shift
            while self.records[position].key != NO_KEY:
                position = (position + 1) & self.mask
            record = self.records[position]
            record.key, record.offset, record.slot = key, offset, slot
