"""A device's userspace model on a bench: virtual time, timers, lines, and no machine around it.

Time moves only in `advance`; timers expire at their deadlines in order. What the model did to its lines is
kept as rising edges, with their times.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from devbc.program.elf import load_object
from devbc.program.verified import VerifiedProgram
from devbc.verifier.verify import verify_program
from devbc_lang import compile_file

DEVICES = Path(__file__).resolve().parents[2] / "devices"


@cache
def model_module(device: str) -> ModuleType:
    """`devices/NAME/model.py`, loaded by path as the machine loads it."""
    spec = importlib.util.spec_from_file_location(f"model_of_{device}", DEVICES / device / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Bench:
    """One model and what it sees of a machine (`devbc.hypervisor.model.Host`)."""

    rtc_base = 0

    def __init__(self, device: str, area: Any, *, start: int = 0, module: ModuleType | None = None) -> None:
        self.area = area
        self.time = start
        self.deadlines: dict[str, int] = {}
        self.levels: dict[str, int] = {}
        self.edges: list[tuple[int, str]] = []
        self.model = (module or model_module(device)).Model(area, self)
        self.model.reset()

    # What the model may ask of it

    def now(self) -> int:
        return self.time

    def raise_line(self, line: str) -> None:
        if not self.levels.get(line):
            self.edges.append((self.time, line))
        self.levels[line] = 1

    def lower_line(self, line: str) -> None:
        self.levels[line] = 0

    def arm(self, timer: str, deadline: int) -> None:
        self.deadlines[timer] = deadline

    def cancel(self, timer: str) -> None:
        self.deadlines.pop(timer, None)

    # What a test does to it

    def advance(self, ns: int) -> None:
        """Let `ns` pass."""
        end = self.time + ns
        self.expire(end)
        self.time = end

    def expire(self, end: int) -> None:
        while self.deadlines:
            timer, deadline = min(self.deadlines.items(), key=lambda each: (each[1], each[0]))
            if deadline > end:
                return
            del self.deadlines[timer]
            self.time = max(self.time, deadline)
            self.model.timer(timer, deadline)

    def read(self, offset: int, size: int = 1, bank: str = "pio") -> int:
        self.expire(self.time)
        value = self.model.read(bank, offset, size)
        assert isinstance(value, int)
        assert 0 <= value < 1 << 8 * size
        return value

    def write(self, offset: int, value: int, size: int = 1, bank: str = "pio") -> None:
        self.expire(self.time)
        self.model.write(bank, offset, size, value)

    def rises(self, line: str) -> list[int]:
        """Times at which the line rose."""
        return [time for time, name in self.edges if name == line]


@cache
def program(device: str) -> VerifiedProgram:
    """The device's fast path, compiled and verified."""
    source = DEVICES / device / f"{device}.dev"
    return verify_program(load_object(compile_file(source), name=source.name))


def new_area(device: str) -> Any:
    """A shared area in its initial state, typed by the program's BTF; None if it is empty."""
    kind = program(device).program.scratch_type
    return kind.from_buffer_copy(program(device).program.scratch_image) if kind else None
