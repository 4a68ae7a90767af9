"""Verifiers that are wrong on purpose: each mistake must be caught by the evidence that is named beside it.

A mutant replaces one function of the verifier, mostly by what other verifiers once had wrong (the CVE is
named). The evidence is what the other tests run: the exhaustive checks of `small.py`, those of whole states
(`state_mutants.py` has these mutants), or a program that must be rejected. It must pass on the verifier as it
is, and fail on the mutant; a mutant that survives means that a test is missing.

Not here: mistakes in the machine's memory and in loading (`test_contract.py`, `test_soundness.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from devbc import semantics
from devbc.diagnostics import Rejected
from devbc.isa.opcodes import Operation, Source, Spec
from devbc.program.verified import Region
from devbc.verifier import explore, machine, refine, state, tables, word
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.state import Snapshot
from devbc.verifier.word import Word, Words
from tests.verifier import small as evidence
from tests.verifier.mutant import Evidence, Mutant
from tests.verifier.oracle import verify
from tests.verifier.small import MOVES, Small, form, small
from tests.verifier.state_mutants import STATE_MUTANTS


def unseen(bits: int) -> Small:
    """The same elements with nothing remembered: what `make` did before must not hide what it does now."""
    known, fresh = small(bits), Small.__new__(Small)
    fresh.bits, fresh.words = bits, WordAlgebra(bits)
    fresh.halves, fresh.elements, fresh.wide = known.halves, known.elements, known.wide
    return fresh


def binary(operation: Operation, width: int = 64) -> Evidence:
    def check() -> None:
        tiny, nibbles = unseen(3), unseen(4)
        evidence.check_binary(tiny, form(operation, width), tiny.pairs())
        rng = random.Random(7)
        pairs = [(rng.choice(nibbles.elements), rng.choice(nibbles.elements)) for _ in range(3000)]
        evidence.check_binary(nibbles, form(operation, width), pairs)

    return check


def jump(operation: Operation, width: int = 64) -> Evidence:
    def check() -> None:
        at = unseen(3 if width == 64 else 4)
        pairs = list(at.pairs() if width == 64 else at.half_pairs())
        evidence.check_condition(at, form(operation, width), pairs)
        evidence.check_refinement(at, form(operation, width), pairs)

    return check


def lattice(check: Callable[[Small, evidence.Pairs], None]) -> Evidence:
    return lambda: check(unseen(3), small(3).pairs())


def resized() -> None:
    evidence.check_resize(unseen(4), small(4).elements[::3])


def made() -> None:
    evidence.check_make(unseen(4), 4000, 1)


def refined() -> None:
    """Of 3 bits, whose halves have one; and with halves of two, the ranges alone."""
    evidence.check_refine(unseen(3), range(8))
    evidence.check_refine(unseen(4), [15])


def equal() -> None:
    evidence.check_equality(unseen(3), small(3).elements)


def moved() -> None:
    """`movsx` of half a register, scaled to 4 bits."""
    at = unseen(4)
    for spec in MOVES:
        if spec.narrow >= 16:
            evidence.check_unary(at, spec, at.elements[::3])


def refused(program: str) -> Evidence:
    def check() -> None:
        try:
            verify(program)
        except Rejected:
            return
        raise AssertionError("a program that breaks the contract was accepted")

    return check


# Mistakes of arithmetic. Each wrong function takes the right one, to differ from it in one thing.


def but(**changes: Callable[[Word, Word, Word, int], Any]) -> Callable[[Any], Any]:
    """A binary operation whose result has wrong parts, computed from the right result and the operands."""

    def wrong(right: Any) -> Any:
        def operation(words: WordAlgebra, a: Word, b: Word, bits: int) -> Word:
            word: Word = right(words, a, b, bits)
            parts = {part: getattr(word, part) for part in ("value", "mask", "umin", "umax", "smin", "smax")}
            parts |= {part: change(word, a, b, bits) for part, change in changes.items()}
            parts["value"] &= ~parts["mask"]
            return words.make(bits, **parts) or word

        return operation

    return wrong


def everything(bits: int) -> int:
    return (1 << bits) - 1


def tnum_only(mask: Callable[[Word, Word], int], value: Callable[[Word, Word], int]) -> Callable[[Any], Any]:
    """An operation that answers by a tnum alone."""

    def wrong(right: Any) -> Any:
        def operation(words: WordAlgebra, a: Word, b: Word, bits: int) -> Word:
            unknown = mask(a, b) & everything(bits)
            return words.make(bits, value=value(a, b) & everything(bits) & ~unknown, mask=unknown) or a

        return operation

    return wrong


def ranges(bounds: Callable[[Word, Word, int], tuple[int, int]]) -> Callable[[Any], Any]:
    """An operation that answers by an unsigned range alone."""

    def wrong(right: Any) -> Any:
        def operation(words: WordAlgebra, a: Word, b: Word, bits: int) -> Word:
            least, most = bounds(a, b, bits)
            return words.range(least, max(least, most), bits)

        return operation

    return wrong


def instead(other: Any) -> Callable[[Any], Any]:
    return lambda right: other


def of_half(operation: str) -> Callable[[Any], Any]:
    """The lower half's bounds are the whole's, cut off (CVE-2020-8835, CVE-2021-31440)."""

    def wrong(right: Any) -> Any:
        def result(words: WordAlgebra, a: Word, b: Word, bits: int) -> Word:
            word: Word = right(words, a, b, bits)
            if bits != words.full or not word.mask:
                return word
            lower = everything(words.half)
            low = words.range(min(word.umin & lower, word.umax & lower), word.umax & lower, words.half)
            return words.with_low(word, low) or word

        return result

    return wrong


def shifted_whole(right: Any) -> Any:
    """A logical shift in the place of an arithmetic one."""
    return lambda words, a, amount, bits: words._lshr(a, amount, bits)


def relation(swap: dict[Operation, Operation]) -> Callable[[Any], Any]:
    """A refinement that takes one jump for another."""

    def wrong(right: Any) -> Any:
        def operation(words: Words, spec: Operation, a: Word, b: Word, taken: bool) -> Any:
            return right(words, swap.get(spec, spec), a, b, taken)

        return operation

    return wrong


def swapped_ways(right: Any) -> Any:
    return lambda words, operation, a, b, taken: right(words, operation, a, b, not taken)


def signed_as_unsigned(right: Any) -> Any:
    return lambda words, a, b, bits: words.ult(a, b, bits)


def zero_extended(right: Any) -> Any:
    return lambda words, a, bits, to: words.zext(a, bits, to)


def range_keeps_its_order(right: Any) -> Any:
    """Truncation that cuts the ends of a range and not what lies between."""

    def trunc(words: WordAlgebra, a: Word, bits: int, to: int) -> Word:
        least, most = sorted((a.umin & everything(to), a.umax & everything(to)))
        return words.range(least, most, to)

    return trunc


def any_common_bit(right: Any) -> Any:
    """`jset` taken: every bit that may be common is set."""

    def wrong(words: Words, word: Word, other: Word) -> Word | None:
        common = (word.value | word.mask) & (other.value | other.mask)
        return refine._with_bits(words, word, common, 0) if common else None

    return wrong


def without_either_end(right: Any) -> Any:
    """`jne` that takes a value away from the end of a range, whether it is there or not."""
    return lambda words, word, other: right(words, word, words.const(word.umax, word.bits))


def up_too_far(right: Any) -> Any:
    """An end whose half lies above all values: on to the next one's second."""

    def round_up(bound: int, low: Word, half: int) -> int:
        above = bound & everything(half) > low.umax and low.umax > low.umin
        return int(right(bound, low, half)) + above

    return round_up


