"""BTF: the types of an object as values, and the source places of its instructions.

Layout by the kernel's documentation of BTF (Documentation/bpf/btf.rst): `.BTF` is a header, a table of types
numbered from 1 (0 is `void`), and strings; `.BTF.ext` has, for each section of code, records of instruction
offset, file, source line and position. Every offset and count is checked against the section; references
between types are checked when they are followed, by `Btf.type`.

Not read: CO-RE relocations (refused) and function information (names come from the symbol table).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from devbc import limits
from devbc.diagnostics import Rejected, Span, reject
from devbc.program import errors
from devbc.program.container import printable, string_at

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")
_EXT_HEADER: Final = struct.Struct("<HBBIIIII")
_CORE_HEADER: Final = struct.Struct("<II")
_TYPE: Final = struct.Struct("<III")
_LINE: Final = struct.Struct("<IIII")


class Tag(IntEnum):
    """Kinds of types, by their number in BTF."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class Alias(StrEnum):
    """What stands for another type without a layout of its own."""

    TYPEDEF = "typedef"
    VOLATILE = "volatile"
    CONST = "const"
    RESTRICT = "restrict"
    TYPE_TAG = "type_tag"


@dataclass(frozen=True, slots=True)
class Void:
    pass


@dataclass(frozen=True, slots=True)
class Int:
    """`size` in bytes; `bits` and `bit_offset` differ from the whole in bit-fields of old compilers only."""

    name: str
    size: int
    signed: bool
    boolean: bool
    bits: int
    bit_offset: int


@dataclass(frozen=True, slots=True)
class Float:
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Pointer:
    target: int


@dataclass(frozen=True, slots=True)
class Array:
    element: int
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Member:
    """`bit_size` is 0 unless it is a bit-field. Anonymous members have an empty name."""

    name: str
    type: int
    bit_offset: int
    bit_size: int


@dataclass(frozen=True, slots=True)
class Composite:
    """A structure, or a union."""

    name: str
    size: int
    members: tuple[Member, ...]
    is_union: bool


@dataclass(frozen=True, slots=True)
class Enum:
    name: str
    size: int
    signed: bool
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Forward:
    name: str
    is_union: bool


@dataclass(frozen=True, slots=True)
class Synonym:
    """A typedef, qualifier or type tag."""

    alias: Alias
    name: str
    target: int


@dataclass(frozen=True, slots=True)
class Prototype:
    result: int
    parameters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Subprogram:
    name: str
    prototype: int
    linkage: int


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    type: int
    linkage: int


@dataclass(frozen=True, slots=True)
class DataVariable:
    """A variable of a section. Compilers leave `offset` 0 for the linker to fill in: ask the symbol table."""

    variable: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class DataSection:
    name: str
    size: int
    variables: tuple[DataVariable, ...]


@dataclass(frozen=True, slots=True)
class DeclTag:
    name: str
    target: int
    component: int


Type = (
    Void
    | Int
    | Float
    | Pointer
    | Array
    | Composite
    | Enum
    | Forward
    | Synonym
    | Prototype
    | Subprogram
    | Variable
    | DataSection
    | DeclTag
)


@dataclass(frozen=True, slots=True)
class Btf:
    """The types of an object by their number, and its strings."""

    object_name: str
    types: tuple[Type, ...]
    strings: memoryview

    def fault(self, message: str) -> Rejected:
        return reject(errors.BAD_BTF, message, Span(f"{self.object_name}:.BTF"))

    def type(self, number: int) -> Type:
        if number >= len(self.types):
            raise self.fault(f"type {number} is used, and the types end at {len(self.types) - 1}")
        return self.types[number]

    def layout(self, number: int) -> tuple[int, Type]:
        """A type and its number without typedefs and qualifiers around it."""
        wanted = number
        for _ in range(limits.TYPE_DEPTH):
            match self.type(number):
                case Synonym(target=target):
                    number = target
                case other:
                    return number, other
        raise self.fault(f"type {wanted} is a synonym of a synonym, {limits.TYPE_DEPTH} times or without end")

    def data_section(self, name: str) -> DataSection | None:
        return next(
            (each for each in self.types if isinstance(each, DataSection) and each.name == name), None
        )


