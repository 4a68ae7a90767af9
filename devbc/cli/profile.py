"""`devbc profile`: which registers of a traced guest cost most, and what programs for them would gain."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from devbc.cli.output import EXIT_OK, Output, cache_option
from devbc.guests.cost_profiles import DEFAULT, PROFILES

if TYPE_CHECKING:
    from devbc.guests.profile import Profile, RegisterProfile
    from devbc.hypervisor.device import DeviceSpec

SUMMARY = "rank the registers of a traced guest, and say what to accelerate next"
EXAMPLES = """\
  devbc profile bench/traces/x86-pc-boot.tsv.gz          a recording, registers named by the machine `pc`
  devbc profile --machine none qemu.log                  QEMU's trace log, without any device of ours
  devbc profile --profile nested-vmx kvm.txt             `trace-cmd report` or `perf script`, other costs
  devbc profile --machine ./board.toml --devices . --all guest.txt
"""

_ROWS = 16
#: Registers that the list below the table explains.
_NEXT = 6
_NOTES = f"""\
A trace is a recording of devbc's own, QEMU's trace log, or the kernel's kvm_pio and kvm_mmio events as text:
`devbc explain H020` has the commands that make them. Which it is, is seen from its content.

columns:
  exits    accesses of the guest; one by a string instruction is one
  peak/ms  exits in the busiest millisecond
  apart    median time from one exit to the next
  values   distinct values
  access   for reads, what the values depend on, as far as they show: `constant`, `clock`, `storage` and
           `state` are pure, a handler can answer them from the state and the clock; `side effect?`: a read
           changes what the next one returns; `changes by itself`: by time, or input from outside
  saved    modelled time that the machine's programs save; `kernel`: the host's kernel answered all by itself
  to gain  modelled time that programs for the rest would save

cost profiles:
{chr(10).join(f"  {each}{chr(10)}      {each.source}" for each in PROFILES.values())}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _NOTES
    parser.add_argument("trace", type=Path, metavar="TRACE", help="a trace of any format, gzipped or not")
    parser.add_argument(
        "--machine",
        help="a machine's name, or a path ending in .toml; `none` for none (default: what it was recorded "
        "on, else pc if it has ports)",
    )
    parser.add_argument(
        "--profile", choices=PROFILES, default=DEFAULT, metavar="NAME",
        help=f"what an exit costs: {', '.join(PROFILES)} (default: {DEFAULT})",
    )  # fmt: skip
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument(
        "--top", type=_rows, default=_ROWS, metavar="N",
        help=f"show the N registers with most exits (default: {_ROWS})",
    )  # fmt: skip
    rows.add_argument("--all", action="store_true", help="show every register")
    parser.add_argument("--explain", action="store_true", help="give the evidence for every register shown")
    cache_option(parser)
    parser.add_argument(
        "--devices", action="append", type=Path, default=[], metavar="DIR",
        help="a folder to look for devices and machines in, before those that come with devbc",
    )  # fmt: skip


