"""The verifier's words over unknown integers, and the machine's operations as the solver has them.

`Words` is the verifier's `WordAlgebra`, from its own source, but for one function. All results pass through
`Words._refine`, which narrows a word's parts by each other. It is long, and proven by itself
(`test_proofs.py`): it loses no value that its parts admit. Elsewhere its *contract* takes its place: some
well-formed word, any at all, that admits those of the values at hand which the parts admit; or None, if they
admit none. So no proof depends on how well it narrows.

`BitVectors` is the concrete side: `devbc.semantics` over the solver's bit-vectors.
"""

from __future__ import annotations

from typing import Any

import z3

import devbc.verifier.arithmetic
import devbc.verifier.refine
import devbc.verifier.state
import devbc.verifier.word
from tests.verifier.smt.code import load
from tests.verifier.smt.symbolic import Expr, Integer, Number, Run, integer


def _cut(words: Words, bits: int, *parts: Any) -> tuple[Any, ...]:
    return words.cut(bits, *parts)


_word = load(devbc.verifier.word, sym_cut=_cut)
_arithmetic = load(devbc.verifier.arithmetic, Word=_word.Word, Words=_word.Words)


def _rebased() -> Any:
    """`arithmetic.WordAlgebra` on the converted `Words`: its source names its base when it is compiled."""
    methods = {
        name: each for name, each in vars(_arithmetic.WordAlgebra).items() if not name.startswith("__")
    }
    return type("WordAlgebra", (_word.Words,), methods)


refine: Any = load(devbc.verifier.refine, Word=_word.Word, Words=_word.Words).refine
follow: Any = load(devbc.verifier.state, Word=_word.Word)._follow
Word: Any = _word.Word
RealWords: Any = _word.Words
"""`Words` with the `_refine` that it really has."""


class Words(_rebased()):  # type: ignore[misc]
    """The algebra whose results are narrowed by contract; `witnesses` are the values at hand, by width."""

    def __init__(self, run: Run, full: int = 64) -> None:
        super().__init__(full)
        self.run = run
        self.witnesses: dict[int, list[Expr]] = {}
        #: While `_refine` itself is proven: the value that must not get lost, and the parts as they were.
        self.cuts: tuple[Expr, Any] | None = None

    def _refine(self, *parts: Any) -> Any:
        if all(isinstance(each, int) for each in parts[:-1]):
            cuts, self.cuts = self.cuts, None
            known = RealWords._refine(self, *parts)
            self.cuts = cuts
            return known
        word = Word(*parts)
        self.run.prove(well_formed_parts(word), "parts of a word are numbers of its width")
        witnesses = self.witnesses.get(word.bits, [])
        admitted = [admits(word, each) for each in witnesses]
        # What surely holds is said as it is: it makes the solver's work easier.
        admitted = [z3.BoolVal(True) if self.run.holds(each) else each for each in admitted]
        nothing = [z3.Not(each) for each in admitted]
        if self.run.possible(*nothing) and self.run.ask(self.run.fresh("is_empty", 1) == 1):
            self.run.assume(z3.And(*nothing))
            return None
        result = self.any_word(word.bits)
        for each, before in zip(witnesses, admitted, strict=True):
            self.run.assume(z3.Implies(before, admits(result, each)))
        return result

    def cut(self, bits: int, *parts: Any) -> tuple[Any, ...]:
        """Between two statements: the value is still admitted; no more is known of what has changed."""
        if self.cuts is None:
            # Of known numbers, which need no proof.
            return parts
        value, before = self.cuts
        now = Word(bits, *parts)
        old = (*numbers(before), before.low)
        changed = [new is not was for new, was in zip(parts, old, strict=True)]
        if not any(changed):
            return parts
        self.run.prove(z3.And(admits(now, value), well_formed_parts(now)), "a step of a round")
        fresh = numbers(self.any_parts(bits, "step"))
        after = [new if other else part for new, part, other in zip(fresh, parts, changed, strict=False)]
        result = Word(bits, *after, now.low)
        self.run.assume(z3.And(admits(result, value), well_formed_parts(result)))
        self.cuts = (value, result)
        return (*after, now.low)

    def any_word(self, bits: int, name: str = "word") -> Any:
        """A word of which nothing is known but that it is one."""
        word = self.any_parts(bits, name)
        self.run.assume(well_formed(word))
        return word

    def any_parts(self, bits: int, name: str) -> Any:
        """What `_refine` may be called with."""
        run = self.run
        value, mask, umin, umax = (
            Integer.unsigned(run.fresh(f"{name}.{part}", bits)) for part in ("value", "mask", "umin", "umax")
        )
        smin, smax = (Integer.signed(run.fresh(f"{name}.{part}", bits)) for part in ("smin", "smax"))
        low = self.any_word(self.half, f"{name}.low") if bits == self.full else None
        word = Word(bits, value, mask, umin, umax, smin, smax, low)
        run.assume(well_formed_parts(word))
        return word

    def holding(self, bits: int, name: str) -> tuple[Any, Expr]:
        """Any word, and any value of it."""
        word, value = self.any_word(bits, name), self.run.fresh(f"{name}.x", bits)
        self.run.assume(admits(word, value))
        # That it agrees with the known bits, in the form that solvers like best: solved for the value.
        unknown = self.run.fresh("some", bits)
        self.run.assume(value == word.value.low(bits) | word.mask.low(bits) & unknown)
        return word, value

    def track(self, value: Expr) -> None:
        bits = value.size()
        self.witnesses.setdefault(bits, []).append(value)
        if bits == self.full:
            self.track(z3.Extract(self.half - 1, 0, value))


