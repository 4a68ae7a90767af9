"""What an object's `.devbc` strings say of its device: its name, ports, banks and registers.

The strings are the only metadata that code cannot carry: which number a name has. They are checked among
themselves here; whether handlers fit them is checked in `devbc.program.elf`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from devbc import limits
from devbc.abi import CALL_NUMBERS, CALLS_PLACE, INFO_KEYS, INFO_SECTION, SIZES, Space
from devbc.diagnostics import Rejected, Span, did_you_mean, reject
from devbc.program import errors
from devbc.program.container import printable
from devbc.program.program import Bank, Names, Register

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CALL: Final = re.compile(rf"{_NAME.pattern}(\.(read|write))?", re.ASCII)
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}", re.ASCII)

#: What is numbered, and how many of each a device may have: ports (bits of a mask, slots in the exit), calls.
_PORTS: Final = {
    "timer": limits.TIMERS,
    "line": limits.LINES,
    "input": limits.LINES,
    "signal": limits.SIGNALS,
    "call": CALL_NUMBERS,
}

_Key = TypeVar("_Key")
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The strings, read. `device` is empty if they do not name it."""

    device: str
    names: Names
    banks: tuple[Bank, ...]
    registers: tuple[Register, ...]


def read_info(section: bytes, *, name: str) -> DeviceInfo:
    """Read the contents of a `.devbc` section of the object `name`; raises Rejected (O012)."""
    return _Reader(Span(f"{name}:{INFO_SECTION}")).read(section)


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str
    kind: str
    subject: str
    value: str


class _Reader:
    def __init__(self, span: Span) -> None:
        self.span = span

    def read(self, section: bytes) -> DeviceInfo:
        if section and not section.endswith(b"\0"):
            raise reject(errors.BAD_INFO, "the last string is not ended by a NUL", self.span)
        device = ""
        ports: dict[str, dict[int, str]] = {kind: {} for kind in _PORTS}
        banks: dict[str, Bank] = {}
        registers: dict[tuple[str, str], Register] = {}
        for entry in self._entries(section):
            match entry.kind:
                case "device":
                    if device:
                        raise self._fault(entry, "the device has a name already")
                    device = self._name(entry, entry.value)
                case "bank":
                    bank = self._bank(entry)
                    self._add(entry, banks, bank.name, bank)
                case "register":
                    register = self._register(entry)
                    self._add(entry, registers, (register.name, register.bank), register)
                case port:
                    self._port(entry, ports[port], _PORTS[port])
        for register in registers.values():
            self._check_place(register, banks)
        names = Names(ports["timer"], ports["line"], ports["input"], ports["signal"], ports["call"])
        return DeviceInfo(device, names, tuple(banks.values()), tuple(registers.values()))

    def _entries(self, section: bytes) -> Iterator[_Entry]:
        for raw in section.split(b"\0"):
            if not raw:
                continue  # padding between variables of the section
            if len(raw) > limits.NAME_BYTES:
                message = f"a string of {len(raw):,} bytes, and it may have {limits.NAME_BYTES:,}"
                raise reject(errors.BAD_INFO, message, self.span)
            text = printable(raw)
            key, equals, value = text.partition("=")
            kind, dot, subject = key.partition(".")
            entry = _Entry(text, kind, subject, value)
            if not equals:
                raise self._fault(entry, "it is not of the form `key=value`")
            if kind not in INFO_KEYS:
                raise self._fault(entry, f"there is no key `{kind}`", help=did_you_mean(kind, INFO_KEYS))
            if bool(dot) == (kind == "device"):
                wants = "`device=NAME`" if kind == "device" else f"`{kind}.{_subject(kind)}=...`"
                raise self._fault(entry, f"it must have the form {wants}")
            yield entry

    def _port(self, entry: _Entry, known: dict[int, str], most: int) -> None:
        number, name = self._number(entry, entry.subject), entry.value
        if not (_CALL if entry.kind == "call" else _NAME).fullmatch(name):
            raise self._fault(entry, f"`{name}` is not a name")
        if number >= most:
            raise self._fault(entry, f"{entry.kind}s are numbered from 0 to {most - 1}")
        if number in known:
            raise self._fault(entry, f"{entry.kind} {number} is called `{known[number]}` already")
        if name in known.values():
            raise self._fault(entry, f"another {entry.kind} is called `{name}`")
        known[number] = name

    def _bank(self, entry: _Entry) -> Bank:
        name = self._name(entry, entry.subject)
        if name == CALLS_PLACE:
            raise self._fault(entry, "machine files call the device's hypercalls so")
        space, colon, size = entry.value.partition(":")
        if space not in list(Space) or not colon:
            raise self._fault(entry, "a bank has the form `SPACE:BYTES`, with space `pio` or `mmio`")
        length = self._number(entry, size)
        if not 0 < length < 1 << 63:
            raise self._fault(entry, f"no bank has {length:,} bytes")
        return Bank(name, Space(space), length)

    def _register(self, entry: _Entry) -> Register:
        bank, *rest = entry.value.split(":")
        if len(rest) not in (2, 4):
            raise self._fault(entry, "a register has the form `BANK:OFFSET:SIZE[:COUNT:STRIDE]`")
        offset, size, count, stride = [*(self._number(entry, each) for each in rest), 1, 0][:4]
        if size not in SIZES:
            raise self._fault(entry, f"a register has 1, 2, 4 or 8 bytes, not {size}")
        if count < 1 or (count > 1 and stride < size):
            raise self._fault(entry, f"{count} registers of {size} bytes cannot stand {stride} bytes apart")
        return Register(
            self._name(entry, entry.subject), self._name(entry, bank), offset, size, count, stride
        )

    def _check_place(self, register: Register, banks: dict[str, Bank]) -> None:
        where = f"register `{register.name}`"
        bank = banks.get(register.bank)
        if bank is None:
            message = f"{where} is in bank `{register.bank}`, which is not described"
            raise reject(errors.BAD_INFO, message, self.span, help=did_you_mean(register.bank, banks))
        end = register.offset + (register.count - 1) * register.stride + register.size
        if end > bank.size:
            message = f"{where} ends at {end:#x}, and bank `{bank.name}` has {bank.size:#x} bytes"
            raise reject(errors.BAD_INFO, message, self.span)

    def _add(self, entry: _Entry, known: dict[_Key, _Item], key: _Key, item: _Item) -> None:
        if key in known:
            raise self._fault(entry, f"{entry.kind} `{entry.subject}` is described already")
        known[key] = item

    def _name(self, entry: _Entry, text: str) -> str:
        if not _NAME.fullmatch(text):
            raise self._fault(entry, f"`{text}` is not a name")
        return text

    def _number(self, entry: _Entry, text: str) -> int:
        if not _NUMBER.fullmatch(text):
            raise self._fault(entry, f"`{text}` is not a number")
        return int(text, 16 if text[:2] in ("0x", "0X") else 10)

    def _fault(self, entry: _Entry, why: str, *, help: Iterable[str] = ()) -> Rejected:
        return reject(errors.BAD_INFO, f"`{entry.text}`: {why}", self.span, help=help)


def _subject(kind: str) -> str:
    return "N" if kind in _PORTS else "NAME"
