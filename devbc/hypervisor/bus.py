"""Where devices sit: banks at addresses, hypercalls at numbers, and the dispatch table of the native loop.

Every (space, operation, address, size) that a program answers has an entry of its own, ranges expanded;
finding one is a hash and, at a load of a quarter, hardly ever a second probe, however many registers a
machine has. What is not in the table but lies in a bank is its model's; the rest is nobody's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from devbc.abi import AccessBinding, HypercallBinding, Op, Space
from devbc.diagnostics import Diagnostic, Rejected, Span, did_you_mean, reject
from devbc.hypervisor import errors
from devbc.hypervisor.layouts import (
    ADDRESS_BITS,
    CLAIM,
    CLAIM_KIND_SHIFT,
    ENTRY,
    HYPERCALL,
    KEY_BITS,
    NO_KEY,
)
from devbc.program.program import Bank, Program

#: 2**64 divided by the golden ratio: multiplicative hashing (Knuth, volume 3, section 6.4).
HASH_MULTIPLIER = 0x9E3779B97F4A7C15
_U64 = (1 << 64) - 1

#: What kinds of exit a machine dispatches, by `layouts.ACCESS.space`: the spaces' names, and hypercalls.
KINDS = (*(str(space) for space in Space), "hypercall")
assert KINDS[HYPERCALL] == "hypercall"
_OPS = {op: index for index, op in enumerate(Op)}

#: Addresses must fit the key of an access beside its kind, operation and size.
ADDRESS_LIMIT = {Space.PIO: 1 << 16, Space.MMIO: 1 << ADDRESS_BITS}
_KIND_LIMIT = (1 << 16, 1 << ADDRESS_BITS, 1 << 32)


def access_key(kind: int, op: Op, address: int, size: int) -> int:
    """The dispatch key of an access; the native loop computes the same. Hypercalls are reads of 8 bytes."""
    return address << KEY_BITS | kind << 3 | _OPS[op] << 2 | (size.bit_length() - 1)


def kind_of(space: Space) -> int:
    return KINDS.index(space)


@dataclass(frozen=True, slots=True)
class Placement:
    """A bank of a device at an address, or its hypercalls at a number: `bank` is `hypercall` then.

    `number` is the bank's place among the program's, or how many there are, for hypercalls.
    """

    device: int
    bank: str
    number: int
    kind: int
    base: int
    size: int

    @property
    def end(self) -> int:
        return self.base + self.size


def placements(device: int, program: Program, at: Mapping[str, int]) -> Iterator[Placement]:
    """Where a program's banks and hypercalls are put. Raises Rejected (H003) for a name it does not have."""
    banks = {bank.name: (number, kind_of(bank.space), bank.size) for number, bank in enumerate(program.banks)}
    calls = [each.binding.number for each in program.handlers if isinstance(each.binding, HypercallBinding)]
    if calls:
        banks[KINDS[HYPERCALL]] = (len(program.banks), HYPERCALL, max(calls) + 1)
    for name, base in at.items():
        if name not in banks:
            known = ", ".join(f"`{each}`" for each in banks) or "none"
            message = f"device `{program.device}` has no bank `{name}`"
            help = did_you_mean(name, banks) or (f"its banks are: {known}",)
            raise reject(errors.UNKNOWN_NAME, message, help=help)
        yield Placement(device, name, *banks[name][:2], base, banks[name][2])


class AddressMap:
    """The placements of a machine; finds the one that holds an address.

    Raises Rejected (H004) if two overlap, (H006) if one leaves its address space.
    """

    def __init__(self, placements: Iterable[Placement], names: Mapping[int, str]) -> None:
        self._by_kind: list[list[Placement]] = [[] for _ in KINDS]
        for placement in sorted(placements, key=lambda p: p.base):
            self._by_kind[placement.kind].append(placement)
        self._bases = [[p.base for p in found] for found in self._by_kind]
        if faults := list(self._faults(names)):
            raise Rejected(*faults)

    def find(self, kind: int, address: int) -> Placement | None:
        index = bisect_right(self._bases[kind], address) - 1
        if index < 0:
            return None
        placement = self._by_kind[kind][index]
        return placement if address < placement.end else None

    def claims(self) -> Any:
        """The `CLAIM` table of the native loop, sorted."""
        rows = [
            (p.base | kind << CLAIM_KIND_SHIFT, (p.end - 1) | kind << CLAIM_KIND_SHIFT, p.device, p.number)
            for kind, found in enumerate(self._by_kind)
            for p in found
        ]
        table: Any = CLAIM.struct * max(1, len(rows))
        return table(*rows)

    def __len__(self) -> int:
        return sum(len(found) for found in self._by_kind)

    def _faults(self, names: Mapping[int, str]) -> Iterable[Diagnostic]:
        for kind, found in enumerate(self._by_kind):
            for placement in found:
                if placement.end > _KIND_LIMIT[kind]:
                    message = (
                        f"bank `{placement.bank}` of `{names[placement.device]}` ends at "
                        f"{placement.end:#x}, beyond the {KINDS[kind]} space"
                    )
                    yield Diagnostic(errors.OUTSIDE_BANK, message)
            for one, other in pairwise(found):
                if other.base < one.end:
                    message = (
                        f"`{names[one.device]}` and `{names[other.device]}` both claim "
                        f"{KINDS[kind]} {other.base:#x}"
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
            size = 1 << (key & 3)
            record.mask = (1 << 8 * size) - 1
            record.size = 0 if key >> 3 & 3 == HYPERCALL else size
