"""The report names what a handler touches by the program's own fields."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

from devbc.diagnostics import Span
from devbc.program.elf import load_object
from devbc.program.program import Handler, Names, Program
from devbc.program.verified import ByteRange
from devbc.verifier import DEFAULT, verify_program
from devbc.verifier.explanation import longest_run
from devbc.verifier.fields import field_names, folded
from devbc.verifier.report import report_json, report_text
from tests.verifier.oracle import handler

CLANG = Path(__file__).parents[1] / "data" / "clang"


class Channel(ctypes.LittleEndianStructure):
    _fields_ = (("start", ctypes.c_uint64), ("mode", ctypes.c_uint8), ("count", ctypes.c_uint8 * 7))


class Area(ctypes.LittleEndianStructure):
    _fields_ = (("flags", ctypes.c_uint32), ("lines", ctypes.c_uint32), ("channel", Channel * 3))


def names(*bounds: int) -> list[str]:
    return list(field_names(Area, [ByteRange(*each) for each in batched(bounds)]))


def batched(bounds: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return zip(bounds[::2], bounds[1::2], strict=True)


def test_ranges_have_the_names_of_fields() -> None:
    assert names(0, 4) == ["flags"]
    assert names(3, 5) == ["flags", "lines"]
    assert names(8, 16) == ["channel[0].start"]
    assert names(24 + 8, 24 + 9) == ["channel[1].mode"]
    assert names(24 + 9, 24 + 16) == ["channel[1].count[0..=6]"]
    assert names(24 + 10, 24 + 11) == ["channel[1].count[1]"]
    assert names(8, 16, 24, 32, 40, 48) == ["channel[0..=2].start"]
    assert names(8, 16, 40, 48) == ["channel[0, 2].start"]
    assert names(16, 18, 33, 35) == ["channel[0].mode", "channel[0].count[0]", "channel[1].count[0..=1]"]
    assert names(24, 56) == [f"channel[1..=2].{each}" for each in ("start", "mode", "count[0..=6]")]


def test_a_program_from_clang() -> None:
    program = load_object((CLANG / "interval_timer.o").read_bytes(), name="interval_timer.o")
    verified = verify_program(program)
    report = report_json(verified)
    assert report["device"] == "interval_timer"
    tick = next(each for each in report["handlers"] if each["section"] == "timer/tick")
    assert tick["class"] == "pure"
    assert tick["effects"] == ["raise", "lower"]
    gate = next(each for each in report["handlers"] if each["section"] == "line/gate")
    assert gate["scratch_written"][0]["fields"] == ["channel[2].loaded_at"]
    text = report_text(verified)
    assert "interval_timer: 5 handlers verified, 64 bytes of scratch, 4 bytes of read-only data" in text
    assert "    effects  raise, lower" in text


def test_the_lines_of_a_program_from_clang() -> None:
    """What is explained adds up, and names lines that do what is said of them."""
    program = load_object((CLANG / "interval_timer.o").read_bytes(), name="interval_timer.o")
    for report in report_json(verify_program(program), explain=DEFAULT)["handlers"]:
        longest = report["longest_run"]
        assert sum(each["instructions"] for each in longest) == report["worst_case"]
        assert (report["class"] == "mutating") == bool(report["written_at"])
        assert all("=" in each["text"] for each in report["written_at"])
        said = {what for each in report["effects_at"] for what in each["what"]}
        assert said == {*report["effects"], *report["helpers"]}


def test_rounds_of_a_loop() -> None:
    text = "mov %r2, 10\nl:\nadd %r2, -1\njne %r2, 0, l\nmov %r0, 1\nexit"
    plain = handler(text)
    lines = {0: Span("a.c", 1, text="u64 n = 10;"), 1: Span("a.c", 2, text="n--;"), 3: Span("a.c", 3)}
    program = Program(
        "", (Handler(plain.section, plain.binding, plain.code, plain.functions, lines),), b"", b"",
        Names(), (),
    )  # fmt: skip
    (verified,) = verify_program(program).handlers
    shares = longest_run(program, verified, DEFAULT)
    assert [(each.span.line, each.instructions, each.rounds) for each in shares] == [
        (1, 1, 1), (2, 20, 10), (3, 2, 1),
    ]  # fmt: skip


def test_names_of_one_structure_are_folded() -> None:
    assert folded(["a", "c[0].x", "b", "c[0].y", "d.z"]) == ["a", "c[0].{x, y}", "b", "d.z"]


def test_text_keeps_to_the_width() -> None:
    program = load_object((CLANG / "interval_timer.o").read_bytes(), name="interval_timer.o")
    verified = verify_program(program)
    for width in (60, 80, 132):
        text = report_text(verified, width=width, explain=DEFAULT)
        indented = [line for line in text.splitlines() if line.startswith("    ")]
        assert indented
        assert all(len(line) <= width for line in indented)
