"""The ELF container: sections, symbols and relocations of an object, with every offset checked.

An object comes from whoever may upload programs, so nothing in it is believed: tables and names are bounded
by the file and by `devbc.limits` before they are read, and contents are views of the file, never copies
whose size the file could choose. Layouts and numbers are those of the System V gABI, chapters 4 and 5, and of
the BPF psABI.

What the sections mean is not decided here, but in `devbc.program.link`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from devbc import limits
from devbc.diagnostics import Rejected, Span, reject
from devbc.program import errors

#: Elf64_Ehdr: ident, type, machine, version, entry, phoff, shoff, flags, ehsize, phentsize, phnum, shentsize,
#: shnum, shstrndx.
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
#: Elf64_Shdr: name, type, flags, addr, offset, size, link, info, addralign, entsize.
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
#: Elf64_Sym: name, info, other, shndx, value, size.
_SYMBOL: Final = struct.Struct("<IBBHQQ")
#: Elf64_Rel: offset, info.
_RELOCATION: Final = struct.Struct("<QQ")

_RELOCATABLE: Final = 1
_BPF: Final = 247
_SECTION_KINDS: Final = {
    0: "SHT_NULL", 1: "SHT_PROGBITS", 2: "SHT_SYMTAB", 3: "SHT_STRTAB", 4: "SHT_RELA", 7: "SHT_NOTE",
    8: "SHT_NOBITS", 9: "SHT_REL", 14: "SHT_INIT_ARRAY", 15: "SHT_FINI_ARRAY", 17: "SHT_GROUP",
}  # fmt: skip
_SYMBOL_KINDS: Final = {
    0: "STT_NOTYPE", 1: "STT_OBJECT", 2: "STT_FUNC", 3: "STT_SECTION", 4: "STT_FILE", 5: "STT_COMMON"
}  # fmt: skip
_SPECIAL_SECTIONS: Final = {0: "SHN_UNDEF", 0xFFF1: "SHN_ABS", 0xFFF2: "SHN_COMMON", 0xFFFF: "SHN_XINDEX"}
_RELOCATION_KINDS: Final = {
    0: "R_BPF_NONE", 1: "R_BPF_64_64", 2: "R_BPF_64_ABS64", 3: "R_BPF_64_ABS32", 4: "R_BPF_64_NODYLD32",
    10: "R_BPF_64_32",
}  # fmt: skip
_WRITE, _ALLOC, _EXECINSTR = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Section:
    """A section. `data` is its part of the file, from `offset`; empty if it has none there."""

    index: int
    name: str
    kind: str
    flags: int
    offset: int
    data: memoryview
    size: int
    link: int
    info: int
    align: int

    @property
    def is_code(self) -> bool:
        return bool(self.flags & _EXECINSTR) and self.kind == "SHT_PROGBITS"

    @property
    def is_loaded(self) -> bool:
        return bool(self.flags & _ALLOC)

    @property
    def is_writable(self) -> bool:
        return bool(self.flags & _WRITE)

    def image(self) -> bytes:
        """The initial bytes; the caller has bounded `size`."""
        return bytes(self.data) if self.kind != "SHT_NOBITS" else bytes(self.size)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol. `section` is an index, or the name of a special index such as `SHN_UNDEF`."""

    name: str
    kind: str
    is_global: bool
    section: int | str
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class Relocation:
    """A place in a section, in bytes, that refers to a symbol; `kind` by its name in the psABI."""

    offset: int
    kind: str
    symbol: Symbol


