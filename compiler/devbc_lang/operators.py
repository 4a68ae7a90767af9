"""Operators in LLVM IR, with the language's meaning for what LLVM leaves undefined.

Shift counts are taken modulo the width; division by 0 gives 0 and the remainder of it the dividend; the least
value divided by -1 wraps: all as in RFC 9669, and as `arithmetic.py` says of known values. Operands are
texts, a constant's or a value's name; what is known of both is computed here, so that a handler
for one element of an array is not ten times as long as it will be.
"""

from __future__ import annotations

from typing import Final

from devbc_lang.arithmetic import compare, compute
from devbc_lang.ir import FunctionBuilder, constant, llvm_type
from devbc_lang.types import U64, Bool, Int, Scalar

_PLAIN: Final = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor"}
_COMMUTE: Final = ("+", "*", "&", "|", "^")
_PREDICATES: Final = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def known(operand: str, type: Scalar) -> int | None:
    """The value of an operand that is a constant."""
    if operand[0] == "%" or not isinstance(type, Int):
        return None
    return type.wrap(int(operand))


def _with_constant(op: str, value: str, number: int, type: Int) -> str | None:
    """`value op number` where nothing needs to be computed."""
    match op, number & (1 << type.bits) - 1:
        case "+" | "-" | "|" | "^" | "<<" | ">>", 0:
            return value
        case "*" | "/", 1:
            return value
        case "&", mask if mask == (1 << type.bits) - 1:
            return value
        case "&" | "*", 0:
            return "0"
    return None


