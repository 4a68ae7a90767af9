"""Banks and registers: from a declaration to the handlers that answer its accesses.

A register that may be accessed in parts gets a handler for each part, with the shift and the mask of that
part as constants: what is hot stays tight. An array without gaps gets one handler for its range, and computes
its index; one with gaps gets a handler for each element. Stored registers get handlers from their declared
bits. Where banks share a list of registers, a handler answers all of them; a hypercall that does what a read
or write does has a handler of its own with the same body.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from devbc.abi import CALLS_PLACE, SIZES, AccessBinding, Op, Space
from devbc_lang import errors, syntax, typed
from devbc_lang.calls import Calls
from devbc_lang.context import Context
from devbc_lang.expressions import Expressions
from devbc_lang.source import Extent
from devbc_lang.statements import check_body
from devbc_lang.storage import BEHAVIOURS, Masks, returning, storage_read, storage_write
from devbc_lang.typed import Constant, Symbol
from devbc_lang.types import SCALARS, U32, Array, Int, Struct

#: Handlers that one register may make: an array with gaps is not meant for memory.
_MOST_HANDLERS: Final = 512
#: Offsets of one range section, as the machine's bus takes them.
_RANGE: Final = 4096
_MOST_OFFSET: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class _Shape:
    """A register as it lies in its banks; `sizes` are those of its accesses, in bytes."""

    name: str
    offset: int
    type: Int
    count: int
    stride: int
    sizes: tuple[int, ...]
    is_array: bool

    @property
    def contiguous(self) -> bool:
        """Whether one section can answer all of it: whole registers, one behind the other."""
        return self.count > 1 and self.stride == self.type.size and self.sizes == (self.type.size,)

    @property
    def partial(self) -> bool:
        return self.sizes != (self.type.size,)


@dataclass(frozen=True, slots=True)
class _Part:
    """Accesses that one handler answers: of `sizes` at `low` to `high`, `shift` bits up in the register.

    `element`: which of an array; None where the handler computes it.
    """

    low: int
    high: int
    sizes: tuple[int, ...]
    shift: int
    element: int | None


@dataclass(frozen=True, slots=True)
class _Body:
    """A handler's body, and its names for what it gets; None where it has none."""

    block: typed.Block
    index: Symbol | None
    value: Symbol | None
    mask: Symbol | None
    at: Extent


