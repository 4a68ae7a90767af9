"""`devbc stats`: what becomes of a VM's exits, register by register, while they happen."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from devbc.cli.figures import Row, bars, ns, rows, span
from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import count, find_device, opened, table, vm_json, vm_option

if TYPE_CHECKING:
    from rich.table import Table

    from devbc.client import Vm

SUMMARY = "what becomes of a VM's exits by register: handled, declined, contended, how long"
EXAMPLES = """\
  devbc stats --vm pc                          live, until ^C
  devbc stats --vm pc --interval 0.2 --device hpet
  devbc stats --vm pc --once                   one table
  devbc stats --vm pc --json | jq '.registers[] | select(.declined > 0)'
"""
_NOTES = """\
On a terminal the table is live; otherwise it is printed once, as --once and --json do.

columns:
  handled    runs of the register's handlers that answered the guest, since its program was loaded
  declined   runs in which the program left the access to userspace
  contended  accesses that userspace got because the device's lock was taken
  per s      accesses in the last interval
  median, 99 %   time of a handled exit, interpolated within a bucket of the histogram, a factor of two
  histogram  a character for each power of two of cycles, from the first time in its heading to the second;
             heights are logarithmic
Accesses that no handler is bound to are exits to userspace and no register's here: `devbc list` and --json
count them by device.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="S", help="seconds between two looks (default: 1)"
    )
    parser.add_argument("--once", action="store_true", help="print one table, also on a terminal")
    parser.add_argument("--device", metavar="DEVICE", help="of this device only")
    parser.add_argument("--all", action="store_true", help="also registers that were not accessed")
    vm_option(parser)


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"`{text}` is no interval: 0.05 to 3600 seconds")
    return value


def run(args: argparse.Namespace, output: Output) -> int:
    with opened(args) as vm:
        if args.device:
            find_device(vm, args.device)
        if output.json or args.once or not sys.stdout.isatty():
            found = _rows(vm, args)
            if output.json:
                registers = [each.to_json() for each in found]
                unanswered = vm.figures().unanswered
                output.object({"ok": True} | vm_json(vm) | {"registers": registers, "no_handler": unanswered})
            elif found:
                output.rich(_table(vm, found, {}, len(found)))
            else:
                output.text(f"VM {vm.number} `{vm.info.name}`: no program has run")
            return EXIT_OK
        return _live(vm, args)


def _rows(vm: Vm, args: argparse.Namespace) -> list[Row]:
    return [each for each in rows(vm, args.device) if args.all or each.runs]


def _live(vm: Vm, args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    before: dict[tuple[str, str, str], int] = {}
    seen = time.monotonic()
    try:
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while True:
                vm.refresh()
                found, now = _rows(vm, args), time.monotonic()
                runs = {(each.device, each.register, each.op): each.runs for each in found}
                # Figures start from 0 when a program is loaded.
                rates = {key: max(0, new - before.get(key, 0)) / (now - seen) for key, new in runs.items()}
                live.update(_table(vm, found, rates if before else {}, console.height - 6), refresh=True)
                before, seen = runs, now
                time.sleep(args.interval)
    except KeyboardInterrupt:
        return EXIT_OK


def _table(vm: Vm, found: Sequence[Row], rates: Mapping[tuple[str, str, str], float], room: int) -> Table:
    """The rows that were accessed most, as many as there is room for, in the machine's order."""
    first, last = span(found)
    shown = table(
        f"VM {vm.number} `{vm.info.name}`", ("device", "register", ""),
        ("handled", "declined", "contended", *(["per s"] if rates else []), "median", "99 %"),
    )  # fmt: skip
    shown.add_column(_scale(found, first, last), no_wrap=True)
    most = sorted(found, key=lambda each: -each.runs)[: max(1, room)]
    device = ""
    for each in found:
        if each not in most:
            continue
        rate = rates.get((each.device, each.register, each.op), 0.0)
        shown.add_row(
            each.device if each.device != device else "", each.register, each.op,
            count(each.handled), count(each.declined), count(each.contended),
            *([f"{rate:,.0f}" if rate else ""] if rates else []),
            ns(each.quantile(0.5)), ns(each.quantile(0.99)), bars(each.buckets, first, last),
        )  # fmt: skip
        device = each.device
    if left := len(found) - len(most):
        shown.add_row("", f"{left} more", style="dim")
    return shown


def _scale(found: Sequence[Row], first: int, last: int) -> str:
    """The heading of the histograms: from when to when they go."""
    period = found[0].period_ns if found else 0.0
    return f"{ns((1 << first) * period)} to {ns((2 << last) * period)}" if last >= first and period else ""
