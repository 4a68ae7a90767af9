"""The interface between a program and the machine: exit layout, verdicts, helpers, section names.

A handler is a BPF function `u64 handler(struct devbc_exit *exit)` in an ELF section of its own, whose name
binds it to accesses. This module is the only definition of that interface: the C header, the compiler, the
verifier and the engines all read it. It depends on nothing.

    PLACE[,PLACE...]/read|write@LO[-HI][:SIZE[,SIZE...]]     pio/read@0x0:1   mmio/read@0x100-0x1f8:4
        PLACE: space[:bank]; a handler may answer several banks alike    pio,mmio/read@0x0:1
    timer/NAME      a timer of this device has expired   timer/tick
    line/NAME       an input line has changed            line/gate
    hypercall/NR    the device's hypercall NR            hypercall/0x10
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Verdict(IntEnum):
    """What a handler returns in r0. A program that does nothing declines."""

    DECLINE = 0
    HANDLED = 1


class Helper(IntEnum):
    """Functions a program may call, by Linux's numbers (uapi/linux/bpf.h)."""

    #: `u64 ktime_get_ns(void)`: nanoseconds of the host's monotonic clock.
    KTIME_GET_NS = 5


class MapIndex(IntEnum):
    """Regions that `lddw` names, by RFC 9669 section 5.4 `map_val(map_by_idx(imm)) + next_imm`."""

    SCRATCH = 0
    RODATA = 1


class Access(IntEnum):
    """What a program may do with a field of the exit."""

    READ = 0
    READ_WRITE = 1


@dataclass(frozen=True, slots=True)
class Field:
    """A field of `struct devbc_exit`: byte offset, bytes of one element, elements."""

    name: str
    offset: int
    size: int
    count: int
    access: Access
    doc: str

    @property
    def end(self) -> int:
        return self.offset + self.size * self.count


def _layout() -> dict[str, Field]:
    read, write = Access.READ, Access.READ_WRITE
    rows = [
        ("offset", 8, 1, read, "byte offset in the bank; timers, lines, hypercalls: their number"),
        ("value", 8, 1, write, "writes: the guest's value; reads: the answer (0 unless set); "
                               "timers: the deadline that passed, in ns; lines: the new level; "
                               "hypercalls: the result (0 unless set)"),
        ("clock_offset", 8, 1, read, "VM clock minus ktime_get_ns(), in ns, modulo 2**64"),
        ("size", 4, 1, read, "bytes accessed: 1, 2, 4 or 8; otherwise 0"),
        ("vcpu", 4, 1, read, "index of the vCPU that exited"),
        ("arg", 8, 6, read, "hypercalls: argument registers; otherwise 0"),
        ("raise", 4, 1, write, "effect: lines to raise, a bit each"),
        ("lower", 4, 1, write, "effect: lines to lower, after raising: a line in both gives a pulse"),
        ("signal", 4, 1, write, "effect: signals to userspace, a bit each"),
        ("arm", 4, 1, write, "effect: timers to arm at `deadline`, a bit each"),
        ("cancel", 4, 1, write, "effect: timers to cancel, before arming, a bit each"),
        ("reserved", 4, 1, read, "0"),
        ("deadline", 8, 8, write, "effect: deadlines of the timers in `arm`, in ns of the VM clock"),
    ]  # fmt: skip
    fields: dict[str, Field] = {}
    offset = 0
    for name, size, count, access, doc in rows:
        fields[name] = Field(name, offset, size, count, access, doc)
        offset += size * count
    return fields


#: `struct devbc_exit`, naturally aligned, little-endian, no padding. All effect fields are 0 at entry.
EXIT_FIELDS: Final = _layout()
EXIT_SIZE: Final = max(field.end for field in EXIT_FIELDS.values())

#: Sizes of an access, in bytes.
SIZES: Final = (1, 2, 4, 8)

#: Section of the shared area's variables, and of strings that describe the device (like Linux's .modinfo).
SCRATCH_SECTION: Final = ".scratch"
INFO_SECTION: Final = ".devbc"

#: Bytes of the header before the program's variables in the shared area (hypervisor/scratch.py).
SCRATCH_HEADER: Final = 64


class Space(StrEnum):
    PIO = "pio"
    MMIO = "mmio"


