"""The soundness campaign has teeth: a mistake in the verifier is found within a few programs."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from devbc.isa.opcodes import Operation
from devbc.verifier import explore, machine, refine, state
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.state import Cell, Link
from devbc.verifier.word import Word
from tests.verifier.campaign import Figures, Origin, campaign, candidate, mutated, real_handlers

Mistake = Callable[[pytest.MonkeyPatch], None]


def sums_do_not_wrap(patch: pytest.MonkeyPatch) -> None:
    def add(self: WordAlgebra, a: Word, b: Word, bits: int) -> Word:
        most = (1 << bits) - 1
        return self.range(min(a.umin + b.umin, most), min(a.umax + b.umax, most), bits)

    patch.setattr(WordAlgebra, "add", add)


def halves_are_sign_extended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WordAlgebra, "zext", WordAlgebra.sext)


def at_most_is_less(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(refine._OPPOSITE, Operation.JGT, Operation.JLT)


def a_spill_survives_a_partial_store(patch: pytest.MonkeyPatch) -> None:
    def clear(_self: object, _cells: dict[int, Cell], _offset: int, _size: int) -> None:
        pass

    patch.setattr(machine.AbstractMachine, "_clear", clear)


def copies_stay_copies(patch: pytest.MonkeyPatch) -> None:
    def whole(link: Link, _insn: object) -> Link:
        return link

    patch.setattr(explore, "_bits_of", whole)


def numbers_do_not_count_in_comparisons(patch: pytest.MonkeyPatch) -> None:
    admits = state._admits

    def careless(mine: object, its: object) -> bool:
        return (isinstance(mine, Word) and isinstance(its, Word)) or admits(mine, its)  # type: ignore[arg-type]

    patch.setattr(state, "_admits", careless)


MISTAKES: tuple[Mistake, ...] = (
    sums_do_not_wrap,
    halves_are_sign_extended,
    at_most_is_less,
    a_spill_survives_a_partial_store,
    copies_stay_copies,
    numbers_do_not_count_in_comparisons,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_found(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    assert any(
        campaign([candidate(origin, seed)], Figures()).violations
        for seed in range(400)
        for origin in (Origin.MADE, Origin.MUTATED)
    )


def test_candidates_follow_from_origin_and_seed() -> None:
    for origin in Origin:
        codes = [candidate(origin, seed).handler.code for seed in range(6)]
        assert codes == [candidate(origin, seed).handler.code for seed in range(6)]
        assert len(set(codes)) == 6


def test_every_shipped_device_is_among_the_real_handlers() -> None:
    shares = {program.device for program, _ in real_handlers()}
    assert shares >= {"acpi_pm_timer", "hpet", "i8254", "mc146818", "uart16550"}


def test_mutations_change_little() -> None:
    for program, each in real_handlers()[:50]:
        changed = mutated(each.code, random.Random(each.section + program.device))
        assert len(changed) == len(each.code)
        places = sum(changed[at : at + 8] != each.code[at : at + 8] for at in range(0, len(changed), 8))
        assert places <= 12
