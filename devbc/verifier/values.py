"""What a register may hold: a word, or a pointer into one of the machine's regions.

`Values` is the algebra that the verifier gives to `devbc.semantics`: on words it is the abstract arithmetic
of `arithmetic.py`; on pointers it defines addition, subtraction and comparison where they have a meaning
that does not depend on where a region lies, and refuses everything else. So that a pointer's bits never
become a number: that is the half of "no pointer leaks" that concerns computation; the other half, stores
and results, is `machine.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from devbc.program.verified import Region
from devbc.verifier import errors
from devbc.verifier.arithmetic import Truth, WordAlgebra
from devbc.verifier.errors import Fault
from devbc.verifier.word import Word


@dataclass(frozen=True, slots=True, eq=False)
class Pointer:
    """A place in a region: `offset` bytes from its start; on the stack from the top of frame `frame`.

    The offset is a 64-bit word and wraps like one; whether it lies in the region is asked at each access,
    not at each addition. Interned by `Values`, like words.
    """

    region: Region
    offset: Word
    frame: int = 0

    def same_region(self, other: Pointer) -> bool:
        return self.region is other.region and self.frame == other.frame

    def __str__(self) -> str:
        name = region_name(self.region)
        if (constant := self.offset.constant) is not None:
            return f"points to {name} {_signed(constant)}"
        return f"points to {name} + x, where x {self.offset}"


Value = Word | Pointer


def region_name(region: Region) -> str:
    """For messages."""
    return {
        Region.EXIT: "the exit",
        Region.STACK: "the stack",
        Region.OUTER_STACK: "a caller's stack",
        Region.SCRATCH: "scratch",
        Region.RODATA: "read-only data",
    }[region]


def _signed(constant: int) -> str:
    signed = constant - (constant >> 63 << 64)
    return f"- {-signed}" if signed < 0 else f"+ {signed}"


def is_word(value: Value | None) -> TypeGuard[Word]:
    return type(value) is Word


class Values:
    """The algebra of words and pointers; `devbc.semantics.Algebra[Value, bool | None]`."""

    def __init__(self) -> None:
        self.words = WordAlgebra()
        self._pointers: dict[tuple[Region, Word, int], Pointer] = {}
        #: Addresses of accesses are the same few sums.
        self._sums: dict[tuple[Pointer, Value], Pointer] = {}

    def pointer(self, region: Region, offset: Word, frame: int = 0) -> Pointer:
        key = (region, offset, frame)
        pointer = self._pointers.get(key)
        if pointer is None:
            pointer = self._pointers[key] = Pointer(region, offset, frame)
        return pointer

    def const(self, value: int, bits: int) -> Value:
        return self.words.const(value, bits)

    def add(self, a: Value, b: Value, bits: int) -> Value:
        if isinstance(a, Pointer):
            moved = self._sums.get((a, b))
            if moved is None:
                offset = self._word(b, "added to another pointer")
                moved = self.pointer(a.region, self.words.add(a.offset, offset, bits), a.frame)
                self._sums[a, b] = moved
            return moved
        if isinstance(b, Pointer):
            return self.add(b, a, bits)
        return self.words.add(a, b, bits)

    def sub(self, a: Value, b: Value, bits: int) -> Value:
        if isinstance(a, Pointer):
            if isinstance(b, Pointer) and a.same_region(b):
                return self.words.sub(a.offset, b.offset, bits)
            offset = self._word(b, "subtracted from a pointer to something else")
            return self.pointer(a.region, self.words.sub(a.offset, offset, bits), a.frame)
        return self.words.sub(a, self._word(b, "subtracted from a number"), bits)

    def mul(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.mul(self._word(a, "multiplied"), self._word(b, "multiplied"), bits)

    def udiv(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.udiv(self._word(a, "divided"), self._word(b, "used as a divisor"), bits)

    def urem(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.urem(self._word(a, "divided"), self._word(b, "used as a divisor"), bits)

    def sdiv(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.sdiv(self._word(a, "divided"), self._word(b, "used as a divisor"), bits)

    def srem(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.srem(self._word(a, "divided"), self._word(b, "used as a divisor"), bits)

    def and_(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.and_(self._word(a, "masked"), self._word(b, "masked"), bits)

    def or_(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.or_(self._word(a, "combined by `or`"), self._word(b, "combined by `or`"), bits)

    def xor(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.xor(self._word(a, "combined by `xor`"), self._word(b, "combined by `xor`"), bits)

    def shl(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.shl(self._word(a, "shifted"), self._word(b, "used as a shift amount"), bits)

    def lshr(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.lshr(self._word(a, "shifted"), self._word(b, "used as a shift amount"), bits)

    def ashr(self, a: Value, b: Value, bits: int) -> Value:
        return self.words.ashr(self._word(a, "shifted"), self._word(b, "used as a shift amount"), bits)

    def bswap(self, a: Value, bits: int) -> Value:
        return self.words.bswap(self._word(a, "byte-swapped"), bits)

    def trunc(self, a: Value, bits: int, to: int) -> Value:
        if isinstance(a, Pointer):
            raise _misused(a, f"cut to {to} bits")
        return self.words.trunc(a, bits, to)

    def zext(self, a: Value, bits: int, to: int) -> Value:
        return self.words.zext(self._word(a, "extended"), bits, to)

    def sext(self, a: Value, bits: int, to: int) -> Value:
        return self.words.sext(self._word(a, "extended"), bits, to)

    def eq(self, a: Value, b: Value, bits: int) -> Truth:
        if isinstance(a, Word) and isinstance(b, Word):
            return self.words.eq(a, b, bits)
        if isinstance(a, Pointer) and isinstance(b, Pointer) and a.same_region(b):
            return self.words.eq(a.offset, b.offset, bits)
        # No region begins at address 0 or wraps around to it, but a pointer that was moved out of its
        # region may hold any address: only one that surely stayed inside differs from 0.
        pointer, other = (a, b) if isinstance(a, Pointer) else (b, a)
        if isinstance(pointer, Pointer) and is_word(other) and other.constant == 0:
            return False if _plausible(pointer) else None
        raise _compared(a, b)

    def ne(self, a: Value, b: Value, bits: int) -> Truth:
        equal = self.eq(a, b, bits)
        return None if equal is None else not equal

    def ult(self, a: Value, b: Value, bits: int) -> Truth:
        return self.words.ult(*self._ordered(a, b), bits)

    def ule(self, a: Value, b: Value, bits: int) -> Truth:
        return self.words.ule(*self._ordered(a, b), bits)

    def slt(self, a: Value, b: Value, bits: int) -> Truth:
        return self.words.slt(*self._numbers(a, b), bits)

    def sle(self, a: Value, b: Value, bits: int) -> Truth:
        return self.words.sle(*self._numbers(a, b), bits)

    def select(self, condition: Truth, a: Value, b: Value, bits: int) -> Value:
        return self.words.select(condition, *self._numbers(a, b), bits)

    def _word(self, value: Value, deed: str) -> Word:
        if isinstance(value, Word):
            return value
        raise _misused(value, deed)

    def _numbers(self, a: Value, b: Value) -> tuple[Word, Word]:
        if isinstance(a, Word) and isinstance(b, Word):
            return a, b
        raise _compared(a, b)

    def _ordered(self, a: Value, b: Value) -> tuple[Word, Word]:
        """What to compare instead of two addresses: offsets, if neither can have wrapped."""
        if isinstance(a, Pointer) and isinstance(b, Pointer) and a.same_region(b):
            bias = self.words.const(_SANE, 64)
            if _plausible(a) and _plausible(b):
                return self.words.add(a.offset, bias, 64), self.words.add(b.offset, bias, 64)
        return self._numbers(a, b)


#: A pointer whose offset stays this close to its region's start has an address that did not wrap: every
#: engine places regions at least so far from both ends of the address space.
_SANE = 1 << 21


def _plausible(pointer: Pointer) -> bool:
    return pointer.offset.smin >= -_SANE and pointer.offset.smax <= _SANE


def _misused(pointer: Pointer, deed: str) -> Fault:
    return Fault(
        errors.POINTER_ARITHMETIC,
        f"a pointer to {region_name(pointer.region).removeprefix('the ')} is {deed}",
        help=("only adding a number to a pointer, and subtracting one from it, give a pointer",),
    )


def _compared(a: Value, b: Value) -> Fault:
    names = [region_name(each.region) if isinstance(each, Pointer) else "a number" for each in (a, b)]
    return Fault(
        errors.POINTER_COMPARISON,
        f"a pointer to {names[0].removeprefix('the ')} is compared with {names[1]}"
        if isinstance(a, Pointer)
        else f"{names[0]} is compared with a pointer to {names[1].removeprefix('the ')}",
        help=("compare the offsets or indices from which the addresses are made",),
    )
