"""LLVM IR as text: an algebra of `devbc.semantics` whose operations are lines of a function.

A value is the name of a line's result, or the number itself where that is known: operations on numbers are
done here, as the reference interpreter does them, and leave no line. Text that is written at once takes a
tenth of the time of instructions as objects (`devbc.engines.llvm_algebra`), and somebody waits for a program
to be compiled.

No operation carries nsw, nuw or exact, so that none has an undefined result: arithmetic wraps, and
`devbc.semantics` hands over shift amounts below the width and divisors that neither are zero nor overflow.

Not here: registers, memory, control flow (`devbc.engines.lift`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from devbc.engines.integers import INTEGERS

#: A number of as many bits as its user says, or the name of one.
Value = int | str
#: The same of one bit.
Truth = bool | str
Known = TypeVar("Known", int, bool)


def global_name(name: str) -> str:
    """A global's name as IR text has it, whatever it is made of."""
    return '@"' + re.sub(rb"[^!#-\[\]-~]", lambda each: b"\\%02X" % each[0][0], name.encode()).decode() + '"'


def truth(value: Truth) -> str:
    """An operand of type i1."""
    return value if isinstance(value, str) else "true" if value else "false"


def _operation(
    opcode: str, known: Callable[[int, int, int], Known]
) -> Callable[[TextAlgebra, Value, Value, int], Known | str]:
    def operation(algebra: TextAlgebra, a: Value, b: Value, bits: int) -> Known | str:
        if isinstance(a, int) and isinstance(b, int):
            return known(a, b, bits)
        return algebra.result(f"{opcode} i{bits} {a}, {b}")

    return operation


class TextAlgebra:
    """`semantics.Algebra[Value, Truth]`, over the lines of one function."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._results = 0
        #: Results of `zext`: what was widened, and how many bits it has.
        self._narrow: dict[str, tuple[str, int]] = {}

    def result(self, instruction: str) -> str:
        """Add an instruction that has a result. LLVM numbers results without a name in their order."""
        name = f"%{self._results}"
        self._results += 1
        self.lines.append(f"{name} = {instruction}")
        return name

    def const(self, value: int, bits: int) -> Value:
        return value & (1 << bits) - 1

    add = _operation("add", INTEGERS.add)
    sub = _operation("sub", INTEGERS.sub)
    mul = _operation("mul", INTEGERS.mul)
    udiv = _operation("udiv", INTEGERS.udiv)
    urem = _operation("urem", INTEGERS.urem)
    sdiv = _operation("sdiv", INTEGERS.sdiv)
    srem = _operation("srem", INTEGERS.srem)
    and_ = _operation("and", INTEGERS.and_)
    or_ = _operation("or", INTEGERS.or_)
    xor = _operation("xor", INTEGERS.xor)
    shl = _operation("shl", INTEGERS.shl)
    lshr = _operation("lshr", INTEGERS.lshr)
    ashr = _operation("ashr", INTEGERS.ashr)
    eq = _operation("icmp eq", INTEGERS.eq)
    ne = _operation("icmp ne", INTEGERS.ne)
    ult = _operation("icmp ult", INTEGERS.ult)
    ule = _operation("icmp ule", INTEGERS.ule)
    slt = _operation("icmp slt", INTEGERS.slt)
    sle = _operation("icmp sle", INTEGERS.sle)

    def bswap(self, a: Value, bits: int) -> Value:
        if isinstance(a, int):
            return INTEGERS.bswap(a, bits)
        return self.result(f"call i{bits} @llvm.bswap.i{bits}(i{bits} {a})")

    def trunc(self, a: Value, bits: int, to: int) -> Value:
        if isinstance(a, int):
            return INTEGERS.trunc(a, bits, to)
        narrow, width = self._narrow.get(a, (a, bits))
        if width == to:
            return narrow
        return self.result(f"{'trunc' if width > to else 'zext'} i{width} {narrow} to i{to}")

    def zext(self, a: Value, bits: int, to: int) -> Value:
        if isinstance(a, int):
            return INTEGERS.zext(a, bits, to)
        wide = self.result(f"zext i{bits} {a} to i{to}")
        self._narrow[wide] = a, bits
        return wide

    def sext(self, a: Value, bits: int, to: int) -> Value:
        if isinstance(a, int):
            return INTEGERS.sext(a, bits, to)
        return self.result(f"sext i{bits} {a} to i{to}")

    def select(self, condition: Truth, a: Value, b: Value, bits: int) -> Value:
        if isinstance(condition, bool):
            return a if condition else b
        return self.result(f"select i1 {condition}, i{bits} {a}, i{bits} {b}")
