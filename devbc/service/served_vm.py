"""A VM of the service: its vCPUs are threads in native code, its models are in a client.

A vCPU's thread holds no lock of the interpreter while it runs: handled exits, waking the client, waiting for
it and taking its answer are all native (`hypervisor/run_page.py`).

Not here: who may ask for what (`session.py`).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import threading
from collections.abc import Iterable
from typing import Any, Final

from devbc.hypervisor.device import Device, DeviceSpec
from devbc.hypervisor.layouts import CURSOR, RUN_PAGE, PageState
from devbc.hypervisor.scratch import sealed_memfd
from devbc.hypervisor.vcpu import VCpu
from devbc.hypervisor.vm import VM
from devbc.program.verified import VerifiedProgram
from devbc.service.guest_memory import GuestMemory

#: What gets a vCPU out of a write to an eventfd that its client lets block; `server.py` gives it a handler.
NUDGE: Final = signal.SIGUSR2
#: Seconds between two attempts to get a thread out of native code.
_PATIENCE: Final = 0.2


class SharedMemory:
    """A sealed memfd, mapped: memory that a client maps too."""

    def __init__(self, size: int, name: str) -> None:
        self.fd = sealed_memfd(size, name)
        self._map = mmap.mmap(self.fd, size)
        self._base = (ctypes.c_char * size).from_buffer(self._map)
        self.size = size

    def address(self, offset: int = 0) -> int:
        return ctypes.addressof(self._base) + offset

    def close(self) -> None:
        """Give the descriptor back; the mapping goes with the last that uses it."""
        os.close(self.fd)


class ServedVcpu(VCpu):
    """A vCPU whose thread is in native code, and whose userspace is behind a run page."""

    def prepare(self, guest: GuestMemory | None, *, recorded: bool, spins: int) -> None:
        """Give it its page, its eventfd and the guest's memory; None for the thread of a live VM's timers."""
        self.page = SharedMemory(mmap.PAGESIZE, "devbc-run-page")
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.memory = SharedMemory(guest.size, "devbc-guest") if guest else None
        self.guest = guest
        self.failed = False
        self._os_thread: threading.Thread | None = None
        record = self.record
        record.page, record.wake_fd, record.spins = self.page.address(), self.wake_fd, spins
        if guest and self.memory:
            self._cursor = CURSOR.struct(
                feed=self.memory.address(), mask=guest.capacity - 1, recorded=recorded,
                **{
                    part: self.memory.address(guest.offset(part)) if guest.offset(part) else None
                    for part in ("accesses", "outcomes", "answers", "ticks", "turns", "arguments")
                },
            )  # fmt: skip
            record.cursor = ctypes.addressof(self._cursor)

    @property
    def descriptors(self) -> list[int]:
        """What its client gets: page, eventfd, guest memory."""
        return [self.page.fd, self.wake_fd, *([self.memory.fd] if self.memory else [])]

    @property
    def running(self) -> bool:
        return self._os_thread is not None and self._os_thread.is_alive()

    def start(self, name: str) -> None:
        self.record.stop = 0
        RUN_PAGE.struct.from_address(self.page.address()).state = PageState.RUNNING
        self._os_thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._os_thread.start()

    def _main(self) -> None:
        native = self._native.serve if self.guest else self._native.tick
        self.thread = threading.get_ident()
        native(self.address)
        self.thread = 0
        self._native.release(self.address)

    def nudge(self) -> None:
        if self.running and self._os_thread and self._os_thread.ident:
            signal.pthread_kill(self._os_thread.ident, NUDGE)

    def ask_to_stop(self) -> None:
        self.record.stop = 1

    def join(self) -> None:
        """Wait until it stands; it was asked to stop, and the machine's epoch has moved since."""
        while self._os_thread and self._os_thread.is_alive():
            self._os_thread.join(_PATIENCE)
            self.nudge()

    def close(self) -> None:
        self.page.close()
        os.close(self.wake_fd)
        if self.memory:
            self.memory.close()


class ServedVm:
    """A VM with served vCPUs. Its methods may be called from any thread."""

    def __init__(self, number: int, name: str, *, live: bool, rtc_base: int, exits_unclaimed: bool) -> None:
        self.number = number
        self.name = name
        self.vm = VM(live=live, rtc_base=rtc_base, exits_unclaimed=exits_unclaimed, vcpus=0)
        self.objects: dict[str, bytes] = {}
        self.engines: dict[str, str] = {}
        self.abandoned: set[str] = set()
        self.lock = threading.RLock()
        self.closed = False
        self.ticker: ServedVcpu | None = None
        if live:
            self.ticker = self._create(None, recorded=False, spins=0)
            self.ticker.start(f"vm-{number}-timers")

    @property
    def vcpus(self) -> list[ServedVcpu]:
        return [each for each in self.vm.vcpus if isinstance(each, ServedVcpu)]

    def add_device(self, spec: DeviceSpec, object: bytes) -> Device:
        with self.lock:
            device = self.vm.add_device(spec)
            self.objects[spec.name] = object
            return device

    def attach(self, name: str, engine: str) -> None:
        with self.lock:
            self.vm.attach(make_engine(engine), [name])
            self.engines[name] = engine
            self.abandoned.discard(name)

    def detach(self, name: str) -> None:
        with self.lock:
            self.vm.detach([name])
            self.engines.pop(name, None)

    def replace(self, name: str, verified: VerifiedProgram, object: bytes, engine: str) -> None:
        with self.lock:
            self.vm.replace(name, verified, make_engine(engine))
            self.objects[name], self.engines[name] = object, engine

    def create_vcpu(self, guest: GuestMemory, *, recorded: bool, spins: int) -> ServedVcpu:
        with self.lock:
            return self._create(guest, recorded=recorded, spins=spins)

    def _create(self, guest: GuestMemory | None, *, recorded: bool, spins: int) -> ServedVcpu:
        vcpu = self.vm.create_vcpu(ServedVcpu)
        vcpu.prepare(guest, recorded=recorded, spins=spins)
        return vcpu

    def start(self, vcpu: ServedVcpu) -> None:
        with self.lock:
            if not self.closed:
                vcpu.start(f"vm-{self.number}-vcpu-{vcpu.index}")

    def stop(self, vcpus: Iterable[ServedVcpu]) -> None:
        """Stop vCPUs, and wait until they stand."""
        vcpus = list(vcpus)
        for each in vcpus:
            each.ask_to_stop()
        with self.lock:
            self.vm.synchronise()
        for each in vcpus:
            each.join()

    def abandon(self, token: int) -> list[str]:
        """Detach every device whose lock a client that is gone holds: they fall back until attached again."""
        found = []
        with self.lock:
            for device in self.vm.devices:
                if device.lock.holder == token:
                    self.detach(device.name)
                    self.abandoned.add(device.name)
                    found.append(device.name)
        return found

    def close(self) -> None:
        """Stop everything, and give all descriptors and memory back."""
        with self.lock:
            self.closed = True
        self.stop(self.vcpus)
        with self.lock:
            self.vm.close_notices()
            for vcpu in self.vcpus:
                vcpu.close()
            for device in self.vm.devices:
                device.area.close()


def make_engine(name: str) -> Any:
    if name == "interp":
        from devbc.engines.native_interpreter import InterpreterEngine

        return InterpreterEngine()
    from devbc.engines.jit import JitEngine

    return JitEngine()
