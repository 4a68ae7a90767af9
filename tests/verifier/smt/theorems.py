"""What is proven of the abstract operations: one theorem a function, for `symbolic.proofs` to run.

Each takes any well-formed words and any values of them, runs the verifier's own operation on the words, and
asks that the result admits what the machine's operation (`BitVectors`) makes of the values. Since
`devbc.semantics` is one text over any algebra, an algebra whose every operation is sound makes every
instruction sound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import z3

from devbc import semantics
from devbc.isa.opcodes import Spec
from tests.verifier.smt.symbolic import Expr, Integer, Run, Truth
from tests.verifier.smt.words import VECTORS, RealWords, Words, admits, follow, numbers, refine, well_formed

Theorem = Callable[[Run], None]
WidthTheorem = Callable[[int], Theorem]


def _divisor(y: Expr, x: Expr) -> Expr:
    return y != 0


def _signed_divisor(y: Expr, x: Expr) -> Expr:
    """`devbc.semantics` lets neither 0 nor -1 through."""
    return z3.And(y != 0, y != -1)


#: What `devbc.semantics` promises of second operands.
PROMISES = {
    "udiv": _divisor,
    "urem": _divisor,
    "sdiv": _signed_divisor,
    "srem": _signed_divisor,
}


def binary(operation: str, bits: int, full: int = 64) -> Theorem:
    def theorem(run: Run) -> None:
        words = Words(run, full)
        (a, x), (b, y) = words.holding(bits, "a"), words.holding(bits, "b")
        if operation in PROMISES:
            run.assume(PROMISES[operation](y, x))
        result = getattr(VECTORS, operation)(x, y, bits)
        words.track(result)
        run.prove(admits(getattr(words, operation)(a, b, bits), result), operation)

    return theorem


def shift(operation: str, bits: int, amount: int, full: int = 64) -> Theorem:
    """By a constant."""

    def theorem(run: Run) -> None:
        words = Words(run, full)
        a, x = words.holding(bits, "a")
        result = getattr(VECTORS, operation)(x, z3.BitVecVal(amount, bits), bits)
        words.track(result)
        run.prove(admits(getattr(words, f"_{operation}")(a, amount, bits), result), operation)

    return theorem


def shift_estimate(operation: str, bits: int, full: int = 64) -> Theorem:
    """By any amount below the width."""

    def theorem(run: Run) -> None:
        words = Words(run, full)
        (a, x), (b, y) = words.holding(bits, "a"), words.holding(bits, "b")
        run.assume((b.umax < bits).expr)
        result = getattr(VECTORS, operation)(x, y, bits)
        words.track(result)
        run.prove(admits(getattr(words, f"_{operation}_estimate")(a, b, bits), result), operation)

    return theorem


def resized(operation: str, bits: int, to: int, full: int = 64) -> Theorem:
    def theorem(run: Run) -> None:
        words = Words(run, full)
        a, x = words.holding(bits, "a")
        result = getattr(VECTORS, operation)(x, bits, to)
        words.track(result)
        run.prove(admits(getattr(words, operation)(a, bits, to), result), operation)

    return theorem


def swapped(bits: int) -> Theorem:
    def theorem(run: Run) -> None:
        words = Words(run)
        a, x = words.holding(bits, "a")
        result = VECTORS.bswap(x, bits)
        words.track(result)
        run.prove(admits(words.bswap(a, bits), result), "bswap")

    return theorem


def compared(operation: str, bits: int, full: int = 64) -> Theorem:
    """A comparison that is decided is decided rightly."""

    def theorem(run: Run) -> None:
        words = Words(run, full)
        (a, x), (b, y) = words.holding(bits, "a"), words.holding(bits, "b")
        truth = getattr(words, operation)(a, b, bits)
        truth = bool(truth) if isinstance(truth, Truth) else truth
        concrete = getattr(VECTORS, operation)(x, y, bits)
        run.prove(z3.BoolVal(True) if truth is None else concrete == truth, operation)

    return theorem


def refined(spec: Spec, taken: bool, full: int = 64) -> Theorem:
    """What a jump teaches of both operands; a 32-bit one of their halves."""

    def theorem(run: Run) -> None:
        words, bits = Words(run, full), spec.width
        (a, x), (b, y) = words.holding(bits, "a"), words.holding(bits, "b")
        words.track(x)
        words.track(y)
        concrete = semantics.condition(VECTORS, spec, x, y, full=bits)
        run.assume(concrete if taken else z3.Not(concrete))
        narrowed = refine(words, spec.operation, a, b, taken)
        if narrowed is None:
            run.prove(z3.BoolVal(False), f"{spec.name} is never {taken}")
        else:
            run.prove(admits(narrowed[0], x), f"{spec.name}: the left operand")
            run.prove(admits(narrowed[1], y), f"{spec.name}: the right operand")

    return theorem


def meet(bits: int) -> Theorem:
    def theorem(run: Run) -> None:
        words = Words(run)
        a, x = words.holding(bits, "a")
        b = words.any_word(bits, "b")
        run.assume(admits(b, x))
        words.track(x)
        met = words.meet(a, b)
        run.prove(z3.BoolVal(False) if met is None else admits(met, x), "what both admit")

    return theorem


def join(bits: int) -> Theorem:
    """Either side: the operands' places are shown separately, since `join` treats them alike."""

    def theorem(run: Run) -> None:
        words = Words(run)
        a, x = words.holding(bits, "a")
        b = words.any_word(bits, "b")
        words.track(x)
        run.prove(admits(words.join(a, b), x), "what the left admits")
        run.prove(admits(words.join(b, a), x), "what the right admits")

    return theorem


