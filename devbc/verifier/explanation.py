"""Why a verified handler is what it is: which lines write the shared area, have effects, take the time.

The proof says what holds; this says where that comes from, for people. Writes and effects are read off the
facts of the proof. What the longest run spends its instructions on takes another exploration: `longest_run`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from devbc.abi import EXIT_FIELDS, Helper
from devbc.diagnostics import Span
from devbc.isa.opcodes import Kind
from devbc.program.program import Handler, Program
from devbc.program.verified import ByteRange, Region, VerifiedHandler
from devbc.verifier.explore import Exploration, Stretch
from devbc.verifier.fields import folded, scratch_names
from devbc.verifier.policy import EFFECTS, Policy
from devbc.verifier.prepare import prepare
from devbc.verifier.shape import place
from devbc.verifier.state import State


@dataclass(frozen=True, slots=True)
class Use:
    """A source line that does something: `what` is a field of the shared area or the exit, or a helper.

    `what` is empty where only run time says which bytes of the shared area are written.
    """

    span: Span
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """What a source line takes of the longest run: `instructions`, in `rounds` visits."""

    span: Span
    instructions: int
    rounds: int


def writes(program: Program, verified: VerifiedHandler) -> tuple[Use, ...]:
    """The lines that may write the shared area: they make the handler mutating."""
    uses: dict[tuple[str, int], tuple[Span, list[str]]] = {}
    for slot, fact in verified.accesses.items():
        insn = verified.insns.get(slot)
        if insn is None or insn.spec.kind is Kind.LOAD or fact.region not in (Region.SCRATCH, None):
            continue
        span = place(verified.handler, verified.insns, slot)
        names = uses.setdefault((span.file, span.line), (span, []))[1]
        if fact.region is not None and fact.offset is not None:
            names += scratch_names(program, (ByteRange(fact.offset, fact.offset + insn.spec.bytes),))
    return tuple(Use(span, tuple(folded(list(dict.fromkeys(names))))) for span, names in uses.values())


def effects(verified: VerifiedHandler) -> tuple[Use, ...]:
    """The lines that write an effect field of the exit, and those that call a helper."""
    uses: dict[tuple[str, int], tuple[Span, dict[str, None]]] = {}
    for slot, what in _effects(verified):
        span = place(verified.handler, verified.insns, slot)
        uses.setdefault((span.file, span.line), (span, {}))[1][what] = None
    return tuple(Use(span, tuple(what)) for span, what in uses.values())


def _effects(verified: VerifiedHandler) -> Iterator[tuple[int, str]]:
    for slot, insn in verified.insns.items():
        if insn.spec.kind is Kind.CALL and insn.target(slot) is None:
            yield slot, Helper(insn.imm).name.lower()
        fact = verified.accesses.get(slot)
        if insn.spec.kind is not Kind.STORE or fact is None or fact.region is not Region.EXIT:
            continue
        for field in EXIT_FIELDS.values():
            start, end = (
                (0, field.end) if fact.offset is None else (fact.offset, fact.offset + insn.spec.bytes)
            )
            if field.name in EFFECTS & verified.effects and start < field.end and field.offset < end:
                yield slot, field.name


def longest_run(program: Program, verified: VerifiedHandler, policy: Policy) -> tuple[Share, ...]:
    """What the longest run spends its instructions on, by source line, in the order of first visits.

    The instructions add up to `verified.worst_case`. Where states were joined, it may be a run that no
    values make: the bound holds, and need not be reached.
    """
    recorder = _Recorder(program, verified.handler, policy)
    recorder.exploration.run()
    visits: Counter[int] = Counter()
    stretch = recorder.first
    while stretch is not None:
        visits.update(recorder.slots[stretch])
        stretch = stretch.heaviest
    shares: dict[tuple[str, int], Share] = {}
    for slot, count in visits.items():
        span = place(verified.handler, verified.insns, slot)
        old = shares.get((span.file, span.line), Share(span, 0, 0))
        shares[span.file, span.line] = Share(old.span, old.instructions + count, max(old.rounds, count))
    return tuple(shares.values())


class _Recorder:
    """An observer that keeps the instructions of each stretch."""

    def __init__(self, program: Program, handler: Handler, policy: Policy) -> None:
        self.slots: dict[Stretch, list[int]] = {}
        self.first: Stretch | None = None
        self.exploration: Exploration = prepare(
            handler, len(program.scratch_image), program.rodata, policy, None, self._observe
        )

    def _observe(self, slot: int, _: State) -> None:
        stretch = self.exploration.stretch
        if self.first is None:
            self.first = stretch
        self.slots.setdefault(stretch, []).append(slot)