class Registers:
    def __init__(self, context: Context, calls: Calls) -> None:
        self.context = context
        self.calls = calls
        self.expressions = Expressions(context)
        self.banks: dict[str, typed.Bank] = {}
        self.registers: list[typed.Register] = []
        self.handlers: list[typed.Handler] = []
        self._bank_at: dict[str, Extent] = {}
        self._bank_size: dict[str, str] = {}
        self._register_at: dict[str, Extent] = {}

    def add(self, item: syntax.Banks) -> None:
        """Check banks with one list of registers, and the registers."""
        banks: list[typed.Bank] = []
        for bank in item.banks:
            with self.context.collecting():
                banks.append(self._bank(bank))
        occupied = _Occupied(self.context)
        for register in item.registers if banks else ():
            with self.context.collecting():
                self._register(register, banks, occupied)

    def _bank(self, bank: syntax.Bank) -> typed.Bank:
        if bank.space.text not in list(Space):
            raise self.context.unknown("address space", bank.space, [str(each) for each in Space])
        space = Space(bank.space.text)
        name = bank.name or bank.space
        if name.text == CALLS_PLACE:
            message = f"machine files call a device's hypercalls `{CALLS_PLACE}`"
            raise self.context.fault(errors.DUPLICATE, message, name.at, "this needs another name")
        if name.text in self.banks:
            raise self.context.fault(
                errors.DUPLICATE,
                f"bank `{name.text}` is declared twice",
                name.at,
                labels=[(self._bank_at[name.text], "first declared here")],
                help=() if bank.name else (f"give the second one a name: `bank {space} NAME[...]`",),
            )
        size = self.expressions.constant(bank.size, "a bank's size")
        if not 1 <= size <= _MOST_OFFSET:
            message = f"a bank has 1 to {_MOST_OFFSET:#x} bytes, not {size}"
            raise self.context.fault(errors.OUT_OF_RANGE, message, bank.size.at)
        self._bank_at[name.text] = name.at
        self._bank_size[name.text] = self.context.text(bank.size.at)
        made = self.banks[name.text] = typed.Bank(name.text, space, size)
        return made

    def _register(
        self,
        register: syntax.Register,
        banks: Sequence[typed.Bank],
        occupied: _Occupied,
    ) -> None:
        name = register.name
        if name.text in self._register_at:
            labels = [(self._register_at[name.text], "first declared here")]
            message = f"register `{name.text}` is declared twice"
            raise self.context.fault(errors.DUPLICATE, message, name.at, labels=labels)
        shape = self._shape(register)
        for bank in banks:
            self._check_inside(register, shape, bank)
        self._register_at[name.text] = name.at
        self.registers += [
            typed.Register(shape.name, bank.name, shape.offset, shape.type.size, shape.count, shape.stride)
            for bank in banks
        ]
        parts = len(banks) * sum(1 for _ in _parts(shape, -1))
        if parts > _MOST_HANDLERS:
            message = f"register `{shape.name}` needs {parts:,} handlers, and may have {_MOST_HANDLERS}"
            help = ("an array without gaps, accessed as a whole, needs one",)
            raise self.context.fault(errors.TOO_LARGE, message, name.at, help=help)
        read, write = self._bodies(register, shape)
        if read is not None:
            occupied.add(shape, Op.READ, register)
        if write is not None:
            occupied.add(shape, Op.WRITE, register)
        if read is not None:
            for part in _parts(shape, 0):
                self._add(shape, part, Op.READ, banks, read)
        if write is not None:
            relevant = 0 if write.mask is None else typed.relevant_bits(write.block, write.mask)
            for part in _parts(shape, relevant):
                self._add(shape, part, Op.WRITE, banks, write)
        seen: set[str] = set()
        for called in register.calls:
            with self.context.collecting():
                if called.op in seen:
                    message = f"`call {called.op}` is declared twice"
                    raise self.context.fault(errors.DUPLICATE, message, called.at)
                seen.add(called.op)
                self._call(shape, called, read if called.op == Op.READ else write)

    def _call(self, shape: _Shape, called: syntax.Called, body: _Body | None) -> None:
        """The hypercall of a register: its arguments are what the handler names, an index and a value."""
        if body is None:
            message = f"register `{shape.name}` has no `{called.op}` to be called"
            help = (f"what userspace answers needs no declaration: leave out `{called.op}` here",)
            raise self.context.fault(errors.BAD_CALL, message, called.at, help=help)
        binding = self.calls.claim(called.number, f"{shape.name}.{called.op}")
        index, value = body.index, body.value
        if shape.is_array and index is None:
            index = Symbol("i", U32, called.at, bound=shape.count - 1)
        if called.op == Op.WRITE and value is None:
            value = Symbol("v", shape.type, called.at)
        arguments = [each for each in (index, value) if each is not None]
        parameters: list[typed.HandlerParameter] = [
            typed.ArgumentParameter(symbol, number) for number, symbol in enumerate(arguments)
        ]
        if body.mask is not None:
            parameters.append(typed.FixedParameter(body.mask, shape.type.most))
        self.handlers.append(
            typed.Handler(
                name=f"call_{shape.name}_{called.op}",
                bindings=(binding,),
                parameters=tuple(parameters),
                answer=typed.Answer(shape.type, 0) if called.op == Op.READ else None,
                body=body.block,
                at=body.at,
                stands_for=typed.WholeAccess(shape.offset, shape.type.size, shape.stride, index),
            )
        )

    # --- where it lies ---

    def _shape(self, register: syntax.Register) -> _Shape:
        constant = self.expressions.constant
        type = self._type(register.type)
        offset = constant(register.offset, "an offset")
        count = constant(register.count, "the number of registers") if register.count else 1
        stride = constant(register.stride, "a stride") if register.stride else type.size
        if register.count and not 1 <= count <= _RANGE:
            message = f"an array has 1 to {_RANGE} registers, not {count}"
            raise self.context.fault(errors.OUT_OF_RANGE, message, register.count.at)
        if register.stride and register.count is None:
            message = "a stride is for an array of registers"
            help = (f"give it a number of registers: `{register.name.text}[2]`",)
            raise self.context.fault(errors.BAD_REGISTER, message, register.stride.at, help=help)
        if register.stride and stride < type.size:
            message = f"registers of {type.size} bytes cannot stand {stride} apart"
            raise self.context.fault(errors.BAD_REGISTER, message, register.stride.at)
        if offset < 0:
            message = f"register `{register.name.text}` lies before its bank"
            raise self.context.fault(errors.OUT_OF_RANGE, message, register.offset.at)
        sizes = tuple(sorted(self._sizes(register, type))) or (type.size,)
        return _Shape(
            register.name.text, offset, type, count, stride, sizes, register.count is not None
        )  # fmt: skip

    def _check_inside(self, register: syntax.Register, shape: _Shape, bank: typed.Bank) -> None:
        end = shape.offset + shape.stride * (shape.count - 1) + shape.type.size
        if end > bank.size:
            raise self.context.fault(
                errors.OUT_OF_RANGE,
                f"register `{shape.name}` lies beyond its bank",
                register.offset.at,
                f"its last byte is at {self.context.in_base_of(end - 1, register.offset.at)}",
                labels=[(self._bank_at[bank.name], f"the bank has {self._bank_size[bank.name]} bytes")],
            )

    def _type(self, type: syntax.TypeExpr) -> Int:
        found = SCALARS.get(type.text) if isinstance(type, syntax.Name) else None
        if not isinstance(found, Int) or found.signed:
            message = "a register is `u8`, `u16`, `u32` or `u64`"
            raise self.context.fault(errors.BAD_REGISTER, message, type.at)
        return found

    def _sizes(self, register: syntax.Register, type: Int) -> Iterator[int]:
        seen: set[int] = set()
        for expr in register.access:
            size = self.expressions.constant(expr, "the size of an access")
            if size not in SIZES or size > type.size:
                options = ", ".join(str(each) for each in SIZES if each <= type.size)
                message = f"`{type}` has no accesses of {size} bytes"
                raise self.context.fault(errors.BAD_REGISTER, message, expr.at, f"may be {options}")
            if size in seen:
                message = f"accesses of {size} bytes are declared twice"
                raise self.context.fault(errors.DUPLICATE, message, expr.at)
            seen.add(size)
            yield size

    # --- what it does ---

    def _bodies(self, register: syntax.Register, shape: _Shape) -> tuple[_Body | None, _Body | None]:
        """The bodies of its read and its write handler."""
        members: dict[str, syntax.RegisterMember] = {}
        bits: list[syntax.Bits] = []
        for member in register.members:
            match member:
                case syntax.Bits():
                    bits.append(member)
                    continue
                case syntax.Read():
                    kind = "read"
                case syntax.Write() | syntax.WriteIgnore():
                    kind = "write"
            if kind in members:
                message = f"`{kind}` is declared twice"
                labels = [(members[kind].at, "first declared here")]
                raise self.context.fault(errors.DUPLICATE, message, member.at, labels=labels)
            members[kind] = member
        if bits and register.place is None:
            message = "`bits` describes a register that is stored"
            help = ("say where: `in state.x`",)
            raise self.context.fault(errors.BAD_REGISTER, message, bits[0].at, help=help)
        if register.value is not None and register.place is not None:
            message = "a register is a constant or stored, not both"
            raise self.context.fault(errors.BAD_REGISTER, message, register.place.at)
        if register.place is not None:
            return self._storage(register, register.place, shape, members, bits)
        if register.value is not None:
            return self._constant(register, register.value, shape, members), self._write(members, shape)
        if not members:
            message = f"register `{shape.name}` answers nothing"
            help = ("give it a `read` or a `write`, a constant value, or a place: `in state.x`",)
            raise self.context.fault(errors.EMPTY, message, register.name.at, help=help)
        return self._read(members, shape), self._write(members, shape)

    def _read(self, members: dict[str, syntax.RegisterMember], shape: _Shape) -> _Body | None:
        read = members.get("read")
        if not isinstance(read, syntax.Read):
            return None
        (index,) = self._symbols(read.parameters, shape, [] if shape.is_array else None)
        what = f"the read of `{shape.name}`"
        block = check_body(self.context, read.body, [index], shape.type, what=what)
        return _Body(block, index, None, None, read.at)

    def _write(self, members: dict[str, syntax.RegisterMember], shape: _Shape) -> _Body | None:
        write = members.get("write")
        if isinstance(write, syntax.WriteIgnore):
            return _Body(typed.Block((), True), None, None, None, write.at)
        if not isinstance(write, syntax.Write):
            return None
        index, value, mask = self._symbols(write.parameters, shape, ["v", "mask"])
        what = f"the write of `{shape.name}`"
        block = check_body(self.context, write.body, [index, value, mask], None, what=what)
        if shape.partial and value is not None and value.used and mask is None:
            self.context.report(
                self.context.fault(
                    errors.NO_MASK,
                    f"`{shape.name}` is written in parts, and its write takes no mask",
                    value.at,
                    "some bits of this may not have been written",
                    help=(
                        f"take the mask of the written bits: `write({value.name}, mask) {{ "
                        f"state.x = state.x & ~mask | {value.name} & mask; }}`",
                    ),
                )
            )
        return _Body(block, index, value, mask, write.at)

    def _symbols(
        self, names: Sequence[syntax.Name], shape: _Shape, others: list[str] | None
    ) -> list[Symbol | None]:
        """Parameters of a handler: the index of an array's register, then `others`."""
        wanted = [*(["i"] if shape.is_array else []), *(others or [])]
        if len(names) > len(wanted):
            takes = f"`({', '.join(wanted)})`" if wanted else "none"
            message = "a handler gets no such parameter"
            raise self.context.fault(
                errors.ARGUMENT_COUNT, message, names[len(wanted)].at, f"this one takes {takes}"
            )
        made: list[Symbol | None] = [] if shape.is_array else [None]
        seen: dict[str, Extent] = {}
        for position, name in enumerate(names):
            if name.text in seen:
                message = f"parameter `{name.text}` is declared twice"
                raise self.context.fault(errors.DUPLICATE, message, name.at)
            seen[name.text] = name.at
            if shape.is_array and position == 0:
                made.append(Symbol(name.text, U32, name.at, bound=shape.count - 1))
            else:
                made.append(Symbol(name.text, shape.type, name.at))
        return made + [None] * (1 + len(others or []) - len(made))

    def _constant(
        self,
        register: syntax.Register,
        value: syntax.Expr,
        shape: _Shape,
        members: dict[str, syntax.RegisterMember],
    ) -> _Body:
        if "read" in members:
            message = "a register with a constant value has no `read`"
            labels = [(value.at, "this is what is read")]
            raise self.context.fault(errors.BAD_REGISTER, message, members["read"].at, labels=labels)
        checked = self.expressions.value(value, shape.type)
        if not isinstance(checked, Constant):
            message = "the value of a register without `read` must be a constant"
            help = ("`in state.x` stores it; `read { return ...; }` computes it",)
            raise self.context.fault(errors.NOT_CONSTANT, message, value.at, help=help)
        return _Body(returning(checked, value.at), None, None, None, value.at)

    # --- storage ---

    def _storage(
        self,
        register: syntax.Register,
        place: syntax.Expr,
        shape: _Shape,
        members: dict[str, syntax.RegisterMember],
        bits: list[syntax.Bits],
    ) -> tuple[_Body, _Body]:
        for kind, member in members.items():
            if not isinstance(member, syntax.WriteIgnore):
                message = f"a stored register has no `{kind}`: its bits say what it does"
                labels = [(place.at, "stored here")]
                raise self.context.fault(errors.BAD_REGISTER, message, member.at, labels=labels)
        index = None
        if shape.is_array:
            index = Symbol("i", U32, register.name.at, bound=shape.count - 1, used=True)
        where = self._stored_at(place, shape, index)
        masks = self._bit_masks(bits, shape.type)
        ignored = members.get("write")
        if ignored is not None:
            masks = replace(masks, written=0, cleared_by_one=0)
        at = register.at
        value = Symbol("v", shape.type, at, used=bool(masks.written | masks.cleared_by_one))
        mask = Symbol("mask", shape.type, at, used=value.used) if shape.partial else None
        read = storage_read(where, shape.type, masks, at)
        write = storage_write(where, shape.type, masks, value, mask, at)
        return _Body(read, index, None, None, at), _Body(write, index, value, mask, at)

    def _stored_at(self, expr: syntax.Expr, shape: _Shape, index: Symbol | None) -> typed.Place:
        place = self.expressions.place(expr)
        if index is not None and isinstance(place.type, Array) and place.type.count == shape.count:
            place = typed.ElementPlace(place, typed.Variable(index, U32), place.type.element)
        elif index is not None:
            message = f"{shape.count} registers are stored in an array of as many, not in `{place.type}`"
            raise self.context.fault(errors.TYPE_MISMATCH, message, expr.at)
        if place.type != shape.type:
            message = f"a register of `{shape.type}` cannot be stored in `{place.type}`"
            kind = "structure" if isinstance(place.type, Struct) else "place"
            help = (f"the {kind} must have the register's type",)
            raise self.context.fault(errors.TYPE_MISMATCH, message, expr.at, help=help)
        return place

    def _bit_masks(self, bits: list[syntax.Bits], type: Int) -> Masks:
        if not bits:
            return Masks(type.most, type.most, 0, 0)
        masks = dict.fromkeys(BEHAVIOURS, 0)
        named = 0
        for each in bits:
            behaviour = each.behaviour
            if behaviour.text not in BEHAVIOURS:
                raise self.context.unknown("behaviour of bits", behaviour, BEHAVIOURS)
            high = self.expressions.constant(each.high, "a bit's number")
            low = self.expressions.constant(each.low, "a bit's number") if each.low else high
            if not 0 <= low <= high < type.bits:
                message = f"`{type}` has no bits {high}:{low}"
                raise self.context.fault(errors.OUT_OF_RANGE, message, each.high.at)
            mask = (1 << high + 1) - (1 << low)
            if mask & named:
                message = "a bit has two behaviours"
                twice = (mask & named).bit_length() - 1
                raise self.context.fault(errors.DUPLICATE, message, each.at, f"bit {twice} has one already")
            named |= mask
            masks[behaviour.text] |= mask
        return Masks(
            readable=type.most & ~masks["wo"],
            written=masks["rw"] | masks["wo"],
            cleared_by_one=masks["w1c"],
            cleared_by_read=masks["rc"],
        )

    # --- handlers ---

    def _add(self, shape: _Shape, part: _Part, op: Op, banks: Sequence[typed.Bank], body: _Body) -> None:
        parameters: list[typed.HandlerParameter] = []
        if body.index is not None:
            if part.element is None:
                parameters.append(typed.IndexParameter(body.index, shape.offset, shape.type.size))
            else:
                parameters.append(typed.FixedParameter(body.index, part.element))
        if body.value is not None:
            parameters.append(typed.ValueParameter(body.value, part.shift))
        if body.mask is not None:
            parameters.append(typed.FixedParameter(body.mask, _mask(max(part.sizes), part.shift)))
        bindings = tuple(
            AccessBinding(bank.space, bank.name, op, part.low, part.high, part.sizes) for bank in banks
        )
        answer = typed.Answer(shape.type, part.shift) if op is Op.READ else None
        name = _handler_name(shape, part, op)
        self.handlers.append(typed.Handler(name, bindings, tuple(parameters), answer, body.block, body.at))


