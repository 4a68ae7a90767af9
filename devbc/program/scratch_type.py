"""The shared area as a ctypes structure, made from BTF: `scratch.channel[0].reload` for userspace.

Every field lies where BTF says, whatever ctypes would have chosen: structures are packed, gaps are fields of
their own, and the result is measured before it is used. Types that userspace and programs cannot access
alike are refused: bit-fields, 128-bit integers, incomplete types.

Variables lie where the symbol table says; the offsets in BTF's data section are for a linker to fill in.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from devbc import limits
from devbc.abi import SCRATCH_SECTION
from devbc.diagnostics import Rejected, Span, reject
from devbc.program import errors
from devbc.program.btf import Array, Btf, Composite, Enum, Float, Int, Pointer, Type, Variable

_UNSIGNED: Final[Mapping[int, type[Any]]] = {
    1: ctypes.c_uint8,
    2: ctypes.c_uint16,
    4: ctypes.c_uint32,
    8: ctypes.c_uint64,
}
_SIGNED: Final[Mapping[int, type[Any]]] = {
    1: ctypes.c_int8,
    2: ctypes.c_int16,
    4: ctypes.c_int32,
    8: ctypes.c_int64,
}
_FLOATS: Final[Mapping[int, type[Any]]] = {4: ctypes.c_float, 8: ctypes.c_double}

#: Names that a field cannot have, since a ctypes structure has them.
_TAKEN: Final = frozenset(
    {*dir(ctypes.Structure), "_fields_", "_pack_", "_layout_", "_anonymous_", "_align_", "__slots__"}
)


def scratch_type(btf: Btf, offsets: Mapping[str, int], size: int) -> type[ctypes.Structure] | None:
    """The type of a shared area of `size` bytes whose variables lie at `offsets`; None if BTF lacks it.

    If a sole variable of structure type fills the area, the area's type is that structure. Raises Rejected
    (O014, O015).
    """
    section = btf.data_section(SCRATCH_SECTION)
    if section is None or not size:
        return None
    builder = _Builder(btf)
    fields: list[tuple[str, type[Any], int]] = []
    for each in section.variables:
        variable = btf.type(each.variable)
        if not isinstance(variable, Variable):
            raise btf.fault(f"`{SCRATCH_SECTION}` lists type {each.variable}, which is not a variable")
        if variable.name not in offsets:
            raise btf.fault(f"`{variable.name}` is in `{SCRATCH_SECTION}` by its type, and not by its symbol")
        ctype = builder.build(variable.type, variable.name)
        if each.size != ctypes.sizeof(ctype):
            raise btf.fault(f"`{variable.name}` has {each.size} bytes, its type {ctypes.sizeof(ctype)}")
        fields.append((variable.name, ctype, offsets[variable.name]))
    if len(fields) == 1:
        _, ctype, offset = fields[0]
        if issubclass(ctype, ctypes.Structure) and offset == 0 and ctypes.sizeof(ctype) == size:
            return ctype
    return builder.structure("Scratch", fields, size)


class _Builder:
    """Makes ctypes of BTF types, each once."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self.made: dict[int, type[Any]] = {}
        self.open: list[int] = []
        self.generated = 0

    def fresh(self, stem: str) -> str:
        """A field name that no other structure of the area has, so that unnamed members cannot clash."""
        self.generated += 1
        return f"{stem}{self.generated}"

    def build(self, number: int, what: str) -> type[Any]:
        """The ctypes type of a BTF type; `what` names the variable or member that has it."""
        number, found = self.btf.layout(number)
        if number in self.made:
            return self.made[number]
        if number in self.open or len(self.open) >= limits.TYPE_DEPTH:
            problem = (
                "contains itself" if number in self.open else f"nests more than {limits.TYPE_DEPTH} types"
            )
            raise self.refuse(f"the type of `{what}` {problem}")
        self.open.append(number)
        made = self._make(found, what)
        self.open.pop()
        if ctypes.sizeof(made) > limits.SCRATCH_BYTES:
            raise self.refuse(f"`{what}` has more than {limits.SCRATCH_BYTES:,} bytes")
        self.made[number] = made
        return made

    def refuse(self, message: str) -> Rejected:
        return reject(errors.BAD_SCRATCH_TYPE, message, Span(f"{self.btf.object_name}:.BTF"))

    def _make(self, found: Type, what: str) -> type[Any]:
        match found:
            case Int(boolean=True, size=1):
                return ctypes.c_bool
            case Int(bits=bits, size=size, bit_offset=0) if bits == 8 * size and size in _UNSIGNED:
                return (_SIGNED if found.signed else _UNSIGNED)[size]
            case Enum(size=size) if size in _UNSIGNED:
                return (_SIGNED if found.signed else _UNSIGNED)[size]
            case Float(size=size) if size in _FLOATS:
                return _FLOATS[size]
            case Pointer():
                return ctypes.c_uint64  # the verifier sees to it that no pointer is ever stored
            case Array(element=element, count=count):
                return self._array(self.build(element, what), count, what)
            case Composite():
                return self._composite(found, what)
            case Int(name=name) | Float(name=name):
                raise self.refuse(
                    f"`{what}` is of type `{name}`, which has no counterpart of {found.size} bytes"
                )
        raise self.refuse(f"`{what}` is of an incomplete type, or of one that is not data")

    def _array(self, element: type[Any], count: int, what: str) -> type[Any]:
        if count > limits.SCRATCH_BYTES or ctypes.sizeof(element) * count > limits.SCRATCH_BYTES:
            raise self.refuse(f"array `{what}` has more than {limits.SCRATCH_BYTES:,} bytes")
        made: type[Any] = element * count
        return made

    def _composite(self, found: Composite, what: str) -> type[Any]:
        fields: list[tuple[str, type[Any], int]] = []
        for member in found.members:
            where = member.name or f"{what}'s unnamed member"
            if member.bit_size or member.bit_offset % 8:
                raise self.refuse(f"`{where}` of `{found.name or what}` is a bit-field")
            fields.append((member.name, self.build(member.type, where), member.bit_offset // 8))
        name = found.name or what
        make = self.union if found.is_union else self.structure
        return make(name, fields, found.size)

    def structure(self, name: str, fields: list[tuple[str, type[Any], int]], size: int) -> type[Any]:
        """A structure of `size` bytes with fields at the byte offsets given."""
        named = _Names(self, name, fields)
        rows: list[tuple[str, type[Any]]] = []
        end = 0
        for field, ctype, offset in sorted(named.fields, key=lambda row: row[2]):
            if offset < end:
                raise self.refuse(f"`{field}` of `{name}` overlaps what stands before it")
            rows += named.padding(offset - end)
            rows.append((field, ctype))
            end = offset + ctypes.sizeof(ctype)
        if end > size:
            raise self.refuse(f"the fields of `{name}` end at byte {end:,}, and it has {size:,}")
        rows += named.padding(size - end)
        return self._finish(name, named, rows, size, union=False)

    def union(self, name: str, fields: list[tuple[str, type[Any], int]], size: int) -> type[Any]:
        """A union of `size` bytes."""
        named = _Names(self, name, fields)
        for field, ctype, offset in named.fields:
            if offset or ctypes.sizeof(ctype) > size:
                raise self.refuse(f"`{field}` does not lie in union `{name}` of {size:,} bytes")
        rows = [(field, ctype) for field, ctype, _ in named.fields]
        return self._finish(name, named, rows + named.padding(size), size, union=True)

    def _finish(
        self, name: str, named: _Names, rows: list[tuple[str, type[Any]]], size: int, *, union: bool
    ) -> type[Any]:
        name = name if name.isidentifier() else "Scratch"
        made = packed(name, rows, tuple(named.anonymous), union=union)
        misplaced = [field for field, _, offset in named.fields if getattr(made, field).offset != offset]
        if misplaced or ctypes.sizeof(made) != size:
            raise AssertionError(f"ctypes lays out {name} otherwise than BTF: {misplaced}")
        return made


def packed(
    name: str, rows: Sequence[tuple[str, type[Any]]], anonymous: tuple[str, ...], *, union: bool
) -> type[Any]:
    """A structure, or union, of these fields with nothing between them, little-endian."""
    # Without slots, ctypes would take an assignment to a misspelt field, and keep it to itself.
    members = {
        "__slots__": (), "_pack_": 1, "_layout_": "ms", "_anonymous_": anonymous, "_fields_": list(rows),
    }  # fmt: skip
    return type(name, (ctypes.LittleEndianUnion if union else ctypes.LittleEndianStructure,), members)


def shape(ctype: Any) -> object:
    """What a shared area's type is to whoever uses it, to be compared: names, places, sizes, signs."""
    if ctype is None:
        return None
    if issubclass(ctype, ctypes.Array):
        return (ctype._length_, shape(ctype._type_))
    if issubclass(ctype, ctypes.Structure | ctypes.Union):
        names = [field[0] for field in ctype._fields_]
        places = [
            (name, getattr(ctype, name).offset, shape(field[1]))
            for name, field in zip(names, ctype._fields_, strict=True)
        ]
        return tuple(places)
    return ctype.__name__


class _Names:
    """Field names of one structure: each once, with generated ones for gaps and unnamed members."""

    def __init__(self, builder: _Builder, owner: str, fields: Iterable[tuple[str, type[Any], int]]) -> None:
        self.builder = builder
        self.used: set[str] = set()
        self.anonymous: list[str] = []
        self.fields = [(self._field(owner, name, ctype), ctype, offset) for name, ctype, offset in fields]

    def padding(self, size: int) -> list[tuple[str, type[Any]]]:
        return [(self.builder.fresh("_gap"), ctypes.c_uint8 * size)] if size else []

    def _field(self, owner: str, name: str, ctype: type[Any]) -> str:
        if name:
            if not name.isidentifier() or name in _TAKEN:
                raise self.builder.refuse(f"`{name}` of `{owner}` is not a name that a field can have")
            visible = [name]
        elif issubclass(ctype, ctypes.Structure | ctypes.Union):
            name = self.builder.fresh("_unnamed")
            self.anonymous.append(name)
            visible = [name, *_visible(ctype)]
        else:
            raise self.builder.refuse(f"a member of `{owner}` has no name")
        for each in visible:
            if each in self.used:
                raise self.builder.refuse(f"`{owner}` has two fields `{each}`")
            self.used.add(each)
        return name


def _visible(ctype: Any) -> Iterable[str]:
    """The names that a structure lends to the one in which it is an unnamed member."""
    for name, inner in ctype._fields_:
        yield name
        if name in ctype._anonymous_:
            yield from _visible(inner)
