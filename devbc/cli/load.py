"""`devbc load`: upload a program into a VM of the service, and let it answer."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from devbc.cli.errors import BAD_PLACE
from devbc.cli.output import EXIT_OK, Output, cache_option
from devbc.cli.served import counted, engine_option, find_device, name, number, opened, places, vm_option
from devbc.diagnostics import reject

if TYPE_CHECKING:
    from devbc.client import Device, Vm
    from devbc.program.program import Program

SUMMARY = "load a program into a VM as a device, or in place of a device's program"
EXAMPLES = """\
  devbc load devices/uart16550/uart16550.dev --vm pc --name com2 --at pio=0x2f8
  devbc load pit.o --vm pc --at pio=0x40,speaker=0x61
  devbc load timer.o --vm pc --at 0xb008 --policy untrusted.toml
  devbc load pit.dev --vm pc --name pit --replace          while the guest runs
"""
_NOTES = """\
A `.dev` source is compiled first. The service verifies what it is sent, whoever compiled it, and refuses what
is not proven safe. A program that takes another's place finds the shared area as that left it: both must
declare the same state, banks, lines, timers and signals. Its figures start from 0.
"""
#: The key of an address that is given without a bank.
_SOLE = ""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    parser.add_argument("file", type=Path, metavar="FILE", help="a .dev source or a BPF object")
    parser.add_argument(
        "--at", action="append", type=_places, default=[], metavar="BANK=ADDRESS[,...]",
        help="where its banks sit, and from which number on its `hypercall`s; of a sole bank, the address",
    )  # fmt: skip
    parser.add_argument("--name", type=name, help="what to call the device (default: as its program does)")
    parser.add_argument(
        "--replace", action="store_true", help="put the program in place of the one that the device has"
    )
    engine_option(parser)
    parser.add_argument("--policy", type=Path, metavar="TOML", help="caps and capabilities to verify under")
    cache_option(parser)
    vm_option(parser)


def _places(text: str) -> dict[str, int]:
    """The argument of `--at`."""
    found: dict[str, int] = {}
    for each in text.split(","):
        bank, equals, address = each.rpartition("=")
        if (equals and not bank) or bank in found:
            raise argparse.ArgumentTypeError(f"`{text}` is not BANK=ADDRESS[,BANK=ADDRESS...]")
        found[bank] = number(address)
    return found


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.catalog import compile_object
    from devbc.program.elf import load_object

    with opened(args) as vm, output.progress(f"loading {args.file.name}"):
        policy = _policy(args.policy)
        object = compile_object(args.file)
        program = load_object(object, name=str(args.file))
        called = args.name or program.device or args.file.stem
        if args.replace:
            if args.at:
                message = f"with `--replace`, `{called}` stays where it is"
                raise reject(BAD_PLACE, message, help=["leave out `--at`"])
            device = find_device(vm, called)
            device.replace(object, engine=args.engine, policy=policy)
        else:
            device = _added(vm, called, object, _at(args, program), policy)
            device.attach(args.engine)
    if output.json:
        report = {"ok": True, "vm": vm.number, "device": called, "at": dict(device.info.at)}
        output.object(report | {"engine": args.engine, "replaced": args.replace})
    else:
        output.text(
            f"{called}: {counted(len(program.handlers), 'handler')} of `{program.device or args.file.name}` "
            f"{'in place' if args.replace else 'loaded'} at {places(device)}, engine {args.engine}"
        )
    return EXIT_OK


def _added(vm: Vm, name: str, object: bytes, at: Mapping[str, int], policy: str) -> Device:
    if any(device.name == name for device in vm.devices):
        raise reject(
            BAD_PLACE,
            f"VM `{vm.info.name}` has a device `{name}`",
            help=["`--name` adds another one", "`--replace` puts the program in place of its program"],
        )
    return vm.add_device(name, object, at, policy=policy)


def _at(args: argparse.Namespace, program: Program) -> dict[str, int]:
    """Where each bank sits. Raises Rejected (C007) if it is not said."""
    from devbc.abi import CALLS_PLACE, HypercallBinding

    calls = any(isinstance(each.binding, HypercallBinding) for each in program.handlers)
    banks = [*(bank.name for bank in program.banks), *([CALLS_PLACE] if calls else [])]
    at: dict[str, int] = {bank: address for each in args.at for bank, address in each.items()}
    example = ",".join(f"{bank}=ADDRESS" for bank in banks)
    help = [f"its banks are: --at {example}"] if banks else []
    if not at:
        raise reject(BAD_PLACE, f"it is not said where `{args.file.name}` sits", help=help)
    if _SOLE in at:
        if len(banks) != 1 or len(at) != 1:
            message = f"`{args.file.name}` has {len(banks)} banks, and the address {at[_SOLE]:#x} names none"
            raise reject(BAD_PLACE, message, help=help)
        return {banks[0]: at[_SOLE]}
    return at


def _policy(path: Path | None) -> str:
    """The text of a policy file, after it has been understood here, where its name is known."""
    if path is None:
        return ""
    from devbc.files import read_text
    from devbc.verifier.policy_file import parse_policy

    text = read_text(path)
    parse_policy(text.encode(), file=str(path))
    return text
