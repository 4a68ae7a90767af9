"""Benchmark `mechanisms`: what one exit costs, by who answers it.

The same accesses are answered by a handler in the native exit loop (dispatch, handler, result, and the
reading of the counter that times it), by the userspace model in this process, and by a userspace in another
process through the service. Beside these stand the least that a hand-over to another process can cost (two
processes that do nothing else), and exits of a real guest under KVM.

What the loop leaves out: the hardware's exit and entry. They are the same for every mechanism, and KVM's
in-kernel exits show what they cost here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from time import perf_counter_ns
from typing import Any, Final

from bench.peers import kvm, pingpong, service
from bench.runner import Bench, Competitor, Work, cpus, pinned
from bench.subjects import NOW, SUBJECTS, Subject, source, verified
from devbc.abi import AccessBinding, parse_binding
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import ACCESS, Outcome
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM

NAME: Final = "mechanisms"

JIT: Final = "handler, JIT"
JIT_HOST: Final = "handler, JIT, host clock"
INTERPRETER: Final = "handler, interpreter"
MODEL: Final = "model, in process (Python)"
MODEL_SERVICE: Final = "model, another process (Python), asleep, two CPUs"
HANDLED: Final = (JIT, JIT_HOST, INTERPRETER)


def service_name(*, spins: bool, shared: bool) -> str:
    return f"another process, {'spinning' if spins else 'asleep'}, {'one CPU' if shared else 'two CPUs'}"


#: The hand-over itself, and exits to a native userspace: by what sleeps, and where.
SLEEPING_ONE: Final = service_name(spins=False, shared=True)
SLEEPING_TWO: Final = service_name(spins=False, shared=False)
SPINNING_TWO: Final = service_name(spins=True, shared=False)
FLOORS: Final = "floor"
KVM_USERSPACE: Final = "KVM, userspace exit"
KVM_EVENTFD: Final = "KVM, ioeventfd"
KVM_KERNEL: Final = "KVM, in-kernel PIT"

#: Addresses of each device's banks; where a PC has them, except for the doorbell.
PLACES: Final = {
    "acpi_pm_timer": {"pio": 0x608},
    "i8254": {"pio": 0x40, "speaker": 0x61},
    "uart16550": {"pio": 0x3F8, "mmio": 0x2000_0000},
    "hpet": {"mmio": 0xFED0_0000},
    "mc146818": {"pio": 0x70},
    "virtio_ctl": {"pio": 0x500, "mmio": 0x1000_0000},
}
#: The register that mechanisms are compared on in full.
MAIN: Final = "PM timer read"
#: Characters that are sent before the transmit ring is emptied: it has 4,096 bytes.
_RING: Final = 4_000
#: Accesses of a run: its records stay in the caches. Where the loop cannot time itself, runs have to be long.
_RUN: Final = 2_048
_LONG_RUN: Final = 32_768
#: Some 100 us: an answer comes sooner, and whoever comes next is not kept waiting.
_SPINS: Final = 1 << 12
_CAPACITY: Final = 4_096


def run(bench: Bench) -> None:
    with pinned(cpus()[:1]):
        for subject in SUBJECTS[-6:] if bench.effort.repetitions == 1 else SUBJECTS:
            if subject.device in PLACES and subject.name not in ("nothing", MAIN):
                bench.compete(subject.name, _in_process(bench, subject))
    main = next(each for each in SUBJECTS if each.name == MAIN)
    first, second = (*cpus(), None)[:2] if len(cpus()) > 1 else (cpus()[0], None)
    assert first is not None
    with ExitStack() as resources:
        resources.enter_context(pinned(cpus()))
        competitors = [
            Competitor(each.name, _on(first, each.work), each.batch, each.group)
            for each in _in_process(bench, main)
        ]
        competitors += _floors(bench, first, second, resources)
        competitors += _service(bench, main, first, second, resources)
        competitors += _kvm(bench, first, resources)
        bench.compete(MAIN, competitors)


def _on(cpu: int, work: Work) -> Work:
    import os

    def pinned_work(count: int) -> float:
        os.sched_setaffinity(0, [cpu])
        return work(count)

    return pinned_work


# In this process.


def _in_process(bench: Bench, subject: Subject) -> list[Competitor]:
    from devbc.engines.jit import JitEngine
    from devbc.engines.native_interpreter import InterpreterEngine

    competitors = [
        Competitor(JIT, _loop(subject, JitEngine(), live=False), group="handled"),
        Competitor(INTERPRETER, _loop(subject, InterpreterEngine(), live=False), group="handled"),
    ]
    if subject.clock:
        competitors.append(Competitor(JIT_HOST, _loop(subject, JitEngine(), live=True), group="handled"))
    if _model(subject.device) is None:
        bench.skip(f"{MODEL}: {subject.name}", "the device has no model")
    else:
        competitors.append(Competitor(MODEL, _loop(subject, None, live=False), group="userspace"))
    return competitors


def _loop(subject: Subject, engine: Any, *, live: bool) -> Work:
    """The native exit loop over the subject's accesses; without an engine the model answers them."""
    from devbc.engines.clock import counter_period_ns

    vm = VM([_spec(subject)], live=live)
    if not live:
        vm.clock.now_ns = NOW
    if engine:
        vm.attach(engine)
    device = vm.devices[0]
    subject.prepare(device.area.view)
    expected = Outcome.HANDLED if engine else Outcome.NO_PROGRAM
    runs: dict[int, Run] = {}
    period = counter_period_ns()

    def work(count: int) -> float:
        total, left = 0.0, count
        most = _RING if subject.drain else _RUN if period else _LONG_RUN
        while left > 0:
            part = min(left, most)
            run = runs.get(part)
            if run is None:
                run = runs[part] = Run(packed(subject, part), recorded=False)
            run.cursor.index = 0
            start = perf_counter_ns()
            vm.run(run)
            wall = perf_counter_ns() - start
            # Between its first access and its last, if the loop could tell: a call from Python is no exit.
            native = sum(run.ticks) * period if engine and period else 0.0
            total += native or wall
            left -= part
            if subject.drain:
                setattr(device.area.view, subject.drain[1], getattr(device.area.view, subject.drain[0]))
        return total

    work(len(subject.accesses))
    checked = next(iter(runs.values()))
    assert set(checked.outcomes) == {expected}, f"{subject.name}: {set(checked.outcomes)}"
    return work


