"""From the typed tree to LLVM IR, as text: one function for each handler, calls run in place.

What holds of the IR, and must survive LLVM:

- each access to the shared area in the source is one volatile, naturally aligned load or store, in source
  order; nothing else touches it;
- a function's body is lowered at each call, so that `decline` leaves the handler and references are plain
  addresses; recursion has been refused, and the size of a handler is capped;
- nothing is undefined: shift counts are masked, division by zero and overflowing division are guarded,
  address arithmetic is not `inbounds`.

Names of the shared area never alias the exit, so the exit's pointer is `noalias`. Not here: optimisation.
"""

from __future__ import annotations

from typing import Final

from devbc.abi import EXIT_FIELDS, INFO_SECTION, SCRATCH_SECTION, Helper, Verdict
from devbc.diagnostics import Rejected, reject
from devbc_lang import errors, typed
from devbc_lang.debuginfo import DebugInfo
from devbc_lang.ir import FunctionBuilder, constant, llvm_type, memory_type
from devbc_lang.lower_data import info_strings, state_global, table_global
from devbc_lang.source import Extent, Source
from devbc_lang.syntax import EffectKind
from devbc_lang.types import U32, U64, Bool, Int, Scalar

#: IR instructions of one handler before optimisation; what verifies is far below.
_MOST_INSTRUCTIONS: Final = 60_000

_STATE: Final = "@state"
_INTEGER_OPS: Final = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor", "<<": "shl"}
_PREDICATES: Final = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def lower(device: typed.Device, source: Source) -> str:
    """The device as a module of LLVM IR, with debug information. Raises Rejected (a handler too large)."""
    debug = DebugInfo(source)
    parts = ['target triple = "bpfel"']
    state = device.state
    if state.size:
        parts.append(state_global(device, debug.state(state, device.state_at), SCRATCH_SECTION))
    parts += [table_global(table) for table in device.tables]
    parts.append(info_strings(device, INFO_SECTION))
    parts += [_Handler(handler, debug, source).lower() for handler in device.handlers]
    parts.append(debug.metadata())
    return "\n\n".join(parts) + "\n"


