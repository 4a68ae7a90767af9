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

from dataclasses import dataclass, field
from typing import Final

from devbc.abi import EXIT_FIELDS, INFO_SECTION, SCRATCH_SECTION, Helper, Verdict, section_name
from devbc.diagnostics import Rejected, reject
from devbc_lang import errors, typed
from devbc_lang.arithmetic import SHIFTS
from devbc_lang.debuginfo import DebugInfo
from devbc_lang.ir import FunctionBuilder, constant, llvm_type, memory_type
from devbc_lang.lower_data import info_strings, state_global, table_global
from devbc_lang.operators import Operators, known
from devbc_lang.source import Extent, Source
from devbc_lang.syntax import EffectKind
from devbc_lang.types import U32, U64, Bool, Int, Scalar

#: IR instructions of one handler before optimisation; what verifies is far below.
_MOST_INSTRUCTIONS: Final = 60_000

_STATE: Final = "@state"
#: A range of more values than this is a comparison, not so many cases of a switch.
_MOST_CASES: Final = 64


def lower(device: typed.Device, source: Source) -> str:
    """The device as a module of LLVM IR, with debug information. Raises Rejected (a handler too large)."""
    debug = DebugInfo(source)
    parts = ['target triple = "bpfel"']
    state = device.state
    if state.size:
        parts.append(state_global(device, debug.state(state, device.state_at), SCRATCH_SECTION))
    parts += [table_global(table) for table in device.tables]
    parts.append(info_strings(device, INFO_SECTION))
    symbols, effects = _symbols(device), _Effects()
    parts += [
        _Handler(handler, symbol, debug, source, effects).lower()
        for handler, symbol in zip(device.handlers, symbols, strict=True)
    ]
    parts.append(debug.metadata())
    return "\n\n".join(parts) + "\n"


def _symbols(device: typed.Device) -> list[str]:
    """A symbol for each handler: its name, or something like it where another symbol has that name."""
    taken = {"state", *(table.name for table in device.tables)}
    symbols: list[str] = []
    for handler in device.handlers:
        symbol = handler.name
        while symbol in taken:
            symbol += "_"
        taken.add(symbol)
        symbols.append(symbol)
    return symbols


