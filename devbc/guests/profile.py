"""What to accelerate next: the registers of a trace, by exits and by the time they cost.

For each register: how often and how densely it is accessed, what its reads depend on as far as the values
show (`read_classes`), whether a machine's programs answer it, and what that gains by a cost profile
(`cost_profiles`). Counts are the trace's; every time is modelled, and says by which profile.

Not here: whether a program answers right (`replay`), or declines at run time: that depends on the guest.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from devbc.abi import Op, Space
from devbc.guests.cost_profiles import CostProfile
from devbc.guests.read_classes import NEVER_WRITTEN, Reads, Verdict, classify
from devbc.guests.recording import Target
from devbc.guests.trace_formats.access import UNKNOWN, Answered, Trace

if TYPE_CHECKING:
    from devbc.hypervisor.device import DeviceSpec
    from devbc.program.program import Program

_MS: Final = 1_000_000
#: Ports that belong together where nothing says what a device is: they are decoded in eights. And a page.
_PORTS_TOGETHER: Final = 8
_PAGE: Final = 4_096


@dataclass(frozen=True, slots=True)
class RegisterKey:
    space: Space
    address: int
    op: Op


@dataclass(frozen=True, slots=True)
class Owner:
    """Who an address belongs to. `device` groups registers; `name` is the register's for people.

    `answers`: whether a program of the machine has a handler for an access of that operation and size.
    """

    device: str
    name: str
    claimed: bool
    answers: Callable[[Op, int], bool]


@dataclass(slots=True)
class RegisterProfile:
    """One register, one operation. Times in ns.

    `kernel`: exits that the kernel of the traced host answered itself. `covered`: of the others, those that
    the machine has a handler for. `busiest`: exits in the busiest ms; `interval`: median from one to the
    next; None without times. `values`: distinct ones; `only_value`: if there is one. `verdict` is of reads.
    """

    key: RegisterKey
    owner: Owner
    exits: int = 0
    items: int = 0
    kernel: int = 0
    covered: int = 0
    sizes: set[int] = field(default_factory=set)
    values: int = 0
    only_value: int | None = None
    busiest: int | None = None
    interval: float | None = None
    verdict: Verdict | None = None

    @property
    def uncovered(self) -> int:
        return self.exits - self.kernel - self.covered

    @property
    def pure(self) -> bool:
        """Whether a handler can answer it from state and clock, as far as the values show."""
        return self.verdict is not None and self.verdict.read_class.pure

    def to_json(self, costs: CostProfile) -> dict[str, Any]:
        verdict = self.verdict
        clock = verdict.clock if verdict else None
        return {
            "name": self.owner.name, "device": self.owner.device, "space": str(self.key.space),
            "address": self.key.address, "op": str(self.key.op), "sizes": sorted(self.sizes),
            "exits": self.exits, "items": self.items, "answered_in_kernel": self.kernel,
            "covered": self.covered, "distinct_values": self.values, "busiest_ms": self.busiest,
            "median_interval_ns": self.interval,
            "class": str(verdict.read_class) if verdict else None,
            "pure": self.pure if verdict else None,
            "evidence": verdict.evidence if verdict else None,
            "clock_hz": clock and clock.hz, "clock_error_hz": clock and clock.error_hz,
            "modelled_saved_ns": self.covered * costs.saved_ns,
            "modelled_gain_ns": self.uncovered * costs.saved_ns,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """All registers of a trace, most exits first. `span`: ns from first to last access, if known."""

    trace: Trace
    machine: str
    costs: CostProfile
    registers: tuple[RegisterProfile, ...]
    span: int | None

    @property
    def exits(self) -> int:
        return len(self.trace)

    @property
    def vcpus(self) -> int:
        return len(set(self.trace.vcpus) - {UNKNOWN})

    @property
    def in_kernel(self) -> int:
        return sum(each.kernel for each in self.registers)

    @property
    def covered(self) -> int:
        return sum(each.covered for each in self.registers)

    @property
    def without_programs(self) -> float:
        """Device time as traced, in ns, modelled."""
        return self._time(self.in_kernel)

    @property
    def with_programs(self) -> float:
        """Device time if every access that a program of the machine has a handler for is handled."""
        return self._time(self.in_kernel + self.covered)

    @property
    def with_pure_reads(self) -> float:
        """Device time if programs answered the remaining reads that are pure, too."""
        pure = sum(each.uncovered for each in self.registers if each.pure)
        return self._time(self.in_kernel + self.covered + pure)

    @property
    def with_everything(self) -> float:
        """Device time if no exit went to userspace."""
        return self._time(self.exits)

    def _time(self, kernel: int) -> float:
        return kernel * self.costs.kernel_ns + (self.exits - kernel) * self.costs.userspace_ns

    def next(self) -> list[RegisterProfile]:
        """Registers that no program covers, those that would gain most first."""
        return sorted((each for each in self.registers if each.uncovered), key=lambda each: -each.uncovered)

    def to_json(self) -> dict[str, Any]:
        trace = self.trace
        return {
            "trace": trace.name, "format": str(trace.format), "machine": self.machine,
            "exits": self.exits, "span_ns": self.span, "vcpus": self.vcpus or None,
            "other_lines": trace.others, "lost_event_lines": trace.lost, "guests": trace.guests,
            "answered_in_kernel": self.in_kernel, "covered": self.covered,
            "modelled": {
                "profile": self.costs.to_json(), "without_programs_ns": self.without_programs,
                "with_programs_ns": self.with_programs, "with_pure_reads_ns": self.with_pure_reads,
                "with_everything_ns": self.with_everything,
            },
            "registers": [each.to_json(self.costs) for each in self.registers],
            "diagnostics": [each.to_json() for each in trace.diagnostics],
        }  # fmt: skip


def profile(
    trace: Trace, costs: CostProfile, devices: Sequence[DeviceSpec] = (), machine: str = ""
) -> Profile:
    """Profile a trace; `devices` of `machine` name and cover registers where they sit."""
    owners = _owners(trace.targets, devices)
    registers: dict[RegisterKey, RegisterProfile] = {}
    of_target = []
    for target in trace.targets:
        key = _key(target)
        register = registers.setdefault(key, RegisterProfile(key, owners[target.space, target.address]))
        register.sizes.add(target.size)
        of_target.append(register)
    _count(trace, of_target)
    reads = _gather(trace, of_target)
    for key, register in registers.items():
        if key in reads:
            register.verdict = classify(reads[key], jitter=trace.jitter + trace.resolution - 1)
    ranked = sorted(registers.values(), key=lambda each: (-each.exits, each.key.space, each.key.address))
    span = max(trace.times) - min(trace.times) if len(trace) and trace.timed else None
    return Profile(trace, machine, costs, tuple(ranked), span)


def _key(target: Target) -> RegisterKey:
    return RegisterKey(target.space, target.address, target.op)


def _count(trace: Trace, of_target: Sequence[RegisterProfile]) -> None:
    """Exits, who answered them, values and density, for each register."""
    for (number, side), count in Counter(zip(trace.target_of, trace.answered, strict=True)).items():
        register, target = of_target[number], trace.targets[number]
        register.exits += count
        register.items += count
        if side == Answered.KERNEL:
            register.kernel += count
        elif register.owner.answers(target.op, target.size):
            register.covered += count
    for index, items in trace.items.items():
        of_target[trace.target_of[index]].items += items - 1
    values: dict[RegisterKey, set[int]] = {each.key: set() for each in of_target}
    times = {each.key: array("q") for each in of_target}
    # By target, so that an access costs no more than two look-ups.
    columns = [(values[each.key].add, times[each.key].append) for each in of_target]
    for index, (number, value, time) in enumerate(
        zip(trace.target_of, trace.values, trace.times, strict=True)
    ):
        add, append = columns[number]
        append(time)
        if not trace.valueless or index not in trace.valueless:
            add(value)
    timed = trace.timed
    for register in {each.key: each for each in of_target}.values():
        distinct = values[register.key]
        register.values = len(distinct)
        register.only_value = next(iter(distinct)) if len(distinct) == 1 else None
        if timed:
            moments = sorted(times[register.key])
            register.busiest = _busiest(moments)
            gaps = [after - before for before, after in pairwise(moments)]
            register.interval = median(gaps) if gaps else None


def _busiest(times: Sequence[int]) -> int:
    """The most accesses within any ms; `times` in order."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= _MS:
            first += 1
        most = max(most, last - first + 1)
    return most


