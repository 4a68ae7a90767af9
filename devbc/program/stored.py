"""A verified program as bytes, and back: what the cache keeps of a proof.

MessagePack by msgspec, which checks every type while it decodes: bytes of any other shape give None, never an
object that is half right. Nothing in an entry is code or names a class. What is equal is said once (source
places, access facts), and instructions are not stored at all: they are decoded from the byte code when
someone first asks, which the bus and the reports never do.

Held true: `unpack(pack(program))` equals `program` in all that is proven and all that is shown.

Not here: whether to believe an entry. Bytes of the right shape are believed; whose they may be is
`devbc.cache`'s matter.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Final, Generic, TypeVar

import msgspec

from devbc.abi import Helper, parse_binding
from devbc.diagnostics import Span
from devbc.isa.insn import Insn, decode
from devbc.program.program import Bank, Function, Handler, Names, Program, Register
from devbc.program.scratch_type import packed
from devbc.program.verified import (
    AccessFact,
    ByteRange,
    HandlerClass,
    Region,
    VerifiedHandler,
    VerifiedProgram,
)

K = TypeVar("K")
V = TypeVar("V")

_SIMPLE: Final[Mapping[str, type[Any]]] = {
    each.__name__: each
    for each in (
        ctypes.c_bool, ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64,
        ctypes.c_int8, ctypes.c_int16, ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_double,
    )
}  # fmt: skip


class _Array(msgspec.Struct, frozen=True, array_like=True, tag="array"):
    element: int
    count: int


class _Simple(msgspec.Struct, frozen=True, array_like=True, tag="simple"):
    name: str


class _Composite(msgspec.Struct, frozen=True, array_like=True, tag="composite"):
    """A structure or union as ctypes has it, gaps included; types by their number in the table."""

    name: str
    union: bool
    anonymous: tuple[str, ...]
    fields: tuple[tuple[str, int], ...]


class _Handler(msgspec.Struct, frozen=True, array_like=True):
    """A verified handler. `lines`: spans by slot, `accesses`: facts by slot, as numbers in the tables."""

    section: str
    code: bytes
    functions: tuple[Function, ...]
    lines: dict[int, int]
    reached: tuple[int, ...]
    accesses: dict[int, int]
    worst_case: int
    stack_bytes: int
    handler_class: HandlerClass
    may_decline: bool
    may_handle: bool
    scratch_read: tuple[ByteRange, ...]
    scratch_written: tuple[ByteRange, ...]
    effects: frozenset[str]
    helpers: frozenset[Helper]


class _Program(msgspec.Struct, frozen=True, array_like=True):
    """The last of `types` is the shared area's."""

    device: str
    scratch_image: bytes
    rodata: bytes
    names: Names
    banks: tuple[Bank, ...]
    registers: tuple[Register, ...]
    types: tuple[_Simple | _Array | _Composite, ...]
    spans: tuple[tuple[str, int, int, int, str], ...]
    facts: tuple[tuple[Region | None, int | None], ...]
    handlers: tuple[_Handler, ...]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Program)


def pack(program: VerifiedProgram) -> bytes:
    """The bytes that stand for a verified program."""
    source = program.program
    spans, facts, types = _Table[Span](), _Table[AccessFact](), _Types()
    if source.scratch_type is not None:
        types.add(source.scratch_type)
    handlers = tuple(
        _Handler(
            section=each.handler.section,
            code=each.handler.code,
            functions=each.handler.functions,
            lines={slot: spans.add(span) for slot, span in each.handler.lines.items()},
            reached=tuple(each.insns),
            accesses={slot: facts.add(fact) for slot, fact in each.accesses.items()},
            **{name: getattr(each, name) for name in _PROVEN},
        )
        for each in program.handlers
    )
    return _ENCODER.encode(
        _Program(
            device=source.device,
            scratch_image=source.scratch_image,
            rodata=source.rodata,
            names=source.names,
            banks=source.banks,
            registers=source.registers,
            types=tuple(types.described),
            spans=tuple(
                (each.file, each.line, each.column, each.end_column, each.text) for each in spans.rows
            ),
            facts=tuple((each.region, each.offset) for each in facts.rows),
            handlers=handlers,
        )
    )


