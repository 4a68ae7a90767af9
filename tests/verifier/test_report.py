"""The report names what a handler touches by the program's own fields."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

from devbc.program.elf import load_object
from devbc.program.verified import ByteRange
from devbc.verifier import verify_program
from devbc.verifier.report import field_names, report_json, report_text

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