def packed(subject: Subject, count: int, time: int = 0) -> bytes:
    """So many accesses of a subject, its row again and again."""
    row = []
    for access in subject.accesses:
        binding = parse_binding(access.section)
        assert isinstance(binding, AccessBinding)
        address = PLACES[subject.device][binding.bank] + access.offset
        space = 0 if binding.space == "pio" else 1
        fields = (
            time,
            access.value,
            address,
            space,
            int(binding.op == "write"),
            access.size.bit_length() - 1,
            0,
            0,
        )
        row.append(ACCESS.packer.pack(*fields))
    return b"".join(row[index % len(row)] for index in range(count))


def _spec(subject: Subject) -> DeviceSpec:
    return DeviceSpec(
        "device", verified(subject.device, "v4"), _model(subject.device), PLACES[subject.device]
    )


@cache
def _model(device: str) -> Any:
    from devbc.catalog import load_model

    return load_model(source(device).parent)


# In another process.


def _floors(bench: Bench, first: int, second: int | None, resources: ExitStack) -> list[Competitor]:
    """Two processes that do nothing but hand a word over."""
    found = []
    for shared in (True, False):
        cpu = first if shared else second
        where = "one CPU" if shared else "two CPUs"
        if cpu is None:
            bench.skip("two CPUs", "this process may use one CPU only")
            continue
        for kind in ("eventfd", "pipe", "socket"):
            work = resources.enter_context(pingpong.descriptors(kind, first, cpu))
            found.append(Competitor(f"{kind} to and fro, {where}", work, group=FLOORS))
        work = resources.enter_context(pingpong.word(first, cpu, sleeps=True))
        found.append(Competitor(f"futex to and fro, {where}", work, group=FLOORS))
        if not shared:
            found.append(Competitor(f"spinning to and fro, {where}", _spinning(first, cpu), group=FLOORS))
    return found


def _spinning(first: int, second: int) -> Work:
    """The other process lives for a sample only: it would keep its CPU from everybody else's."""

    def work(count: int) -> float:
        with pingpong.word(first, second, sleeps=False) as ping:
            ping(1)
            return ping(count)

    return work


def _service(
    bench: Bench, subject: Subject, first: int, second: int | None, resources: ExitStack
) -> list[Competitor]:
    from bench.subjects import compiled

    hypervisor = resources.enter_context(service.service(first))
    vm = hypervisor.create_vm("bench")
    vm.add_device("device", compiled(subject.device, "v4"), PLACES[subject.device])
    accesses: Callable[[int], bytes] = cache(lambda count: packed(subject, count))
    found = []
    for name, spins, cpu in (
        (SLEEPING_ONE, 0, first), (SLEEPING_TWO, 0, second), (SPINNING_TWO, _SPINS, second),
    ):  # fmt: skip
        if cpu is not None:
            vcpu = vm.create_vcpu(_CAPACITY, spins=spins)
            found.append(Competitor(name, service.native_work(vcpu, accesses, cpu), group="userspace"))
    cpu = first if second is None else second
    vcpu = vm.create_vcpu(_CAPACITY)
    work = service.model_work(vm, vcpu, {"device": _model(subject.device)}, accesses, cpu)
    found.append(Competitor(MODEL_SERVICE, work, group="userspace"))
    return found


def _kvm(bench: Bench, first: int, resources: ExitStack) -> Sequence[Competitor]:
    if (reason := kvm.why_unavailable()) is not None:
        bench.skip("KVM", reason)
        return []
    guests = {
        KVM_USERSPACE: kvm.Guest(0x608),
        KVM_EVENTFD: kvm.Guest(0x608, write=True, eventfd=True),
        KVM_KERNEL: kvm.Guest(0x40, irqchip=True),
    }
    for guest in guests.values():
        resources.callback(guest.close)
    found = []
    for name, guest in guests.items():
        work = guest.userspace_exits if name == KVM_USERSPACE else guest.kernel_exits
        found.append(Competitor(name, _on(first, work), group="KVM"))
    return found
