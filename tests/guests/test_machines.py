"""The machine of a recording: found by its header, and every value the recorded one.

The repository holds the first accesses of the Arm and RISC-V recordings; the whole ones are kept beside it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from devbc.abi import Op, Space
from devbc.catalog import load_machine, machine_of
from devbc.cli.main import main
from devbc.cli.replay import make_engine
from devbc.guests.recording import read_recording
from devbc.guests.replay import Replay, replay
from devbc.hypervisor.vm import VM
from tests.shared import shared

ENGINES = ("jit", "interp", "none")
EXCERPTS = Path(__file__).parents[1] / "data" / "traces"
MACHINES = ("virt-arm64", "virt-riscv64")
BOOT = Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz"

loaded = cache(load_machine)


def run(path: Path, engine: str) -> Replay:
    recording = read_recording(path)
    name = machine_of(recording.machine)
    assert name is not None
    devices, wires = loaded(name)
    vm = VM(devices, wires, rtc_base=recording.rtc_base)
    if made := make_engine(engine):
        vm.attach(made)
    return replay(recording, vm)


@pytest.mark.parametrize("engine", [*ENGINES, "checked"])
@pytest.mark.parametrize("machine", MACHINES)
def test_first_accesses(machine: str, engine: str) -> None:
    result = run(EXCERPTS / f"{machine}.tsv", engine)
    assert result.mismatches == ()
    assert result.total.handled == (0 if engine == "none" else result.total.accesses - result.total.unclaimed)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "share"), [("arm64-virt-userland", 0.95), ("riscv64-virt-firmware", 0.98)])
def test_whole_recordings(name: str, share: float, engine: str) -> None:
    """Unclaimed are interrupt controllers, flash and PCI; a full transmit ring declines."""
    result = run(shared(f"traces/{name}.tsv.gz"), engine)
    assert result.mismatches == ()
    if engine != "none":
        assert result.total.handled >= share * result.total.accesses
        assert result.total.declined <= 4


#: What makes each line of a machine rise: writes, then the ns until it does.
INTERRUPTS: list[tuple[str, int, list[tuple[int, int, int]], int]] = [
    ("virt-arm64", 33, [(0x900_0038, 4, 0x20), (0x900_0000, 1, 0x41)], 0),  # TX enabled, a character
    ("virt-arm64", 34, [(0x901_0010, 4, 1), (0x901_0008, 4, 100), (0x901_0004, 4, 103)], 3_000_000_000),
    ("virt-riscv64", 10, [(0x1000_0001, 1, 0x02)], 0),  # THR is empty
    ("virt-riscv64", 11, [(0x10_1010, 4, 1), (0x10_100C, 4, 0), (0x10_1008, 4, 5_000)], 5_000),
]


@pytest.mark.parametrize("engine", ["jit", "none"])
@pytest.mark.parametrize(("machine", "line", "writes", "wait"), INTERRUPTS)
def test_interrupts_arrive_where_the_board_has_them(
    machine: str, line: int, writes: list[tuple[int, int, int]], wait: int, engine: str
) -> None:
    """Time is 0 at power-on, in 1970; a read of nobody's address lets what is due happen."""
    devices, wires = loaded(machine)
    vm = VM(devices, wires)
    if made := make_engine(engine):
        vm.attach(made)
    for address, size, value in writes:
        assert not vm.guest_lines
        vm.access(Space.MMIO, Op.WRITE, address, size, value, time=0)
    for time in (wait - 1, wait) if wait else (0,):
        vm.access(Space.MMIO, Op.READ, 0, 4, time=time)
        assert vm.guest_lines == (1 << line if time == wait else 0)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("command", ["replay", "profile"])
def test_commands_find_the_machine_in_the_header(
    command: str, machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(EXCERPTS / f"{machine}.tsv"), "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["machine"] == machine


def test_recordings_of_several_machines_are_replayed_together(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [EXCERPTS / f"{machine}.tsv" for machine in MACHINES]
    assert main(["replay", *map(str, paths), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["machine"] == "virt-arm64, virt-riscv64"
    assert answer["accesses"] == sum(len(read_recording(path)) for path in paths)
    assert answer["registers"].keys() >= {"uart0.fr read", "uart0.line_status read"}


def test_a_pc_is_a_pc() -> None:
    assert machine_of(read_recording(BOOT).machine) == "pc"


@pytest.mark.parametrize(
    "recorded", ["", "pc-q35", "../machines/pc", "./board.toml", "pc.toml", "p" * 10_000, "pc\x1b[31m", "."]
)
def test_a_header_names_a_machine_and_no_path(recorded: str) -> None:
    assert machine_of(recorded) is None


def test_a_users_own_machine_is_found(tmp_path: Path) -> None:
    (tmp_path / "machines").mkdir()
    (tmp_path / "machines" / "board.toml").write_text("")
    assert machine_of("board") is None
    assert machine_of("board", [tmp_path]) == "board"
