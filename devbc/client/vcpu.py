"""A vCPU of the service: its guest's accesses go in, its exits come out.

An exit is a page that both sides map. `run` yields what needs userspace; answering hands the page back. The
machine waits meanwhile, as KVM does between two KVM_RUNs, and everybody else's vCPUs go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
from array import array
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from devbc.abi import Op, Space
from devbc.client.connection import Connection
from devbc.diagnostics import reject
from devbc.hypervisor.bus import KINDS
from devbc.hypervisor.layouts import (
    ACCESS,
    FEED,
    HYPERCALL,
    RUN_PAGE,
    Outcome,
    PageState,
    Reason,
)
from devbc.service import errors, protocol
from devbc.service.guest_memory import GuestMemory

if TYPE_CHECKING:
    from devbc.client.device import Device

_OPS: Final = tuple(Op)


class ExitKind(StrEnum):
    """What an exit asks for."""

    READ = "read"
    WRITE = "write"
    HYPERCALL = "hypercall"
    TIMER = "timer"  # a timer has expired that no program took
    LINE = "line"  # an input line has changed, and no program took it


class Exit:
    """One exit. `device` is None for an access that no device claims, `port` names a timer or an input line.

    `value`: what was written; a timer's deadline in ns; a line's new level. `time`: the VM clock, ns.
    `signals`: names of the device's signals since they were last seen. `outcome`: why no program answered.
    `number`: exits of the vCPU so far, this one included.
    """

    __slots__ = (
        "_vcpu",
        "address",
        "arguments",
        "bank",
        "device",
        "kind",
        "number",
        "offset",
        "outcome",
        "port",
        "signals",
        "size",
        "space",
        "time",
        "value",
    )  # fmt: skip

    def __init__(self, vcpu: Vcpu, page: Any) -> None:
        self._vcpu = vcpu
        devices = vcpu.devices
        self.device: Device | None = devices[page.device] if page.device < len(devices) else None
        self.time, self.value, self.offset, self.size = page.time, page.value, page.offset, page.size
        self.address: int = page.address
        self.number: int = page.exits
        self.bank = self.port = ""
        self.space: Space | None = None
        self.arguments: tuple[int, ...] = ()
        self.outcome = Outcome.PENDING
        names = self.device.program.names if self.device else None
        match page.reason:
            case Reason.TIMER:
                self.kind = ExitKind.TIMER
                self.port = names.timers[page.offset] if names else ""
            case Reason.EVENT:
                self.kind = ExitKind.LINE
                self.port = names.inputs[page.offset] if names else ""
            case _:
                self._take_access(page)
        self.signals = _signals(page.signals, names.signals) if names and page.signals else ()

    def _take_access(self, page: Any) -> None:
        self.outcome = Outcome(page.outcome) if page.outcome <= Outcome.UNCLAIMED else Outcome.PENDING
        if page.kind == HYPERCALL:
            self.kind = ExitKind.HYPERCALL
            self.bank, self.arguments = KINDS[HYPERCALL], tuple(page.arguments)
            return
        self.kind = ExitKind.WRITE if _OPS[page.op] is Op.WRITE else ExitKind.READ
        self.space = Space(KINDS[page.kind])
        if self.device:
            self.bank = self.device.program.banks[page.bank].name

    def answer(self, value: int = 0) -> None:
        """Complete the exit: the value of a read, the result of a hypercall. The guest goes on."""
        self._vcpu.answer(value)


class Vcpu:
    """A vCPU. Its exits are one thread's; several vCPUs are several threads', or one asyncio loop's.

    `vm`: its VM's number. `devices`: the VM's, by their numbers; the list grows with it.
    """

    def __init__(
        self,
        connection: Connection,
        vm: int,
        devices: Sequence[Device],
        index: int,
        guest: GuestMemory | None,
        descriptors: list[int],
        *,
        spins: int,
        recorded: bool = False,
    ) -> None:
        page_fd, self.wake_fd, *memory = descriptors
        self._connection = connection
        self.vm = vm
        self.devices = devices
        self.index = index
        self.guest = guest
        self.spins = spins
        self.recorded = recorded
        self._native = _native()
        self._page_map = _mapped(page_fd)
        self.page: Any = RUN_PAGE.struct.from_buffer(self._page_map)
        self._page_address = ctypes.addressof(self.page)
        self._gone_fd = connection.watch()
        self._epoll = select.epoll()
        self._epoll.register(self.wake_fd, select.EPOLLIN)
        self._epoll.register(self._gone_fd, 0)  # hang-ups are always told
        #: Whether it was started, and not stopped since; the thread of a live VM's timers always runs.
        self.running = guest is None
        if guest and memory:
            self._memory = _mapped(memory[0])
            self._feed: Any = FEED.struct.from_buffer(self._memory)

    def __del__(self) -> None:
        for name in ("wake_fd", "_gone_fd"):
            if hasattr(self, name):
                os.close(getattr(self, name))

    # The guest.

    def feed(
        self,
        accesses: bytes,
        *,
        turns: array[int] | None = None,
        arguments: array[int] | None = None,
    ) -> None:
        """Append packed `layouts.ACCESS` records to the guest's ring.

        Raises ValueError if there is no room for them: the vCPU has not done the earlier ones yet.
        """
        guest = self._guest()
        count = len(accesses) // ACCESS.size
        tail = int(self._feed.tail)
        if count > guest.capacity - (tail - int(self._feed.head)):
            raise ValueError(f"the ring has no room for {count} accesses")
        self._write(guest.offset("accesses"), tail, ACCESS.size, accesses)
        if turns is not None:
            self._write(guest.offset("turns"), tail, 8, turns.tobytes())
        if arguments is not None:
            self._write(guest.offset("arguments"), tail, 8 * (len(arguments) // count), arguments.tobytes())
        self._native.feed(ctypes.addressof(self._feed), tail + count)

    @property
    def done(self) -> int:
        """Accesses done so far."""
        return int(self._feed.head) if self.guest else 0

    @property
    def answers(self) -> array[int]:
        """What reads and hypercalls returned, of all accesses done so far, or the ring's last."""
        return self.results("answers", "Q")

    def results(self, part: str, kind: str) -> array[int]:
        """What became of the accesses done so far: `outcomes` ("B"), `answers` ("Q") or `ticks` ("I")."""
        guest, values = self._guest(), array(kind)
        size = min(self.done, guest.capacity) * values.itemsize
        values.frombytes(self._memory[guest.offset(part) : guest.offset(part) + size])
        return values

    def _guest(self) -> GuestMemory:
        if self.guest is None:
            raise ValueError("this vCPU runs no guest")
        return self.guest

    def _write(self, offset: int, index: int, size: int, data: bytes) -> None:
        """Write elements into a ring from an index on, around its end."""
        capacity = self._guest().capacity
        first = index & (capacity - 1)
        fits = min(len(data), (capacity - first) * size)
        self._memory[offset + first * size : offset + first * size + fits] = data[:fits]
        self._memory[offset : offset + len(data) - fits] = data[fits:]

    # Running.

    def start(self) -> None:
        """Let the vCPU run; `run` does so if it does not run yet."""
        self._connection.ask(protocol.StartVcpu(self.vm, self.index), protocol.Done)
        self.running = True

    def stop(self) -> None:
        """Stop it, wherever it is, and wait until it stands."""
        self._connection.ask(protocol.StopVcpu(self.vm, self.index), protocol.Done)
        self.running = False

    def run(self) -> Iterator[Exit]:
        """Run the guest: yields each exit, to be answered before the next, and ends with its accesses.

        It also ends if the vCPU was stopped. After `feed`, call it again. Raises RuntimeError if the next
        exit is asked for before this one is answered.
        """
        self.resume()
        while self.wait():
            if (exit_ := self.exit()) is None:
                return
            yield exit_
            self.check_answered(exit_)

    def resume(self) -> None:
        """Go on after the accesses were done, or for the first time."""
        if not self.running:
            self.start()
        elif self.page.state == PageState.EXIT and self.page.reason == Reason.DONE:
            self.answer(0)

    def exit(self) -> Exit | None:
        """The exit in the page, once `wait` or the eventfd has said that there is one; None at the end."""
        if self.page.reason in (Reason.ACCESS, Reason.TIMER, Reason.EVENT):
            return Exit(self, self.page)
        if self.page.reason == Reason.STOPPED:
            self.running = False
        return None

    def check_answered(self, exit_: Exit) -> None:
        """Raise RuntimeError if an exit is still at hand, which whoever forgot it would get for ever."""
        page = self.page
        at_hand = page.state == PageState.EXIT and page.exits == exit_.number
        if at_hand and page.reason != Reason.STOPPED:
            raise RuntimeError(f"exit {exit_.number} of vCPU {self.index} was not answered")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for an exit, spinning first; False if none came within `timeout` seconds.

        Raises Rejected (S006) if the connection is gone: nobody is behind the page any more.
        """
        while not self.ready():
            if not (events := self._epoll.poll(timeout)):
                return False
            self._take(events)
        return True

    def ready(self) -> bool:
        """Whether an exit has come, after spinning for it. If not, `fileno()` is readable at the next one."""
        return bool(self._native.wait(self._page_address, self.spins))

    def fileno(self) -> int:
        """What an event loop waits for where it does not call `wait`: then `drain`, and `ready` again."""
        return self._epoll.fileno()

    def drain(self) -> None:
        """Take what made `fileno()` readable. Raises Rejected (S006) if the connection is gone."""
        self._take(self._epoll.poll(0))

    def _take(self, events: list[tuple[int, int]]) -> None:
        for descriptor, _ in events:
            if descriptor == self._gone_fd:
                raise reject(errors.LOST, "the connection to the service is gone, and the vCPU with it")
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.wake_fd)

    def answer(self, value: int = 0) -> None:
        """Complete the exit at hand."""
        self.page.answer = value & (1 << 64) - 1
        self._hand_back(PageState.ANSWERED)

    def effects(self) -> Any:
        """The effect fields that go with the answer (`layouts.EXIT`): the device's lines and timers."""
        return self.page.effects

    def flush_effects(self) -> None:
        """Have the effects carried out now, before the exit is answered: what follows must not join them."""
        self._hand_back(PageState.EFFECTS)
        self.wait()

    def _hand_back(self, state: PageState) -> None:
        self._native.answer(self._page_address, state)
        if self.page.reason == Reason.STOPPED:
            # It was stopped meanwhile, and said so in a page that has just been given back to nobody.
            self.page.state = PageState.EXIT


class _Native:
    """Userspace's half of the run page, in native code; `wait` lets go of the interpreter's lock."""

    def __init__(self) -> None:
        from devbc.engines.native import NativeModule
        from devbc.hypervisor.native_machine import machine_version
        from devbc.hypervisor.run_page import ANSWER, TAIL, WAIT, build_userspace

        self._code = NativeModule(
            build_userspace, [WAIT, ANSWER, TAIL], ["syscall"], content=f"userspace {machine_version()}"
        )
        pointer, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
        self.wait = ctypes.CFUNCTYPE(u32, pointer, u64)(self._code.address(WAIT))
        self.answer = ctypes.PYFUNCTYPE(None, pointer, u32)(self._code.address(ANSWER))
        self.feed = ctypes.PYFUNCTYPE(None, pointer, u64)(self._code.address(TAIL))


@cache
def _native() -> _Native:
    return _Native()


def _mapped(descriptor: int) -> mmap.mmap:
    """Map what a descriptor stands for, and close it."""
    try:
        return mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _signals(mask: int, names: Any) -> tuple[str, ...]:
    return tuple(name for number, name in names.items() if mask >> number & 1)
