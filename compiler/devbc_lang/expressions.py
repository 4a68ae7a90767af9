"""Expressions: names resolved, types found, conversions made explicit, constants folded.

A number without a type (`1 << 3`) stays so until something asks: the other operand, the place it is
assigned to, a parameter. Values widen by themselves where no value changes; nothing narrows by itself.
"""

from __future__ import annotations

from typing import Final

from devbc.abi import EXIT_FIELDS
from devbc_lang import errors, syntax, typed
from devbc_lang.arithmetic import SHIFTS, compare, compute, exact
from devbc_lang.context import Context, Declared, Fault
from devbc_lang.conversions import Conversions, convert
from devbc_lang.scopes import Scopes
from devbc_lang.source import Extent
from devbc_lang.typed import Constant, Expr, Place, Symbol, Table
from devbc_lang.types import (
    BOOL,
    SCALARS,
    U32,
    U64,
    UNTYPED,
    Array,
    Bool,
    Int,
    Scalar,
    Struct,
    Type,
    Untyped,
    common,
    smallest_unsigned,
)

_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
_BUILT_IN: Final = {"now": 0, "muldiv": 3, "min": 2, "max": 2}
#: Fields of the exit that `access.NAME` reads, by the bytes of each.
_ACCESS: Final = {name: smallest_unsigned(8 * EXIT_FIELDS[name].size) for name in ("size", "offset", "vcpu")}
#: Exact numbers have bounds too: beyond these no type could hold the result, and folding would not end.
_EXACT_BITS: Final = 128