class _Handler:
    """Lowers one handler."""

    def __init__(self, handler: typed.Handler, debug: DebugInfo, source: Source) -> None:
        self.handler = handler
        self.source = source
        self.builder = FunctionBuilder(debug, debug.function(handler.name, handler.at))
        #: What names stand for: values of `let`, addresses of `var` and references.
        self.values: dict[typed.Symbol, str] = {}
        #: Where `return` goes, and where it puts the value; the handler's own, then those of calls.
        self.returns: list[tuple[str, str | None]] = []
        self.loops: list[tuple[str, str]] = []
        self.effects = _effects(handler.body)

    def lower(self) -> str:
        handler, builder = self.handler, self.builder
        builder.at = handler.at
        for parameter in handler.parameters:
            self._parameter(parameter)
        self.block(handler.body)
        if not builder.terminated:
            builder.emit_void(f"ret i64 {Verdict.HANDLED:d}")
        if "decline" in builder.wanted:
            builder.start("decline")
            builder.emit_void(f"ret i64 {Verdict.DECLINE:d}")
        section = str(handler.binding)
        head = (
            f"define dso_local i64 @{handler.name}(ptr noalias %exit) nounwind "
            f'"no-jump-tables"="true" section "{section}" !dbg {builder.scope} {{'
        )
        return "\n".join([head, *builder.lines(), "}"])

    def _parameter(self, parameter: typed.HandlerParameter) -> None:
        symbol = parameter.symbol
        if not symbol.used:
            return
        match parameter:
            case typed.FixedParameter(value=number):
                self.values[symbol] = str(number)
            case typed.ValueParameter(shift=shift):
                value = self._exit_load("value")
                if isinstance(symbol.type, Bool):
                    self.values[symbol] = self.builder.emit(f"icmp ne i64 {value}, 0")
                    return
                assert isinstance(symbol.type, Int)
                value = self._resize(value, U64, symbol.type)
                if shift:
                    value = self.builder.emit(f"shl {llvm_type(symbol.type)} {value}, {shift}")
                self.values[symbol] = value
            case typed.IndexParameter(base=base, size=size):
                offset = self._exit_load("offset")
                if base:
                    offset = self.builder.emit(f"sub i64 {offset}, {base}")
                if size > 1:
                    offset = self.builder.emit(f"lshr i64 {offset}, {size.bit_length() - 1}")
                self.values[symbol] = self._resize(offset, U64, U32)

    # --- statements ---

    def block(self, block: typed.Block) -> None:
        for statement in block.statements:
            self.statement(statement)
            if self.builder.terminated:
                break

    def statement(self, statement: typed.Statement) -> None:
        builder = self.builder
        if isinstance(statement, typed.Block):
            self.block(statement)
            return
        builder.at = statement.at
        if builder.count > _MOST_INSTRUCTIONS:
            raise self._too_large(statement.at)
        match statement:
            case typed.Let(symbol=symbol, value=value):
                result = self.value(value)
                if symbol.mutable:
                    assert isinstance(symbol.type, Bool | Int)
                    address = builder.variable(memory_type(symbol.type))
                    self._store_value(address, result, symbol.type, volatile=False)
                    result = address
                self.values[symbol] = result
            case typed.LetReference(symbol=symbol, place=place):
                self.values[symbol] = self.address(place)
            case typed.Assign():
                self._assign(statement)
            case typed.Run(call=call):
                self._call(call)
            case typed.If():
                self._if(statement)
            case typed.Match():
                self._match(statement)
            case typed.For():
                self._for(statement)
            case typed.Break():
                builder.branch(self.loops[-1][0])
            case typed.Continue():
                builder.branch(self.loops[-1][1])
            case typed.Return(value=value):
                self._return(value)
            case typed.Decline():
                builder.branch("decline")
            case typed.Effect(kind=kind, port=port):
                self._effect(kind, 1 << port)
            case typed.ArmTimer(port=port, deadline=deadline):
                self._exit_store("deadline", self.value(deadline), 8 * port)
                self._set_bits("arm", 1 << port)

    def _too_large(self, at: Extent) -> Rejected:
        name = self.handler.binding
        return reject(
            errors.TOO_LARGE,
            f"handler `{name}` has more than {_MOST_INSTRUCTIONS:,} instructions",
            self.source.span(at),
            notes=["functions run in place: each call is a copy of the function's body"],
            help=["let userspace do what is rare: `decline`"],
        )

    def _assign(self, assign: typed.Assign) -> None:
        place = assign.place
        type = place.type
        assert isinstance(type, Bool | Int)
        volatile = not isinstance(place, typed.VariablePlace)
        address = self.address(place)
        if assign.part is None and not assign.op:
            value = self.value(assign.value)
            self._store_value(address, value, type, volatile=volatile)
            return
        index = ""
        if assign.part is not None and not isinstance(assign.part, typed.BitRange):
            assert isinstance(type, Int)
            index = self._count(assign.part, type)
        if assign.part is not None and not assign.op:
            # The value first: its loads come before this one, as they are read.
            value = self.value(assign.value)
            old = self._load_value(address, type, volatile=volatile)
        else:
            old = self._load_value(address, type, volatile=volatile)
            value = self._updated(assign, old)
        if assign.part is not None:
            assert isinstance(type, Int)
            value = self._inserted(assign, old, value, type, index)
        self._store_value(address, value, type, volatile=volatile)

    def _updated(self, assign: typed.Assign, old: str) -> str:
        """`old op value`, on the part that is assigned."""
        type, part = assign.place.type, assign.part
        assert isinstance(type, Int)
        operand_type = type
        if isinstance(part, typed.BitRange):
            # The part's own type is what `v[high:low]` has: the value's, unless the value is a shift's count.
            operand_type = typed.part_type(part)
            old = self._extract(old, type, part.high, part.low, operand_type)
        return self._arithmetic(assign.op, old, assign.value, operand_type)

    def _inserted(self, assign: typed.Assign, old: str, value: str, type: Int, index: str) -> str:
        """`old` with its part replaced."""
        emit, ir = self.builder.emit, llvm_type(type)
        part = assign.part
        if isinstance(part, typed.BitRange):
            mask = (1 << part.high - part.low + 1) - 1
            value = self._resize(value, typed.part_type(part), type)
            value = emit(f"and {ir} {value}, {constant(mask, type)}")
            if part.low:
                value = emit(f"shl {ir} {value}, {part.low}")
            kept = emit(f"and {ir} {old}, {constant(~(mask << part.low), type)}")
            return emit(f"or {ir} {kept}, {value}")
        bit = emit(f"shl {ir} 1, {index}")
        inverse = emit(f"xor {ir} {bit}, -1")
        kept = emit(f"and {ir} {old}, {inverse}")
        wide = emit(f"zext i1 {value} to {ir}")
        shifted = emit(f"shl {ir} {wide}, {index}")
        return emit(f"or {ir} {kept}, {shifted}")

    def _if(self, statement: typed.If) -> None:
        builder = self.builder
        then, otherwise, after = builder.label("then"), builder.label("else"), builder.label("endif")
        self.condition(statement.condition, then, otherwise if statement.otherwise else after)
        builder.start(then)
        self.block(statement.then)
        builder.branch(after)
        if statement.otherwise:
            builder.start(otherwise)
            self.block(statement.otherwise)
            builder.branch(after)
        builder.start(after)

    def _match(self, match: typed.Match) -> None:
        builder = self.builder
        type = match.subject.type
        assert isinstance(type, Int)
        ir = llvm_type(type)
        subject = self.value(match.subject)
        rest, after = builder.label("rest"), builder.label("endmatch")
        arms = [(values, block, builder.label("arm")) for values, block in match.arms]
        cases: list[str] = []
        for values, _, label in arms:
            for each in values:
                if each.high - each.low < 64:
                    cases += [
                        f"{ir} {constant(value, type)}, label %{label}"
                        for value in range(each.low, each.high + 1)
                    ]
                    continue
                # `subject - low <= high - low`, unsigned, for signed types as well.
                off = builder.emit(f"sub {ir} {subject}, {constant(each.low, type)}")
                inside = builder.emit(f"icmp ule {ir} {off}, {each.high - each.low}")
                going_on = builder.label("next")
                builder.branch_if(inside, label, going_on)
                builder.start(going_on)
        if cases:
            for _, _, label in arms:
                builder.wanted.add(label)
            builder.wanted.add(rest)
            builder.emit_void(f"switch {ir} {subject}, label %{rest} [ {' '.join(cases)} ]")
            builder.terminated = True
        else:
            builder.branch(rest)
        for _, block, label in arms:
            builder.start(label)
            self.block(block)
            builder.branch(after)
        builder.start(rest)
        self.block(match.rest)
        builder.branch(after)
        builder.start(after)

    def _for(self, loop: typed.For) -> None:
        if loop.start == loop.end:
            return
        builder = self.builder
        type = loop.symbol.type
        assert isinstance(type, Int)
        ir = llvm_type(type)
        counter = builder.variable(ir)
        builder.emit_void(f"store {ir} {constant(loop.start, type)}, ptr {counter}, align {type.size}")
        body, step, after = builder.label("loop"), builder.label("step"), builder.label("endloop")
        builder.branch(body)
        builder.start(body)
        self.values[loop.symbol] = builder.emit(f"load {ir}, ptr {counter}, align {type.size}")
        self.loops.append((after, step))
        self.block(loop.body)
        self.loops.pop()
        builder.branch(step)
        builder.start(step)
        if not builder.terminated:
            # Compared for equality: the end may be one more than the type holds.
            passed = builder.emit(f"load {ir}, ptr {counter}, align {type.size}")
            following = builder.emit(f"add {ir} {passed}, 1")
            builder.emit_void(f"store {ir} {following}, ptr {counter}, align {type.size}")
            done = builder.emit(f"icmp eq {ir} {following}, {constant(loop.end, type)}")
            builder.branch_if(done, after, body)
        builder.start(after)

    def _return(self, value: typed.Expr | None) -> None:
        builder = self.builder
        if self.returns:
            label, slot = self.returns[-1]
            if value is not None and slot is not None:
                assert isinstance(value.type, Bool | Int)
                self._store_value(slot, self.value(value), value.type, volatile=False)
            builder.branch(label)
            return
        answer = self.handler.answer
        if value is not None and answer is not None:
            result = self.value(value)
            if answer.shift:
                result = builder.emit(f"lshr {llvm_type(answer.type)} {result}, {answer.shift}")
            self._exit_store("value", self._resize(result, answer.type, U64))
        builder.emit_void(f"ret i64 {Verdict.HANDLED:d}")
        builder.terminated = True

    # --- effects ---

    def _effect(self, kind: EffectKind, bit: int) -> None:
        """The exit's masks say what is so at the end: raised lines are lowered after, timers armed last."""
        match kind:
            case EffectKind.RAISE:
                self._set_bits("raise", bit)
                if ("lower", bit) in self.effects:
                    self._clear_bits("lower", bit)
            case EffectKind.LOWER:
                self._set_bits("lower", bit)
            case EffectKind.PULSE:
                self._set_bits("raise", bit)
                self._set_bits("lower", bit)
            case EffectKind.SIGNAL:
                self._set_bits("signal", bit)
            case EffectKind.CANCEL:
                self._set_bits("cancel", bit)
                if ("arm", bit) in self.effects:
                    self._clear_bits("arm", bit)

    def _set_bits(self, field: str, bits: int) -> None:
        old = self._exit_load(field)
        self._exit_store(field, self.builder.emit(f"or i32 {old}, {constant(bits, U32)}"))

    def _clear_bits(self, field: str, bits: int) -> None:
        old = self._exit_load(field)
        self._exit_store(field, self.builder.emit(f"and i32 {old}, {constant(~bits, U32)}"))

    def _exit_load(self, field: str) -> str:
        it = EXIT_FIELDS[field]
        address = self.builder.emit(f"getelementptr i8, ptr %exit, i64 {it.offset}")
        return self.builder.emit(f"load i{8 * it.size}, ptr {address}, align {it.size}")

    def _exit_store(self, field: str, value: str, element: int = 0) -> None:
        it = EXIT_FIELDS[field]
        address = self.builder.emit(f"getelementptr i8, ptr %exit, i64 {it.offset + element}")
        self.builder.emit_void(f"store i{8 * it.size} {value}, ptr {address}, align {it.size}")

    # --- places ---

    def address(self, place: typed.Place) -> str:
        root, offset = self._address(place)
        if not offset:
            return root
        if root.startswith("@"):
            return f"getelementptr (i8, ptr {root}, i64 {offset})"
        return self.builder.emit(f"getelementptr i8, ptr {root}, i64 {offset}")

    def _address(self, place: typed.Place) -> tuple[str, int]:
        """A pointer and the bytes beyond it: constant parts of an address stay so."""
        match place:
            case typed.StatePlace():
                return _STATE, 0
            case typed.TablePlace(table=table):
                return f"@{table.name}", 0
            case typed.VariablePlace(symbol=symbol) | typed.ReferencePlace(symbol=symbol):
                return self.values[symbol], 0
            case typed.FieldPlace(base=base, offset=offset):
                root, before = self._address(base)
                return root, before + offset
            case typed.ElementPlace(base=base, index=index, type=type):
                root, before = self._address(base)
                value = self.value(index)
                if value.isdigit():
                    return root, before + int(value) * type.size
                assert isinstance(index.type, Int)
                value = self._resize(value, index.type, U64)
                if type.size > 1:
                    value = self.builder.emit(f"mul i64 {value}, {type.size}")
                if before:
                    root = (
                        f"getelementptr (i8, ptr {root}, i64 {before})"
                        if root.startswith("@")
                        else self.builder.emit(f"getelementptr i8, ptr {root}, i64 {before}")
                    )
                return self.builder.emit(f"getelementptr i8, ptr {root}, i64 {value}"), 0

    def _load_value(self, address: str, type: Scalar, *, volatile: bool) -> str:
        word = "load volatile" if volatile else "load"
        value = self.builder.emit(f"{word} {memory_type(type)}, ptr {address}, align {type.size}")
        if isinstance(type, Bool):
            # Userspace may have put any byte there.
            return self.builder.emit(f"icmp ne i8 {value}, 0")
        return value

    def _store_value(self, address: str, value: str, type: Scalar, *, volatile: bool) -> None:
        if isinstance(type, Bool):
            value = {"true": "1", "false": "0"}.get(value) or self.builder.emit(f"zext i1 {value} to i8")
        word = "store volatile" if volatile else "store"
        self.builder.emit_void(f"{word} {memory_type(type)} {value}, ptr {address}, align {type.size}")

    # --- expressions ---

    def condition(self, expr: typed.Expr, true: str, false: str) -> None:
        """Branch on a bool; `&&`, `||` and `!` become control flow."""
        builder = self.builder
        match expr:
            case typed.Constant(value=value):
                builder.branch(true if value else false)
            case typed.Unary(op="!", operand=operand):
                self.condition(operand, false, true)
            case typed.Logic(op=op, left=left, right=right):
                going_on = builder.label("and" if op == "&&" else "or")
                self.condition(left, going_on if op == "&&" else true, false if op == "&&" else going_on)
                builder.start(going_on)
                self.condition(right, true, false)
            case _:
                builder.branch_if(self.value(expr), true, false)

    def value(self, expr: typed.Expr) -> str:
        """An expression's value; afterwards the place in the source is what it was."""
        at = self.builder.at
        result = self._value(expr)
        self.builder.at = at
        return result

    def _value(self, expr: typed.Expr) -> str:
        emit = self.builder.emit
        match expr:
            case typed.Constant(type=Bool(), value=number):
                return "true" if number else "false"
            case typed.Constant(type=type, value=number):
                assert isinstance(type, Int)
                return constant(number, type)
            case typed.Variable(symbol=symbol):
                return self.values[symbol]
            case typed.Load(place=place, type=type, at=at):
                self.builder.at = at
                volatile = not isinstance(_root(place), typed.VariablePlace | typed.TablePlace)
                return self._load_value(self.address(place), type, volatile=volatile)
            case typed.Unary(op="!", operand=operand):
                return emit(f"xor i1 {self.value(operand)}, true")
            case typed.Unary(op=op, operand=operand, type=type):
                value, ir = self.value(operand), llvm_type(type)
                return emit(f"sub {ir} 0, {value}") if op == "-" else emit(f"xor {ir} {value}, -1")
            case typed.Binary(op=op, left=left, right=right, type=type):
                assert isinstance(type, Int)
                return self._arithmetic(op, self.value(left), right, type)
            case typed.Compare(op=op, left=left, right=right):
                a, b = self.value(left), self.value(right)
                signed = "s" if isinstance(left.type, Int) and left.type.signed else "u"
                predicate = _PREDICATES[op] if op in ("==", "!=") else signed + _PREDICATES[op]
                return emit(f"icmp {predicate} {llvm_type(left.type)} {a}, {b}")
            case typed.Logic():
                return self._logic(expr)
            case typed.Convert(operand=operand, type=type):
                assert isinstance(operand.type, Bool | Int)
                return self._resize(self.value(operand), operand.type, type)
            case typed.Slice(operand=operand, high=high, low=low, type=type):
                assert isinstance(operand.type, Int)
                return self._extract(self.value(operand), operand.type, high, low, type)
            case typed.Bit(operand=operand, index=index):
                assert isinstance(operand.type, Int)
                ir = llvm_type(operand.type)
                value = self.value(operand)
                shifted = emit(f"lshr {ir} {value}, {self._count(index, operand.type)}")
                return emit(f"trunc {ir} {shifted} to i1")
            case typed.Now(at=at):
                self.builder.at = at
                host = emit(f"call i64 inttoptr (i64 {Helper.KTIME_GET_NS:d} to ptr)()")
                return emit(f"add i64 {host}, {self._exit_load('clock_offset')}")
            case typed.MulDiv():
                return self._muldiv(expr)
            case typed.ExitField(name=name):
                return self._exit_load(name)
            case typed.Call():
                result = self._call(expr)
                assert result is not None
                return result

    def _logic(self, expr: typed.Logic) -> str:
        builder = self.builder
        true, false, after = builder.label("true"), builder.label("false"), builder.label("decided")
        self.condition(expr, true, false)
        for label in (true, false):
            builder.start(label)
            builder.branch(after)
        builder.start(after)
        return builder.emit(f"phi i1 [ true, %{true} ], [ false, %{false} ]")

    def _extract(self, value: str, type: Int, high: int, low: int, to: Int) -> str:
        emit, ir = self.builder.emit, llvm_type(type)
        if low:
            value = emit(f"lshr {ir} {value}, {low}")
        value = self._resize(value, Int(type.bits, False), to)
        width = high - low + 1
        return value if width == to.bits else emit(f"and {llvm_type(to)} {value}, {(1 << width) - 1}")

    def _resize(self, value: str, have: Scalar, want: Int) -> str:
        """Extend as `have` is signed or not, or truncate."""
        if value.isdigit() and int(value) <= want.most:
            return value
        if isinstance(have, Bool):
            return self.builder.emit(f"zext i1 {value} to {llvm_type(want)}")
        if have.bits == want.bits:
            return value
        word = "trunc" if have.bits > want.bits else "sext" if have.signed else "zext"
        return self.builder.emit(f"{word} {llvm_type(have)} {value} to {llvm_type(want)}")

    def _count(self, count: typed.Expr, type: Int) -> str:
        """A shift's count, modulo the bits of the type that is shifted: LLVM has no meaning for more."""
        if isinstance(count, typed.Constant):
            return str(count.value % type.bits)
        assert isinstance(count.type, Int)
        value = self.value(count)
        masked = self.builder.emit(f"and {llvm_type(count.type)} {value}, {type.bits - 1}")
        return self._resize(masked, count.type, type)

    def _arithmetic(self, op: str, left: str, right: typed.Expr, type: Int) -> str:
        emit, ir = self.builder.emit, llvm_type(type)
        if op in ("<<", ">>"):
            word = "shl" if op == "<<" else "ashr" if type.signed else "lshr"
            return emit(f"{word} {ir} {left}, {self._count(right, type)}")
        value = self.value(right)
        if op in ("/", "%"):
            return self._divide(op, left, value, type, isinstance(right, typed.Constant))
        if op in ("min", "max"):
            predicate = ("s" if type.signed else "u") + ("lt" if op == "min" else "gt")
            chosen = emit(f"icmp {predicate} {ir} {left}, {value}")
            return emit(f"select i1 {chosen}, {ir} {left}, {ir} {value}")
        return emit(f"{_INTEGER_OPS[op]} {ir} {left}, {value}")

    def _divide(self, op: str, left: str, right: str, type: Int, known: bool) -> str:
        """RFC 9669's division: by 0 gives 0 or the dividend; the least value by -1 wraps."""
        emit, ir = self.builder.emit, llvm_type(type)
        word = ("s" if type.signed else "u") + ("div" if op == "/" else "rem")
        if known and right != "-1":
            return emit(f"{word} {ir} {left}, {right}")
        zero = emit(f"icmp eq {ir} {right}, 0")
        divisor = emit(f"select i1 {zero}, {ir} 1, {ir} {right}")
        by_zero = "0" if op == "/" else left
        if type.signed:
            minus = emit(f"icmp eq {ir} {right}, -1")
            divisor = emit(f"select i1 {minus}, {ir} 1, {ir} {divisor}")
            result = emit(f"{word} {ir} {left}, {divisor}")
            negated = emit(f"sub {ir} 0, {left}") if op == "/" else "0"
            result = emit(f"select i1 {minus}, {ir} {negated}, {ir} {result}")
        else:
            result = emit(f"{word} {ir} {left}, {divisor}")
        return emit(f"select i1 {zero}, {ir} {by_zero}, {ir} {result}")

    def _muldiv(self, expr: typed.MulDiv) -> str:
        """`a / c * b + a % c * b / c`: exact in 64 bits, since a % c and b are below 2**32."""
        emit = self.builder.emit
        a = self.value(expr.a)
        b = self._resize(self.value(expr.b), U32, U64)
        c = self._resize(self.value(expr.c), U32, U64)
        self.builder.at = expr.at
        known = isinstance(expr.c, typed.Constant)
        divisor = c
        if not known:
            zero = emit(f"icmp eq i64 {c}, 0")
            divisor = emit(f"select i1 {zero}, i64 1, i64 {c}")
        quotient = emit(f"udiv i64 {a}, {divisor}")
        remainder = emit(f"urem i64 {a}, {divisor}")
        whole = emit(f"mul i64 {quotient}, {b}")
        part = emit(f"mul i64 {remainder}, {b}")
        fraction = emit(f"udiv i64 {part}, {divisor}")
        result = emit(f"add i64 {whole}, {fraction}")
        return result if known else emit(f"select i1 {zero}, i64 0, i64 {result}")

    def _call(self, call: typed.Call) -> str | None:
        """Run a function's body here. Its names are bound anew at each call."""
        builder, function = self.builder, call.function
        at = builder.at
        bound: dict[typed.Symbol, str] = {}
        for parameter, argument in zip(function.parameters, call.arguments, strict=True):
            bound[parameter] = self.address(argument) if parameter.reference else self.value(argument)  # type: ignore[arg-type]
        self.values.update(bound)
        slot = builder.variable(memory_type(call.type)) if call.type is not None else None
        after = builder.label("returned")
        loops, self.loops = self.loops, []
        self.returns.append((after, slot))
        self.block(function.body)
        self.returns.pop()
        self.loops = loops
        builder.branch(after)
        builder.start(after)
        builder.at = at
        if slot is None or call.type is None:
            return None
        return self._load_value(slot, call.type, volatile=False)


def _root(place: typed.Place) -> typed.Place:
    while isinstance(place, typed.FieldPlace | typed.ElementPlace):
        place = place.base
    return place


def _effects(block: typed.Block) -> frozenset[tuple[str, int]]:
    """The effects that a body may have, through its calls: the field of the exit and the bit."""
    found: set[tuple[str, int]] = set()
    for each in typed.walk(block):
        match each:
            case typed.Effect(kind=EffectKind.PULSE, port=port):
                found |= {("raise", 1 << port), ("lower", 1 << port)}
            case typed.Effect(kind=kind, port=port):
                found.add((str(kind), 1 << port))
            case typed.ArmTimer(port=port):
                found.add(("arm", 1 << port))
    return frozenset(found)
