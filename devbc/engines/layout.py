"""Records that native code and Python share, each described once, used from ctypes and from LLVM IR.

A `Layout` is a C struct of fixed-size little-endian fields at natural alignment. Native code reaches its
fields by byte offset from an opaque pointer; Python through `Layout.struct`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from struct import Struct
from typing import Any, Final

from llvmlite import ir

I8: Final = ir.IntType(8)
I32: Final = ir.IntType(32)
I64: Final = ir.IntType(64)
PTR: Final = ir.PointerType()


class Type(Enum):
    """A field's type: its LLVM type and its ctypes type."""

    U8 = (I8, ctypes.c_uint8)
    U32 = (I32, ctypes.c_uint32)
    U64 = (I64, ctypes.c_uint64)
    POINTER = (PTR, ctypes.c_void_p)

    @property
    def llvm(self) -> Any:
        return self.value[0]

    @property
    def ctype(self) -> Any:
        return self.value[1]

    @property
    def size(self) -> int:
        return ctypes.sizeof(self.ctype)


U8, U32, U64, POINTER = Type.U8, Type.U32, Type.U64, Type.POINTER


@dataclass(frozen=True)
class Layout:
    """A record: names with types, or with a type and a count for arrays, or with a nested layout."""

    name: str
    fields: tuple[tuple[str, Type | tuple[Type, int] | Layout], ...]

    @cached_property
    def struct(self) -> type[ctypes.Structure]:
        """The record for Python; its size and offsets define it for native code too."""
        members = [(name, _ctype(kind)) for name, kind in self.fields]
        return type(self.name, (ctypes.Structure,), {"_fields_": members})

    @property
    def size(self) -> int:
        return ctypes.sizeof(self.struct)

    @cached_property
    def packer(self) -> Struct:
        """The record as bytes, for writing many at once; flat records without padding only."""
        codes = {Type.U8: "B", Type.U32: "I", Type.U64: "Q", Type.POINTER: "Q"}
        packer = Struct("<" + "".join(codes[self.element_type(name)] for name, _ in self.fields))
        if packer.size != self.size:
            raise TypeError(f"{self.name} is not flat")
        return packer

    def offset(self, field: str) -> int:
        return int(getattr(self.struct, field).offset)

    def element_type(self, field: str) -> Type:
        kind = dict(self.fields)[field]
        if isinstance(kind, Layout):
            raise TypeError(f"{self.name}.{field} is a record")
        return kind[0] if isinstance(kind, tuple) else kind

    def address(self, builder: Any, base: Any, field: str, index: Any = None) -> Any:
        """A pointer to a field of the record at `base`, or to element `index` of an array field."""
        pointer = at(builder, base, self.offset(field))
        if index is None:
            return pointer
        return builder.gep(pointer, [index], inbounds=True, source_etype=self.element_type(field).llvm)

    def load(self, builder: Any, base: Any, field: str, index: Any = None) -> Any:
        pointer = self.address(builder, base, field, index)
        return builder.load(pointer, name=field, typ=self.element_type(field).llvm)

    def load_function(self, builder: Any, base: Any, field: str, signature: Any) -> Any:
        """The function that a pointer field points at, to be called with an `ir.FunctionType`."""
        return builder.load(self.address(builder, base, field), name=field, typ=signature.as_pointer())

    def store(self, builder: Any, value: Any, base: Any, field: str, index: Any = None) -> None:
        builder.store(value, self.address(builder, base, field, index))

    def element(self, builder: Any, base: Any, index: Any) -> Any:
        """A pointer to record `index` (i64) of an array of these records."""
        return builder.gep(base, [builder.mul(index, I64(self.size))], inbounds=True, source_etype=I8)


def at(builder: Any, base: Any, offset: int) -> Any:
    """The pointer `offset` bytes behind `base`."""
    return builder.gep(base, [I64(offset)], inbounds=True, source_etype=I8) if offset else base


def _ctype(kind: Type | tuple[Type, int] | Layout) -> Any:
    if isinstance(kind, Layout):
        return kind.struct
    return kind[0].ctype * kind[1] if isinstance(kind, tuple) else kind.ctype
