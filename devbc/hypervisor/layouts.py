"""Every record that the native exit loop shares with Python, and the codes in them.

`EXIT` is the program's own interface and is defined in `devbc.abi`; the rest is the machine's.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from devbc import abi
from devbc.engines.layout import POINTER, U8, U32, U64, Layout
from devbc.limits import DEVICES, GUEST_LINES, LINES, NOTICES, TIMERS

#: A timer that is not armed.
NEVER: Final = (1 << 64) - 1
#: A free entry of the dispatch table: no access has this key.
NO_KEY: Final = (1 << 64) - 1
#: An access's key: its address, shifted by this, and space (2 bits), operation (1) and log2 size (2) below.
KEY_BITS: Final = 5
#: Bits of an address that fit a key beside that; what lies beyond belongs to no device.
ADDRESS_BITS: Final = 52
#: The exit kind after `abi.Space`'s in an access and in a key: a hypercall. Its address is the call's number.
HYPERCALL: Final = len(abi.Space)
#: A vCPU's `epoch` while it holds no pointer into a map.
OFFLINE: Final = (1 << 64) - 1
#: A device's number in an exit that no device claims.
NO_DEVICE: Final = (1 << 32) - 1


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
    STOPPED = 5  # `VCPU.stop` is set
    STORM = 6  # userspace asked for more line changes than there is room for


class Guard(IntEnum):
    """What a handler needs of its device's header while it runs."""

    NONE = 0  # it touches no scratch: nothing can be torn
    SEQUENCE = 1  # it reads scratch only: run again if the sequence count moved meanwhile
    LOCK = 2  # it writes, or moves lines or timers in step with what it reads: under the lock


class Holder(IntEnum):
    """What a device's lock holds. Clients that take it have tokens of their own, from CLIENTS on."""

    FREE = 0
    HANDLER = 1
    IN_PROCESS = 2  # userspace in the machine's own process
    CLIENTS = 3


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

#: One access of a guest. `space`: index into abi.Space, or HYPERCALL; `op`: into abi.Op. `log2_size`: 0 to 3.
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

#: What one vCPU has seen of one handler. `ticks`: exits by the logarithm of the cycles that they took.
HISTOGRAM_BUCKETS: Final = 32
COUNTS: Final = Layout(
    "Counts",
    (
        ("handled", U64),
        ("declined", U64),
        ("contended", U64),
        ("ticks", (U64, HISTOGRAM_BUCKETS)),
    ),
)

#: A handler in place: what to call, with what. Slots never change once they are published.
SLOT: Final = Layout(
    "Slot",
    (
        ("function", POINTER),
        ("scratch", POINTER),
        ("rodata", POINTER),
        ("header", POINTER),  # AREA_HEADER
        ("device", POINTER),  # DEVICE
        ("counts", POINTER),  # COUNTS, an element a vCPU
        ("written", U64),  # which bits of an access's value it is given: all of a write's, none of a read's
        ("index", U32),  # the device's
        ("guard", U8),
        ("effects", U8),  # whether it may set effect fields
        ("call", U8),  # whether it answers a hypercall
        ("fenced", U8),  # whether it reads a shared clock only after taking the lock, see `exit_loop`
    ),
)

#: An entry of the dispatch table, open addressing with linear probing; what each access of its key is given.
ENTRY: Final = Layout(
    "Entry",
    (
        ("key", U64),
        ("offset", U64),
        ("slot", POINTER),
        ("mask", U64),  # the bits of the access's value
        ("size", U32),  # bytes; 0 for hypercalls
        ("reserved", U32),
    ),
)

#: Addresses of a bank, `first` to `last`, kind in the top bits; the table is sorted by `first`.
CLAIM: Final = Layout("Claim", (("first", U64), ("last", U64), ("device", U32), ("bank", U32)))
#: Where an access's kind is in the addresses of claims.
CLAIM_KIND_SHIFT: Final = 62

#: Where an output line leads: an input of a device, the guest's line `guest` - 1, or notice `notice` - 1.
WIRE: Final = Layout("Wire", (("device", U32), ("port", U32), ("guest", U32), ("notice", U32)))

#: Who answers a device's timers and inputs (null: its model), and where its lines lead: wires of line n are
#: `first_wire[n]` up to `first_wire[n + 1]` of the machine's.
PORTS: Final = Layout(
    "Ports", (("timers", (POINTER, TIMERS)), ("inputs", (POINTER, LINES)), ("first_wire", (U32, LINES + 2)))
)

#: One version of who answers what. It never changes once a machine points at it, and lives until no vCPU can
#: see it (`devbc.hypervisor.versions`).
MAP: Final = Layout(
    "Map",
    (
        ("table", POINTER),
        ("table_mask", U64),
        ("table_shift", U64),
        ("claims", POINTER),
        ("claim_count", U64),
        ("wires", POINTER),
        ("ports", POINTER),  # PORTS, an element a device
        ("burst", U64),  # the most events that one handler can cause
    ),
)

#: A device's ports as they stand. Signal n of `noticed` sets notice `first_notice[n]`; others stay here.
DEVICE: Final = Layout(
    "Device",
    (
        ("index", U32),
        ("levels", U32),
        ("signals", U32),  # raised for userspace, not yet fetched
        ("noticed", U32),
        ("unanswered", U64),  # accesses that none of its handlers in place is bound to
        ("first_notice", (U32, LINES)),
    ),
)

TIMER: Final = Layout("Timer", (("deadline", U64), ("device", U32), ("port", U32)))

