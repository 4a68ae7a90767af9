"""Which bytes of the shared area a verified handler touches, where an index decides.

With 24 bytes a channel, all that the word domain knows of where `channel[i].count` begins is a range and a
multiple of 8: enough to accept the access, and too much to report, for it covers the other fields between.
So once a handler is accepted, a forward dataflow over its code looks for addresses of the form

    shared area + base + scale * n        (modulo 2**64)

where n was the operand of one multiplication by a constant. What n can be is known: the exploration has kept
the words that it saw there. An access begins at an offset that has this form *and* that the exploration
admits; both hold on every run, so what they have in common holds.

Nothing here decides whether a program is accepted. What the dataflow does not follow (spills, arguments,
sums of two indices) is reported as the range that the exploration knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Final, NamedTuple

from devbc.abi import MapIndex
from devbc.isa.insn import Insn, written_registers
from devbc.isa.opcodes import REGISTERS, Kind, Operation, Source
from devbc.program.verified import ByteRange
from devbc.verifier.shape import Shape
from devbc.verifier.values import Value, is_word
from devbc.verifier.word import Word, Words

#: Values of an index, or offsets of an access, that are looked at one by one.
_FEW: Final = 4096

#: By slot: what the exploration saw there (offsets of accesses, operands of multiplications).
Seen = Mapping[int, Iterable[Value | None]]

_U64: Final = (1 << 64) - 1
#: r0 to r5, which no call gives back.
_CLOBBERED: Final = range(6)


class Affine(NamedTuple):
    """`base + scale * n`, for some operand n of the multiplication at `product`; plus the address of the
    shared area if `shared`. A constant has scale 0."""

    base: int
    scale: int = 0
    product: int = -1
    shared: bool = False


_Registers = list[Affine | None]


def touched(
    shape: Shape, words: Words, accesses: Sequence[Seen], operands: Seen
) -> Iterator[tuple[ByteRange, ...]]:
    """For each kind of access, the bytes of the shared area that it touches at these slots and offsets."""
    variable = any(is_word(each) and each.mask for seen in accesses for at in seen.values() for each in at)
    exact = {slot for slot, seen in operands.items() if _fits(shape.insns[slot], seen)}
    forms = _forms(shape, exact) if variable and exact else {}
    for seen in accesses:
        ranges: set[tuple[int, int]] = set()
        for slot, offsets in seen.items():
            insn = shape.insns[slot]
            registers = forms.get(slot)
            form = registers[insn.src if insn.spec.kind is Kind.LOAD else insn.dst] if registers else None
            begins = None
            if form is not None and form.shared and form.scale:
                begins = _begins(form, insn, words, operands)
            for offset in offsets:
                assert isinstance(offset, Word)
                ranges.update(_ranges(offset, insn.spec.bytes, begins))
        yield merged(ranges)


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[ByteRange, ...]:
    """The ranges in order, those that touch each other made one."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return tuple(ByteRange(start, end) for start, end in out)


def _ranges(offset: Word, size: int, begins: Iterable[int] | None) -> Iterator[tuple[int, int]]:
    """The bytes of an access that begins at an offset, and at one of `begins` if these are known."""
    step = offset.mask & -offset.mask or 1
    if begins is None:
        # Unknown bits in a row: the accesses touch each other, or are too many to be told apart.
        row = not (offset.mask + step) & offset.mask and step <= size
        if row or offset.umax - offset.umin >= _FEW * step:
            yield offset.umin, offset.umax + size
            return
        begins = range(offset.umin + (offset.value - offset.umin) % step, offset.umax + 1, step)
    for each in begins:
        if offset.contains(each):
            yield each, each + size


def _begins(form: Affine, insn: Insn, words: Words, operands: Seen) -> list[int] | None:
    """Where an access through a register of this form can begin; None if there are too many places."""
    values: set[int] = set()
    for operand in operands.get(form.product, ()):
        assert isinstance(operand, Word)
        few = list(words.values(operand, _FEW))
        if not few or len(values) > _FEW:
            return None
        values.update(few)
    return [(form.base + form.scale * value + insn.off) & _U64 for value in values] or None


def _fits(insn: Insn, seen: Iterable[Value | None]) -> bool:
    """Whether a product by a constant is the 64-bit one: compilers multiply small indices in 32 bits."""
    if insn.spec.source is Source.REG:
        return False
    return insn.spec.width == 64 or all(
        is_word(each) and 0 <= each.umax * insn.imm < 1 << insn.spec.width for each in seen
    )


def _forms(shape: Shape, exact: Set[int]) -> dict[int, _Registers]:
    """By slot, what is known of the registers before it: the same form on every way there, or nothing.

    `exact`: the multiplications by constants that are known to be those of 64 bits.
    """
    forms: dict[int, _Registers] = {}
    for entry in shape.reachable:
        forms[entry] = [None] * REGISTERS
        pending = [entry]
        while pending:
            slot = pending.pop()
            insn = shape.insns[slot]
            after = _stepped(forms[slot], slot, insn, exact)
            for successor in shape.successors[slot]:
                known = forms.get(successor)
                met = after if known is None else _met(known, after)
                # A register that has lost its form does not get one again: this ends.
                if met != known:
                    forms[successor] = met
                    pending.append(successor)
    return forms


def _met(a: _Registers, b: _Registers) -> _Registers:
    return [mine if mine == its else None for mine, its in zip(a, b, strict=True)]


def _stepped(before: _Registers, slot: int, insn: Insn, exact: Set[int]) -> _Registers:
    after = before.copy()
    if insn.spec.kind is Kind.CALL:
        for register in _CLOBBERED:
            after[register] = None
        return after
    for register in written_registers(insn.spec, insn.dst, insn.src):
        after[register] = None
    if insn.spec.kind is Kind.LDDW:
        after[insn.dst] = _address(insn)
    elif slot in exact and before[insn.dst] is None:
        after[insn.dst] = Affine(0, insn.imm & _U64, slot)
    elif insn.spec.kind is Kind.ALU and insn.spec.width == 64:
        operand = before[insn.src] if insn.spec.source is Source.REG else Affine(insn.imm & _U64)
        after[insn.dst] = _computed(insn.spec.operation, before[insn.dst], operand)
    return after


def _address(insn: Insn) -> Affine | None:
    match insn.spec.operation:
        case Operation.IMM64:
            return Affine(insn.imm & _U64)
        case Operation.MAP_VALUE_BY_IDX if insn.map_index == MapIndex.SCRATCH:
            return Affine(insn.map_offset, shared=True)
    return None


def _computed(operation: Operation, a: Affine | None, b: Affine | None) -> Affine | None:
    """The form of `a OP b`, in 64 bits."""
    if b is None:
        return None
    constant = None if b.scale or b.shared else b.base
    match operation:
        case Operation.MOV:
            return b
        case _ if a is None:
            return None
        case Operation.ADD if not (a.scale and b.scale) and not (a.shared and b.shared):
            varying = a if a.scale else b
            return Affine(
                (a.base + b.base) & _U64, varying.scale, varying.product, shared=a.shared or b.shared
            )
        case Operation.SUB if constant is not None:
            return a._replace(base=(a.base - constant) & _U64)
        case Operation.MUL if constant is not None and not a.shared:
            return a._replace(base=a.base * constant & _U64, scale=a.scale * constant & _U64)
        case Operation.LSH if constant is not None and not a.shared:
            return a._replace(base=a.base << (constant & 63) & _U64, scale=a.scale << (constant & 63) & _U64)
    return None