class _Occupied:
    """Who answers what in a list of registers: an interval of offsets for each operation."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._intervals: dict[Op, list[tuple[int, int, str, Extent]]] = {op: [] for op in Op}

    def add(self, shape: _Shape, op: Op, register: syntax.Register) -> None:
        """Record the bytes that a register answers, and refuse those that another one answers."""
        intervals = self._intervals[op]
        for element in range(shape.count):
            low = shape.offset + element * shape.stride
            high = low + shape.type.size
            for other_low, other_high, other, at in intervals:
                if other != shape.name and low < other_high and other_low < high:
                    byte = self.context.in_base_of(max(low, other_low), register.offset.at)
                    raise self.context.fault(
                        errors.OVERLAP,
                        f"registers `{other}` and `{shape.name}` overlap",
                        register.name.at,
                        f"both answer a {op} at {byte}",
                        labels=[(at, f"`{other}` is declared here")],
                    )
            if shape.stride == shape.type.size and element:
                intervals.pop()  # one interval for registers without gaps
                low = shape.offset
            intervals.append((low, high, shape.name, register.name.at))


def _handler_name(shape: _Shape, part: _Part, op: Op) -> str:
    """A function's name: short where a register has one handler of the kind."""
    name = f"{shape.name}_{op}"
    if not shape.contiguous and (shape.count > 1 or shape.partial):
        name += f"_{part.low:x}"
        if shape.partial and len(part.sizes) == 1:
            name += f"_{part.sizes[0]}"
    return name


def _mask(size: int, shift: int) -> int:
    """The bits of a register that an access of `size` bytes reaches, `shift` bits up in it."""
    return (1 << 8 * size) - 1 << shift


def _parts(shape: _Shape, relevant: int) -> Iterator[_Part]:
    """The sections that answer a register.

    Accesses to the same first byte share a handler, unless they reach different ones of the relevant bits.
    """
    size = shape.type.size
    if shape.contiguous:
        step = _RANGE // size
        for first in range(0, shape.count, step):
            last = min(first + step, shape.count) - 1
            yield _Part(shape.offset + first * size, shape.offset + last * size, shape.sizes, 0, None)
        return
    for element in range(shape.count):
        base = shape.offset + element * shape.stride
        for byte in range(size):
            groups: dict[int, tuple[int, ...]] = {}
            for each in shape.sizes:
                if byte % each == 0:
                    reached = _mask(each, 8 * byte) & relevant
                    groups[reached] = (*groups.get(reached, ()), each)
            for sizes in groups.values():
                yield _Part(base + byte, base + byte, sizes, 8 * byte, element)
