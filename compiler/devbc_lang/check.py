"""From the syntax tree to the typed tree: a device's declarations, its functions, its handlers.

All faults of a text are collected, across declarations and statements; if there are any, all of them are
raised together. Constants and structures are declared before they are used; functions in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from devbc.abi import EXIT_FIELDS, LineBinding, TimerBinding
from devbc.diagnostics import Diagnostic, Rejected, Severity
from devbc_lang import errors, syntax, typed
from devbc_lang.calls import Calls
from devbc_lang.context import Context, Fault, Meaning, Port
from devbc_lang.expressions import Expressions
from devbc_lang.registers import Registers
from devbc_lang.source import Extent, Source
from devbc_lang.statements import check_body
from devbc_lang.syntax import PortKind
from devbc_lang.typed import Symbol
from devbc_lang.types import BOOL, SCALARS, U64, Array, Bool, Int, Scalar, Struct, Type, lay_out

#: Ports of a kind: bits of an effect's mask, slots of deadlines.
_PORTS: Final = {
    PortKind.LINE: 8 * EXIT_FIELDS["raise"].size,
    PortKind.INPUT: 8 * EXIT_FIELDS["raise"].size,
    PortKind.SIGNAL: 8 * EXIT_FIELDS["signal"].size,
    PortKind.TIMER: EXIT_FIELDS["deadline"].count,
}
#: Names that declarations cannot take.
_TAKEN: Final = frozenset({*SCALARS, "state", "now", "muldiv", "min", "max", "_"})
#: No array is longer: the shared area is far smaller.
_LONGEST: Final = 1 << 20


def check(device: syntax.Device, source: Source) -> tuple[typed.Device, tuple[Diagnostic, ...]]:
    """The typed device and warnings about it. Raises Rejected with every fault."""
    checker = _Checker(Context(source))
    checked = checker.device(device)
    found = sorted(checker.context.diagnostics, key=_place)
    faults = [each for each in found if each.severity is Severity.ERROR]
    if faults:
        raise Rejected(*faults)
    return checked, tuple(found)


def _place(diagnostic: Diagnostic) -> tuple[int, int]:
    return (diagnostic.span.line, diagnostic.span.column) if diagnostic.span else (0, 0)


class _Checker:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.expressions = Expressions(context)
        self.expressions.constant_only = True
        self.reset: dict[int, bytes] = {}
        self.state_at: Extent | None = None

    def device(self, device: syntax.Device) -> typed.Device:
        context = self.context
        ports: dict[PortKind, list[str]] = {kind: [] for kind in PortKind}
        signatures: list[tuple[syntax.Function, typed.Function]] = []
        for item in device.items:
            with context.collecting():
                match item:
                    case syntax.Const():
                        self._declare(item.name, partial(self._const, item))
                    case syntax.Port():
                        self._declare(item.name, partial(self._port, item, ports))
                    case syntax.StructDecl():
                        self._declare(item.name, partial(self._struct, item))
                    case syntax.State():
                        self._state(item)
        if context.state is None and self.state_at is None:
            context.state = typed.NO_STATE
        for item in device.items:
            if isinstance(item, syntax.Function):
                with context.collecting():
                    self._declare(item.name, partial(self._signature, item, signatures))
        for declaration, function in signatures:
            function.body = check_body(
                context,
                declaration.body,
                function.parameters,
                function.result,
                what=f"function `{function.name}`",
                function=function,
            )
        self._refuse_recursion()
        calls = Calls(context)
        registers = Registers(context, calls)
        for item in device.items:
            with context.collecting():
                match item:
                    case syntax.Banks():
                        registers.add(item)
                    case syntax.Hypercall():
                        calls.add(item)
        handlers = [*registers.handlers, *calls.handlers, *self._port_handlers(device)]
        if not handlers and not context.diagnostics:
            message = f"device `{device.name.text}` answers nothing"
            help = ("a register with a `read` or `write` makes a handler",)
            context.report(context.fault(errors.EMPTY, message, device.name.at, help=help))
        for _, function in signatures:
            if not function.used:
                context.warn(errors.UNUSED, f"function `{function.name}` is never called", function.at)
        return typed.Device(
            name=device.name.text,
            ports={kind: tuple(names) for kind, names in ports.items()},
            state=context.state or typed.NO_STATE,
            state_at=self.state_at or device.name.at,
            reset=self.reset,
            tables=tuple(it.meaning for it in context.names.values() if isinstance(it.meaning, typed.Table)),
            banks=tuple(registers.banks.values()),
            registers=tuple(registers.registers),
            calls=calls.names,
            handlers=tuple(handlers),
        )

    def _declare(self, name: syntax.Name, make: Callable[[], Meaning]) -> None:
        """Declare a name by what makes its meaning; uses of one whose declaration is faulty are silent."""
        if name.text in _TAKEN:
            message = f"`{name.text}` is a word of the language"
            raise self.context.fault(errors.DUPLICATE, message, name.at, "this needs another name")
        try:
            made: Meaning | None = make()
        except Fault as fault:
            self.context.report(fault)
            made = None
        self.context.declare(name, made)

    # --- constants, ports, types ---

    def _const(self, const: syntax.Const) -> typed.Constant | typed.Table:
        wanted = self._type(const.type) if const.type else None
        match wanted:
            case Array():
                values = self._list(const.value, wanted, const.at)
                return typed.Table(const.name.text, wanted, tuple(values))
            case Struct():
                message = "a constant is a number, a `bool` or an array of them"
                raise self.context.fault(errors.TYPE_MISMATCH, message, const.name.at)
            case None:
                if isinstance(const.value, syntax.List):
                    message = "the type of this array is not known"
                    help = ("give the constant a type: `const NAME: [u8; 4] = ...;`",)
                    raise self.context.fault(errors.TYPE_NEEDED, message, const.value.at, help=help)
                return self._known(self.expressions.infer(const.value), const.value)
            case _:
                return self._scalar(const.value, wanted)

    def _known(self, value: typed.Expr, expr: syntax.Expr) -> typed.Constant:
        if not isinstance(value, typed.Constant):
            message = "a constant's value must be known at compile time"
            raise self.context.fault(errors.NOT_CONSTANT, message, expr.at)
        return value

    def _scalar(self, value: syntax.Initial, type: Scalar) -> typed.Constant:
        if isinstance(value, syntax.List):
            raise self.context.fault(errors.TYPE_MISMATCH, f"expected `{type}`, found an array", value.at)
        return self._known(self.expressions.value(value, type), value)

    def _list(self, value: syntax.Initial, type: Array, at: Extent) -> Iterator[int]:
        """The scalars of an array's value, in order."""
        if not isinstance(value, syntax.List):
            help = ("an array's value is a list: `[1, 2, 3]`",)
            raise self.context.fault(errors.TYPE_MISMATCH, f"expected `{type}`", at, help=help)
        if len(value.elements) != type.count:
            message = f"`{type}` has {type.count} elements, and {len(value.elements)} are given"
            raise self.context.fault(errors.OUT_OF_RANGE, message, value.at)
        for element in value.elements:
            match type.element:
                case Array():
                    yield from self._list(element, type.element, element.at)
                case Bool() | Int():
                    yield self._scalar(element, type.element).value
                case Struct():
                    message = "structures have no values"
                    raise self.context.fault(errors.TYPE_MISMATCH, message, element.at)

    def _port(self, port: syntax.Port, ports: dict[PortKind, list[str]]) -> Port:
        names = ports[port.kind]
        if len(names) == _PORTS[port.kind]:
            message = f"a device has at most {_PORTS[port.kind]} {port.kind}s"
            raise self.context.fault(errors.OUT_OF_RANGE, message, port.at)
        names.append(port.name.text)
        return Port(port.kind, len(names) - 1)

    def _type(self, type: syntax.TypeExpr) -> Type:
        match type:
            case syntax.Name(text=text) if text in SCALARS:
                return SCALARS[text]
            case syntax.Name():
                structs = [name for name, it in self.context.names.items() if isinstance(it.meaning, Struct)]
                declared = self.expressions.declared(type, "type", [*SCALARS, *structs])
                if not isinstance(declared.meaning, Struct):
                    message = f"`{type.text}` is not a type"
                    labels = [(declared.at, "declared here")]
                    raise self.context.fault(errors.NOT_A_TYPE, message, type.at, labels=labels)
                return declared.meaning
            case syntax.ArrayType(element=element, count=count):
                number = self.expressions.constant(count, "an array's length")
                if not 1 <= number <= _LONGEST:
                    message = f"an array has 1 to {_LONGEST:,} elements, not {number}"
                    raise self.context.fault(errors.OUT_OF_RANGE, message, count.at)
                made = Array(self._type(element), number)
                if made.size > _LONGEST:
                    message = f"an array has at most {_LONGEST:,} bytes, not {made.size:,}"
                    raise self.context.fault(errors.OUT_OF_RANGE, message, type.at)
                return made
            case syntax.ReferenceType():
                message = "only parameters can be references"
                raise self.context.fault(errors.BAD_REFERENCE, message, type.at)

    def _struct(self, struct: syntax.StructDecl) -> Struct:
        for field in struct.fields:
            if field.reset is not None:
                message = "the fields of a structure have no reset values"
                help = ("only those of `state` do",)
                raise self.context.fault(errors.TYPE_MISMATCH, message, field.reset.at, help=help)
        if not struct.fields:
            message = f"structure `{struct.name.text}` has no fields"
            raise self.context.fault(errors.EMPTY, message, struct.name.at)
        return lay_out(struct.name.text, self._members(struct.fields))

    def _members(self, fields: tuple[syntax.FieldDecl, ...]) -> list[tuple[str, Type]]:
        seen: dict[str, Extent] = {}
        members: list[tuple[str, Type]] = []
        for field in fields:
            name = field.name.text
            if name in seen:
                message = f"field `{name}` is declared twice"
                labels = [(seen[name], "first declared here")]
                raise self.context.fault(errors.DUPLICATE, message, field.name.at, labels=labels)
            seen[name] = field.name.at
            members.append((name, self._type(field.type)))
        return members

    def _state(self, state: syntax.State) -> None:
        if self.state_at is not None:
            labels = [(self.state_at, "the first one is here")]
            at = Extent(state.at.start, state.at.start + len("state"))
            raise self.context.fault(errors.DUPLICATE, "`state` is declared twice", at, labels=labels)
        self.state_at = Extent(state.at.start, state.at.start + len("state"))
        layout = lay_out("state", self._members(state.fields))
        if layout.size > _LONGEST:
            message = f"`state` has {layout.size:,} bytes, and may have {_LONGEST:,}"
            raise self.context.fault(errors.OUT_OF_RANGE, message, self.state_at)
        self.context.state = layout
        for declared, field in zip(state.fields, layout.fields, strict=True):
            with self.context.collecting():
                self._reset(declared.reset, field.type, field.offset)

    def _reset(self, value: syntax.Initial | None, type: Type, offset: int) -> None:
        match type:
            case _ if value is None:
                return
            case Bool() | Int():
                self.reset[offset] = _image(self._scalar(value, type).value, type)
            case Array():
                scalar = _innermost(type)
                if isinstance(scalar, Struct):
                    message = "arrays of structures have no reset values"
                    raise self.context.fault(errors.TYPE_MISMATCH, message, value.at)
                for index, each in enumerate(self._list(value, type, value.at)):
                    self.reset[offset + index * scalar.size] = _image(each, scalar)
            case Struct():
                message = "structures have no reset values"
                help = ("they begin as 0; let the monitor write other values",)
                raise self.context.fault(errors.TYPE_MISMATCH, message, value.at, help=help)

    # --- functions ---

    def _signature(
        self, declaration: syntax.Function, signatures: list[tuple[syntax.Function, typed.Function]]
    ) -> typed.Function:
        seen: dict[str, Symbol] = {}
        for parameter in declaration.parameters:
            name = parameter.name
            if name.text in seen:
                message = f"parameter `{name.text}` is declared twice"
                labels = [(seen[name.text].at, "first declared here")]
                raise self.context.fault(errors.DUPLICATE, message, name.at, labels=labels)
            seen[name.text] = self._parameter(parameter)
        result = None
        if declaration.result is not None:
            found = self._type(declaration.result)
            if not isinstance(found, Bool | Int):
                message = "a function returns a scalar"
                raise self.context.fault(errors.TYPE_MISMATCH, message, declaration.result.at)
            result = found
        name = declaration.name
        function = typed.Function(name.text, tuple(seen.values()), result, name.at)
        signatures.append((declaration, function))
        return function

    def _parameter(self, parameter: syntax.Parameter) -> Symbol:
        name, type = parameter.name, parameter.type
        if isinstance(type, syntax.ReferenceType):
            return Symbol(name.text, self._type(type.target), name.at, reference=True)
        found = self._type(type)
        if not isinstance(found, Bool | Int):
            text = self.context.source.text[type.at.start : type.at.end]
            message = f"a `{found}` cannot be given by value"
            help = (f"take a reference to it: `&{text}`",)
            raise self.context.fault(errors.TYPE_MISMATCH, message, type.at, help=help)
        return Symbol(name.text, found, name.at)

    def _refuse_recursion(self) -> None:
        """Functions run in place of their calls, so none may come to call itself."""
        calls = self.context.calls
        done: set[typed.Function] = set()

        def visit(function: typed.Function, path: list[typed.Function]) -> None:
            if function in done:
                return
            for callee, at in calls.get(function, []):
                if callee in path:
                    cycle = [*path[path.index(callee) :], callee]
                    shown = " calls ".join(f"`{each.name}`" for each in cycle)
                    notes = [shown] if len(cycle) > 2 else []
                    message = f"`{callee.name}` comes to call itself"
                    done.update(path)  # a cycle is reported once
                    raise self.context.fault(
                        errors.RECURSION, message, at, "this call leads back", notes=notes,
                        help=["every run must be bounded: use a `for` with constant bounds"],
                    )  # fmt: skip
                visit(callee, [*path, callee])
            done.add(function)

        for function in calls:
            with self.context.collecting():
                visit(function, [function])

    # --- timers and lines ---

    def _port_handlers(self, device: syntax.Device) -> list[typed.Handler]:
        handlers: list[typed.Handler] = []
        seen: dict[str, Extent] = {}
        for item in device.items:
            if isinstance(item, syntax.On):
                with self.context.collecting():
                    if item.port.text in seen:
                        message = f"`on {item.port.text}` is declared twice"
                        labels = [(seen[item.port.text], "first declared here")]
                        raise self.context.fault(errors.DUPLICATE, message, item.at, labels=labels)
                    seen[item.port.text] = item.at
                    handlers.append(self._on(item))
        return handlers

    def _on(self, on: syntax.On) -> typed.Handler:
        candidates = [
            name
            for name, it in self.context.names.items()
            if isinstance(it.meaning, Port) and it.meaning.kind in (PortKind.TIMER, PortKind.INPUT)
        ]
        declared = self.expressions.declared(on.port, "timer or input", candidates)
        port = declared.meaning
        if not isinstance(port, Port) or port.kind not in (PortKind.TIMER, PortKind.INPUT):
            message = f"`on` takes a timer or an input, and `{on.port.text}` is none"
            labels = [(declared.at, "declared here")]
            raise self.context.fault(errors.WRONG_PORT, message, on.port.at, labels=labels)
        is_timer = port.kind is PortKind.TIMER
        parameters: tuple[typed.HandlerParameter, ...] = ()
        symbols: list[Symbol] = []
        if on.parameter is not None:
            symbol = Symbol(on.parameter.text, U64 if is_timer else BOOL, on.parameter.at)
            symbols.append(symbol)
            parameters = (typed.ValueParameter(symbol),)
        body = check_body(self.context, on.body, symbols, None, what=f"`on {on.port.text}`")
        binding = TimerBinding(on.port.text) if is_timer else LineBinding(on.port.text)
        return typed.Handler(f"on_{on.port.text}", (binding,), parameters, None, body, on.at)


def _innermost(type: Type) -> Type:
    while isinstance(type, Array):
        type = type.element
    return type


def _image(value: int, type: Type) -> bytes:
    """A value as it lies in memory."""
    return (value & (1 << 8 * type.size) - 1).to_bytes(type.size, "little")