class _Handler:
    """Lowers one handler."""

    def __init__(
        self, handler: typed.Handler, symbol: str, debug: DebugInfo, source: Source, effects: _Effects
    ) -> None:
        self.handler = handler
        self.symbol = symbol
        self.source = source
        self.builder = FunctionBuilder(debug, debug.function(symbol, handler.at))
        self.operators = Operators(self.builder)
        #: What names stand for: values of `let`, addresses of `var` and references.
        self.values: dict[typed.Symbol, str] = {}
        #: Where `return` goes in each function that runs in place, and the values that come there, with their
        #: blocks.
        self.returns: list[tuple[str, list[tuple[str, str]]]] = []
        self.loops: list[tuple[str, str]] = []
        self.effects_of = effects.of
        self.effects = effects.of(handler.body)
        self.builder.words = {field: 0 for field, _ in self.effects}

    def lower(self) -> str:
        handler, builder = self.handler, self.builder
        builder.at = handler.at
        for parameter in handler.parameters:
            self._parameter(parameter)
        self.block(handler.body)
        builder.ret(Verdict.HANDLED)
        builder.start("decline")
        builder.ret(Verdict.DECLINE)
        section = section_name(handler.bindings)
        head = (
            f"define dso_local i64 @{self.symbol}(ptr noalias %exit) nounwind "
            f'"no-jump-tables"="true" section "{section}" !dbg {builder.scope} {{'
        )
        return "\n".join([head, *builder.lines(), "}"])

    def _parameter(self, parameter: typed.HandlerParameter) -> None:
        symbol = parameter.symbol
        if isinstance(parameter, typed.ArgumentParameter):
            self.values[symbol] = self._argument_register(parameter)
            return
        if not symbol.used:
            return
        match parameter:
            case typed.FixedParameter(value=number):
                self.values[symbol] = str(number)
            case typed.ValueParameter(shift=shift):
                value = self._exit_load("value")
                if isinstance(symbol.type, Bool):
                    self.values[symbol] = self.builder.compute(f"icmp ne i64 {value}, 0")
                    return
                assert isinstance(symbol.type, Int)
                value = self.operators.resize(value, U64, symbol.type)
                if shift:
                    value = self.operators.arithmetic("<<", value, str(shift), symbol.type)
                self.values[symbol] = value
            case typed.IndexParameter(base=base, size=size):
                offset = self.operators.arithmetic("-", self._exit_load("offset"), str(base), U64)
                if size > 1:
                    offset = self.operators.arithmetic(">>", offset, str(size.bit_length() - 1), U64)
                self.values[symbol] = self.operators.resize(offset, U64, U32)

    def _argument_register(self, parameter: typed.ArgumentParameter) -> str:
        """An argument as its type has it; declines where the register holds another number."""
        symbol, compute = parameter.symbol, self.builder.compute
        type = symbol.type
        assert isinstance(type, Bool | Int)
        value = self._exit_load("arg", 8 * parameter.number)
        if isinstance(type, Int) and type.signed:
            narrow = self.operators.resize(value, U64, type)
            self._decline_if(compute(f"icmp ne i64 {self.operators.resize(narrow, type, U64)}, {value}"))
            return narrow
        most = 1 if isinstance(type, Bool) else type.most if symbol.bound is None else symbol.bound
        if most < U64.most:
            self._decline_if(compute(f"icmp ugt i64 {value}, {most}"))
        if isinstance(type, Bool):
            return compute(f"icmp ne i64 {value}, 0")
        return self.operators.resize(value, U64, type)

    def _decline_if(self, condition: str) -> None:
        fits = self.builder.label("fits")
        self.builder.branch_if(condition, "decline", fits)
        self.builder.start(fits)

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
        name = section_name(self.handler.bindings)
        return reject(
            errors.TOO_LARGE,
            f"handler `{name}` has more than {_MOST_INSTRUCTIONS:,} instructions",
            self.source.span(at),
            notes=["functions run in place: each call is a copy of the function's body"],
            help=["let userspace do what is rare: `decline`"],
        )

    def _assign(self, assign: typed.Assign) -> None:
        place, part, type = assign.place, assign.part, assign.place.type
        assert isinstance(type, Bool | Int)
        volatile = not isinstance(place, typed.VariablePlace)
        address = self.address(place)
        if part is None and not assign.op:
            self._store_value(address, self.value(assign.value), type, volatile=volatile)
            return
        assert isinstance(type, Int)
        index = "" if part is None or isinstance(part, typed.BitRange) else self._count(part, type)
        value = ""
        if not assign.op:
            # Before the load: what the value loads stands before it.
            value = self.value(assign.value)
        old = self._load_value(address, type, volatile=volatile)
        match part:
            case None:
                value = self._arithmetic(assign.op, old, assign.value, type)
            case typed.BitRange(high=high, low=low):
                narrow = typed.part_type(part)
                if assign.op:
                    before = self.operators.extract(old, type, high, low, narrow)
                    value = self._arithmetic(assign.op, before, assign.value, narrow)
                value = self.operators.insert(old, type, high, low, value, narrow)
            case _:
                value = self.operators.insert_bit(old, type, index, value)
        self._store_value(address, value, type, volatile=volatile)

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
        builder.join(after)

    def _match(self, match: typed.Match) -> None:
        builder = self.builder
        type = match.subject.type
        assert isinstance(type, Int)
        subject = self.value(match.subject)
        rest, after = builder.label("rest"), builder.label("endmatch")
        arms = [(values, block, builder.label("arm")) for values, block in match.arms]
        targets = [(each, label) for values, _, label in arms for each in values]
        number = known(subject, type)
        if number is not None:
            chosen = (label for each, label in targets if each.low <= number <= each.high)
            builder.branch(next(chosen, rest))
        for each, label in targets:
            if each.high - each.low >= _MOST_CASES:
                # `subject - low <= high - low`, unsigned, for signed types as well.
                beyond = self.operators.arithmetic("-", subject, constant(each.low, type), type)
                unsigned = Int(type.bits, False)
                inside = self.operators.compare("<=", beyond, str(each.high - each.low), unsigned)
                going_on = builder.label("next")
                builder.branch_if(inside, label, going_on)
                builder.start(going_on)
        cases = {
            constant(value, type): label
            for each, label in targets
            if each.high - each.low < _MOST_CASES
            for value in range(each.low, each.high + 1)
        }
        builder.switch(llvm_type(type), subject, cases, rest)
        for _, block, label in arms:
            builder.start(label)
            self.block(block)
            builder.branch(after)
        builder.start(rest)
        self.block(match.rest)
        builder.join(after)

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
        changed = {field for field, _ in self.effects_of(loop.body)}
        builder.words = {word: value for word, value in builder.words.items() if word not in changed}
        builder.start(body)
        self.values[loop.symbol] = builder.emit(f"load {ir}, ptr {counter}, align {type.size}")
        self.loops.append((after, step))
        self.block(loop.body)
        self.loops.pop()
        builder.join(step)
        if not builder.terminated:
            # Compared for equality: the end may be one more than the type holds.
            passed = builder.emit(f"load {ir}, ptr {counter}, align {type.size}")
            following = builder.compute(f"add {ir} {passed}, 1")
            builder.emit_void(f"store {ir} {following}, ptr {counter}, align {type.size}")
            done = builder.compute(f"icmp eq {ir} {following}, {constant(loop.end, type)}")
            builder.branch_if(done, after, body)
        builder.start(after)

    def _return(self, value: typed.Expr | None) -> None:
        builder = self.builder
        if self.returns:
            label, results = self.returns[-1]
            result = None if value is None else self.value(value)
            if result is not None and not builder.terminated:
                results.append((result, builder.here))
            builder.branch(label)
            return
        answer = self.handler.answer
        if value is not None and answer is not None:
            result = self.value(value)
            if answer.shift:
                assert isinstance(answer.type, Int)
                result = self.operators.arithmetic(">>", result, str(answer.shift), answer.type)
            self._exit_store("value", self.operators.resize(result, answer.type, U64))
        builder.ret(Verdict.HANDLED)

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
        self._change_mask(field, "|", bits)

    def _clear_bits(self, field: str, bits: int) -> None:
        self._change_mask(field, "&", U32.wrap(~bits))

    def _change_mask(self, field: str, op: str, bits: int) -> None:
        """Masks are 0 at entry, and nothing else writes them: what they are is mostly known."""
        builder = self.builder
        before = builder.words.get(field)
        old = self._exit_load(field) if before is None else str(before)
        new = self.operators.arithmetic(op, old, str(bits), U32)
        if new != old:
            self._exit_store(field, new)
            if before is not None:
                builder.words = {**builder.words, field: int(new)}

    def _exit_load(self, field: str, element: int = 0) -> str:
        it = EXIT_FIELDS[field]
        address = self.builder.compute(f"getelementptr i8, ptr %exit, i64 {it.offset + element}")
        return self.builder.emit(f"load i{8 * it.size}, ptr {address}, align {it.size}")

    def _exit_store(self, field: str, value: str, element: int = 0) -> None:
        it = EXIT_FIELDS[field]
        address = self.builder.compute(f"getelementptr i8, ptr %exit, i64 {it.offset + element}")
        self.builder.emit_void(f"store i{8 * it.size} {value}, ptr {address}, align {it.size}")

    # --- places ---

    def address(self, place: typed.Place) -> str:
        root, offset = self._address(place)
        if not offset:
            return root
        if root.startswith("@"):
            return f"getelementptr (i8, ptr {root}, i64 {offset})"
        return self.builder.compute(f"getelementptr i8, ptr {root}, i64 {offset}")

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
                assert isinstance(index.type, Int)
                value = self.operators.resize(self.value(index), index.type, U64)
                number = known(value, U64)
                if number is not None:
                    return root, before + number * type.size
                if type.size > 1:
                    value = self.operators.arithmetic("*", value, str(type.size), U64)
                if before:
                    root = (
                        f"getelementptr (i8, ptr {root}, i64 {before})"
                        if root.startswith("@")
                        else self.builder.compute(f"getelementptr i8, ptr {root}, i64 {before}")
                    )
                return self.builder.compute(f"getelementptr i8, ptr {root}, i64 {value}"), 0

    def _load_value(self, address: str, type: Scalar, *, volatile: bool) -> str:
        word = "load volatile" if volatile else "load"
        value = self.builder.emit(f"{word} {memory_type(type)}, ptr {address}, align {type.size}")
        if isinstance(type, Bool):
            # Userspace may have put any byte there.
            return self.builder.compute(f"icmp ne i8 {value}, 0")
        return value

    def _store_value(self, address: str, value: str, type: Scalar, *, volatile: bool) -> None:
        if isinstance(type, Bool):
            value = {"true": "1", "false": "0"}.get(value) or self.builder.compute(f"zext i1 {value} to i8")
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
                return self.operators.invert(self.value(operand))
            case typed.Unary(op=op, operand=operand, type=type):
                assert isinstance(type, Int)
                value = self.value(operand)
                return (self.operators.negate if op == "-" else self.operators.complement)(value, type)
            case typed.Binary(op=op, left=left, right=right, type=type):
                assert isinstance(type, Int)
                return self._arithmetic(op, self.value(left), right, type)
            case typed.Compare(op=op, left=left, right=right):
                assert isinstance(left.type, Bool | Int)
                return self.operators.compare(op, self.value(left), self.value(right), left.type)
            case typed.Logic():
                return self._logic(expr)
            case typed.Convert(operand=operand, type=type):
                assert isinstance(operand.type, Bool | Int)
                return self.operators.resize(self.value(operand), operand.type, type)
            case typed.Slice(operand=operand, high=high, low=low, type=type):
                assert isinstance(operand.type, Int)
                return self.operators.extract(self.value(operand), operand.type, high, low, type)
            case typed.Bit(operand=operand, index=index):
                assert isinstance(operand.type, Int)
                value = self.value(operand)
                return self.operators.bit(value, operand.type, self._count(index, operand.type))
            case typed.Now(at=at):
                self.builder.at = at
                host = emit(f"call i64 inttoptr (i64 {Helper.KTIME_GET_NS:d} to ptr)()")
                return self.builder.compute(f"add i64 {host}, {self._exit_load('clock_offset')}")
            case typed.MulDiv(a=a, b=b, c=c, at=at):
                self.builder.at = at
                operands = [self.value(a)]
                operands += [self.operators.resize(self.value(each), U32, U64) for each in (b, c)]
                return self.operators.muldiv(*operands)
            case typed.ExitField(name=name):
                return self._access(name)
            case typed.Call():
                result = self._call(expr)
                assert result is not None
                return result

    def _access(self, name: str) -> str:
        """A field of `access`; a register's hypercall is an access to all of the register."""
        whole = self.handler.stands_for
        match name:
            case "size" if whole is not None:
                return str(whole.size)
            case "offset" if whole is not None:
                if whole.index is None:
                    return str(whole.offset)
                index = self.operators.resize(self.values[whole.index], U32, U64)
                beyond = self.operators.arithmetic("*", index, str(whole.stride), U64)
                return self.operators.arithmetic("+", beyond, str(whole.offset), U64)
        return self._exit_load(name)

    def _logic(self, expr: typed.Logic) -> str:
        builder = self.builder
        true, false, after = builder.label("true"), builder.label("false"), builder.label("decided")
        self.condition(expr, true, false)
        results: list[tuple[str, str]] = []
        for label, result in ((true, "true"), (false, "false")):
            builder.start(label)
            if not builder.terminated:
                results.append((result, label))
            builder.branch(after)
        builder.join(after)
        return builder.phi("i1", results)

    def _count(self, count: typed.Expr, type: Int) -> str:
        """A shift's count or a bit's number."""
        assert isinstance(count.type, Int)
        return self.operators.count(self.value(count), count.type, type)

    def _arithmetic(self, op: str, left: str, right: typed.Expr, type: Int) -> str:
        value = self._count(right, type) if op in SHIFTS else self.value(right)
        return self.operators.arithmetic(op, left, value, type)

    def _call(self, call: typed.Call) -> str | None:
        """Run a function's body here. Its names are bound anew at each call."""
        builder, function = self.builder, call.function
        at = builder.at
        arguments = [self._argument(each) for each in call.arguments]
        self.values.update(zip(function.parameters, arguments, strict=True))
        after = builder.label("returned")
        results: list[tuple[str, str]] = []
        loops, self.loops = self.loops, []
        self.returns.append((after, results))
        self.block(function.body)
        self.returns.pop()
        self.loops = loops
        builder.join(after)
        builder.at = at
        return None if call.type is None else builder.phi(llvm_type(call.type), results)

    def _argument(self, argument: typed.Expr | typed.Place) -> str:
        return self.address(argument) if isinstance(argument, typed.PLACES) else self.value(argument)


def _root(place: typed.Place) -> typed.Place:
    while isinstance(place, typed.FieldPlace | typed.ElementPlace):
        place = place.base
    return place


@dataclass(frozen=True, slots=True)
class _Effects:
    """The effects that a body may have, through its calls: the fields of the exit and the bits in them."""

    _known: dict[typed.Function, frozenset[tuple[str, int]]] = field(default_factory=dict)

    def of(self, block: typed.Block) -> frozenset[tuple[str, int]]:
        found: set[tuple[str, int]] = set()
        for each in typed.statements(block):
            match each:
                case typed.Effect(kind=EffectKind.PULSE, port=port):
                    found |= {("raise", 1 << port), ("lower", 1 << port)}
                case typed.Effect(kind=kind, port=port):
                    found.add((str(kind), 1 << port))
                case typed.ArmTimer(port=port):
                    found.add(("arm", 1 << port))
            for function in typed.called(each):
                found |= self._of_function(function)
        return frozenset(found)

    def _of_function(self, function: typed.Function) -> frozenset[tuple[str, int]]:
        if function not in self._known:
            self._known[function] = self.of(function.body)
        return self._known[function]
