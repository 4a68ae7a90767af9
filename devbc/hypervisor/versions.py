"""Changing who answers what while vCPUs run: a new map is published, the old one lives until nobody sees it.

Read-copy-update by quiescent states (McKenney and Slingwine 1998; Desnoyers et al., "User-Level
Implementations of Read-Copy Update", 2012). A map never changes once it is published. Before each access a
vCPU compares the machine's epoch with its own and takes up the new one; while it waits for userspace it is
offline and holds no map. Whoever publishes stores the map, raises the epoch, and waits until every vCPU is
offline or has said the new epoch: a grace period. Then the old map and the code behind it may go. vCPUs never
wait, and pay one load and a comparison an access.

Not here: what is in a map (`vm.py`), the vCPU's half (`delivery.go_online`, `exit_loop.py`).
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from devbc.hypervisor.bus import AddressMap, DispatchTable
from devbc.hypervisor.layouts import MAP, OFFLINE, PORTS, WIRE

#: Seconds between two looks at the vCPUs.
_NAP = 20e-6


@dataclass(frozen=True, slots=True)
class WireRow:
    """A wire by numbers: from line `line` of device `source` to an input, a guest's line or a notice.

    `target` is -1 unless it is an input's device; `guest` and `notice` are the number and 1, or 0.
    """

    source: int
    line: int
    target: int = -1
    port: int = 0
    guest: int = 0
    notice: int = 0


class Map:
    """One version, with all the memory that its native record points at; `keep` is what else must live."""

    def __init__(
        self,
        addresses: AddressMap,
        entries: dict[int, tuple[int, int]],
        ports: Sequence[tuple[dict[int, int], dict[int, int]]],
        wires: Iterable[WireRow],
        keep: object,
    ) -> None:
        """`entries`: offset and slot by access key; `ports`: each device's slots by timer and by input."""
        self.addresses = addresses
        self.keep = keep
        self._table = DispatchTable(entries)
        self._claims = addresses.claims()
        rows = sorted(wires, key=lambda row: (row.source, row.line))
        table: Any = WIRE.struct * max(1, len(rows))
        self._wires = table(*((max(row.target, 0), row.port, row.guest, row.notice) for row in rows))
        self._ports = (PORTS.struct * max(1, len(ports)))()
        for index, (record, (timers, inputs)) in enumerate(zip(self._ports, ports, strict=False)):
            for number, slot in timers.items():
                record.timers[number] = slot
            for number, slot in inputs.items():
                record.inputs[number] = slot
            for line in range(len(record.first_wire)):
                record.first_wire[line] = sum((row.source, row.line) < (index, line) for row in rows)
        self.record = MAP.struct(
            table=ctypes.addressof(self._table.records),
            table_mask=self._table.mask,
            table_shift=self._table.shift,
            claims=ctypes.addressof(self._claims),
            claim_count=len(addresses),
            wires=ctypes.addressof(self._wires),
            ports=ctypes.addressof(self._ports),
            # A handler can raise and lower each line once, and every wire may carry both changes.
            burst=2 * len(rows),
        )


class Reader(Protocol):
    """A vCPU, as far as grace periods are concerned."""

    record: Any
    thread: int

    def nudge(self) -> None:
        """Get it out of a system call that its client lets block."""
        ...


class Versions:
    """The maps of a machine; publishing is one thread's at a time."""

    def __init__(self, machine: Any, native: Any) -> None:
        self._machine = machine
        self._native = native
        self.current: Map | None = None

    def publish(self, new: Map, readers: Iterable[Reader]) -> None:
        """Make `new` the machine's map, and return when no vCPU can see the old one."""
        readers = list(readers)
        old, self.current = self.current, new
        epoch = self._native.publish(ctypes.addressof(self._machine), ctypes.addressof(new.record))
        self.wait(epoch, readers)
        del old

    @staticmethod
    def check_caller(readers: Iterable[Reader]) -> None:
        """Refuse, with RuntimeError, a change that comes from a handler: it would wait for itself."""
        me = threading.get_ident()
        if any(each.thread == me and each.record.epoch != OFFLINE for each in readers):
            raise RuntimeError("a handler changes the machine that runs it")

    def synchronise(self, readers: Iterable[Reader]) -> None:
        """Wait for a grace period: whatever a vCPU was about before, it is done with."""
        if self.current:
            self.publish(self.current, readers)

    def wait(self, epoch: int, readers: Iterable[Reader]) -> None:
        for reader in readers:
            naps = 0
            while not self._native.passed(ctypes.addressof(reader.record), epoch):
                time.sleep(_NAP)
                naps += 1
                if naps % 1000 == 0:
                    reader.nudge()
