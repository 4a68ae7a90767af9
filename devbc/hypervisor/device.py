"""A device of a running VM: its shared area, its handlers' slots, its ports, and the model behind it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from devbc.abi import AccessBinding, Helper, HypercallBinding, Op, Space, Verdict
from devbc.diagnostics import Rejected, reject
from devbc.engines.engine import LoadedPrograms
from devbc.hypervisor import errors
from devbc.hypervisor.area_lock import AreaLock
from devbc.hypervisor.bus import KINDS
from devbc.hypervisor.layouts import AREA_HEADER, COUNTS, EXIT, HYPERCALL, NEVER, SLOT, Guard
from devbc.hypervisor.model import Model, named_port
from devbc.hypervisor.model_fault import model_failed
from devbc.hypervisor.scratch import SharedArea
from devbc.limits import VCPUS
from devbc.program.program import Program
from devbc.program.scratch_type import shape
from devbc.program.verified import HandlerClass, VerifiedHandler, VerifiedProgram


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device to be: its program, its model (None: nobody answers what it declines), its addresses."""

    name: str
    verified: VerifiedProgram
    model: Callable[[Any, Any], Model] | None
    at: Mapping[str, int]

    @property
    def program(self) -> Program:
        return self.verified.program


#: A handler as ctypes calls it: exit, area, read-only data, clock.
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_void_p] * 4)
_SNAPSHOT_TRIES = 1000


def placed(verified: VerifiedProgram, at: Mapping[str, int]) -> VerifiedProgram:
    """The program without the handlers of banks and hypercalls that its device has no address for.

    A device that can sit in two spaces costs no more than one that cannot: what nobody can reach is neither
    compiled nor dispatched.
    """

    def reachable(handler: VerifiedHandler) -> bool:
        match handler.handler.binding:
            case AccessBinding(bank=bank):
                return bank in at
            case HypercallBinding():
                return KINDS[HYPERCALL] in at
        return True

    handlers = tuple(filter(reachable, verified.handlers))
    if len(handlers) == len(verified.handlers):
        return verified
    # The digest says which handlers are left: those of these banks.
    digest = verified.digest and " ".join([verified.digest, "at", *sorted(at)])
    return replace(verified, handlers=handlers, digest=digest)


class Board(Protocol):
    """What a device needs of the VM it sits in."""

    rtc_base: int

    def now(self) -> int: ...
    def request(self, device: Device, effects: Any) -> None:
        """Carry out an exit's effect fields; RuntimeError if too many line changes wait to be delivered."""
        ...


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of a handler's runs. `ticks`: exits by the logarithm of the cycles that they took."""

    handled: int
    declined: int
    contended: int
    ticks: tuple[int, ...]


class Installed:
    """A device's program in place: the slots that maps point at, and everything that those point at.

    Slots do not change: attaching again, or replacing the program, installs anew.
    """

    def __init__(self, device: Device, verified: VerifiedProgram, loaded: LoadedPrograms) -> None:
        self.verified = verified
        self._loaded = loaded
        self._rodata = ctypes.create_string_buffer(
            verified.program.rodata, max(1, len(verified.program.rodata))
        )
        self._counts = (COUNTS.struct * (VCPUS * max(1, len(verified.handlers))))()
        self.slots = (SLOT.struct * max(1, len(verified.handlers)))()
        beside = any(guard(each) is Guard.SEQUENCE and asks_time(each) for each in verified.handlers)
        for index, (slot, handler) in enumerate(zip(self.slots, verified.handlers, strict=False)):
            slot.function = loaded.address(handler)
            slot.scratch = device.area.address
            slot.rodata = ctypes.addressof(self._rodata)
            slot.header = device.area.header_address
            slot.device = ctypes.addressof(device.ports)
            slot.index = device.index
            slot.guard = guard(handler)
            slot.effects = bool(handler.effects)
            slot.fenced = guard(handler) is Guard.LOCK and beside and asks_time(handler)
            binding = handler.handler.binding
            slot.call = isinstance(binding, HypercallBinding)
            slot.written = (
                (1 << 64) - 1 if isinstance(binding, AccessBinding) and binding.op is Op.WRITE else 0
            )
            slot.counts = ctypes.addressof(self._counts) + index * VCPUS * COUNTS.size

    def figures(self, handler: int) -> Figures:
        """The figures of a handler, by its place in the program, summed over all vCPUs."""
        rows = self._counts[handler * VCPUS : (handler + 1) * VCPUS]
        return Figures(
            handled=sum(row.handled for row in rows),
            declined=sum(row.declined for row in rows),
            contended=sum(row.contended for row in rows),
            ticks=tuple(map(sum, zip(*(row.ticks for row in rows), strict=True))),
        )

    def inquire(
        self, device: Device, clock: Any, clock_offset: int, place: tuple[Space, str, int, int]
    ) -> int | None:
        """What a read at (space, bank, offset, size) would return, its handler run on a copy of the area."""
        space, bank, offset, size = place
        function = None
        for slot, handler in zip(self.slots, self.verified.handlers, strict=False):
            match handler.handler.binding:
                case AccessBinding(space=s, bank=b, op=Op.READ) as binding if (s, b) == (space, bank):
                    if binding.answers(offset, size):
                        function = _HANDLER(slot.function)
        if function is None:
            return None
        area = ctypes.create_string_buffer(device.snapshot(), max(1, len(device.area.bytes)))
        exit_ = EXIT.struct(offset=offset, size=size, clock_offset=clock_offset)
        addresses = (ctypes.addressof(each) for each in (exit_, area, self._rodata, clock))
        if function(*addresses) != Verdict.HANDLED:
            return None
        return int(exit_.value) & (1 << 8 * size) - 1


