"""The table of `replay` and `run`: who answered what, by register, and the first mismatches."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from devbc.cli.output import Output

if TYPE_CHECKING:
    from devbc.guests.replay import Mismatch, Replay, Tally

#: Registers shown in the table by default; the others are one row.
_ROWS = 24
#: What the columns mean, for the commands' help.
COLUMNS = """\
columns:
  accesses    that the guest made to the register
  handled     answered by a program: the guest would not have left the kernel
  declined    answered by the device's userspace model: the program declined, none answers this access, or
              the device's lock was taken
  mismatches  reads whose value is not the recording's; any makes the exit status 1
  ns/exit     median time of a handled exit in the emulated hypervisor: from one access to the next, with
              dispatch, handler, comparison and the clock's own reading, without a hardware exit; blank where
              the host has no usable time-stamp counter
"""


def rows_options(parser: argparse.ArgumentParser) -> None:
    """`--top` and `--all`."""
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument(
        "--top", type=_rows, default=_ROWS, metavar="N",
        help=f"show the N registers that are accessed most (default: {_ROWS})",
    )  # fmt: skip
    rows.add_argument("--all", action="store_true", help="show every register")


def _rows(text: str) -> int:
    """The argument of `--top`."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"`{text}` is not a number of rows")
    return int(text)


def print_replay(result: Replay, title: str, rows: int, output: Output) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("device")
    table.add_column("register")
    table.add_column("")
    for heading in ("accesses", "handled", "declined", "mismatches", "ns/exit"):
        table.add_column(heading, justify="right")
    claimed = [(name, tally) for name, tally in result.registers.items() if name.device]
    shown = {name for name, _ in sorted(claimed, key=lambda row: -row[1].accesses)[:rows]}
    device = ""
    for name, tally in claimed:
        if name in shown:
            heading = name.device if name.device != device else ""
            table.add_row(heading, name.register, str(name.op), *_cells(tally))
            device = name.device
    if left := [tally for name, tally in claimed if name not in shown]:
        table.add_section()
        table.add_row("", f"{len(left)} more register{_s(len(left))}", "", *_cells(_sum(left)))
    table.add_section()
    table.add_row("", "no device", "", f"{result.total.unclaimed:,}", "", "", "", "", style="dim")
    table.add_row("all", "", "", *_cells(result.total), style="bold")
    output.rich(table)
    total = result.total
    share = 100 * total.handled / max(1, total.accesses)
    output.text(
        f"{share:.2f} % of {total.accesses:,} accesses handled by programs, "
        f"{total.mismatches:,} mismatch{'' if total.mismatches == 1 else 'es'}, {result.seconds:.2f} s"
    )
    for each in result.mismatches:
        output.text(_mismatch_text(each))


def _mismatch_text(mismatch: Mismatch) -> str:
    """The first mismatch of a register, below the device's accesses that led to it."""
    wrong = mismatch.step
    lines = [
        f"\nfirst mismatch of {wrong.name}: the {wrong.by} returned {mismatch.got:#x}, "
        f"the recording has {wrong.value:#x}"
    ]
    steps = (*mismatch.before, wrong)
    width = max(len(step.name.register) for step in steps)
    for step in steps:
        mark = ">" if step is wrong else " "
        lines.append(
            f"{mark} access {step.index:<8} {step.time:>16,} ns  {step.name.op:<5} {step.size}  "
            f"{step.name.register:<{width}}  {step.value:#x}  ({step.by})"
        )
    return "\n".join(lines)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _sum(tallies: Iterable[Tally]) -> Tally:
    from devbc.guests.replay import Tally

    total = Tally()
    for each in tallies:
        total.add(each)
    return total


def _cells(tally: Tally) -> list[str]:
    ns = tally.ns_per_handled_exit
    return [
        f"{tally.accesses:,}",
        f"{tally.handled:,}",
        f"{tally.declined:,}" if tally.declined else "",
        f"[red]{tally.mismatches:,}[/red]" if tally.mismatches else "0",
        "" if ns is None else f"{ns:.1f}",
    ]
