"""Handlers of one code share a proof where it holds for each, and nowhere else."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from devbc.abi import EXIT_FIELDS
from devbc.catalog import bundled_devices, load_program
from devbc.diagnostics import Rejected
from devbc.isa.insn import decode
from devbc.program.program import Names, Program
from devbc.program.verified import ByteRange, HandlerClass, VerifiedHandler
from devbc.verifier import Policy, errors, verify, verify_handler, verify_program
from devbc.verifier.explore import Exploration
from tests.verifier.campaign import SECTIONS, mutated
from tests.verifier.oracle import handler
from tests.verifier.programs import random_program

#: The exit's offset, size or value is where scratch, of 64 bytes, is read.
BY_OFFSET, BY_SIZE, BY_VALUE, BY_BYTE = (
    f"{load}\nlddw %r3, map_value_by_idx 0, 0\nadd %r3, %r2\nldxb %r3, [%r3+0]\nmov %r0, 1\nexit"
    for load in (
        "ldxdw %r2, [%r1+0]",
        f"ldxw %r2, [%r1+{EXIT_FIELDS['size'].offset}]",
        "ldxdw %r2, [%r1+8]",
        "ldxb %r2, [%r1+8]\nand %r2, 63",
    )
)


def program(text: str | bytes, *sections: str) -> Program:
    handlers = tuple(handler(text, section) for section in sections)
    return Program("test", handlers, bytes(64), bytes(range(0, 128, 2)), Names(), ())


@pytest.fixture
def explored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sections of the handlers that are explored."""
    seen: list[str] = []
    run = Exploration.run

    def noted(exploration: Exploration) -> None:
        seen.append(exploration.shape.handler.section)
        run(exploration)

    monkeypatch.setattr(Exploration, "run", noted)
    return seen


def refused(of: Program) -> list[str]:
    """The sections of the handlers that are refused."""
    try:
        verify_program(of)
    except Rejected as rejected:
        # Where the code has no proper shape, the place says it.
        spans = [each.span for each in rejected.diagnostics]
        return [each.file for each in spans if each]
    return []


def test_what_is_not_read_is_not_asked_of_the_exit(explored: list[str]) -> None:
    sections = ("pio/read@0x0:4", "mmio/read@0x0-0xfff:4,8", "timer/tick", "mmio/write@0x0:8")
    verified = verify_program(program("mov %r0, 0\nexit", *sections))
    assert [each.handler.section for each in verified.handlers] == [*sections]
    assert explored == ["mmio/read@0x0-0xfff:4,8"]


@pytest.mark.parametrize(
    ("text", "sections", "wrong"),
    [
        (BY_OFFSET, ("pio/read@0x0:1", "pio/read@0x100:1", "pio/read@0x20:1"), ["pio/read@0x100:1"]),
        (BY_OFFSET, ("pio/read@0x0-0x3f:1", "mmio/read@0x0-0x40:1"), ["mmio/read@0x0-0x40:1"]),
        (BY_VALUE, ("pio/read@0x0:1", "pio/write@0x0:1"), ["pio/write@0x0:1"]),
        (BY_VALUE, ("pio/write@0x0:8", "pio/read@0x0:8"), ["pio/write@0x0:8"]),
        (BY_SIZE, ("pio/read@0x0:4", "pio/read@0x0:8"), []),
        (BY_BYTE, ("pio/write@0x0:4", "pio/write@0x0:1"), []),
    ],
)  # fmt: skip
def test_what_is_read_is(text: str, sections: tuple[str, ...], wrong: list[str]) -> None:
    assert refused(program(text, *sections)) == wrong


def test_a_wide_access_speaks_for_narrow_ones(explored: list[str]) -> None:
    verify_program(program(BY_BYTE.replace("ldxb %r2", "ldxdw %r2"), "pio/write@0x0:4", "mmio/write@0x0:8"))
    assert explored == ["mmio/write@0x0:8"]


def test_what_is_asked_again_is_charged() -> None:
    """Thousands of handlers that ask thousands of questions must not cost more than the budget."""
    sections = [f"pio/read@{number:#x}:1" for number in range(5)]
    explored = len(decode(handler(BY_VALUE).code))
    verify_program(program(BY_VALUE, *sections), policy=Policy(steps=explored + 4))
    with pytest.raises(Rejected) as caught:
        verify_program(program(BY_VALUE, *sections), policy=Policy(steps=explored + 3))
    assert [each.code for each in caught.value.diagnostics] == [errors.TOO_COMPLEX]


def test_refusals_keep_the_order_of_the_handlers_and_name_each() -> None:
    sections = ("mmio/write@0x0:4", "pio/read@0x100:1", "mmio/write@0x8:8", "pio/read@0x200:1")
    text = BY_OFFSET.replace("0, 0", "0, 60")
    assert refused(program(text, *sections)) == ["pio/read@0x100:1", "mmio/write@0x8:8", "pio/read@0x200:1"]


def always(proof: Any, context: Any, words: Any, budget: Any) -> bool:
    return True


def narrower(proof: Any, context: Any, words: Any, budget: Any) -> bool:
    """A proof for a few exits is taken for one of more."""
    return all(context.loaded(words, *place).includes(word) for place, word in proof.asked.items())


@pytest.mark.parametrize("wrong", [always, narrower])
def test_a_proof_that_is_shared_too_freely_is_noticed(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify._Proof, "holds_in", wrong)
    assert not refused(program(BY_OFFSET, "pio/read@0x0-0x3f:1", "mmio/read@0x0-0x40:1"))


# The oracle: each handler verified by itself.


def alone(of: Program, handler: VerifiedHandler) -> VerifiedHandler:
    return verify_handler(handler.handler, scratch_size=len(of.scratch_image), rodata=of.rodata)


@pytest.mark.parametrize("path", sorted(bundled_devices().glob("*/*.dev")), ids=lambda path: path.stem)
def test_the_reports_of_shipped_devices_are_those_of_each_handler_alone(path: Any) -> None:
    verified = verify_program(load_program(path))
    for each in verified.handlers:
        assert each == alone(verified.program, each)


def test_a_shared_proof_leaves_nothing_out() -> None:
    shared = 0
    for seed in range(300):
        rng = random.Random(seed)
        code = handler(random_program(rng)).code
        of = program(mutated(code, rng) if seed % 2 else code, *SECTIONS)
        handlers = accepted(of)
        for each in handlers:
            own = alone(of, each)
            assert own.worst_case <= each.worst_case
            assert own.insns.keys() <= each.insns.keys()
            assert own.stack_bytes <= each.stack_bytes
            assert own.handler_class is each.handler_class or each.handler_class is HandlerClass.MUTATING
            assert own.may_decline <= each.may_decline
            assert own.may_handle <= each.may_handle
            assert covered(own.scratch_read, each.scratch_read)
            assert covered(own.scratch_written, each.scratch_written)
            assert own.effects <= each.effects
            assert own.helpers <= each.helpers
            for slot, fact in own.accesses.items():
                known = each.accesses[slot]
                assert known.region in (None, fact.region)
                assert known.offset in (None, fact.offset)
        shared += len(handlers) - len({id(each.accesses) for each in handlers})
    assert shared > 300


def accepted(of: Program) -> tuple[VerifiedHandler, ...]:
    bad = set(refused(of))
    return verify_program(
        replace(of, handlers=tuple(each for each in of.handlers if each.section not in bad))
    ).handlers


def covered(some: Iterable[ByteRange], by: Iterable[ByteRange]) -> bool:
    by = tuple(by)
    return all(any(each.start <= one.start and one.end <= each.end for each in by) for one in some)