class LineEntry(NamedTuple):
    """From `slot` of its section on, code comes from this place; `file` and `text` are string offsets."""

    slot: int
    file: int
    text: int
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class LineInfo:
    """Line entries by section name, ascending by slot; empty for an object without them."""

    sections: Mapping[str, list[LineEntry]] = field(default_factory=dict)
    strings: memoryview = field(default_factory=lambda: memoryview(b"\0"))
    #: Places by all of an entry but its slot: many instructions come from one.
    _spans: dict[tuple[int, ...], Span] = field(default_factory=dict, compare=False, repr=False)

    def span(self, entry: LineEntry) -> Span:
        """The place of an entry: from its column to the end of the word that stands there."""
        place = entry[1:]
        span = self._spans.get(place)
        if span is None:
            span = self._spans[place] = self._span(entry)
        return span

    def _span(self, entry: LineEntry) -> Span:
        raw = string_at(self.strings, entry.text, _LINE_BYTES) or b""
        text = printable(raw.rstrip(b"\r\n"))
        file = printable(string_at(self.strings, entry.file, limits.NAME_BYTES) or b"") or "<unknown>"
        # Compilers count columns in bytes, spans in characters; column 0 means the whole line.
        column = len(printable(raw[: entry.column - 1])) + 1 if entry.column else 1
        if column > len(text):
            return Span(file, entry.line, column, column + 1, text)
        if entry.column == 0:
            start = len(text) - len(text.lstrip())
            return Span(file, entry.line, start + 1, len(text) + 1, text)
        word = _WORD.match(text, column - 1)
        return Span(file, entry.line, column, word.end() + 1 if word else column + 1, text)


_WORD: Final = re.compile(r"\w+|[-+*/%&|^~<>=!]+|.")
#: Source text that goes into a span; the rest of a longer line is not shown.
_LINE_BYTES: Final = 2 * limits.NAME_BYTES


def read_btf(section: memoryview, *, name: str) -> Btf:
    """The types in a `.BTF` section of the object `name`; raises Rejected (O003, O014)."""
    reader = _Reader(section, f"{name}:.BTF")
    magic, version, _, header_size, types_at, types_size, strings_at, strings_size = reader.take(_HEADER, 0)
    reader.check_version(magic, version)
    types = reader.part(header_size + types_at, types_size, "the table of types")
    strings = reader.part(header_size + strings_at, strings_size, "the strings")
    if not strings or strings[0]:
        raise reader.fault("the strings do not begin with the empty string")
    return Btf(name, _TypeReader(types, strings, reader.where).read(), strings)


