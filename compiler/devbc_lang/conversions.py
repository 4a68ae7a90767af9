"""How a value comes to have the type that is asked of it, or why it may not; what is known of its bounds.

A number without a type takes one, down to the numbers that it is made of. A value widens if no value changes.
"""

from __future__ import annotations

from devbc_lang import errors, typed
from devbc_lang.arithmetic import SHIFTS
from devbc_lang.context import Context, Fault
from devbc_lang.source import Extent
from devbc_lang.typed import Constant, Expr
from devbc_lang.types import BOOL, U32, U64, UNTYPED, Bool, Int, Scalar, Type, Untyped, default_type, shown


class Conversions:
    """What `Expressions` builds on: each method takes a checked expression and its place in the source."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def coerce(self, expr: Expr, want: Scalar, at: Extent) -> Expr:
        """Give an expression a type that it has, or that it may take by itself."""
        have = expr.type
        if have is None:
            raise self.no_value(expr, at)
        if have == want:
            return expr
        if have == UNTYPED:
            if isinstance(want, Bool):
                raise self.mismatch("expected `bool`, found a number", at, ("compare it: `... != 0`",))
            return self._give_type(expr, want, at)
        if isinstance(have, Int) and isinstance(want, Int) and have.widens_to(want):
            return convert(expr, want)
        message = f"expected `{want}`, found `{have}`"
        raise self.mismatch(message, at, self._conversion_help(have, want, at))

    def settle(self, expr: Expr, at: Extent) -> Expr:
        """Give a number that nothing asks a type of the type that it has by default."""
        if expr.type is None:
            raise self.no_value(expr, at)
        if expr.type != UNTYPED:
            return expr
        if not isinstance(expr, Constant):
            raise self.context.fault(
                errors.TYPE_NEEDED,
                "the type of this number is not known",
                at,
                "nothing here says how many bits are shifted",
                help=("give the number a type: `u64(1) << n`",),
            )
        if expr.complement:
            return self._give_type(expr, U32 if -expr.value - 1 <= U32.most else U64, at)
        return self._give_type(expr, default_type(expr.value), at)

    def _give_type(self, expr: Expr, type: Scalar, at: Extent) -> Expr:
        """Let an untyped tree be of an integer type, down to its numbers."""
        assert isinstance(type, Int)
        match expr:
            case Constant(value=value, complement=complement):
                if complement and not type.signed and -(1 << type.bits) <= value < 0:
                    return Constant(type, type.wrap(value))
                if not type.holds(value):
                    raise self._does_not_fit(value, type, at)
                return Constant(type, value)
            case typed.Unary(op=op, operand=operand):
                return typed.Unary(op, self._give_type(operand, type, at), type)
            case typed.Binary(op=op, left=left, right=right, at=where):
                left = self._give_type(left, type, at)
                if op not in SHIFTS:
                    right = self._give_type(right, type, at)
                return typed.Binary(op, left, right, type, where)
        raise AssertionError(f"{expr} is not untyped")

    # --- what is wrong ---

    def mismatch(self, message: str, at: Extent, help: tuple[str, ...]) -> Fault:
        return self.context.fault(errors.TYPE_MISMATCH, message, at, help=help)

    def _conversion_help(self, have: Type | Untyped, want: Scalar, at: Extent) -> tuple[str, ...]:
        text = self.context.text(at)
        match have, want:
            case Int(), Bool():
                return (f"compare it: `{text} != 0`",)
            case Bool(), Int():
                return (f"`{want}({text})` makes 0 or 1 of it",)
            case Int(), Int() if have.bits > want.bits:
                return (f"nothing narrows by itself: `{want}({text})` truncates",)
            case Int(), Int():
                return (f"`{want}({text})` converts it",)
        return ()

    def _does_not_fit(self, value: int, type: Int, at: Extent) -> Fault:
        written = self.context.text(at)
        number = written if written[0].isdigit() and written.replace("_", "").isalnum() else shown(value)
        return self.context.fault(
            errors.OUT_OF_RANGE,
            f"{number} does not fit `{type}`",
            at,
            f"`{type}` holds {shown(type.least)} to {shown(type.most)}",
            help=("`~0` has all bits set",) if value == -1 and not type.signed else (),
        )

    def no_value(self, expr: Expr, at: Extent) -> Fault:
        assert isinstance(expr, typed.Call)
        message = f"`{expr.function.name}` returns nothing"
        labels = [(expr.function.at, "declared without a result")]
        return self.context.fault(errors.NOT_A_VALUE, message, at, labels=labels)


def convert(expr: Expr, type: Int) -> Expr:
    if isinstance(expr, Constant):
        return Constant(type, type.wrap(expr.value))
    return typed.Convert(expr, type)


def bound(expr: Expr) -> int:
    """The greatest value that an unsigned expression can have, as far as that is plain from its form."""
    assert isinstance(expr.type, Int)
    most = expr.type.most
    match expr:
        case Constant(value=value):
            return value
        case typed.Variable(symbol=symbol) if symbol.bound is not None:
            return symbol.bound
        case typed.Slice(high=high, low=low):
            return (1 << high - low + 1) - 1
        case typed.Convert(operand=operand) if operand.type == BOOL:
            return 1
        case typed.Convert(operand=operand) if isinstance(operand.type, Int) and not operand.type.signed:
            return min(bound(operand), most)
        case typed.Binary(op="&", left=left, right=right) if not expr.type.signed:
            return min(bound(left), bound(right))
        case typed.Binary(op="%", right=Constant(value=divisor)) if not expr.type.signed:
            return divisor - 1
        case typed.Binary(op=">>", left=left, right=Constant(value=count)) if not expr.type.signed:
            return bound(left) >> count
    return most
