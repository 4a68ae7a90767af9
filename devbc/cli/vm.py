"""`devbc vm`: create, list and destroy the VMs of a service."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from devbc.cli.output import EXIT_OK, Output, cache_option
from devbc.cli.served import (
    actions,
    connected,
    count,
    counted,
    engine_option,
    folders_option,
    name,
    open_vm,
    seconds,
    socket_option,
    table,
)
from devbc.diagnostics import Rejected

if TYPE_CHECKING:
    from devbc.client import Hypervisor, Vm

SUMMARY = "create, list and destroy VMs"
EXAMPLES = """\
  devbc vm create pc --machine pc     a VM with a PC's devices and wires, their programs attached
  devbc vm create lab                 one without devices: `devbc load` adds them
  devbc vm list
  devbc vm destroy pc
"""
_NOTES = """\
VMs that are created here persist: they live until they are destroyed, or the service ends. VMs that a
monitor creates for itself are reclaimed with its connection, and are seen by nobody else.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    actions(
        parser,
        [
            (
                "list",
                "list the VMs that persist",
                "  devbc vm list\n  devbc vm list --json\n",
                socket_option,
            ),
            (
                "create",
                "create a VM that persists",
                "  devbc vm create pc --machine pc\n  devbc vm create lab --live\n",
                _configure_create,
            ),
            (
                "destroy",
                "destroy a VM, and whatever runs in it",
                "  devbc vm destroy pc\n  devbc vm destroy 3\n",
                _configure_destroy,
            ),
        ],
    )


def _configure_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=_new_name, metavar="NAME", help="what to call it")
    parser.add_argument(
        "--live", action="store_true",
        help="its clock is the host's, and its timers run by themselves (default: accesses move its clock)",
    )  # fmt: skip
    parser.add_argument(
        "--machine", metavar="MACHINE",
        help="load this machine's devices and wires: a name, or a path ending in .toml",
    )  # fmt: skip
    engine_option(parser, "none")
    folders_option(parser)
    cache_option(parser)
    socket_option(parser)


def _configure_destroy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vm", type=name, metavar="VM", help="a VM, by name or number")
    socket_option(parser)


def _new_name(text: str) -> str:
    if name(text).isdecimal():
        raise argparse.ArgumentTypeError(f"`{text}` is a number, which the service gives to VMs itself")
    return text


def run(args: argparse.Namespace, output: Output) -> int:
    match args.action:
        case "list":
            return _list(args, output)
        case "create":
            return _create(args, output)
    return _destroy(args, output)


def _list(args: argparse.Namespace, output: Output) -> int:
    with connected(args) as hypervisor:
        found = hypervisor.vms()
    if output.json:
        rows = [
            {
                "vm": each.vm, "name": each.name, "live": each.live, "persists": each.persists,
                "devices": each.devices, "vcpus": each.vcpus, "now_ns": each.now,
                "guest_lines": each.guest_lines, "guest_pending": each.guest_pending,
                "guest_interrupts": each.guest_interrupts,
            }
            for each in found
        ]  # fmt: skip
        output.object({"ok": True, "vms": rows})
        return EXIT_OK
    if not found:
        output.text("no VMs")
        return EXIT_OK
    shown = table("", ("VM", "name", "clock"), ("time", "devices", "vCPUs", "interrupts"))
    shown.title = None
    for each in found:
        shown.add_row(
            str(each.vm), each.name, "host" if each.live else "virtual", seconds(each.now),
            count(each.devices), count(each.vcpus), count(each.guest_interrupts),
        )  # fmt: skip
    output.rich(shown)
    return EXIT_OK


def _create(args: argparse.Namespace, output: Output) -> int:
    with connected(args) as hypervisor:
        if args.machine is None:
            vm = hypervisor.create_vm(args.name, live=args.live, persists=True)
        else:
            with output.progress(f"loading `{args.machine}`"):
                vm = create_machine(hypervisor, args, name=args.name, live=args.live, persists=True)
        names = [device.name for device in vm.devices]
    if output.json:
        output.object({"ok": True, "vm": vm.number, "name": args.name, "devices": names})
    else:
        devices = f": {', '.join(names)}" if names else ""
        output.text(f"VM {vm.number} `{args.name}`, {counted(len(names), 'device')}{devices}")
    return EXIT_OK


def create_machine(
    hypervisor: Hypervisor,
    args: argparse.Namespace,
    *,
    name: str = "",
    live: bool = False,
    persists: bool = False,
    rtc_base: int = 0,
) -> Vm:
    """A VM with the devices and wires of `args.machine`; `args.engine` runs its programs, or is `none`."""
    from devbc.catalog import compile_object, machine_sources
    from devbc.client.replay import build_vm

    sources, wires = machine_sources(args.machine, args.devices)
    devices = [(entry.name, compile_object(path), entry.at) for entry, path in sources]
    vm = build_vm(hypervisor, devices, wires, name=name, live=live, persists=persists, rtc_base=rtc_base)
    try:
        for device in vm.devices if args.engine != "none" else ():
            device.attach(args.engine)
    except Rejected:
        vm.destroy()
        raise
    return vm


def _destroy(args: argparse.Namespace, output: Output) -> int:
    with connected(args) as hypervisor:
        vm = open_vm(hypervisor, args.vm)
        vm.destroy()
    if output.json:
        output.object({"ok": True, "vm": vm.number, "name": vm.info.name})
    else:
        output.text(f"VM {vm.number} `{vm.info.name}` is destroyed")
    return EXIT_OK
