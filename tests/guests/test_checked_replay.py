"""Recorded guests on the checked engine: every instruction of the shipped programs is held to its proof.

A run of the suite takes the first accesses of the boot; the long profile takes whole recordings.
"""

from __future__ import annotations

import json
from dataclasses import replace as with_changes
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from devbc.catalog import load_machine
from devbc.cli.main import main
from devbc.cli.output import EXIT_INTERNAL
from devbc.engines.checked import CheckedEngine, CheckedHandler, Unsound
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


TRACE = """\
# exit-trace 1
# rtc_base=2024-02-28T23:58:00Z
1000\t0\tpio\tread\t0x608\t4\t0x3\tacpi-tmr
"""


def test_at_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "a.tsv"
    trace.write_text(TRACE)
    assert main(["replay", "--engine", "checked", "--json", str(trace)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["handled"] == 1
    assert 10 < answer["checked_instructions"] < 100


def test_a_violation_is_a_bug_of_ours(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Unsound("pio/read@0x0:4", 3, "no state that was explored here admits r0 = 0x7")

    monkeypatch.setattr(CheckedHandler, "run", fail)
    trace = tmp_path / "a.tsv"
    trace.write_text(TRACE)
    assert main(["replay", "--engine", "checked", str(trace)]) == EXIT_INTERNAL
    out, err = capsys.readouterr()
    assert not out
    assert "no state that was explored here admits r0 = 0x7" in err


@pytest.mark.long
def test_linux_boots() -> None:
    result, steps = checked(read_recording(BOOT))
    assert result.mismatches == ()
    assert steps > 5_000_000


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
def test_random_programming_for_long(device: str) -> None:
    assert checked(read_recording(shared(f"traces/random/{device}-2.tsv.gz")))[0].mismatches == ()
