"""Abstract words at full width: random words around random values, compared with Python integers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc import semantics
from devbc.engines.integers import INTEGERS
from devbc.isa.opcodes import SPECS, Kind, Operation, Source, Spec
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.refine import refine
from devbc.verifier.word import Word
from tests.strategies import U64

WORDS = WordAlgebra()
EVERYTHING = (1 << 64) - 1
BINARY = [spec for spec in SPECS.values() if spec.kind is Kind.ALU and spec.source is Source.REG
          and spec.operation not in (Operation.MOV, Operation.MOVSX)]  # fmt: skip
MOVES = [spec for spec in SPECS.values() if spec.operation in (Operation.MOV, Operation.MOVSX)]
UNARY = [spec for spec in SPECS.values() if spec.kind is Kind.UNARY]
JUMPS = [spec for spec in SPECS.values() if spec.kind is Kind.JUMP and spec.source is Source.REG]


def signed(value: int) -> int:
    return value - (value >> 63 << 64)


@st.composite
def words(draw: st.DrawFn) -> tuple[Word, int]:
    """A value, and a word that admits it: some bits known, some distance to each bound."""
    value = draw(U64)
    mask = draw(st.one_of(st.just(EVERYTHING), st.just(0), U64, st.integers(0, 255), st.just(0xFFFF_FFFF)))
    distance = st.one_of(st.just(0), st.integers(0, 16), st.integers(0, 1 << 33), st.just(1 << 64))
    low, half = value & 0xFFFF_FFFF, None
    if draw(st.booleans()):
        half = WORDS.range(max(0, low - draw(distance)), min(0xFFFF_FFFF, low + draw(distance)), 32)
    word = WORDS.make(
        64,
        value=value & ~mask,
        mask=mask,
        umin=max(0, value - draw(distance)),
        umax=min(EVERYTHING, value + draw(distance)),
        smin=max(-(1 << 63), signed(value) - draw(distance)),
        smax=min((1 << 63) - 1, signed(value) + draw(distance)),
        low=half,
    )
    assert word is not None
    assert word.contains(value)
    return word, value


@pytest.mark.parametrize("spec", BINARY, ids=lambda spec: spec.name)
@settings(max_examples=60, deadline=None)
@given(first=words(), second=words())
def test_binary_operations(spec: Spec, first: tuple[Word, int], second: tuple[Word, int]) -> None:
    (a, x), (b, y) = first, second
    assert semantics.alu(WORDS, spec, a, b).contains(semantics.alu(INTEGERS, spec, x, y))


@pytest.mark.parametrize("spec", UNARY, ids=lambda spec: spec.name)
@given(given_=words())
def test_unary_operations(spec: Spec, given_: tuple[Word, int]) -> None:
    word, value = given_
    assert semantics.unary(WORDS, spec, word).contains(semantics.unary(INTEGERS, spec, value))


@pytest.mark.parametrize("spec", MOVES, ids=lambda spec: spec.name)
@given(given_=words())
def test_moves(spec: Spec, given_: tuple[Word, int]) -> None:
    word, value = given_
    assert semantics.move(WORDS, spec, word).contains(semantics.move(INTEGERS, spec, value))


@pytest.mark.parametrize("spec", JUMPS, ids=lambda spec: spec.name)
@settings(max_examples=100, deadline=None)
@given(first=words(), second=words())
def test_conditions_and_refinement(spec: Spec, first: tuple[Word, int], second: tuple[Word, int]) -> None:
    (a, x), (b, y) = first, second
    taken = semantics.condition(INTEGERS, spec, x, y)
    assert semantics.condition(WORDS, spec, a, b) in (None, taken)
    left, right = (a, b) if spec.width == 64 else (a.low, b.low)
    assert left is not None
    assert right is not None
    narrowed = refine(WORDS, spec.operation, left, right, taken)
    assert narrowed is not None
    lower = (1 << spec.width) - 1
    assert narrowed[0].contains(x & lower)
    assert narrowed[1].contains(y & lower)
    if spec.width == 32:
        whole = WORDS.with_low(a, narrowed[0])
        assert whole is not None
        assert whole.contains(x)


@given(first=words(), second=words())
def test_join_and_inclusion(first: tuple[Word, int], second: tuple[Word, int]) -> None:
    (a, x), (b, y) = first, second
    joined = WORDS.join(a, b)
    assert joined.includes(a)
    assert joined.includes(b)
    assert joined.contains(x)
    assert joined.contains(y)


@given(given_=words(), to=st.sampled_from([1, 5, 8, 16, 32, 40, 63]))
def test_truncation(given_: tuple[Word, int], to: int) -> None:
    word, value = given_
    cut = WORDS.trunc(word, 64, to)
    assert cut.contains(value & ((1 << to) - 1))
    assert WORDS.zext(cut, to, 64).contains(value & ((1 << to) - 1))