@dataclass(slots=True)
class _Device:
    """What a device has seen so far: writes, accesses, and a hash of the values last written."""

    writes: int = 0
    accesses: int = 0
    last: dict[int, int] = field(default_factory=dict)
    state: int = 0


def _gather(trace: Trace, of_target: Sequence[RegisterProfile]) -> dict[RegisterKey, Reads]:
    """Each register's reads, with what its device had seen before each."""
    devices = {each.owner.device: _Device() for each in of_target}
    reads = {each.key: Reads(size=max(each.sizes)) for each in of_target if each.key.op is Op.READ}
    # By target, so that an access costs few look-ups: device, address, and the reads unless it is a write.
    columns = [(devices[each.owner.device], each.key.address, reads.get(each.key)) for each in of_target]
    missing, times, values = trace.valueless, trace.times, trace.values
    for index, number in enumerate(trace.target_of):
        device, address, own = columns[number]
        device.accesses += 1
        known = not missing or index not in missing
        if own is None:
            device.writes += 1
            # A value that the trace lacks is none of those it has.
            value = values[index] if known else UNKNOWN - index
            device.state ^= hash((address, device.last.get(address))) ^ hash((address, value))
            device.last[address] = value
        elif not known:
            own.partial += 1
        else:
            own.touches.append(device.accesses - len(own.values) - own.partial)
            own.times.append(times[index])
            own.values.append(values[index])
            own.epochs.append(device.writes)
            own.states.append(device.state)
            own.written.append(device.last.get(address, NEVER_WRITTEN))
    return reads


