"""A VM in this process: devices at addresses, wires, a clock, and vCPUs that run a guest's accesses.

Programs answer in the native loop; what they decline, and what none of them answers, goes to the device's
userspace model, which works on the same shared area. Attaching and detaching an engine, adding devices and
replacing programs change who answers and how fast, at any time, also while vCPUs run; never what is answered.

Not here: what changes while vCPUs run is published by `versions.py`; the service's VMs, whose models are in
other processes, are `devbc.service`'s.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any, TypeVar

from devbc import limits
from devbc.abi import SIZES, AccessBinding, HypercallBinding, LineBinding, Op, Space, TimerBinding
from devbc.diagnostics import Diagnostic, Rejected, did_you_mean, reject
from devbc.engines.engine import Engine
from devbc.hypervisor import errors
from devbc.hypervisor.bus import (
    ADDRESS_LIMIT,
    KINDS,
    AddressMap,
    Placement,
    access_key,
    check_binding,
    kind_of,
    placements,
)
from devbc.hypervisor.device import Device, DeviceSpec, Installed, check_replacement, placed
from devbc.hypervisor.layouts import (
    ACCESS,
    DEVICE,
    EVENT,
    EXIT,
    GUEST_PAGE,
    HYPERCALL,
    MACHINE,
    NEVER,
    TIMER,
    Outcome,
    Reason,
)
from devbc.hypervisor.model import Model
from devbc.hypervisor.native_machine import native_machine
from devbc.hypervisor.run import ARGUMENTS, Run
from devbc.hypervisor.vcpu import VCpu
from devbc.hypervisor.versions import Map, Versions, WireRow
from devbc.hypervisor.wiring import WireSpec, number_wires, port_number
from devbc.program.verified import VerifiedProgram

_OPS = tuple(Op)
_MASK = (1 << 64) - 1
_NO_FD = (1 << 32) - 1

V = TypeVar("V", bound=VCpu)


class VM:
    """Devices, wires and vCPUs. Its clock is virtual, moved by the guest's accesses, or the host's.

    Raises Rejected (H002 to H008) when devices or wires do not fit together. Every method may be called from
    any thread, also from a model while it answers; changing the VM from inside a handler is a RuntimeError.
    """

    def __init__(
        self,
        devices: Iterable[DeviceSpec] = (),
        wires: Iterable[WireSpec] = (),
        *,
        rtc_base: int = 0,
        live: bool = False,
        exits_unclaimed: bool = False,
        vcpus: int = 1,
    ) -> None:
        """`live`: the VM clock is the host's monotonic one, from 0 at creation; accesses' times are ignored.

        `rtc_base`: wall-clock time at VM clock 0, in seconds since 1970. `exits_unclaimed`: what no device
        claims is userspace's too, where there is a run page to tell it; otherwise it reads as ones.
        """
        from devbc.engines.clock import host_page, read_clock, virtual_page

        self.rtc_base = rtc_base
        self.live = live
        self.clock: Any = host_page() if live else virtual_page()
        self._clock_offset = -read_clock(self.clock) & _MASK if live else 0
        self._change = RLock()
        self._native = native_machine()
        self._records = (DEVICE.struct * limits.DEVICES)()
        self._timers = _make_timers()
        self._queue = (EVENT.struct * limits.QUEUED_EVENTS)()
        self._guest = GUEST_PAGE.struct()
        self._machine = MACHINE.struct(
            live=live,
            exits_unclaimed=exits_unclaimed,
            devices=ctypes.addressof(self._records),
            timers=ctypes.addressof(self._timers),
            next_deadline=NEVER,
            queue=ctypes.addressof(self._queue),
            queue_mask=len(self._queue) - 1,
            guest=ctypes.addressof(self._guest),
        )
        self._versions = Versions(self._machine, self._native)
        self._notices: list[int] = []
        self.vcpus: list[VCpu] = []
        self.devices: list[Device] = []
        self.wires: tuple[WireSpec, ...] = ()
        self._rows: list[WireRow] = []
        with self._change:
            self._add([*devices], tuple(wires))
            for _ in range(vcpus):
                self.create_vcpu()

    # What the machine is made of.

    def add_device(self, spec: DeviceSpec) -> Device:
        """Put a device into the machine; its model is reset. No engine is attached to it yet."""
        with self._change:
            self._add([spec], self.wires)
            return self.devices[-1]

    def wire(self, *wires: WireSpec) -> None:
        """Add wires."""
        with self._change:
            self._add([], (*self.wires, *wires))

    def create_vcpu(self, kind: Callable[..., V] = VCpu) -> V:  # type: ignore[assignment]
        """Another vCPU; a VM has one from the start unless it was asked for none."""
        self._versions.check_caller(self.vcpus)
        with self._change:
            if len(self.vcpus) == limits.VCPUS:
                raise reject(errors.TOO_LARGE, f"the VM has {limits.VCPUS} vCPUs, and may have no more")
            if self.live and self.vcpus and not self._machine.clock_shared:
                # Known to the vCPU that is there, before there is another.
                self._machine.clock_shared = True
                self.synchronise()
            vcpu = kind(len(self.vcpus), self._machine, self.clock, self._clock_offset, self._native)
            self.vcpus.append(vcpu)
            self._machine.vcpus = len(self.vcpus)
            return vcpu

    def _add(self, specs: list[DeviceSpec], wires: tuple[WireSpec, ...]) -> None:
        """Add devices and set the wires; nothing has changed if it raises."""
        self._versions.check_caller(self.vcpus)
        _check_devices([*(device.spec for device in self.devices), *specs])
        before = len(self.devices)
        self._check_places(specs, before)
        added = [
            Device(self, before + number, spec, self._records[before + number])
            for number, spec in enumerate(specs)
        ]
        devices = [*self.devices, *added]
        rows = number_wires(wires, devices)
        as_before = self.devices, self.wires, self._rows
        self.devices, self.wires, self._rows = devices, wires, rows
        self._machine.timer_count = limits.TIMERS * len(devices)
        # Their lines lead somewhere before a reset moves them, and the guest finds them after it.
        self._publish(found=before)
        try:
            for device in added:
                with device as model:
                    if model:
                        model.reset()
        except BaseException:
            for device in added:
                self.request(device, EXIT.struct(lower=device.ports.levels, cancel=(1 << limits.TIMERS) - 1))
                device.ports.signals = 0
            self.devices, self.wires, self._rows = as_before
            self._machine.timer_count = limits.TIMERS * before
            self._publish()
            raise
        if added:
            self._publish()

    def _check_places(self, specs: Sequence[DeviceSpec], before: int) -> None:
        """Refuse devices whose programs, banks and addresses do not fit together, or overlap others."""
        faults: list[Diagnostic] = []
        for spec in specs:
            faults += _misplaced(spec)
        if faults:
            raise Rejected(*faults)
        every = [*(device.spec for device in self.devices), *specs]
        AddressMap(_place(every), {index: spec.name for index, spec in enumerate(every)})

    # The clock, timers and lines (`device.Board`).

    def now(self) -> int:
        """The VM clock, in ns."""
        if self.live:
            from devbc.engines.clock import read_clock

            return (read_clock(self.clock) + self._clock_offset) & _MASK
        return int(self.clock.now_ns)

    def request(self, device: Device, effects: Any) -> None:
        """Carry out an exit's effect fields, as if a handler of the device had set them.

        Raises RuntimeError, to be blamed on the model that asks, if too many events wait to be delivered.
        """
        with self._change:
            addresses = (ctypes.addressof(each) for each in (self._machine, device.ports, effects))
            room = self._native.request(*addresses)
        self._notify()
        if not room:
            waiting = self._machine.queue_tail - self._machine.queue_head
            raise RuntimeError(f"{waiting:,} changes of lines wait to be delivered, and no more may")

    @property
    def turn(self) -> int:
        """Accesses done by vCPUs that take turns: the number of the next one's turn."""
        return int(self._machine.turn)

    @property
    def guest_lines(self) -> int:
        """Levels of the guest's interrupt lines, a bit each."""
        return int(self._guest.levels)

    @property
    def guest_pending(self) -> int:
        """Interrupts that the guest has not acknowledged, a bit a line."""
        return int(self._machine.guest_pending)

    @property
    def guest_interrupts(self) -> int:
        """Rising edges on the guest's interrupt lines so far."""
        return int(self._machine.guest_interrupts)

    def add_notice(self, fd: int) -> int:
        """The number of a notice that writes an eventfd; the VM keeps a descriptor of its own."""
        import os

        with self._change:
            if len(self._notices) == limits.NOTICES:
                raise reject(errors.TOO_LARGE, f"the VM has {limits.NOTICES} eventfds, and may have no more")
            number = len(self._notices)
            self._notices.append(os.dup(fd))
            self._machine.notice_fds[number] = self._notices[number]
            return number

    def replace_notice(self, number: int, fd: int) -> None:
        """Let a notice write another eventfd, in one step: who writes it meanwhile finds either."""
        import os

        os.dup2(fd, self._notices[number], inheritable=False)

    def notify_signal(self, device: str, signal: str, notice: int) -> None:
        """Let a device's signal write a notice's eventfd, instead of being kept for its model."""
        found = self.device(device)
        numbers = {name: number for number, name in found.signal_names.items()}
        number = port_number(signal, numbers, f"`{device}` has no signal")
        with self._change:
            found.ports.first_notice[number] = notice
            found.ports.noticed |= 1 << number

    def set_resample(self, line: int, notice: int) -> None:
        """Let the acknowledgement of a level-triggered line write a notice's eventfd (KVM's resamplefd)."""
        with self._change:
            self._machine.guest_resample[line] = notice + 1

    def close_notices(self) -> None:
        """Give the eventfds back, once no vCPU can write them."""
        import os

        with self._change:
            for device in self.devices:
                device.ports.noticed = 0
            self._versions.synchronise(self.vcpus)
            for number, fd in enumerate(self._notices):
                self._machine.notice_fds[number] = _NO_FD
                os.close(fd)
            self._notices.clear()

    def set_level_triggered(self, lines: int) -> None:
        """Say which of the guest's lines stay pending while they are high, a bit each; others are edges."""
        self._machine.guest_level = lines

    def acknowledge(self, line: int) -> None:
        """The guest's end of interrupt, for one of its lines."""
        self._native.acknowledge(ctypes.addressof(self._machine), line)
        self._notify()

    def _notify(self) -> None:
        """Write the eventfds of what has just been noticed: perhaps no vCPU runs that would."""
        if self._machine.noticed:
            self._native.notify(ctypes.addressof(self._machine))

    # Who answers.

    def attach(self, engine: Engine, names: Iterable[str] | None = None) -> None:
        """Let an engine's programs answer for the named devices (all of them by default) from now on."""
        self._versions.check_caller(self.vcpus)
        devices = self.devices if names is None else [self.device(name) for name in names]
        programs = [placed(device.spec.verified, device.spec.at) for device in devices]
        loaded = engine.load(programs)
        with self._change:
            for device, verified in zip(devices, programs, strict=True):
                device.installed = Installed(device, verified, loaded)
            self._publish()

    def detach(self, names: Iterable[str]) -> None:
        """Let the named devices' models answer everything from now on."""
        self._versions.check_caller(self.vcpus)
        devices = [self.device(name) for name in names]
        with self._change:
            for device in devices:
                device.installed = None
            self._publish()

    def replace(self, name: str, verified: VerifiedProgram, engine: Engine) -> None:
        """Put another program in place of a device's, at once and while vCPUs run; its area stays as it is.

        Raises Rejected (H009) if the program does not fit the device's area, ports and banks.
        """
        self._versions.check_caller(self.vcpus)
        device = self.device(name)
        check_replacement(device.spec.program, verified.program)
        reachable = placed(verified, device.spec.at)
        loaded = engine.load([reachable])
        with self._change:
            before, device.spec = device.spec, replace(device.spec, verified=verified)
            try:
                if faults := _misplaced(device.spec):
                    raise Rejected(*faults)
                _check_devices([each.spec for each in self.devices])
            except Rejected:
                device.spec = before
                raise
            device.installed = Installed(device, reachable, loaded)
            self._publish()

    def inquire(self, space: Space, address: int, size: int) -> int | None:
        """What a read would return, without its effects: its handler runs on a copy of the area.

        None if no program answers it, or its program declines. A handler is a function of the exit, the area
        and the clock, so that asking is running it and throwing away what it did.
        """
        found = self.find(space, address)
        if found is None or found[0].installed is None:
            return None
        device, bank, offset = found
        assert device.installed is not None
        return device.installed.inquire(device, self.clock, self._clock_offset, (space, bank, offset, size))

    def synchronise(self) -> None:
        """Wait until every vCPU has looked around: whatever it was about before, it is done with."""
        with self._change:
            self._versions.synchronise(self.vcpus)

    def find(self, space: Space, address: int) -> tuple[Device, str, int] | None:
        """The device, bank and offset at an address."""
        return self._find(kind_of(space), address)

    def _find(self, kind: int, address: int) -> tuple[Device, str, int] | None:
        assert self._versions.current is not None
        placement = self._versions.current.addresses.find(kind, address)
        if placement is None:
            return None
        return self.devices[placement.device], placement.bank, address - placement.base

    def device(self, name: str) -> Device:
        """The device of a name. Raises Rejected (H003)."""
        for device in self.devices:
            if device.name == name:
                return device
        names = [device.name for device in self.devices]
        message = f"there is no device `{name}`"
        raise reject(errors.UNKNOWN_NAME, message, help=did_you_mean(name, names))

    # Running.

    def run(self, run: Run, vcpu: int = 0) -> None:
        """Take a guest's accesses to their end, on one of the vCPUs, in the thread that calls."""
        self.vcpus[vcpu].run(run, self._userspace)
        for device in self.devices:
            self._signal(device)

    def access(self, space: Space, op: Op, address: int, size: int, value: int = 0, *, time: int = 0) -> int:
        """One access at a time in ns, not before the clock: the value read, or 0. For tests and tools.

        Raises ValueError for an access that no guest can make.
        """
        if size not in SIZES or not 0 <= address < ADDRESS_LIMIT[space]:
            raise ValueError(f"no guest accesses {size} bytes at {space} {address:#x}")
        if not self.live and not self.now() <= time < NEVER:
            raise ValueError(f"an access at {time} ns, and the clock is at {self.now()} ns")
        value &= (1 << 8 * size) - 1
        where = (address, kind_of(space), _OPS.index(op), size.bit_length() - 1)
        run = Run(ACCESS.packer.pack(time, value, *where, 0, 0), recorded=False)
        self.run(run)
        return run.answers[0] if op is Op.READ else 0

    def hypercall(self, number: int, *arguments: int, time: int = 0) -> int:
        """One hypercall of up to six arguments: its result; all ones if nobody answers it."""
        from array import array

        values = array("Q", [each & _MASK for each in arguments] + [0] * (ARGUMENTS - len(arguments)))
        packed = ACCESS.packer.pack(
            max(time, 0 if self.live else self.now()), 0, number, HYPERCALL, 0, 3, 0, 0
        )
        run = Run(packed, arguments=values, recorded=False)
        self.run(run)
        return run.answers[0]

    def _userspace(self, vcpu: VCpu, run: Run, reason: Reason) -> None:
        if reason is Reason.ACCESS:
            self._answer(vcpu, run)
        else:
            self._deliver(vcpu, reason)

    def _answer(self, vcpu: VCpu, run: Run) -> None:
        """A full userspace exit: the model answers the access at the cursor."""
        access = run.accesses[run.cursor.index]
        outcome = Outcome(run.outcomes[run.cursor.index])
        size = 1 << access.log2_size
        found = self._find(access.space, access.address)
        assert found is not None, "the loop returns accesses in banks only"
        device, bank, offset = found
        self._signal(device)
        answer: object = 0
        with device as model:
            if model is None:
                answer = int(access.value)
            elif access.space == HYPERCALL:
                answer = _call(model, offset, run.arguments(run.cursor.index))
            elif access.op:
                model.write(bank, offset, size, access.value & (1 << 8 * size) - 1)
            else:
                answer = model.read(bank, offset, size)
            if not isinstance(answer, int):
                raise TypeError(f"`read` returned {answer!r}, which is not an integer")
        self._native.complete(vcpu.address, answer & _MASK, outcome)

    def _deliver(self, vcpu: VCpu, reason: Reason) -> None:
        """A line event or expired timer that no program took: its model does."""
        event = vcpu.record.event
        device, port, value = self.devices[event.device], event.port, event.value
        names = device.spec.program.names
        self._signal(device)
        with device as model:
            if model is None:
                return
            if reason is Reason.TIMER:
                model.timer(names.timers[port], value)
            else:
                model.line(names.inputs[port], value)

    def _signal(self, device: Device) -> None:
        """Hand the device's pending signals to its model."""
        if not device.ports.signals:
            return
        pending = self._native.fetch_signals(ctypes.addressof(device.ports))
        with device as model:
            if model is None:
                return
            for number, name in device.spec.program.names.signals.items():
                if pending >> number & 1:
                    model.signal(name)

    def _publish(self, found: int | None = None) -> None:
        """Make the native tables say who answers what. The guest finds the first `found` devices, or all."""
        entries: dict[int, tuple[int, int]] = {}
        ports: list[tuple[dict[int, int], dict[int, int]]] = []
        for device in self.devices:
            timers: dict[int, int] = {}
            inputs: dict[int, int] = {}
            ports.append((timers, inputs))
            if device.installed is None:
                continue
            handlers = device.installed.verified.handlers
            for slot, handler in zip(device.installed.slots, handlers, strict=False):
                address = ctypes.addressof(slot)
                match handler.handler.binding:
                    case AccessBinding() as binding if binding.bank in device.spec.at:
                        _add_entries(entries, binding, device, address)
                    case HypercallBinding(number) if KINDS[HYPERCALL] in device.spec.at:
                        base = device.spec.at[KINDS[HYPERCALL]]
                        entries[access_key(HYPERCALL, Op.READ, base + number, 8)] = (number, address)
                    case TimerBinding(name):
                        timers[device.timer_numbers[name]] = address
                    case LineBinding(name):
                        inputs[device.input_numbers[name]] = address
        names = {device.index: device.name for device in self.devices}
        addresses = AddressMap(_place([device.spec for device in self.devices[:found]]), names)
        keep = [device.installed for device in self.devices]
        self._versions.publish(Map(addresses, entries, ports, self._rows, keep), self.vcpus)


