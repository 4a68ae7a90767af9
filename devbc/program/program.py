"""What a program is, between the object file and the engines: handlers, data, and what describes them.

`Program` is what an object holds, linked but not yet trusted. Each handler is self-contained byte code:
its own function first, every function that it calls behind it, local calls resolved. The shared area and
the read-only data are named by `lddw` of map values (`devbc.abi.MapIndex`), so that nothing in the code
depends on where they lie.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field

from devbc.abi import Binding, Space
from devbc.diagnostics import Span


@dataclass(frozen=True, slots=True)
class Function:
    """A function within a handler's linked code: its name and its first slot."""

    name: str
    slot: int


@dataclass(frozen=True, slots=True)
class Handler:
    """One handler, linked.

    `code`: byte code, the entry at slot 0. `lines`: source places by slot, each holding from its slot to
    the next entry. `functions`: the entry first, then the callees in code order.
    """

    section: str
    binding: Binding
    code: bytes
    functions: tuple[Function, ...]
    lines: Mapping[int, Span] = field(default_factory=dict)

    def span(self, slot: int) -> Span | None:
        """The source place of the instruction at `slot`, if the object says."""
        best = max((each for each in self.lines if each <= slot), default=None)
        return None if best is None else self.lines[best]


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a device's ports and hypercalls by number, from the `.devbc` strings.

    A hypercall that is a register's read or write is called `NAME.read` or `NAME.write`.
    """

    timers: Mapping[int, str] = field(default_factory=dict)
    lines: Mapping[int, str] = field(default_factory=dict)
    inputs: Mapping[int, str] = field(default_factory=dict)
    signals: Mapping[int, str] = field(default_factory=dict)
    calls: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bank:
    """A contiguous range of a device's registers in one address space; `size` in bytes."""

    name: str
    space: Space
    size: int


@dataclass(frozen=True, slots=True)
class Register:
    """A register's name and place, for people: `count` registers of `size` bytes, `stride` apart.

    A register that several banks reach has a place in each, under one name.
    """

    name: str
    bank: str
    offset: int
    size: int
    count: int = 1
    stride: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """An object's program: linked, checked for shape, not verified.

    `scratch_image`: initial bytes of the shared area (its length is the area's size, header excluded).
    `scratch_type`: the area as a ctypes structure made from BTF, for named access; None without BTF.
    """

    device: str
    handlers: tuple[Handler, ...]
    scratch_image: bytes
    rodata: bytes
    names: Names
    banks: tuple[Bank, ...]
    registers: tuple[Register, ...] = ()
    scratch_type: type[ctypes.Structure] | None = None
