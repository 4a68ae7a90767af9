"""From the bytes of an object file to a `Program`: the stages, and what handlers and data must be together.

The object may come from our compiler, from clang, or from an adversary. Each stage checks what it reads and
raises Rejected; nothing here trusts a size, a name or an offset of the file. The result is linked and whole,
and still unverified: whether its handlers are sound is for `devbc.verifier` to say.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from devbc import limits
from devbc.abi import (
    INFO_SECTION,
    SCRATCH_SECTION,
    AccessBinding,
    Binding,
    LineBinding,
    MapIndex,
    TimerBinding,
    is_handler_section,
    parse_bindings,
)
from devbc.diagnostics import Diagnostic, Rejected, Span, did_you_mean, reject
from devbc.program import errors
from devbc.program.btf import Btf, LineInfo, read_btf, read_lines
from devbc.program.container import Container, Section
from devbc.program.info import DeviceInfo, read_info
from devbc.program.link import Extent, Linker, Place
from devbc.program.program import Bank, Handler, Program
from devbc.program.scratch_type import scratch_type

#: Sections that Linux's loader asks for, and that say nothing to this machine.
_IGNORED: Final = frozenset({"license", "version"})
#: Faulty handlers that are reported together.
_FAULTS: Final = 16


def load_object(data: bytes, *, name: str) -> Program:
    """Load an ELF BPF object. `name` is the file's, for diagnoses. Raises Rejected, and nothing else."""
    container = Container(data, name=name)
    info = _read_info(container)
    handlers = _bound_sections(container)
    banks = _check_bindings(name, [each.binding for each in handlers], info)
    memory = _lay_out(container)
    btf, lines = _read_btf(container)
    linked = _link_all(Linker(container, memory.places, lines), handlers, name)
    return Program(
        device=info.device or re.sub(r"\W", "_", PurePath(name).stem) or "device",
        handlers=linked,
        scratch_image=memory.scratch,
        rodata=memory.rodata,
        names=info.names,
        banks=banks,
        registers=info.registers,
        scratch_type=_scratch_type(container, btf, len(memory.scratch)),
    )


def _read_info(container: Container) -> DeviceInfo:
    section = container.sole(INFO_SECTION)
    if section is None:
        return read_info(b"", name=container.name)
    _refuse_relocations(container, section)
    return read_info(bytes(section.data), name=container.name)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A handler: its section, what it is bound to, and the section's name that says this and no more."""

    section: Section
    binding: Binding
    name: str


def _bound_sections(container: Container) -> list[_Bound]:
    """The sections that hold handlers, once for each of their bindings."""
    found: list[_Bound] = []
    faults: list[Diagnostic] = []
    code_names: set[str] = set()
    for section in container.sections:
        if section.is_code and section.size:
            if section.name in code_names:
                # Line information names sections: with two of one name it could not be told whose it is.
                raise reject(
                    errors.DUPLICATE, f"there are two sections `{section.name}`", Span(container.name)
                )
            code_names.add(section.name)
        if section.kind in ("SHT_REL", "SHT_RELA") or not is_handler_section(section.name):
            continue
        bindings = _parse_bindings(section)
        if isinstance(bindings, str):
            message = f"section `{section.name}` binds no handler: {bindings}"
            faults.append(Diagnostic(errors.BAD_BINDING, message, Span(container.name)))
        elif len(bindings) == 1:
            found.append(_Bound(section, bindings[0], section.name))
        else:
            found += [_Bound(section, each, str(each)) for each in bindings]
        if len(found) > limits.HANDLERS:
            message = f"the object has more than {limits.HANDLERS:,} handlers"
            raise reject(errors.TOO_LARGE, message, Span(container.name))
    if faults:
        raise Rejected(*faults[:_FAULTS])
    if not found:
        others = ", ".join(f"`{each}`" for each in sorted(code_names)[:8])
        notes = [f"it has code in {others}"] if others else ["it has no code at all"]
        raise reject(
            errors.NO_HANDLER, f"`{container.name}` has no handler", Span(container.name), notes=notes
        )
    return found