def _rows(text: str) -> int:
    """The argument of `--top`."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"`{text}` is not a number of rows")
    return int(text)


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.abi import Space
    from devbc.catalog import load_machine, machine_of
    from devbc.guests.profile import profile
    from devbc.guests.trace_formats.read import read_trace

    with output.progress(f"reading {args.trace.name}") as tell:
        trace = read_trace(args.trace)
        machine = args.machine or machine_of(trace.machine, args.devices)
        if machine is None:
            machine = "pc" if any(each.space is Space.PIO for each in trace.targets) else "none"
        devices: list[DeviceSpec] = []
        if machine != "none":
            tell("loading the machine's programs")
            devices, _ = load_machine(machine, args.devices)
        tell("looking at the values")
        result = profile(trace, PROFILES[args.profile], devices, machine if devices else "")
    if output.json:
        output.object(result.to_json())
        return EXIT_OK
    for diagnostic in trace.diagnostics:
        output.diagnostic(diagnostic)
    _print(result, len(result.registers) if args.all else args.top, args.explain, output)
    return EXIT_OK


def _print(result: Profile, rows: int, explain: bool, output: Output) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    output.text(_head(result))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("register", no_wrap=True)
    for heading in ("exits", "share", "peak/ms", "apart", "values"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("access", no_wrap=True)
    for heading in ("saved", "to gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in result.registers[:rows]:
        table.add_row(
            escape(_printable(each.owner.name)),
            f"{each.exits:,}",
            f"{100 * each.exits / result.exits:.1f} %",
            "" if each.busiest is None else f"{each.busiest:,}",
            "" if each.interval is None else _time(each.interval),
            f"{each.values:,}" if each.values else "",
            _access(each),
            "kernel" if each.exits == each.kernel else _gain(each.covered, result),
            _gain(each.uncovered, result),
        )
    output.rich(table)
    if left := result.registers[rows:]:
        exits = sum(each.exits for each in left)
        output.text(f"{len(left):,} more with {exits:,} exits: `--all` shows them\n")
    output.text(_modelled(result))
    if explain:
        output.text("\nwhat the values show:")
        for each in result.registers[:rows]:
            output.text(_evidence(each, result))
    elif following := result.next()[:_NEXT]:
        output.text(
            "\nwhat to accelerate next, as far as the values show (--explain: of all registers above):"
        )
        for each in following:
            output.text(_evidence(each, result))


def _head(result: Profile) -> str:
    trace = result.trace
    parts = [f"{result.exits:,} exits"]
    if result.span is not None:
        parts[0] += f" in {_time(result.span)} of guest time"
    if result.vcpus:
        parts.append(f"{result.vcpus} vCPU{'' if result.vcpus == 1 else 's'}")
    parts.append(f"from {'a recording' if trace.format == 'recording' else trace.format}")
    lines = [f"{_printable(trace.name)}: {', '.join(parts)}"]
    if result.machine:
        lines.append(f"named and answered by the devices of machine `{result.machine}`")
    if trace.others:
        lines.append(f"{trace.others:,} lines of other events passed over")
    if trace.lost:
        lines.append(f"the tracer lost events ({trace.lost:,} lines say so): counts are too low")
    if not trace.timed:
        lines.append("the trace has no times: no density, no clocks")
    if trace.guests > 1:
        lines.append(
            f"at least {trace.guests} guests are mixed in it: trace one process (`devbc explain H020`)"
        )
    return "\n".join(lines)


def _access(each: RegisterProfile) -> str:
    from devbc.guests.read_classes import ReadClass, hertz

    verdict = each.verdict
    if verdict is None:
        return "write"
    clock = f" {hertz(verdict.clock.hz)}" if verdict.read_class is ReadClass.CLOCK and verdict.clock else ""
    return f"read: {verdict.read_class}{clock}"


def _gain(exits: int, result: Profile) -> str:
    return _time(exits * result.costs.saved_ns) if exits else ""


def _modelled(result: Profile) -> str:
    costs = result.costs
    rows = [("as traced", result.without_programs)]
    if result.machine:
        rows.append((f"with the programs of `{result.machine}`", result.with_programs))
    rows.append(("and of all other reads that are pure", result.with_pure_reads))
    rows.append(("and of all other accesses", result.with_everything))
    width = max(len(name) for name, _ in rows)
    lines = [f"device time, modelled by {costs}"]
    if result.in_kernel:
        lines.append(f"{result.in_kernel:,} of the exits were answered in the kernel already")
    for name, time in rows:
        less = f"   {100 * (1 - time / result.without_programs):5.1f} % less" if name != "as traced" else ""
        lines.append(f"  {name:<{width}}  {_time(time):>9}{less}")
    if result.machine:
        share = 100 * result.covered / max(1, result.exits - result.in_kernel)
        lines.append(
            f"{share:.2f} % of the exits to userspace have a handler; handlers may still decline some"
        )
    return "\n".join(lines)


def _evidence(each: RegisterProfile, result: Profile) -> str:
    import textwrap

    if each.verdict is not None:
        what = f"{each.verdict.read_class}: {each.verdict.evidence}"
    elif each.only_value is not None:
        what = f"always {each.only_value:#x}, in {each.exits:,} write{'' if each.exits == 1 else 's'}"
    else:
        what = f"{each.values:,} different values in {each.exits:,} writes"
    gain = f", {_gain(each.uncovered, result)} to gain" if each.uncovered else ""
    body = textwrap.fill(what, 110, initial_indent="      ", subsequent_indent="      ")
    return f"  {_printable(each.owner.name)} {each.key.op}{gain}\n{body}"


def _time(ns: float) -> str:
    """A time with three digits and its unit."""
    for unit, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= unit:
            return f"{ns / unit:.3g} {name}" if ns < 1000 * unit else f"{ns / unit:,.0f} {name}"
    return f"{ns:.0f} ns"


def _printable(text: str) -> str:
    """Names in a trace are somebody else's: none speaks to the terminal."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
