"""Recorded guests against programs and models: every value that a read returns is the recorded one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from devbc.catalog import load_machine
from devbc.cli.replay import ENGINES, make_engine
from devbc.guests.recording import Recording, read_recording
from devbc.guests.replay import Replay, Tally, replay
from devbc.hypervisor.vm import VM
from tests.shared import shared

BOOT = Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz"
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


def test_what_nobody_claims_is_counted_and_answered() -> None:
    result = run(BOOT, "none")
    assert result.total.unclaimed + result.total.declined == result.total.accesses
    assert 0 < result.total.unclaimed < 0.02 * result.total.accesses
