"""What a known mistake is: a dangerous program that some verifier has accepted, and a legal one like it.

A verifier that rejects everything passes any test of rejections, and a program that is harmless proves
nothing by being rejected. So each entry shows both sides: `check_rejected` that the program is refused for
the stated reason at the stated place, `check_danger` that a concrete run of it does what must not happen,
and `check_twin` that the legal twin, a program a few characters away, is accepted with its exact bound.

Danger is found by the reference interpreter, which knows nothing of the verifier: an access that it refuses,
or, where no single access is at fault, a run whose outcome shows it (`Harm`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, Verdict
from devbc.diagnostics import Code
from devbc.engines import interpreter
from devbc.engines.interpreter import BASES, Fault, FaultKind, run_handler
from devbc.isa.asm import assemble
from devbc.isa.insn import decode, encode
from devbc.program.verified import HandlerClass
from tests.verifier.oracle import check_run, explore, rejected

PURE, MUTATING = HandlerClass.PURE, HandlerClass.MUTATING

SCRATCH_SIZE = 64
RODATA = bytes(range(0, 128, 2))

#: Faults of the very instruction that the verifier is to blame.
_OF_AN_ACCESS = (FaultKind.MEMORY, FaultKind.READ_ONLY, FaultKind.MISALIGNED, FaultKind.UNINITIALISED)


class Harm(StrEnum):
    """What a run must not do, and no single access shows."""

    UNCLEAN = "it declines, and has written the shared area"
    LEAK = "what it leaves behind depends on where memory lies"


@dataclass(frozen=True)
class Legal:
    """A program that must be accepted. `worst_case`: counted by hand, instructions of the longest way."""

    program: str
    handler_class: HandlerClass
    worst_case: int


@dataclass(frozen=True)
class Mistake:
    """A program that must be rejected with `code` at slot `at`.

    `danger` comes about with these exit fields, bytes of scratch by offset, and times that the clock says one
    after another; `escapes` is the slot at which it shows, where that is not `at`. `section`: what the
    program is bound to; the default gives it 64 unknown bits in `value`.
    """

    name: str
    program: str
    code: Code
    at: int
    danger: FaultKind | Harm
    twin: Legal
    exit: dict[str, int] = field(default_factory=dict)
    scratch: dict[int, int] = field(default_factory=dict)
    clock: tuple[int, ...] = (0,)
    section: str = "mmio/write@0x0:8"
    escapes: int | None = None


def asm(text: str) -> str:
    """The program with names for addresses: `SCRATCH8`, `RODATA0`, and `[VALUE]` while r1 is the exit."""
    text = text.replace("SCRATCH", "map_value_by_idx 0, ").replace("RODATA", "map_value_by_idx 1, ")
    return text.replace("VALUE", f"%r1+{EXIT_FIELDS['value'].offset}")


def by_name(mistakes: Iterable[Mistake]) -> dict[str, Mistake]:
    table = {each.name: each for each in mistakes}
    assert table
    return table


def check_rejected(mistake: Mistake) -> None:
    diagnostic = rejected(
        asm(mistake.program), section=mistake.section, scratch_size=SCRATCH_SIZE, rodata=RODATA
    ).diagnostics[0]
    assert (diagnostic.code.id, diagnostic.code.title) == (mistake.code.id, mistake.code.title)
    assert diagnostic.span is not None
    assert diagnostic.span.line == mistake.at


def check_danger(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    match mistake.danger:
        case FaultKind():
            with pytest.raises(Fault) as caught:
                run(mistake)
            assert caught.value.kind is mistake.danger
            if mistake.danger in _OF_AN_ACCESS:
                assert caught.value.slot == (mistake.at if mistake.escapes is None else mistake.escapes)
        case Harm.UNCLEAN:
            verdict, _, before, after = run(mistake)
            assert verdict is Verdict.DECLINE
            assert before != after
        case Harm.LEAK:
            here = run(mistake)
            moved = {region: base + (16 << 40) for region, base in BASES.items()}
            monkeypatch.setattr(interpreter, "BASES", moved)
            assert run(mistake) != here


def run(mistake: Mistake) -> tuple[Verdict, bytes, bytes, bytes]:
    """A concrete run: verdict, exit, scratch before and after. Raises Fault."""
    exit_ = bytearray(EXIT_SIZE)
    for name, value in mistake.exit.items():
        place = EXIT_FIELDS[name]
        exit_[place.offset : place.offset + place.size] = value.to_bytes(place.size, "little")
    before = bytearray(SCRATCH_SIZE)
    for offset, byte in mistake.scratch.items():
        before[offset] = byte
    after = bytearray(before)
    insns = decode(encode(assemble(asm(mistake.program))))
    times = iter(mistake.clock)
    verdict = run_handler(insns, exit_, after, RODATA, lambda: next(times))
    return verdict, bytes(exit_), bytes(before), bytes(after)


def check_twin(mistake: Mistake, runs: Iterable[int]) -> None:
    twin = mistake.twin
    explored = explore(asm(twin.program), section=mistake.section, scratch_size=SCRATCH_SIZE, rodata=RODATA)
    assert explored.verified.handler_class is twin.handler_class
    assert explored.verified.worst_case == twin.worst_case
    for seed in runs:
        check_run(explored, random.Random(seed))
