"""The log of an exploration: each instruction in the order in which it is explored, with what it changed.

    pio/read@0x0:1
      ; port.dev:7: let i = state.head;
        2  r3 = *(u8 *)(r2 + 16)              r3 is in 0..=255
        3  if r3 > 15 goto L6                 r3 is in 0..=15
        ...
           back to 3, the other way: r3 is in 16..=255

A path ends where the handler returns, or where it comes to a place from which everything has been explored.

Not here: what of it matters for a fault (`slice.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from devbc.diagnostics import Diagnostic, Rejected
from devbc.isa.disasm import disassemble
from devbc.program.verified import VerifiedHandler
from devbc.verifier.explore import Exploration
from devbc.verifier.prepare import prepare
from devbc.verifier.state import State
from devbc.verifier.trail import Point, Setting, point
from devbc.verifier.verify import prove

#: Columns of an instruction's text.
_COLUMN: Final = 34


@dataclass(frozen=True, slots=True)
class Entry:
    """One explored instruction.

    `depth`: its number on its path, from 1; before it on that path comes the last entry of depth - 1.
    `changes`: of the state, from that entry's to this one's, by register or stack cell. `file` and `line`:
    where it comes from; line 0 if the program does not say.
    """

    depth: int
    slot: int
    instruction: str
    changes: dict[str, str]
    file: str
    line: int
    text: str


def trace(setting: Setting, entry: Callable[[Entry], None]) -> VerifiedHandler | tuple[Diagnostic, ...]:
    """Verify a handler and hand out each explored instruction; what came of it: the proof, or why not."""
    try:
        tracer = _Tracer(setting, entry)
        return prove(tracer.exploration, setting.policy)
    except Rejected as rejected:
        return rejected.diagnostics


class _Tracer:
    """The observer: remembers the path to the instruction at hand, to tell what changed."""

    def __init__(self, setting: Setting, entry: Callable[[Entry], None]) -> None:
        self._path: list[Point] = []
        self._entry = entry
        self._lines = setting.handler.lines
        self.exploration: Exploration = prepare(
            setting.handler,
            setting.scratch_size,
            setting.rodata,
            setting.policy,
            setting.context,
            self._observe,
        )

    def _observe(self, slot: int, state: State) -> None:
        depth = self.exploration.depth
        del self._path[depth - 1 :]
        now = point(slot, state)
        changes = dict(_changes(self._path[-1] if self._path else None, now))
        self._path.append(now)
        shape = self.exploration.shape
        span = shape.handler.span(slot)
        file, line, text = (span.file, span.line, span.text.strip()) if span else ("", 0, "")
        instruction = disassemble(shape.insns[slot], slot)
        self._entry(Entry(depth, slot, instruction, changes, file, line, text))


def _changes(before: Point | None, now: Point) -> Iterator[tuple[str, str]]:
    """What is known after that was not before, by name. What was forgotten is dead, and not worth a word."""
    same_frame = before is not None and before.frame == now.frame
    for register, value in enumerate(now.registers):
        if value is not None and not (same_frame and before and before.registers[register] is value):
            yield f"r{register}", str(value)
    for frame, cells in enumerate(now.cells):
        old = before.cells[frame] if before is not None and frame < len(before.cells) else {}
        for offset, cell in sorted(cells.items()):
            if offset not in old or old[offset].value is not cell.value:
                yield (
                    f"[r10{offset}]" if frame == now.frame else f"frame {frame} [r10{offset}]",
                    str(cell.value),
                )


class Printer:
    """Entries as text. A line shows what its instruction changed, which only the next entry tells."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._last: Entry | None = None
        self._slots: list[int] = []
        self._source = ("", 0)

    def entry(self, entry: Entry) -> None:
        last = self._last
        if last is None:
            self._line(f"    at entry: {_listed(entry.changes)}")
        elif entry.depth == last.depth + 1:
            self._instruction(last, _listed(entry.changes))
        else:
            self._instruction(last, _end(last))
            self._line(
                f"       back to {self._slots[entry.depth - 2]}, the other way: {_listed(entry.changes)}"
            )
            self._source = ("", 0)
        if entry.line and (entry.file, entry.line) != self._source:
            self._source = (entry.file, entry.line)
            self._line(f"  ; {entry.file}:{entry.line}: {entry.text}")
        self._last = entry
        del self._slots[entry.depth - 1 :]
        self._slots.append(entry.slot)

    def finish(self, outcome: VerifiedHandler | tuple[Diagnostic, ...]) -> None:
        accepted = isinstance(outcome, VerifiedHandler)
        if self._last is not None:
            self._instruction(self._last, _end(self._last) if accepted else "")
        if isinstance(outcome, VerifiedHandler):
            self._line(f"  accepted: {outcome.handler_class}, at most {outcome.worst_case:,} instructions")
        else:
            self._line(f"  refused: {outcome[0].code.id}: {outcome[0].message}")

    def _instruction(self, entry: Entry, said: str) -> None:
        self._line(f"{entry.slot:>5}  {entry.instruction:<{_COLUMN}}  {said}".rstrip())


def _listed(changes: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def _end(entry: Entry) -> str:
    return "the end of a path" if entry.instruction == "exit" else "from here on, nothing new"


__all__ = ["Entry", "Printer", "trace"]
