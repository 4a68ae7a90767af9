"""Abstract words at a small width, where every value can be tried: 4 bits with 2-bit halves.

The elements are all that the parts can make alone and in pairs; each operation is compared with the concrete
one (`devbc.engines.integers`) on every value of its operands, through `devbc.semantics`, as the verifier
uses it.
"""

from __future__ import annotations

import functools
import random

import pytest

from devbc import semantics
from devbc.engines.integers import INTEGERS
from devbc.isa.opcodes import SPECS, Kind, Operation, Source, Spec
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.refine import refine
from devbc.verifier.word import Word

FULL = 4
EVERY = range(1 << FULL)
WORDS = WordAlgebra(FULL)


def signed(number: int, bits: int = FULL) -> int:
    return number - (1 << bits) if number >> (bits - 1) else number


@functools.cache
def values(word: Word) -> tuple[int, ...]:
    return tuple(number for number in range(1 << word.bits) if word.contains(number))


@functools.cache
def elements() -> tuple[Word, ...]:
    """Every tnum, unsigned range, signed range and range of the lower half, and random meets of them."""
    simple: set[Word] = set()
    for mask in EVERY:
        for value in EVERY:
            if not value & mask:
                simple.add(made(value=value, mask=mask))
    for lo in EVERY:
        for hi in range(lo, 1 << FULL):
            simple.add(made(umin=lo, umax=hi))
            simple.add(made(smin=lo - 8, smax=hi - 8))
    halves = [WORDS.range(lo, hi, FULL // 2) for lo in range(4) for hi in range(lo, 4)]
    simple |= {made(low=half) for half in halves}
    ordered = sorted(simple, key=repr)
    rng = random.Random(4)
    meets = {WORDS.meet(rng.choice(ordered), rng.choice(ordered)) for _ in range(600)}
    return tuple(sorted((simple | meets) - {None}, key=repr))  # type: ignore[arg-type]


def made(**parts: object) -> Word:
    word = WORDS.make(FULL, **parts)  # type: ignore[arg-type]
    assert word is not None
    return word


def pairs(count: int, seed: int) -> list[tuple[Word, Word]]:
    rng = random.Random(seed)
    return [(rng.choice(elements()), rng.choice(elements())) for _ in range(count)]


def width(spec: Spec) -> int:
    return FULL if spec.width == 64 else FULL // 2


def forms(*kinds: Kind) -> list[Spec]:
    """One spec for each operation and width."""
    moves = (Operation.MOV, Operation.MOVSX)
    return [
        spec
        for spec in SPECS.values()
        if spec.kind in kinds and spec.source is not Source.IMM and spec.operation not in moves
        and spec.operation not in (Operation.TO_LE, Operation.TO_BE, Operation.BSWAP)
    ]  # fmt: skip


def test_making_a_word_drops_only_what_a_part_excludes() -> None:
    rng = random.Random(1)
    for _ in range(20_000):
        mask = rng.choice([15, rng.randrange(16)])
        value = rng.randrange(16) & ~mask
        ulo, uhi = sorted(rng.choices(range(16), k=2))
        slo, shi = sorted(rng.choices(range(-8, 8), k=2))
        llo, lhi = sorted(rng.choices(range(4), k=2))
        low = WORDS.range(llo, lhi, 2)
        admitted = [
            number
            for number in EVERY
            if number & ~mask == value
            and ulo <= number <= uhi
            and slo <= signed(number) <= shi
            and llo <= number & 3 <= lhi
        ]
        word = WORDS.make(FULL, value=value, mask=mask, umin=ulo, umax=uhi, smin=slo, smax=shi, low=low)
        assert list(values(word) if word else ()) == admitted


def test_equal_words_are_one_object() -> None:
    assert WORDS.range(3, 7, FULL) is WORDS.range(3, 7, FULL)
    assert WORDS.range(5, 5, FULL) is WORDS.const(5, FULL)
    assert made(umin=8) is made(smax=-1)


@pytest.mark.parametrize("spec", forms(Kind.ALU), ids=lambda spec: spec.name)
def test_binary_operations_are_sound(spec: Spec) -> None:
    bits = width(spec)
    for a, b in pairs(700, 2):
        result = semantics.alu(WORDS, spec, a, b, full=FULL, width=bits)
        for x in values(a):
            for y in values(b):
                concrete = semantics.alu(INTEGERS, spec, x, y, full=FULL, width=bits)
                assert result.contains(concrete), f"{x} of {a!r}, {y} of {b!r}: {concrete} not in {result!r}"


@pytest.mark.parametrize("spec", forms(Kind.ALU), ids=lambda spec: spec.name)
def test_operations_on_constants_are_exact(spec: Spec) -> None:
    bits = width(spec)
    for x in EVERY:
        for y in EVERY:
            a, b = WORDS.const(x, FULL), WORDS.const(y, FULL)
            result = semantics.alu(WORDS, spec, a, b, full=FULL, width=bits)
            assert result.constant == semantics.alu(INTEGERS, spec, x, y, full=FULL, width=bits)


@pytest.mark.parametrize("spec", forms(Kind.JUMP), ids=lambda spec: spec.name)
def test_conditions_and_what_they_teach_are_sound(spec: Spec) -> None:
    bits = width(spec)
    for a, b in pairs(700, 3):
        truth = semantics.condition(WORDS, spec, a, b, full=FULL, width=bits)
        left, right = (a, b) if bits == FULL else (a.low, b.low)
        assert left is not None
        assert right is not None
        learnt = {way: refine(WORDS, spec.operation, left, right, way) for way in (True, False)}
        for x in values(a):
            for y in values(b):
                taken = semantics.condition(INTEGERS, spec, x, y, full=FULL, width=bits)
                assert truth in (None, taken)
                narrowed = learnt[taken]
                assert narrowed is not None, f"{x} {spec.operation} {y} was ruled out for {a!r}, {b!r}"
                assert narrowed[0].contains(x), f"{x} of {a!r} went missing"
                assert narrowed[1].contains(y), f"{y} of {b!r} went missing"


@pytest.mark.parametrize("spec", forms(Kind.JUMP), ids=lambda spec: spec.name)
def test_conditions_on_constants_are_decided(spec: Spec) -> None:
    for x in EVERY:
        for y in EVERY:
            a, b = WORDS.const(x, FULL), WORDS.const(y, FULL)
            truth = semantics.condition(WORDS, spec, a, b, full=FULL, width=width(spec))
            assert truth is semantics.condition(INTEGERS, spec, x, y, full=FULL, width=width(spec))


def test_truncation_and_extension_are_sound() -> None:
    for word in elements():
        for to in (1, 2, 3):
            cut = WORDS.trunc(word, FULL, to)
            assert all(cut.contains(INTEGERS.trunc(x, FULL, to)) for x in values(word))
    for lo in range(4):
        for hi in range(lo, 4):
            half = WORDS.range(lo, hi, 2)
            zero, sign = WORDS.zext(half, 2, FULL), WORDS.sext(half, 2, FULL)
            assert all(zero.contains(INTEGERS.zext(x, 2, FULL)) for x in values(half))
            assert all(sign.contains(INTEGERS.sext(x, 2, FULL)) for x in values(half))


def test_join_meet_and_inclusion() -> None:
    for a, b in pairs(4000, 5):
        joined, met = WORDS.join(a, b), WORDS.meet(a, b)
        both = set(values(a)) & set(values(b))
        assert {*values(a), *values(b)} <= set(values(joined))
        assert set(values(met) if met else ()) == both
        if a.includes(b):
            assert set(values(b)) <= set(values(a))


def test_a_word_with_a_narrower_half() -> None:
    for a, b in pairs(4000, 6):
        assert b.low is not None
        narrowed = WORDS.with_low(a, b.low)
        assert set(values(narrowed) if narrowed else ()) == {x for x in values(a) if b.low.contains(x & 3)}


@pytest.mark.long
@pytest.mark.parametrize("spec", forms(Kind.ALU), ids=lambda spec: spec.name)
def test_binary_operations_are_sound_on_all_pairs(spec: Spec) -> None:
    bits = width(spec)
    for a in elements():
        for b in elements():
            result = values(semantics.alu(WORDS, spec, a, b, full=FULL, width=bits))
            concrete = {
                semantics.alu(INTEGERS, spec, x, y, full=FULL, width=bits)
                for x in values(a)
                for y in values(b)
            }
            assert concrete <= set(result)
