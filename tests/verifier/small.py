"""The abstract operations at small widths, where everything can be tried: what the tests and the mutants run.

`Small(bits)` holds the words of one width. At 3 bits these are *all* words that the parts can make (every
tnum met with every unsigned range, signed range and word of the lower half), and every pair of them is
checked. At 4 bits they are all words again, some 9,000: each is checked against a few partners, and halves
of 2 bits, on which the 32-bit forms compute, against each other.

Each `check_*` compares one abstract operation, run through `devbc.semantics` as the verifier runs it, with
the concrete one on every value of its operands. They raise AssertionError and nothing else, and they look the
operations up when they are called: `test_mutants.py` calls them on operations that are wrong on purpose.
Widths of forms are scaled with the register (64 bits to 4 make 32 bits 2, and 16 bits 1).

Not here: full width (`test_words_64.py`, `test_proofs.py`).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from devbc import semantics
from devbc.engines.integers import INTEGERS, signed
from devbc.isa.opcodes import SPECS, Kind, Operation, Source, Spec
from devbc.verifier import refine as refinement
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.word import Word

_MOVES = (Operation.MOV, Operation.MOVSX)
_SWAPS = (Operation.TO_BE, Operation.BSWAP)
Pairs = Iterable[tuple[Word, Word]]


@functools.cache
def admitted(word: Word) -> int:
    """The values of a word as a bit set."""
    return sum(1 << number for number in range(1 << word.bits) if word.contains(number))


def members(values: int) -> Iterator[int]:
    return (number for number in range(values.bit_length()) if values >> number & 1)


class Small:
    """Every word of a small width, and the operations on them."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.words = WordAlgebra(bits)
        self.halves = self._all(bits // 2, ())
        self.elements = self._all(bits, self.halves)
        #: Words that know nothing but their lower half: all that a 32-bit form can see.
        self.wide = tuple(self.words.make(bits, low=each) or self.words.unknown(bits) for each in self.halves)

    def _all(self, bits: int, halves: tuple[Word, ...]) -> tuple[Word, ...]:
        make, every = self.words.make, range(1 << bits)
        sign = 1 << (bits - 1)
        ranges = {
            make(bits, umin=umin, umax=umax, smin=smin - sign, smax=smax - sign)
            for umin in every
            for umax in range(umin, 1 << bits)
            for smin in every
            for smax in range(smin, 1 << bits)
        }
        made = {
            make(bits, value=value, mask=mask, umin=each.umin, umax=each.umax, smin=each.smin, smax=each.smax)
            for each in ranges
            if each is not None
            for mask in every
            for value in every
            if not value & mask
        }
        if halves:
            made = {self.words.with_low(each, half) for each in made if each is not None for half in halves}
        return tuple(sorted((each for each in made if each is not None), key=_order))

    def pairs(self) -> Pairs:
        return ((a, b) for a in self.elements for b in self.elements)

    def sample(self, partners: int, seed: int) -> Pairs:
        """Each word on either side, with random partners; and all pairs of halves, extended."""
        rng = random.Random(seed)
        for word in self.elements:
            for other in rng.choices(self.elements, k=partners):
                yield word, other
                yield other, word

    def half_pairs(self) -> Pairs:
        return ((a, b) for a in self.wide for b in self.wide)


def _order(word: Word) -> tuple[object, ...]:
    low = word.low
    half = (low.value, low.mask, low.umin, low.umax, low.smin, low.smax) if low else ()
    return (word.value, word.mask, word.umin, word.umax, word.smin, word.smax, half)


@functools.cache
def small(bits: int) -> Small:
    return Small(bits)


# Forms of instructions, scaled.


def scaled(spec: Spec, full: int) -> Spec:
    return replace(spec, width=spec.width * full // 64, narrow=spec.narrow * full // 64)


def _forms(kind: Kind) -> list[Spec]:
    return [spec for spec in SPECS.values() if spec.kind is kind and spec.source is not Source.IMM]


BINARY = [spec for spec in _forms(Kind.ALU) if spec.operation not in _MOVES]
MOVES = [spec for spec in _forms(Kind.ALU) if spec.operation in _MOVES]
JUMPS = _forms(Kind.JUMP)
#: Without those that swap bytes, which a small word does not have.
UNARY = [spec for spec in SPECS.values() if spec.kind is Kind.UNARY and spec.operation not in _SWAPS]
SWAPS = [spec for spec in SPECS.values() if spec.kind is Kind.UNARY and spec.operation in _SWAPS]


def form(operation: Operation, width: int = 64) -> Spec:
    """The form of a binary operation or a jump on registers."""
    return next(spec for spec in (*BINARY, *JUMPS) if (spec.operation, spec.width) == (operation, width))


# Checks.


def check_binary(at: Small, spec: Spec, pairs: Pairs) -> None:
    """`dst OP src`: every concrete result lies in the abstract one."""
    full, form_ = at.bits, scaled(spec, at.bits)
    every = range(1 << full)
    concrete = [[1 << semantics.alu(INTEGERS, form_, x, y, full=full) for y in every] for x in every]
    for a, b in pairs:
        results = 0
        for x in members(admitted(a)):
            row = concrete[x]
            for y in members(admitted(b)):
                results |= row[y]
        result = semantics.alu(at.words, form_, a, b, full=full)
        missing = results & ~admitted(result)
        assert not missing, f"{a!r} {spec.operation} {b!r}: {list(members(missing))} not in {result!r}"


def check_unary(at: Small, spec: Spec, elements: Iterable[Word]) -> None:
    """Negation, byte order, moves."""
    full, form_ = at.bits, scaled(spec, at.bits)
    for word in elements:
        if spec.kind is Kind.UNARY:
            result = semantics.unary(at.words, form_, word, full=full)
            results = [
                semantics.unary(INTEGERS, form_, x, full=full) for x in range(1 << full) if word.contains(x)
            ]
        else:
            result = semantics.move(at.words, form_, word, full=full)
            results = [
                semantics.move(INTEGERS, form_, x, full=full) for x in range(1 << full) if word.contains(x)
            ]
        assert all(map(result.contains, results)), f"{spec.name} {word!r}: {results} not in {result!r}"


def check_condition(at: Small, spec: Spec, pairs: Pairs) -> None:
    """A condition that is decided is decided rightly."""
    full, form_ = at.bits, scaled(spec, at.bits)
    concrete = _outcomes(form_, full)
    for a, b in pairs:
        truth = semantics.condition(at.words, form_, a, b, full=full)
        if truth is not None:
            for x in members(admitted(a)):
                wrong = admitted(b) & ~concrete[truth][x]
                assert not wrong, f"{a!r} {spec.operation} {b!r} is not always {truth}: {x}"


def check_refinement(at: Small, spec: Spec, pairs: Pairs) -> None:
    """What a jump teaches, either way: no value that goes this way is lost, of either operand."""
    full, form_ = at.bits, scaled(spec, at.bits)
    concrete = _outcomes(form_, full)
    for a, b in pairs:
        for way in (True, False):
            left = sum(1 << x for x in members(admitted(a)) if concrete[way][x] & admitted(b))
            right = 0
            for x in members(admitted(a)):
                right |= concrete[way][x] & admitted(b)
            narrowed = _narrowed(at, form_, a, b, way)
            if narrowed is None:
                assert not left, f"{a!r} {spec.operation} {b!r} can be {way}"
                continue
            for before, after, kept in ((a, narrowed[0], left), (b, narrowed[1], right)):
                lost = kept & ~admitted(after)
                assert not lost, f"{a!r} {spec.operation} {b!r}, {way}: {list(members(lost))} lost"
                assert not admitted(after) & ~admitted(before), f"{before!r} grew to {after!r}"


def _narrowed(at: Small, spec: Spec, a: Word, b: Word, way: bool) -> tuple[Word, Word] | None:
    """As `devbc.verifier.explore` does it: halves for a 32-bit jump, and the whole learns from its half."""
    words = at.words
    if spec.width == at.bits:
        return refinement.refine(words, spec.operation, a, b, way)
    assert a.low is not None
    assert b.low is not None
    halves = refinement.refine(words, spec.operation, a.low, b.low, way)
    left = halves and words.with_low(a, halves[0])
    right = halves and words.with_low(b, halves[1])
    return (left, right) if left and right else None


@functools.cache
def _outcomes(spec: Spec, full: int) -> dict[bool, list[int]]:
    """By truth and left operand: the right operands for which the condition has that truth, as a bit set."""
    every = range(1 << full)
    taken = [
        sum(1 << y for y in every if semantics.condition(INTEGERS, spec, x, y, full=full)) for x in every
    ]
    return {True: taken, False: [(1 << (1 << full)) - 1 & ~each for each in taken]}


def check_meet(at: Small, pairs: Pairs) -> None:
    for a, b in pairs:
        met = at.words.meet(a, b)
        assert (admitted(met) if met else 0) == admitted(a) & admitted(b), f"{a!r} and {b!r}: {met!r}"


def check_join(at: Small, pairs: Pairs) -> None:
    for a, b in pairs:
        joined = at.words.join(a, b)
        assert not (admitted(a) | admitted(b)) & ~admitted(joined), f"{a!r} or {b!r}: {joined!r}"


def check_includes(at: Small, pairs: Pairs) -> None:
    """What pruning asks: a word that includes another admits all of its values."""
    for a, b in pairs:
        assert a.includes(a)
        assert not a.includes(b) or not admitted(b) & ~admitted(a), f"{a!r} does not include {b!r}"


def check_with_low(at: Small, elements: Iterable[Word]) -> None:
    lower = (1 << at.bits // 2) - 1
    for word in elements:
        for half in at.halves:
            kept = sum(1 << x for x in members(admitted(word)) if half.contains(x & lower))
            narrowed = at.words.with_low(word, half)
            assert (admitted(narrowed) if narrowed else 0) == kept, f"{word!r} with {half!r}: {narrowed!r}"


def check_resize(at: Small, elements: Iterable[Word]) -> None:
    """Truncation to every width, and extension of what is left from every width."""
    full, words = at.bits, at.words
    for word in elements:
        for to in range(1, full):
            cut = words.trunc(word, full, to)
            zero, sign = words.zext(cut, to, full), words.sext(cut, to, full)
            for x in members(admitted(word)):
                part = x & ((1 << to) - 1)
                assert cut.contains(part), f"{word!r} cut to {to} bits: {part} not in {cut!r}"
                assert zero.contains(part), f"{cut!r} extended: {part} not in {zero!r}"
                assert sign.contains(signed(part, to)), f"{cut!r} sign-extended: {part} not in {sign!r}"


def check_make(at: Small, count: int, seed: int) -> None:
    """`make` of random parts, also contradictory and redundant ones: it drops only what a part excludes."""
    rng, full = random.Random(seed), at.bits
    top, sign, lower = 1 << full, 1 << full - 1, (1 << full // 2) - 1
    for _ in range(count):
        mask = rng.choice([top - 1, rng.randrange(top)])
        value = rng.randrange(top) & ~mask
        umin, umax = sorted(rng.choices(range(top), k=2))
        smin, smax = sorted(rng.choices(range(-sign, sign), k=2))
        low = rng.choice(at.halves)
        expected = sum(
            1 << x
            for x in range(top)
            if x & ~mask == value
            and umin <= x <= umax
            and smin <= signed(x, full) <= smax
            and low.contains(x & lower)
        )
        word = at.words.make(
            full, value=value, mask=mask, umin=umin, umax=umax, smin=smin, smax=smax, low=low
        )
        assert (admitted(word) if word else 0) == expected


def check_refine(at: Small, masks: Iterable[int]) -> None:
    """`_refine` of every choice of parts with these unknown bits: it drops what a part excludes, no more.

    Also of parts that no word has: contradictory ones, and a half at odds with its whole.
    """
    bits, words, every = at.bits, at.words, range(1 << at.bits)
    sign, lower = 1 << bits - 1, (1 << bits // 2) - 1
    ranges = [(least, most) for least in every for most in every if least <= most]
    unsigned = [(*each, sum(1 << x for x in every if each[0] <= x <= each[1])) for each in ranges]
    signed_ = [
        (least - sign, most - sign, sum(1 << x for x in every if least <= x ^ sign <= most))
        for least, most in ranges
    ]
    lows = [(low, sum(1 << x for x in every if low.contains(x & lower))) for low in at.halves]
    for mask in masks:
        for value in (each for each in every if not each & mask):
            known = sum(1 << x for x in every if x & ~mask == value)
            for umin, umax, in_range in unsigned:
                for smin, smax, in_signed in signed_:
                    whole = known & in_range & in_signed
                    for low, in_half in lows:
                        word = words._refine(bits, value, mask, umin, umax, smin, smax, low)
                        left = admitted(word) if word else 0
                        parts = (value, mask, umin, umax, smin, smax, low)
                        assert left == whole & in_half, f"{parts}: {word!r}"


def check_equality(at: Small, elements: Iterable[Word]) -> None:
    """`eq` of these words with every word: decided rightly, where it is decided."""
    equal, every = at.words.eq, [(each, admitted(each)) for each in at.elements]
    for a in elements:
        mine = admitted(a)
        for b, its in every:
            truth = equal(a, b, at.bits)
            if truth is not None:
                right = mine == its and not mine & mine - 1 if truth else not mine & its
                assert right, f"{a!r} == {b!r} is not always {truth}"
