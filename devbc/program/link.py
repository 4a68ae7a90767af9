"""The linker: each handler's function and all that it calls, as one self-contained piece of byte code.

What holds of the result: the entry is at slot 0, every callee follows once, local calls go to the first slot
of a function, jumps stay in their function, no function runs past its end, and addresses of the shared area
and of read-only data are `lddw` of map values, inside the section that the source named. That is the shape
which the verifier starts from; whether an access is sound is its business, not the linker's.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from devbc import limits
from devbc.abi import SCRATCH_SECTION, MapIndex
from devbc.diagnostics import Code, Rejected, Span, reject
from devbc.isa.insn import Insn, decode, encode
from devbc.isa.opcodes import SPECS, Kind, Operation
from devbc.program import errors
from devbc.program.btf import LineEntry, LineInfo
from devbc.program.container import Container, Relocation, Section, Symbol
from devbc.program.program import Function

_MAP_VALUE: Final = next(spec for spec in SPECS.values() if spec.operation is Operation.MAP_VALUE_BY_IDX)
_SLOT_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where a section's variables lie: the region, and the section's first byte in it."""

    map: MapIndex
    base: int


@dataclass(frozen=True, slots=True)
class Extent:
    """A function as it stands in the object: `slots` slots from the slot `start` of its section."""

    name: str
    section: Section
    start: int
    slots: int
    is_global: bool

    @property
    def end(self) -> int:
        return self.start + self.slots


@dataclass(frozen=True, slots=True)
class _Body:
    """A function's instructions by its own slots, addresses resolved; `calls` still need their target."""

    insns: Mapping[int, Insn]
    calls: Mapping[int, Extent]


@dataclass(frozen=True, slots=True)
class LinkedCode:
    code: bytes
    functions: tuple[Function, ...]
    lines: Mapping[int, Span]


