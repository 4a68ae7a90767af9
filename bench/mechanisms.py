"""Benchmark `mechanisms`: what one exit costs, by who answers it.

The same accesses are answered by a handler in the native exit loop (dispatch, handler, result), by Linux's
BPF, by the userspace model in this process and in another one through the service, and by the userspace or
the kernel of a real guest under KVM. What does not depend on the access is measured once, beside the main
one: the least that a hand-over to another process can cost (two processes that do nothing else), and the
service's own.

What the loop leaves out: the hardware's exit and entry. They are the same for every mechanism, and KVM's
in-kernel exits show what they cost here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from time import perf_counter_ns
from typing import Any, Final

from bench import engines
from bench.peers import kvm, linux_bpf, pingpong, service
from bench.results import Figure, Results
from bench.runner import Bench, Competitor, Work, cpus, pinned
from bench.subjects import NOW, PLACES, GuestAccess, Subject, compiled, guest_accesses, subject, verified
from devbc.catalog import model_of
from devbc.client import Hypervisor
from devbc.client.models import Models
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import ACCESS, Outcome
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM

NAME: Final = "mechanisms"

JIT: Final = "handler, JIT"
JIT_HOST: Final = "handler, JIT, host clock"
#: The same loop, while it reads the counter at each exit, to time them one by one.
JIT_TIMED: Final = "handler, JIT, each exit timed"
JIT_HOST_TIMED: Final = "handler, JIT, host clock, each exit timed"
INTERPRETER: Final = "handler, interpreter"
LINUX: Final = "handler, Linux BPF"
LINUX_CALL: Final = "handler, Linux BPF, a system call each"
MODEL: Final = "model, in process (Python)"
MODEL_ONE: Final = "model, another process (Python), one CPU"
MODEL_TWO: Final = "model, another process (Python), two CPUs"
#: The hand-over itself, and exits to a native userspace: by what sleeps, and where.
SLEEPING_ONE: Final = "another process, asleep, one CPU"
SLEEPING_TWO: Final = "another process, asleep, two CPUs"
SPINNING_TWO: Final = "another process, spinning, two CPUs"
FLOORS: Final = "floor"
KVM_USERSPACE: Final = "KVM, userspace exit"
KVM_EVENTFD: Final = "KVM, ioeventfd"
KVM_PIT: Final = "KVM, in-kernel PIT"
#: The one or the other, on its own accesses.
KVM_ITSELF: Final = "KVM, in the kernel"

_DOORBELL: Final = subject("virtio doorbell")
_PORT_DOORBELL: Final = replace(
    _DOORBELL,
    name="virtio doorbell, by port",
    accesses=tuple(replace(each, section="pio/write@0x50:4") for each in _DOORBELL.accesses),
)
#: The register that mechanisms are compared on in full, and the others.
MAIN: Final = "PM timer read"
SUBJECTS: Final = (
    *map(subject, (
        MAIN, "PIT counter read", "PIT latch, two reads", "UART line status", "UART transmit",
        "HPET counter read", "RTC seconds read", "virtio doorbell",
    )),
    _PORT_DOORBELL,
)  # fmt: skip
#: The main access, by a model that hears of it by each way to hand a word over: without the service.
HANDED: Final = f"{MAIN}, the model by each hand-over"
#: Of what answers depending on the access, the columns of a table: heading, and competitor.
COLUMNS: Final = (
    ("JIT", JIT),
    ("host clock", JIT_HOST),
    ("interpreter", INTERPRETER),
    ("Linux BPF", LINUX),
    ("by bpf(2)", LINUX_CALL),
    ("KVM, kernel", KVM_ITSELF),
    ("KVM, userspace", KVM_USERSPACE),
    ("model", MODEL),
    ("model, one CPU", MODEL_ONE),
    ("model, two CPUs", MODEL_TWO),
)
#: Characters that are sent before the transmit ring is emptied: it has 4,096 bytes.
_RING: Final = 4_000
#: Accesses of a run, where the loop times them: its records stay in the caches. Where it does not, runs have
#: to be long: a call from Python, some 1.3 us, is in them.
_RUN: Final = 2_048
_LONG_RUN: Final = 32_768
#: Some 100 us: an answer comes sooner, and whoever comes next is not kept waiting.
_SPINS: Final = 1 << 12
_CAPACITY: Final = 4_096


@dataclass(frozen=True, slots=True)
class _Place:
    """Where everything is: this process on a CPU, another process on the same or on a second, if any."""

    bench: Bench
    first: int
    second: int | None
    hypervisor: Hypervisor
    resources: ExitStack


def run(bench: Bench) -> None:
    tiny = bench.effort.repetitions == 1
    first, second = (*cpus(), None)[:2]
    assert first is not None
    if second is None:
        bench.skip("two CPUs", "this process may use one CPU only")
    for what, reason in ((LINUX, linux_bpf.why_unavailable()), ("KVM", kvm.why_unavailable())):
        if reason is not None:
            bench.skip(what, reason)
    with pinned(cpus()), service.service(first) as hypervisor:
        for each in (SUBJECTS[0], *SUBJECTS[1:][-3:]) if tiny else SUBJECTS:
            with ExitStack() as resources:
                place = _Place(bench, first, second, hypervisor, resources)
                competitors = [*_in_process(place, each), *_linux(place, each), *_kvm(place, each)]
                competitors += _service(place, each)
                if each.name == MAIN:
                    competitors += _hand_overs(place)
                bench.compete(each.name, competitors)
        with ExitStack() as resources:
            place = _Place(bench, first, second, hypervisor, resources)
            bench.compete(HANDED, [*_hand_overs(place, _answer(SUBJECTS[0]))])


def _on(cpu: int, work: Work) -> Work:
    def pinned_work(count: int) -> float:
        os.sched_setaffinity(0, [cpu])
        return work(count)

    return pinned_work


def by_access(results: Results) -> dict[str, list[Figure | None]]:
    """Each access's figures, in the order of `COLUMNS`."""
    subjects = dict.fromkeys(each.subject for each in results.of(NAME) if each.subject != HANDED)
    return {each: [results.find(NAME, each, name) for _, name in COLUMNS] for each in subjects}