def numbers(word: Any) -> tuple[Number, ...]:
    return (word.value, word.mask, word.umin, word.umax, word.smin, word.smax)


def admits(word: Any, value: Expr) -> Expr:
    """Whether the word stands for the value: said here again, apart from `Word.contains`."""
    unsigned, signed = Integer.unsigned(value), Integer.signed(value)
    everything = (1 << word.bits) - 1
    parts = [
        (unsigned & (everything - word.mask)) == word.value,
        unsigned >= word.umin,
        unsigned <= word.umax,
        signed >= word.smin,
        signed <= word.smax,
    ]
    low = [admits(word.low, z3.Extract(word.low.bits - 1, 0, value))] if word.low is not None else []
    return z3.And(*[each.expr for each in parts], *low)


def well_formed(word: Any) -> Expr:
    """What all words that are handed out are: ranges have a value, and where no bit is unknown, just one."""
    known = integer(word.mask) == 0
    return z3.And(
        well_formed_parts(word),
        (integer(word.umin) <= word.umax).expr,
        (integer(word.smin) <= word.smax).expr,
        z3.Implies(known.expr, z3.And(*[each.expr for each in _just(word)])),
    )


def _just(word: Any) -> list[Any]:
    least, most = integer(word.umin), integer(word.umax)
    return [least == word.value, most == word.value, integer(word.smin) == word.smax]


def well_formed_parts(word: Any) -> Expr:
    everything, sign = (1 << word.bits) - 1, 1 << (word.bits - 1)
    return z3.And(
        ((integer(word.value) & word.mask) == 0).expr,
        *_between(0, word.value, everything),
        *_between(0, word.mask, everything),
        (integer(word.umin) >= 0).expr,
        (integer(word.umax) <= everything).expr,
        (integer(word.smin) >= -sign).expr,
        (integer(word.smax) < sign).expr,
    )


def _between(least: int, number: Number, most: int) -> tuple[Expr, Expr]:
    return (integer(number) >= least).expr, (integer(number) <= most).expr


class BitVectors:
    """`devbc.semantics.Algebra` over z3's bit-vectors and conditions."""

    def const(self, value: int, bits: int) -> Expr:
        return z3.BitVecVal(value, bits)

    def add(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a + b

    def sub(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a - b

    def mul(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a * b

    def udiv(self, a: Expr, b: Expr, bits: int) -> Expr:
        return z3.UDiv(a, b)

    def urem(self, a: Expr, b: Expr, bits: int) -> Expr:
        return z3.URem(a, b)

    def sdiv(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a / b

    def srem(self, a: Expr, b: Expr, bits: int) -> Expr:
        return z3.SRem(a, b)

    def and_(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a & b

    def or_(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a | b

    def xor(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a ^ b

    def shl(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a << b

    def lshr(self, a: Expr, b: Expr, bits: int) -> Expr:
        return z3.LShR(a, b)

    def ashr(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a >> b

    def bswap(self, a: Expr, bits: int) -> Expr:
        return z3.Concat(*[z3.Extract(at + 7, at, a) for at in range(0, bits, 8)])

    def trunc(self, a: Expr, bits: int, to: int) -> Expr:
        return z3.Extract(to - 1, 0, a)

    def zext(self, a: Expr, bits: int, to: int) -> Expr:
        return z3.ZeroExt(to - bits, a)

    def sext(self, a: Expr, bits: int, to: int) -> Expr:
        return z3.SignExt(to - bits, a)

    def eq(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a == b

    def ne(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a != b

    def ult(self, a: Expr, b: Expr, bits: int) -> Expr:
        return z3.ULT(a, b)

    def ule(self, a: Expr, b: Expr, bits: int) -> Expr:
        return z3.ULE(a, b)

    def slt(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a < b

    def sle(self, a: Expr, b: Expr, bits: int) -> Expr:
        return a <= b

    def select(self, condition: Expr, a: Expr, b: Expr, bits: int) -> Expr:
        return z3.If(condition, a, b)


VECTORS = BitVectors()
