"""Recorded guests on the checked engine: every instruction of the shipped programs is held to its proof.

A run of the suite takes the first accesses of the boot; the long profile takes whole recordings.
"""

from __future__ import annotations

from dataclasses import replace as with_changes
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from devbc.catalog import load_machine
from devbc.engines.checked import CheckedEngine
from devbc.guests.recording import Recording, read_recording
from devbc.guests.replay import Replay, replay
from devbc.hypervisor.layouts import ACCESS
from devbc.hypervisor.vm import VM
from tests.shared import shared

BOOT = Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz"
DEVICES = ("pit", "rtc", "pmtimer", "hpet", "uart")


@cache
def pc() -> Any:
    return load_machine("pc")


def checked(guest: Recording, accesses: int | None = None) -> tuple[Replay, int]:
    """A replay of so many accesses, and the instructions that were checked."""
    if accesses is not None:
        guest = with_changes(
            guest,
            accesses=guest.accesses[: accesses * ACCESS.size],
            target_of=guest.target_of[:accesses],
        )
    devices, wires = pc()
    engine = CheckedEngine()
    vm = VM(devices, wires, rtc_base=guest.rtc_base)
    vm.attach(engine)
    result = replay(guest, vm)
    engine.raise_failure()
    return result, engine.steps


def test_the_boot_begins() -> None:
    result, steps = checked(read_recording(BOOT), 3_000)
    assert result.mismatches == ()
    assert result.total.handled > 1_500
    assert steps > 30_000


@pytest.mark.parametrize("device", DEVICES)
def test_random_programming(device: str) -> None:
    result, steps = checked(read_recording(shared(f"traces/random/{device}-1.tsv.gz")), 400)
    assert result.mismatches == ()
    assert result.total.handled > 200
    assert steps > 2_000


@pytest.mark.long
def test_linux_boots() -> None:
    result, steps = checked(read_recording(BOOT))
    assert result.mismatches == ()
    assert steps > 5_000_000


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
def test_random_programming_for_long(device: str) -> None:
    assert checked(read_recording(shared(f"traces/random/{device}-2.tsv.gz")))[0].mismatches == ()
