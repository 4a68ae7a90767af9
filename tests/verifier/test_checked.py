"""The checked engine notices false claims: a proof is tampered with, and honest runs are violations of it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, Verdict
from devbc.engines.checked import Checked, CheckedEngine, CheckedHandler, Unsound
from devbc.engines.clock import virtual_page
from devbc.engines.engine import Engine
from devbc.isa.asm import assemble
from devbc.isa.insn import encode
from devbc.program.verified import AccessFact, ByteRange, HandlerClass, Region
from devbc.verifier import verify_program
from devbc.verifier.explored import Explored, Point
from devbc.verifier.state import Link
from devbc.verifier.word import Words
from tests.handlers import verified_program
from tests.verifier.oracle import explore, handler

PROGRAM = f"""
    ldxdw %r6, [%r1+{EXIT_FIELDS["value"].offset}]
    mov %r7, 3
    mov %r9, %r1
again:
    add %r7, -1
    jne %r7, 0, again
    mov %r8, %r6
    and %r6, 7
    jgt %r8, 100, decline
    stxdw [%r10-8], %r8
    mov %r1, %r10
    call local callee
    lddw %r1, map_value_by_idx 0, 8
    stxb [%r1+1], %r6
    stw [%r9+{EXIT_FIELDS["raise"].offset}], 1
    mov %r0, 1
    exit
decline:
    mov %r0, 0
    exit
callee:
    ldxdw %r0, [%r1-8]
    stxw [%r10-16], %r0
    call 5
    exit
"""
SLOTS = {"loop": 3, "after the loop": 5, "spill": 8, "store": 13, "callee": 19}
WORDS = Words()


def run(explored: Explored, value: int = 50) -> Checked:
    exit_ = bytearray(EXIT_SIZE)
    field = EXIT_FIELDS["value"]
    exit_[field.offset : field.end] = value.to_bytes(8, "little")
    return CheckedHandler(explored).run(exit_, bytearray(64), lambda: 5)


def honest() -> Explored:
    return explore(PROGRAM).explored


def test_an_honest_proof_is_kept_to() -> None:
    # 3 + 3 rounds of 2, 6 up to the call, 4 in the callee, 5 after it.
    assert run(honest()) == Checked(Verdict.HANDLED, 24)
    assert run(honest(), 101) == Checked(Verdict.DECLINE, 14)
    assert honest().verified.worst_case == 24


def verified(**changes: object) -> Callable[[Explored], Explored]:
    def tamper(explored: Explored) -> Explored:
        return replace(explored, verified=replace(explored.verified, **changes))  # type: ignore[arg-type]

    return tamper


def points(slot: str, change: Callable[[Point], Mapping[str, object]]) -> Callable[[Explored], Explored]:
    """Change what is claimed at one slot."""

    def tamper(explored: Explored) -> Explored:
        changed = tuple(
            replace(each, **change(each)) if each.slot == SLOTS[slot] else each  # type: ignore[arg-type]
            for each in explored.points
        )
        assert changed != explored.points
        return replace(explored, points=changed)

    return tamper


def register(number: int, value: object) -> Callable[[Point], Mapping[str, object]]:
    return lambda point: {"registers": (*point.registers[:number], value, *point.registers[number + 1 :])}


def without_cell(point: Point) -> Mapping[str, object]:
    # Not a false claim by itself: the one below claims a cell that was never written.
    cell = point.cells[0][-8]
    return {"cells": ({-8: cell, -16: cell}, *point.cells[1:])}


def apart(point: Point) -> Mapping[str, object]:
    """Claim that r6 and r8 agree in all bits, of which r6 has but three."""
    links: list[Link | None] = list(point.links)
    links[6] = links[8] = Link(999, 0, (1 << 64) - 1)
    return {"links": tuple(links)}


def wrong_fact(explored: Explored) -> Explored:
    accesses = dict(explored.verified.accesses) | {SLOTS["store"]: AccessFact(Region.SCRATCH, 10)}
    return verified(accesses=accesses)(explored)


FALSE_CLAIMS: dict[str, tuple[Callable[[Explored], Explored], str]] = {
    "bound": (verified(worst_case=23), "should have ended|still running"),
    "class": (verified(handler_class=HandlerClass.PURE), "`pure` has written"),
    "verdict": (verified(may_handle=False), "verdict HANDLED"),
    "effects": (verified(effects=frozenset()), "effect `raise`"),
    "helpers": (verified(helpers=frozenset()), "helpers"),
    "stack": (verified(stack_bytes=16), "more than 16 bytes"),
    "scratch written": (verified(scratch_written=(ByteRange(8, 9),)), "reported as written"),
    "fact": (wrong_fact, "where AccessFact"),
    "dead code": (lambda explored: verified(
        insns={slot: each for slot, each in explored.verified.insns.items() if slot != SLOTS["callee"]}
    )(explored), "no instruction"),
    "word": (points("after the loop", register(7, WORDS.const(1, 64))), "no state"),
    "initialised register": (points("callee", register(7, WORDS.unknown(64))), "no state"),
    "initialised stack": (points("store", without_cell), "no state"),
    "links": (points("store", apart), "no state"),
    "written scratch": (points("after the loop", lambda point: {"wrote": True}), ""),
    "remaining": (points("loop", lambda point: {"before": point.before + 1}), "should have ended"),
}  # fmt: skip


@pytest.mark.parametrize("name", FALSE_CLAIMS)
def test_a_false_claim_is_noticed(name: str) -> None:
    tamper, message = FALSE_CLAIMS[name]
    if not message:
        # A state that says less than is known admits the run.
        assert run(tamper(honest())).verdict is Verdict.HANDLED
        return
    with pytest.raises(Unsound, match=message):
        run(tamper(honest()))


def test_every_claim_of_a_verified_handler_is_tampered_with() -> None:
    claims = {each.name for each in fields(honest().verified)} - {"handler"}
    tampered = {"worst_case", "handler_class", "may_handle", "effects", "helpers", "stack_bytes",
                "scratch_written", "accesses", "insns"}  # fmt: skip
    # Their twins: the other verdict, and reads of scratch.
    assert claims - tampered == {"may_decline", "scratch_read"}


def test_as_an_engine() -> None:
    engine = CheckedEngine()
    program = verify_program(
        replace(verified_program().program, handlers=(handler(PROGRAM),), scratch_image=bytes(64))
    )
    call(engine, program)
    assert engine.steps == 24
    engine.raise_failure()


def call(engine: Engine, program: Any) -> int:
    loaded = engine.load([program])
    function = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_void_p] * 4)(loaded.address(program.handlers[0]))
    page = virtual_page(7)
    return int(function(bytearray_at(EXIT_SIZE), bytearray_at(64), None, ctypes.byref(page)))


def bytearray_at(size: int) -> Any:
    return ctypes.create_string_buffer(size)


def test_a_failure_declines_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CheckedHandler, "run", lambda *_: 1 // 0)
    engine = CheckedEngine()
    program = verify_program(
        replace(verified_program().program, handlers=(handler(encode(assemble("mov %r0, 1\nexit"))),))
    )
    assert call(engine, program) == Verdict.DECLINE
    with pytest.raises(ZeroDivisionError):
        engine.raise_failure()