def unpack(data: bytes) -> VerifiedProgram | None:
    """The program that bytes stand for; None if they are not `pack`'s."""
    try:
        stored = _DECODER.decode(data)
        return _restored(stored)
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _restored(stored: _Program) -> VerifiedProgram:
    spans = [Span(*each) for each in stored.spans]
    facts = [AccessFact(*each) for each in stored.facts]
    handlers = tuple(_handler(each, spans, facts) for each in stored.handlers)
    types = _ctypes(stored.types)
    program = Program(
        device=stored.device,
        handlers=tuple(each.handler for each in handlers),
        scratch_image=stored.scratch_image,
        rodata=stored.rodata,
        names=stored.names,
        banks=stored.banks,
        registers=stored.registers,
        scratch_type=types[-1] if types else None,
    )
    return VerifiedProgram(program, handlers)


def _handler(stored: _Handler, spans: list[Span], facts: list[AccessFact]) -> VerifiedHandler:
    binding = parse_binding(stored.section)
    if isinstance(binding, str):
        raise ValueError(binding)
    lines = {slot: spans[number] for slot, number in stored.lines.items()}
    code, reached = stored.code, stored.reached

    def instructions() -> dict[int, Insn]:
        insns = decode(code, name=stored.section)
        return {slot: insns[slot] for slot in reached}

    return VerifiedHandler(
        handler=Handler(stored.section, binding, code, stored.functions, lines),
        insns=_Lazy(instructions),
        accesses={slot: facts[number] for slot, number in stored.accesses.items()},
        **{name: getattr(stored, name) for name in _PROVEN},
    )


#: Fields of a verified handler that are stored as they are.
_PROVEN: Final = tuple(
    each.name for each in fields(VerifiedHandler) if each.name not in ("handler", "insns", "accesses")
)


class _Lazy(Mapping[K, V]):
    """A mapping that is made when it is first looked into."""

    def __init__(self, make: Callable[[], Mapping[K, V]]) -> None:
        self._make = make
        self._made: Mapping[K, V] | None = None

    def _mapping(self) -> Mapping[K, V]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, key: K) -> V:
        return self._mapping()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._mapping())

    def __len__(self) -> int:
        return len(self._mapping())


class _Table(Generic[V]):
    """Values in the order in which they first came, each once."""

    def __init__(self) -> None:
        self.rows: list[V] = []
        self._numbers: dict[V, int] = {}

    def add(self, value: V) -> int:
        """The value's number."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.rows)
            self.rows.append(value)
        return number


class _Types:
    """The types of a shared area, each behind those that it is made of."""

    def __init__(self) -> None:
        self.described: list[_Simple | _Array | _Composite] = []
        self._numbers: dict[type[Any], int] = {}

    def add(self, ctype: Any) -> int:
        """The type's number."""
        if ctype not in self._numbers:
            description = self._describe(ctype)
            self._numbers[ctype] = len(self.described)
            self.described.append(description)
        return self._numbers[ctype]

    def _describe(self, ctype: Any) -> _Simple | _Array | _Composite:
        if issubclass(ctype, ctypes.Array):
            return _Array(self.add(ctype._type_), ctype._length_)
        if issubclass(ctype, ctypes.Structure | ctypes.Union):
            return _Composite(
                ctype.__name__,
                issubclass(ctype, ctypes.Union),
                tuple(ctype._anonymous_),
                tuple((name, self.add(member)) for name, member, *_ in ctype._fields_),
            )
        return _Simple(ctype.__name__)


def _ctypes(described: tuple[_Simple | _Array | _Composite, ...]) -> list[Any]:
    """The types that `_Types` described."""
    made: list[Any] = []
    for each in described:
        match each:
            case _Simple(name=name):
                made.append(_SIMPLE[name])
            case _Array(element=element, count=count):
                made.append(made[element] * count)
            case _Composite():
                rows = [(name, made[number]) for name, number in each.fields]
                made.append(packed(each.name, rows, each.anonymous, union=each.union))
    return made
