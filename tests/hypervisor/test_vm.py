"""What the native exit loop promises: decline leaves no trace, effects and timers happen in order."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from devbc.abi import EXIT_FIELDS, Access, Op, Space
from devbc.diagnostics import Rejected
from devbc.engines.clock import tsc_is_usable
from devbc.hypervisor.area_lock import AreaLock
from devbc.hypervisor.layouts import ACCESS, AREA_HEADER, Guard, Holder, Outcome
from devbc.hypervisor.run import Run
from devbc.hypervisor.vm import VM
from devbc.hypervisor.wiring import WireSpec
from devbc.program.program import Bank
from devbc.program.verified import VerifiedProgram
from tests.hypervisor.machines import Body, Callbacks, device

PIO, READ, WRITE = Space.PIO, Op.READ, Op.WRITE


def machine(bodies: dict[str, Body], **options: Any) -> VM:
    vm = VM([device("dev", list(bodies), 0x40, **options)])
    vm.attach(Callbacks(bodies))
    return vm


def seen(vm: VM, index: int = 0) -> list[tuple[Any, ...]]:
    model: Any = vm.devices[index].model
    events: list[tuple[Any, ...]] = model.seen
    return events


def test_a_handled_exit_never_reaches_the_model() -> None:
    def read(exit_: Any, _: Any) -> bool:
        exit_.value = exit_.offset << 8 | exit_.size
        return True

    vm = machine({"pio/read@0x0-0x3:1,2": read})
    assert vm.access(PIO, READ, 0x42, 1, time=1) == 0x01  # truncated to the access's size
    assert vm.access(PIO, READ, 0x42, 2, time=2) == 0x202
    assert seen(vm) == []


@pytest.mark.parametrize("timed", [True, False])
def test_untimed_exits_are_answered_alike_and_leave_no_times(timed: bool) -> None:
    """Handled, declined and unclaimed ones. A histogram has the handled exits of timed runs, no others."""

    def read(exit_: Any, _: Any) -> bool:
        exit_.value = 7
        return bool(exit_.vcpu)

    vm = machine({"pio/read@0x0:1": read})
    places = [(0x40, 1), (0x40, 0), (0x99, 0), (0x40, 1)]
    run = Run(
        b"".join(ACCESS.packer.pack(0, 0, at, 0, 0, 0, 0, vcpu) for at, vcpu in places),
        recorded=False,
        timed=timed,
    )
    vm.run(run)
    assert [*run.answers] == [7, 0x5A, 0xFF, 7]
    assert [*run.outcomes] == [Outcome.HANDLED, Outcome.DECLINED, Outcome.UNCLAIMED, Outcome.HANDLED]
    installed = vm.devices[0].installed
    assert installed
    figures = installed.figures(0)
    assert (figures.handled, figures.declined, sum(figures.ticks)) == (2, 1, 2 * timed)
    assert [each > 0 for each in run.ticks] == ([tsc_is_usable()] * 4 if timed else [])


def test_a_write_reaches_the_handler_limited_to_its_size() -> None:
    values = []

    def write(exit_: Any, _: Any) -> bool:
        values.append(exit_.value)
        return True

    vm = machine({"pio/write@0x0:1,4": write})
    assert vm.access(PIO, WRITE, 0x40, 1, 0xFFFF_FFFF_FFFF_FF12, time=1) == 0
    assert vm.access(PIO, WRITE, 0x40, 4, 0xFFFF_FFFF_FFFF_FF12, time=1) == 0
    assert values == [0x12, 0xFFFFFF12]


def test_what_is_declined_goes_to_the_model_without_its_effects() -> None:
    def read(exit_: Any, _: Any) -> bool:
        exit_.value = 0x77
        exit_.arm, exit_.signal = 3, 1
        exit_.deadline[0] = 0
        setattr(exit_, "raise", 1)
        return False

    vm = machine({"pio/read@0x0:1": read})
    assert vm.access(PIO, READ, 0x40, 1, time=5) == 0x5A
    assert vm.access(PIO, READ, 0x41, 1, time=9) == 0x5A  # no handler there
    assert seen(vm) == [("read", "pio", 0, 1), ("read", "pio", 1, 1)]
    assert vm.devices[0].ports.levels == 0
    exit_ = vm.vcpus[0].record.exit
    assert exit_.arm == exit_.signal == 0


@pytest.mark.parametrize("handles", [True, False])
def test_each_handler_starts_from_the_exit_that_the_verifier_assumes(handles: bool) -> None:
    """Whatever the one before it has left in the fields that it may write."""
    fields = [field for field in EXIT_FIELDS.values() if field.access is Access.READ_WRITE]
    found = []

    def litter(exit_: Any, _: Any) -> bool:
        ctypes.memset(ctypes.addressof(exit_) + EXIT_FIELDS["value"].offset, 0xFF, 8)
        for field in fields:
            if field.name != "arm":  # armed timers would fire
                ctypes.memset(ctypes.addressof(exit_) + field.offset, 0x7F, field.size * field.count)
        return handles

    def look(exit_: Any, _: Any) -> bool:
        raw = bytes(exit_)
        found.append([raw[field.offset : field.end] for field in fields])
        return True

    vm = machine({"pio/write@0x0:1": litter, "pio/read@0x0:1": look})
    vm.access(PIO, WRITE, 0x40, 1, 0, time=1)
    vm.access(PIO, READ, 0x40, 1, time=1)
    assert found == [[bytes(field.size * field.count) for field in fields]]


def test_what_no_device_claims_reaches_nobody() -> None:
    vm = machine({"pio/read@0x0:1": lambda exit_, _: True})
    assert vm.access(PIO, READ, 0x50, 1, time=1) == 0xFF  # as a bus that nobody drives
    assert vm.access(Space.MMIO, READ, 0x40, 4, time=1) == 0xFFFF_FFFF
    assert seen(vm) == []


#: What a handler needs of its device, as the machine's fake programs have it.
GUARDED: dict[Guard, dict[str, Any]] = {
    Guard.NONE: {"effects": ("signal",)},
    Guard.SEQUENCE: {"effects": (), "scratch_read": True},
    Guard.LOCK: {"mutating": True},
}


@pytest.mark.parametrize("guard", Guard)
def test_a_held_lock_declines_whatever_it_guards(guard: Guard) -> None:
    """Userspace holds the lock for a while: its model, which waits for it, answers instead."""
    vm = machine({"pio/read@0x0:1": lambda exit_, _: True}, **GUARDED[guard])
    (dev,) = vm.devices
    assert dev.installed is not None
    assert dev.installed.slots[0].guard == guard
    other = AreaLock(dev.area.header_address, token=Holder.CLIENTS)
    with other:
        assert other.holder == Holder.CLIENTS
        threading.Timer(0.05, other.unlock).start()
        assert vm.access(PIO, READ, 0x40, 1, time=1) == (0 if guard is Guard.NONE else 0x5A)
        while other.holder:
            time.sleep(0.01)
    assert vm.access(PIO, READ, 0x40, 1, time=2) == 0
    assert not other.holder
    assert dev.installed.figures(0).contended == (guard is not Guard.NONE)


def test_a_pure_handler_is_run_again_when_what_it_read_was_changing() -> None:
    """Its first two runs are overtaken by a writer; their answers and effects are forgotten."""
    runs: list[int] = []

    def read(exit_: Any, _: Any) -> bool:
        assert (exit_.value, exit_.signal) == (0, 0)
        exit_.value = len(runs)
        exit_.signal = 1 << 3
        if len(runs) < 2:
            header.sequence += 2
        runs.append(exit_.value)
        return True

    vm = machine({"pio/read@0x0:1": read}, effects=("signal",), scratch_read=True)
    header = AREA_HEADER.struct.from_address(vm.devices[0].area.header_address)
    assert vm.access(PIO, READ, 0x40, 1, time=1) == 2
    assert runs == [0, 1, 2]
    assert seen(vm) == [("signal", "tx")]


def test_a_pure_handler_that_is_always_overtaken_declines() -> None:
    def read(exit_: Any, _: Any) -> bool:
        header.sequence += 2
        exit_.value, exit_.signal = 7, 1
        return True

    vm = machine({"pio/read@0x0:1": read}, effects=("signal",), scratch_read=True)
    header = AREA_HEADER.struct.from_address(vm.devices[0].area.header_address)
    assert vm.access(PIO, READ, 0x40, 1, time=1) == 0x5A
    assert seen(vm) == [("read", "pio", 0, 1)]


def test_the_count_is_odd_while_a_writer_runs_whatever_userspace_left_there() -> None:
    def write(exit_: Any, _: Any) -> bool:
        counts.append(header.sequence)
        return True

    counts: list[int] = []
    vm = machine({"pio/write@0x0:1": write}, mutating=True)
    header = AREA_HEADER.struct.from_address(vm.devices[0].area.header_address)
    for left in (0, 7, 0xFFFF_FFFF):
        header.sequence = left
        vm.access(PIO, WRITE, 0x40, 1, time=1)
        assert counts.pop() == left | 1
        assert header.sequence == (left | 1) + 1 & 0xFFFF_FFFF


def test_timers_run_in_the_order_of_their_deadlines_and_the_clock_shows_them() -> None:
    fired: list[tuple[int, int, int]] = []
    vm: VM

    def write(exit_: Any, _: Any) -> bool:
        exit_.arm = 3
        exit_.deadline[0], exit_.deadline[1] = 500, 300
        return True

    def tick(exit_: Any, _: Any) -> bool:
        fired.append((exit_.offset, exit_.value, vm.now()))
        if exit_.value < 900:
            exit_.arm = 1 << exit_.offset
            exit_.deadline[exit_.offset] = exit_.value + 300
        return True

    vm = machine({"pio/write@0x0:1": write, "timer/t0": tick, "timer/t1": tick})
    vm.access(PIO, WRITE, 0x40, 1, time=100)
    vm.access(PIO, READ, 0x48, 1, time=299)
    assert fired == []
    vm.access(PIO, READ, 0x48, 1, time=900)
    assert fired == [(1, 300, 300), (0, 500, 500), (1, 600, 600), (0, 800, 800), (1, 900, 900)]
    assert vm.now() == 900


def test_a_deadline_in_the_past_fires_at_once_without_turning_the_clock_back() -> None:
    times: list[tuple[int, int]] = []
    vm: VM

    def write(exit_: Any, _: Any) -> bool:
        exit_.arm, exit_.deadline[0] = 1, 7
        return True

    def tick(exit_: Any, _: Any) -> bool:
        times.append((exit_.value, vm.now()))
        return True

    vm = machine({"pio/write@0x0:1": write, "timer/t0": tick})
    vm.access(PIO, WRITE, 0x40, 1, time=100)
    vm.access(PIO, READ, 0x48, 1, time=200)
    assert times == [(7, 100)]


def test_a_cancelled_timer_does_not_fire_and_one_without_handler_is_the_models() -> None:
    def write(exit_: Any, _: Any) -> bool:
        if exit_.value:
            exit_.arm, exit_.deadline[0], exit_.deadline[1] = 3, 50, 60
        else:
            exit_.cancel = 1
        return True

    vm = machine({"pio/write@0x0:1": write})
    vm.access(PIO, WRITE, 0x40, 1, 1, time=10)
    vm.access(PIO, WRITE, 0x40, 1, 0, time=20)
    vm.access(PIO, READ, 0x48, 1, time=100)
    assert seen(vm) == [("timer", "t1", 60, 60), ("read", "pio", 8, 1)]


def test_putting_a_timer_off_loses_no_other() -> None:
    fired: list[tuple[int, int]] = []

    def write(exit_: Any, _: Any) -> bool:
        exit_.arm = 1 << exit_.offset
        exit_.deadline[exit_.offset] = exit_.value
        return True

    def tick(exit_: Any, _: Any) -> bool:
        fired.append((exit_.offset, exit_.value))
        return True

    vm = machine({"pio/write@0x0-0x1:1": write, "timer/t0": tick, "timer/t1": tick})
    vm.access(PIO, WRITE, 0x40, 1, 60, time=10)
    vm.access(PIO, WRITE, 0x41, 1, 100, time=10)
    vm.access(PIO, WRITE, 0x40, 1, 200, time=10)
    vm.access(PIO, READ, 0x48, 1, time=70)
    vm.access(PIO, READ, 0x48, 1, time=150)
    assert fired == [(1, 100)]


def test_signals_reach_the_model_before_its_next_access_and_at_the_end() -> None:
    def write(exit_: Any, _: Any) -> bool:
        exit_.signal = 0b1001
        return True

    vm = machine({"pio/write@0x0:1": write})
    vm.access(PIO, WRITE, 0x40, 1, time=1)
    assert seen(vm) == [("signal", "bell"), ("signal", "tx")]


def chain(bodies: dict[str, Body]) -> VM:
    """Two devices; `a.out` leads to `b.in0` and, like `b.out`, to the guest."""
    sections = list(bodies)
    writes = [each for each in sections if each.startswith("pio")]
    lines = [each for each in sections if each.startswith("line")]
    wires = [
        WireSpec("a", "out", "b", "in0"),
        WireSpec("a", "out", guest=0),
        WireSpec("b", "out", guest=5),
    ]
    vm = VM([device("a", writes, 0x40), device("b", lines, 0x60)], wires)
    vm.attach(Callbacks(bodies))
    return vm


def test_lines_lead_to_other_devices_and_to_the_guest() -> None:
    levels = []

    def write(exit_: Any, _: Any) -> bool:
        setattr(exit_, "raise" if exit_.value else "lower", 1)
        return True

    def line(exit_: Any, _: Any) -> bool:
        levels.append(exit_.value)
        setattr(exit_, "raise" if exit_.value else "lower", 1)
        return True

    vm = chain({"pio/write@0x0:1": write, "line/in0": line})
    vm.access(PIO, WRITE, 0x40, 1, 1, time=1)
    vm.access(PIO, WRITE, 0x40, 1, 1, time=2)  # already high: no change, no event
    assert (levels, vm.guest_lines, vm.guest_interrupts) == ([1], 0b100001, 2)
    vm.access(PIO, WRITE, 0x40, 1, 0, time=3)
    vm.access(PIO, READ, 0x70, 1, time=4)
    assert (levels, vm.guest_lines, vm.guest_interrupts) == ([1, 0], 0, 2)


def test_a_guest_line_is_high_while_any_wire_holds_it() -> None:
    wires = [WireSpec("a", "out", guest=63), WireSpec("b", "out", guest=63)]
    vm = VM([device("a", [], 0x40), device("b", [], 0x60)], wires)
    a, b = vm.devices
    levels = []
    for change in (a.raise_line, b.raise_line, b.raise_line, a.lower_line, b.lower_line):
        change("out")
        levels.append(vm.guest_lines >> 63)
    assert (levels, vm.guest_interrupts) == ([1, 1, 1, 1, 0], 1)


def test_a_pulse_is_two_changes() -> None:
    def write(exit_: Any, _: Any) -> bool:
        setattr(exit_, "raise", 1)
        exit_.lower = 1
        return True

    vm = chain({"pio/write@0x0:1": write})
    vm.access(PIO, WRITE, 0x40, 1, 1, time=1)
    vm.access(PIO, READ, 0x70, 1, time=2)
    assert seen(vm, 1) == [("line", "in0", 1), ("line", "in0", 0)]
    assert (vm.guest_lines, vm.guest_interrupts) == (0, 1)


def test_a_model_that_raises_many_lines_overruns_no_queue() -> None:
    vm = chain({"pio/write@0x0:1": lambda exit_, _: True})
    for _ in range(5000):
        vm.devices[0].raise_line("out")
        vm.devices[0].lower_line("out")
    vm.access(PIO, READ, 0x70, 1, time=1)
    assert len(seen(vm, 1)) == 10_000
    assert vm.guest_interrupts == 5000


def test_detached_devices_are_their_models() -> None:
    vm = machine({"pio/read@0x0:1": lambda exit_, _: True})
    vm.detach(["dev"])
    assert vm.access(PIO, READ, 0x40, 1, time=1) == 0x5A


@pytest.mark.parametrize(
    ("wires", "code"),
    [
        ([WireSpec("a", "out", "b", "in0"), WireSpec("b", "aux", "a", "in0")], "H005"),
        ([WireSpec("a", "out", "a", "in0")], "H005"),
        ([WireSpec("a", "oot", "b", "in0")], "H003"),
        ([WireSpec("a", "out", "c", "in0")], "H003"),
    ],
)
def test_wires_that_cannot_be_are_refused(wires: list[WireSpec], code: str) -> None:
    with pytest.raises(Rejected) as caught:
        VM([device("a", [], 0x40), device("b", [], 0x60)], wires)
    assert [each.code.id for each in caught.value.diagnostics] == [code]


def test_devices_at_one_address_are_refused() -> None:
    with pytest.raises(Rejected) as caught:
        VM([device("a", [], 0x40), device("b", [], 0x4F)])
    assert "both claim pio 0x4f" in str(caught.value)


def test_a_handler_outside_its_bank_is_refused() -> None:
    with pytest.raises(Rejected) as caught:
        VM([device("a", ["pio/read@0xf:2"], 0x40)])
    assert caught.value.diagnostics[0].code.id == "H006"


def test_a_bank_without_an_address_costs_nothing() -> None:
    """Its handlers are not handed to the engine; those of the others are, and answer."""
    asked: list[str] = []

    class Counting(Callbacks):
        def load(self, programs: Sequence[VerifiedProgram]) -> Callbacks:
            asked.extend(each.handler.section for program in programs for each in program.handlers)
            return super().load(programs)

    sections = ["pio/read@0x0:1", "mmio/read@0x0:1", "timer/t0", "hypercall/1"]
    spec = device("dev", sections, 0x40)
    banks = (*spec.program.banks, Bank("mmio", Space.MMIO, 16))
    program = replace(spec.program, banks=banks)
    vm = VM([replace(spec, verified=replace(spec.verified, program=program))])
    vm.attach(Counting({section: lambda exit_, _: True for section in sections}))
    assert asked == ["pio/read@0x0:1", "timer/t0"]
    assert vm.access(PIO, READ, 0x40, 1, time=1) == 0
    assert vm.access(Space.MMIO, READ, 0, 1, time=2) == 0xFF
