"""`devbc stats`: what becomes of a VM's exits, register by register, while they happen."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from devbc.cli.figures import CONTENTION, Row, bars, ns, rows, span
from devbc.cli.list import REASONS
from devbc.cli.output import EXIT_OK, Output
from devbc.cli.served import count, find_device, opened, table, vm_json, vm_option

if TYPE_CHECKING:
    from rich.table import Table

    from devbc.client import Vm
    from devbc.service.protocol import Figures

SUMMARY = "what becomes of a VM's exits by register: handled, declined and why, how long"
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
  lock held  accesses that userspace got because another vCPU or userspace held the device's lock
  in change  the same, because the state that the handler reads was being written for too long
  queue full the same, because changes of lines had filled the queue that they wait in
  per s      accesses in the last interval
  median, 99 %   time of a handled exit, interpolated within a bucket of the histogram, a factor of two
  histogram  a character for each power of two of cycles, from the first time in its heading to the second;
             heights are logarithmic
The last three are shown if there was any. A full queue counts as the handler's other need, if it has one.

Accesses that no handler was run for are exits to userspace, and no register's. They are below the table:
  no handler  the program has none that is bound to them
  unloaded    no program was attached
  abandoned   a client died with the device's lock; the program answers again once it is loaded again
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
            figures = vm.figures()
            found, others = _rows(vm, figures, args), _others(figures, args)
            if output.json:
                registers = [each.to_json() for each in found]
                output.object({"ok": True} | vm_json(vm) | {"registers": registers} | others)
            elif found:
                output.rich(_table(vm, found, others, {}, len(found)))
            else:
                output.text(f"VM {vm.number} `{vm.info.name}`: no program has run")
                if any(others.values()):
                    output.text(_listed(others))
            return EXIT_OK
        return _live(vm, args)


def _rows(vm: Vm, figures: Figures, args: argparse.Namespace) -> list[Row]:
    return [each for each in rows(vm, figures, args.device) if args.all or each.runs]


def _others(figures: Figures, args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Accesses that no handler was run for, by reason and device."""
    return {
        why: {
            device: seen
            for device, each in figures.unanswered.items()
            if (seen := getattr(each, why)) and args.device in (None, device)
        }
        for why in REASONS
    }


def _listed(others: Mapping[str, Mapping[str, int]]) -> str:
    """The same, a line a reason."""
    lines = []
    for why, devices in others.items():
        if devices:
            listed = ", ".join(f"{device} {seen:,}" for device, seen in devices.items())
            lines.append(f"{why.replace('_', ' ')}: {listed}")
    return "\n".join(lines)


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
                figures, now = vm.figures(), time.monotonic()
                found, others = _rows(vm, figures, args), _others(figures, args)
                runs = {(each.device, each.register, each.op): each.runs for each in found}
                # Figures start from 0 when a program is loaded.
                rates = {key: max(0, new - before.get(key, 0)) / (now - seen) for key, new in runs.items()}
                room = console.height - 6 - sum(map(bool, others.values()))
                live.update(_table(vm, found, others, rates if before else {}, room), refresh=True)
                before, seen = runs, now
                time.sleep(args.interval)
    except KeyboardInterrupt:
        return EXIT_OK


def _table(
    vm: Vm,
    found: Sequence[Row],
    others: Mapping[str, Mapping[str, int]],
    rates: Mapping[tuple[str, str, str], float],
    room: int,
) -> Table:
    """The rows that were accessed most, as many as there is room for, in the machine's order."""
    first, last = span(found)
    contention = [why for why in CONTENTION.values() if any(each.contended[why] for each in found)]
    shown = table(
        f"VM {vm.number} `{vm.info.name}`", ("device", "register", ""),
        ("handled", "declined", *(why.replace("_", " ") for why in contention),
         *(["per s"] if rates else []), "median", "99 %"),
    )  # fmt: skip
    shown.caption, shown.caption_justify, shown.caption_style = _listed(others), "left", ""
    shown.add_column(_scale(found, first, last), no_wrap=True)
    most = sorted(found, key=lambda each: -each.runs)[: max(1, room)]
    device = ""
    for each in found:
        if each not in most:
            continue
        rate = rates.get((each.device, each.register, each.op), 0.0)
        shown.add_row(
            each.device if each.device != device else "", each.register, each.op,
            count(each.handled), count(each.declined), *(count(each.contended[why]) for why in contention),
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
