"""What instructions make of abstract operands, remembered: an operation's result, a comparison's outcome.

Both are functions of the instruction and of its operands' abstract values alone, wherever the instruction
stands and in whichever handler. Values are interned, so that equal operands are one object and a look-up is
cheap. The tables and the values in them belong to one program: handlers of a device are variations of each
other, and most of what one asks has been answered for another.

Held true: an entry is added at most once for each explored instruction, so that the budget of steps bounds
the tables too. What would break the contract raises Fault, and is not kept.
"""

from __future__ import annotations

from typing import NamedTuple

from devbc import semantics
from devbc.isa.insn import Insn
from devbc.verifier.refine import refine
from devbc.verifier.values import Value, Values, is_word


class Outcome(NamedTuple):
    """What a conditional jump does: `truth` if that is known; else both operands as they are either way."""

    truth: bool | None
    taken: tuple[Value, Value] | None = None
    other: tuple[Value, Value] | None = None


Results = dict[tuple[Value | None, Value | None], Value]
Outcomes = dict[tuple[Value, Value], Outcome]


class Tables:
    """The abstract values of one program, and what has been computed with them."""

    def __init__(self) -> None:
        self.values = Values()
        self._results: dict[tuple[str, int], Results] = {}
        self._outcomes: dict[tuple[str, int], Outcomes] = {}

    def results(self, insn: Insn) -> Results:
        """Results by the destination before the operation and the source register, None where unused."""
        return self._results.setdefault((insn.spec.name, insn.imm), {})

    def outcomes(self, insn: Insn) -> Outcomes:
        """Outcomes by the two operands."""
        return self._outcomes.setdefault((insn.spec.name, insn.imm), {})

    def decide(self, insn: Insn, dst: Value, src: Value) -> Outcome:
        """The outcome of a conditional jump on these operands."""
        spec, words = insn.spec, self.values.words
        truth = semantics.condition(self.values, spec, dst, src)
        if truth is not None:
            return Outcome(truth)
        if not (is_word(dst) and is_word(src)):
            return Outcome(None, (dst, src), (dst, src))
        if spec.width == 64:
            taken, other = (refine(words, spec.operation, dst, src, way) for way in (True, False))
            return Outcome(None, taken, other)
        assert dst.low is not None
        assert src.low is not None
        ways: list[tuple[Value, Value] | None] = []
        for way in (True, False):
            halves = refine(words, spec.operation, dst.low, src.low, way)
            a = halves and words.with_low(dst, halves[0])
            b = halves and words.with_low(src, halves[1])
            ways.append((a, b) if a and b else None)
        return Outcome(None, *ways)
