"""Benchmark `scale`: exits per second against vCPUs and VMs, and the cost of one against registers attached.

Threads are pinned, in turn, to the CPUs there are. They read the PM timer, a pure handler, as vCPUs of one VM
or as VMs: on the host's clock, as a guest does, which takes no lock and writes nothing that others read; and
on the virtual clock, which is one number that every access moves. Then vCPUs ring a virtio doorbell, whose
handler writes and takes its device's lock: one doorbell for all, and one each. Who finds the lock taken goes
to the userspace model, which waits for it.

Registers are handlers of their own, each with its entry in the dispatch table; they are read in random
order (caches and predictors see them all), and one alone while the others are attached.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter_ns
from typing import Any, Final

from bench.mechanisms import packed
from bench.runner import Bench, Competitor, Work, cpus, pinned
from bench.subjects import NOW, PLACES, Subject, subject, verified
from devbc.catalog import model_of
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import ACCESS, Outcome
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM
from devbc.program.verified import VerifiedProgram

NAME: Final = "scale"

VCPUS: Final = "vCPUs of one VM"
VIRTUAL: Final = "vCPUs of one VM, virtual clock"
VMS: Final = "VMs, a vCPU each"
ONE_DEVICE: Final = "vCPUs that ring one doorbell"
OWN_DEVICES: Final = "vCPUs that ring a doorbell each"
THREADS: Final = (VCPUS, VMS, VIRTUAL, ONE_DEVICE, OWN_DEVICES)
RATE: Final = "M exits/s"
CONTENDED: Final = "lock taken"
REGISTERS: Final = "registers attached"
HOT: Final = "one register is read"
RANDOM: Final = "all are read, in random order"

_REGISTER_COUNTS: Final = (1, 10, 100, 1_000, 10_000)
_PER_DEVICE: Final = 100
_BASE: Final = 0x4000_0000
_ACCESSES: Final = 1 << 15
_TINY_ACCESSES: Final = 1 << 8
#: Of a thread over its accesses: threads that do not start at one moment still run beside each other.
_PASSES: Final = 8
#: Between devices of one kind, in ports and in memory.
_APART: Final = 0x1000


def run(bench: Bench) -> None:
    tiny = bench.effort.repetitions == 1
    accesses = _TINY_ACCESSES if tiny else 1 << 16
    counts = [1, 2] if tiny else sorted({1, 2, 4, 8, len(cpus())})
    timer, doorbell = subject("PM timer read"), subject("virtio doorbell")
    machines: dict[str, Callable[[int], list[_Runner]]] = {
        VCPUS: lambda count: _machines(timer, count, accesses, live=True),
        VMS: lambda count: _machines(timer, 1, accesses, live=True, vms=count),
        VIRTUAL: lambda count: _machines(timer, count, accesses),
        ONE_DEVICE: lambda count: _machines(doorbell, count, accesses, live=True),
        OWN_DEVICES: lambda count: _machines(doorbell, count, accesses, live=True, devices=count),
    }
    with pinned(cpus()):
        for name, make in machines.items():
            _throughput(bench, name, counts, make)
    with pinned(cpus()[:1]):
        _registers(
            bench, _REGISTER_COUNTS[:3] if tiny else _REGISTER_COUNTS, _TINY_ACCESSES if tiny else _ACCESSES
        )


# Throughput of threads.


@dataclass
class _Runner:
    """A vCPU with its accesses: `start` and `end` of its last passes, exits that found the lock taken."""

    vm: VM
    vcpu: int
    run: Run
    start: int = 0
    end: int = 0
    contended: int = 0

    @property
    def exits(self) -> int:
        return _PASSES * self.run.count

    def __call__(self) -> None:
        self.contended = 0
        self.start = perf_counter_ns()
        for _ in range(_PASSES):
            self.run.cursor.index = 0
            self.vm.run(self.run, self.vcpu)
            self.contended += self.run.outcomes.count(Outcome.CONTENDED)
        self.end = perf_counter_ns()


def _throughput(bench: Bench, name: str, counts: Sequence[int], make: Callable[[int], list[_Runner]]) -> None:
    """Millions of exits a second of so many threads, from the first's start to the last's end."""
    bench.tell(f"{bench.name}: {name}")
    ready = {count: make(count) for count in counts}
    rates: dict[int, list[float]] = {count: [] for count in counts}
    shares: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(-bench.effort.warmups, max(1, bench.effort.slow)):
        for count, runners in ready.items():
            _together(runners)
            if number >= 0:
                exits = sum(each.exits for each in runners)
                ns = max(each.end for each in runners) - min(each.start for each in runners)
                rates[count].append(exits / ns * 1e3)
                shares[count].append(100 * sum(each.contended for each in runners) / exits)
    for count, runners in ready.items():
        assert {*runners[0].run.outcomes} <= {Outcome.HANDLED, Outcome.CONTENDED}
        note = "more threads than CPUs" if count > len(cpus()) else ""
        batch = sum(each.exits for each in runners)
        bench.add(name, f"{count}", RATE, rates[count], x=float(count), batch=batch, note=note)
        if name in (ONE_DEVICE, OWN_DEVICES):
            bench.add(name, f"{count}, {CONTENDED}", "%", shares[count], batch=batch, note=note)


def _together(runners: Sequence[_Runner]) -> None:
    """Run them at the same time, a thread each, each pinned to a CPU."""
    barrier, places = threading.Barrier(len(runners)), cpus()

    def main(runner: _Runner, cpu: int) -> None:
        os.sched_setaffinity(0, [cpu])
        barrier.wait()
        runner()

    threads = [
        threading.Thread(target=main, args=(runner, places[number % len(places)]))
        for number, runner in enumerate(runners)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _machines(
    subject: Subject, vcpus: int, accesses: int, *, live: bool = False, vms: int = 1, devices: int = 1
) -> list[_Runner]:
    """VMs with vCPUs on one subject; of several devices, each vCPU has one to itself."""
    found = []
    for _ in range(vms):
        at = PLACES[subject.device]
        specs = [
            DeviceSpec(
                f"device{number}", verified(subject.device, "v4"), model_of(subject.device),
                {bank: base + _APART * number for bank, base in at.items()},
            )
            for number in range(devices)
        ]  # fmt: skip
        vm = VM(specs, vcpus=vcpus, live=live)
        if not live:
            vm.clock.now_ns = NOW
        vm.attach(_jit())
        for device in vm.devices:
            subject.prepare(device.area.view)
        for vcpu in range(vcpus):
            run = Run(packed(subject, accesses, _APART * (vcpu % devices)), recorded=False, timed=False)
            found.append(_Runner(vm, vcpu, run))
    return found


@cache
def _jit() -> Any:
    from devbc.engines.jit import JitEngine

    return JitEngine()


# Registers.


def _registers(bench: Bench, counts: Sequence[int], accesses: int) -> None:
    competitors = []
    for count in counts:
        vm = VM([*_devices(count)])
        vm.attach(_jit())
        for name, addresses in (
            (HOT, [_address(count // 2)]),
            (RANDOM, [_address(each) for each in range(count)]),
        ):
            competitors.append(
                Competitor(f"{name}, {count:,}", _read(vm, addresses, accesses), group=name, x=float(count))
            )
    bench.compete(REGISTERS, competitors)


def _devices(count: int) -> Iterator[DeviceSpec]:
    """Devices of up to a hundred registers each, all of one program."""
    each = min(count, _PER_DEVICE)
    program = _program(each)
    for number in range(count // each):
        yield DeviceSpec(f"device{number}", program, None, {"mmio": _BASE + number * 0x1000})


def _address(register: int) -> int:
    device, index = divmod(register, _PER_DEVICE)
    return _BASE + device * 0x1000 + 4 * index


@cache
def _program(registers: int) -> VerifiedProgram:
    """A device whose registers each say which they are."""
    from devbc.program.elf import load_object
    from devbc.verifier import verify_program
    from devbc_lang import compile_source

    rows = "\n".join(
        f"        register r{index} at {4 * index:#x} : u32 {{ read {{ return {index + 1}; }} }}"
        for index in range(registers)
    )
    text = f"device many {{\n    bank mmio[0x1000] {{\n{rows}\n    }}\n}}\n"
    return verify_program(load_object(compile_source(text, "many.dev").object, name="many"))


def _read(vm: VM, addresses: Sequence[int], accesses: int) -> Work:
    chosen = random.Random(1).choices(addresses, k=accesses)
    run = Run(
        b"".join(ACCESS.packer.pack(0, 0, each, 1, 0, 2, 0, 0) for each in chosen),
        recorded=False,
        timed=False,
    )

    def work(count: int) -> float:
        total, rounds = 0, -(-count // accesses)
        for _ in range(rounds):
            run.cursor.index = 0
            start = perf_counter_ns()
            vm.run(run)
            total += perf_counter_ns() - start
        return total * count / (rounds * accesses)

    work(1)
    assert set(run.outcomes) == {Outcome.HANDLED}
    assert list(run.answers[:99]) == [each % 0x1000 // 4 + 1 for each in chosen[:99]]
    return work
