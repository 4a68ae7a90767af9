"""A VM's state as a file and back: scratch, timers, lines, signals and the clock, all of it by name.

The file says what each value is called and nothing of where it lay, so that a newer program can take an older
state: a field goes to the field of its name, in the type that the program's BTF gives it today. What does not
fit is named (H011), and the rest restored.

What it holds true: saving changes nothing and runs nothing; changes of lines that wait to be delivered are
part of the state, and are delivered by whoever runs the VM next. Restoring works everything out before it
writes the first byte: a file that cannot be read (H010) leaves the VM as it was. The VM stands still for
both: no vCPU runs, and each device's lock is held.

The file is msgpack: 64-bit integers and floats come back as they went, bytes stay bytes, and decoding makes
values of the types below and nothing else.

Not here: what fields a program has (`devbc.program.scratch_type`); which guest accesses come next; devices,
wires, programs and addresses, which whoever restores has set up again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from devbc import limits
from devbc.diagnostics import Diagnostic, reject
from devbc.hypervisor import errors
from devbc.hypervisor.device import Device
from devbc.hypervisor.layouts import EVENT, NEVER
from devbc.hypervisor.vm import VM

FORMAT: Final = "devbc-state"
VERSION: Final = 1

_MASK = (1 << 64) - 1
#: msgpack's integers end where these do.
_U64 = Annotated[int, msgspec.Meta(ge=0)]
_Name = Annotated[str, msgspec.Meta(max_length=limits.NAME_BYTES)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file is made of."""


class SavedDevice(_Record, frozen=True):
    """A device. `scratch`: values by field name, or bytes for a program without BTF.

    A value is a number, a list for an array, a mapping for a structure, bytes for a union.
    `timers`: the deadlines, in ns of the VM clock, of those that are armed. `lines`: outputs that are high.
    """

    program: _Name
    scratch: Any
    timers: dict[_Name, _U64]
    lines: list[_Name]
    signals: list[_Name]


class SavedEvent(_Record, frozen=True):
    """A change of an input line that waits to be delivered."""

    device: _Name
    input: _Name
    level: bool


