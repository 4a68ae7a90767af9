"""`devbc replay`: run recorded guests through a machine's programs, and compare every value read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbc.cli.output import EXIT_OK, EXIT_REJECTED, Output, cache_option

if TYPE_CHECKING:
    from devbc.engines.engine import Engine
    from devbc.guests.replay import Mismatch, Replay, Tally

SUMMARY = "replay recorded guests, and compare every value with what the recording emulator returned"
EXAMPLES = """\
  devbc replay bench/traces/x86-pc-boot.tsv.gz                    a PC, the JIT
  devbc replay --engine interp boot.tsv.gz                        the same programs, interpreted
  devbc replay --device hpet --device pit boot.tsv.gz             programs for these two, models for the rest
  devbc replay --engine checked boot.tsv.gz                       each step held to the proof: minutes
  devbc replay --engine none boot.tsv.gz                          userspace models only: the baseline
  devbc replay --machine ./board.toml --devices ./devices a.tsv   your own machine and devices
"""

ENGINES = ("jit", "interp", "checked", "none")
#: Registers shown in the table by default; the others are one row.
_ROWS = 24
#: The table's columns and what is measured, below the options.
_NOTES = """\
A recording is every access of a guest to its devices, with its time and the value that the recording emulator
returned (`devbc explain H001`). The machine's virtual clock follows those times.

columns:
  accesses    that the guest made to the register
  handled     answered by a program: the guest would not have left the kernel
  declined    answered by the device's userspace model: the program declined, none answers this access, or
              the device's lock was taken
  mismatches  reads whose value is not the recording's; any makes the exit status 1
  ns/exit     median time of a handled exit in the emulated hypervisor: from one access to the next, with
              dispatch, handler, comparison and the clock's own reading, without a hardware exit; blank where
              the host has no usable time-stamp counter

Accesses that no device of the machine claims are counted, and given the recorded value. The time in the last
line is that of the whole run, models included, after loading and compiling.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recordings", nargs="+", type=Path, metavar="TRACE", help="a recording, gzipped or not"
    )
    parser.epilog = _NOTES
    parser.add_argument(
        "--machine", default="pc", help="a machine's name, or a path ending in .toml (default: pc)"
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="jit",
        help="what runs the programs; `none`: the models answer everything (default: jit)",
    )  # fmt: skip
    parser.add_argument(
        "--device", action="append", dest="only", metavar="NAME",
        help="run programs of this device of the machine only; may be repeated (default: of all)",
    )  # fmt: skip
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument(
        "--top", type=_rows, default=_ROWS, metavar="N",
        help=f"show the N registers that are accessed most (default: {_ROWS})",
    )  # fmt: skip
    rows.add_argument("--all", action="store_true", help="show every register")
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
    from devbc.guests.replay import merge

    results = []
    with output.progress("loading the machine's programs") as tell:
        from devbc.catalog import load_machine

        devices, wires = load_machine(args.machine, args.devices)
        engine = make_engine(args.engine)
        for path in args.recordings:
            tell(f"replaying {path.name}")
            results.append(_replay(path, devices, wires, engine, args.only))
    merged = merge(results)
    checked = _checked(engine)
    if output.json:
        about: dict[str, Any] = {"engine": args.engine, "machine": args.machine}
        if checked is not None:
            about["checked_instructions"] = checked
        output.object(about | merged.to_json())
    else:
        title = f"{merged.recording} on `{args.machine}`, engine {args.engine}"
        if args.only and engine:
            title += f", programs of {', '.join(args.only)}"
        _print(merged, title, len(merged.registers) if args.all else args.top, output)
        if checked is not None:
            output.text(f"{checked:,} instructions, each held to what was proven")
    return EXIT_REJECTED if merged.total.mismatches else EXIT_OK


def make_engine(name: str) -> Engine | None:
    """The engine of a name; None for `none`."""
    match name:
        case "jit":
            from devbc.engines.jit import JitEngine

            return JitEngine()
        case "interp":
            from devbc.engines.native_interpreter import InterpreterEngine

            return InterpreterEngine()
        case "checked":
            from devbc.engines.checked import CheckedEngine

            return CheckedEngine()
    return None


def _replay(
    path: Path, devices: Any, wires: Any, engine: Engine | None, only: Sequence[str] | None
) -> Replay:
    from devbc.guests.recording import read_recording
    from devbc.guests.replay import replay
    from devbc.hypervisor.vm import VM

    recording = read_recording(path)
    vm = VM(devices, wires, rtc_base=recording.rtc_base)
    if engine:
        vm.attach(engine, only)
    return replay(recording, vm)


def _checked(engine: Engine | None) -> int | None:
    """How many instructions the checked engine has checked. Raises what it could not raise to native code."""
    if engine is None or engine.name != "checked":
        return None
    from devbc.engines.checked import CheckedEngine

    assert isinstance(engine, CheckedEngine)
    engine.raise_failure()
    return engine.steps


def _print(result: Replay, title: str, rows: int, output: Output) -> None:
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