# In this process.


def _in_process(place: _Place, subject: Subject) -> Iterator[Competitor]:
    from devbc.engines.clock import counter_period_ns
    from devbc.engines.jit import JitEngine
    from devbc.engines.native_interpreter import InterpreterEngine

    works = {
        JIT: _loop(subject, JitEngine()),
        INTERPRETER: _loop(subject, InterpreterEngine()),
        MODEL: _loop(subject, None),
    }
    if subject.clock:
        works[JIT_HOST] = _loop(subject, JitEngine(), live=True)
    if subject.name == MAIN and counter_period_ns():
        works[JIT_TIMED] = _loop(subject, JitEngine(), timed=True)
        works[JIT_HOST_TIMED] = _loop(subject, JitEngine(), live=True, timed=True)
    for name, work in works.items():
        group = "userspace" if name == MODEL else "handled"
        yield Competitor(name, _on(place.first, work), group=group)


def _loop(subject: Subject, engine: Any, *, live: bool = False, timed: bool = False) -> Work:
    """The native exit loop over the subject's accesses; without an engine the model answers them."""
    from devbc.engines.clock import counter_period_ns

    period = counter_period_ns() if timed else 0.0
    # With handlers there is no model: it would serve the device's signals after each run.
    model = None if engine else model_of(subject.device)
    vm = VM([_spec(subject, model)], live=live)
    if not live:
        vm.clock.now_ns = NOW
    if engine:
        vm.attach(engine)
    device = vm.devices[0]
    subject.prepare(device.area.view)
    expected = Outcome.HANDLED if engine else Outcome.NO_PROGRAM
    most = _RING if subject.drain else _RUN if timed else _LONG_RUN
    runs: Callable[[int], Run] = cache(lambda part: Run(packed(subject, part), recorded=False, timed=timed))

    def work(count: int) -> float:
        total, left = 0.0, count
        while left > 0:
            run = runs(min(left, most))
            run.cursor.index = 0
            start = perf_counter_ns()
            vm.run(run)
            wall = perf_counter_ns() - start
            # Between its first access and its last, if the loop can tell: a call from Python is no exit.
            total += sum(run.ticks) * period if period else wall
            left -= run.count
            if subject.drain:
                setattr(device.area.view, subject.drain[1], getattr(device.area.view, subject.drain[0]))
        return total

    work(len(subject.accesses))
    outcomes = set(runs(len(subject.accesses)).outcomes)
    assert outcomes == {expected}, f"{subject.name}: {outcomes}"
    return work


def _spec(subject: Subject, model: Any) -> DeviceSpec:
    return DeviceSpec("device", verified(subject.device, "v4"), model, PLACES[subject.device])


def packed(subject: Subject, count: int, apart: int = 0) -> bytes:
    """So many accesses of a subject, its row again and again, its device so far from its place."""
    row = [
        ACCESS.packer.pack(
            0, each.value, each.address + apart, int(each.memory), int(each.write),
            each.size.bit_length() - 1, 0, 0,
        )
        for each in guest_accesses(subject)
    ]  # fmt: skip
    return b"".join(row[index % len(row)] for index in range(count))


# In Linux.


