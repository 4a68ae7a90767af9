"""Statements: what is declared, assigned and returned, and whether control reaches the end of a block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from devbc_lang import errors, syntax, typed
from devbc_lang.arithmetic import SHIFTS
from devbc_lang.context import Context, Fault, Port
from devbc_lang.conversions import bound
from devbc_lang.expressions import Expressions
from devbc_lang.source import Extent
from devbc_lang.syntax import EffectKind, PortKind
from devbc_lang.typed import Symbol
from devbc_lang.types import (
    BOOL,
    SCALARS,
    U64,
    Array,
    Bool,
    Int,
    Scalar,
    Type,
    common,
    default_type,
    shown,
    smallest_unsigned,
)

_PORT_OF: Final = {
    EffectKind.RAISE: PortKind.LINE,
    EffectKind.LOWER: PortKind.LINE,
    EffectKind.PULSE: PortKind.LINE,
    EffectKind.SIGNAL: PortKind.SIGNAL,
    EffectKind.CANCEL: PortKind.TIMER,
}


def check_body(
    context: Context,
    body: syntax.Block,
    symbols: Iterable[Symbol | None],
    result: Scalar | None,
    *,
    what: str,
    function: typed.Function | None = None,
) -> typed.Block:
    """Check the body of a function or handler. Faults are collected in the context.

    `symbols`: its parameters. `result`: the type that it must return. `what`: how messages call it.
    """
    checker = _Statements(context, result, what, function)
    for symbol in symbols:
        if symbol is not None:
            checker.expressions.scopes.innermost()[symbol.name] = symbol
    block = checker.block(body)
    if result is not None and block.falls_through:
        end = Extent(body.at.end - 1, body.at.end)
        context.report(
            context.fault(
                errors.MISSING_RETURN,
                f"{what} can end without returning a value",
                end,
                f"control can reach this, and `{result}` is to be returned",
            )
        )
    return block


class _Statements:
    def __init__(
        self, context: Context, result: Scalar | None, what: str, function: typed.Function | None
    ) -> None:
        self.context = context
        self.expressions = Expressions(context, function)
        self.result = result
        self.what = what
        self.loops = 0

    def block(self, block: syntax.Block) -> typed.Block:
        """A block, its names ended with it; faulty statements are reported and left out."""
        self.expressions.scopes.enter()
        statements: list[typed.Statement] = []
        falls_through = True
        for index, each in enumerate(block.statements):
            if not falls_through:
                message = "this statement is never reached"
                self.context.warn(errors.UNREACHABLE, message, each.at, "control never gets here")
                for rest in block.statements[index:]:
                    self._check(rest)
                break
            statement = self._check(each)
            if statement is not None:
                statements.append(statement)
                falls_through = _falls_through(statement)
            elif isinstance(each, syntax.Return | syntax.Decline):
                falls_through = False
        for symbol in self.expressions.scopes.leave():
            if not symbol.used and not symbol.name.startswith("_"):
                message = f"`{symbol.name}` is never used"
                self.context.warn(
                    errors.UNUSED, message, symbol.at, help=f"call it `_{symbol.name}` if that is meant"
                )
        return typed.Block(tuple(statements), falls_through)

    def _check(self, statement: syntax.Statement) -> typed.Statement | None:
        try:
            return self.statement(statement)
        except Fault as fault:
            self.context.report(fault)
            if isinstance(statement, syntax.Let):
                self.expressions.scopes.innermost()[statement.name.text] = None
            return None

    def statement(self, statement: syntax.Statement) -> typed.Statement:
        at = statement.at
        match statement:
            case syntax.Block():
                return self.block(statement)
            case syntax.Let():
                return self._let(statement)
            case syntax.Assign():
                return self._assign(statement)
            case syntax.CallStatement(call=call):
                return self._run(call, at)
            case syntax.If(condition=condition, then=then, otherwise=otherwise):
                return self._if(condition, then, otherwise, at)
            case syntax.Match():
                return self._match(statement)
            case syntax.For():
                return self._for(statement)
            case syntax.Break() | syntax.Continue():
                word = "break" if isinstance(statement, syntax.Break) else "continue"
                if not self.loops:
                    raise self.context.fault(errors.NOT_IN_LOOP, f"`{word}` outside of a loop", at)
                return typed.Break(at) if word == "break" else typed.Continue(at)
            case syntax.Return(value=value):
                return self._return(value, at)
            case syntax.Decline():
                return typed.Decline(at)
            case syntax.Effect(kind=kind, port=port):
                return typed.Effect(kind, self._port(port, _PORT_OF[kind], str(kind)), at)
            case syntax.ArmTimer(port=port, deadline=deadline):
                number = self._port(port, PortKind.TIMER, "arm")
                return typed.ArmTimer(number, self.expressions.value(deadline, U64), at)

    def _let(self, let: syntax.Let) -> typed.Statement:
        name = let.name
        symbol, statement = self._declaration(let)
        innermost = self.expressions.scopes.innermost()
        before = innermost.get(name.text)
        if name.text in innermost and before is not None:
            raise self.context.fault(
                errors.DUPLICATE,
                f"`{name.text}` is declared twice in this block",
                name.at,
                labels=[(before.at, "first declared here")],
            )
        innermost[name.text] = symbol
        return statement

    def _declaration(self, let: syntax.Let) -> tuple[Symbol, typed.Statement]:
        """The new name and its statement; the name is not known in its own value."""
        name = let.name
        if isinstance(let.value, syntax.Reference):
            if let.mutable:
                message = "a reference cannot be a variable"
                raise self.context.fault(
                    errors.BAD_REFERENCE, message, let.value.at, help=("declare it with `let`",)
                )
            place = self.expressions.reference(let.value)
            symbol = Symbol(name.text, place.type, name.at, reference=True)
            return symbol, typed.LetReference(symbol, place, let.at)
        if let.type is not None:
            type = self._scalar(let.type)
            value = self.expressions.value(let.value, type)
        else:
            value = self.expressions.typed_value(let.value)
            assert isinstance(value.type, Bool | Int)
            type = value.type
        symbol = Symbol(name.text, type, name.at, mutable=let.mutable)
        if isinstance(type, Int) and not type.signed and not let.mutable:
            symbol.bound = bound(value)
        return symbol, typed.Let(symbol, value, let.at)

    def _scalar(self, type: syntax.TypeExpr) -> Scalar:
        if isinstance(type, syntax.Name) and type.text in SCALARS:
            return SCALARS[type.text]
        if isinstance(type, syntax.Name) and type.text not in self.context.names:
            raise self.context.unknown("type", type, SCALARS)
        message = "a local name has a scalar type"
        help = ("structures and arrays are in `state`; name one with `let x = &state.y;`",)
        raise self.context.fault(errors.TYPE_MISMATCH, message, type.at, help=help)

    # --- assignments ---

    def _assign(self, assign: syntax.Assign) -> typed.Statement:
        place, part, type = self._target(assign.target)
        if assign.op in SHIFTS:
            value = self.expressions.unsigned(assign.value, "a shift's count")
            if isinstance(value, typed.Constant) and isinstance(type, Int) and value.value >= type.bits:
                message = f"a shift by {value.value} leaves nothing of `{type}`"
                raise self.context.fault(errors.OUT_OF_RANGE, message, assign.value.at)
        else:
            value = self.expressions.value(assign.value, type)
        if assign.op and type == BOOL:
            symbol = {"&": "&&", "|": "||", "^": "!="}.get(assign.op)
            help = (f"write `x = x {symbol} ...`",) if symbol else ()
            message = f"`{assign.op}=` takes integers, not `bool`"
            raise self.context.fault(errors.TYPE_MISMATCH, message, assign.at, help=help)
        if assign.op in ("/", "%") and isinstance(value, typed.Constant) and value.value == 0:
            raise self.context.fault(errors.OUT_OF_RANGE, "division by zero", assign.value.at)
        return typed.Assign(place, part, assign.op, value, assign.at)

    def _target(self, target: syntax.Expr) -> tuple[typed.Place, typed.BitRange | typed.Expr | None, Scalar]:
        """Where an assignment goes: the place, the part of it, and the type of that part."""
        expressions = self.expressions
        part: typed.BitRange | typed.Expr | None = None
        if isinstance(target, syntax.Slice):
            place = self._assignable(target.base)
            if not isinstance(place.type, Int):
                message = f"expected an integer, found `{place.type}`"
                raise self.context.fault(errors.TYPE_MISMATCH, message, target.base.at)
            part = expressions.bit_range(target, place.type)
            return place, part, smallest_unsigned(part.high - part.low + 1)
        if isinstance(target, syntax.Index):
            base = expressions.resolve(target.base)
            if isinstance(base.type, Int):
                place = self._assignable(target.base)
                operand = typed.Constant(base.type, 0)
                return place, expressions.bit_index(target.index, operand), BOOL
        place = self._assignable(target)
        if not isinstance(place.type, Bool | Int):
            message = f"`{place.type}` cannot be assigned as a whole"
            kind = "element" if isinstance(place.type, Array) else "field"
            raise self.context.fault(errors.TYPE_MISMATCH, message, target.at, help=(f"assign each {kind}",))
        return place, None, place.type

    def _assignable(self, target: syntax.Expr) -> typed.Place:
        place = self.expressions.place(target)
        root = place
        while isinstance(root, typed.FieldPlace | typed.ElementPlace):
            root = root.base
        if isinstance(root, typed.TablePlace):
            message = f"`{root.table.name}` is a constant, and cannot change"
            help = ("what changes is in `state`",)
            raise self.context.fault(errors.IMMUTABLE, message, target.at, help=help)
        return place

    # --- control ---

    def _run(self, call: syntax.Call, at: Extent) -> typed.Statement:
        value = self.expressions.infer(call)
        if not isinstance(value, typed.Call):
            message = f"the result of `{call.name.text}` is not used"
            raise self.context.fault(errors.NO_EFFECT, message, call.at)
        return typed.Run(value, at)

    def _if(
        self, condition: syntax.Expr, then: syntax.Block, otherwise: syntax.Block | None, at: Extent
    ) -> typed.Statement:
        test: typed.Expr = typed.Constant(BOOL, 1)
        with self.context.collecting():
            test = self.expressions.value(condition, BOOL)
        return typed.If(test, self.block(then), self.block(otherwise) if otherwise else None, at)

    def _for(self, loop: syntax.For) -> typed.Statement:
        start, end = self.expressions.infer(loop.start), self.expressions.infer(loop.end)
        for value, at in ((start, loop.start.at), (end, loop.end.at)):
            if not isinstance(value, typed.Constant) or value.type == BOOL:
                message = "a loop's bounds must be constants"
                help = ("every run must end: loop over a constant range and `break`, or `decline`",)
                raise self.context.fault(errors.NOT_CONSTANT, message, at, help=help)
        assert isinstance(start, typed.Constant)
        assert isinstance(end, typed.Constant)
        type = self._loop_type(start, end, loop)
        if start.value > end.value:
            message = f"the range {start.value}..{end.value} ends before it begins"
            raise self.context.fault(errors.OUT_OF_RANGE, message, loop.start.at.to(loop.end.at))
        symbol = Symbol(loop.name.text, type, loop.name.at, used=True)
        if not type.signed:
            symbol.bound = max(end.value - 1, 0)
        self.loops += 1
        self.expressions.scopes.enter()
        self.expressions.scopes.innermost()[symbol.name] = symbol
        body = self.block(loop.body)
        self.expressions.scopes.leave()
        self.loops -= 1
        return typed.For(symbol, start.value, end.value, body, loop.at)

    def _loop_type(self, start: typed.Constant, end: typed.Constant, loop: syntax.For) -> Int:
        found = {each.type for each in (start, end) if isinstance(each.type, Int)}
        type: Type | None = default_type(max(abs(start.value), abs(end.value)))
        if start.value < 0:
            type = SCALARS["i64"]
        if found:
            type = found.pop() if len(found) == 1 else common(*found)
        if not isinstance(type, Int):
            message = f"the bounds of a loop have one type, not `{start.type}` and `{end.type}`"
            raise self.context.fault(errors.TYPE_MISMATCH, message, loop.start.at.to(loop.end.at))
        for value, at in ((start, loop.start.at), (end, loop.end.at)):
            if not type.holds(value.value):
                raise self.context.fault(errors.OUT_OF_RANGE, f"{value.value} does not fit `{type}`", at)
        return type

    def _return(self, value: syntax.Expr | None, at: Extent) -> typed.Statement:
        if self.result is None:
            if value is not None:
                raise self.context.fault(errors.BAD_RETURN, f"{self.what} returns nothing", value.at)
            return typed.Return(None, at)
        if value is None:
            message = f"{self.what} returns `{self.result}`"
            raise self.context.fault(errors.BAD_RETURN, message, at, "the value is missing")
        return typed.Return(self.expressions.value(value, self.result), at)

    def _port(self, name: syntax.Name, kind: PortKind, word: str) -> int:
        candidates = [
            each
            for each, it in self.context.names.items()
            if isinstance(it.meaning, Port) and it.meaning.kind is kind
        ]
        declared = self.expressions.declared(name, str(kind), candidates)
        if not isinstance(declared.meaning, Port) or declared.meaning.kind is not kind:
            article = "an input" if kind is PortKind.INPUT else f"a {kind}"
            message = f"`{word}` takes {article}, and `{name.text}` is none"
            labels = [(declared.at, "declared here")]
            raise self.context.fault(errors.WRONG_PORT, message, name.at, labels=labels)
        return declared.meaning.number

    # --- match ---

    def _match(self, match: syntax.Match) -> typed.Statement:
        subject = self.expressions.typed_value(match.subject)
        if not isinstance(subject.type, Int):
            message = f"`match` takes an integer, not `{subject.type}`"
            raise self.context.fault(errors.TYPE_MISMATCH, message, match.subject.at, help=("use `if`",))
        type = subject.type
        most = bound(subject) if not type.signed else type.most
        covered: list[tuple[int, int, Extent]] = []
        arms: list[tuple[tuple[typed.Values, ...], typed.Block]] = []
        rest: typed.Block | None = None
        for arm in match.arms:
            values: list[typed.Values] = []
            for pattern in arm.patterns:
                if rest is not None:
                    message = "no value is left for this pattern"
                    self.context.report(
                        self.context.fault(errors.BAD_PATTERN, message, pattern.at, "`_` comes last")
                    )
                elif pattern.low is not None:
                    with self.context.collecting():
                        values.append(self._pattern(pattern, type, most, covered))
            block = self.block(arm.body)
            if any(pattern.low is None for pattern in arm.patterns):
                rest = block
            else:
                arms.append((tuple(values), block))
        if rest is None:
            left = _uncovered(covered, type.least, most)
            if left is not None:
                low, high = left
                missing = shown(low) if low == high else f"{shown(low)} to {shown(high)}"
                raise self.context.fault(
                    errors.NOT_EXHAUSTIVE,
                    f"not every value is matched: {missing}",
                    match.subject.at,
                    f"this is {shown(type.least)} to {shown(most)}",
                    help=("add an arm `_ => { }` for what is left",),
                )
            rest = arms.pop()[1]
        return typed.Match(subject, tuple(arms), rest, match.at)

    def _pattern(
        self, pattern: syntax.Pattern, type: Int, most: int, covered: list[tuple[int, int, Extent]]
    ) -> typed.Values:
        assert pattern.low is not None
        low = self.expressions.constant(pattern.low, "a pattern")
        high = low
        if pattern.high is not None:
            high = self.expressions.constant(pattern.high, "a pattern") - 1
            if high < low:
                message = f"the range {low}..{high + 1} is empty"
                raise self.context.fault(errors.BAD_PATTERN, message, pattern.at, "the end is not part of it")
        if low < type.least or high > most:
            limit = f"{shown(type.least)} to {shown(most)}"
            message = f"the value is never {high if high > most else low}"
            raise self.context.fault(errors.BAD_PATTERN, message, pattern.at, f"it is {limit}")
        for other_low, other_high, at in covered:
            if low <= other_high and other_low <= high:
                raise self.context.fault(
                    errors.BAD_PATTERN,
                    f"{max(low, other_low)} is matched twice",
                    pattern.at,
                    labels=[(at, "matched here already")],
                )
        covered.append((low, high, pattern.at))
        return typed.Values(low, high)


def _uncovered(covered: list[tuple[int, int, Extent]], least: int, most: int) -> tuple[int, int] | None:
    """The first values of a range that nothing covers."""
    at = least
    for low, high, _ in sorted(covered):
        if low > at:
            return at, low - 1
        at = max(at, high + 1)
    return (at, most) if at <= most else None


def _falls_through(statement: typed.Statement) -> bool:
    """Whether control can go on behind a statement."""
    match statement:
        case typed.Return() | typed.Decline() | typed.Break() | typed.Continue():
            return False
        case typed.Block(falls_through=falls_through):
            return falls_through
        case typed.If(then=then, otherwise=otherwise):
            return then.falls_through or otherwise is None or otherwise.falls_through
        case typed.Match(arms=arms, rest=rest):
            return rest.falls_through or any(block.falls_through for _, block in arms)
    return True
