"""The shape of a handler's code: its functions, where control can go, and where paths meet.

Checked before anything is said about values: every reachable jump stays within its function and hits an
instruction, every local call hits a function's first instruction, and no path falls off a function's end.
What is unreachable must have decoded, and is otherwise ignored.

The functions are derived from the code (its entry and every call's target); the object's symbols only lend
them names, so that a hostile symbol table decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from devbc.diagnostics import Diagnostic, Rejected, Span
from devbc.isa.disasm import disassemble
from devbc.isa.insn import Insn, decode
from devbc.isa.opcodes import SPECS, Kind
from devbc.program.program import Handler
from devbc.verifier import errors
from devbc.verifier.policy import Policy

_LOCAL_CALL: Final = SPECS["call_local"]
#: Instructions behind which the next one comes.
_STRAIGHT: Final = frozenset(Kind) - {Kind.JUMP, Kind.JA, Kind.EXIT}


@dataclass(frozen=True, slots=True)
class Shape:
    """Decoded code whose control flow is sound.

    `reachable`: slots that control flow can reach, by function entry. `successors`: of each of them, within
    its function; a call comes back behind itself. `joins`: slots at which paths meet; every cycle has one.
    `owner`: by slot, the entry of the function that it belongs to.
    """

    handler: Handler
    insns: Mapping[int, Insn]
    functions: Mapping[int, str]
    reachable: Mapping[int, tuple[int, ...]]
    successors: Mapping[int, tuple[int, ...]]
    joins: frozenset[int]
    owner: Mapping[int, int]

    def span(self, slot: int) -> Span:
        """The source place of an instruction, or the instruction itself without line information."""
        return place(self.handler, self.insns, slot)


def place(handler: Handler, insns: Mapping[int, Insn], slot: int) -> Span:
    span = handler.span(slot)
    if span is not None:
        return span
    text = disassemble(insns[slot], slot) if slot in insns else ""
    return Span(handler.section, slot, text=text, end_column=len(text) + 1)


def check_shape(handler: Handler, policy: Policy) -> Shape:
    """Decode a handler and check its control flow. Raises Rejected with everything found."""
    slots = len(handler.code) // 8
    if slots > policy.slots:
        message = f"`{handler.section}` has {slots:,} instruction slots, and {policy.slots:,} are allowed"
        raise Rejected(Diagnostic(errors.POLICY, message, Span(handler.section)))
    insns = decode(handler.code, name=handler.section)
    calls = [slot for slot, insn in insns.items() if insn.spec is _LOCAL_CALL]
    entries = sorted({0, *(_callee(slot, insns[slot]) for slot in calls)})
    ends = dict(zip(entries, [*entries[1:], slots], strict=True))
    names = {function.slot: function.name for function in handler.functions}
    faults: list[Diagnostic] = []
    reachable: dict[int, tuple[int, ...]] = {}
    successors: dict[int, tuple[int, ...]] = {}
    pending, joins = [0], set[int]()
    while pending:
        entry = pending.pop()
        if entry in reachable:
            continue
        walk = _Walk(handler, insns, entry, ends[entry])
        reachable[entry] = walk.slots
        successors |= walk.successors
        joins |= walk.joins
        faults += walk.faults
        for slot in calls:
            if slot not in walk.successors:
                continue
            joins.add(slot + 1)  # the callee's exits meet there
            callee = _callee(slot, insns[slot])
            if callee in insns:
                pending.append(callee)
            else:
                message = f"this call leads to slot {callee}, where no instruction begins"
                faults.append(Diagnostic(errors.BAD_JUMP, message, place(handler, insns, slot)))
    if faults:
        raise Rejected(*faults)
    return Shape(
        handler=handler,
        insns=insns,
        functions={entry: names.get(entry, f"function at {entry}") for entry in reachable},
        reachable=reachable,
        successors=successors,
        joins=frozenset(joins),
        owner={slot: entry for entry, slots in reachable.items() for slot in slots},
    )


def _successors(slot: int, insn: Insn) -> tuple[int, ...]:
    """Where control may go within the function; a jump's target comes first."""
    spec = insn.spec
    if spec.kind in _STRAIGHT:
        return (slot + spec.slots,)
    if spec.kind is Kind.JUMP:
        return (insn.target(slot) or 0, slot + 1)
    return () if spec.kind is Kind.EXIT else (insn.target(slot) or 0,)


class _Walk:
    """The reachable part of one function."""

    def __init__(self, handler: Handler, insns: Mapping[int, Insn], entry: int, end: int) -> None:
        self.faults: list[Diagnostic] = []
        self.joins: set[int] = set()
        self.successors: dict[int, tuple[int, ...]] = {}
        # The entry is reached from outside: a jump back to it makes a second way in.
        seen = {entry}
        pending = [entry] if entry in insns else []
        while pending:
            slot = pending.pop()
            self.successors[slot] = _successors(slot, insns[slot])
            for successor in self.successors[slot]:
                if not entry <= successor < end or successor not in insns:
                    self.faults.append(_astray(handler, insns, slot, successor, entry, end))
                elif successor in seen:
                    self.joins.add(successor)
                else:
                    seen.add(successor)
                    pending.append(successor)
        self.slots = tuple(sorted(seen & insns.keys()))


def _callee(slot: int, insn: Insn) -> int:
    target = insn.target(slot)
    assert target is not None
    return target


def _astray(
    handler: Handler, insns: Mapping[int, Insn], slot: int, successor: int, entry: int, end: int
) -> Diagnostic:
    insn = insns[slot]
    span = place(handler, insns, slot)
    if insn.target(slot) == successor and insn.spec.kind is not Kind.CALL:
        inside = entry <= successor < end
        where = "the middle of `lddw`" if inside else f"slot {successor}, outside its function"
        return Diagnostic(errors.BAD_JUMP, f"this jump leads into {where}", span)
    return Diagnostic(
        errors.FALLS_OFF,
        "execution runs past the function's last instruction",
        span,
        help=("a function ends with `exit` or a jump",),
    )
