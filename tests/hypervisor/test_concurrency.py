"""Several vCPUs at once, each in a thread of its own: nothing is lost, and who answers may change meanwhile.

What is counted here is exact: every access, line change, signal and timer of every vCPU arrives once.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import time
import weakref
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from devbc.abi import Op, Space
from devbc.catalog import load_machine
from devbc.diagnostics import Rejected
from devbc.engines.clock import ClockKind
from devbc.engines.engine import Engine
from devbc.engines.jit import JitEngine
from devbc.engines.native_interpreter import InterpreterEngine
from devbc.guests.recording import Recording, read_recording
from devbc.hypervisor.bus import kind_of
from devbc.hypervisor.layouts import ACCESS, DEVICE, MISMATCH, OFFLINE, Outcome
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM
from devbc.hypervisor.wiring import WireSpec
from tests.hypervisor.machines import Body, Callbacks, RecordingModel, device
from tests.hypervisor.torture import SECONDS, accesses, batch, hypercalls, run_threads, spec, verified
from tests.shared import shared

PIO, MMIO, READ, WRITE = Space.PIO, Space.MMIO, Op.READ, Op.WRITE
GoOn = Callable[[], bool]


# What models are told.


def test_a_signal_that_comes_while_another_is_fetched_is_not_lost() -> None:
    """One vCPU signals at the moment when another, on its way to the model, looks at what there is."""
    bodies = {f"pio/write@{number:#x}:1": signals(1 << 3 * number) for number in range(2)}
    vm = VM([device("dev", list(bodies), 0x40)], vcpus=2)
    vm.attach(Callbacks(bodies))
    (dev,) = vm.devices
    overtaken: list[int] = []

    class Ports(DEVICE.struct):  # type: ignore[misc, name-defined]
        @property
        def signals(self) -> int:
            found = int(DEVICE.struct.signals.__get__(self))
            if found and not overtaken:
                overtaken.append(found)
                vm.vcpus[1].run(batch(accesses(PIO, WRITE, 0x41, 1), 1), lambda *_: None)
            return found

        @signals.setter
        def signals(self, value: int) -> None:
            DEVICE.struct.signals.__set__(self, value)

    dev.ports = Ports.from_address(ctypes.addressof(dev.ports))
    vm.access(PIO, WRITE, 0x40, 1, time=1)
    vm.access(PIO, READ, 0x4F, 1, time=2)
    model: Any = dev.model
    assert [name for kind, name, *_ in model.seen if kind == "signal"] == ["bell", "tx"]


def signals(mask: int) -> Body:
    def body(exit_: Any, _: Any) -> bool:
        exit_.signal = mask
        return True

    return body


def test_a_model_tells_the_time_that_programs_tell() -> None:
    """Also when the counter's rate, as it was measured, is wrong."""
    source = "device watch { bank mmio[8] { register t at 0 : u64 { read { return now(); } } } }"
    vm = VM([spec("watch", source, RecordingModel, {"mmio": 0})], live=True)
    if vm.clock.kind != ClockKind.TSC:
        pytest.skip("the host's clock is not computed")
    vm.attach(JitEngine())
    vm.clock.mult = vm.clock.mult // 100 * 101
    for _ in range(5):
        time.sleep(0.01)
        before = vm.now()
        assert before <= vm.access(MMIO, READ, 0, 8) <= vm.now()


def test_a_device_is_reset_before_the_guest_finds_it() -> None:
    """While it is added to a machine that runs: nobody answers, or a model that has been reset."""

    class Slow(RecordingModel):
        ready = False

        def reset(self) -> None:
            self.host.raise_line("out")
            time.sleep(0.02)
            self.ready = True

        def read(self, bank: str, offset: int, size: int) -> int:
            self.host.lower_line("out")
            return 1 if self.ready else 0

    vm = VM([device("first", [], 0x40)], vcpus=2)
    answers: set[int] = set()
    late = replace(device("late", [], 0x80), model=Slow)
    run = batch(accesses(PIO, READ, 0x80, 1), 1_000_000)

    def guest(go_on: GoOn) -> None:
        vm.run(run, vcpu=1)
        answers.update(run.answers)
        while 1 not in answers and go_on():
            answers.add(vm.access(PIO, READ, 0x80, 1))

    def monitor(_: GoOn) -> None:
        while vm.vcpus[1].record.epoch == OFFLINE:
            time.sleep(0)
        vm.add_device(late)

    run_threads(10, guest, monitor)
    assert answers == {0xFF, 1}


