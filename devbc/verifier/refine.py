"""What a conditional jump teaches about its operands, on the way that was taken.

`refine` answers for one way through one comparison: the words that both operands are narrowed to, or None
if no values could go that way. It may leave values in that cannot go there (it is an over-approximation,
like all else here), and never removes one that can.

Comparisons of 32 bits are refined on the lower halves; `devbc.verifier.machine` puts them back into their
registers, where `Words.make` lets the whole learn from its half.
"""

from __future__ import annotations

from enum import Enum, auto

from devbc.isa.opcodes import Operation
from devbc.verifier.word import Word, Words


class _Relation(Enum):
    EQ = auto()
    NE = auto()
    ULT = auto()
    ULE = auto()
    SLT = auto()
    SLE = auto()
    SET = auto()
    CLEAR = auto()


#: Per jump: what holds if it is taken, what holds otherwise, and whether the operands change places.
_TAKEN = {
    Operation.JEQ: (_Relation.EQ, False),
    Operation.JNE: (_Relation.NE, False),
    Operation.JLT: (_Relation.ULT, False),
    Operation.JLE: (_Relation.ULE, False),
    Operation.JGT: (_Relation.ULT, True),
    Operation.JGE: (_Relation.ULE, True),
    Operation.JSLT: (_Relation.SLT, False),
    Operation.JSLE: (_Relation.SLE, False),
    Operation.JSGT: (_Relation.SLT, True),
    Operation.JSGE: (_Relation.SLE, True),
    Operation.JSET: (_Relation.SET, False),
}
_OPPOSITE = {
    Operation.JEQ: Operation.JNE,
    Operation.JNE: Operation.JEQ,
    Operation.JLT: Operation.JGE,
    Operation.JGE: Operation.JLT,
    Operation.JLE: Operation.JGT,
    Operation.JGT: Operation.JLE,
    Operation.JSLT: Operation.JSGE,
    Operation.JSGE: Operation.JSLT,
    Operation.JSLE: Operation.JSGT,
    Operation.JSGT: Operation.JSLE,
}


def refine(words: Words, operation: Operation, a: Word, b: Word, taken: bool) -> tuple[Word, Word] | None:
    """The operands of `if a OP b`, of equal width, as they are where the jump was (not) taken."""
    if operation is Operation.JSET and not taken:
        relation, swapped = _Relation.CLEAR, False
    else:
        relation, swapped = _TAKEN[operation if taken else _OPPOSITE[operation]]
    if not swapped:
        return _narrowed(words, relation, a, b)
    narrowed = _narrowed(words, relation, b, a)
    return narrowed and (narrowed[1], narrowed[0])


def _narrowed(words: Words, relation: _Relation, a: Word, b: Word) -> tuple[Word, Word] | None:
    match relation:
        case _Relation.EQ:
            common = words.meet(a, b)
            return _both(common, common)
        case _Relation.NE:
            return _both(_without(words, a, b), _without(words, b, a))
        case _Relation.ULT:
            return _both(_bounded(words, a, umax=b.umax - 1), _bounded(words, b, umin=a.umin + 1))
        case _Relation.ULE:
            return _both(_bounded(words, a, umax=b.umax), _bounded(words, b, umin=a.umin))
        case _Relation.SLT:
            return _both(_bounded(words, a, smax=b.smax - 1), _bounded(words, b, smin=a.smin + 1))
        case _Relation.SLE:
            return _both(_bounded(words, a, smax=b.smax), _bounded(words, b, smin=a.smin))
        case _Relation.SET:
            return _both(_with_common_bit(words, a, b), _with_common_bit(words, b, a))
        case _Relation.CLEAR:
            # No bit is set in both: wherever one operand's bit is known to be 1, the other's is 0.
            return _both(_with_bits(words, a, 0, b.value), _with_bits(words, b, 0, a.value))


def _both(a: Word | None, b: Word | None) -> tuple[Word, Word] | None:
    return None if a is None or b is None else (a, b)


def _bounded(
    words: Words,
    word: Word,
    *,
    umin: int | None = None,
    umax: int | None = None,
    smin: int | None = None,
    smax: int | None = None,
) -> Word | None:
    """The word with a bound moved inwards."""
    if (
        (umin is None or umin <= word.umin)
        and (umax is None or umax >= word.umax)
        and (smin is None or smin <= word.smin)
        and (smax is None or smax >= word.smax)
    ):
        return word
    umin = word.umin if umin is None else max(umin, word.umin)
    umax = word.umax if umax is None else min(umax, word.umax)
    smin = word.smin if smin is None else max(smin, word.smin)
    smax = word.smax if smax is None else min(smax, word.smax)
    if umin > umax or smin > smax:
        return None
    return words.make(word.bits, value=word.value, mask=word.mask, umin=umin, umax=umax,
                      smin=smin, smax=smax, low=word.low)  # fmt: skip


def _without(words: Words, word: Word, other: Word) -> Word | None:
    """The word without the one value that `other` stands for: it can only go from an end of a range."""
    if other.mask:
        return word
    unsigned, signed = other.umin, other.smin
    if word.umin == unsigned == word.umax:
        return None
    narrowed: Word | None = word
    if word.umin == unsigned:
        narrowed = _bounded(words, word, umin=unsigned + 1)
    elif word.umax == unsigned:
        narrowed = _bounded(words, word, umax=unsigned - 1)
    if narrowed and narrowed.smin == signed:
        narrowed = _bounded(words, narrowed, smin=signed + 1)
    elif narrowed and narrowed.smax == signed:
        narrowed = _bounded(words, narrowed, smax=signed - 1)
    return narrowed


def _with_common_bit(words: Words, word: Word, other: Word) -> Word | None:
    """The word, given that it and `other` have a set bit in common."""
    common = (word.value | word.mask) & (other.value | other.mask)
    if not common:
        return None
    if not common & (common - 1):
        return _with_bits(words, word, common, 0)
    # Any of several bits: the value is at least the lowest of them.
    return _bounded(words, word, umin=common & -common)


def _with_bits(words: Words, word: Word, ones: int, zeros: int) -> Word | None:
    """The word with these bits known to be 1 and those known to be 0."""
    if word.value & zeros or ones & ~(word.value | word.mask):
        return None
    known = (ones | zeros) & word.mask
    if not known:
        return word
    return words.make(word.bits, value=word.value | ones, mask=word.mask & ~known, umin=word.umin,
                      umax=word.umax, smin=word.smin, smax=word.smax, low=word.low)  # fmt: skip