#: A change of an input line, or an expired timer (`value`: level or deadline).
EVENT: Final = Layout("Event", (("device", U32), ("port", U32), ("value", U64)))

#: The guest's interrupt lines, shared with whoever plays its interrupt controller, and never read back.
GUEST_PAGE: Final = Layout("GuestPage", (("pending", U64), ("levels", U64)))

#: What all vCPUs of a VM share. Everything but `map`, `epoch` and `turn` belongs to who holds `event_lock`,
#: events and timers are delivered by one vCPU at a time, who holds `settling` (its index + 1).
MACHINE: Final = Layout(
    "Machine",
    (
        ("map", POINTER),
        ("epoch", U64),  # of the newest map
        ("attention", U64),  # the VM time from which on an access has to wait for something else first
        ("live", U64),  # whether the VM clock runs by itself; otherwise accesses move it
        ("clock_shared", U64),  # whether it does, and there are several vCPUs
        ("exits_unclaimed", U64),  # whether userspace answers what no device claims
        ("turn", U64),  # accesses done, of vCPUs that take turns
        ("vcpus", U64),
        ("event_lock", U32),
        ("settling", U32),
        ("devices", POINTER),
        ("timers", POINTER),
        ("timer_count", U64),
        ("next_deadline", U64),
        ("ticker_sleeps", U32),  # until `ticks` moves, or the first deadline
        ("ticks", U32),
        ("expired", U64),  # timers since the last access, at the clock's present time
        ("queue", POINTER),
        ("queue_mask", U64),
        ("queue_head", U64),
        ("queue_tail", U64),
        ("guest", POINTER),  # GUEST_PAGE
        ("guest_pending", U64),
        ("guest_level", U64),  # lines that stay pending while they are high; the others are edge-triggered
        ("guest_sources", (U32, GUEST_LINES)),  # wires that hold each of the guest's lines high
        ("guest_resample", (U32, GUEST_LINES)),  # notice + 1 of an acknowledged line that is still high
        ("guest_interrupts", U64),  # rising edges so far
        ("noticed", U64),  # whether any of `notices` is set
        ("notices", (U64, NOTICES // 64)),
        ("notice_fds", (U32, NOTICES)),  # eventfds
    ),
)

#: The accesses still to run, and where their outcomes go, an element an access: element `index & mask` of
#: each array. Accesses and arguments may be shared with a client who changes them at any moment.
CURSOR: Final = Layout(
    "Cursor",
    (
        ("accesses", POINTER),
        ("arguments", POINTER),  # 6 u64 an access, for hypercalls; or null
        ("turns", POINTER),  # u64 an access: its place among all vCPUs' accesses; or null
        ("feed", POINTER),  # FEED, for accesses that are still being written; or null
        ("count", U64),
        ("index", U64),
        ("mask", U64),
        ("recorded", U64),  # whether a read's value is what the recorded emulator returned
        ("outcomes", POINTER),  # u8
        ("answers", POINTER),  # u64: what a read or a hypercall returned
        ("ticks", POINTER),  # u32: cycles of the time-stamp counter that the exit took; null: not timed
    ),
)

#: The shared ends of a ring of accesses: written up to `tail` by the client, done up to `head`.
FEED: Final = Layout("Feed", (("tail", U64), ("closed", U64), ("head", U64)))

VCPU: Final = Layout(
    "Vcpu",
    (
        ("machine", POINTER),
        ("clock", POINTER),
        ("cursor", POINTER),
        ("index", U64),
        ("epoch", U64),  # of the map it uses; OFFLINE if it uses none
        ("stop", U64),
        ("started", U64),  # cycle counter when the access at hand began
        ("exit", EXIT),
        ("event", EVENT),
        ("page", POINTER),  # RUN_PAGE, for vCPUs whose userspace is another process
        ("wake_fd", U32),  # the eventfd that userspace sleeps on
        ("spins", U64),  # turns of waiting for userspace before sleeping
        ("seen", (U32, DEVICES)),  # each device's sequence count when it was last ordered before the clock
    ),
)


class PageState(IntEnum):
    """Whose turn it is on a run page."""

    RUNNING = 0  # the machine's
    EXIT = 1  # userspace's: an exit is in the page
    ANSWERED = 2  # the machine's: the answer and its effects are in the page
    EFFECTS = 3  # the machine's, for a moment: effects are in the page, the exit is not answered yet


#: What a vCPU and its userspace in another process share: one page, written by both, trusted by neither. The
#: machine takes from it a state, an answer and effect fields, each once, and all of their values are legal.
RUN_PAGE: Final = Layout(
    "RunPage",
    (
        ("state", U32),
        ("reason", U32),
        ("machine_sleeps", U32),  # on the state word, a futex
        ("user_sleeps", U32),  # on its eventfd
        ("exits", U64),
        ("device", U32),
        ("bank", U32),  # the bank's place among the program's; how many there are, for hypercalls
        ("kind", U32),
        ("op", U32),
        ("size", U32),
        ("outcome", U32),
        ("offset", U64),  # in the bank; the number of a timer or an input line
        ("address", U64),
        ("value", U64),  # written; the deadline that has passed; the new level
        ("time", U64),  # VM clock, ns
        ("signals", U32),  # of the device, since they were last fetched
        ("reserved", U32),
        ("arguments", (U64, abi.EXIT_FIELDS["arg"].count)),
        ("answer", U64),
        ("effects", EXIT),
    ),
)