def _linux(place: _Place, subject: Subject) -> Iterator[Competitor]:
    """Handlers in the kernel, on the host's clock: repeated there, and each by a system call from here."""
    if linux_bpf.why_unavailable() is None:
        found = {
            LINUX: engines.linux(place.bench, subject, host=subject.clock),
            LINUX_CALL: engines.linux_calls(place.bench, subject),
        }
        for name, work in found.items():
            if work is not None:
                yield Competitor(name, _on(place.first, work), group="Linux")


# A guest under KVM.


def _kvm(place: _Place, subject: Subject) -> Iterator[Competitor]:
    """The subject's accesses of a real guest; beside the main one, what KVM answers itself of the others."""
    if kvm.why_unavailable() is not None:
        return
    row, main = guest_accesses(subject), subject.name == MAIN
    guests: dict[str, tuple[list[GuestAccess], dict[str, bool]]] = {KVM_USERSPACE: (row, {})}
    if main or subject.device == "i8254":
        guests[KVM_PIT if main else KVM_ITSELF] = (_PIT if main else row, {"irqchip": True})
    if main or subject.device == "virtio_ctl":
        guests[KVM_EVENTFD if main else KVM_ITSELF] = (_NOTIFY if main else row, {"eventfd": True})
    for name, (accesses, options) in guests.items():
        try:
            guest = kvm.Guest(accesses, **options)
        except OSError as error:
            place.bench.skip(name, f"KVM refuses it: {error.strerror or error}")
            continue
        place.resources.callback(guest.close)
        work = guest.kernel_exits if options else guest.userspace_exits
        yield Competitor(name, _on(place.first, work), group="KVM")


_PIT: Final = guest_accesses(subject("PIT counter read"))
_NOTIFY: Final = guest_accesses(_PORT_DOORBELL)


# In another process.


def _service(place: _Place, subject: Subject) -> Iterator[Competitor]:
    """The device's model in this process, the machine in the service's; beside the main one, no model."""
    vm = place.hypervisor.create_vm(subject.name)
    place.resources.callback(vm.destroy)
    device = vm.add_device("device", compiled(subject.device, "v4"), PLACES[subject.device])
    accesses: Callable[[int], bytes] = cache(lambda count: packed(subject, count))
    vcpu = vm.create_vcpu(_CAPACITY)
    models = Models(vm, {"device": model_of(subject.device)})
    subject.prepare(device.scratch)
    for name, cpu in ((MODEL_ONE, place.first), (MODEL_TWO, place.second)):
        if cpu is not None:
            work = service.model_work(models, vcpu, accesses, cpu)
            yield Competitor(name, work, group="userspace")
    if subject.name != MAIN:
        return
    spinning = vm.create_vcpu(_CAPACITY, spins=_SPINS)
    for name, by, cpu in (
        (SLEEPING_ONE, vcpu, place.first), (SLEEPING_TWO, vcpu, place.second),
        (SPINNING_TWO, spinning, place.second),
    ):  # fmt: skip
        if cpu is not None:
            yield Competitor(name, service.native_work(by, accesses, cpu), group="userspace")


def _hand_overs(place: _Place, model: pingpong.Model | None = None) -> Iterator[Competitor]:
    """Two processes that hand a word over and back, and do nothing else but let a model answer."""
    text, group = ("{} to and fro, {}", FLOORS) if model is None else ("model, by {}, {}", "userspace")
    for where, cpu in (("one CPU", place.first), ("two CPUs", place.second)):
        if cpu is None:
            continue
        for kind in ("eventfd", "pipe", "socket"):
            work = place.resources.enter_context(pingpong.descriptors(kind, place.first, cpu, model))
            yield Competitor(text.format(kind, where), work, group=group)
        work = place.resources.enter_context(pingpong.word(place.first, cpu, model, sleeps=True))
        yield Competitor(text.format("futex", where), work, group=group)
        if cpu != place.first:
            work = _spinning(place.first, cpu, model)
            yield Competitor(text.format("spinning", where), work, group=group)


def _spinning(first: int, second: int, model: pingpong.Model | None) -> Work:
    """The other process lives for a sample only: it would keep its CPU from everybody else's."""

    def work(count: int) -> float:
        with pingpong.word(first, second, model, sleeps=False) as ping:
            ping(1)
            return ping(count)

    return work


def _answer(subject: Subject) -> pingpong.Model:
    """The subject's access, answered by its device's model under its lock, as an exit's is."""
    device = VM([_spec(subject, model_of(subject.device))]).devices[0]
    (access,) = subject.accesses

    def answer() -> None:
        with device as model:
            assert model is not None
            model.read("pio", access.offset, access.size)

    return answer
