"""The host's clock among vCPUs: no handler finds a time before that of the state which it finds.

A device takes lap times: how long ago somebody, on whichever vCPU, took the last one. Read too early, the
counter gives less than the lap's start, and a time of centuries. What is ordered, and where that is left out
because nothing has changed, is `exit_loop._handle`'s; that the fences are needed is tested here, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import devbc.hypervisor.exit_loop as exit_loop
import devbc.hypervisor.native_machine as native_machine
import devbc.hypervisor.vm as vm_module
from devbc.abi import Op, Space
from devbc.catalog import load_machine
from devbc.engines.clock import tsc_is_usable
from devbc.engines.jit import JitEngine
from devbc.hypervisor.layouts import Outcome
from devbc.hypervisor.vm import VM
from tests.hypervisor.machines import RecordingModel
from tests.hypervisor.torture import SECONDS, accesses, batch, run_threads, spec

GoOn = Callable[[], bool]
#: Beyond any time that a test takes, in ns.
YEAR = 365 * 24 * 3600 * 10**9

LAPS = """
device laps {
    state { last: u64 }
    bank mmio[0x10] {
        register lap at 0 : u64 {
            read {
                let at = now();
                let lap = at - state.last;
                state.last = at;
                return lap;
            }
        }
        SINCE
    }
}
"""
SINCE = "register since at 8 : u64 { read { return now() - state.last; } }"
#: Two vCPUs that take laps, and one that does beside one that only looks.
SCENES = {"lock": (LAPS.replace("SINCE", ""), (0, 0)), "sequence": (LAPS.replace("SINCE", SINCE), (0, 8))}


class Laps(RecordingModel):
    """Never asked for anything but to begin, and for what finds the lock taken."""

    def reset(self) -> None:
        self.scratch.last = self.host.now()

    def read(self, bank: str, offset: int, size: int) -> int:
        return 0


def play(name: str, seconds: float) -> tuple[int, int]:
    """Times that were read, and the longest of them."""
    source, offsets = SCENES[name]
    vm = VM([spec("laps", source, Laps, {"mmio": 0})], live=True, vcpus=2)
    vm.attach(JitEngine())
    longest = [0, 0]
    count = [0, 0]

    def vcpu(number: int) -> Callable[[GoOn], None]:
        def body(go_on: GoOn) -> None:
            run = batch(accesses(Space.MMIO, Op.READ, offsets[number], 8, vcpu=number))
            while go_on() and max(longest) < YEAR:
                run.cursor.index = 0
                vm.run(run, vcpu=number)
                longest[number] = max(longest[number], *run.answers)
                count[number] += run.outcomes.count(Outcome.HANDLED)

        return body

    run_threads(seconds, vcpu(0), vcpu(1))
    return min(count), max(longest)


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("name", SCENES)
def test_no_interval_is_negative(name: str, seconds: float) -> None:
    count, longest = play(name, seconds)
    assert count > 1000
    assert longest < YEAR


@contextmanager
def unordered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """VMs whose exit loop has no fence before the clock."""
    with monkeypatch.context() as patch:
        patch.setattr(exit_loop, "order_clock", lambda builder: None)
        patch.setattr(native_machine, "machine_version", lambda: "unordered")
        machine = native_machine.NativeMachine()
        patch.setattr(vm_module, "native_machine", lambda: machine)
        yield


@pytest.mark.skipif(not tsc_is_usable() or (os.cpu_count() or 1) < 2, reason="one CPU, or no counter")
def test_without_fences_intervals_are_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above looks for is there to be found."""
    with unordered(monkeypatch):
        assert play("sequence", 120)[1] > YEAR


def test_only_what_pure_handlers_run_beside_waits_for_its_lock() -> None:
    """Writers of the HPET, whose counter is read without a lock; not the PIT, which is always locked."""
    vm = VM(load_machine("pc")[0])
    vm.attach(JitEngine())
    fenced: dict[str, set[str]] = {}
    for device in vm.devices:
        assert device.installed
        fenced[device.name] = {
            each.handler.section
            for slot, each in zip(device.installed.slots, device.installed.verified.handlers, strict=True)
            if slot.fenced
        }
    assert any(section.startswith("mmio/write@0x10:") for section in fenced.pop("hpet"))
    assert set().union(*fenced.values()) == set()


@pytest.mark.parametrize("live", [False, True])
def test_a_clock_is_shared_once_it_runs_by_itself_and_has_two_readers(live: bool) -> None:
    vm = VM(live=live)
    assert not vm._machine.clock_shared
    vm.create_vcpu()
    assert vm._machine.clock_shared == live