class Op(StrEnum):
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class AccessBinding:
    """Accesses of one operation whose first byte lies in `lo`..`hi` (inclusive) of a bank.

    An access binds if its size is one of `sizes` and its offset from `lo` is a multiple of its size.
    """

    space: Space
    bank: str
    op: Op
    lo: int
    hi: int
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        bank = "" if self.bank == self.space else f":{self.bank}"
        span = f"{self.lo:#x}" if self.lo == self.hi else f"{self.lo:#x}-{self.hi:#x}"
        sizes = "" if self.sizes == SIZES else ":" + ",".join(map(str, self.sizes))
        return f"{self.space}{bank}/{self.op}@{span}{sizes}"

    def answers(self, offset: int, size: int) -> bool:
        """Whether it answers an access of that size at that offset of its bank."""
        return size in self.sizes and self.lo <= offset <= self.hi and (offset - self.lo) % size == 0

    @property
    def count(self) -> int:
        """How many `accesses` it answers, without listing them."""
        return sum((self.hi - self.lo) // size + 1 for size in self.sizes)

    def accesses(self) -> Iterator[tuple[int, int]]:
        """Each (offset, size) it answers."""
        for size in self.sizes:
            for offset in range(self.lo, self.hi + 1, size):
                yield offset, size


@dataclass(frozen=True, slots=True)
class TimerBinding:
    name: str

    def __str__(self) -> str:
        return f"timer/{self.name}"


@dataclass(frozen=True, slots=True)
class LineBinding:
    name: str

    def __str__(self) -> str:
        return f"line/{self.name}"


@dataclass(frozen=True, slots=True)
class HypercallBinding:
    number: int

    def __str__(self) -> str:
        return f"hypercall/{self.number:#x}"


#: What machine files call the place of a device's hypercalls, beside those of its banks: no bank's name.
CALLS_PLACE: Final = "hypercall"
#: Hypercalls of a device have numbers below this, its own from 0 on: a machine file says at which number
#: they begin for the guest. Arm's SMC calling convention has 32 bits for a call (DEN 0028, section 2.5).
CALL_NUMBERS: Final = 1 << 32

Binding = AccessBinding | TimerBinding | LineBinding | HypercallBinding

_NUMBER = r"0[xX][0-9a-fA-F]+|[0-9]+"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_ACCESS = re.compile(
    rf"(?P<space>pio|mmio)(?::(?P<bank>{_NAME}))?/(?P<op>read|write)"
    rf"@(?P<lo>{_NUMBER})(?:-(?P<hi>{_NUMBER}))?(?::(?P<sizes>[0-9]+(?:,[0-9]+)*))?"
)
_NAMED = re.compile(rf"(?P<kind>timer|line)/(?P<name>{_NAME})")
_HYPERCALL = re.compile(rf"hypercall/(?P<number>{_NUMBER})")

#: A section whose name begins so must be a handler: anything else in it is an error, not somebody else's.
HANDLER_PREFIXES: Final = (
    "pio/", "pio:", "pio,", "mmio/", "mmio:", "mmio,", "timer/", "line/", "hypercall/",
)  # fmt: skip


def is_handler_section(name: str) -> bool:
    return name.startswith(HANDLER_PREFIXES)


def section_name(bindings: Iterable[Binding]) -> str:
    """The section of a handler with these bindings; of several, each is the same but for its bank."""
    first, *others = map(str, bindings)
    places = [first.partition("/")[0], *(each.partition("/")[0] for each in others)]
    return ",".join(places) + first[len(places[0]) :]


def parse_bindings(section: str) -> tuple[Binding, ...] | str:
    """The bindings that a section's name stands for, or a sentence that says what is wrong with the name."""
    places, slash, access = section.partition("/")
    bindings: list[Binding] = []
    for place in places.split(","):
        binding = parse_binding(place + slash + access)
        if isinstance(binding, str):
            return binding
        bindings.append(binding)
    if len(bindings) > 1 and not all(isinstance(each, AccessBinding) for each in bindings):
        return "only accesses have several places"
    return tuple(bindings)


def parse_binding(section: str) -> Binding | str:
    """The binding that a name of one place stands for, or a sentence that says what is wrong with it."""
    if match := _ACCESS.fullmatch(section):
        space = Space(match["space"])
        lo = int(match["lo"], 0)
        hi = int(match["hi"], 0) if match["hi"] else lo
        sizes = tuple(sorted({int(size) for size in match["sizes"].split(",")})) if match["sizes"] else SIZES
        if match["bank"] == CALLS_PLACE:
            return f"no bank is called `{CALLS_PLACE}`: machine files call the device's hypercalls so"
        if bad := [size for size in sizes if size not in SIZES]:
            return f"an access has 1, 2, 4 or 8 bytes, not {bad[0]}"
        if hi < lo:
            return f"the range {lo:#x}-{hi:#x} ends before it begins"
        if hi >= 1 << 63:
            return f"the offset {hi:#x} is beyond any bank"
        return AccessBinding(space, match["bank"] or str(space), Op(match["op"]), lo, hi, sizes)
    if match := _NAMED.fullmatch(section):
        return TimerBinding(match["name"]) if match["kind"] == "timer" else LineBinding(match["name"])
    if match := _HYPERCALL.fullmatch(section):
        number = int(match["number"], 0)
        if number >= CALL_NUMBERS:
            return f"hypercalls are numbered from 0 to {CALL_NUMBERS - 1:#x}"
        return HypercallBinding(number)
    return "it is not of the form space[:bank]/op@lo[-hi][:sizes], timer/name, line/name or hypercall/number"


#: Keys of `.devbc` strings, `key=value` with a NUL at the end of each, as in Linux's .modinfo:
#:   device=NAME                 the device's name
#:   timer.N=NAME                timer N (a bit of `arm`, a slot of `deadline`) is called NAME
#:   line.N=NAME                 output line N (a bit of `raise` and `lower`) is called NAME
#:   input.N=NAME                input line N, what a `line/NAME` handler receives in `offset`
#:   signal.N=NAME               signal N is called NAME
#:   call.N=NAME                 hypercall N is called NAME; NAME.read or NAME.write: it is the register's
#:   bank.NAME=SPACE:BYTES       a bank's space and size, in bytes
#:   register.NAME=BANK:OFFSET:SIZE[:COUNT:STRIDE]   a register's place, for tools that print names; a
#:                               register that several banks reach has a string, and a place, for each
INFO_KEYS: Final = ("device", "timer", "line", "input", "signal", "call", "bank", "register")
