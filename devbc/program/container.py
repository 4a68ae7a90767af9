"""The ELF container: sections, symbols and relocations of an object, with every offset checked.

An object comes from whoever may upload programs, so nothing in it is believed: tables and names are bounded
by the file and by `devbc.limits` before they are read, and contents are views of the file, never copies
whose size the file could choose. pyelftools knows the records' layouts; its own section classes are not
used, since they follow names and compressed sections wherever the file says.

What the sections mean is not decided here, but in `devbc.program.link`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.constants import SH_FLAGS
from elftools.elf.enums import ENUM_RELOC_TYPE_BPF
from elftools.elf.structs import ELFStructs

from devbc import limits
from devbc.diagnostics import Rejected, Span, reject
from devbc.program import errors

_HEADER_BYTES: Final = 64
_SECTION_BYTES: Final = 64
_SYMBOL_BYTES: Final = 24
_RELOCATION_BYTES: Final = 16

_RELOCATION_NAMES: Final = {
    number: name for name, number in ENUM_RELOC_TYPE_BPF.items() if name != "_default_"
}


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
        return bool(self.flags & SH_FLAGS.SHF_EXECINSTR) and self.kind == "SHT_PROGBITS"

    @property
    def is_loaded(self) -> bool:
        return bool(self.flags & SH_FLAGS.SHF_ALLOC)

    @property
    def is_writable(self) -> bool:
        return bool(self.flags & SH_FLAGS.SHF_WRITE)

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
        self._stream = io.BytesIO(data)
        self._structs = ELFStructs(little_endian=True, elfclass=64)
        self._structs.create_basic_structs()
        self._relocations_left = limits.OBJECT_RELOCATIONS
        header = self._read_header()
        self.sections = self._read_sections(header)
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

    def _read_header(self) -> Any:
        data, span = self._data, Span(self.name)
        if len(data) > limits.OBJECT_BYTES:
            message = f"the object has {len(data):,} bytes, and may have {limits.OBJECT_BYTES:,}"
            raise reject(errors.TOO_LARGE, message, span)
        if bytes(data[:4]) != b"\x7fELF":
            found = "is empty" if not data else "does not begin with the ELF magic number"
            raise reject(errors.NOT_AN_OBJECT, f"`{self.name}` {found}", span)
        if len(data) < _HEADER_BYTES:
            raise self.fault("the file ends inside the ELF header")
        if data[4] != 2 or data[5] != 1:
            order = "big-endian" if data[5] == 2 else "not of 64 bits"
            note = ("`-target bpfel` is the little-endian flavour",) if data[5] == 2 else ()
            raise reject(errors.NOT_AN_OBJECT, f"`{self.name}` is {order}", span, help=note)
        self._structs.create_advanced_structs("ET_REL", "EM_BPF", "ELFOSABI_SYSV")
        header = self._record(self._structs.Elf_Ehdr, 0)
        if header["e_machine"] != "EM_BPF":
            message = f"`{self.name}` is for machine {_plain(header['e_machine'])}, not EM_BPF"
            raise reject(errors.NOT_AN_OBJECT, message, span, help=("compile with `-target bpf`",))
        if header["e_type"] != "ET_REL":
            message = f"`{self.name}` is of type {_plain(header['e_type'])}, not relocatable"
            raise reject(errors.NOT_AN_OBJECT, message, span, help=("compile with `-c`, and do not link",))
        return header

    def _read_sections(self, header: Any) -> tuple[Section, ...]:
        start, count = header["e_shoff"], header["e_shnum"]
        if count > limits.OBJECT_SECTIONS:
            message = f"the object has {count:,} sections, and may have {limits.OBJECT_SECTIONS:,}"
            raise reject(errors.TOO_LARGE, message, Span(self.name))
        if count == 0 or header["e_shentsize"] != _SECTION_BYTES:
            raise self.fault("there is no section table of ELF64's layout")
        self._slice(start, count * _SECTION_BYTES, "the section table")
        records = [self._record(self._structs.Elf_Shdr, start + i * _SECTION_BYTES) for i in range(count)]
        names_index = header["e_shstrndx"]
        if not isinstance(names_index, int) or names_index >= count:
            raise self.fault("the table of section names is not a section")
        names = self._contents(records[names_index], "the table of section names")
        return tuple(self._section(index, record, names) for index, record in enumerate(records))

    def _section(self, index: int, record: Any, names: memoryview) -> Section:
        name = self._string(names, record["sh_name"], f"section {index}")
        align = record["sh_addralign"] or 1
        if align & (align - 1):
            raise self.fault(f"section `{name}` has the alignment {align}, which is not a power of two")
        return Section(
            index,
            name,
            str(record["sh_type"]),
            record["sh_flags"],
            record["sh_offset"],
            self._contents(record, f"section `{name}`"),
            record["sh_size"],
            record["sh_link"],
            record["sh_info"],
            align,
        )

    def _contents(self, record: Any, what: str) -> memoryview:
        if record["sh_type"] in ("SHT_NULL", "SHT_NOBITS"):
            return self._data[:0]
        return self._slice(record["sh_offset"], record["sh_size"], what)

    def _read_symbols(self) -> tuple[Symbol, ...]:
        tables = [section for section in self.sections if section.kind == "SHT_SYMTAB"]
        if len(tables) > 1:
            raise self.fault("there is more than one symbol table")
        if not tables:
            return ()
        count = self._entries(tables[0], _SYMBOL_BYTES)
        if count > limits.OBJECT_SYMBOLS:
            message = f"the object has {count:,} symbols, and may have {limits.OBJECT_SYMBOLS:,}"
            raise reject(errors.TOO_LARGE, message, Span(self.name))
        if tables[0].link >= len(self.sections):
            raise self.fault("the table of symbol names is not a section")
        names = self.sections[tables[0].link].data
        start = tables[0].offset
        return tuple(self._symbol(start + i * _SYMBOL_BYTES, names) for i in range(count))

    def _symbol(self, offset: int, names: memoryview) -> Symbol:
        record = self._record(self._structs.Elf_Sym, offset)
        name = self._string(names, record["st_name"], "a symbol")
        section = record["st_shndx"]
        if isinstance(section, int) and section >= len(self.sections):
            raise self.fault(f"symbol `{name}` is in section {section}, and there are {len(self.sections)}")
        kind = str(record["st_info"]["type"])
        if kind == "STT_SECTION" and isinstance(section, int):
            name = self.sections[section].name
        is_global = record["st_info"]["bind"] != "STB_LOCAL"
        return Symbol(name, kind, is_global, section, record["st_value"], record["st_size"])

    def _read_relocations(self, table: Section, target: Section) -> Iterator[Relocation]:
        if table.kind != "SHT_REL":
            message = f"relocations with addends (`SHT_RELA`) for section `{target.name}`"
            raise reject(errors.BAD_RELOCATION, message, Span(self.name), notes=("BPF uses `SHT_REL`",))
        count = self._entries(table, _RELOCATION_BYTES)
        # Tables may overlap in the file, so their number bounds nothing: what is read in all is counted.
        self._relocations_left -= count
        if self._relocations_left < 0:
            message = f"the program has more than {limits.OBJECT_RELOCATIONS:,} relocations"
            raise reject(errors.TOO_LARGE, message, Span(self.name))
        for index in range(count):
            record = self._record(self._structs.Elf_Rel, table.offset + index * _RELOCATION_BYTES)
            number = record["r_info_sym"]
            if number >= len(self.symbols):
                raise self.fault(
                    f"`{table.name}` refers to symbol {number}, and there are {len(self.symbols)}"
                )
            kind = record["r_info_type"]
            name = _RELOCATION_NAMES.get(kind, f"of unknown type {kind}")
            yield Relocation(record["r_offset"], name, self.symbols[number])

    def _entries(self, table: Section, size: int) -> int:
        if len(table.data) % size:
            raise self.fault(f"`{table.name}` is not made of entries of {size} bytes")
        return len(table.data) // size

    def _record(self, structure: Any, offset: int) -> Any:
        """A record at an offset that is known to be inside the file."""
        try:
            return struct_parse(structure, self._stream, offset)
        except ELFError as error:
            raise self.fault(f"the record at offset {offset:#x} cannot be read: {error}") from error

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


def _plain(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)