def read_lines(section: memoryview, btf: Btf) -> LineInfo:
    """The line information in `.BTF.ext`; raises Rejected (O003, O009, O014)."""
    reader = _Reader(section, f"{btf.object_name}:.BTF.ext")
    magic, version, _, header_size, _, _, lines_at, lines_size = reader.take(_EXT_HEADER, 0)
    reader.check_version(magic, version)
    if header_size >= _EXT_HEADER.size + _CORE_HEADER.size:
        _, core_size = reader.take(_CORE_HEADER, _EXT_HEADER.size)
        if core_size:
            message = "the object needs CO-RE relocations, and there is no kernel to resolve them against"
            raise reject(errors.BAD_RELOCATION, message, Span(reader.where))
    if lines_size == 0:
        return LineInfo()
    part = _Reader(reader.part(header_size + lines_at, lines_size, "the line information"), reader.where)
    (record_size,) = part.take(_WORD32, 0)
    if record_size < _LINE.size or record_size % 4:
        raise part.fault(f"a record of line information cannot have {record_size} bytes")
    at, sections = _WORD32.size, dict[str, list[LineEntry]]()
    while at < len(part.data):
        section_name, count = part.take(_PAIR, at)
        at += _PAIR.size
        part.part(at, count * record_size, "a section's line information")
        entries = sections.setdefault(part.name(btf.strings, section_name), [])
        for index in range(count):
            offset, file, text, position = part.take(_LINE, at + index * record_size)
            if offset % 8:
                raise part.fault(f"line information for byte {offset}, which is not an instruction")
            if position >> 10:  # line 0 marks what no source line asked for
                entries.append(LineEntry(offset // 8, file, text, position >> 10, position & 0x3FF))
        at += count * record_size
    for entries in sections.values():
        entries.sort(key=lambda entry: entry.slot)
    return LineInfo(sections, btf.strings)


_WORD32: Final = struct.Struct("<I")
_PAIR: Final = struct.Struct("<II")
_TRIPLE: Final = struct.Struct("<III")


class _Reader:
    """Bounded access to a section."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.data, self.where = data, where
        if len(data) > limits.BTF_BYTES:
            message = f"`{where}` has {len(data):,} bytes, and may have {limits.BTF_BYTES:,}"
            raise reject(errors.TOO_LARGE, message, Span(where))

    def fault(self, message: str) -> Rejected:
        return reject(errors.BAD_BTF, message, Span(self.where))

    def check_version(self, magic: int, version: int) -> None:
        if magic != _MAGIC or version != 1:
            raise self.fault(f"magic {magic:#06x} and version {version}, and not {_MAGIC:#06x} and 1")

    def take(self, record: struct.Struct, at: int) -> tuple[int, ...]:
        if at + record.size > len(self.data):
            raise self.fault(f"a record at byte {at:,} ends outside its part of {len(self.data):,} bytes")
        return record.unpack_from(self.data, at)

    def part(self, at: int, size: int, what: str) -> memoryview:
        if at + size > len(self.data):
            raise self.fault(f"{what} ends at byte {at + size:,} of {len(self.data):,}")
        return self.data[at : at + size]

    def name(self, strings: memoryview, at: int) -> str:
        text = string_at(strings, at, limits.NAME_BYTES)
        if text is None:
            raise self.fault(f"the name at {at:,} is not in the strings, or too long")
        return printable(text)


class _TypeReader(_Reader):
    """Reads the table of types, one after another."""

    def __init__(self, data: memoryview, strings: memoryview, where: str) -> None:
        super().__init__(data, where)
        self.strings = strings
        self.at = 0

    def read(self) -> tuple[Type, ...]:
        types: list[Type] = [Void()]
        while self.at < len(self.data):
            types.append(self._type())
        return tuple(types)

    def _next(self, record: struct.Struct) -> tuple[int, ...]:
        values = self.take(record, self.at)
        self.at += record.size
        return values

    def _rows(self, record: struct.Struct, count: int) -> list[tuple[int, ...]]:
        return [self._next(record) for _ in range(count)]

    def _text(self, at: int) -> str:
        return self.name(self.strings, at)

    def _type(self) -> Type:
        """One type: name, `info` (count of rows, kind, flag), and a size or another type's number."""
        name_at, info, word = self._next(_TYPE)
        name, count, tag, flag = self._text(name_at), info & 0xFFFF, info >> 24 & 0x1F, bool(info >> 31)
        match tag:
            case Tag.INT:
                (bits,) = self._next(_WORD32)
                encoding = bits >> 24
                return Int(name, word, bool(encoding & 1), bool(encoding & 4), bits & 0xFF, bits >> 16 & 0xFF)
            case Tag.FLOAT:
                return Float(name, word)
            case Tag.PTR:
                return Pointer(word)
            case Tag.ARRAY:
                element, index, length = self._next(_TRIPLE)
                return Array(element, index, length)
            case Tag.STRUCT | Tag.UNION:
                members = tuple(self._member(row, flag) for row in self._rows(_TRIPLE, count))
                return Composite(name, word, members, tag == Tag.UNION)
            case Tag.ENUM:
                rows = self._rows(_PAIR, count)
                return Enum(
                    name, word, flag, {self._text(at): _signed(value, 32, flag) for at, value in rows}
                )
            case Tag.ENUM64:
                wide = self._rows(_TRIPLE, count)
                values = {self._text(at): _signed(high << 32 | low, 64, flag) for at, low, high in wide}
                return Enum(name, word, flag, values)
            case Tag.FWD:
                return Forward(name, flag)
            case Tag.TYPEDEF | Tag.VOLATILE | Tag.CONST | Tag.RESTRICT | Tag.TYPE_TAG:
                return Synonym(Alias[Tag(tag).name], name, word)
            case Tag.FUNC_PROTO:
                return Prototype(word, tuple((self._text(at), kind) for at, kind in self._rows(_PAIR, count)))
            case Tag.FUNC:
                return Subprogram(name, word, count)
            case Tag.VAR:
                (linkage,) = self._next(_WORD32)
                return Variable(name, word, linkage)
            case Tag.DATASEC:
                variables = tuple(DataVariable(*row) for row in self._rows(_TRIPLE, count))
                return DataSection(name, word, variables)
            case Tag.DECL_TAG:
                (component,) = self._next(_WORD32)
                return DeclTag(name, word, component)
        raise self.fault(f"there is no kind {tag} of types")

    def _member(self, row: tuple[int, ...], flag: bool) -> Member:
        """With the structure's flag set, an offset carries the size of a bit-field in its upper byte."""
        name_at, kind, offset = row
        bit_size = offset >> 24 if flag else 0
        return Member(self._text(name_at), kind, offset & 0xFFFFFF if flag else offset, bit_size)


def _signed(value: int, bits: int, signed: bool) -> int:
    return value - (1 << bits) if signed and value >> (bits - 1) else value