def _check_devices(specs: list[DeviceSpec]) -> None:
    """Refuse devices of one name, and more devices or answered accesses than a machine may have."""
    names = [spec.name for spec in specs]
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise reject(errors.BAD_MACHINE, f"two devices are called `{twice}`")
    if len(specs) > limits.DEVICES:
        message = f"the machine has {len(specs):,} devices, and may have {limits.DEVICES:,}"
        raise reject(errors.TOO_LARGE, message)
    reachable = [handler for spec in specs for handler in placed(spec.verified, spec.at).handlers]
    bindings = [handler.handler.binding for handler in reachable]
    entries = sum(binding.count for binding in bindings if isinstance(binding, AccessBinding))
    if entries > limits.DISPATCH_ENTRIES:
        message = f"programs answer {entries:,} accesses, and may answer {limits.DISPATCH_ENTRIES:,}"
        raise reject(errors.TOO_LARGE, message)


def _place(specs: Sequence[DeviceSpec]) -> list[Placement]:
    return [each for index, spec in enumerate(specs) for each in placements(index, spec.program, spec.at)]


def _misplaced(spec: DeviceSpec) -> list[Diagnostic]:
    """What of a program does not fit its banks and ports. Raises Rejected (H003) for unknown names."""
    faults = []
    names = spec.program.names
    banks = {bank.name: bank for bank in spec.program.banks}
    for handler in spec.verified.handlers:
        match handler.handler.binding:
            case AccessBinding() as binding:
                fault = check_binding(binding, banks, handler.handler.section)
                faults += [fault] if fault else []
            case TimerBinding(name):
                numbers = {each: number for number, each in names.timers.items()}
                port_number(name, numbers, f"`{spec.name}` has no timer")
            case LineBinding(name):
                numbers = {each: number for number, each in names.inputs.items()}
                port_number(name, numbers, f"`{spec.name}` has no input line")
    return faults


def _add_entries(
    entries: dict[int, tuple[int, int]], binding: AccessBinding, device: Device, slot: int
) -> None:
    base = device.spec.at[binding.bank]
    for offset, size in binding.accesses():
        key = access_key(kind_of(binding.space), binding.op, base + offset, size)
        if key in entries:
            message = f"two handlers of `{device.name}` answer a {size}-byte {binding.op} at {offset:#x}"
            raise reject(errors.OVERLAP, message)
        entries[key] = (offset, slot)


def _make_timers() -> ctypes.Array[ctypes.Structure]:
    timers = (TIMER.struct * (limits.TIMERS * limits.DEVICES))()
    for index, timer in enumerate(timers):
        timer.deadline = NEVER
        timer.device, timer.port = divmod(index, limits.TIMERS)
    return timers


def _call(model: Model, number: int, arguments: tuple[int, ...]) -> object:
    """A model's answer to a hypercall; one that knows of none answers as if nobody were there."""
    call: Callable[[int, tuple[int, ...]], object] | None = getattr(model, "call", None)
    return call(number, arguments) if call else -1