def down_too_far(right: Any) -> Any:
    """An end whose half lies below all values: to the one before's last but one."""

    def round_down(bound: int, low: Word, half: int) -> int:
        below = bound & everything(half) < low.umin and low.umax > low.umin
        return int(right(bound, low, half)) - below

    return round_down


def by_bits_of_halves(right: Any) -> Any:
    """0 and 0 differ."""

    def eq(words: WordAlgebra, a: Word, b: Word, bits: int) -> Any:
        known = a.low and b.low and not a.low.mask | b.low.mask
        return False if known and not a.value & b.value else right(words, a, b, bits)

    return eq


def lossy_join(right: Any) -> Any:
    """A join that has the signed bounds of one side only."""

    def join(words: Words, a: Word, b: Word) -> Word:
        word: Word = right(words, a, b)
        narrowed = words.make(word.bits, value=word.value, mask=word.mask, smin=a.smin, smax=a.smax)
        return narrowed or word

    return join


def includes_by(*parts: str) -> Callable[[Any], Any]:
    def wrong(right: Any) -> Any:
        return lambda mine, its: all(
            getattr(mine, f"{part}min") <= getattr(its, f"{part}min")
            and getattr(its, f"{part}max") <= getattr(mine, f"{part}max")
            for part in parts
        )

    return wrong


