"""Clients of a stress test: processes that load, replace and unload programs while their vCPUs run.

Every value that comes back is checked, whatever the program, engine or model that answered: a guest counts,
and no step may be lost or done twice. A client ends with an exception if one is wrong, if the service refuses
what it must not refuse, or if it takes longer than `PATIENCE` seconds to answer.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from devbc.client import Hypervisor, connect
from devbc.client.models import Models
from devbc.diagnostics import Rejected
from tests.service.probe import (
    BASE,
    KEEP,
    MOVE,
    RING,
    STEP,
    VALUE,
    ProbeModel,
    answers,
    probe,
    read,
    vm_with_probe,
    write,
)  # fmt: skip

#: Seconds that a request of a well-behaved client may take on a machine that is busy.
PATIENCE = 10.0
_BATCH = 512


@dataclass
class Client:
    """One client: its connection, what it decides by, and what it has checked."""

    hypervisor: Hypervisor
    source: random.Random
    checked: int = 0
    slowest: float = 0.0
    rounds: list[str] = field(default_factory=list)

    def counting(self) -> None:
        """A guest counts while programs come and go; the exits that nobody takes are the model's."""
        vm, device = vm_with_probe(self.hypervisor, engine=None)
        models = Models(vm, {"probe": ProbeModel})
        vcpu = vm.create_vcpu(_BATCH, spins=self.source.choice((0, 500)))
        done = threading.Event()
        errors: list[BaseException] = []
        changes: list[Callable[[], None]] = [
            device.attach,
            device.detach,
            lambda: device.attach("interp"),
            lambda: device.replace(probe()),
            lambda: device.replace(probe(), engine="interp"),
        ]

        def change() -> None:
            try:
                while not done.is_set():
                    self.timed(self.source.choice(changes))
                    time.sleep(self.source.random() / 100)
            except BaseException as error:
                errors.append(error)

        changer = threading.Thread(target=change)
        changer.start()
        try:
            for batch in range(self.source.randrange(5, 40)):
                found = answers(vcpu, read(STEP) * _BATCH, models)
                first = batch * _BATCH + 1
                assert found == [*range(first, first + _BATCH)], "a step was lost, or done twice"
                self.checked += len(found)
        finally:
            done.set()
            changer.join()
        if errors:
            raise errors[0]
        if self.source.random() < 0.5:
            self.timed(vm.destroy)

    def endless(self) -> None:
        """Several vCPUs that run without end, stopped or not; signals and lines that write eventfds."""
        vm, device = vm_with_probe(self.hypervisor, live=self.source.random() < 0.5)
        event = os.eventfd(0)
        try:
            device.notify_signal("bell", event)
            device.notify_line("irq", event)
            vm.wire("probe.irq", "guest.1")
            for _ in range(2):
                vcpu = vm.create_vcpu(8)
                vcpu.feed((write(RING, 5) + write(MOVE, 1) + read(VALUE) + write(MOVE, 0)) * 2)
                vcpu._feed.tail = 1 << 62
                vcpu.start()
            for _ in range(self.source.randrange(3)):
                time.sleep(self.source.random() / 50)
                self.timed(device.replace, probe(self.source.randrange(1, 5)))
                self.timed(device.notify_signal, "bell", event)
            if self.source.random() < 0.5:
                self.timed(vm.vcpus[0].stop)
            self.timed(vm.destroy)
        finally:
            os.close(event)

    def holding(self) -> None:
        """Hold the lock of a device, its guest at an exit, for a while: a good moment to be killed."""
        vm, device = vm_with_probe(self.hypervisor)
        vcpu = vm.create_vcpu(8)
        vcpu.feed(read(KEEP))
        exits = vcpu.run()
        next(exits)
        with device.lock:
            time.sleep(self.source.random() / 10)
        vcpu.answer()
        assert [*exits] == []
        self.timed(vm.destroy)

    def inheriting(self) -> None:
        """A VM that persists: whoever comes holds its lock for a while, and puts right what others left."""
        name = f"kept-{self.source.randrange(3)}"
        try:
            vm = self.hypervisor.open_vm(name)
            device = vm.device("probe")
        except (Rejected, KeyError):
            try:
                vm, device = vm_with_probe(self.hypervisor, name, persists=True)
            except Rejected:
                return  # another was first
        try:
            with device.lock:
                value = device.scratch.value
                time.sleep(self.source.random() / 50)
                device.scratch.value = value
            device.attach()
            answers(vm.create_vcpu(8), read(VALUE) + write(VALUE, 3))
            if self.source.random() < 0.3:
                vm.destroy()
        except (Rejected, TimeoutError):
            return  # destroyed by another, or all its vCPUs taken
        except AssertionError:
            # A run ends early if another destroys the VM under it, and for no other reason.
            if any(each.vm == vm.number for each in self.hypervisor.vms()):
                raise

    def loading(self) -> None:
        """Devices that are added one after the other, wired, and thrown away together."""
        vm = self.hypervisor.create_vm()
        for number in range(self.source.randrange(1, 6)):
            device = vm.add_device(f"d{number}", probe(number + 1), {"pio": BASE + 0x100 * number})
            self.timed(device.attach)
            if number:
                vm.wire(f"d{number - 1}.irq", f"d{number}.in0")
        vcpu = vm.create_vcpu(8)
        assert answers(vcpu, read(STEP) * 3) == [1, 2, 3]
        self.checked += 3
        vm.destroy()

    def timed(self, act: Callable[..., None], *arguments: object) -> None:
        begin = time.monotonic()
        act(*arguments)
        self.slowest = max(self.slowest, time.monotonic() - begin)
        assert self.slowest < PATIENCE, f"a request took {self.slowest:.1f} s"

    def play(self, until: float, parts: tuple[str, ...]) -> None:
        while time.monotonic() < until:
            part = self.source.choice(parts)
            self.rounds.append(part)
            getattr(self, part)()


GOOD = ("counting", "counting", "loading", "endless")
VICTIM = ("counting", "endless", "holding", "inheriting", "loading")


def spawn(socket: Path, seed: int, until: float, parts: tuple[str, ...], report: Path) -> int:
    """A client in a process of its own; its report is written when it ends by itself."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # Each with a connection of its own, some with several VMs on it when they are killed.
        client = Client(connect(socket, name=f"stress-{seed}"), random.Random(seed))
        limit = time.monotonic() + 40
        try:
            while time.monotonic() < until:
                client.play(min(until, time.monotonic() + 1), parts)
                client.hypervisor.close()
                client.hypervisor = connect(socket, name=f"stress-{seed}")
        finally:
            client.hypervisor.close()
        assert time.monotonic() < max(limit, until + PATIENCE)
        report.write_text(f"{client.checked} {client.slowest:.3f} {len(client.rounds)}")
        code = 0
    except BaseException:
        traceback.print_exc()
        report.with_suffix(".error").write_text(traceback.format_exc())
    finally:
        os._exit(code)
    return 0


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