class Operators:
    """Appends operations to a function under construction; each method gives the result's text."""

    def __init__(self, builder: FunctionBuilder) -> None:
        self._compute = builder.compute

    def arithmetic(self, op: str, left: str, right: str, type: Int) -> str:
        """`left op right`; a shift's count comes from `count`."""
        a, b = known(left, type), known(right, type)
        if a is not None and b is not None:
            return constant(compute(op, a, b, type), type)
        if b is not None and (same := _with_constant(op, left, b, type)):
            return same
        if a is not None and op in _COMMUTE and (same := _with_constant(op, right, a, type)):
            return same
        ir = llvm_type(type)
        match op:
            case "<<":
                return self._compute(f"shl {ir} {left}, {right}")
            case ">>":
                return self._compute(f"{'ashr' if type.signed else 'lshr'} {ir} {left}, {right}")
            case "/" | "%":
                return self._divide(op, left, right, type)
            case "min" | "max":
                chosen = self.compare("<" if op == "min" else ">", left, right, type)
                return self._compute(f"select i1 {chosen}, {ir} {left}, {ir} {right}")
            case _:
                return self._compute(f"{_PLAIN[op]} {ir} {left}, {right}")

    def compare(self, op: str, left: str, right: str, type: Scalar) -> str:
        a, b = known(left, type), known(right, type)
        if a is not None and b is not None:
            return "true" if compare(op, a, b) else "false"
        sign = "" if op in ("==", "!=") else "s" if isinstance(type, Int) and type.signed else "u"
        return self._compute(f"icmp {sign}{_PREDICATES[op]} {llvm_type(type)} {left}, {right}")

    def negate(self, value: str, type: Int) -> str:
        return self.arithmetic("-", "0", value, type)

    def complement(self, value: str, type: Int) -> str:
        return self.arithmetic("^", value, constant(-1, type), type)

    def invert(self, value: str) -> str:
        """`!` of a bool."""
        if value in ("true", "false"):
            return "false" if value == "true" else "true"
        return self._compute(f"xor i1 {value}, true")

    def resize(self, value: str, have: Scalar, want: Int) -> str:
        """Extend as `have` is signed or not, or truncate."""
        if isinstance(have, Bool):
            if value in ("true", "false"):
                return str(int(value == "true"))
            return self._compute(f"zext i1 {value} to {llvm_type(want)}")
        number = known(value, have)
        if number is not None:
            return constant(number, want)
        if have.bits == want.bits:
            return value
        word = "trunc" if have.bits > want.bits else "sext" if have.signed else "zext"
        return self._compute(f"{word} {llvm_type(have)} {value} to {llvm_type(want)}")

    def count(self, value: str, have: Int, type: Int) -> str:
        """A shift's count for a type: LLVM has no meaning for one that is not less than the bits."""
        masked = self.arithmetic("&", value, str(type.bits - 1), have)
        return self.resize(masked, have, type)

    # --- parts ---

    def extract(self, value: str, type: Int, high: int, low: int, to: Int) -> str:
        """The bits `high` to `low`, as a number of type `to`."""
        unsigned = Int(type.bits, False)
        if low:
            value = self.arithmetic(">>", value, str(low), unsigned)
        value = self.resize(value, unsigned, to)
        width = high - low + 1
        return value if width == to.bits else self.arithmetic("&", value, str((1 << width) - 1), to)

    def insert(self, old: str, type: Int, high: int, low: int, value: str, have: Int) -> str:
        """`old` with its bits `high` to `low` replaced by a number of type `have`."""
        mask = (1 << high - low + 1) - 1
        value = self.arithmetic("&", self.resize(value, have, type), constant(mask, type), type)
        if low:
            value = self.arithmetic("<<", value, str(low), type)
        kept = self.arithmetic("&", old, constant(~(mask << low), type), type)
        return self.arithmetic("|", kept, value, type)

    def bit(self, value: str, type: Int, index: str) -> str:
        """Bit `index`, a count, as a bool."""
        number, at = known(value, type), known(index, type)
        if number is not None and at is not None:
            return "true" if number >> at & 1 else "false"
        shifted = self.arithmetic(">>", value, index, Int(type.bits, False))
        return self._compute(f"trunc {llvm_type(type)} {shifted} to i1")

    def insert_bit(self, old: str, type: Int, index: str, value: str) -> str:
        """`old` with bit `index`, a count, replaced by a bool."""
        inverse = self.complement(self.arithmetic("<<", "1", index, type), type)
        kept = self.arithmetic("&", old, inverse, type)
        shifted = self.arithmetic("<<", self.resize(value, Bool(), type), index, type)
        return self.arithmetic("|", kept, shifted, type)

    # --- division ---

    def _divide(self, op: str, left: str, right: str, type: Int) -> str:
        ir = llvm_type(type)
        word = ("s" if type.signed else "u") + ("div" if op == "/" else "rem")
        divisor = known(right, type)
        if divisor not in (None, 0, -1):
            return self._compute(f"{word} {ir} {left}, {right}")
        zero = self.compare("==", right, "0", type)
        safe = self._select(zero, "1", right, type)
        if not type.signed:
            result = self._compute(f"{word} {ir} {left}, {safe}")
        else:
            minus = self.compare("==", right, "-1", type)
            safe = self._select(minus, "1", safe, type)
            by_minus = self.negate(left, type) if op == "/" else "0"
            result = self._select(minus, by_minus, self._compute(f"{word} {ir} {left}, {safe}"), type)
        return self._select(zero, "0" if op == "/" else left, result, type)

    def muldiv(self, a: str, b: str, c: str) -> str:
        """`a / c * b + a % c * b / c`, all u64: exact, since a % c and b are below 2**32."""
        zero = self.compare("==", c, "0", U64)
        divisor = self._select(zero, "1", c, U64)
        whole = self.arithmetic("*", self.arithmetic("/", a, divisor, U64), b, U64)
        part = self.arithmetic("*", self.arithmetic("%", a, divisor, U64), b, U64)
        result = self.arithmetic("+", whole, self.arithmetic("/", part, divisor, U64), U64)
        return self._select(zero, "0", result, U64)

    def _select(self, condition: str, true: str, false: str, type: Int) -> str:
        if condition in ("true", "false"):
            return true if condition == "true" else false
        ir = llvm_type(type)
        return self._compute(f"select i1 {condition}, {ir} {true}, {ir} {false}")
