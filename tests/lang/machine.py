"""A compiled device on the reference interpreter: accesses, calls, timers and lines, as tests make them.

Nothing is verified here, so that a test of the language does not depend on what can be proven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from devbc.abi import (
    EXIT_FIELDS,
    EXIT_SIZE,
    AccessBinding,
    Binding,
    HypercallBinding,
    LineBinding,
    Op,
    TimerBinding,
    Verdict,
)
from devbc.engines.interpreter import run_handler
from devbc.isa.insn import decode
from devbc.program.elf import load_object
from devbc.program.program import Handler
from devbc_lang import compile_source

EFFECTS = ("raise", "lower", "signal", "arm", "cancel")


@dataclass
class Outcome:
    """What a run left in the exit. `value` is None if it declined."""

    value: int | None
    effects: dict[str, int] = field(default_factory=dict)
    deadlines: list[int] = field(default_factory=list)


class Device:
    """A device from its text, with a shared area of its own and a clock to be set."""

    def __init__(self, text: str) -> None:
        self.compiled = compile_source(text, "test.dev")
        self.program = load_object(self.compiled.object, name="test.o")
        self.scratch = bytearray(self.program.scratch_image)
        self.now = 0
        self.clock_offset = 0

    @property
    def state(self) -> Any:
        """The shared area by its fields' names."""
        assert self.program.scratch_type is not None
        return self.program.scratch_type.from_buffer(self.scratch)

    def read(self, offset: int, size: int, bank: str = "pio") -> Outcome:
        return self._run(self._access(Op.READ, offset, size, bank), offset, size, 0)

    def write(self, offset: int, size: int, value: int, bank: str = "pio") -> Outcome:
        return self._run(self._access(Op.WRITE, offset, size, bank), offset, size, value)

    def expire(self, timer: str, deadline: int) -> Outcome:
        return self._run(self._bound(TimerBinding(timer)), 0, 0, deadline)

    def line(self, name: str, level: int) -> Outcome:
        return self._run(self._bound(LineBinding(name)), 0, 0, level)

    def call(self, number: int, *arguments: int) -> Outcome:
        return self._run(self._bound(HypercallBinding(number)), number, 0, 0, arguments)

    def answers(self, op: Op, offset: int, size: int, bank: str = "pio") -> bool:
        return self._find(op, offset, size, bank) is not None

    def _find(self, op: Op, offset: int, size: int, bank: str) -> Handler | None:
        found = [
            each
            for each in self.program.handlers
            if isinstance(each.binding, AccessBinding)
            and (each.binding.bank, each.binding.op) == (bank, op)
            and (offset, size) in each.binding.accesses()
        ]
        assert len(found) < 2
        return found[0] if found else None

    def _access(self, op: Op, offset: int, size: int, bank: str) -> Handler:
        handler = self._find(op, offset, size, bank)
        assert handler is not None, f"no handler for {op} of {size} at {offset:#x}"
        return handler

    def _bound(self, binding: Binding) -> Handler:
        return next(each for each in self.program.handlers if each.binding == binding)

    def _run(
        self, handler: Handler, offset: int, size: int, value: int, arguments: Sequence[int] = ()
    ) -> Outcome:
        exit_ = bytearray(EXIT_SIZE)
        given = {"offset": offset, "size": size, "value": value, "clock_offset": self.clock_offset}
        for name, number in given.items():
            it = EXIT_FIELDS[name]
            exit_[it.offset : it.offset + it.size] = number.to_bytes(it.size, "little")
        it = EXIT_FIELDS["arg"]
        for index, number in enumerate(arguments):
            start = it.offset + it.size * index
            exit_[start : start + it.size] = number.to_bytes(it.size, "little")
        verdict = run_handler(
            decode(handler.code), exit_, self.scratch, self.program.rodata, lambda: self.now
        )
        if verdict is Verdict.DECLINE:
            return Outcome(None)
        deadline = EXIT_FIELDS["deadline"]
        return Outcome(
            _field(exit_, "value") & (1 << 8 * (size or 8)) - 1,
            {name: bits for name in EFFECTS if (bits := _field(exit_, name))},
            [int.from_bytes(exit_[deadline.offset + 8 * i :][:8], "little") for i in range(deadline.count)],
        )


def _field(exit_: bytearray, name: str) -> int:
    it = EXIT_FIELDS[name]
    return int.from_bytes(exit_[it.offset : it.offset + it.size], "little")