def _owners(targets: Iterable[Target], devices: Sequence[DeviceSpec]) -> dict[tuple[Space, int], Owner]:
    """Whose each address is: a device's of the machine, or what the trace's regions and addresses suggest."""
    board = _Board(devices) if devices else None
    owners: dict[tuple[Space, int], Owner] = {}
    groups = _Groups()
    rest = []
    for target in targets:
        place = target.space, target.address
        if place in owners:
            continue
        if board and (owner := board.owner(*place)):
            owners[place] = owner
        else:
            rest.append(target)
            groups.join(_block(target), f"region {target.region}" if target.region else _block(target))
    for target in rest:
        name = f"{target.space} {target.address:#x}" + (f" {target.region}" if target.region else "")
        owner = Owner(groups.find(_block(target)), name, False, _nobody)
        owners.setdefault((target.space, target.address), owner)
    return owners


def _nobody(op: Op, size: int) -> bool:
    return False


def _block(target: Target) -> str:
    together = _PORTS_TOGETHER if target.space is Space.PIO else _PAGE
    return f"{target.space} {target.address // together * together:#x}"


class _Groups:
    """Names that mean the same, joined one by one."""

    def __init__(self) -> None:
        self._same: dict[str, str] = {}

    def find(self, name: str) -> str:
        while (other := self._same.get(name, name)) != name:
            # Halving the way each time keeps it short, whatever was joined in what order.
            self._same[name] = self._same.get(other, other)
            name = other
        return name

    def join(self, one: str, other: str) -> None:
        self._same[self.find(one)] = self.find(other)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A device of a machine, as far as names go: nothing runs here."""

    name: str
    index: int
    program: Program
    model: None = None


class _Board:
    """A machine's devices where they sit. Raises Rejected (H003, H004, H006) as a VM of them would."""

    def __init__(self, specs: Sequence[DeviceSpec]) -> None:
        from devbc.hypervisor.bus import AddressMap, placements

        self.devices = [_Placed(each.name, index, each.program) for index, each in enumerate(specs)]
        places = [
            each for index, spec in enumerate(specs) for each in placements(index, spec.program, spec.at)
        ]
        self._map = AddressMap(places, {each.index: each.name for each in self.devices})

    def find(self, space: Space, address: int) -> tuple[_Placed, str, int] | None:
        from devbc.hypervisor.bus import kind_of

        place = self._map.find(kind_of(space), address)
        return None if place is None else (self.devices[place.device], place.bank, address - place.base)

    def owner(self, space: Space, address: int) -> Owner | None:
        """The device at an address and its handlers' answer, or None."""
        from devbc.abi import AccessBinding
        from devbc.guests.replay import register_name

        found = self.find(space, address)
        if found is None:
            return None
        device, bank, offset = found
        handlers = [
            each.binding
            for each in device.program.handlers
            if isinstance(each.binding, AccessBinding) and each.binding.bank == bank
        ]

        def answers(op: Op, size: int) -> bool:
            return any(each.op is op and each.answers(offset, size) for each in handlers)

        name = register_name(self, Target(space, Op.READ, address, 1, ""))
        return Owner(f"device {device.name}", f"{device.name}.{name.register}", True, answers)
