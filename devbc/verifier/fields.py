"""Names of bytes of the shared area, from the program's own type information.

Takes any `ctypes.Structure`; nothing is decided by a name.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

from devbc.program.program import Program
from devbc.program.verified import ByteRange


def scratch_names(program: Program, touched: Sequence[ByteRange]) -> list[str]:
    """The fields of the shared area that ranges touch; nothing without BTF."""
    area = program.scratch_type
    return [] if area is None else list(field_names(area, touched))


def field_names(area: type[ctypes.Structure], touched: Sequence[ByteRange]) -> Iterator[str]:
    """Names of the members that the ranges overlap, elements of arrays together: `channel[0..=2].count`."""
    yield from (name.removeprefix(".") for name in _names(area, touched, 0))


def folded(names: Sequence[str]) -> list[str]:
    """Names as people list them: members of one structure together, `channel[2].{count, mode}`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        whole, dot, member = name.rpartition(".")
        groups.setdefault(whole if dot else name, []).append(member if dot else "")
    return [
        name if members == [""] else f"{name}.{members[0]}" if len(members) == 1
        else f"{name}.{{{', '.join(members)}}}"
        for name, members in groups.items()
    ]  # fmt: skip


def _names(kind: Any, touched: Sequence[ByteRange], offset: int) -> Iterator[str]:
    """What to append to the name of something of this type at `offset` to name its parts that are touched."""
    if issubclass(kind, ctypes.Array):
        indices: dict[str, list[int]] = {}
        for index in _elements(kind, touched, offset):
            for rest in _names(kind._type_, touched, offset + index * ctypes.sizeof(kind._type_)):
                indices.setdefault(rest, []).append(index)
        yield from (f"[{_numbers(which)}]{rest}" for rest, which in indices.items())
    elif issubclass(kind, ctypes.Structure):
        for name, member, *_ in getattr(kind, "_fields_", ()):
            start = offset + getattr(kind, name).offset
            end = start + ctypes.sizeof(member)
            padding = name.startswith("_")
            if not padding and any(each.start < end and start < each.end for each in touched):
                yield from (f".{name}{rest}" for rest in _names(member, touched, start))
    else:
        yield ""


def _elements(kind: Any, touched: Sequence[ByteRange], offset: int) -> list[int]:
    """Indices of an array's elements that the ranges overlap, in order."""
    size = ctypes.sizeof(kind._type_)
    found: dict[int, None] = {}
    for each in touched:
        first, end = (each.start - offset) // size, -((offset - each.end) // size)
        found |= dict.fromkeys(range(max(0, first), min(kind._length_, end)))
    return list(found)


def _numbers(numbers: list[int]) -> str:
    """`1`, `0..=2` or `0..=2, 7`."""
    runs: list[list[int]] = []
    for each in numbers:
        if runs and runs[-1][-1] == each - 1:
            runs[-1][1:] = [each]
        else:
            runs.append([each])
    return ", ".join("..=".join(map(str, run)) for run in runs)