# Programs that break the contract, for mistakes beyond arithmetic.

INDEX = "lddw %r3, map_value_by_idx 0, 0\nadd %r3, {}\nldxb %r3, [%r3+0]\nmov %r0, 1\nout:\nmov %r0, 1\nexit"

#: A copy's lower half is compared, the whole is used.
COMPARED_IN_32 = "ldxdw %r2, [%r1+16]\njgt32 %r2, 7, out\n" + INDEX.format("%r2")

#: The sign extension of a byte is compared; the byte itself may be 255.
SIGN_EXTENDED = "ldxb %r2, [%r1+16]\nmovsx864 %r4, %r2\njsgt %r4, 7, out\n" + INDEX.format("%r2")

#: A doubled copy is compared: its upper bits were lost.
SHIFTED_OUT = "ldxdw %r2, [%r1+16]\nmov %r4, %r2\nlsh %r4, 60\njne %r4, 0, out\n" + INDEX.format("%r2")

#: Two ways meet: on the first scratch was not written, on the second it was, and then the handler declines.
WRITTEN_ON_ONE_WAY = """
    ldxdw %r2, [%r1+16]
    jne %r2, 0, wrote
    mov %r2, 0
join:
    mov %r0, 0
    exit
wrote:
    lddw %r3, map_value_by_idx 0, 0
    stb [%r3+0], 1
    ja join"""

#: Two ways meet with different bounds; the wider one comes second.
WIDER_SECOND = """
    ldxdw %r2, [%r1+16]
    jgt %r2, 7, wide
join:
    lddw %r3, map_value_by_idx 0, 0
    add %r3, %r2
    ldxb %r3, [%r3+0]
    mov %r0, 1
    exit
wide:
    ja join"""

#: A spilled word has one byte overwritten.
OVERWRITTEN = """
    stdw [%r10-8], 0
    ldxdw %r4, [%r1+16]
    stxb [%r10-7], %r4
    ldxdw %r2, [%r10-8]
    lddw %r3, map_value_by_idx 0, 0
    add %r3, %r2
    ldxb %r3, [%r3+0]
    mov %r0, 1
    exit"""

#: The upper half of a stored -1 is all ones.
STORED_SIGN = "stdw [%r10-8], -1\nldxdw %r2, [%r10-8]\nrsh %r2, 32\n" + INDEX.format("%r2")

#: Never ends, though no state comes again.
ENDLESS = "mov %r0, 0\nl:\nadd %r0, 1\nja l"

#: The second way to the join is the longer one, and what arrives on it is covered by what came first.
COVERED = """
    ldxdw %r3, [%r1+16]
    ldxdw %r4, [%r1+16]
    jeq %r3, 0, longer
join:
    stxdw [%r1+8], %r4
    mov %r0, 1
    exit
longer:
    mov %r4, 5
    mov %r4, 5
    ja join"""


#: One load of the exit comes twice: what it gave first was overwritten since.
READ_AGAIN = """
    mov %r6, 0
round:
    ldxw %r2, [%r1+80]
    lddw %r3, map_value_by_idx 0, 0
    add %r3, %r2
    ldxb %r4, [%r3+63]
    stw [%r1+80], 1
    add %r6, 1
    jlt %r6, 2, round
    mov %r0, 1
    exit"""

#: One load of two tables: their entries differ.
TWO_TABLES = """
    ldxdw %r2, [%r1+16]
    lddw %r5, map_value_by_idx 1, 63
    jeq %r2, 0, load
    lddw %r5, map_value_by_idx 1, 0
load:
    ldxb %r4, [%r5+0]
    lddw %r3, map_value_by_idx 0, 0
    add %r3, %r4
    ldxb %r3, [%r3+0]
    mov %r0, 1
    exit"""

#: The same sum twice, of different numbers.
ADDED_TWICE = "mov %r2, 0\nadd %r2, 40\nadd %r2, 40\n" + INDEX.format("%r2")


