"""Eventfds that native code writes: for signals, rising lines and acknowledged interrupts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from devbc import limits
from devbc.abi import Op, Space
from devbc.diagnostics import Rejected
from devbc.hypervisor.vm import VM
from devbc.hypervisor.wiring import WireSpec
from tests.hypervisor.machines import Body, Callbacks, device

PIO, WRITE = Space.PIO, Op.WRITE


@contextmanager
def eventfd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def count(fd: int) -> int:
    """What has been added since the last look."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def effects(**fields: int) -> Body:
    """A handler that asks for effects."""

    def body(exit_: Any, _: Any) -> bool:
        for name, value in fields.items():
            setattr(exit_, name, value)
        return True

    return body


def machine(bodies: dict[str, Body], *wires: WireSpec) -> VM:
    vm = VM([device("dev", list(bodies), 0x40)])
    vm.attach(Callbacks(bodies))
    vm.wire(*wires)
    return vm


def test_a_signal_that_is_noticed_writes_its_eventfd_and_not_its_model() -> None:
    vm = machine({"pio/write@0x0:1": effects(signal=0b1001)})
    model: Any = vm.devices[0].model
    with eventfd() as fd:
        vm.notify_signal("dev", "tx", vm.add_notice(fd))
        for _ in range(3):
            vm.access(PIO, WRITE, 0x40, 1, time=1)
        assert count(fd) == 3
        assert set(model.seen) == {("signal", "bell")}
        vm.close_notices()


def test_a_wire_to_an_eventfd_writes_it_when_the_line_rises() -> None:
    vm = machine({"pio/write@0x0:1": effects(**{"raise": 1}), "pio/write@0x1:1": effects(lower=1)})
    with eventfd() as fd:
        vm.wire(WireSpec("dev", "out", notice=vm.add_notice(fd)))
        counts = []
        for port in (0x40, 0x40, 0x41, 0x41, 0x40):
            vm.access(PIO, WRITE, port, 1, time=1)
            counts.append(count(fd))
        assert counts == [1, 0, 0, 0, 1]
        vm.close_notices()


def test_an_acknowledged_level_that_is_still_high_writes_its_eventfd_at_once() -> None:
    """KVM_IRQFD_FLAG_RESAMPLE. Whoever is told may be all that moves the line: no vCPU runs for it."""
    vm = machine({}, WireSpec("dev", "out", guest=9))
    (dev,) = vm.devices
    vm.set_level_triggered(1 << 9)
    with eventfd() as fd:
        vm.set_resample(9, vm.add_notice(fd))
        dev.raise_line("out")
        assert vm.guest_pending == 1 << 9
        vm.acknowledge(9)
        assert (count(fd), vm.guest_pending) == (1, 1 << 9)
        dev.lower_line("out")
        assert (count(fd), vm.guest_pending) == (0, 0)
        vm.close_notices()


def test_an_acknowledged_edge_is_gone_and_tells_nobody() -> None:
    vm = machine({}, WireSpec("dev", "out", guest=9))
    with eventfd() as fd:
        vm.set_resample(9, vm.add_notice(fd))
        vm.devices[0].raise_line("out")
        vm.acknowledge(9)
        assert (count(fd), vm.guest_pending, vm.guest_lines) == (0, 0, 1 << 9)
        vm.close_notices()


def test_a_line_that_a_model_raises_while_no_vcpu_runs_writes_its_eventfd_at_once() -> None:
    vm = machine({})
    with eventfd() as fd:
        vm.wire(WireSpec("dev", "out", notice=vm.add_notice(fd)))
        vm.devices[0].raise_line("out")
        assert count(fd) == 1
        vm.close_notices()


def test_there_is_a_cap_on_eventfds() -> None:
    vm = machine({})
    with eventfd() as fd:
        numbers = [vm.add_notice(fd) for _ in range(limits.NOTICES)]
        assert len(set(numbers)) == len(numbers)
        with pytest.raises(Rejected) as caught:
            vm.add_notice(fd)
        assert [each.code.id for each in caught.value.diagnostics] == ["H008"]
        vm.close_notices()
