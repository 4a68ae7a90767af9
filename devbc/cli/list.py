"""`devbc list`: the devices of a VM, and who answers for them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import count, counted, opened, places, seconds, table, vm_json, vm_option

if TYPE_CHECKING:
    from devbc.client import Device
    from devbc.service.protocol import Figures

#: Why no handler was run for an access of a device: fields of `protocol.Unanswered`.
REASONS = ("no_handler", "unloaded", "abandoned")

SUMMARY = "list a VM's devices, their programs and figures"
EXAMPLES = """\
  devbc list --vm pc
  devbc list --vm pc --json
"""
_NOTES = """\
columns:
  engine     what runs the program; `unloaded`: every access goes to userspace; `abandoned`: a client died
             while it held the device's lock, and the program does not answer until it is loaded again
  handled    runs of the program that answered the guest
  declined   runs that left the access to userspace
  contended  accesses that userspace got because the device's lock was taken
  no handler accesses that no handler was run for: none is bound to them, or no program was attached
             (`devbc stats` tells them apart)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    vm_option(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    with opened(args) as vm:
        figures, status = vm.figures(), vm.status()
        found = [_report(device, figures) for device in vm.devices]
    if output.json:
        output.object(
            {"ok": True} | vm_json(vm) | {"live": status.live, "now_ns": status.now, "devices": found}
        )
        return EXIT_OK
    clock = f"{'host' if status.live else 'virtual'} clock {seconds(status.now)}"
    vcpus = f", {counted(status.vcpus, 'vCPU')}" if status.vcpus else ""
    title = f"VM {vm.number} `{vm.info.name}`, {clock}{vcpus}"
    if not found:
        output.text(f"{title}, no devices")
        return EXIT_OK
    shown = table(
        title,
        ("device", "program", "at", "engine"),
        ("handlers", "scratch", "handled", "declined", "contended", "no handler"),
    )
    for device, each in zip(vm.devices, found, strict=True):
        shown.add_row(
            device.name, each["program"], places(device), state(device), count(each["handlers"]),
            f"{each['scratch_bytes']:,} B",
            *(count(each[name]) for name in ("handled", "declined", "contended")),
            count(sum(each["unanswered"].values())),
        )  # fmt: skip
    output.rich(shown)
    return EXIT_OK


def state(device: Device) -> str:
    """The engine of a device's program, or why there is none."""
    return "abandoned" if device.info.abandoned else device.info.engine or "unloaded"


def _report(device: Device, figures: Figures) -> dict[str, Any]:
    # A device that somebody has added meanwhile is in the next answer.
    unanswered = figures.unanswered.get(device.name)
    own = [each for each in figures.handlers if each.device == device.name]
    return {
        "device": device.name, "program": device.program.device, "at": dict(device.info.at),
        "engine": device.info.engine or None, "abandoned": device.info.abandoned,
        "handlers": len(device.program.handlers), "scratch_bytes": device.info.scratch_bytes,
        "handled": sum(each.handled for each in own), "declined": sum(each.declined for each in own),
        "contended": sum(each.contended for each in own),
        "unanswered": {why: getattr(unanswered, why, 0) for why in REASONS},
    }  # fmt: skip