class Expressions(Conversions):
    """Checks expressions of one function or handler; with no scopes, of the device's declarations.

    `function`: whose body it is, to record whom it calls.
    """

    def __init__(self, context: Context, function: typed.Function | None = None) -> None:
        super().__init__(context)
        self.scopes = Scopes()
        self.function = function
        self.constant_only = False

    # --- what callers ask for ---

    def value(self, expr: syntax.Expr, want: Scalar) -> Expr:
        """An expression of a type, converted if that is implicit."""
        return self.coerce(self.infer(expr), want, expr.at)

    def typed_value(self, expr: syntax.Expr) -> Expr:
        """An expression of whatever type it has; a lone number gets one."""
        return self.settle(self.infer(expr), expr.at)

    def unsigned(self, expr: syntax.Expr, what: str) -> Expr:
        """An index or a count: any unsigned integer."""
        value = self.typed_value(expr)
        if not isinstance(value.type, Int) or value.type.signed:
            raise self.mismatch(f"{what} is an unsigned integer, not `{value.type}`", expr.at, ())
        return value

    def constant(self, expr: syntax.Expr, what: str) -> int:
        """A number that is known at compile time."""
        value = self.infer(expr)
        if not isinstance(value, Constant) or value.type == BOOL:
            raise self.context.fault(
                errors.NOT_CONSTANT, f"{what} must be a constant", expr.at, "known only when the handler runs"
            )
        return value.value

    def place(self, expr: syntax.Expr) -> Place:
        """What an expression names: something that has an address."""
        found = self.resolve(expr)
        if not isinstance(found, typed.PLACES):
            raise self._not_a_place(expr, found)
        return found

    def reference(self, expr: syntax.Expr) -> Place:
        """`&place`, or a name that is a reference already: a part of the state."""
        named = expr.place if isinstance(expr, syntax.Reference) else expr
        place = self.place(named)
        root = place
        while isinstance(root, typed.FieldPlace | typed.ElementPlace):
            root = root.base
        if isinstance(root, typed.VariablePlace | typed.TablePlace):
            kind = "a variable" if isinstance(root, typed.VariablePlace) else "a constant"
            raise self.context.fault(
                errors.BAD_REFERENCE, "only parts of `state` can be referred to", named.at, f"this is {kind}"
            )
        if not isinstance(expr, syntax.Reference) and not isinstance(place, typed.ReferencePlace):
            text = self.context.source.text[expr.at.start : expr.at.end]
            raise self.mismatch("expected a reference", expr.at, (f"refer to the place: `&{text}`",))
        return place

    # --- names and access paths ---

    def resolve(self, expr: syntax.Expr) -> Place | Expr:
        """What an expression is: a place, if it names one, otherwise a value."""
        match expr:
            case syntax.Name():
                return self._name(expr)
            case syntax.Member(base=syntax.Name(text="access"), name=name) if not self.scopes.find("access")[
                0
            ]:
                return self._access(name)
            case syntax.Member(base=base, name=name):
                return self._member(base, name)
            case syntax.Index(base=base, index=index):
                return self._index(base, index)
            case _:
                return self.infer(expr)

    def _name(self, name: syntax.Name) -> Place | Expr:
        known, symbol = self.scopes.find(name.text)
        if known:
            if symbol is None:
                raise Fault(None)
            symbol.used = True
            if symbol.reference:
                return typed.ReferencePlace(symbol, symbol.type)
            assert isinstance(symbol.type, Bool | Int)
            if symbol.mutable:
                return typed.VariablePlace(symbol, symbol.type)
            return typed.Variable(symbol, symbol.type)
        if name.text == "state":
            if self.constant_only:
                raise self.context.fault(errors.NOT_CONSTANT, "a constant cannot depend on `state`", name.at)
            if self.context.state is None:
                raise Fault(None)
            return typed.StatePlace(self.context.state)
        declared = self.declared(name, "name", self._visible())
        match declared.meaning:
            case Constant():
                return declared.meaning
            case Table():
                return typed.TablePlace(declared.meaning, declared.meaning.type)
            case typed.Function(parameters=parameters):
                dots = "..." if parameters else ""
                help = (f"call it: `{name.text}({dots})`",)
                message = f"`{name.text}` is a function, not a value"
                raise self.context.fault(errors.NOT_A_VALUE, message, name.at, help=help)
            case meaning:
                kind = (
                    "a structure" if isinstance(meaning, Struct) else f"a {meaning.kind}" if meaning else ""
                )
                raise self.context.fault(
                    errors.NOT_A_VALUE,
                    f"`{name.text}` is {kind}, not a value",
                    name.at,
                    labels=[(declared.at, "declared here")],
                )

    def declared(self, name: syntax.Name, what: str, candidates: list[str]) -> Declared:
        """A name of the device; silent if its declaration is faulty."""
        declared = self.context.names.get(name.text)
        if declared is None:
            raise self.context.unknown(what, name, candidates)
        declared.used = True
        if declared.meaning is None:
            raise Fault(None)
        return declared

    def _visible(self) -> list[str]:
        return [*self.scopes.names(), *self.context.names, "state"]

    def _access(self, name: syntax.Name) -> Expr:
        type = _ACCESS.get(name.text)
        if type is None:
            raise self.context.unknown("field", name, _ACCESS, "access")
        return typed.ExitField(name.text, type)

    def _member(self, base: syntax.Expr, name: syntax.Name) -> Place:
        found = self.resolve(base)
        if not isinstance(found, typed.PLACES) or not isinstance(found.type, Struct):
            message = f"`{found.type}` has no fields"
            raise self.context.fault(
                errors.NOT_A_STRUCT, message, name.at, "this needs a structure before it"
            )
        field = found.type.field(name.text)
        if field is None:
            fields = [each.name for each in found.type.fields]
            raise self.context.unknown("field", name, fields, str(found.type))
        return typed.FieldPlace(found, field.offset, field.type)

    def _index(self, base: syntax.Expr, index: syntax.Expr) -> Place | Expr:
        found = self.resolve(base)
        if isinstance(found, typed.PLACES) and isinstance(found.type, Array):
            return typed.ElementPlace(found, self._array_index(found.type, index), found.type.element)
        operand = self._integer(found, base, "an array or an integer")
        bit = self.bit_index(index, operand)
        if isinstance(operand, Constant) and isinstance(bit, Constant):
            return Constant(BOOL, operand.value >> bit.value & 1)
        return typed.Bit(operand, bit)

    def _array_index(self, array: Array, index: syntax.Expr) -> Expr:
        value = self.unsigned(index, "an index")
        if isinstance(value, Constant) and value.value >= array.count:
            raise self.context.fault(
                errors.OUT_OF_RANGE,
                f"index {value.value} is beyond the {array.count} elements of `{array}`",
                index.at,
                f"the last one is {array.count - 1}",
            )
        return value

    def bit_index(self, index: syntax.Expr, operand: Expr) -> Expr:
        """The index of a bit of an integer."""
        assert isinstance(operand.type, Int)
        value = self.unsigned(index, "a bit's number")
        if isinstance(value, Constant):
            self._check_bit(value.value, operand.type, index.at)
        return value

    def bit_range(self, expr: syntax.Slice, type: Int) -> typed.BitRange:
        """The bits of a slice."""
        high = self.constant(expr.high, "a slice's bound")
        low = self.constant(expr.low, "a slice's bound")
        self._check_bit(high, type, expr.high.at)
        self._check_bit(low, type, expr.low.at)
        if high < low:
            text = self.context.source.text[expr.base.at.start : expr.base.at.end]
            raise self.context.fault(
                errors.OUT_OF_RANGE,
                f"the slice `[{high}:{low}]` is upside down",
                expr.at,
                help=(f"the higher bit comes first: `{text}[{low}:{high}]`",),
            )
        return typed.BitRange(high, low)

    def _check_bit(self, bit: int, type: Int, at: Extent) -> None:
        if not 0 <= bit < type.bits:
            raise self.context.fault(
                errors.OUT_OF_RANGE,
                f"bit {bit} is beyond the {type.bits} bits of `{type}`",
                at,
                f"the highest one is {type.bits - 1}",
            )

    # --- values ---

    def infer(self, expr: syntax.Expr) -> Expr:
        """The value of an expression, untyped if it is a number that may still take any type."""
        match expr:
            case syntax.Number(value=value):
                return Constant(UNTYPED, value)
            case syntax.Truth(value=truth):
                return Constant(BOOL, int(truth))
            case syntax.Prefix():
                return self._prefix(expr)
            case syntax.Infix(op="&&" | "||"):
                return self._logic(expr)
            case syntax.Infix(op=op) if op in _COMPARISONS:
                return self._compare(expr)
            case syntax.Infix(op=op) if op in SHIFTS:
                return self._shift(expr)
            case syntax.Infix():
                left, right = self._operands(expr.left, expr.right, expr.op, expr.op_at)
                return self._arithmetic(expr.op, left, right, expr)
            case syntax.Call():
                return self._call(expr)
            case syntax.Slice():
                operand = self._integer(self.resolve(expr.base), expr.base, "an integer")
                assert isinstance(operand.type, Int)
                bits = self.bit_range(expr, operand.type)
                type = smallest_unsigned(bits.high - bits.low + 1)
                if isinstance(operand, Constant):
                    return Constant(type, operand.value >> bits.low & (1 << bits.high - bits.low + 1) - 1)
                return typed.Slice(operand, bits.high, bits.low, type)
            case syntax.Reference():
                message = "a reference is not a value"
                help = ("references are given to functions, and named by `let`",)
                raise self.context.fault(errors.BAD_REFERENCE, message, expr.at, help=help)
            case _:
                return self._load(self.resolve(expr), expr)

    def _load(self, found: Place | Expr, expr: syntax.Expr) -> Expr:
        if not isinstance(found, typed.PLACES):
            return found
        if not isinstance(found.type, Bool | Int):
            what = "the whole state" if isinstance(found, typed.StatePlace) else f"all of a `{found.type}`"
            help = (
                ("select an element: `[i]`",)
                if isinstance(found.type, Array)
                else ("select a field, or name the place with `let x = &...;`",)
            )
            message = f"{what} is not a value"
            raise self.context.fault(errors.NOT_A_VALUE, message, expr.at, help=help)
        match found:
            case typed.ElementPlace(base=typed.TablePlace(table=table), index=Constant(value=index)):
                return Constant(found.type, table.values[index])
        return typed.Load(found, found.type, expr.at)

    def _integer(self, found: Place | Expr, expr: syntax.Expr, wanted: str) -> Expr:
        """A value whose bits can be taken."""
        value = self.settle(self._load(found, expr), expr.at)
        if not isinstance(value.type, Int):
            raise self.mismatch(f"expected {wanted}, found `{value.type}`", expr.at, ())
        return value

    def _prefix(self, expr: syntax.Prefix) -> Expr:
        operand = self.infer(expr.operand)
        if operand.type is None:
            raise self.no_value(operand, expr.operand.at)
        if expr.op == "!":
            if operand.type != BOOL:
                help = ("`~` complements the bits, `== 0` tests for zero",)
                message = f"`!` takes a `bool`, not {_shown(operand.type)}"
                raise self.mismatch(message, expr.at, help)
            if isinstance(operand, Constant):
                return Constant(BOOL, 1 - operand.value)
            return typed.Unary("!", operand, BOOL)
        if operand.type == BOOL:
            raise self.mismatch(
                f"`{expr.op}` takes an integer, not `bool`", expr.at, ("`!` negates a `bool`",)
            )
        if isinstance(operand, Constant):
            value = ~operand.value if expr.op == "~" else -operand.value
            if isinstance(operand.type, Int):
                return Constant(operand.type, operand.type.wrap(value))
            return Constant(UNTYPED, value, complement=expr.op == "~")
        assert isinstance(operand.type, Int) or operand.type == UNTYPED
        return typed.Unary(expr.op, operand, operand.type)

    def _logic(self, expr: syntax.Infix) -> Expr:
        left, right = self.value(expr.left, BOOL), self.value(expr.right, BOOL)
        if isinstance(left, Constant):
            decided = bool(left.value) == (expr.op == "||")
            return left if decided else right
        return typed.Logic(expr.op, left, right)

    def _compare(self, expr: syntax.Infix) -> Expr:
        left, right = self._operands(
            expr.left, expr.right, expr.op, expr.op_at, bools=expr.op in ("==", "!=")
        )
        left, right = self.settle_pair(left, right, expr)
        if isinstance(left, Constant) and isinstance(right, Constant):
            return Constant(BOOL, int(compare(expr.op, left.value, right.value)))
        return typed.Compare(expr.op, left, right)

    def settle_pair(self, left: Expr, right: Expr, expr: syntax.Infix) -> tuple[Expr, Expr]:
        """Operands of a comparison of two untyped numbers; two constants need no type."""
        if left.type != UNTYPED or (isinstance(left, Constant) and isinstance(right, Constant)):
            return left, right
        return self.settle(left, expr.left.at), self.settle(right, expr.right.at)

    def _operands(
        self, left: syntax.Expr, right: syntax.Expr, op: str, op_at: Extent, *, bools: bool = False
    ) -> tuple[Expr, Expr]:
        """Two operands of one type, both untyped if neither has one."""
        a, b = self.infer(left), self.infer(right)
        for operand, where in ((a, left), (b, right)):
            if operand.type is None:
                raise self.no_value(operand, where.at)
            if operand.type == BOOL and not bools:
                help = {"&": ("write `&&`",), "|": ("write `||`",), "^": ("write `!=`",)}.get(op, ())
                help = help or ("a conversion makes 0 or 1 of it: `u8(...)`",)
                raise self.mismatch(f"`{op}` takes integers, not `bool`", where.at, help)
        if a.type == UNTYPED and b.type == UNTYPED:
            return a, b
        if a.type == UNTYPED or b.type == UNTYPED:
            typed_one = b if a.type == UNTYPED else a
            assert isinstance(typed_one.type, Bool | Int)
            return self.coerce(a, typed_one.type, left.at), self.coerce(b, typed_one.type, right.at)
        assert isinstance(a.type, Bool | Int)
        assert isinstance(b.type, Bool | Int)
        type = common(a.type, b.type)
        if type is None:
            raise self.context.fault(
                errors.TYPE_MISMATCH,
                f"`{op}` takes two operands of one type, not `{a.type}` and `{b.type}`",
                op_at,
                labels=[(left.at, f"this is `{a.type}`"), (right.at, f"this is `{b.type}`")],
                help=("convert one of them",),
            )
        return self.coerce(a, type, left.at), self.coerce(b, type, right.at)

    def _arithmetic(self, op: str, left: Expr, right: Expr, expr: syntax.Infix | syntax.Call) -> Expr:
        """Fold or build an operation on two operands of one type."""
        type = left.type
        assert isinstance(type, Int) or type == UNTYPED
        if op in ("/", "%") and isinstance(right, Constant) and right.value == 0:
            at = expr.right.at if isinstance(expr, syntax.Infix) else expr.at
            raise self.context.fault(errors.OUT_OF_RANGE, "division by zero", at)
        if isinstance(left, Constant) and isinstance(right, Constant):
            if isinstance(type, Int):
                return Constant(type, compute(op, left.value, right.value, type))
            complement = (left.complement or right.complement) and op in ("&", "|", "^")
            return self._exact(exact(op, left.value, right.value), expr.at, complement)
        return typed.Binary(op, left, right, type, expr.at)

    def _exact(self, value: int, at: Extent, complement: bool = False) -> Expr:
        if value.bit_length() > _EXACT_BITS:
            raise self.context.fault(errors.OUT_OF_RANGE, "this number fits no type", at)
        return Constant(UNTYPED, value, complement and value < 0)

    def _shift(self, expr: syntax.Infix) -> Expr:
        left, count = self.infer(expr.left), self.infer(expr.right)
        if left.type is None:
            raise self.no_value(left, expr.left.at)
        if left.type == BOOL:
            raise self.mismatch(f"`{expr.op}` takes integers, not `bool`", expr.left.at, ())
        if count.type == UNTYPED and isinstance(count, Constant) and count.value < 0:
            raise self.context.fault(errors.OUT_OF_RANGE, "a shift's count is not negative", expr.right.at)
        count = self.settle(count, expr.right.at)
        if not isinstance(count.type, Int) or count.type.signed:
            message = f"a shift's count is an unsigned integer, not `{count.type}`"
            raise self.mismatch(message, expr.right.at, ())
        bits = left.type.bits if isinstance(left.type, Int) else _EXACT_BITS
        if isinstance(count, Constant) and count.value >= bits:
            raise self.context.fault(
                errors.OUT_OF_RANGE,
                f"a shift by {count.value} leaves nothing of {_shown(left.type)}",
                expr.right.at,
                f"at most {bits - 1}",
            )
        if isinstance(left, Constant) and isinstance(count, Constant):
            if isinstance(left.type, Int):
                return Constant(left.type, compute(expr.op, left.value, count.value, left.type))
            return self._exact(exact(expr.op, left.value, count.value), expr.at, left.complement)
        assert isinstance(left.type, Int) or left.type == UNTYPED
        return typed.Binary(expr.op, left, count, left.type, expr.at)

    # --- calls ---

    def _call(self, expr: syntax.Call) -> Expr:
        name = expr.name.text
        if self.scopes.find(name)[0]:
            raise self.context.fault(
                errors.NOT_A_FUNCTION, f"`{name}` is a variable, not a function", expr.name.at
            )
        if name in SCALARS:
            return self._conversion(expr, SCALARS[name])
        if name in _BUILT_IN:
            return self._built_in(expr)
        return self.call(expr)

    def call(self, expr: syntax.Call) -> typed.Call:
        """A call of a function of the device."""
        functions = [
            each
            for each, it in self.context.names.items()
            if it.meaning is None or isinstance(it.meaning, typed.Function)
        ]
        declared = self.declared(expr.name, "function", [*functions, *_BUILT_IN, *SCALARS])
        function = declared.meaning
        if not isinstance(function, typed.Function):
            message = f"`{expr.name.text}` is not a function"
            labels = [(declared.at, "declared here")]
            raise self.context.fault(errors.NOT_A_FUNCTION, message, expr.name.at, labels=labels)
        if self.constant_only:
            raise self.context.fault(errors.NOT_CONSTANT, "a constant cannot call a function", expr.at)
        self._check_count(expr, len(function.parameters), declared.at)
        arguments = tuple(
            self._argument(given, parameter)
            for given, parameter in zip(expr.arguments, function.parameters, strict=True)
        )
        function.used = True
        if self.function is not None:
            self.context.calls.setdefault(self.function, []).append((function, expr.name.at))
        return typed.Call(function, arguments, function.result, expr.at)

    def _argument(self, given: syntax.Expr, parameter: Symbol) -> Expr | Place:
        if not parameter.reference:
            assert isinstance(parameter.type, Bool | Int)
            return self.value(given, parameter.type)
        place = self.reference(given)
        if place.type != parameter.type:
            raise self.context.fault(
                errors.TYPE_MISMATCH,
                f"expected a reference to `{parameter.type}`, found one to `{place.type}`",
                given.at,
                labels=[(parameter.at, "the parameter")],
            )
        return place

    def _check_count(self, expr: syntax.Call, wanted: int, declared_at: Extent | None = None) -> None:
        given = len(expr.arguments)
        if given != wanted:
            takes = f"{wanted} argument{'' if wanted == 1 else 's'}" if wanted else "no arguments"
            raise self.context.fault(
                errors.ARGUMENT_COUNT,
                f"`{expr.name.text}` takes {takes}, and gets {given or 'none'}",
                expr.at,
                labels=[(declared_at, "declared here")] if declared_at else [],
            )

    def _conversion(self, expr: syntax.Call, type: Scalar) -> Expr:
        self._check_count(expr, 1)
        operand = self.infer(expr.arguments[0])
        if operand.type is None:
            raise self.no_value(operand, expr.arguments[0].at)
        if operand.type == UNTYPED or operand.type == type:
            return self.coerce(operand, type, expr.arguments[0].at)
        if isinstance(type, Bool):
            raise self.mismatch("an integer does not become a `bool`", expr.at, ("compare it: `... != 0`",))
        return convert(operand, type)

    def _built_in(self, expr: syntax.Call) -> Expr:
        name = expr.name.text
        self._check_count(expr, _BUILT_IN[name])
        if self.constant_only and name in ("now", "muldiv"):
            raise self.context.fault(errors.NOT_CONSTANT, f"`{name}` is not known at compile time", expr.at)
        match name:
            case "now":
                return typed.Now(expr.at)
            case "muldiv":
                a, b, c = expr.arguments
                divisor = self.value(c, U32)
                if isinstance(divisor, Constant) and divisor.value == 0:
                    raise self.context.fault(errors.OUT_OF_RANGE, "division by zero", c.at)
                return typed.MulDiv(self.value(a, U64), self.value(b, U32), divisor, expr.at)
            case _:
                a, b = expr.arguments
                left, right = self._operands(a, b, name, expr.name.at)
                return self._arithmetic(name, left, right, expr)

    # --- what is wrong ---

    def _not_a_place(self, expr: syntax.Expr, found: Expr) -> Fault:
        if isinstance(found, typed.Variable):
            labels = [(found.symbol.at, "declared here")]
            help = ("declare it with `var`",) if found.symbol.at != expr.at else ()
            message = f"`{found.symbol.name}` cannot change"
            return self.context.fault(errors.IMMUTABLE, message, expr.at, labels=labels, help=help)
        if isinstance(found, Constant) and isinstance(expr, syntax.Name):
            message = f"`{expr.text}` is a constant, and cannot change"
            return self.context.fault(errors.IMMUTABLE, message, expr.at)
        return self.context.fault(errors.NOT_A_PLACE, "this is a value, not a place", expr.at)


def _shown(type: Type | Untyped | None) -> str:
    return "a number" if type == UNTYPED else f"`{type}`"
