"""Abstract words at small widths, exhaustively: every operation, condition, refinement and lattice operation.

Complete at 3 bits (every pair of all words) and for the 32-bit forms at 2. At 4 bits equality, and the making
of words from parts, are complete in the long profile; for the rest every word takes part, with a few partners
in the short profile and more in the long one. `small.py` says what is compared.
"""

from __future__ import annotations

import functools
import random

import pytest

from devbc import semantics
from devbc.engines.integers import INTEGERS
from devbc.isa.opcodes import Operation, Spec
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.word import Word
from tests.verifier import small as evidence
from tests.verifier.small import BINARY, JUMPS, MOVES, SWAPS, UNARY, small

TINY, NIBBLES = 3, 4


def name(spec: Spec) -> str:
    return spec.name


def test_there_are_as_many_words_as_the_documentation_says() -> None:
    assert len(small(TINY).elements) == 164
    assert len(small(NIBBLES).elements) == 8953
    assert len(small(NIBBLES).halves) == 17


@pytest.mark.parametrize("bits", [TINY, NIBBLES, 8])
def test_making_a_word_drops_only_what_a_part_excludes(bits: int) -> None:
    at = small(bits) if bits < 8 else eight()
    evidence.check_make(at, 1000 if bits == 8 else 10_000, 1)


def test_all_parts_narrow_each_other_soundly() -> None:
    """A word and its half too, which `test_proofs.py` leaves to this."""
    evidence.check_refine(small(TINY), range(8))


@pytest.mark.long
@pytest.mark.parametrize("mask", range(16))
def test_all_parts_narrow_each_other_soundly_on_nibbles(mask: int) -> None:
    """Halves of 2 bits, which have a sign bit and another: 25 million choices of parts."""
    evidence.check_refine(small(NIBBLES), [mask])


def test_equal_words_are_one_object() -> None:
    words = WordAlgebra(NIBBLES)
    assert words.range(3, 7, 4) is words.range(3, 7, 4)
    assert words.range(5, 5, 4) is words.const(5, 4)
    assert words.make(4, umin=8) is words.make(4, smax=-1)


@pytest.mark.parametrize("spec", BINARY, ids=name)
def test_binary_operations(spec: Spec) -> None:
    evidence.check_binary(small(TINY), spec, small(TINY).pairs())
    evidence.check_binary(small(NIBBLES), spec, small(NIBBLES).half_pairs())


@pytest.mark.parametrize("spec", [each for each in BINARY if each.width == 64], ids=name)
def test_binary_operations_on_nibbles(spec: Spec) -> None:
    at, rng = small(NIBBLES), random.Random(2)
    evidence.check_binary(at, spec, (rng.choices(at.elements, k=2) for _ in range(3000)))  # type: ignore[misc]


@pytest.mark.long
@pytest.mark.parametrize("spec", [each for each in BINARY if each.width == 64], ids=name)
def test_binary_operations_on_every_nibble(spec: Spec) -> None:
    evidence.check_binary(small(NIBBLES), spec, small(NIBBLES).sample(40, 2))


@pytest.mark.parametrize("spec", [*UNARY, *MOVES], ids=name)
def test_unary_operations_and_moves(spec: Spec) -> None:
    """Scaled to 8 bits, where `movsx` from 8, 16 and 32 bits starts at bits 1, 2 and 4."""
    evidence.check_unary(eight(), spec, eight().elements[::4])


@pytest.mark.parametrize("spec", SWAPS, ids=name)
def test_byte_swaps(spec: Spec) -> None:
    """At full width, for a known byte at each place among unknown ones, and known bits at random."""
    words, rng = WordAlgebra(), random.Random(3)
    for _ in range(300):
        mask, x = rng.getrandbits(64) | rng.getrandbits(64), rng.getrandbits(64)
        word = words.make(64, value=x & ~mask, mask=mask)
        assert word is not None
        result = semantics.unary(words, spec, word)
        for _ in range(4):
            value = word.value | rng.getrandbits(64) & mask
            assert result.contains(semantics.unary(INTEGERS, spec, value))