def test_a_device_whose_reset_fails_was_never_there() -> None:
    """Also what it had asked for before it failed: a line, a timer."""

    class Faulty(RecordingModel):
        def reset(self) -> None:
            self.host.raise_line("out")
            self.host.arm("t0", 10)
            raise ValueError("no")

    vm = VM([device("first", [], 0x40)])
    with pytest.raises(Rejected):
        vm.add_device(replace(device("late", [], 0x80), model=Faulty))
    assert [each.name for each in vm.devices] == ["first"]
    assert vm.find(PIO, 0x80) is None
    late = vm.add_device(device("late", [], 0x80))
    assert late.ports.levels == 0
    assert vm.access(PIO, READ, 0x80, 1, time=20) == 0x5A
    assert [each[0] for each in late.model.seen] == ["read"]  # type: ignore[union-attr]


# Who answers.


KEYED = """
device keyed {{
    state {{ key: u64 }}
    bank mmio[0x10] {{
        register answer at 0 : u64 {{ read {{ return {answer}; }} }}
        register other at 8 : u64 {{ read {{ return {answer} + 1; }} }}
    }}
}}
"""


class Keyed(RecordingModel):
    def reset(self) -> None:
        self.scratch.key = 0x1234_5678

    def read(self, bank: str, offset: int, size: int) -> int:
        return int(self.scratch.key) * 3 + (offset == 8)


@pytest.mark.parametrize("seconds", SECONDS)
def test_who_answers_changes_all_the_time_and_the_answer_never(seconds: float) -> None:
    """Programs are attached, detached and replaced under running vCPUs. Of what is replaced nothing stays."""
    sources = [KEYED.format(answer=text) for text in ("state.key * 3", "(state.key << 1) + state.key")]
    programs = [verified(source) for source in sources]
    engines: tuple[Engine, ...] = (JitEngine(), InterpreterEngine())
    vm = VM([spec("keyed", sources[0], Keyed, {"mmio": 0})], vcpus=3)
    (keyed,) = vm.devices
    gone: list[weakref.ref[Any]] = []
    wanted = array("Q", [0x1234_5678 * 3, 0x1234_5678 * 3 + 1] * 5_000)
    outcomes = [bytearray(6) for _ in range(2)]

    def guest(number: int) -> Callable[[GoOn], None]:
        def body(go_on: GoOn) -> None:
            run = batch(accesses(MMIO, READ, 0, 8) + accesses(MMIO, READ, 8, 8), 5_000)
            while go_on() and not done.is_set():
                run.cursor.index = 0
                vm.run(run, vcpu=number)
                assert run.answers == wanted
                for outcome in {*run.outcomes}:
                    outcomes[number][outcome] = 1

        return body

    def seen_enough() -> bool:
        """Each vCPU has met programs and models, and many changes; a busy machine takes its time over it."""
        both = all(each[Outcome.HANDLED] and each[Outcome.NO_PROGRAM] for each in outcomes)
        return time.monotonic() > start + seconds and len(gone) > 20 and both

    def monitor(go_on: GoOn) -> None:
        random = Random(4)
        while go_on() and not seen_enough():
            match random.randrange(3):
                case 0:
                    vm.attach(random.choice(engines))
                case 1:
                    vm.detach(["keyed"])
                case 2:
                    vm.replace("keyed", random.choice(programs), random.choice(engines))
            gone.append(weakref.ref(vm._versions.current))
            if keyed.installed:
                gone.append(weakref.ref(keyed.installed))
                gone.append(weakref.ref(keyed.installed._loaded))
            time.sleep(random.random() * 2e-3)
        done.set()

    start, done = time.monotonic(), threading.Event()
    run_threads(seconds + 60, guest(0), guest(1), monitor)
    assert seen_enough()
    vm.detach(["keyed"])
    gc.collect()
    assert [each() for each in gone if each() is not None] == []


# Lines and timers.


PULSE = """
device pulser {
    line out;
    bank pio[1] { register pulse at 0 : u8 { write(v) { pulse out; } } }
}
"""
HEAR = """
device hearer {
    input hear;
    line out;
    state { rises: u64, falls: u64 }
    on hear(level) {
        if level { state.rises += 1; raise out; } else { state.falls += 1; lower out; }
    }
}
"""


class Pulser(RecordingModel):
    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        self.host.raise_line("out")
        self.host.lower_line("out")


class Hearer(RecordingModel):
    def line(self, name: str, level: int) -> None:
        if level:
            self.scratch.rises += 1
            self.host.raise_line("out")
        else:
            self.scratch.falls += 1
            self.host.lower_line("out")


