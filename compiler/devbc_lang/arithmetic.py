"""What the operators mean on known values; the compiler folds constants by it.

Lowering says the same to LLVM. Two's complement that wraps; a shift's count is taken modulo the width;
division and remainder round towards zero, by zero they give 0 and the dividend, as in RFC 9669.
"""

from __future__ import annotations

from devbc_lang.types import Int

ARITHMETIC = ("+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "min", "max")
SHIFTS = ("<<", ">>")


def compute(op: str, left: int, right: int, type: Int) -> int:
    """The value of `left op right` in a type."""
    if op in SHIFTS:
        right %= type.bits
    return type.wrap(exact(op, left, right))


def exact(op: str, left: int, right: int) -> int:
    """The value of `left op right` among all integers."""
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return _quotient(left, right)
        case "%":
            return left - right * _quotient(left, right)
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case "<<":
            return left << right
        case ">>":
            return left >> right
        case "min":
            return min(left, right)
        case "max":
            return max(left, right)
    raise AssertionError(f"no operator `{op}`")


def compare(op: str, left: int, right: int) -> bool:
    match op:
        case "==":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
    raise AssertionError(f"no comparison `{op}`")


def _quotient(left: int, right: int) -> int:
    if right == 0:
        return 0
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient
