"""Recorded guests against programs and models: every value that a read returns is the recorded one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from devbc.abi import Op
from devbc.catalog import load_machine, load_program
from devbc.cli.replay import make_engine
from devbc.engines.jit import JitEngine
from devbc.guests.recording import Recording, read_recording
from devbc.guests.replay import RegisterName, Replay, Tally, replay
from devbc.hypervisor.vm import VM
from devbc.verifier import verify_program
from tests.shared import shared

#: Not `checked`, which takes minutes: `test_checked_replay.py`.
ENGINES = ("jit", "interp", "none")
BOOT = Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz"
CLANG_PM_TIMER = Path(__file__).parents[1] / "data" / "clang" / "acpi_pm_timer.o"
RANDOM = [f"{device}-{number}" for device in ("pit", "rtc", "pmtimer", "hpet", "uart") for number in (1, 2)]


@cache
def recording(path: Path) -> Recording:
    return read_recording(path)


@cache
def pc() -> Any:
    return load_machine("pc")


def run(path: Path, engine: str) -> Replay:
    devices, wires = pc()
    guest = recording(path)
    vm = VM(devices, wires, rtc_base=guest.rtc_base)
    if loaded := make_engine(engine):
        vm.attach(loaded)
    return replay(guest, vm)


def own_registers(result: Replay) -> Tally:
    """The accesses that belong to a device."""
    total = Tally()
    for name, tally in result.registers.items():
        if name.device:
            total.add(tally)
    return total


@pytest.mark.parametrize("engine", ENGINES)
def test_linux_boots(engine: str) -> None:
    result = run(BOOT, engine)
    assert result.mismatches == ()
    assert result.total.accesses == 484_222
    assert result.total.handled >= (0 if engine == "none" else 0.98 * result.total.accesses)


@pytest.mark.parametrize("engine", ENGINES)
def test_linux_runs_userland(engine: str) -> None:
    result = run(shared("traces/x86-pc-userland.tsv.gz"), engine)
    assert result.mismatches == ()
    assert result.total.handled >= (0 if engine == "none" else 0.85 * result.total.accesses)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", RANDOM)
def test_random_programming(name: str, engine: str) -> None:
    result = run(shared(f"traces/random/{name}.tsv.gz"), engine)
    assert result.mismatches == ()
    own = own_registers(result)
    assert own.accesses > 5000
    assert own.handled >= (0 if engine == "none" else 0.9 * own.accesses)


def test_an_untimed_replay_counts_the_same() -> None:
    path = shared("traces/random/hpet-1.tsv.gz")
    devices, wires = pc()
    guest = recording(path)
    vm = VM(devices, wires, rtc_base=guest.rtc_base)
    vm.attach(JitEngine())
    untimed, timed = replay(guest, vm, timed=False), run(path, "jit")
    for result in (untimed, timed):
        assert result.mismatches == ()
    assert (untimed.total.handled, untimed.total.declined) == (timed.total.handled, timed.total.declined)
    assert untimed.total.ns_per_handled_exit is None


def test_what_nobody_claims_is_counted_and_answered() -> None:
    result = run(BOOT, "none")
    assert result.total.unclaimed + result.total.declined == result.total.accesses
    assert 0 < result.total.unclaimed < 0.02 * result.total.accesses


@pytest.mark.parametrize("engine", ENGINES)
def test_a_device_in_c_replays_like_its_twin(engine: str) -> None:
    """The PM timer as clang compiled it, in the place of the one from the mini-language."""
    devices, wires = pc()
    program = verify_program(load_program(CLANG_PM_TIMER))
    in_c = [replace(each, verified=program) if each.name == "pmtimer" else each for each in devices]
    guest = recording(BOOT)
    vm = VM(in_c, wires, rtc_base=guest.rtc_base)
    if loaded := make_engine(engine):
        vm.attach(loaded)
    result, twin = replay(guest, vm), run(BOOT, engine)
    assert result.mismatches == ()
    counts = [
        {k: (t.accesses, t.handled, t.declined) for k, t in each.registers.items()} for each in (result, twin)
    ]
    assert counts[0] == counts[1]
    assert result.registers[RegisterName("pmtimer", "tmr_val", Op.READ)].accesses == 196