def counted() -> None:
    assert verify(COVERED).worst_case == 3 + 3 + 3


#: The spill itself is compared on one way and not on the other.
SPILLED_WIDER_SECOND = WIDER_SECOND.replace("jgt %r2", "stxdw [%r10-8], %r2\njgt %r2").replace(
    "join:\n", "join:\nldxdw %r2, [%r10-8]\n"
)


def covers_but(change: Callable[[Snapshot, Snapshot], bool]) -> Callable[[Any], Any]:
    return lambda right: change


def _values_only(mine: Snapshot, its: Snapshot) -> bool:
    return (
        all(a is None or state._admits(a, b) for a, b in zip(mine.values, its.values, strict=True))
        and mine.wrote == its.wrote
    )


def _ignores_wrote(mine: Snapshot, its: Snapshot) -> bool:
    return all(a is None or state._admits(a, b) for a, b in zip(mine.values, its.values, strict=True))


def _ignores_values(mine: Snapshot, its: Snapshot) -> bool:
    return mine.wrote == its.wrote


def kept_link(right: Any) -> Any:
    """What comes out of any operation is still a copy."""
    return lambda link, insn: link


def kept_spill(right: Any) -> Any:
    return lambda machine_, cells, offset, size: None


def no_rest(right: Any) -> Any:
    """What is pruned costs nothing."""

    def covering(meeting: Any, arrived: Snapshot) -> Any:
        return right(meeting, arrived) and explore.Stretch(0, None)

    return covering


def unfinished(right: Any) -> Any:
    """A state that is still being explored stands for those that come after it."""
    return lambda meeting, arrived: next(iter(meeting.known.values()), None)


