"""What every trace format becomes: accesses in order, with what the tool that printed them knew.

A `Trace` keeps columns, not a value an access: a trace may have tens of millions. Times are relative to the
trace's first. What a tool does not print is unknown, and said to be: nothing is filled in.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from devbc.diagnostics import Diagnostic
from devbc.guests.recording import Target

#: What the columns hold where the trace does not say.
UNKNOWN: Final = -1


class Format(StrEnum):
    """The tool whose text a trace is."""

    RECORDING = "recording"
    QEMU_LOG = "QEMU's trace log"
    TRACE_CMD = "trace-cmd or ftrace"
    PERF_SCRIPT = "perf script"


class Answered(IntEnum):
    """Where an access was answered."""

    UNKNOWN = 0
    KERNEL = 1
    USERSPACE = 2


@dataclass(frozen=True, slots=True)
class Access:
    """One access. `time` in ns and `vcpu` are None if the trace does not have them.

    `value` is None where the trace has no value, or only a part: a string instruction moves `items` values,
    of which a trace has the first.
    """

    time: int | None
    vcpu: int | None
    target: Target
    value: int | None
    items: int = 1
    answered: Answered = Answered.UNKNOWN


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace's accesses, and what else its text said.

    `resolution`: of the times, in ns. `jitter`: how long after the access the tool may have taken the time,
    in ns; 0 where the time is the device's own. `others`: lines that are no accesses. `lost`: lines in which
    the tool says that it lost events. `guests`: how many virtual machines the vCPUs belong to, at least.
    `diagnostics`: lines that were not understood, of which the first is shown. `machine`: what it was
    recorded on, if the trace says.
    """

    name: str
    format: Format
    targets: tuple[Target, ...]
    target_of: array[int]
    times: array[int]
    vcpus: array[int]
    values: array[int]
    answered: bytearray
    #: Accesses by string instructions, with the number of values each moved.
    items: dict[int, int] = field(default_factory=dict)
    #: Accesses whose value the trace does not have, or not whole.
    valueless: frozenset[int] = frozenset()
    resolution: int = 1
    jitter: int = 0
    others: int = 0
    lost: int = 0
    guests: int = 1
    diagnostics: tuple[Diagnostic, ...] = ()
    machine: str = ""

    def __len__(self) -> int:
        return len(self.target_of)

    @property
    def timed(self) -> bool:
        """Whether every access has a time."""
        return UNKNOWN not in self.times

    def accesses(self) -> Iterator[Access]:
        for index, target in enumerate(self.target_of):
            time, vcpu = self.times[index], self.vcpus[index]
            yield Access(
                None if time == UNKNOWN else time,
                None if vcpu == UNKNOWN else vcpu,
                self.targets[target],
                None if index in self.valueless else self.values[index],
                self.items.get(index, 1),
                Answered(self.answered[index]),
            )


class TraceBuilder:
    """Collects a trace's accesses, in the order of its text."""

    def __init__(self) -> None:
        self.target_of = array("I")
        self.times = array("q")
        self.vcpus = array("q")
        self.values = array("Q")
        self.answered = bytearray()
        self.items: dict[int, int] = {}
        self.valueless: set[int] = set()
        self._targets: dict[Target, int] = {}

    def __len__(self) -> int:
        return len(self.target_of)

    def add(self, access: Access) -> int:
        """Append an access; returns its index. OverflowError for a number that its column cannot hold."""
        index = len(self.target_of)
        number = self._targets.get(access.target, len(self._targets))
        columns = (
            (self.times, UNKNOWN if access.time is None else access.time),
            (self.vcpus, UNKNOWN if access.vcpu is None else access.vcpu),
            (self.values, access.value or 0),
            (self.target_of, number),
        )
        try:
            for column, value in columns:
                column.append(value)
        except OverflowError:
            for column, _ in columns:
                del column[index:]
            raise
        self._targets[access.target] = number
        self.answered.append(access.answered)
        if access.items != 1:
            self.items[index] = access.items
        if access.value is None:
            self.valueless.add(index)
        return index

    def targets(self) -> tuple[Target, ...]:
        return tuple(self._targets)

    def relative_times(self) -> array[int]:
        """The times from the earliest on, where all are known; otherwise none of them is of use."""
        if not self.times or UNKNOWN in self.times:
            return array("q", (UNKNOWN,)) * len(self.times)
        start = min(self.times)
        return array("q", (time - start for time in self.times))