def guard(handler: VerifiedHandler) -> Guard:
    """What a handler needs of its device while it runs.

    A pure handler that moves lines or timers takes the lock too: what it found and what it made of it must
    not be overtaken by a handler that finds something else. Signals only ever say "look".
    """
    if handler.handler_class is HandlerClass.MUTATING or handler.effects - {"signal"}:
        return Guard.LOCK
    return Guard.SEQUENCE if handler.scratch_read else Guard.NONE


def asks_time(handler: VerifiedHandler) -> bool:
    """Whether some run of a handler reads the clock."""
    return Helper.KTIME_GET_NS in handler.helpers


def check_replacement(old: Program, new: Program) -> None:
    """Refuse (H009) a program that cannot take over the area and the ports of another."""
    if shape(old.scratch_type) != shape(new.scratch_type) or len(old.scratch_image) != len(new.scratch_image):
        message = f"the `state` of `{new.device}` is not that of the program in place"
        help = ["save the VM's state, create the device anew and restore: fields are matched by name"]
        raise reject(errors.NO_REPLACEMENT, message, help=help)
    if old.names != new.names or old.banks != new.banks:
        message = f"the banks, lines, inputs, timers or signals of `{new.device}` are not those in place"
        raise reject(errors.NO_REPLACEMENT, message)


class Device:
    """A device of a running VM; also the `Host` of its model."""

    def __init__(self, board: Board, index: int, spec: DeviceSpec, ports: Any) -> None:
        """`ports`: its `layouts.DEVICE` record in the machine."""
        program = spec.program
        self.name = spec.name
        self.spec = spec
        self.index = index
        self.area = SharedArea(program.scratch_image, program.scratch_type)
        self.installed: Installed | None = None
        self.ports = ports
        self.ports.index = index
        names = program.names
        self.timer_numbers = {name: number for number, name in names.timers.items()}
        self.line_numbers = {name: number for number, name in names.lines.items()}
        self.input_numbers = {name: number for number, name in names.inputs.items()}
        self.signal_names = names.signals
        self._board = board
        self.lock = AreaLock(self.area.header_address)
        self.model: Model | None = None
        if spec.model:
            with self:
                self.model = spec.model(self.area.view, self)

    @property
    def program(self) -> Program:
        return self.spec.program

    def snapshot(self) -> bytes:
        """The area's variables at one moment between two changes, if changes leave one within some tries."""
        header = AREA_HEADER.struct.from_address(self.area.header_address)
        for _ in range(_SNAPSHOT_TRIES):
            before = header.sequence
            content = bytes(self.area.bytes)
            if not before & 1 and header.sequence == before:
                break
        return content

    def __enter__(self) -> Model | None:
        """Take the device's lock for its model: no handler runs on what it changes meanwhile.

        What the model raises is its writer's fault: Rejected (H007).
        """
        self.lock.__enter__()
        return self.model

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.lock.unlock()
        if isinstance(error, Exception) and not isinstance(error, Rejected):
            raise model_failed(self.name, error) from error

    def request(self, effects: Any) -> None:
        """Carry out an exit's effect fields; RuntimeError if too many line changes wait to be delivered."""
        self._board.request(self, effects)

    # What follows is `devbc.hypervisor.model.Host`.

    @property
    def rtc_base(self) -> int:
        return self._board.rtc_base

    def now(self) -> int:
        return self._board.now()

    def raise_line(self, line: str) -> None:
        number = named_port(line, self.line_numbers, f"`{self.name}` has no output line")
        self._board.request(self, EXIT.struct(**{"raise": 1 << number}))

    def lower_line(self, line: str) -> None:
        number = named_port(line, self.line_numbers, f"`{self.name}` has no output line")
        self._board.request(self, EXIT.struct(lower=1 << number))

    def arm(self, timer: str, deadline: int) -> None:
        """Set a timer to a deadline in ns of the VM clock, or NEVER; what is out of range becomes its end."""
        number = self._timer(timer)
        effects: Any = EXIT.struct(arm=1 << number)
        effects.deadline[number] = min(max(deadline, 0), NEVER)
        self._board.request(self, effects)

    def cancel(self, timer: str) -> None:
        self._board.request(self, EXIT.struct(cancel=1 << self._timer(timer)))

    def _timer(self, timer: str) -> int:
        return named_port(timer, self.timer_numbers, f"`{self.name}` has no timer")
