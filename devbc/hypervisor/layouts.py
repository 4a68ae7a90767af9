"""Every record that the native exit loop shares with Python, and the codes in them.

`EXIT` is the program's own interface and is defined in `devbc.abi`; the rest is the machine's.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from devbc import abi
from devbc.engines.layout import POINTER, U8, U32, U64, Layout
from devbc.limits import GUEST_LINES, LINES, TIMERS

#: A timer that is not armed.
NEVER: Final = (1 << 64) - 1
#: A free entry of the dispatch table: no access has this key.
NO_KEY: Final = (1 << 64) - 1
#: An access's key: its address, shifted by this, and space (1 bit), operation (1) and log2 size (2) below.
KEY_BITS: Final = 4


class Outcome(IntEnum):
    """What became of an access; `MISMATCH` may be added."""

    PENDING = 0
    HANDLED = 1
    DECLINED = 2  # the program said no
    CONTENDED = 3  # somebody else held the device's lock
    NO_PROGRAM = 4  # a device is there, but none of its programs answers this access
    UNCLAIMED = 5  # no device is there


#: Flag in an outcome: the value read differs from the recorded one.
MISMATCH: Final = 0x80


class Reason(IntEnum):
    """Why the loop returned."""

    DONE = 0  # the cursor is at its end
    ACCESS = 1  # the access at the cursor needs its device's model
    EVENT = 2  # the input line change in `VCPU.event` needs its device's model
    TIMER = 3  # the expired timer in `VCPU.event` needs its device's model
    PAUSE = 4  # nothing is needed; the caller has a chance to stop a run with many events


#: The header of a shared area (`abi.SCRATCH_HEADER` bytes), before the program's variables.
AREA_HEADER: Final = Layout("AreaHeader", (("lock", U32), ("sequence", U32), ("reserved", (U64, 7))))
assert AREA_HEADER.size == abi.SCRATCH_HEADER

_EXIT_TYPES = {4: U32, 8: U64}
EXIT: Final = Layout(
    "Exit",
    tuple(
        (field.name, (_EXIT_TYPES[field.size], field.count) if field.count > 1 else _EXIT_TYPES[field.size])
        for field in abi.EXIT_FIELDS.values()
    ),
)
assert EXIT.size == abi.EXIT_SIZE

#: One access of a guest. `space`, `op`: index into abi.Space, abi.Op. `log2_size`: 0 to 3.
ACCESS: Final = Layout(
    "Access",
    (
        ("time", U64),  # VM clock, ns
        ("value", U64),  # written, or recorded for a read
        ("address", U64),
        ("space", U8),
        ("op", U8),
        ("log2_size", U8),
        ("reserved", U8),
        ("vcpu", U32),
    ),
)

#: A handler in place: what to call, with what. `lock` is null for pure handlers.
SLOT: Final = Layout(
    "Slot",
    (
        ("function", POINTER),
        ("scratch", POINTER),
        ("rodata", POINTER),
        ("lock", POINTER),
        ("device", POINTER),
        ("effects", U64),  # whether it may set effect fields
        ("handled", U64),
        ("declined", U64),
    ),
)

#: An entry of the dispatch table, open addressing with linear probing.
ENTRY: Final = Layout("Entry", (("key", U64), ("offset", U64), ("slot", POINTER)))

#: Addresses of a bank, `first` to `last`, space in the top bit; the table is sorted by `first`.
CLAIM: Final = Layout("Claim", (("first", U64), ("last", U64)))

#: Where an output line leads: an input of a device (`slot` null: its model), or the guest's line `guest` - 1.
WIRE: Final = Layout("Wire", (("slot", POINTER), ("device", U32), ("port", U32), ("guest", U64)))

#: A device's ports. Wires of line n are `first_wire[n]` up to `first_wire[n + 1]` of the machine's.
DEVICE: Final = Layout(
    "Device",
    (
        ("index", U32),
        ("levels", U32),
        ("signals", U32),  # raised for userspace, not yet fetched
        ("first_timer", U32),
        ("first_wire", (U32, LINES + 1)),
    ),
)

TIMER: Final = Layout("Timer", (("deadline", U64), ("slot", POINTER), ("device", U32), ("port", U32)))

#: A change of an input line, or an expired timer (`value`: level or deadline).
EVENT: Final = Layout("Event", (("slot", POINTER), ("device", U32), ("port", U32), ("value", U64)))

#: What all vCPUs of a VM share. Table and queue sizes are powers of two, given as masks.
MACHINE: Final = Layout(
    "Machine",
    (
        ("table", POINTER),
        ("table_mask", U64),
        ("table_shift", U64),
        ("claims", POINTER),
        ("claim_count", U64),
        ("timers", POINTER),
        ("timer_count", U64),
        ("next_deadline", U64),
        ("expired", U64),  # timers since the last access, at the clock's present time
        ("wires", POINTER),
        ("queue", POINTER),
        ("queue_mask", U64),
        ("queue_head", U64),
        ("queue_tail", U64),
        ("burst", U64),  # the most events that one handler can cause
        ("guest_sources", (U32, GUEST_LINES)),  # wires that hold each of the guest's lines high
        ("guest_interrupts", U64),  # rising edges so far
    ),
)

#: The accesses still to run, and where their outcomes go, an element an access.
CURSOR: Final = Layout(
    "Cursor",
    (
        ("accesses", POINTER),
        ("count", U64),
        ("index", U64),
        ("outcomes", POINTER),  # u8
        ("answers", POINTER),  # u64: what a read returned
        ("ticks", POINTER),  # u32: cycles of the time-stamp counter that the exit took
    ),
)

VCPU: Final = Layout(
    "Vcpu",
    (
        ("machine", POINTER),
        ("clock", POINTER),
        ("cursor", POINTER),
        ("exit", EXIT),
        ("event", EVENT),
    ),
)

#: Timers of one device in the machine's array.
TIMERS_PER_DEVICE: Final = TIMERS
