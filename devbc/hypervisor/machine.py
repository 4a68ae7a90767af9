"""Machine files: which devices sit where, and how their lines are wired (TOML).

[[device]]                              [[wire]]
name = "pit"                            from = "hpet.legacy"
type = "i8254"                          to = "pit.irq_disable"      # or "guest.0"
at = { pio = 0x40, speaker = 0x61 }
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devbc.diagnostics import Span, did_you_mean, reject
from devbc.hypervisor import errors
from devbc.hypervisor.wiring import WireSpec
from devbc.limits import DEVICES, GUEST_LINES

#: What a device may be called, and its folder: names are shown on terminals and looked up in file systems.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A device of a machine: its name there, the device folder it comes from, an address for each bank."""

    name: str
    type: str
    at: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    devices: tuple[DeviceEntry, ...]
    wires: tuple[WireSpec, ...]


def parse_machine(data: bytes, *, name: str, file: str) -> Machine:
    """Read a machine file. Raises Rejected (H002 with what is malformed, H008 if it is too large)."""
    span = Span(file)
    try:
        content = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise reject(errors.BAD_MACHINE, "it is not UTF-8 text", span) from None
    except tomllib.TOMLDecodeError as error:
        reason, place = _toml_fault(str(error), data.decode(), file)
        raise reject(errors.BAD_MACHINE, f"it is not TOML: {reason}", place) from None
    except (ValueError, RecursionError):
        # What the parser of TOML does not catch itself: thousands of digits, thousands of brackets.
        message = "it has a number or a nesting that no machine file needs"
        raise reject(errors.BAD_MACHINE, message, span) from None
    _known_keys(content, ("device", "wire"), "a machine file", span)
    entries = _tables(content, "device", span)
    if not entries:
        raise reject(errors.BAD_MACHINE, "a machine has at least one `[[device]]`", span)
    if len(entries) > DEVICES:
        message = f"the machine has {len(entries):,} devices, and may have {DEVICES:,}"
        raise reject(errors.TOO_LARGE, message, span)
    devices = tuple(_device(entry, span) for entry in entries)
    names = [device.name for device in devices]
    if twice := next((each for each in names if names.count(each) > 1), None):
        raise reject(errors.BAD_MACHINE, f"two devices are called `{twice}`", span)
    wires = tuple(_wire(entry, span) for entry in _tables(content, "wire", span))
    return Machine(name, devices, wires)


def _device(entry: Mapping[str, Any], span: Span) -> DeviceEntry:
    what = f"device `{entry['name']}`" if isinstance(entry.get("name"), str) else "a device"
    _known_keys(entry, ("name", "type", "at"), what, span)
    name, kind, at = (_value(entry, key, type_, what, span) for key, type_ in _DEVICE_KEYS.items())
    for text in (name, kind):
        check_name(text, span)
    if not at:
        raise reject(errors.BAD_MACHINE, f"{what} sits nowhere: `at` is empty", span)
    for bank, address in at.items():
        if not isinstance(address, int) or isinstance(address, bool) or address < 0:
            raise reject(errors.BAD_MACHINE, f"{what}: the address of bank `{bank}` is not a number", span)
    return DeviceEntry(name, kind, at)


def check_name(text: str, span: Span | None = None) -> None:
    """Refuse (H002) what is no name for a device."""
    if not _NAME.fullmatch(text) or text == "guest":
        message = f"`{text}` is no name for a device: letters, digits, `_` and `-`, and not `guest`"
        raise reject(errors.BAD_MACHINE, message, span)


def _wire(entry: Mapping[str, Any], span: Span) -> WireSpec:
    _known_keys(entry, ("from", "to"), "a wire", span)
    source, target = (_value(entry, key, str, "a wire", span) for key in ("from", "to"))
    return wire_between(source, target, span)


def wire_between(source_text: str, target_text: str, span: Span | None = None) -> WireSpec:
    """The wire from `device.line` to `device.input` or `guest.N`. Raises Rejected (H002) for other words."""
    source, target = parse_port(source_text, span), parse_port(target_text, span)
    if target[0] != "guest":
        return WireSpec(*source, *target)
    if not re.fullmatch("[0-9]{1,4}", target[1]) or int(target[1]) >= GUEST_LINES:
        message = f"the guest's lines are `guest.0` to `guest.{GUEST_LINES - 1}`, not `guest.{target[1]}`"
        raise reject(errors.BAD_MACHINE, message, span)
    return WireSpec(*source, guest=int(target[1]))


def parse_port(text: str, span: Span | None = None) -> tuple[str, str]:
    """The device and the port of `device.port`. Raises Rejected (H002)."""
    device, dot, port = text.partition(".")
    if not (device and dot and port):
        raise reject(errors.BAD_MACHINE, f"`{text}` is not of the form `device.line`", span)
    return device, port


_DEVICE_KEYS: dict[str, type] = {"name": str, "type": str, "at": dict}
_TYPE_NAMES: dict[type, str] = {str: "a string", dict: "a table of addresses", list: "a list of tables"}


def _value(entry: Mapping[str, Any], key: str, type_: type, what: str, span: Span) -> Any:
    if key not in entry:
        raise reject(errors.BAD_MACHINE, f"{what} lacks `{key}`", span)
    if not isinstance(entry[key], type_):
        raise reject(errors.BAD_MACHINE, f"`{key}` of {what} is not {_TYPE_NAMES[type_]}", span)
    return entry[key]


def _tables(content: Mapping[str, Any], key: str, span: Span) -> list[Mapping[str, Any]]:
    tables = content.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise reject(errors.BAD_MACHINE, f"`{key}` is not a list of tables: write `[[{key}]]`", span)
    return tables


def _known_keys(entry: Mapping[str, Any], known: tuple[str, ...], what: str, span: Span) -> None:
    for key in entry:
        if key not in known:
            help = did_you_mean(key, known)
            raise reject(errors.BAD_MACHINE, f"{what} has no key `{key}`", span, help=help)


def _toml_fault(message: str, content: str, file: str) -> tuple[str, Span]:
    """What `tomllib` says, and the place that it puts at the end, in brackets."""
    reason, _, where = message.removesuffix(")").rpartition(" (at ")
    reason = reason[:1].lower() + reason[1:]
    if not (place := re.fullmatch(r"line (\d+), column (\d+)", where)):
        return f"{reason} at {where}", Span(file)
    line, column = int(place[1]), int(place[2])
    return reason, Span(file, line, column, column + 1, content.splitlines()[line - 1])
