"""`devbc scratch`: a device's shared area, by the names that its program gives to its fields."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from devbc.cli.errors import BAD_FIELD, LOCK_HELD
from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import actions, find_device, opened, said, vm_option
from devbc.diagnostics import reject

if TYPE_CHECKING:
    from devbc.client import Device

SUMMARY = "print and set fields of a device's shared area, by their names"
EXAMPLES = """\
  devbc scratch dump --vm pc pit
  devbc scratch dump --vm pc pit channel[0] speaker_data
  devbc scratch set --vm pc pit channel[0].count=0x1234
"""
_NOTES = """\
Names and types are the program's own, from its BTF. All fields of a command are read or set at one moment,
under the device's lock: accesses that meet it go to userspace, as they do while a model works.
"""
#: Seconds to wait for the lock, which nobody should hold for a thousandth of them.
_PATIENCE = 2.0
#: Bytes of a line, where there are no names.
_ROW = 16


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    actions(
        parser,
        [
            (
                "dump",
                "print fields of a device's shared area",
                "  devbc scratch dump --vm pc pit\n  devbc scratch dump --vm pc pit channel[0].count\n",
                _configure_dump,
            ),
            (
                "set",
                "set fields of a device's shared area",
                "  devbc scratch set --vm pc pit channel[0].count=0x1234 speaker_data=true\n",
                _configure_set,
            ),
        ],
    )


def _configure_dump(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="a device of the VM")
    parser.add_argument("fields", nargs="*", metavar="FIELD", help="which fields (default: all)")
    vm_option(parser)


def _configure_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="a device of the VM")
    parser.add_argument("fields", nargs="+", type=_assignment, metavar="FIELD=VALUE", help="what to set")
    vm_option(parser)


def _assignment(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"`{text}` is not FIELD=VALUE")
    return field.strip(), value.strip()


def run(args: argparse.Namespace, output: Output) -> int:
    with opened(args) as vm:
        device = find_device(vm, args.device)
        if args.action == "set":
            return _set(device, args.fields, output)
        return _dump(device, args.fields, output)


def _dump(device: Device, fields: Sequence[str], output: Output) -> int:
    from devbc.cli.scratch_fields import every, find, leaves, plain, shown, type_name

    with locked(device):
        copy = bytearray(device.bytes)
    view = device.program.scratch_type
    if view is None:
        return _dump_bytes(device, copy, fields, output)
    area: Any = view.from_buffer(copy)
    places = [find(area, each) for each in fields]
    if output.json:
        chosen = {each.path: plain(each) for each in places or every(area)}
        output.object({"ok": True, "device": device.name, "fields": chosen})
        return EXIT_OK
    lines = [leaf for place in places for leaf in leaves(place)] if fields else [*every(area)]
    width = max((len(each.path) for each in lines), default=0)
    kinds = max((len(type_name(each.ctype)) for each in lines), default=0)
    for each in lines:
        output.text(f"{each.path:<{width}}  {type_name(each.ctype):<{kinds}}  {shown(each.value)}")
    return EXIT_OK


def _dump_bytes(device: Device, copy: bytearray, fields: Sequence[str], output: Output) -> int:
    if fields:
        raise _nameless(device)
    if output.json:
        output.object({"ok": True, "device": device.name, "bytes": copy.hex()})
    elif not copy:
        said(f"`{device.name}` has no shared area", json=False)
    for start in range(0, 0 if output.json else len(copy), _ROW):
        output.text(f"{start:#06x}  {copy[start : start + _ROW].hex(' ')}")
    return EXIT_OK


def _set(device: Device, assignments: Sequence[tuple[str, str]], output: Output) -> int:
    from devbc.cli.scratch_fields import find, shown

    if device.program.scratch_type is None:
        raise _nameless(device)
    changes = []
    for path, text in assignments:
        place = find(device.scratch, path)
        changes.append((place, place.parse(text)))
    before: list[Any] = []
    with locked(device):
        for place, value in changes:
            before.append(place.value)
            place.store(value)
    if output.json:
        rows = [
            {"field": place.path, "before": old, "after": new}
            for (place, new), old in zip(changes, before, strict=True)
        ]
        output.object({"ok": True, "device": device.name, "set": rows})
        return EXIT_OK
    for (place, new), old in zip(changes, before, strict=True):
        output.text(f"{place.path}: {shown(old)} -> {shown(new)}")
    return EXIT_OK


def _nameless(device: Device) -> Exception:
    if not device.info.scratch_bytes:
        return reject(BAD_FIELD, f"the program of `{device.name}` has no shared area")
    message = f"the program of `{device.name}` has no BTF: its shared area has no names"
    return reject(BAD_FIELD, message, help=["compile it with -g; `devbc scratch dump` prints its bytes"])


@contextmanager
def locked(device: Device) -> Iterator[None]:
    """Hold the device's lock. Raises Rejected (C008) if somebody else does for seconds."""
    limit = time.monotonic() + _PATIENCE
    while not device.lock.try_lock():
        if time.monotonic() > limit:
            message = f"the lock of `{device.name}` is held by client {device.lock.holder:#x}"
            raise reject(LOCK_HELD, message)
        time.sleep(0.001)
    try:
        yield
    finally:
        device.lock.unlock()
