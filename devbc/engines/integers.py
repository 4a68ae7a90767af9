"""Python integers as the algebra of `devbc.semantics`: the concrete meaning of every operation.

A value of `bits` bits is the integer 0 to 2**bits - 1; signed operations read it as two's complement. The
reference interpreter computes with it, and whoever tests another algebra compares with it.
"""

from __future__ import annotations


def mask(bits: int) -> int:
    return (1 << bits) - 1


def signed(value: int, bits: int) -> int:
    """The value read as two's complement."""
    return value - (1 << bits) if value >> bits - 1 else value


class Integers:
    """`devbc.semantics.Algebra[int, bool]`."""

    def const(self, value: int, bits: int) -> int:
        return value & mask(bits)

    def add(self, a: int, b: int, bits: int) -> int:
        return a + b & mask(bits)

    def sub(self, a: int, b: int, bits: int) -> int:
        return a - b & mask(bits)

    def mul(self, a: int, b: int, bits: int) -> int:
        return a * b & mask(bits)

    def udiv(self, a: int, b: int, bits: int) -> int:
        return a // b

    def urem(self, a: int, b: int, bits: int) -> int:
        return a % b

    def sdiv(self, a: int, b: int, bits: int) -> int:
        """Rounds towards zero, where Python rounds down (RFC 9669 section 4.1)."""
        quotient = abs(signed(a, bits)) // abs(signed(b, bits))
        return (-quotient if (a ^ b) >> bits - 1 else quotient) & mask(bits)

    def srem(self, a: int, b: int, bits: int) -> int:
        """Has the sign of the dividend, as follows from a division that rounds towards zero."""
        remainder = abs(signed(a, bits)) % abs(signed(b, bits))
        return (-remainder if a >> bits - 1 else remainder) & mask(bits)

    def and_(self, a: int, b: int, bits: int) -> int:
        return a & b

    def or_(self, a: int, b: int, bits: int) -> int:
        return a | b

    def xor(self, a: int, b: int, bits: int) -> int:
        return a ^ b

    def shl(self, a: int, b: int, bits: int) -> int:
        return a << b & mask(bits)

    def lshr(self, a: int, b: int, bits: int) -> int:
        return a >> b

    def ashr(self, a: int, b: int, bits: int) -> int:
        return signed(a, bits) >> b & mask(bits)

    def bswap(self, a: int, bits: int) -> int:
        return int.from_bytes(a.to_bytes(bits // 8, "little"), "big")

    def trunc(self, a: int, bits: int, to: int) -> int:
        return a & mask(to)

    def zext(self, a: int, bits: int, to: int) -> int:
        return a

    def sext(self, a: int, bits: int, to: int) -> int:
        return signed(a, bits) & mask(to)

    def eq(self, a: int, b: int, bits: int) -> bool:
        return a == b

    def ne(self, a: int, b: int, bits: int) -> bool:
        return a != b

    def ult(self, a: int, b: int, bits: int) -> bool:
        return a < b

    def ule(self, a: int, b: int, bits: int) -> bool:
        return a <= b

    def slt(self, a: int, b: int, bits: int) -> bool:
        return signed(a, bits) < signed(b, bits)

    def sle(self, a: int, b: int, bits: int) -> bool:
        return signed(a, bits) <= signed(b, bits)

    def select(self, condition: bool, a: int, b: int, bits: int) -> int:
        return a if condition else b


INTEGERS = Integers()
