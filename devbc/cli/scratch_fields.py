"""Fields of a shared area by name: `channel[0].count`, its type, its value; as BTF describes them.

Works on the ctypes structure made from BTF (`devbc.program.scratch_type`), on the area itself or on a copy.

Not here: the lock, and the command (`scratch.py`).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from devbc.cli.errors import BAD_FIELD
from devbc.diagnostics import Rejected, did_you_mean, reject

_STEP: Final = re.compile(r"(?:^|\.)(?P<name>[A-Za-z_]\w*)|\[(?P<index>0x[0-9a-fA-F]+|\d+)\]")
#: Fields that stand for the gaps between others.
_GAP: Final = re.compile(r"_gap\d+")
_TRUTH: Final = {"true": 1, "false": 0}

Scalar = int | float | bool


@dataclass(frozen=True, slots=True)
class Place:
    """A field: what holds it, by which name or index, and its type."""

    path: str
    holder: Any
    key: str | int
    ctype: Any

    @property
    def value(self) -> Any:
        return self.holder[self.key] if isinstance(self.key, int) else getattr(self.holder, self.key)

    @property
    def is_scalar(self) -> bool:
        return _is_scalar(self.ctype)

    def parse(self, text: str) -> Scalar:
        """A value for it. Raises Rejected (C005) if it is none that the field can have."""
        if not self.is_scalar:
            what = "an array" if issubclass(self.ctype, ctypes.Array) else "a structure"
            inner = next((each.path for each in leaves(self)), "")
            help = [f"name what is in it: `{inner}`"] if inner else []
            raise reject(BAD_FIELD, f"`{self.path}` is {what}, and only single values can be set", help=help)
        name = type_name(self.ctype)
        try:
            if name[0] == "f":
                return float(text)
            value = _TRUTH[text] if text in _TRUTH else int(text, 0)
        except ValueError:
            raise reject(BAD_FIELD, f"`{text}` is no {name}, which `{self.path}` is") from None
        low, high = _limits(self.ctype)
        if not low <= value <= high:
            message = f"`{self.path}` is {name}, {low:,} to {high:#x}, and cannot be {text}"
            raise reject(BAD_FIELD, message)
        return bool(value) if name == "bool" else value

    def store(self, value: Scalar) -> None:
        if isinstance(self.key, int):
            self.holder[self.key] = value
        else:
            setattr(self.holder, self.key, value)


def find(area: Any, path: str) -> Place:
    """The field of a path. Raises Rejected (C005), with the name that may have been meant."""
    place, end = None, 0
    while end < len(path):
        step = _STEP.match(path, end)
        if step is None or (place is None and step["name"] is None):
            raise reject(BAD_FIELD, f"`{path}` is no field's name: they are like `channel[0].count`")
        place = _step(area if place is None else place.value, place, path[: step.end()], step)
        end = step.end()
    if place is None:
        raise reject(BAD_FIELD, "a field's name is empty")
    return place


def _step(holder: Any, place: Place | None, path: str, step: re.Match[str]) -> Place:
    """One step further: a member of a structure, or an element of an array."""
    before = place.path if place else ""
    if step["index"] is not None:
        if not isinstance(holder, ctypes.Array):
            raise reject(BAD_FIELD, f"`{before}` is no array")
        index = int(step["index"], 0)
        if index >= len(holder):
            raise reject(BAD_FIELD, f"`{before}` has elements 0 to {len(holder) - 1}, not {index}")
        return Place(path, holder, index, type(holder)._type_)
    name = step["name"]
    members = _members(type(holder)) if isinstance(holder, ctypes.Structure | ctypes.Union) else {}
    if name not in members:
        raise _unknown(before, name, holder, members)
    return Place(path, holder, name, members[name])


def _unknown(before: str, name: str, holder: Any, members: dict[str, Any]) -> Rejected:
    what = f"`{before}`" if before else "the shared area"
    if isinstance(holder, ctypes.Array):
        return reject(BAD_FIELD, f"{what} is an array", help=[f"name an element: `{before}[0].{name}`"])
    if not members:
        return reject(BAD_FIELD, f"{what} is a number, and has no field `{name}`")
    listed = ", ".join(f"`{each}`" for each in members)
    help = did_you_mean(name, members) or [f"its fields are: {listed}"]
    return reject(BAD_FIELD, f"{what} has no field `{name}`", help=help)


def _members(ctype: Any) -> dict[str, Any]:
    """A structure's fields and their types; those of its unnamed members are its own."""
    found: dict[str, Any] = {}
    for name, inner in ctype._fields_:
        if name in getattr(ctype, "_anonymous_", ()):
            found |= _members(inner)
        elif not _GAP.fullmatch(name):
            found[name] = inner
    return found


def leaves(place: Place) -> Iterator[Place]:
    """The values in a field, and arrays of values whole: what a dump has a line for."""
    value, ctype = place.value, place.ctype
    if place.is_scalar or (issubclass(ctype, ctypes.Array) and _is_scalar(ctype._type_)):
        yield place
    elif issubclass(ctype, ctypes.Array):
        for index in range(len(value)):
            yield from leaves(Place(f"{place.path}[{index}]", value, index, ctype._type_))
    else:
        for name, inner in _members(ctype).items():
            yield from leaves(Place(f"{place.path}.{name}", value, name, inner))


def every(area: Any) -> Iterator[Place]:
    """The lines of a whole area's dump."""
    for name, inner in _members(type(area)).items():
        yield from leaves(Place(name, area, name, inner))


def type_name(ctype: Any) -> str:
    """`u32`, `i8`, `bool`, `f64`, `[u8; 16]`; a structure's own name."""
    if issubclass(ctype, ctypes.Array):
        return f"[{type_name(ctype._type_)}; {ctype._length_}]"
    if not _is_scalar(ctype):
        return str(ctype.__name__)
    if ctype is ctypes.c_bool:
        return "bool"
    kind = "f" if ctype in (ctypes.c_float, ctypes.c_double) else "i" if ctype(-1).value < 0 else "u"
    return f"{kind}{8 * ctypes.sizeof(ctype)}"


def plain(place: Place) -> Any:
    """A field's value as JSON has it: numbers, truth values, lists, objects."""
    return _plain(place.value)


def _plain(value: Any) -> Any:
    if isinstance(value, ctypes.Array):
        return [_plain(each) for each in value]
    if isinstance(value, ctypes.Structure | ctypes.Union):
        return {name: _plain(getattr(value, name)) for name in _members(type(value))}
    return value


def shown(value: Any) -> str:
    """A value for people; of an array, what repeats is said once."""
    if isinstance(value, ctypes.Array):
        runs = ((each, len(list(found))) for each, found in groupby(value))
        return "[" + ", ".join(f"{shown(each)} x{count}" if count > 3 else ", ".join([shown(each)] * count)
                               for each, count in runs) + "]"  # fmt: skip
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > 9:
        return f"{value:#x}"
    return str(value)


def _is_scalar(ctype: Any) -> bool:
    return not issubclass(ctype, ctypes.Array | ctypes.Structure | ctypes.Union)


def _limits(ctype: Any) -> tuple[int, int]:
    if ctype is ctypes.c_bool:
        return 0, 1
    bits = 8 * ctypes.sizeof(ctype)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if ctype(-1).value < 0 else (0, (1 << bits) - 1)