def includes(bits: int) -> Theorem:
    """What pruning stands on."""

    def theorem(run: Run) -> None:
        words = Words(run)
        a, x = words.holding(bits, "a")
        b = words.any_word(bits, "b")
        included = b.includes(a)
        run.prove(admits(b, x) if included else z3.BoolVal(True), "a word that is included")

    return theorem


def with_low() -> Theorem:
    def theorem(run: Run) -> None:
        words = Words(run)
        a, x = words.holding(64, "a")
        low = words.any_word(32, "low")
        run.assume(admits(low, z3.Extract(31, 0, x)))
        words.track(x)
        narrowed = words.with_low(a, low)
        run.prove(z3.BoolVal(False) if narrowed is None else admits(narrowed, x), "the whole, with its half")

    return theorem


def one_round(bits: int, full: int = 64) -> Theorem:
    """The contract of `Words._refine` holds: one round of it, from any parts, loses no value of them.

    Each statement of the round is a lemma: what it assigns may be any parts that still admit the value.
    """

    def theorem(run: Run) -> None:
        words = Words(run, full)
        x = run.fresh("x", bits)
        parts = words.any_parts(bits, "parts")
        run.assume(admits(parts, x))
        words.track(x)
        words.cuts = (x, parts)
        result = RealWords._refine(words, bits, *numbers(parts), parts.low)
        if result is None:
            run.prove(z3.BoolVal(False), "parts that admit a value make a word")
        else:
            run.prove(admits(result, x), "no value is lost")
            run.prove(well_formed(result), "words are well-formed")

    return theorem


def followed(mask: int, other_mask: int, moved: bool) -> Theorem:
    """Two holders of a symbol: what is known of one narrows the other (`state.py`)."""

    def theorem(run: Run) -> None:
        words = Words(run)
        (a, x), (b, y) = words.holding(64, "a"), words.holding(64, "b")
        symbol = run.fresh("symbol", 64)
        delta, its = (run.fresh("delta", 64), run.fresh("delta", 64)) if moved else (z3.BitVecVal(0, 64),) * 2
        run.assume((x ^ (symbol + delta)) & mask == 0)
        run.assume((y ^ (symbol + its)) & other_mask == 0)
        words.track(y)
        common = mask & other_mask
        whole = (common + 1 & ~common).bit_length() - 1
        if 2 <= whole < 64:
            words.witnesses[whole] = [*words.witnesses.get(whole, []), z3.Extract(whole - 1, 0, y)]
        narrowed = follow(words, a, _linked(delta, mask, moved), b, _linked(its, other_mask, moved))
        run.prove(z3.BoolVal(False) if narrowed is None else admits(narrowed, y), "the copy")

    return theorem


def _linked(delta: Expr, mask: int, moved: bool) -> Any:
    from devbc.verifier.state import Link

    return Link(1, Integer.unsigned(delta) if moved else 0, mask)  # type: ignore[arg-type]
