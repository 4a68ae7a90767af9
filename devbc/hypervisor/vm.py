"""A VM in this process: devices at addresses, wires, a clock, and a vCPU that runs a guest's accesses.

Programs answer in the native loop; what they decline, and what none of them answers, goes to the device's
userspace model, which works on the same shared area. Attaching and detaching an engine changes who answers
and how fast, never what is answered.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

from devbc import limits
from devbc.abi import SIZES, AccessBinding, LineBinding, Op, Space, TimerBinding
from devbc.diagnostics import Rejected, did_you_mean, reject
from devbc.engines.clock import CLOCK_PAGE
from devbc.engines.engine import Engine, LoadedPrograms
from devbc.hypervisor import errors
from devbc.hypervisor.bus import (
    ADDRESS_LIMIT,
    AddressMap,
    DispatchTable,
    Placement,
    access_key,
    check_binding,
)
from devbc.hypervisor.device import Device, DeviceSpec
from devbc.hypervisor.layouts import (
    ACCESS,
    MACHINE,
    MISMATCH,
    NEVER,
    TIMER,
    TIMERS_PER_DEVICE,
    VCPU,
    Reason,
)
from devbc.hypervisor.run import Run
from devbc.hypervisor.wiring import WireSpec, Wiring, port_number
from devbc.program.verified import HandlerClass

_SPACES, _OPS = tuple(Space), tuple(Op)


class VM:
    """Devices, wires and one vCPU on a virtual clock that the guest's accesses move.

    Raises Rejected (H002 to H008) when devices or wires do not fit together. A VM is one thread's at a time:
    running it, attaching and detaching while it runs, from a model or another thread, raise RuntimeError.
    Several VMs may run at once.
    """

    def __init__(
        self, devices: Iterable[DeviceSpec], wires: Iterable[WireSpec] = (), *, rtc_base: int = 0
    ) -> None:
        specs = list(devices)
        _check_devices(specs)
        self.rtc_base = rtc_base
        self._busy = Lock()
        self.clock = CLOCK_PAGE.struct()
        self.devices = [Device(self, index, spec) for index, spec in enumerate(specs)]
        self._map = AddressMap(_place(self.devices), {device.index: device.name for device in self.devices})
        self._claims = self._map.claims()
        self._timers = _make_timers(len(self.devices))
        self._wiring = Wiring(wires, self.devices)
        self._machine = MACHINE.struct(
            claims=ctypes.addressof(self._claims),
            claim_count=len(self._map),
            timers=ctypes.addressof(self._timers),
            timer_count=len(self._timers),
            next_deadline=NEVER,
        )
        self._wiring.install(self._machine)
        self.vcpu = VCPU.struct(machine=ctypes.addressof(self._machine), clock=ctypes.addressof(self.clock))
        self._loop = _native_loop()
        self._loaded: list[LoadedPrograms] = []
        self._attached: set[int] = set()
        self._publish()
        for device in self.devices:
            with device as model:
                if model:
                    model.reset()

    # The clock, timers and lines (`device.Board`).

    def now(self) -> int:
        """The VM clock, in ns."""
        return int(self.clock.now_ns)

    def arm(self, device: Device, timer: int, deadline: int) -> None:
        """Set a timer to a deadline in ns of the VM clock, or NEVER; what is out of range becomes its end."""
        deadline = min(max(deadline, 0), NEVER)
        self._timers[device.ports.first_timer + timer].deadline = deadline
        self._machine.next_deadline = min(self._machine.next_deadline, deadline)

    def post(self, device: Device, line: int, level: int) -> None:
        """Send a change of an output line down its wires, to be settled before the next access."""
        machine = self._machine
        if machine.queue_tail - machine.queue_head + machine.burst > machine.queue_mask:
            self._wiring.grow_queue(machine)
        self._loop.post(ctypes.addressof(machine), ctypes.addressof(device.ports), line, level)

    @property
    def guest_lines(self) -> int:
        """Levels of the guest's interrupt lines, a bit each."""
        return sum(1 << line for line, sources in enumerate(self._machine.guest_sources) if sources)

    @property
    def guest_interrupts(self) -> int:
        """Rising edges on the guest's interrupt lines so far."""
        return int(self._machine.guest_interrupts)

    # Who answers.

    def attach(self, engine: Engine, names: Iterable[str] | None = None) -> None:
        """Let an engine's programs answer for the named devices (all of them by default) from now on."""
        devices = self.devices if names is None else [self._device(name) for name in names]
        loaded = engine.load([device.spec.verified for device in devices])
        with self._stopped():
            self._attach(loaded, devices)

    def _attach(self, loaded: LoadedPrograms, devices: Iterable[Device]) -> None:
        self._loaded.append(loaded)
        for device in devices:
            for slot, handler in zip(device.slots, device.spec.verified.handlers, strict=False):
                mutating = handler.handler_class is HandlerClass.MUTATING
                slot.function = loaded.address(handler)
                slot.scratch = device.area.address
                slot.rodata = ctypes.addressof(device.rodata)
                slot.lock = device.area.header_address if mutating else None
                slot.device = ctypes.addressof(device.ports)
                slot.effects = bool(handler.effects)
            self._attached.add(device.index)
        self._publish()

    def detach(self, names: Iterable[str]) -> None:
        """Let the named devices' models answer everything from now on."""
        devices = [self._device(name).index for name in names]
        with self._stopped():
            self._attached.difference_update(devices)
            self._publish()

    def find(self, space: Space, address: int) -> tuple[Device, str, int] | None:
        """The device, bank and offset at an address."""
        placement = self._map.find(space, address)
        if placement is None:
            return None
        return self.devices[placement.device], placement.bank.name, address - placement.base

    # Running.

    def run(self, run: Run) -> None:
        """Take the guest's accesses to their end."""
        with self._stopped():
            self.vcpu.cursor = ctypes.addressof(run.cursor)
            vcpu = ctypes.addressof(self.vcpu)
            while (reason := self._loop.run(vcpu)) != Reason.DONE:
                if reason == Reason.ACCESS:
                    self._answer(run)
                elif reason != Reason.PAUSE:
                    self._deliver_event(reason)
            for device in self.devices:
                _signal(device)

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """Hold the VM's native records for one user: native code reads them as they are."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("the VM is running: a model or another thread called it")
        try:
            yield
        finally:
            self._busy.release()

    def access(self, space: Space, op: Op, address: int, size: int, value: int = 0, *, time: int) -> int:
        """One access at a time in ns, not before the clock: the value read, or 0. For tests and tools.

        Raises ValueError for an access that no guest can make.
        """
        if size not in SIZES or not 0 <= address < ADDRESS_LIMIT[space]:
            raise ValueError(f"no guest accesses {size} bytes at {space} {address:#x}")
        if not self.now() <= time < NEVER:
            raise ValueError(f"an access at {time} ns, and the clock is at {self.now()} ns")
        value &= (1 << 8 * size) - 1
        where = (address, _SPACES.index(space), _OPS.index(op), size.bit_length() - 1)
        run = Run(ACCESS.packer.pack(time, value, *where, 0, 0))
        self.run(run)
        return run.answers[0] if op is Op.READ else 0

    def _answer(self, run: Run) -> None:
        """A full userspace exit: the model answers the access at the cursor."""
        index = run.cursor.index
        access = run.accesses[index]
        space, size = _SPACES[access.space], 1 << access.log2_size
        found = self.find(space, access.address)
        assert found is not None, "the loop returns accesses in banks only"
        device, bank, offset = found
        _signal(device)
        with device as model:
            if model is None:
                run.answers[index] = access.value
            elif access.op:
                model.write(bank, offset, size, access.value)
            else:
                answer = _masked(model.read(bank, offset, size), size)
                run.answers[index] = answer
                if answer != access.value:
                    run.outcomes[index] |= MISMATCH
        run.cursor.index = index + 1

    def _deliver_event(self, reason: int) -> None:
        """A line event or expired timer that no program took: its model does."""
        event = self.vcpu.event
        device, port, value = self.devices[event.device], event.port, event.value
        names = device.spec.program.names
        _signal(device)
        with device as model:
            if model is None:
                return
            if reason == Reason.TIMER:
                model.timer(names.timers[port], value)
            else:
                model.line(names.inputs[port], value)

    def _device(self, name: str) -> Device:
        for device in self.devices:
            if device.name == name:
                return device
        names = [device.name for device in self.devices]
        message = f"there is no device `{name}`"
        raise reject(errors.UNKNOWN_NAME, message, help=did_you_mean(name, names))

    def _publish(self) -> None:
        """Make the native tables say who answers what."""
        entries: dict[int, tuple[int, int]] = {}
        timers: dict[tuple[int, int], int] = {}
        inputs: dict[tuple[int, int], int] = {}
        for device in self.devices:
            if device.index not in self._attached:
                continue
            for slot, handler in zip(device.slots, device.spec.verified.handlers, strict=False):
                address = ctypes.addressof(slot)
                match handler.handler.binding:
                    case AccessBinding() as binding if binding.bank in device.spec.at:
                        _add_entries(entries, binding, device, address)
                    case TimerBinding(name):
                        timers[device.index, device.timer_numbers[name]] = address
                    case LineBinding(name):
                        inputs[device.index, device.input_numbers[name]] = address
        self._table = DispatchTable(entries)
        self._machine.table = ctypes.addressof(self._table.records)
        self._machine.table_mask = self._table.mask
        self._machine.table_shift = self._table.shift
        for timer in self._timers:
            timer.slot = timers.get((timer.device, timer.port))
        self._wiring.publish(inputs)


def _check_devices(specs: list[DeviceSpec]) -> None:
    """Refuse devices of one name, and more devices or answered accesses than a machine may have."""
    names = [spec.name for spec in specs]
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise reject(errors.BAD_MACHINE, f"two devices are called `{twice}`")
    if len(specs) > limits.DEVICES:
        message = f"the machine has {len(specs):,} devices, and may have {limits.DEVICES:,}"
        raise reject(errors.TOO_LARGE, message)
    bindings = [handler.handler.binding for spec in specs for handler in spec.verified.handlers]
    entries = sum(binding.count for binding in bindings if isinstance(binding, AccessBinding))
    if entries > limits.DISPATCH_ENTRIES:
        message = f"programs answer {entries:,} accesses, and may answer {limits.DISPATCH_ENTRIES:,}"
        raise reject(errors.TOO_LARGE, message)


def _place(devices: Iterable[Device]) -> list[Placement]:
    """The banks where the machine puts them; Rejected if a program and its placement do not fit."""
    faults = []
    placements = []
    for device in devices:
        banks = {bank.name: bank for bank in device.spec.program.banks}
        for handler in device.spec.verified.handlers:
            match handler.handler.binding:
                case AccessBinding() as binding:
                    fault = check_binding(binding, banks, handler.handler.section)
                    faults += [fault] if fault else []
                case TimerBinding(name):
                    port_number(name, device.timer_numbers, f"`{device.name}` has no timer")
                case LineBinding(name):
                    port_number(name, device.input_numbers, f"`{device.name}` has no input line")
        for name, base in device.spec.at.items():
            if name not in banks:
                known = ", ".join(f"`{each}`" for each in banks) or "none"
                message = f"device `{device.name}` has no bank `{name}`"
                help = did_you_mean(name, banks) or (f"its banks are: {known}",)
                raise reject(errors.UNKNOWN_NAME, message, help=help)
            placements.append(Placement(device.index, banks[name], base))
    if faults:
        raise Rejected(*faults)
    return placements


def _add_entries(
    entries: dict[int, tuple[int, int]], binding: AccessBinding, device: Device, slot: int
) -> None:
    base = device.spec.at[binding.bank]
    for offset, size in binding.accesses():
        key = access_key(binding.space, binding.op, base + offset, size)
        if key in entries:
            message = f"two handlers of `{device.name}` answer a {size}-byte {binding.op} at {offset:#x}"
            raise reject(errors.OVERLAP, message)
        entries[key] = (offset, slot)


def _make_timers(devices: int) -> ctypes.Array[ctypes.Structure]:
    timers = (TIMER.struct * max(1, TIMERS_PER_DEVICE * devices))()
    for index, timer in enumerate(timers):
        timer.deadline = NEVER
        timer.device, timer.port = divmod(index, TIMERS_PER_DEVICE)
    return timers


def _masked(answer: object, size: int) -> int:
    """What a model answered, cut to the bytes that were read."""
    if not isinstance(answer, int):
        raise TypeError(f"`read` returned {answer!r}, which is not an integer")
    return answer & ((1 << 8 * size) - 1)


def _signal(device: Device) -> None:
    """Hand the device's pending signals to its model."""
    pending = device.ports.signals
    if not pending:
        return
    device.ports.signals = 0
    with device as model:
        if model is None:
            return
        for number, name in device.spec.program.names.signals.items():
            if pending >> number & 1:
                model.signal(name)


class _Loop:
    """The native loop's entry points, called without holding the interpreter lock."""

    def __init__(self) -> None:
        from devbc.engines.native import NativeModule
        from devbc.hypervisor.exit_loop import POST, RUN, build_module

        code = NativeModule(build_module(), [RUN, POST])
        u32, u64, pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
        self.run = code.function(RUN, ctypes.CFUNCTYPE(u64, pointer))
        self.post = code.function(POST, ctypes.CFUNCTYPE(None, pointer, pointer, u32, u32))


@cache
def _native_loop() -> _Loop:
    return _Loop()
