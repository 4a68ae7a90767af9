"""`devbc unload`: let a device's userspace model answer everything."""

from __future__ import annotations

import argparse

from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import find_device, opened, vm_option

SUMMARY = "detach a device's program: its accesses are userspace's again"
EXAMPLES = """\
  devbc unload pit --vm pc
  devbc load pit.dev --vm pc --name pit --replace      and attach one again
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="a device of the VM")
    vm_option(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    with opened(args) as vm:
        device = find_device(vm, args.device)
        attached = bool(device.info.engine)
        device.detach()
    if output.json:
        output.object({"ok": True, "vm": vm.number, "device": device.name, "was_attached": attached})
    elif attached:
        output.text(f"{device.name}: every access is an exit to userspace")
    else:
        output.text(f"{device.name}: no program was attached")
    return EXIT_OK