class Container:
    """An ELF object for BPF. Raises Rejected, from the constructor or on use, where it is malformed."""

    def __init__(self, data: bytes, *, name: str) -> None:
        self.name = name
        self._data = memoryview(data)
        self._relocations_left = limits.OBJECT_RELOCATIONS
        self.sections = self._read_sections(*self._read_header())
        self.symbols = self._read_symbols()

    def fault(self, message: str) -> Rejected:
        """The exception for a fault of the container itself."""
        return reject(errors.MALFORMED, message, Span(self.name))

    def sole(self, name: str) -> Section | None:
        """The section with this name, which may be there once."""
        found = [section for section in self.sections if section.name == name]
        if len(found) > 1:
            raise reject(errors.DUPLICATE, f"there are {len(found)} sections `{name}`", Span(self.name))
        return found[0] if found else None

    def relocations(self, section: Section) -> tuple[Relocation, ...]:
        """The relocations that apply to a section, in the order of the file."""
        return tuple(
            relocation
            for table in self._relocation_tables.get(section.index, ())
            for relocation in self._read_relocations(table, section)
        )

    @cached_property
    def _relocation_tables(self) -> dict[int, list[Section]]:
        tables: dict[int, list[Section]] = {}
        for section in self.sections:
            if section.kind in ("SHT_REL", "SHT_RELA"):
                tables.setdefault(section.info, []).append(section)
        return tables

    def _read_header(self) -> tuple[int, int, int, int]:
        """Of the section table: its offset, an entry's bytes, the entries, which of them holds the names."""
        data, span = self._data, Span(self.name)
        if len(data) > limits.OBJECT_BYTES:
            message = f"the object has {len(data):,} bytes, and may have {limits.OBJECT_BYTES:,}"
            raise reject(errors.TOO_LARGE, message, span)
        if bytes(data[:4]) != b"\x7fELF":
            found = "is empty" if not data else "does not begin with the ELF magic number"
            raise reject(errors.NOT_AN_OBJECT, f"`{self.name}` {found}", span)
        if len(data) < _HEADER.size:
            raise self.fault("the file ends inside the ELF header")
        if data[4] != 2 or data[5] != 1:
            order = "big-endian" if data[5] == 2 else "not of 64 bits"
            note = ("`-target bpfel` is the little-endian flavour",) if data[5] == 2 else ()
            raise reject(errors.NOT_AN_OBJECT, f"`{self.name}` is {order}", span, help=note)
        fields = _HEADER.unpack_from(data)
        kind, machine, start, (size, count, names) = fields[1], fields[2], fields[6], fields[-3:]
        if machine != _BPF:
            message = f"`{self.name}` is for machine {machine}, not {_BPF} (`EM_BPF`)"
            raise reject(errors.NOT_AN_OBJECT, message, span, help=("compile with `-target bpf`",))
        if kind != _RELOCATABLE:
            message = f"`{self.name}` is of type {kind}, not {_RELOCATABLE} (`ET_REL`, relocatable)"
            raise reject(errors.NOT_AN_OBJECT, message, span, help=("compile with `-c`, and do not link",))
        return start, size, count, names

    def _read_sections(self, start: int, size: int, count: int, names_index: int) -> tuple[Section, ...]:
        if count > limits.OBJECT_SECTIONS:
            message = f"the object has {count:,} sections, and may have {limits.OBJECT_SECTIONS:,}"
            raise reject(errors.TOO_LARGE, message, Span(self.name))
        if count == 0 or size != _SECTION.size:
            raise self.fault("there is no section table of ELF64's layout")
        table = self._slice(start, count * size, "the section table")
        records = list(_SECTION.iter_unpack(table))
        if names_index >= count:
            raise self.fault("the table of section names is not a section")
        _, kind, _, _, offset, length, *_ = records[names_index]
        names = self._contents(kind, offset, length, "the table of section names")
        return tuple(self._section(index, record, names) for index, record in enumerate(records))

    def _section(self, index: int, record: tuple[int, ...], names: memoryview) -> Section:
        name_at, kind, flags, _, offset, size, link, info, align, _ = record
        name = self._string(names, name_at, f"section {index}")
        align = align or 1
        if align & (align - 1):
            raise self.fault(f"section `{name}` has the alignment {align}, which is not a power of two")
        data = self._contents(kind, offset, size, f"section `{name}`")
        word = _SECTION_KINDS.get(kind, f"{kind:#x}")
        return Section(index, name, word, flags, offset, data, size, link, info, align)

    def _contents(self, kind: int, offset: int, size: int, what: str) -> memoryview:
        if _SECTION_KINDS.get(kind) in ("SHT_NULL", "SHT_NOBITS"):
            return self._data[:0]
        return self._slice(offset, size, what)

    def _read_symbols(self) -> tuple[Symbol, ...]:
        tables = [section for section in self.sections if section.kind == "SHT_SYMTAB"]
        if len(tables) > 1:
            raise self.fault("there is more than one symbol table")
        if not tables:
            return ()
        count = self._entries(tables[0], _SYMBOL.size)
        if count > limits.OBJECT_SYMBOLS:
            message = f"the object has {count:,} symbols, and may have {limits.OBJECT_SYMBOLS:,}"
            raise reject(errors.TOO_LARGE, message, Span(self.name))
        if tables[0].link >= len(self.sections):
            raise self.fault("the table of symbol names is not a section")
        names = self.sections[tables[0].link].data
        return tuple(self._symbol(record, names) for record in _SYMBOL.iter_unpack(tables[0].data))

    def _symbol(self, record: tuple[int, ...], names: memoryview) -> Symbol:
        name_at, info, _, index, value, size = record
        name = self._string(names, name_at, "a symbol")
        section = _SPECIAL_SECTIONS.get(index, index)
        if isinstance(section, int) and section >= len(self.sections):
            raise self.fault(f"symbol `{name}` is in section {section}, and there are {len(self.sections)}")
        kind = _SYMBOL_KINDS.get(info & 0xF, f"{info & 0xF}")
        if kind == "STT_SECTION" and isinstance(section, int):
            name = self.sections[section].name
        return Symbol(name, kind, info >> 4 != 0, section, value, size)

    def _read_relocations(self, table: Section, target: Section) -> Iterator[Relocation]:
        if table.kind != "SHT_REL":
            message = f"relocations with addends (`SHT_RELA`) for section `{target.name}`"
            raise reject(errors.BAD_RELOCATION, message, Span(self.name), notes=("BPF uses `SHT_REL`",))
        count = self._entries(table, _RELOCATION.size)
        # Tables may overlap in the file, so their number bounds nothing: what is read in all is counted.
        self._relocations_left -= count
        if self._relocations_left < 0:
            message = f"the program has more than {limits.OBJECT_RELOCATIONS:,} relocations"
            raise reject(errors.TOO_LARGE, message, Span(self.name))
        for offset, info in _RELOCATION.iter_unpack(table.data):
            number, kind = info >> 32, info & 0xFFFFFFFF
            if number >= len(self.symbols):
                raise self.fault(
                    f"`{table.name}` refers to symbol {number}, and there are {len(self.symbols)}"
                )
            name = _RELOCATION_KINDS.get(kind, f"of unknown type {kind}")
            yield Relocation(offset, name, self.symbols[number])

    def _entries(self, table: Section, size: int) -> int:
        if len(table.data) % size:
            raise self.fault(f"`{table.name}` is not made of entries of {size} bytes")
        return len(table.data) // size

    def _slice(self, offset: int, size: int, what: str) -> memoryview:
        if offset + size > len(self._data):
            raise self.fault(f"{what} ends at byte {offset + size:,} of a file of {len(self._data):,}")
        return self._data[offset : offset + size]

    def _string(self, table: memoryview, offset: int, what: str) -> str:
        if offset == 0 and not table:
            return ""
        text = string_at(table, offset, limits.NAME_BYTES)
        if text is None:
            raise self.fault(f"the name of {what} is not in its string table, or too long")
        return printable(text)


def string_at(table: memoryview, offset: int, longest: int) -> bytes | None:
    """The NUL-terminated string at an offset, or None if it is outside, not terminated or too long."""
    if offset >= len(table):
        return None
    head, nul, _ = bytes(table[offset : offset + longest + 1]).partition(b"\0")
    return head if nul else None


def printable(text: bytes) -> str:
    """Text from an object as it may go to a terminal: no control characters, whatever the bytes are."""
    decoded = text.decode("utf-8", errors="replace")
    if decoded.isprintable():
        return decoded
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in decoded)
