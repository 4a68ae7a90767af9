"""LLVM values as an algebra of `devbc.semantics`: each operation is an instruction at the builder's position.

Integers of 8 to 64 bits, truth values of one bit. No operation carries nsw, nuw or exact, so that none has
an undefined result: arithmetic wraps, and `devbc.semantics` hands over shift amounts below the width and
divisors that neither are zero nor overflow. Folding constants is LLVM's work, with one exception: an
operation on two constants is folded here if it is `and`, which makes constant shift amounts readable.

Not here: registers, memory, control flow; whoever generates code has those.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir

#: An LLVM value. llvmlite has no types for mypy.
Value = Any


@cache
def integer(bits: int) -> Any:
    """The LLVM type iN."""
    return ir.IntType(bits)


def constant(value: int, bits: int) -> Value:
    """An iN constant, of the value modulo 2**bits."""
    return ir.Constant(integer(bits), value & (1 << bits) - 1)


class LlvmAlgebra:
    """`semantics.Algebra[Value, Value]` over one builder, wherever that is positioned."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def const(self, value: int, bits: int) -> Value:
        return constant(value, bits)

    def add(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.add(a, b)

    def sub(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.sub(a, b)

    def mul(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.mul(a, b)

    def udiv(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.udiv(a, b)

    def urem(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.urem(a, b)

    def sdiv(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.sdiv(a, b)

    def srem(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.srem(a, b)

    def and_(self, a: Value, b: Value, bits: int) -> Value:
        if isinstance(a, ir.Constant) and isinstance(b, ir.Constant):
            return constant(a.constant & b.constant, bits)
        return self.builder.and_(a, b)

    def or_(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.or_(a, b)

    def xor(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.xor(a, b)

    def shl(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.shl(a, b)

    def lshr(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.lshr(a, b)

    def ashr(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.ashr(a, b)

    def bswap(self, a: Value, bits: int) -> Value:
        return self.builder.bswap(a)

    def trunc(self, a: Value, bits: int, to: int) -> Value:
        return self.builder.trunc(a, integer(to))

    def zext(self, a: Value, bits: int, to: int) -> Value:
        return self.builder.zext(a, integer(to))

    def sext(self, a: Value, bits: int, to: int) -> Value:
        return self.builder.sext(a, integer(to))

    def eq(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.icmp_unsigned("==", a, b)

    def ne(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.icmp_unsigned("!=", a, b)

    def ult(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.icmp_unsigned("<", a, b)

    def ule(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.icmp_unsigned("<=", a, b)

    def slt(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.icmp_signed("<", a, b)

    def sle(self, a: Value, b: Value, bits: int) -> Value:
        return self.builder.icmp_signed("<=", a, b)

    def select(self, condition: Value, a: Value, b: Value, bits: int) -> Value:
        return self.builder.select(condition, a, b)