class Linker:
    """Links the handlers of one object; functions that several handlers reach are read once."""

    def __init__(self, container: Container, places: Mapping[int, Place], lines: LineInfo) -> None:
        self._container = container
        self._places = places
        self._lines = lines
        self._extents = _extents(container)
        self._bodies: dict[tuple[int, int], _Body] = {}
        self._linked: dict[tuple[int, int], LinkedCode] = {}
        self._relocations: dict[int, dict[int, Relocation]] = {}
        self._slots_left = limits.PROGRAM_SLOTS

    def functions(self, section: Section) -> list[Extent]:
        """The functions of a section, in order."""
        return list(self._extents.get(section.index, {}).values())

    def link(self, entry: Extent) -> LinkedCode:
        """Link a handler, for each of its bindings. Raises Rejected with the first fault of each kind."""
        known = self._linked.get(_key(entry))
        if known is not None:
            self._charge(entry, len(known.code) // _SLOT_BYTES)
            return known
        order, bases, slots = [entry], {_key(entry): 0}, entry.slots
        for function in order:  # grows while it is walked: callees are appended behind
            self._check_size(entry, slots)
            for callee in self._body(function).calls.values():
                if _key(callee) not in bases:
                    bases[_key(callee)] = slots
                    slots += callee.slots
                    order.append(callee)
        self._charge(entry, slots)
        insns: list[Insn] = []
        lines: dict[int, Span] = {}
        for function in order:
            base, body = bases[_key(function)], self._body(function)
            for slot, insn in body.insns.items():
                callee_at = bases[_key(body.calls[slot])] if slot in body.calls else None
                insns.append(insn if callee_at is None else replace(insn, imm=callee_at - base - slot - 1))
            lines |= self._spans(function, base)
        functions = tuple(Function(function.name, bases[_key(function)]) for function in order)
        linked = self._linked[_key(entry)] = LinkedCode(encode(insns), functions, lines)
        return linked

    def _charge(self, entry: Extent, slots: int) -> None:
        self._check_size(entry, slots)
        self._slots_left -= slots

    def _check_size(self, entry: Extent, slots: int) -> None:
        if slots > limits.HANDLER_SLOTS:
            message = (
                f"handler `{entry.name}` has more than {limits.HANDLER_SLOTS:,} instructions with its callees"
            )
            raise reject(errors.TOO_LARGE, message, self._span(entry, 0))
        if slots > self._slots_left:
            message = (
                f"the handlers have more than {limits.PROGRAM_SLOTS:,} instructions, callees counted in each"
            )
            raise reject(errors.TOO_LARGE, message, self._span(entry, 0))

    def _body(self, function: Extent) -> _Body:
        key = _key(function)
        if key not in self._bodies:
            self._bodies[key] = self._read_body(function)
        return self._bodies[key]

    def _read_body(self, function: Extent) -> _Body:
        code = bytes(function.section.data[function.start * _SLOT_BYTES : function.end * _SLOT_BYTES])
        insns = decode(code, name=self._where(function))
        self._check_flow(function, insns)
        relocations = self._relocations_of(function.section)
        calls: dict[int, Extent] = {}
        used = 0
        for slot, insn in insns.items():
            relocation = relocations.get((function.start + slot) * _SLOT_BYTES)
            used += relocation is not None
            if insn.spec.operation is Operation.CALL_LOCAL:
                calls[slot] = self._callee(function, slot, insn, relocation)
            elif relocation is not None:
                insns[slot] = self._address(function, slot, insn, relocation)
        offsets = list(relocations)
        first = bisect.bisect_left(offsets, function.start * _SLOT_BYTES)
        last = bisect.bisect_left(offsets, function.end * _SLOT_BYTES)
        if used != last - first:
            raise self._reject(errors.BAD_RELOCATION, "a relocation is not at an instruction", function, 0)
        return _Body(insns, calls)

    def _check_flow(self, function: Extent, insns: Mapping[int, Insn]) -> None:
        for slot, insn in insns.items():
            target = insn.target(slot)
            is_jump = insn.spec.kind in (Kind.JUMP, Kind.JA)
            if is_jump and target not in insns:
                message = f"the jump goes to slot {target}, where `{function.name}` has no instruction"
                raise self._reject(errors.LEAVES_FUNCTION, message, function, slot)
        last = max(insns)
        if insns[last].spec.kind not in (Kind.EXIT, Kind.JA):
            message = f"`{function.name}` runs past its end"
            raise self._reject(errors.LEAVES_FUNCTION, message, function, last)

    def _relocations_of(self, section: Section) -> dict[int, Relocation]:
        if section.index not in self._relocations:
            found = self._container.relocations(section)
            by_offset = {each.offset: each for each in sorted(found, key=lambda each: each.offset)}
            if len(by_offset) != len(found):
                raise self._container.fault(f"two relocations at one place of section `{section.name}`")
            self._relocations[section.index] = by_offset
        return self._relocations[section.index]

    def _callee(self, function: Extent, slot: int, insn: Insn, relocation: Relocation | None) -> Extent:
        section, target = function.section, function.start + slot + 1 + insn.imm
        if relocation is not None:
            if relocation.kind != "R_BPF_64_32":
                message = f"a call with relocation `{relocation.kind}`"
                raise self._reject(errors.BAD_RELOCATION, message, function, slot)
            section = self._target_section(function, slot, relocation.symbol, errors.BAD_CALL)
            # The symbol's place and the immediate together say the target, in slots less one: a function's
            # own symbol comes with -1, a section's with the function's place in it.
            target = relocation.symbol.value // _SLOT_BYTES + insn.imm + 1
        callee = self._extents.get(section.index, {}).get(target)
        if callee is None:
            message = f"the call goes to slot {target} of section `{section.name}`, where no function starts"
            raise self._reject(errors.BAD_CALL, message, function, slot)
        return callee

    def _address(self, function: Extent, slot: int, insn: Insn, relocation: Relocation) -> Insn:
        symbol = relocation.symbol
        if relocation.kind != "R_BPF_64_64" or insn.spec.operation is not Operation.IMM64:
            message = f"relocation `{relocation.kind}` for `{insn.spec.name}`"
            raise self._reject(errors.BAD_RELOCATION, message, function, slot)
        section = self._target_section(function, slot, symbol, errors.BAD_RELOCATION)
        place = self._places.get(section.index)
        if place is None:
            what = "a function" if section.is_code else f"section `{section.name}`"
            message = f"the address of `{symbol.name}`, in {what}, is used"
            raise self._reject(errors.BAD_RELOCATION, message, function, slot)
        offset = (symbol.value + insn.imm) & (1 << 64) - 1
        # The address behind the last byte is one that C may form; the verifier sees to what is done with it.
        if offset > section.size:
            distance = offset - (1 << 64) if offset >> 63 else offset
            message = (
                f"the address is byte {distance:,} of section `{section.name}`, which has {section.size:,}"
            )
            raise self._reject(errors.BAD_RELOCATION, message, function, slot)
        return Insn(
            _MAP_VALUE, insn.dst, _MAP_VALUE.src or 0, 0, int(place.map) | (place.base + offset) << 32
        )

    def _target_section(self, function: Extent, slot: int, symbol: Symbol, code: Code) -> Section:
        match symbol.section:
            case int(index):
                return self._container.sections[index]
            case "SHN_UNDEF":
                message = f"`{symbol.name}` is declared, and not defined in the object"
                raise self._reject(errors.BAD_CALL, message, function, slot)
            case "SHN_COMMON":
                message = f"`{symbol.name}` is a common variable, outside `{SCRATCH_SECTION}`"
                raise self._reject(errors.PRIVATE_DATA, message, function, slot)
            case special:
                message = f"`{symbol.name}` is in the special section {special}"
                raise self._reject(code, message, function, slot)

    def _reject(self, code: Code, message: str, function: Extent, slot: int) -> Rejected:
        return reject(code, message, self._span(function, slot))

    def _entries(self, function: Extent) -> list[LineEntry]:
        entries = self._lines.sections.get(function.section.name, [])
        first = bisect.bisect_left(entries, function.start, key=lambda entry: entry.slot)
        last = bisect.bisect_left(entries, function.end, key=lambda entry: entry.slot)
        return entries[first:last]

    def _where(self, function: Extent) -> str:
        return f"{self._container.name}:{function.name}"

    def _span(self, function: Extent, slot: int) -> Span:
        """The source place of an instruction, or the instruction itself."""
        entries = [entry for entry in self._entries(function) if entry.slot <= function.start + slot]
        return self._lines.span(entries[-1]) if entries else Span(self._where(function), slot)

    def _spans(self, function: Extent, base: int) -> dict[int, Span]:
        """Source places by linked slot. A function without any does not inherit those of the one before."""
        spans = {
            entry.slot - function.start + base: self._lines.span(entry) for entry in self._entries(function)
        }
        return (
            spans
            if base in spans or not self._lines.sections
            else {base: Span(self._where(function))} | spans
        )


def _extents(container: Container) -> dict[int, dict[int, Extent]]:
    """The functions of each code section, by their first slot."""
    found: dict[int, dict[int, Extent]] = {}
    for symbol in container.symbols:
        if symbol.kind != "STT_FUNC" or not isinstance(symbol.section, int):
            continue
        section = container.sections[symbol.section]
        if not section.is_code:
            raise _bad_function(container, symbol, section, "is not in a section of code")
        if symbol.size == 0:
            raise _bad_function(container, symbol, section, "has no size")
        if symbol.value % _SLOT_BYTES or symbol.size % _SLOT_BYTES:
            raise _bad_function(container, symbol, section, "does not consist of whole instructions")
        if symbol.value + symbol.size > section.size:
            raise _bad_function(container, symbol, section, "ends outside its section")
        extent = Extent(
            symbol.name, section, symbol.value // _SLOT_BYTES, symbol.size // _SLOT_BYTES, symbol.is_global
        )
        functions = found.setdefault(section.index, {})
        known = functions.get(extent.start)
        if known is None or (known.slots == extent.slots and extent.is_global and not known.is_global):
            functions[extent.start] = extent  # of two names for one function, the global one
        elif known.slots != extent.slots:
            raise _bad_function(container, symbol, section, f"overlaps `{known.name}`")
    for index, functions in found.items():
        found[index] = dict(sorted(functions.items()))
        ordered = list(found[index].values())
        for left, right in itertools.pairwise(ordered):
            if left.end > right.start:
                message = f"functions `{left.name}` and `{right.name}` of `{left.section.name}` overlap"
                raise reject(errors.BAD_FUNCTIONS, message, Span(container.name))
    return found


def _bad_function(container: Container, symbol: Symbol, section: Section, why: str) -> Rejected:
    message = f"function `{symbol.name}` of section `{section.name}` {why}"
    return reject(errors.BAD_FUNCTIONS, message, Span(container.name))


def _key(function: Extent) -> tuple[int, int]:
    return function.section.index, function.start
