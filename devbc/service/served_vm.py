"""A VM of the service: its vCPUs are threads in native code, its models are in a client.

A vCPU's thread holds no lock of the interpreter while it runs: handled exits, waking the client, waiting for
it and taking its answer are all native (`hypervisor/run_page.py`).

What it holds true: whatever is done to a VM is done under its lock and before it is closed (`use`), so that
nobody works on descriptors that are somebody else's by now.

Not here: who may ask for what (`session.py`).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from devbc.diagnostics import Rejected, reject
from devbc.hypervisor.device import Device, DeviceSpec
from devbc.hypervisor.layouts import CURSOR, RUN_PAGE, PageState
from devbc.hypervisor.scratch import sealed_memfd
from devbc.hypervisor.vcpu import VCpu
from devbc.hypervisor.vm import VM
from devbc.program.verified import VerifiedProgram
from devbc.service import errors
from devbc.service.framing import close_all
from devbc.service.guest_memory import GuestMemory
from devbc.service.nudge import NUDGE, PATIENCE, nudger

#: Who a vCPU belongs to whose client has gone.
_NOBODY: Final = 0
#: Descriptors of a memfd that is mapped: Python's mapping keeps one of its own.
MAPPED_DESCRIPTORS: Final = 2


class SharedMemory:
    """A sealed memfd, mapped: memory that a client maps too."""

    def __init__(self, size: int, name: str) -> None:
        self.fd = sealed_memfd(size, name)
        try:
            self._map = mmap.mmap(self.fd, size)
        except OSError:
            os.close(self.fd)
            raise
        self._base = (ctypes.c_char * size).from_buffer(self._map)
        self.size = size

    def address(self, offset: int = 0) -> int:
        return ctypes.addressof(self._base) + offset

    def close(self) -> None:
        """Give the descriptor back; the mapping goes with the last that uses it."""
        os.close(self.fd)


class ServedVcpu(VCpu):
    """A vCPU whose thread is in native code, and whose userspace is behind a run page."""

    #: The token of the client that made it.
    owner = _NOBODY
    _memories: tuple[SharedMemory, ...] = ()
    wake_fd = -1
    _os_thread: threading.Thread | None = None

    def prepare(self, guest: GuestMemory | None, *, owner: int, recorded: bool, spins: int) -> None:
        """Give it its page, its eventfd and the guest's memory; None for the thread of a live VM's timers.

        Nothing is kept of it if it raises OSError.
        """
        try:
            sizes = {"devbc-run-page": mmap.PAGESIZE} | ({"devbc-guest": guest.size} if guest else {})
            for name, size in sizes.items():
                self._memories = (*self._memories, SharedMemory(size, name))
            self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            self.close()
            raise
        self.guest = guest
        self.owner = owner
        self._leaving = threading.Lock()
        record = self.record
        record.page, record.wake_fd, record.spins = self.page.address(), self.wake_fd, spins
        if guest:
            memory = self._memories[1]
            self._cursor = CURSOR.struct(
                feed=memory.address(), mask=guest.capacity - 1, recorded=recorded,
                **{
                    part: memory.address(guest.offset(part)) if guest.offset(part) else None
                    for part in ("accesses", "outcomes", "answers", "ticks", "turns", "arguments")
                },
            )  # fmt: skip
            record.cursor = ctypes.addressof(self._cursor)

    @property
    def page(self) -> SharedMemory:
        return self._memories[0]

    @property
    def descriptors(self) -> list[int]:
        """What its client gets: page, eventfd, guest memory."""
        return [self.page.fd, self.wake_fd, *(each.fd for each in self._memories[1:])]

    @property
    def cost(self) -> tuple[int, int]:
        return vcpu_cost(self.guest)

    @property
    def running(self) -> bool:
        return self._os_thread is not None and self._os_thread.is_alive()

    def start(self, name: str) -> None:
        if self._os_thread:
            self._os_thread.join()
        self.record.stop = 0
        RUN_PAGE.struct.from_address(self.page.address()).state = PageState.RUNNING
        thread = threading.Thread(target=self._main, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from None
        self._os_thread = thread

    def _main(self) -> None:
        native = self._native.serve if self.guest else self._native.tick
        self.thread = threading.get_ident()
        native(self.address)
        with self._leaving:
            self.thread = 0
        self._native.release(self.address)

    def nudge(self) -> None:
        # A thread that has ended must not be sent a signal: it cannot end while this one holds the lock.
        with self._leaving:
            if self.thread:
                signal.pthread_kill(self.thread, NUDGE)

    def ask_to_stop(self) -> None:
        self.record.stop = 1

    def stands(self) -> bool:
        """Whether it stands still, or does so within a moment."""
        if self._os_thread is None:
            return True
        self._os_thread.join(PATIENCE)
        return not self._os_thread.is_alive()

    def close(self) -> None:
        """Give everything back; it stands still."""
        self.owner = _NOBODY
        self.record.page = self.record.cursor = None
        for memory in self._memories:
            memory.close()
        # The last that knows of the mappings: they go with it.
        self._memories = ()
        if self.wake_fd >= 0:
            os.close(self.wake_fd)
        self.wake_fd = -1


class ServedVm:
    """A VM with served vCPUs. Any thread may call its methods; Rejected (S003) once it is closed."""

    def __init__(self, number: int, name: str, *, live: bool, rtc_base: int, exits_unclaimed: bool) -> None:
        self.number = number
        self.name = name
        self.vm = VM(live=live, rtc_base=rtc_base, exits_unclaimed=exits_unclaimed, vcpus=0)
        self.objects: dict[str, bytes] = {}
        self.engines: dict[str, str] = {}
        self.abandoned: set[str] = set()
        self._unanswered: dict[str, Counter[str]] = {}
        #: The notice of each signal, line or acknowledgement that writes an eventfd.
        self.notices: dict[tuple[str, str], int] = {}
        #: Memory, in bytes, and descriptors that it holds.
        self.cost = (0, 0)
        self.closed = False
        self.ticker: ServedVcpu | None = None
        self._lock = threading.RLock()
        if live:
            self.ticker = self._create(None, owner=_NOBODY, recorded=False, spins=0)
            self.cost = self.ticker.cost
            try:
                self.ticker.start(f"vm-{number}-timers")
            except OSError:
                self.close()
                raise

    @contextmanager
    def use(self) -> Iterator[VM]:
        """Nobody closes the VM meanwhile."""
        with self._lock:
            if self.closed:
                raise reject(errors.BAD_REQUEST, f"VM {self.number} has been destroyed")
            yield self.vm

    @property
    def vcpus(self) -> list[ServedVcpu]:
        """Those that are somebody's, and the thread of a live VM's timers."""
        every = [each for each in self.vm.vcpus if isinstance(each, ServedVcpu)]
        return [each for each in every if each.owner != _NOBODY or each is self.ticker]

    def share(self, descriptors: Sequence[int]) -> list[int]:
        """Duplicates of the VM's descriptors, the caller's to close: the VM may be closed before they go."""
        found: list[int] = []
        with self.use():
            try:
                found.extend(map(os.dup, descriptors))
            except OSError:
                close_all(found)
                raise
        return found

    def add_device(self, spec: DeviceSpec, object: bytes) -> Device:
        with self.use() as vm:
            device = vm.add_device(spec)
            self.objects[spec.name] = object
            return device

    def unanswered(self, name: str) -> Mapping[str, int]:
        """Accesses of a device that came to no handler, by why: the fields of `protocol.Unanswered`.

        The machine counts them, and no more. Those since the last look have the reason that holds now, so
        that there is a look before it changes; what comes in that moment may be given the reason before.
        """
        found = self._unanswered.setdefault(name, Counter())
        attached = "no_handler" if name in self.engines else "unloaded"
        why = "abandoned" if name in self.abandoned else attached
        found[why] += int(self.vm.device(name).ports.unanswered) - found.total()
        return found

    def attach(self, name: str, engine: str) -> None:
        with self.use() as vm:
            vm.attach(make_engine(engine), [name])
            self.unanswered(name)
            self.engines[name] = engine
            self.abandoned.discard(name)

    def detach(self, name: str) -> None:
        with self.use() as vm:
            vm.detach([name])
            self.unanswered(name)
            self.engines.pop(name, None)

    def replace(self, name: str, verified: VerifiedProgram, object: bytes, engine: str) -> None:
        with self.use() as vm:
            vm.replace(name, verified, make_engine(engine))
            self.unanswered(name)
            self.objects[name], self.engines[name] = object, engine
            self.abandoned.discard(name)

    def request(self, name: str, effects: Any) -> None:
        """Carry out effects of a device, eventfds included. Raises RuntimeError if there is no room."""
        with self.use() as vm, nudger().watching():
            vm.device(name).request(effects)

    def acknowledge(self, line: int) -> None:
        with self.use() as vm, nudger().watching():
            vm.acknowledge(line)

    def create_vcpu(self, guest: GuestMemory, *, owner: int, recorded: bool, spins: int) -> ServedVcpu:
        with self.use():
            return self._create(guest, owner=owner, recorded=recorded, spins=spins)

    def _create(self, guest: GuestMemory | None, *, owner: int, recorded: bool, spins: int) -> ServedVcpu:
        """A vCPU: one that somebody has left behind, or another one."""
        left = (each for each in self.vm.vcpus if isinstance(each, ServedVcpu) and each.owner == _NOBODY)
        vcpu = next((each for each in left if each is not self.ticker), None) or self.vm.create_vcpu(
            ServedVcpu
        )
        vcpu.prepare(guest, owner=owner, recorded=recorded, spins=spins)
        return vcpu

    def start(self, vcpu: ServedVcpu) -> None:
        with self.use():
            if vcpu.running and not vcpu.stands():
                raise reject(errors.BAD_REQUEST, f"vCPU {vcpu.index} is running")
            vcpu.start(f"vm-{self.number}-vcpu-{vcpu.index}")

    def stop(self, vcpus: Iterable[ServedVcpu]) -> None:
        """Stop vCPUs, and wait until they stand."""
        waiting = list(vcpus)
        while waiting:
            for each in waiting:
                each.ask_to_stop()
                each.nudge()
            # One that had just taken up a new map looks around at the next: until it stands, there is a next.
            with self._lock:
                self.vm.synchronise()
            waiting = [each for each in waiting if not each.stands()]

    def abandon(self, token: int) -> list[str]:
        """Let go of what a client that is gone has left in a VM that persists.

        Its vCPUs stop: nobody can answer their exits. Devices whose lock it holds are detached: they fall
        back until they are attached again. Their locks are free then, for other clients' models, and a change
        that was half done is theirs to mend. Their names are returned.
        """
        found: list[str] = []
        with suppress(Rejected), self.use() as vm:
            vcpus = [each for each in self.vcpus if each.owner == token]
            self.stop(vcpus)
            for vcpu in vcpus:
                self.cost = (self.cost[0] - vcpu.cost[0], self.cost[1] - vcpu.cost[1])
                vcpu.close()
            for device in vm.devices:
                if device.lock.holder == token:
                    self.detach(device.name)
                    device.lock.unlock()
                    self.abandoned.add(device.name)
                    found.append(device.name)
        return found

    def close(self) -> None:
        """Stop everything, and give all descriptors and memory back."""
        with self._lock:
            self.closed = True
        self.stop(self.vcpus)
        with self._lock:
            self.vm.close_notices()
            for vcpu in self.vcpus:
                vcpu.close()
            for device in self.vm.devices:
                device.area.close()
            # A device knows its VM: what they map would stay until a collector of garbage comes along.
            self.ticker = None
            self.vm.vcpus.clear()
            self.vm.devices.clear()


def vcpu_cost(guest: GuestMemory | None) -> tuple[int, int]:
    """Shared memory, in bytes, and descriptors of a vCPU; of a live VM's timers' thread for no guest."""
    if guest is None:
        return mmap.PAGESIZE, MAPPED_DESCRIPTORS + 1
    return mmap.PAGESIZE + guest.size, 2 * MAPPED_DESCRIPTORS + 1


def make_engine(name: str) -> Any:
    if name == "interp":
        from devbc.engines.native_interpreter import InterpreterEngine

        return InterpreterEngine()
    from devbc.engines.jit import JitEngine

    return JitEngine()