def _parse_bindings(section: Section) -> tuple[Binding, ...] | str:
    bindings = parse_bindings(section.name)
    if isinstance(bindings, str):
        return bindings
    if not section.is_code:
        return "it is not a section of code"
    first = bindings[0]
    if isinstance(first, AccessBinding) and first.hi - first.lo >= limits.RANGE_OFFSETS:
        covered = first.hi - first.lo + 1
        return f"its range covers {covered:,} offsets, and may cover {limits.RANGE_OFFSETS:,}"
    return bindings


def _check_bindings(name: str, bindings: Iterable[Binding], info: DeviceInfo) -> tuple[Bank, ...]:
    """Check that the device has what handlers are bound to. Its banks, with those that only handlers name."""
    described = {bank.name: bank for bank in info.banks}
    implied: dict[str, Bank] = {}
    seen: dict[tuple[object, ...], list[Binding]] = {}
    for binding in bindings:
        key: tuple[object, ...] = (binding,)
        match binding:
            case TimerBinding(name=timer):
                _check_port(name, binding, timer, "timer", info.names.timers)
            case LineBinding(name=line):
                _check_port(name, binding, line, "input", info.names.inputs)
            case AccessBinding():
                key = (binding.bank, binding.op)
                if problem := _check_bank(binding, described, implied):
                    raise reject(errors.UNKNOWN_NAME, f"`{binding}`: {problem}", Span(name))
        for other in seen.setdefault(key, []):
            if clash := _overlap(binding, other):
                message = f"handlers `{other}` and `{binding}` both answer {clash}"
                raise reject(errors.DUPLICATE, message, Span(name))
        seen[key].append(binding)
    return (*described.values(), *implied.values())


def _check_port(name: str, binding: Binding, port: str, kind: str, known: Mapping[int, str]) -> None:
    if port not in known.values():
        help = did_you_mean(port, known.values()) or (f"number it with the string `{kind}.N={port}`",)
        message = f"handler `{binding}` is for {kind} `{port}`, which the device does not have"
        raise reject(errors.UNKNOWN_NAME, message, Span(name), help=help)


def _check_bank(
    binding: AccessBinding, described: Mapping[str, Bank], implied: dict[str, Bank]
) -> str | None:
    """What is wrong with a handler's bank, or None. A bank without description grows with its handlers."""
    bank = described.get(binding.bank) or implied.get(binding.bank)
    if bank is not None and bank.space != binding.space:
        return f"bank `{bank.name}` is in space `{bank.space}`"
    if binding.bank in described:
        size = described[binding.bank].size
        return f"bank `{binding.bank}` has {size:#x} bytes" if binding.hi >= size else None
    reach = max(binding.hi - (binding.hi - binding.lo) % size + size for size in binding.sizes)
    reach = max(reach, bank.size if bank else 0)
    implied[binding.bank] = Bank(binding.bank, binding.space, reach)
    return None


def _overlap(left: Binding, right: Binding) -> str | None:
    """An access that both of two bindings with the same key answer, in words."""
    if not isinstance(left, AccessBinding) or not isinstance(right, AccessBinding):
        return "it"
    first, last = max(left.lo, right.lo), min(left.hi, right.hi)
    for size in left.sizes:
        # Each answers lo, lo + size, ...: they meet if these run in step, and then from the later lo on.
        if size in right.sizes and (left.lo - right.lo) % size == 0 and first <= last:
            return f"{size} byte{'s' if size > 1 else ''} at {first:#x}"
    return None


@dataclass(frozen=True, slots=True)
class _Memory:
    """The data that code may refer to, and where each section of it lies."""

    scratch: bytes
    rodata: bytes
    places: Mapping[int, Place]


