"""Objects from clang, loaded and run: what was linked must compute what the C source says."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from devbc.abi import Space, Verdict
from devbc.program.elf import load_object
from devbc.program.program import Bank, Program, Register
from tests.program.objects import DATA, INCLUDE, clang, handler, load, run

READ = "pio/read@0x0-0x2:1"
CONTROL = "pio/read@0x3:1"
WRITE = "pio/write@0x0-0x2:1"


def _area(program: Program) -> tuple[bytearray, Any]:
    """A shared area in its initial state, as bytes and by its names."""
    area = bytearray(program.scratch_image)
    assert program.scratch_type is not None
    return area, program.scratch_type.from_buffer(area)


@pytest.mark.parametrize("ns", [0, 1, 10**9, 4_686_000_000, 4_688_000_000, 2**63 + 12345])
@pytest.mark.parametrize(("offset", "size"), [(0, 4), (0, 2), (2, 2), (0, 1), (1, 1), (3, 1)])
def test_pm_timer_counts(ns: int, offset: int, size: int) -> None:
    counter = ns * 3_579_545 // 10**9 & 0xFF_FFFF
    wanted = counter.to_bytes(4, "little")[offset : offset + size]
    clock = (ns - 777) % 2**64
    fields = {"clock_offset": 777, "offset": offset, "size": size}
    verdict, exit = run(load("acpi_pm_timer"), "pio/read@0x0-0x3:1,2,4", bytearray(), clock=clock, **fields)
    assert (verdict, exit["value"]) == (Verdict.HANDLED, int.from_bytes(wanted, "little"))


def test_pm_timer_describes_itself() -> None:
    program = load("acpi_pm_timer")
    assert program.device == "acpi_pm_timer"
    assert program.banks == (Bank("pio", Space.PIO, 4),)
    assert program.registers == (Register("tmr_val", "pio", 0, 4),)
    assert (program.scratch_image, program.rodata, program.scratch_type) == (b"", b"", None)


def test_interval_timer_describes_itself() -> None:
    program = load("interval_timer")
    assert program.names.timers == {0: "tick"}
    assert program.names.lines == {0: "irq"}
    assert program.names.inputs == {0: "gate"}
    assert program.names.signals == {}
    assert program.registers[0] == Register("counter", "pio", 0, 1, 3, 1)
    assert [each.section for each in program.handlers] == [READ, CONTROL, WRITE, "timer/tick", "line/gate"]


def test_initial_values_are_seen_by_name() -> None:
    """The compiler placed the values, BTF names them: the view must find each where the compiler put it."""
    _, scratch = _area(load("interval_timer"))
    assert [channel.reload for channel in scratch.channel] == [65536, 18, 65536]
    assert scratch.trim == -1
    assert scratch.channel[0].latched is False
    assert len(scratch.shadow) == 2
    assert len(scratch.shadow[0]) == 3


def test_stores_of_a_handler_are_seen_by_name() -> None:
    program = load("interval_timer")
    area, scratch = _area(program)
    verdict, exit = run(program, WRITE, area, clock=5000, offset=1, value=0x1234, size=1)
    assert verdict is Verdict.HANDLED
    assert (scratch.channel[1].reload, scratch.channel[1].loaded_at) == (0x34, 5000)
    assert list(scratch.shadow[1]) == [0, 0x34, 0]
    assert exit["arm"] == 0


def test_effects_of_a_handler() -> None:
    program = load("interval_timer")
    area, _ = _area(program)
    _, exit = run(program, WRITE, area, clock=10**6, offset=0, value=200, size=1)
    assert exit["arm"] == 1
    assert exit["deadline"][0] == 10**6 + 200 * 10**9 // 1_193_182
    _, exit = run(program, "timer/tick", area)
    assert (exit["raise"], exit["lower"]) == (1, 1)


def test_calls_across_sections() -> None:
    """`counter_read` calls `remaining`, and that `ticks_since`, both in `.text`."""
    program = load("interval_timer")
    names = [function.name for function in handler(program, READ).functions]
    assert names == ["counter_read", "remaining", "ticks_since"]
    area, scratch = _area(program)
    scratch.channel[1].loaded_at = 1000
    scratch.channel[1].reload = 1000
    for ns in (1000, 500_000, 123_456_789):
        ticks = (ns - 1000) * 1_193_182 // 10**9
        _, exit = run(program, READ, area, clock=ns, offset=1, size=1)
        assert exit["value"] == (1000 - ticks % 1000) & 0xFF


def test_unnamed_members_overlay_each_other() -> None:
    program = load("interval_timer")
    area, scratch = _area(program)
    scratch.channel[2].latched = True
    scratch.channel[2].latch = 0xABCD
    verdict, exit = run(program, READ, area, offset=2, size=1)
    assert (verdict, exit["value"]) == (Verdict.HANDLED, scratch.channel[2].latch_byte[0])
    assert scratch.channel[2].latched is False


@pytest.mark.parametrize(("mode", "eighths"), [(0, 8), (1, 7), (2, 4), (3, 1)])
def test_table_in_read_only_data(mode: int, eighths: int) -> None:
    program = load("interval_timer")
    area, scratch = _area(program)
    scratch.channel[2].mode = mode
    scratch.channel[2].reload = 80
    for phase in range(80):
        ns = -(-phase * 10**9 // 1_193_182)
        _, exit = run(program, CONTROL, area, clock=ns, size=1, offset=3)
        assert exit["value"] == (phase * 8 < 80 * eighths)


def test_declines_leave_the_area_alone() -> None:
    program = load("interval_timer")
    area, _ = _area(program)
    assert run(program, WRITE, area, offset=1, value=0, size=1)[0] is Verdict.DECLINE
    assert run(program, "line/gate", area, value=0)[0] is Verdict.DECLINE
    assert area == program.scratch_image


def test_lines_lead_to_the_source() -> None:
    """Each place's text is that line of the source, and each function's places lie in that function."""
    program = load("interval_timer")
    source = (DATA / "interval_timer.c").read_text().splitlines()
    header = (INCLUDE / "devbc.h").read_text().splitlines()
    for each in program.handlers:
        assert each.lines
        starts = [function.slot for function in each.functions]
        assert all(slot in each.lines for slot in starts)
        for span in each.lines.values():
            text = header if span.file.endswith("devbc.h") else source
            assert text[span.line - 1] == span.text
            assert span.text[span.column - 1 : span.end_column - 1].strip()
    code = handler(program, READ)
    texts = {code.span(function.slot).text for function in code.functions[1:]}  # type: ignore[union-attr]
    assert any("ticks_since(u64 start" in text or "return devbc_muldiv" in text for text in texts)


def test_places_of_instructions() -> None:
    span = handler(load("interval_timer"), "timer/tick").span(1)
    assert span is not None
    assert span.text == "\texit->raise |= DEVBC_BIT(IRQ);"
    assert span.text[span.column - 1 : span.end_column - 1] == "|="


@pytest.mark.skipif(clang() is None, reason="needs a clang with BPF's cpu v4")
@pytest.mark.parametrize("name", ["acpi_pm_timer", "interval_timer"])
def test_compiled_again(name: str, tmp_path: Path) -> None:
    """Another clang may choose other instructions; what it exports must be the same."""
    made = tmp_path / f"{name}.o"
    flags = ["-target", "bpf", "-mcpu=v4", "-O2", "-g", "-fno-jump-tables", "-Wall", "-Wextra", "-Werror"]
    files = ["-c", str(DATA / f"{name}.c"), "-o", str(made)]
    command = [clang() or "", *flags, "-Wno-unused-parameter", f"-I{INCLUDE}", *files]
    subprocess.run(command, check=True)
    again, kept = load_object(made.read_bytes(), name=made.name), load(name)
    for one, other in zip(again.handlers, kept.handlers, strict=True):
        assert (one.section, one.binding) == (other.section, other.binding)
        assert one.functions[0].name == other.functions[0].name
    assert again.scratch_image == kept.scratch_image
    assert (again.device, again.names, again.banks) == (kept.device, kept.names, kept.banks)
    assert again.registers == kept.registers
    assert _fields(again.scratch_type) == _fields(kept.scratch_type)


def _fields(view: Any) -> list[tuple[str, int, int]]:
    fields = view._fields_ if view else []
    return [(name, getattr(view, name).offset, getattr(view, name).size) for name, _ in fields]
