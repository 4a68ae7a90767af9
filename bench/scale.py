"""Benchmark `scale`: exits per second against vCPUs and VMs, and the cost of one against registers attached.

vCPUs are threads of one VM that read the PM timer, a pure handler: no lock, nothing shared is written.
Registers are handlers of their own, each with its entry in the dispatch table; they are read in random
order (caches and predictors see them all), and one alone while the others are attached. VMs run a thread
each.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from time import perf_counter_ns
from typing import Any, Final

from bench.mechanisms import PLACES, packed
from bench.runner import Bench, Competitor, Work, cpus, pinned
from bench.subjects import NOW, subject, verified
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import ACCESS, Outcome
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM
from devbc.program.verified import VerifiedProgram

NAME: Final = "scale"

VCPUS: Final = "vCPUs of one VM"
VMS: Final = "VMs, a vCPU each"
REGISTERS: Final = "registers attached"
HOT: Final = "one register is read"
RANDOM: Final = "all are read, in random order"

_REGISTER_COUNTS: Final = (1, 10, 100, 1_000, 10_000)
_PER_DEVICE: Final = 100
_BASE: Final = 0x4000_0000
_ACCESSES: Final = 1 << 15
_TINY_ACCESSES: Final = 1 << 8


def run(bench: Bench) -> None:
    tiny = bench.effort.repetitions == 1
    accesses = _TINY_ACCESSES if tiny else 1 << 18
    with pinned(cpus()):
        counts = [1, 2] if tiny else sorted({1, 2, 4, 8, len(cpus())})
        _throughput(bench, VCPUS, counts, accesses, _one_vm)
        _throughput(bench, VMS, counts if tiny else [*counts, 16], accesses, _many_vms)
    with pinned(cpus()[:1]):
        _registers(
            bench, _REGISTER_COUNTS[:3] if tiny else _REGISTER_COUNTS, _TINY_ACCESSES if tiny else _ACCESSES
        )


# Throughput of threads.


def _throughput(
    bench: Bench,
    name: str,
    counts: Sequence[int],
    accesses: int,
    make: Callable[[int, int], list[Callable[[], None]]],
) -> None:
    """Millions of exits a second of so many threads, from the first's start to the last's end."""
    bench.tell(f"{bench.name}: {name}")
    ready = {count: make(count, accesses) for count in counts}
    samples: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(-bench.effort.warmups, max(1, bench.effort.slow)):
        for count, runs in ready.items():
            ns = _together(runs)
            if number >= 0:
                samples[count].append(count * accesses / ns * 1e3)
    for count in counts:
        note = "more threads than CPUs" if count > len(cpus()) else ""
        bench.add(
            name, f"{count}", "M exits/s", samples[count], x=float(count), batch=count * accesses, note=note
        )


def _together(runs: Sequence[Callable[[], None]]) -> float:
    """ns that the runs take at the same time, a thread each."""
    barrier = threading.Barrier(len(runs) + 1)
    ends = [0] * len(runs)

    def main(number: int, run: Callable[[], None]) -> None:
        barrier.wait()
        run()
        ends[number] = perf_counter_ns()

    threads = [threading.Thread(target=main, args=each) for each in enumerate(runs)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = perf_counter_ns()
    for thread in threads:
        thread.join()
    return float(max(ends) - start)


def _one_vm(count: int, accesses: int) -> list[Callable[[], None]]:
    vm = _vm(count)
    return [_runner(vm, index, accesses) for index in range(count)]


def _many_vms(count: int, accesses: int) -> list[Callable[[], None]]:
    return [_runner(_vm(1), 0, accesses) for _ in range(count)]


def _vm(vcpus: int) -> VM:
    timer = subject("PM timer read")
    vm = VM([DeviceSpec("timer", verified(timer.device, "v4"), None, PLACES[timer.device])], vcpus=vcpus)
    vm.clock.now_ns = NOW
    vm.attach(_jit())
    return vm


def _runner(vm: VM, vcpu: int, accesses: int) -> Callable[[], None]:
    run = Run(packed(subject("PM timer read"), accesses), recorded=False)

    def go() -> None:
        run.cursor.index = 0
        vm.run(run, vcpu)

    return go


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
    run = Run(b"".join(ACCESS.packer.pack(0, 0, each, 1, 0, 2, 0, 0) for each in chosen), recorded=False)

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