def _lay_out(container: Container) -> _Memory:
    places: dict[int, Place] = {}
    scratch = b""
    if (area := container.sole(SCRATCH_SECTION)) is not None:
        _check_data(container, area, area.size, limits.SCRATCH_BYTES, "the shared area")
        scratch = area.image()
        places[area.index] = Place(MapIndex.SCRATCH, 0)
    rodata = bytearray()
    for section in container.sections:
        if section.kind not in ("SHT_PROGBITS", "SHT_NOBITS") or not section.is_loaded or not section.size:
            continue
        if section.name == ".rodata" or section.name.startswith(".rodata."):
            base = (
                -(-len(rodata) // section.align) * section.align if section.align <= limits.ALIGNMENT else 0
            )
            _check_data(container, section, base + section.size, limits.RODATA_BYTES, "read-only data")
            rodata += bytes(base - len(rodata)) + section.image()
            places[section.index] = Place(MapIndex.RODATA, base)
        elif section.is_writable and section.name not in {SCRATCH_SECTION, INFO_SECTION, *_IGNORED}:
            raise _private_data(container, section)
    return _Memory(scratch, bytes(rodata), places)


def _check_data(container: Container, section: Section, size: int, most: int, what: str) -> None:
    if section.kind not in ("SHT_PROGBITS", "SHT_NOBITS"):
        raise container.fault(f"section `{section.name}` is of type {section.kind}")
    if size > most:
        message = f"{what} has {size:,} bytes, and may have {most:,}"
        raise reject(errors.TOO_LARGE, message, Span(container.name))
    if section.align > limits.ALIGNMENT:
        message = (
            f"section `{section.name}` is aligned to {section.align:,}, and may be to {limits.ALIGNMENT}"
        )
        raise reject(errors.TOO_LARGE, message, Span(container.name))
    _refuse_relocations(container, section)


def _refuse_relocations(container: Container, section: Section) -> None:
    if relocations := container.relocations(section):
        message = f"section `{section.name}` holds the address of `{relocations[0].symbol.name}`"
        help = ("use an offset or an index instead of a pointer",)
        raise reject(errors.BAD_RELOCATION, message, Span(container.name), help=help)


def _private_data(container: Container, section: Section) -> Rejected:
    variables = [
        each.name for each in container.symbols if each.section == section.index and each.kind == "STT_OBJECT"
    ]
    named = f": {', '.join(f'`{each}`' for each in variables[:4])}" if variables else ""
    what = "BPF maps" if "maps" in section.name else "variables"
    message = f"{what} in section `{section.name}`{named}"
    help = (f"put what must last into section `{SCRATCH_SECTION}`, and what never changes into `const`",)
    return reject(errors.PRIVATE_DATA, message, Span(container.name), help=help)


def _read_btf(container: Container) -> tuple[Btf | None, LineInfo]:
    types, lines = container.sole(".BTF"), container.sole(".BTF.ext")
    if types is None:
        return None, LineInfo()
    btf = read_btf(types.data, name=container.name)
    return btf, read_lines(lines.data, btf) if lines else LineInfo()


def _scratch_type(container: Container, btf: Btf | None, size: int) -> type[ctypes.Structure] | None:
    if btf is None:
        return None
    area = container.sole(SCRATCH_SECTION)
    offsets = {
        symbol.name: symbol.value
        for symbol in container.symbols
        if area and symbol.section == area.index and symbol.kind == "STT_OBJECT"
    }
    return scratch_type(btf, offsets, size)


def _link_all(linker: Linker, handlers: Iterable[_Bound], name: str) -> tuple[Handler, ...]:
    """Link every handler, or raise with the faults of all (up to a number that a person reads)."""
    linked: list[Handler] = []
    faults: list[Diagnostic] = []
    for bound in handlers:
        try:
            code = linker.link(_entry(linker, bound.section, name))
            linked.append(Handler(bound.name, bound.binding, code.code, code.functions, code.lines))
        except Rejected as rejected:
            # Handlers that share a faulty function have one fault between them.
            faults += [each for each in rejected.diagnostics if each not in faults]
            if len(faults) >= _FAULTS:
                break
    if faults:
        raise Rejected(*faults[:_FAULTS])
    return tuple(linked)


def _entry(linker: Linker, section: Section, name: str) -> Extent:
    """The handler in a section: its one global function."""
    entries = [function for function in linker.functions(section) if function.is_global]
    if len(entries) != 1:
        have = ", ".join(f"`{each.name}`" for each in entries[:4]) or "none"
        message = f"section `{section.name}` must have one global function, and has {have}"
        raise reject(errors.BAD_FUNCTIONS, message, Span(name))
    return entries[0]