def test_every_edge_of_every_vcpu_arrives_once() -> None:
    """Three vCPUs pulse lines of their own and one that they share; each through a device to the guest."""
    vcpus, count = 3, 20_000
    names = [*(f"own{number}" for number in range(vcpus)), "shared"]
    devices = [spec(name, PULSE, Pulser, {"pio": port}) for port, name in enumerate(names)]
    devices += [spec(f"after_{name}", HEAR, Hearer, {}) for name in names]
    wires = [WireSpec(name, "out", f"after_{name}", "hear") for name in names]
    wires += [WireSpec(f"after_{name}", "out", guest=line) for line, name in enumerate(names)]
    vm = VM(devices, wires, vcpus=vcpus)
    vm.attach(JitEngine())

    def guest(number: int) -> Callable[[GoOn], None]:
        both = accesses(PIO, WRITE, number, 1) + accesses(PIO, WRITE, vcpus, 1)
        return lambda _: vm.run(batch(both, count), vcpu=number)

    run_threads(0, *(guest(number) for number in range(vcpus)))
    for number, name in enumerate(names):
        pulses = count if number < vcpus else vcpus * count
        area = vm.device(f"after_{name}").area.view
        assert (area.rises, area.falls) == (pulses, pulses), name
    assert (vm.guest_interrupts, vm.guest_lines) == (2 * vcpus * count, 0)


TICKER = """
device ticker {
    const PERIOD: u64 = 1_000;
    line irq;
    timer tick;
    state { ticks: u64, last: u64, wrong: u64 }
    bank pio[1] { register start at 0 : u8 {
        write(v) {
            let at = now();
            state.last = at;
            arm tick at at + PERIOD;
        }
    } }
    on tick(deadline) {
        if deadline != state.last + PERIOD { state.wrong += 1; }
        state.last = deadline;
        state.ticks += 1;
        arm tick at deadline + PERIOD;
        pulse irq;
    }
}
"""


class Ticker(RecordingModel):
    def timer(self, name: str, deadline: int) -> None:
        s = self.scratch
        s.wrong += deadline != s.last + 1_000
        s.last, s.ticks = deadline, s.ticks + 1
        self.host.arm("tick", deadline + 1_000)
        self.host.raise_line("irq")
        self.host.lower_line("irq")


def test_no_timer_is_lost_or_runs_twice_while_vcpus_move_the_clock() -> None:
    """Each goes through the same stretch of time in steps of its own."""
    vm = VM([spec("ticker", TICKER, Ticker, {"pio": 0})], [WireSpec("ticker", "irq", guest=0)], vcpus=3)
    vm.attach(JitEngine())
    vm.access(PIO, WRITE, 0, 1, time=500)
    end = 20_000_500

    def guest(number: int) -> Callable[[GoOn], None]:
        where = (0x100, kind_of(PIO), 0, 0)
        times = range(500, end + 1, (701, 997, 1_009)[number])
        packed = b"".join(ACCESS.packer.pack(time, 0, *where, 0, number) for time in times)
        return lambda _: vm.run(Run(packed, recorded=False), vcpu=number)

    run_threads(0, *(guest(number) for number in range(3)))
    vm.access(PIO, READ, 0x100, 1, time=end)
    area = vm.devices[0].area.view
    assert (area.ticks, area.wrong, vm.guest_interrupts) == (20_000, 0, 20_000)


@pytest.mark.parametrize("timed", [True, False])
def test_timers_of_a_running_clock_are_never_early_and_never_skipped(timed: bool) -> None:
    ticker, wire = spec("ticker", TICKER, Ticker, {"pio": 0}), WireSpec("ticker", "irq", guest=0)
    vm = VM([ticker], [wire], live=True, vcpus=3)
    vm.attach(JitEngine())
    vm.access(PIO, WRITE, 0, 1)
    area = vm.devices[0].area.view
    started = area.last

    def guest(number: int) -> Callable[[GoOn], None]:
        def body(go_on: GoOn) -> None:
            while go_on():
                vm.run(batch(accesses(PIO, READ, 0x100, 1), 5_000, timed=timed), vcpu=number)
                assert area.last <= vm.now()

        return body

    run_threads(0.5, *(guest(number) for number in range(3)))
    assert area.wrong == 0
    assert area.ticks == vm.guest_interrupts == (area.last - started) // 1_000 > 100


# Recordings, and calls.


