"""The shared area as a ctypes structure: fields lie where BTF says; what cannot be shared is refused."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc import limits
from devbc.diagnostics import Rejected
from devbc.program.btf import (
    Alias,
    Array,
    Btf,
    Composite,
    DataSection,
    DataVariable,
    Enum,
    Float,
    Forward,
    Int,
    Member,
    Pointer,
    Synonym,
    Type,
    Variable,
    Void,
)
from devbc.program.scratch_type import scratch_type

U8 = Int("u8", 1, False, False, 8, 0)
U16 = Int("u16", 2, False, False, 16, 0)
U32 = Int("u32", 4, False, False, 32, 0)
U64 = Int("u64", 8, False, False, 64, 0)


def _view(types: list[Type], size: int, *variables: tuple[str, int, int, int]) -> Any:
    """The view of an area with variables (name, type, offset, size); `types` are numbered from 1."""
    first = len(types) + 1
    rows = [Variable(name, number, 1) for name, number, _, _ in variables]
    data = [DataVariable(first + i, 0, size) for i, (_, _, _, size) in enumerate(variables)]
    section = DataSection(".scratch", 0, tuple(data))
    btf = Btf("x.o", (Void(), *types, *rows, section), memoryview(b"\0"))
    return scratch_type(btf, {name: offset for name, _, offset, _ in variables}, size)


def _struct(types: list[Type], size: int, *members: Member, union: bool = False) -> Any:
    """The view of an area that one structure fills."""
    return _view([*types, Composite("s", size, members, union)], size, ("s", len(types) + 1, 0, size))


def test_gaps_are_kept() -> None:
    view = _struct([U8, U32], 16, Member("a", 1, 0, 0), Member("b", 2, 64, 0))
    assert (view.a.offset, view.b.offset, ctypes.sizeof(view)) == (0, 8, 16)


def test_packed_structures_stay_packed() -> None:
    view = _struct([U8, U64], 9, Member("a", 1, 0, 0), Member("b", 2, 8, 0))
    assert (view.b.offset, ctypes.sizeof(view)) == (1, 9)


def test_variables_in_any_order_with_gaps() -> None:
    view = _view([U8, U64], 32, ("late", 2, 24, 8), ("early", 1, 3, 1))
    assert (view.early.offset, view.late.offset, ctypes.sizeof(view)) == (3, 24, 32)


def test_arrays_of_arrays() -> None:
    types: list[Type] = [U16, Array(1, 1, 3), Array(2, 1, 2)]
    view = _view(types, 12, ("grid", 3, 0, 12))
    area = view.from_buffer_copy(b"".join(n.to_bytes(2, "little") for n in range(6)))
    assert [list(row) for row in area.grid] == [[0, 1, 2], [3, 4, 5]]


def test_kinds_of_scalars() -> None:
    types: list[Type] = [
        Int("_Bool", 1, False, True, 8, 0),
        Int("s16", 2, True, False, 16, 0),
        Enum("mode", 4, False, {"A": 0}),
        Enum("delta", 1, True, {"N": -1}),
        Pointer(0),
        Float("double", 8),
        Synonym(Alias.TYPEDEF, "count_t", 8),
        Synonym(Alias.VOLATILE, "", 9),
        U32,
    ]
    at, rows = 0, []
    for number, size in ((1, 1), (2, 2), (3, 4), (4, 1), (5, 8), (6, 8), (7, 4)):
        rows.append((f"v{number}", number, at, size))
        at += size
    view = _view(types, at, *rows)
    area = view.from_buffer_copy(b"\xff" * at)
    assert area.v1 is True
    assert (area.v2, area.v3, area.v4) == (-1, 0xFFFFFFFF, -1)
    assert (area.v5, area.v7) == (2**64 - 1, 2**32 - 1)


def test_unnamed_members_of_unnamed_members() -> None:
    inner = Composite("", 4, (Member("low", 2, 0, 0), Member("high", 2, 16, 0)), False)
    both = Composite("", 4, (Member("whole", 1, 0, 0), Member("", 3, 0, 0)), True)
    view = _struct([U32, U16, inner, both], 8, Member("first", 1, 0, 0), Member("", 4, 32, 0))
    area = view.from_buffer_copy(bytes(4) + b"\x01\x02\x03\x04")
    assert (area.whole, area.low, area.high) == (0x04030201, 0x0201, 0x0403)


@given(st.lists(st.tuples(st.sampled_from((1, 2, 4, 8)), st.integers(0, 9)), min_size=1, max_size=12))
def test_any_layout_is_kept(rows: list[tuple[int, int]]) -> None:
    """Fields of any size after any gap: each reads the bytes at its own offset."""
    numbers = {1: 1, 2: 2, 4: 3, 8: 4}
    members, at, places = [], 0, []
    for index, (size, gap) in enumerate(rows):
        at += gap
        members.append(Member(f"f{index}", numbers[size], 8 * at, 0))
        places.append((at, size))
        at += size
    view = _struct([U8, U16, U32, U64], at, *members)
    image = bytes(n * 37 & 0xFF for n in range(at))
    area = view.from_buffer_copy(image)
    for index, (offset, size) in enumerate(places):
        assert getattr(area, f"f{index}") == int.from_bytes(image[offset : offset + size], "little")


def _refused(message: str, types: list[Type], size: int, *variables: tuple[str, int, int, int]) -> None:
    with pytest.raises(Rejected, match=f"^{re.escape(message)}"):
        _view(types, size, *variables)


def test_bit_fields() -> None:
    flags = Composite("flags", 1, (Member("ready", 1, 0, 1),), False)
    _refused("O015: `ready` of `flags` is a bit-field", [U8, flags], 1, ("v", 2, 0, 1))


def test_types_without_a_counterpart() -> None:
    wide = Int("__int128", 16, True, False, 128, 0)
    message = "O015: `v` is of type `__int128`, which has no counterpart of 16 bytes"
    _refused(message, [wide], 16, ("v", 1, 0, 16))
    _refused("O015: `v` is of an incomplete type", [Forward("s", False)], 8, ("v", 1, 0, 8))
    _refused("O015: `v` is of an incomplete type", [], 8, ("v", 0, 0, 8))


def test_type_that_contains_itself() -> None:
    loop = Composite("loop", 8, (Member("next", 1, 0, 0),), False)
    _refused("O015: the type of `next` contains itself", [loop], 8, ("v", 1, 0, 8))
    _refused("O015: the type of `v` contains itself", [Array(1, 1, 1)], 8, ("v", 1, 0, 8))
    _refused("O014: type 1 is a synonym of a synonym", [Synonym(Alias.CONST, "", 1)], 8, ("v", 1, 0, 8))


def test_type_that_nests_without_end() -> None:
    types: list[Type] = [U8, *(Array(n, 1, 1) for n in range(1, 200))]
    _refused(f"O015: the type of `v` nests more than {limits.TYPE_DEPTH}", types, 1, ("v", 200, 0, 1))


def test_array_of_enormous_size() -> None:
    _refused("O015: array `v` has more than", [U8, Array(1, 1, 2**32 - 1)], 8, ("v", 2, 0, 8))
    empty = Composite("none", 0, (), False)
    _refused("O015: array `v` has more than", [empty, Array(1, 1, 2**32 - 1)], 8, ("v", 2, 0, 0))


def test_overlaps() -> None:
    _refused("O015: `b` of `Scratch` overlaps", [U32], 8, ("a", 1, 0, 4), ("b", 1, 2, 4))
    _refused("O015: the fields of `Scratch` end at byte 8", [U32], 6, ("a", 1, 0, 4), ("b", 1, 4, 4))


def test_names_that_a_field_cannot_have() -> None:
    for name in ("_fields_", "__class__", "a b"):
        bad = Composite("s", 1, (Member(name, 1, 0, 0),), False)
        _refused(f"O015: `{name}` of `s` is not a name", [U8, bad], 1, ("v", 2, 0, 1))
    twice = Composite("s", 2, (Member("a", 1, 0, 0), Member("a", 1, 8, 0)), False)
    _refused("O015: `s` has two fields `a`", [U8, twice], 2, ("v", 2, 0, 2))


def test_variable_of_another_size_than_its_type() -> None:
    _refused("O014: `v` has 8 bytes, its type 4", [U32], 8, ("v", 1, 0, 8))


def test_reference_to_no_type() -> None:
    _refused("O014: type 99 is used, and the types end at", [U32], 8, ("v", 99, 0, 8))
