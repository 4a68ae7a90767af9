"""Several vCPUs at once, each in a thread of its own: nothing is lost, and who answers may change meanwhile.

What is counted here is exact: every access, line change, signal and timer of every vCPU arrives once.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from devbc.abi import Op, Space
from devbc.engines.clock import ClockKind
from devbc.engines.jit import JitEngine
from devbc.hypervisor.layouts import DEVICE, OFFLINE
from devbc.hypervisor.vm import VM
from tests.hypervisor.machines import Body, Callbacks, RecordingModel, device
from tests.hypervisor.torture import accesses, batch, run_threads, spec

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
