"""What the commands that talk to a service share: their options, the VM, its devices, how tables look.

Not here: the service's client (`devbc.client`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbc.diagnostics import did_you_mean, reject
from devbc.limits import NAME_BYTES

if TYPE_CHECKING:
    from rich.table import Table

    from devbc.client import Device, Hypervisor, Vm

ENGINES = ("jit", "interp")


def socket_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket", type=Path, metavar="PATH",
        help="the service's socket (default: $DEVBC_SOCKET, or devbc.sock in the user's runtime folder)",
    )  # fmt: skip


def vm_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vm", required=True, type=name, metavar="VM", help="a VM of the service, by name or number"
    )
    socket_option(parser)


def engine_option(parser: argparse.ArgumentParser, *more: str) -> None:
    parser.add_argument(
        "--engine", choices=(*ENGINES, *more), default="jit", help="what runs the programs (default: jit)"
    )


def folders_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--devices", action="append", type=Path, default=[], metavar="DIR",
        help="a folder to look for devices, models and machines in, before those that come with devbc",
    )  # fmt: skip


def number(text: str) -> int:
    """An address or another number of the command line: decimal, or 0x hexadecimal."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"`{text}` is no address: decimal, or hexadecimal after `0x`")
    return value


def name(text: str) -> str:
    """A name that the service can be told."""
    if not text.strip() or len(text) > NAME_BYTES or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a name is printable, and has 1 to {NAME_BYTES} characters")
    return text


def actions(
    parser: argparse.ArgumentParser,
    found: Sequence[tuple[str, str, str, Callable[[argparse.ArgumentParser], None]]],
) -> None:
    """Sub-commands, a row each: name, summary, examples, what configures it. `args.action` has the name."""
    every = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary, examples, configure in found:
        action = every.add_parser(
            name,
            help=summary,
            description=f"{summary}\n\nexamples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # Without a default: `devbc vm --json list` and `devbc vm list --json` are the same.
        action.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object"
        )
        configure(action)


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[Hypervisor]:
    """The service that the arguments name. Raises Rejected (S001)."""
    from devbc.client import connect

    with connect(args.socket, name=f"devbc {args.command}[{os.getpid()}]") as hypervisor:
        yield hypervisor


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Vm]:
    """The VM that the arguments name, and its devices."""
    with connected(args) as hypervisor:
        yield open_vm(hypervisor, args.vm)


def open_vm(hypervisor: Hypervisor, name: str) -> Vm:
    """A VM that persists, by name or number. Raises Rejected (S003), and says which one may be meant."""
    from devbc.diagnostics import Rejected
    from devbc.service.errors import BAD_REQUEST

    try:
        return hypervisor.open_vm(name)
    except Rejected as rejection:
        names = [each.name for each in hypervisor.vms()]
        if [each.code.id for each in rejection.diagnostics] != [BAD_REQUEST.id] or name in names:
            raise
        known = ", ".join(f"`{each}`" for each in names)
        listed = f"there are: {known}" if known else f"`devbc vm create {name}` makes one"
        help = did_you_mean(name, names) or [listed]
        raise reject(BAD_REQUEST, rejection.diagnostics[0].message, help=help) from None


def find_device(vm: Vm, name: str) -> Device:
    """A device by its name. Raises Rejected (H003)."""
    from devbc.hypervisor.errors import UNKNOWN_NAME

    for device in vm.devices:
        if device.name == name:
            return device
    names = [device.name for device in vm.devices]
    listed = ", ".join(f"`{each}`" for each in names) or "none"
    help = did_you_mean(name, names) or [f"its devices are: {listed}"]
    raise reject(UNKNOWN_NAME, f"VM `{vm.info.name or vm.number}` has no device `{name}`", help=help)


def places(device: Device) -> str:
    """Where a device sits: `pio 0x40, speaker 0x61`."""
    return ", ".join(f"{bank} {address:#x}" for bank, address in device.info.at.items())


def table(title: str, columns: Sequence[str], numeric: Sequence[str]) -> Table:
    """An empty table of the command line's kind; `numeric` are columns that are aligned to the right."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    made = Table(
        title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for heading in (*columns, *numeric):
        made.add_column(heading, justify="right" if heading in numeric else "left")
    return made


def count(value: int) -> str:
    """A count in a table: nothing for 0."""
    return f"{value:,}" if value else ""


def seconds(ns: int) -> str:
    """A time of the VM clock, for people."""
    return f"{ns / 1e9:,.6f} s"


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def said(text: str, *, json: bool) -> None:
    """Talk that is not the answer."""
    if not json:
        print(text, file=sys.stderr)


def vm_json(vm: Vm) -> dict[str, Any]:
    return {"vm": vm.number, "name": vm.info.name}