@pytest.mark.parametrize("spec", BINARY, ids=name)
def test_operations_on_constants_are_exact(spec: Spec) -> None:
    at, form = small(NIBBLES), evidence.scaled(spec, NIBBLES)
    for x in range(16):
        for y in range(16):
            a, b = at.words.const(x, 4), at.words.const(y, 4)
            result = semantics.alu(at.words, form, a, b, full=4)
            assert result.constant == semantics.alu(INTEGERS, form, x, y, full=4)


@pytest.mark.parametrize("spec", JUMPS, ids=name)
def test_conditions_on_constants_are_decided(spec: Spec) -> None:
    at, form = small(NIBBLES), evidence.scaled(spec, NIBBLES)
    for x in range(16):
        for y in range(16):
            truth = semantics.condition(at.words, form, at.words.const(x, 4), at.words.const(y, 4), full=4)
            assert truth is semantics.condition(INTEGERS, form, x, y, full=4)


@pytest.mark.parametrize("spec", JUMPS, ids=name)
def test_conditions_and_what_they_teach(spec: Spec) -> None:
    for at, pairs in ((small(TINY), list(small(TINY).pairs())),
                      (small(NIBBLES), list(small(NIBBLES).half_pairs()))):  # fmt: skip
        evidence.check_condition(at, spec, pairs)
        evidence.check_refinement(at, spec, pairs)


@pytest.mark.long
@pytest.mark.parametrize("spec", JUMPS, ids=name)
def test_conditions_and_what_they_teach_on_every_nibble(spec: Spec) -> None:
    pairs = list(small(NIBBLES).sample(20, 3))
    evidence.check_condition(small(NIBBLES), spec, pairs)
    evidence.check_refinement(small(NIBBLES), spec, pairs)


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
def test_equality_of_all_nibbles(part: int) -> None:
    """80 million pairs; and what `!=`, `==` and `&` teach beside each constant, where they teach most."""
    at = small(NIBBLES)
    evidence.check_equality(at, at.elements[part::8])
    constants = [at.words.const(each, NIBBLES) for each in range(16)]
    pairs = [pair for a in at.elements[part::8] for b in constants for pair in ((a, b), (b, a))]
    for operation in (Operation.JEQ, Operation.JNE, Operation.JSET):
        evidence.check_refinement(at, evidence.form(operation), pairs)


def test_meet_join_and_inclusion() -> None:
    for check in (evidence.check_meet, evidence.check_join, evidence.check_includes):
        check(small(TINY), small(TINY).pairs())
        check(small(NIBBLES), small(NIBBLES).sample(1, 5))


def test_truncation_extension_and_narrower_halves() -> None:
    for check in (evidence.check_resize, evidence.check_with_low):
        check(small(TINY), small(TINY).elements)
        check(small(NIBBLES), small(NIBBLES).elements[::3])


@pytest.mark.long
def test_lattice_on_every_nibble() -> None:
    for check in (evidence.check_meet, evidence.check_join, evidence.check_includes):
        check(small(NIBBLES), small(NIBBLES).sample(60, 6))
    for each in (evidence.check_resize, evidence.check_with_low):
        each(small(NIBBLES), small(NIBBLES).elements)


class Eight(evidence.Small):
    """Words of 8 bits: all tnums, and ranges and halves around them at random; all would be too many."""

    def _all(self, bits: int, halves: tuple[Word, ...]) -> tuple[Word, ...]:
        rng, words = random.Random(8), self.words
        if bits < 8:
            parts = (sorted(rng.choices(range(16), k=2)) for _ in range(40))
            return tuple({words.range(umin, umax, bits) for umin, umax in parts})
        made: list[Word | None] = []
        for mask in range(256):
            for value in (each for each in range(256) if not each & mask):
                umin, umax = sorted((rng.choice([0, value]), rng.choice([255, value | mask])))
                smin, smax = sorted(rng.choices(range(-128, 128), k=2))
                made.append(words.make(8, value=value, mask=mask, umin=umin, umax=umax))
                made.append(words.make(8, mask=mask | 240, value=value & 15 & ~mask, smin=smin, smax=smax))
        return tuple(each for each in made if each is not None)


@functools.cache
def eight() -> Eight:
    return Eight(8)
