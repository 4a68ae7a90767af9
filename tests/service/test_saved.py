"""A VM of the service that stands still: nothing is lost of what was at hand, and its state moves on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from devbc.client import Hypervisor, Vm
from devbc.client.models import Models
from devbc.client.vcpu import Exit, ExitKind, Vcpu
from devbc.diagnostics import Rejected
from tests.service.probe import (
    ARM,
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
)
from tests.service.served import Served, await_


def told(exit_: Exit) -> tuple[Any, ...]:
    return str(exit_.kind), exit_.port or exit_.offset, exit_.value, exit_.signals


# What is at hand when a vCPU stops.


def _timer(vm: Vm) -> bytes:
    vm.device("probe").request(arm=1, deadlines=(5,))
    return read(VALUE, time=10)


def _line(vm: Vm) -> bytes:
    """Three changes of a line at once; the first is at hand, the others wait."""
    source = vm.add_device("source", probe(), {"pio": 0x200})
    vm.wire("source.irq", "probe.in0")
    source.raise_line("irq")
    source.lower_line("irq")
    source.raise_line("irq")
    return read(VALUE)


def _signal(vm: Vm) -> bytes:
    device = vm.device("probe")
    device.attach("interp")
    answers(vm.create_vcpu(1), write(RING, 1))
    device.detach()
    return read(KEEP)


@pytest.mark.parametrize(("prepare", "exits"), [(_timer, 2), (_line, 4), (_signal, 1)])
def test_what_was_not_answered_comes_again(
    hypervisor: Hypervisor, prepare: Callable[[Vm], bytes], exits: int
) -> None:
    """However often it is stopped before the answer; in the same order, and once it is answered no more."""
    seen = []
    for stops in (0, 1, 3):
        vm, _ = vm_with_probe(hypervisor, engine=None)
        vcpu = vm.create_vcpu(4)
        vcpu.feed(prepare(vm))
        for _ in range(stops):
            next(vcpu.run())
            vcpu.stop()
        found = []
        for exit_ in vcpu.run():
            found.append(told(exit_))
            exit_.answer()
        seen.append(found)
        assert vcpu.done == 1
        vm.destroy()
    assert seen[1:] == [seen[0]] * 2
    assert len(seen[0]) == exits


def test_a_timer_that_was_armed_anew_is_as_it_was_armed(hypervisor: Hypervisor) -> None:
    vm, device = vm_with_probe(hypervisor, engine=None)
    vcpu = vm.create_vcpu(4)
    vcpu.feed(_timer(vm) + read(VALUE, time=100))
    assert told(next(vcpu.run()))[:3] == ("timer", "tick", 5)
    device.request(arm=1, deadlines=(50,))
    vcpu.stop()
    found = []
    for exit_ in vcpu.run():
        found.append(told(exit_)[:3])
        exit_.answer()
    assert found == [("read", 0, 0), ("timer", "tick", 50), ("read", 0, 0)]


def test_a_client_dies_with_a_timer_at_hand(service: Served, hypervisor: Hypervisor) -> None:
    """Whoever takes the VM over is told."""
    with service.connect() as dying:
        vm, _ = vm_with_probe(dying, "inherited", persists=True, engine=None)
        vcpu = vm.create_vcpu(4)
        vcpu.feed(_timer(vm))
        next(vcpu.run())
    heir = hypervisor.open_vm("inherited")
    assert await_(lambda: heir.status().vcpus == 0)
    vcpu = heir.create_vcpu(4)
    vcpu.feed(read(VALUE, time=11))
    kinds = []
    for exit_ in vcpu.run():
        kinds.append(exit_.kind)
        exit_.answer()
    assert kinds == [ExitKind.TIMER, ExitKind.READ]
    heir.destroy()


# States.


def _running(vm: Vm) -> Vcpu:
    vcpu = vm.create_vcpu(4)
    vcpu.feed(read(KEEP))
    next(vcpu.run())
    return vcpu


def test_a_vm_that_runs_has_no_state(hypervisor: Hypervisor) -> None:
    """Also one whose vCPU waits for an answer, or for more to do."""
    vm, _ = vm_with_probe(hypervisor)
    state = vm.save()
    vcpu = _running(vm)
    for act in (vm.save, lambda: vm.restore(state)):
        with pytest.raises(Rejected, match=r"H012: vCPU 0 is running"):
            act()
    for exit_ in vcpu.run():
        exit_.answer()
    with pytest.raises(Rejected, match=r"H012: vCPU 0 is running"):
        vm.save()
    vcpu.stop()
    assert vm.restore(state) == ()


@pytest.mark.long
def test_a_lock_that_a_client_holds(hypervisor: Hypervisor) -> None:
    """The service waits for it for seconds, for this client alone."""
    vm, device = vm_with_probe(hypervisor)
    state = vm.save()
    with device.lock, pytest.raises(Rejected, match="`probe` is in use"):
        vm.save()
    assert vm.restore(state) == ()


@pytest.mark.parametrize("engine", [None, "interp"])
def test_a_guest_goes_on_elsewhere(hypervisor: Hypervisor, engine: str | None) -> None:
    """What it sees is what it sees where it stays: fields, a timer, a line, an interrupt, the clock."""
    first = write(VALUE, 40) + write(KEEP, 7) + write(MOVE, 1) + write(ARM, 60, time=20)
    second = read(STEP, time=30) + read(VALUE, time=70) + write(MOVE, 0, time=80) + read(STEP, time=90)

    def made() -> tuple[Vm, Any, Models]:
        vm, device = vm_with_probe(hypervisor, engine=engine)
        vm.wire("probe.irq", "guest.5")
        vm.set_level_triggered([5])
        return vm, device, Models(vm, {"probe": ProbeModel})

    def seen(vm: Vm, device: Any, found: list[int]) -> tuple[Any, ...]:
        info, fields = vm.status(), device.scratch
        state = fields.value, fields.kept, fields.level, fields.ticks
        return found, state, info.now, info.guest_lines, info.guest_pending

    stays, device, models = made()
    vcpu = stays.create_vcpu(8)
    answers(vcpu, first, models)
    expected = seen(stays, device, answers(vcpu, second, models)[-4:])

    leaves, _, models = made()
    vcpu = leaves.create_vcpu(8)
    answers(vcpu, first, models)
    vcpu.stop()
    state = leaves.save()
    assert leaves.save() == state, "saving changes nothing"
    leaves.destroy()
    arrives, device, models = made()
    assert arrives.restore(state) == ()
    assert seen(arrives, device, answers(arrives.create_vcpu(8), second, models)) == expected


def test_what_does_not_fit_is_named(hypervisor: Hypervisor) -> None:
    vm, _ = vm_with_probe(hypervisor)
    vm.add_device("second", probe(), {"pio": 0x200})
    state = vm.save()
    other, _ = vm_with_probe(hypervisor)
    (misfit,) = other.restore(state)
    assert (misfit.code.id, misfit.message) == ("H011", "there is no device `second`")


@pytest.mark.parametrize("state", [b"", b"\x80", b"\xc1" * 100, bytes(1000)])
def test_what_is_no_state(hypervisor: Hypervisor, state: bytes) -> None:
    vm, device = vm_with_probe(hypervisor)
    device.scratch.value = 5
    with pytest.raises(Rejected, match="H010"):
        vm.restore(state)
    assert device.scratch.value == 5


def test_a_live_vm_stands_still_when_its_timers_do(hypervisor: Hypervisor) -> None:
    """They are stopped and started as a vCPU is; what falls due meanwhile is late, and not lost."""
    vm, device = vm_with_probe(hypervisor, engine="interp", live=True)
    with pytest.raises(Rejected, match="H012"):
        vm.save()
    assert vm.timers is not None
    vm.timers.stop()
    deadline = vm.status().now
    device.request(arm=1, deadlines=(deadline,))
    state = vm.save()
    assert device.scratch.ticks == 0
    vm.timers.start()
    assert await_(lambda: device.scratch.ticks == 1)

    there, device = vm_with_probe(hypervisor, engine="interp", live=True)
    assert there.timers is not None
    there.timers.stop()
    assert there.restore(state) == ()
    assert there.status().now >= deadline
    assert device.scratch.ticks == 0
    there.timers.start()
    assert await_(lambda: device.scratch.ticks == 1)


def test_a_live_vms_timers_at_hand(hypervisor: Hypervisor) -> None:
    """A model's timer that was at hand when the timers stopped is told again when they go on."""
    vm, device = vm_with_probe(hypervisor, engine=None, live=True)
    deadline = vm.status().now
    device.arm("tick", deadline)
    timers = vm.timers
    assert timers is not None
    for _ in range(3):
        assert timers.wait(10)
        exit_ = timers.exit()
        assert exit_ is not None
        assert told(exit_)[:3] == ("timer", "tick", deadline)
        timers.stop()
        assert timers.exit() is None
        timers.start()
    assert timers.wait(10)
    timers.answer()
    assert not timers.wait(0.3)
