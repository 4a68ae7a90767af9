"""What instructions make of abstract operands, remembered: an operation's result, a comparison's outcome.

Both are functions of the instruction and of its operands' abstract values alone, wherever the instruction
stands and in whichever handler. Values are interned, so that equal operands are one object and a look-up is
cheap. The tables and the values in them belong to one program: handlers of a device are variations of each
other, and most of what one asks has been answered for another.

What is asked of an instruction itself is looked up once for the program, too (`Op`).

Held true: an entry is added at most once for each explored instruction, so that the budget of steps bounds
the tables too. What would break the contract raises Fault, and is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from functools import cache
from typing import Final, NamedTuple

from devbc import semantics
from devbc.isa.insn import Insn
from devbc.isa.opcodes import FRAME_POINTER, Kind, Operation, Source, Spec
from devbc.verifier.liveness import effect
from devbc.verifier.refine import refine
from devbc.verifier.values import Value, Values, is_word
from devbc.verifier.word import Word

#: Operations whose result may still be a copy of what an operand was a copy of.
LINKING: Final = frozenset(
    {Operation.MOV, Operation.MOVSX, Operation.ADD, Operation.SUB, Operation.AND, Operation.OR, Operation.XOR,
     Operation.LSH, Operation.RSH, Operation.ARSH}
)  # fmt: skip

# Bound to names of their own: an enum's attributes are slow to look up.
_JUMP, _IMM = Kind.JUMP, Source.IMM


class Role(Enum):
    """What else is to be done about the result of an operation on registers."""

    PLAIN = auto()
    #: The left operand is kept for `strides.py`.
    PRODUCT = auto()
    #: A copy, or a part of one.
    COPY = auto()
    #: Of an operation with a constant: it may have bits of what the operand is a copy of.
    PART = auto()
    #: The same, and bits that were shifted out of sight may come back.
    SHIFTED = auto()


class Outcome(NamedTuple):
    """What a conditional jump does: `truth` if that is known; else both operands as they are either way."""

    truth: bool | None
    taken: tuple[Value, Value] | None = None
    other: tuple[Value, Value] | None = None


class Op:
    """An instruction, with what the exploration asks of it at every slot where it stands.

    `computes`: an operation on registers, whose result depends on the values of `left` and `right` alone;
    r10, which nothing writes, stands for an operand that there is none of. `constant`: what a jump compares
    with, if not a register.
    """

    __slots__ = (
        "computes", "constant", "dst", "effect", "insn", "kind", "left", "outcomes", "results", "right",
        "role", "slots",
    )  # fmt: skip

    def __init__(self, insn: Insn) -> None:
        spec = insn.spec
        self.computes, one_operand, register, self.role = _traits(spec)
        self.insn = insn
        self.effect = effect(insn)
        self.kind = spec.kind
        self.dst = insn.dst
        self.slots = spec.slots
        self.left = FRAME_POINTER if one_operand else insn.dst
        self.right = insn.src if register else FRAME_POINTER
        self.constant: Word | None = None
        #: By the values of `left` and `right`.
        self.results: dict[tuple[Value | None, Value | None], Value]
        #: Of a conditional jump, by its operands.
        self.outcomes: dict[tuple[Value, Value], Outcome]


@cache
def _traits(spec: Spec) -> tuple[bool, bool, bool, Role]:
    """Whether it computes, whether without `dst` as an operand, and whether with a register; its role."""
    operation, register = spec.operation, spec.source is Source.REG
    moves = operation in (Operation.MOV, Operation.MOVSX)
    role = Role.PLAIN
    if operation is Operation.MUL:
        role = Role.PRODUCT
    elif register and moves:
        role = Role.COPY
    elif not register and operation in LINKING:
        role = Role.SHIFTED if operation in (Operation.RSH, Operation.ARSH) else Role.PART
    return spec.kind in (Kind.ALU, Kind.UNARY, Kind.LDDW), moves or spec.kind is Kind.LDDW, register, role


class Tables:
    """The abstract values of one program, and what has been computed with them."""

    def __init__(self) -> None:
        self.values = Values()
        #: By identity: equal bytes decode to one object, mostly, and it lives as long as its entry.
        self._ops: dict[int, Op] = {}
        # In whichever registers the operands are, results and outcomes are the same.
        self._results: dict[tuple[Spec, int], dict[tuple[Value | None, Value | None], Value]] = {}
        self._outcomes: dict[tuple[Spec, int], dict[tuple[Value, Value], Outcome]] = {}

    def op(self, insn: Insn) -> Op:
        return self._ops.get(id(insn)) or self._made(insn)

    def ops(self, insns: Mapping[int, Insn], slots: Iterable[int]) -> dict[int, Op]:
        """Those of the instructions at these slots."""
        known, made = self._ops.get, self._made
        return {slot: known(id(insns[slot])) or made(insns[slot]) for slot in slots}

    def _made(self, insn: Insn) -> Op:
        op = self._ops[id(insn)] = Op(insn)
        if op.computes:
            op.results = self._results.setdefault((insn.spec, insn.imm), {})
        elif op.kind is _JUMP:
            op.outcomes = self._outcomes.setdefault((insn.spec, insn.imm), {})
            if insn.spec.source is _IMM:
                op.constant = self.values.words.const(insn.imm, 64)
        return op

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