class SavedState(_Record, frozen=True):
    """A VM. `now`: its clock, in ns. `guest_pending`, `guest_level`: bits of the guest's lines."""

    format: str
    version: int
    now: _U64
    devices: dict[_Name, SavedDevice]
    events: Annotated[list[SavedEvent], msgspec.Meta(max_length=limits.QUEUED_EVENTS - 1)]
    guest_pending: _U64
    guest_level: _U64


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a state: everything in it is in the VM but what `misfits` name."""

    misfits: tuple[Diagnostic, ...]


def save(vm: VM) -> bytes:
    """The state of a VM that stands still. Raises Rejected (H012) if it does not."""
    with _still(vm):
        devices = {device.name: _save_device(vm, device) for device in vm.devices}
        machine = vm._machine
        waiting = (vm._queue[each & machine.queue_mask] for each in _queued(machine))
        events = [_save_event(vm, event) for event in waiting]
        state = SavedState(
            FORMAT, VERSION, vm.now(), devices, events, machine.guest_pending, machine.guest_level
        )
    return msgspec.msgpack.encode(state)


def restore(vm: VM, data: bytes) -> Restored:
    """Put a state into a VM that stands still; what does not fit is named, and stays as the VM has it.

    Raises Rejected (H010) if the bytes are no state, (H012) if the VM runs; then nothing has changed.
    """
    state = read(data)
    with _still(vm):
        plan = _Plan(vm, state)
        plan.carry_out()
    return Restored(tuple(plan.misfits))


def read(data: bytes) -> SavedState:
    """The state in a file's bytes. Raises Rejected (H010)."""
    if len(data) > limits.STATE_BYTES:
        message = f"the state has {len(data):,} bytes, and may have {limits.STATE_BYTES:,}"
        raise reject(errors.BAD_STATE, message)
    try:
        found = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError) as error:
        # The last three: nested without end, text that is none, keys that cannot be keys.
        raise reject(errors.BAD_STATE, f"it cannot be read: {_lower(error)}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise reject(errors.BAD_STATE, f"it is no `{FORMAT}` file")
    if found.get("version") != VERSION:
        raise reject(errors.BAD_STATE, f"it is not of version {VERSION}, which this devbc reads")
    try:
        return msgspec.convert(found, SavedState)
    except msgspec.ValidationError as error:
        raise reject(errors.BAD_STATE, f"it is not what it says: {_lower(error)}") from None


def _lower(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text[0].lower() + text[1:]


@contextmanager
def _still(vm: VM) -> Iterator[None]:
    """The VM at rest: nobody changes it, no vCPU runs, and every device's lock is held."""
    with vm._change, ExitStack() as held:
        for vcpu in vm.vcpus:
            if vcpu.thread or not vcpu._busy.acquire(blocking=False):
                raise reject(errors.RUNNING, f"vCPU {vcpu.index} is running", help=["stop it first"])
            held.callback(vcpu._busy.release)
        for device in vm.devices:
            try:
                held.enter_context(device.lock)
            except TimeoutError as error:
                raise reject(errors.RUNNING, f"`{device.name}` is in use: {error}") from None
        yield


def _queued(machine: Any) -> range:
    head = int(machine.queue_head)
    return range(head, head + ((int(machine.queue_tail) - head) & _MASK))


def _save_device(vm: VM, device: Device) -> SavedDevice:
    names, ports = device.program.names, device.ports
    kind = device.program.scratch_type
    scratch: Any = bytes(device.area.bytes)
    if kind:
        scratch = _value(kind.from_buffer_copy(scratch))
    timers = {name: _timer(vm, device, number).deadline for number, name in names.timers.items()}
    return SavedDevice(
        program=device.program.device,
        scratch=scratch,
        timers={name: deadline for name, deadline in timers.items() if deadline != NEVER},
        lines=[name for number, name in names.lines.items() if ports.levels >> number & 1],
        signals=[name for number, name in names.signals.items() if ports.signals >> number & 1],
    )


def _save_event(vm: VM, event: Any) -> SavedEvent:
    device = vm.devices[event.device]
    return SavedEvent(device.name, device.program.names.inputs[event.port], bool(event.value))


def _timer(vm: VM, device: Device, number: int) -> Any:
    return vm._timers[device.index * limits.TIMERS + number]


def _fields(kind: Any) -> Iterator[tuple[str, Any]]:
    """The named fields of a structure, those of unnamed members among them; not the gaps."""
    for name, inner in kind._fields_:
        if name in getattr(kind, "_anonymous_", ()):
            yield from _fields(inner) if issubclass(inner, ctypes.Structure) else [(name, inner)]
        elif not name.startswith("_gap"):
            yield name, inner


def _value(found: Any) -> Any:
    """A ctypes value as what the file has."""
    if isinstance(found, ctypes.Union):
        return bytes(found)
    if isinstance(found, ctypes.Structure):
        return {name: _value(getattr(found, name)) for name, _ in _fields(type(found))}
    if isinstance(found, ctypes.Array):
        return [_value(each) for each in found]
    return found


class _Plan:
    """What restoring will do, worked out before anything is done; `misfits` is what it will not."""

    def __init__(self, vm: VM, state: SavedState) -> None:
        self.vm, self.state = vm, state
        self.misfits: list[Diagnostic] = []
        self.areas: list[tuple[Device, bytes]] = []
        self.timers: list[tuple[Any, int]] = []
        self.ports: list[tuple[Device, int, int]] = []
        self.events: list[tuple[int, int, int]] = []
        self.known = {device.name: device for device in vm.devices}
        for name, saved in state.devices.items():
            if name in self.known:
                self._device(self.known[name], saved)
            else:
                self._misfit(f"there is no device `{name}`")
        for name in self.known.keys() - state.devices.keys():
            self._misfit(f"the state has no device `{name}`, which stays as it is")
        for event in state.events:
            self._event(event)

    def _misfit(self, message: str) -> None:
        """Name what does not fit; a file may have millions of things that do not."""
        if len(self.misfits) < limits.MISFITS:
            self.misfits.append(Diagnostic(errors.MISFIT, message))
        elif len(self.misfits) == limits.MISFITS:
            self.misfits.append(Diagnostic(errors.MISFIT, "more does not fit, and is not named"))

    def _device(self, device: Device, saved: SavedDevice) -> None:
        names, program = device.program.names, device.program
        if saved.program != program.device:
            self._misfit(f"`{device.name}` is of type `{program.device}`, and was of type `{saved.program}`")
            return
        image = bytearray(device.area.bytes)
        if program.scratch_type:
            view = program.scratch_type.from_buffer(image)
            if isinstance(saved.scratch, dict):
                self._structure(view, saved.scratch, device.name)
            else:
                self._misfit(f"`{device.name}` has fields, and the state has {_kind(saved.scratch)}")
            del view
        elif isinstance(saved.scratch, bytes) and len(saved.scratch) == len(image):
            image[:] = saved.scratch
        else:
            what = f"{len(image):,} bytes without names"
            self._misfit(f"`{device.name}` has {what}, and the state has {_kind(saved.scratch)}")
        self.areas.append((device, bytes(image)))
        for name in saved.timers.keys() - device.timer_numbers.keys():
            self._misfit(f"`{device.name}` has no timer `{name}`")
        for name, number in device.timer_numbers.items():
            self.timers.append((_timer(self.vm, device, number), saved.timers.get(name, NEVER)))
        signals = {name: number for number, name in names.signals.items()}
        levels = self._mask(saved.lines, device.line_numbers, f"`{device.name}` has no output line")
        pending = self._mask(saved.signals, signals, f"`{device.name}` has no signal")
        self.ports.append((device, levels, pending))

    def _mask(self, wanted: list[str], numbers: Mapping[str, int], what: str) -> int:
        for name in wanted:
            if name not in numbers:
                self._misfit(f"{what} `{name}`")
        return sum(1 << number for name, number in numbers.items() if name in wanted)

    def _event(self, event: SavedEvent) -> None:
        device = self.known.get(event.device)
        if device is None or event.input not in device.input_numbers:
            self._misfit(f"there is no input line `{event.device}.{event.input}`, which was about to change")
            return
        self.events.append((device.index, device.input_numbers[event.input], int(event.level)))

    # Values, each into the field of its name.

    def _structure(self, view: Any, saved: dict[Any, Any], path: str) -> None:
        fields = dict(_fields(type(view)))
        for name, value in saved.items():
            if name not in fields:
                shown = name if isinstance(name, str) and len(name) <= limits.NAME_BYTES else "…"
                self._misfit(f"there is no field `{path}.{shown}`")
            else:
                self._field(view, name, fields[name], value, f"{path}.{name}")

    def _field(self, owner: Any, key: Any, kind: Any, value: Any, path: str) -> None:
        """Put a value into a field, or an element, if it fits."""
        if issubclass(kind, ctypes.Union):
            if isinstance(value, bytes) and len(value) == ctypes.sizeof(kind):
                _put(owner, key, kind.from_buffer_copy(value))
                return
            wants = f"a union of {ctypes.sizeof(kind):,} bytes"
        elif issubclass(kind, ctypes.Structure):
            if isinstance(value, dict):
                self._structure(_get(owner, key), value, path)
                return
            wants = "a structure"
        elif issubclass(kind, ctypes.Array):
            if isinstance(value, list) and len(value) == kind._length_:
                array = _get(owner, key)
                for index, each in enumerate(value):
                    self._field(array, index, kind._type_, each, f"{path}[{index}]")
                return
            wants = f"an array of {kind._length_:,}"
        else:
            wants = _scalar_misfit(kind, value)
            if not wants:
                _put(owner, key, value)
                return
        self._misfit(f"`{path}` is {wants}, and the state has {_kind(value)}")

    def carry_out(self) -> None:
        """Nothing fails from here on."""
        vm, state, machine = self.vm, self.state, self.vm._machine
        for device, image in self.areas:
            device.area.bytes[:] = image
        for timer, deadline in self.timers:
            timer.deadline = deadline
        for device, levels, signals in self.ports:
            device.ports.levels, device.ports.signals = levels, signals
        machine.next_deadline = min(each.deadline for each in vm._timers)
        machine.expired = 0
        for index, event in enumerate(self.events):
            vm._queue[index] = EVENT.struct(*event)
        machine.queue_head, machine.queue_tail = 0, len(self.events)
        self._guest_lines()
        self._set_clock(state.now)
        # Whoever runs next looks first whether something is due.
        machine.attention = 0

    def _guest_lines(self) -> None:
        """Levels of the guest's lines come from the wires; what it has not acknowledged, from the state."""
        machine, guest = self.vm._machine, self.vm._guest
        sources = [0] * limits.GUEST_LINES
        for row in self.vm._rows:
            if row.guest:
                sources[row.guest - 1] += self.vm.devices[row.source].ports.levels >> row.line & 1
        machine.guest_sources[:] = sources
        guest.levels = sum(1 << line for line, count in enumerate(sources) if count)
        machine.guest_level = self.state.guest_level
        machine.guest_pending = guest.pending = self.state.guest_pending

    def _set_clock(self, now: int) -> None:
        vm = self.vm
        if not vm.live:
            vm.clock.now_ns = now
            return
        vm._clock_offset = (vm._clock_offset + now - vm.now()) & _MASK
        for vcpu in vm.vcpus:
            vcpu.record.exit.clock_offset = vm._clock_offset


def _get(owner: Any, key: Any) -> Any:
    return owner[key] if isinstance(key, int) else getattr(owner, key)


def _put(owner: Any, key: Any, value: Any) -> None:
    if isinstance(key, int):
        owner[key] = value
    else:
        setattr(owner, key, value)


def _scalar_misfit(kind: Any, value: Any) -> str:
    """What a number's type is, if it does not hold the value; else nothing."""
    if kind is ctypes.c_bool:
        return "" if isinstance(value, int) and value in (0, 1) else "a bool"
    if kind in (ctypes.c_float, ctypes.c_double):
        fits = isinstance(value, float) and (kind is ctypes.c_double or _is_single(value))
        return "" if fits else f"a float of {8 * ctypes.sizeof(kind)} bits"
    bits = 8 * ctypes.sizeof(kind)
    signed = kind(-1).value < 0
    least, most = (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if isinstance(value, int) and least <= value <= most:
        return ""
    return f"of type {'i' if signed else 'u'}{bits}"


def _is_single(value: float) -> bool:
    narrowed = ctypes.c_float(value).value
    return narrowed == value or value != value


def _kind(value: Any) -> str:
    """A value of the file, for people."""
    match value:
        case bool() | int() | float():
            return f"{value}"
        case bytes():
            return f"{len(value):,} bytes"
        case list():
            return f"an array of {len(value):,}"
        case dict():
            return "a structure"
    return "no number"
