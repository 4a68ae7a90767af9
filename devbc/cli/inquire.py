"""`devbc inquire`: what a read would return, without its effects."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from devbc.abi import SIZES, AccessBinding, Op, Space
from devbc.cli.errors import NOT_ANSWERED
from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import counted, number, opened, vm_option
from devbc.diagnostics import Rejected, reject

if TYPE_CHECKING:
    from devbc.client import Device, Vm

SUMMARY = "ask a VM's programs what a read would return, without its effects"
EXAMPLES = """\
  devbc inquire 0x608 --vm pc                 the ACPI PM timer, at a port
  devbc inquire 0xfed000f0 --vm pc --size 8   the HPET's main counter, in memory
"""
#: Ports end here: what lies beyond is memory.
_PORTS = 1 << 16


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", type=number, metavar="ADDRESS", help="a port, or an address in memory")
    parser.add_argument(
        "--space", choices=[str(each) for each in Space],
        help="default: ports for what a port's number can be, memory for the rest",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=int, choices=SIZES, help="bytes to read (default: as many as the register has)"
    )
    vm_option(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.abi import Op
    from devbc.guests.recording import Target
    from devbc.guests.replay import register_name

    space = Space(args.space or (Space.PIO if args.address < _PORTS else Space.MMIO))
    with opened(args) as vm:
        size = args.size or _size(vm, space, args.address)
        value = vm.inquire(space, args.address, size)
        if value is None:
            raise _unanswered(vm, space, args.address, size)
        name = register_name(vm, Target(space, Op.READ, args.address, size, ""))
    if output.json:
        output.object(
            {"ok": True, "vm": vm.number, "space": str(space), "address": args.address, "size": size,
             "device": name.device, "register": name.register, "value": value}
        )  # fmt: skip
    else:
        output.text(f"{value:#0{2 * size + 2}x}  {name.device}.{name.register}, {counted(size, 'byte')}")
    return EXIT_OK


def _size(vm: Vm, space: Space, address: int) -> int:
    """The size of the register at an address, as far as one access reaches; 4 where there is none."""
    found = vm.find(space, address)
    if found is not None:
        device, bank, offset = found
        for register in device.program.registers:
            index, within = divmod(offset - register.offset, register.stride or register.size)
            if (
                register.bank == bank
                and 0 <= index < register.count
                and not within
                and register.size in SIZES
            ):
                return register.size
    return 4


def _unanswered(vm: Vm, space: Space, address: int, size: int) -> Rejected:
    """Why nothing answers: nobody is there, no program, no handler, or it declines."""
    what = f"a read of {counted(size, 'byte')} at {space} {address:#x}"
    found = vm.find(space, address)
    if found is None:
        return reject(NOT_ANSWERED, f"no device sits at {space} {address:#x}", help=_nearby(vm, space))
    device, bank, offset = found
    if not device.info.engine:
        help = [f"`devbc load FILE --vm {vm.number} --name {device.name} --replace` attaches one"]
        return reject(NOT_ANSWERED, f"no program of `{device.name}` is attached", help=help)
    answered = _sizes(device, bank, offset)
    if size not in answered:
        sizes = ", ".join(f"--size {each}" for each in answered)
        help = [f"it answers other sizes there: {sizes}"] if answered else []
        return reject(NOT_ANSWERED, f"the program of `{device.name}` does not answer {what}", help=help)
    return reject(NOT_ANSWERED, f"the program of `{device.name}` declines {what}, as things are")


def _nearby(vm: Vm, space: Space) -> list[str]:
    banks = [
        f"`{device.name}` {device.info.at[bank.name]:#x}"
        for device in vm.devices
        for bank in device.program.banks
        if bank.space is space and bank.name in device.info.at
    ]
    return [f"in {space} there are: {', '.join(banks)}"] if banks else []


def _sizes(device: Device, bank: str, offset: int) -> list[int]:
    """Sizes of the reads that a device's program answers at an offset."""
    found = set()
    for handler in device.program.handlers:
        match handler.binding:
            case AccessBinding(bank=b, op=Op.READ) as binding if b == bank:
                found |= {size for size in binding.sizes if binding.answers(offset, size)}
    return sorted(found)