def of_slot_alone(right: Any) -> Any:
    """What a load gave, it gives at any address."""

    class BySlot(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            return next((value for (slot, _), value in self.items() if slot == key[0]), default)

    def init(exploration: explore.Exploration, *args: Any) -> None:
        right(exploration, *args)
        exploration._loaded = BySlot()

    return init


def constant_alone(right: Any) -> Any:
    """Results of an operation with a constant are the same for any other operand."""

    def traits(spec: Spec) -> Any:
        computes, one_operand, register, role = right(spec)
        return computes, one_operand or not register, register, role

    return traits


def unsigned_immediate(right: Any) -> Any:
    return lambda machine_, insn: (
        machine_.algebra.const(insn.imm & 0xFFFF_FFFF, 64)
        if insn.spec.source is Source.IMM
        else right(machine_, insn)
    )


def half_is_whole(right: Any) -> Any:
    """A 32-bit comparison is taken to be one of the whole register."""

    def with_low(words: Words, word: Word, low: Word) -> Word | None:
        return words.meet(word, words.range(low.umin, low.umax, word.bits))

    return with_low


def no_mask(right: Any) -> Any:
    """Shift amounts are not reduced: by the width or more nothing is left."""

    def shift(words: WordAlgebra, a: Word, b: Word, bits: int) -> Word:
        return words.const(0, bits) if b.mask or b.value >= bits // 2 else right(words, a, b, bits)

    return shift


def upper_half_kept(right: Any) -> Any:
    """A result of 32 bits is sign-extended into the upper half."""
    return lambda words, a, bits, to: words.sext(a, bits, to)


MUTANTS = {
    "add: the tnum without its carries": Mutant(
        WordAlgebra, "add", tnum_only(lambda a, b: a.mask | b.mask, lambda a, b: a.value + b.value),
        binary(Operation.ADD)),
    "add: bounds without a thought of overflow": Mutant(
        WordAlgebra, "add",
        ranges(lambda a, b, bits: (min(a.umin + b.umin, everything(bits)),
                                   min(a.umax + b.umax, everything(bits)))),
        binary(Operation.ADD)),
    "sub: bounds subtracted end by end": Mutant(
        WordAlgebra, "sub", ranges(lambda a, b, bits: (max(0, a.umin - b.umin), max(0, a.umax - b.umax))),
        binary(Operation.SUB)),
    "sub: the tnum of a sum": Mutant(
        WordAlgebra, "sub", tnum_only(lambda a, b: a.mask | b.mask, lambda a, b: a.value - b.value),
        binary(Operation.SUB)),
    "add: the lower half's bounds cut from the whole's (CVE-2020-8835)": Mutant(
        WordAlgebra, "add", of_half("add"), binary(Operation.ADD)),
    "mul: the lower half's bounds cut from the whole's (CVE-2021-31440)": Mutant(
        WordAlgebra, "mul", of_half("mul"), binary(Operation.MUL)),
    "mul: bounds without a thought of overflow": Mutant(
        WordAlgebra, "mul",
        ranges(lambda a, b, bits: (min(a.umin * b.umin, everything(bits)),
                                   min(a.umax * b.umax, everything(bits)))),
        binary(Operation.MUL)),
    "and: the least of the maxima as the minimum too": Mutant(
        WordAlgebra, "and_", but(umin=lambda word, a, b, bits: min(a.umin, b.umin)), binary(Operation.AND)),
    "or: the greater maximum (CVE-2020-27194)": Mutant(
        WordAlgebra, "or_", but(umax=lambda word, a, b, bits: max(a.umax, b.umax)), binary(Operation.OR)),
    "xor: bounds of an or (CVE-2021-3490)": Mutant(
        WordAlgebra, "xor", but(umin=lambda word, a, b, bits: max(a.umin, b.umin)), binary(Operation.XOR)),
    "xor: unknown bits only where both are": Mutant(
        WordAlgebra, "xor", tnum_only(lambda a, b: a.mask & b.mask, lambda a, b: a.value ^ b.value),
        binary(Operation.XOR)),
    "div: end by end": Mutant(
        WordAlgebra, "udiv",
        ranges(lambda a, b, bits: (a.umin // max(b.umin, 1), a.umax // max(b.umax, 1))),
        binary(Operation.DIV)),
    "mod: the bound is the divisor's least": Mutant(
        WordAlgebra, "urem", ranges(lambda a, b, bits: (0, max(b.umin, 1) - 1)), binary(Operation.MOD)),
    "mod: nothing happens to a dividend below the greatest divisor": Mutant(
        WordAlgebra, "urem", lambda right: lambda words, a, b, bits: a if a.umax < b.umax
        else right(words, a, b, bits), binary(Operation.MOD)),
    "sdiv: as unsigned": Mutant(
        WordAlgebra, "sdiv", lambda right: lambda words, a, b, bits: words.udiv(a, b, bits),
        binary(Operation.SDIV)),
    "smod: as unsigned": Mutant(
        WordAlgebra, "srem", lambda right: lambda words, a, b, bits: words.urem(a, b, bits),
        binary(Operation.SMOD)),
    "div: by zero it is undefined, hence anything but zero": Mutant(
        semantics, "_divide", lambda right: lambda algebra, operation, a, b, bits: algebra.udiv(a, b, bits)
        if type(algebra) is WordAlgebra else right(algebra, operation, a, b, bits), binary(Operation.DIV)),
    "lsh: amounts that are not reduced": Mutant(WordAlgebra, "shl", no_mask, binary(Operation.LSH)),
    "rsh: amounts that are not reduced": Mutant(WordAlgebra, "lshr", no_mask, binary(Operation.RSH)),
    "arsh: as rsh": Mutant(WordAlgebra, "_ashr", shifted_whole, binary(Operation.ARSH)),
    "slt: as unsigned": Mutant(WordAlgebra, "slt", signed_as_unsigned, jump(Operation.JSLT)),
    "eq: equal bounds are equal values": Mutant(
        WordAlgebra, "eq", lambda right: lambda words, a, b, bits: a is b or right(words, a, b, bits),
        jump(Operation.JEQ)),
    "jle: off by one": Mutant(
        refine, "refine", relation({Operation.JLE: Operation.JLT}), jump(Operation.JLE)),
    "jge: off by one, 32 bits": Mutant(
        refine, "refine", relation({Operation.JGE: Operation.JGT}), jump(Operation.JGE, 32)),
    "jsgt: as unsigned": Mutant(
        refine, "refine", relation({Operation.JSGT: Operation.JGT}), jump(Operation.JSGT)),
    "jlt: what is learnt belongs to the other way": Mutant(
        refine, "refine", swapped_ways, jump(Operation.JLT)),
    "jset: all common bits are set": Mutant(refine, "_with_common_bit", any_common_bit, jump(Operation.JSET)),
    "jne: an end goes that was not compared with": Mutant(
        refine, "_without", without_either_end, jump(Operation.JNE)),
    "a 32-bit comparison teaches 64 bits (CVE-2021-31440)": Mutant(
        Words, "with_low", half_is_whole, jump(Operation.JLE, 32)),
    "movsx: zero-extended": Mutant(WordAlgebra, "sext", zero_extended, moved),
    "movsx, mov: the upper half is not zeroed": Mutant(WordAlgebra, "zext", upper_half_kept, moved),
    "truncation keeps the order of a range": Mutant(WordAlgebra, "trunc", range_keeps_its_order, resized),
    "make: the half is its least value": Mutant(
        Words, "_narrow_half",
        lambda right: lambda words, low, *parts: words.const(low.umin, words.half), made),
    "make: an end moves up beyond the half's least value": Mutant(word, "_round_up", up_too_far, refined),
    "make: an end moves down beyond the half's greatest value": Mutant(
        word, "_round_down", down_too_far, refined),
    "eq: halves without a common bit differ": Mutant(WordAlgebra, "eq", by_bits_of_halves, equal),
    "join: as meet": Mutant(
        Words, "join", lambda right: lambda words, a, b: words.meet(a, b) or a,
        lattice(evidence.check_join)),
    "join: one side's signed bounds": Mutant(Words, "join", lossy_join, lattice(evidence.check_join)),
    "meet: as join": Mutant(
        Words, "meet", lambda right: lambda words, a, b: words.join(a, b), lattice(evidence.check_meet)),
    "includes: without the lower half and the tnum": Mutant(
        Word, "includes", includes_by("u", "s"), lattice(evidence.check_includes)),
    "includes: unsigned bounds only": Mutant(
        Word, "includes", includes_by("s"), lattice(evidence.check_includes)),
    "pruning: whether scratch was written is not asked": Mutant(
        Snapshot, "covers", covers_but(_ignores_wrote), refused(WRITTEN_ON_ONE_WAY)),
    "pruning: values are not compared (CVE-2023-2163)": Mutant(
        Snapshot, "covers", covers_but(_ignores_values), refused(WIDER_SECOND)),
    "pruning: the stack is not compared": Mutant(
        Snapshot, "covers", covers_but(_values_only), refused(SPILLED_WIDER_SECOND)),
    "links: kept across sign extension": Mutant(explore, "_bits_of", kept_link, refused(SIGN_EXTENDED)),
    "links: kept across shifts": Mutant(explore, "_bits_of", kept_link, refused(SHIFTED_OUT)),
    "stack: a partial overwrite keeps the spill": Mutant(
        machine.AbstractMachine, "_clear", kept_spill, refused(OVERWRITTEN)),
    "pruning: what is left of a run is not counted": Mutant(explore._Meeting, "covering", no_rest, counted),
    "pruning: by a state that is not finished": Mutant(
        explore._Meeting, "covering", unfinished, refused(ENDLESS)),
    "loads: of the exit they give the same again": Mutant(
        explore, "_STEADY", instead(tuple(Region)), refused(READ_AGAIN)),
    "loads: they give the same at another address": Mutant(
        explore.Exploration, "__init__", of_slot_alone, refused(TWO_TABLES)),
    "results: kept without an operand": Mutant(tables, "_traits", constant_alone, refused(ADDED_TWICE)),
    "immediates: not sign-extended (CVE-2017-16995)": Mutant(
        semantics, "source", unsigned_immediate, refused(STORED_SIGN)),
    "jumps: 32-bit facts for 64-bit values": Mutant(
        Words, "with_low", half_is_whole, refused(COMPARED_IN_32)),
} | STATE_MUTANTS  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_verifier_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    small(3), small(4)
    monkeypatch.setattr(mutant.owner, mutant.name, mutant.wrong(getattr(mutant.owner, mutant.name)))
    with pytest.raises(AssertionError):
        mutant.evidence()


PROGRAMS = (
    COMPARED_IN_32, SIGN_EXTENDED, SHIFTED_OUT, WRITTEN_ON_ONE_WAY, WIDER_SECOND, OVERWRITTEN, STORED_SIGN,
    ENDLESS, SPILLED_WIDER_SECOND, READ_AGAIN, TWO_TABLES, ADDED_TWICE,
)  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_right_verifier_is_not(program: str) -> None:
    """The programs' evidence; `test_words.py` runs the rest on the verifier as it is."""
    refused(program)()
    counted()