def replayed(recording: Recording, vcpus: int, seed: int, burst: int) -> list[Run]:
    """A recording's accesses on several vCPUs, in its order; who is next is drawn, for up to `burst`."""
    random = Random(seed)
    devices, wires = load_machine("pc")
    vm = VM(devices, wires, rtc_base=recording.rtc_base, vcpus=vcpus)
    vm.attach(JitEngine())
    packed = [bytearray() for _ in range(vcpus)]
    turns = [array("Q") for _ in range(vcpus)]
    start = 0
    while start < len(recording):
        end = min(start + random.randint(1, burst), len(recording))
        vcpu = random.randrange(vcpus)
        packed[vcpu] += recording.accesses[start * ACCESS.size : end * ACCESS.size]
        turns[vcpu].extend(range(start, end))
        start = end
    runs = [Run(part, turns=turn) for part, turn in zip(packed, turns, strict=True)]

    def guest(number: int) -> Callable[[GoOn], None]:
        return lambda _: vm.run(runs[number], vcpu=number)

    run_threads(0, *(guest(number) for number in range(vcpus)))
    return runs


def held_to_the_recording(runs: list[Run], recording: Recording) -> None:
    assert sum(run.done for run in runs) == len(recording)
    assert not any(outcome & MISMATCH for run in runs for outcome in {*run.outcomes})
    handled = sum(run.outcomes.count(Outcome.HANDLED) for run in runs)
    assert handled > 0.8 * len(recording)


@pytest.mark.parametrize("vcpus", [2, pytest.param(4, marks=pytest.mark.long)])
def test_a_boot_that_is_split_over_vcpus_reads_what_was_recorded(vcpus: int) -> None:
    recording = read_recording(Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz")
    held_to_the_recording(replayed(recording, vcpus, vcpus, 1_000), recording)


@pytest.mark.parametrize("name", ["pit-1", "rtc-1", "pmtimer-1", "hpet-1", "uart-1"])
@pytest.mark.parametrize("vcpus", [2, 3, 4])
def test_random_programming_that_is_split_over_vcpus(name: str, vcpus: int) -> None:
    recording = read_recording(shared(f"traces/random/{name}.tsv.gz"))
    held_to_the_recording(replayed(recording, vcpus, vcpus, 30), recording)


CALLED = """
device called {
    state { total: u64 }
    hypercall 0 add(n: u32) -> u64 { state.total += u64(n); return state.total; }
    hypercall 1 fault(n: i32) -> i32 {
        if n < 0 { return -22; }
        decline;
    }
    bank pio[8] { register total at 0 : u64 call read 2 { read { return state.total; } } }
}
"""


class Called(RecordingModel):
    def call(self, number: int, arguments: tuple[int, ...]) -> int:
        self.seen.append((number, *arguments))
        if number == 0:
            self.scratch.total += arguments[0] & 0xFFFF_FFFF
            return int(self.scratch.total)
        return -38


MINUS = 1 << 64


def called(vcpus: int = 1) -> VM:
    vm = VM([spec("called", CALLED, Called, {"hypercall": 0x100, "pio": 0})], vcpus=vcpus)
    vm.attach(JitEngine())
    return vm


def test_hypercalls() -> None:
    vm = called()
    model: Any = vm.devices[0].model
    assert [vm.hypercall(0x100, 5), vm.hypercall(0x100, 6)] == [5, 11]
    assert vm.hypercall(0x102) == vm.access(PIO, READ, 0, 8, time=vm.now()) == 11
    assert vm.hypercall(0x101, -1) == MINUS - 22
    assert model.seen == []
    # An argument that its type does not have, a decline: the model's, with all six arguments.
    assert vm.hypercall(0x100, 0x7_0000_0001, 2) == 12
    assert vm.hypercall(0x101, 1) == MINUS - 38
    assert model.seen == [(0, 0x7_0000_0001, 2, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0, 0)]
    # Nobody's.
    assert vm.hypercall(0xFF) == vm.hypercall(0x103) == MINUS - 1


def test_hypercalls_of_several_vcpus_add_up() -> None:
    """Each result is one moment's total: no two calls have the same, and the last has them all."""
    vm, count = called(3), 10_000
    runs = [
        Run(
            hypercalls(0x100, count, vcpu=number),
            arguments=array("Q", [number + 1, 0, 0, 0, 0, 0] * count),
            recorded=False,
        )
        for number in range(3)
    ]

    def guest(number: int) -> Callable[[GoOn], None]:
        return lambda _: vm.run(runs[number], vcpu=number)

    run_threads(0, *(guest(number) for number in range(3)))
    results = [result for run in runs for result in run.answers]
    assert len({*results}) == len(results) == 3 * count
    assert max(results) == vm.hypercall(0x102) == 6 * count
    assert all(list(run.answers) == sorted(run.answers) for run in runs)
