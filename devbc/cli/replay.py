"""`devbc replay`: run recorded guests through a machine's programs, and compare every value read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbc.cli.output import EXIT_OK, EXIT_REJECTED, Output

if TYPE_CHECKING:
    from devbc.engines.engine import Engine
    from devbc.guests.replay import RegisterName, Replay, Tally

SUMMARY = "replay recorded guests, and compare every value with what the recording emulator returned"
EXAMPLES = """\
  devbc replay bench/traces/x86-pc-boot.tsv.gz                    a PC, the JIT
  devbc replay --engine interp boot.tsv.gz                        the same programs, interpreted
  devbc replay --engine checked boot.tsv.gz                       each step held to the proof: minutes
  devbc replay --engine none boot.tsv.gz                          userspace models only: the baseline
  devbc replay --machine ./board.toml --devices ./devices a.tsv   your own machine and devices
"""

ENGINES = ("jit", "interp", "checked", "none")
#: Registers shown in the table; the others are summed up by device.
_ROWS = 24


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recordings", nargs="+", type=Path, metavar="TRACE", help="a recording, gzipped or not"
    )
    parser.add_argument(
        "--machine", default="pc", help="a machine's name, or a path ending in .toml (default: pc)"
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="jit", help="what runs the programs (default: jit)"
    )
    parser.add_argument(
        "--devices", action="append", type=Path, default=[], metavar="DIR",
        help="a folder to look for devices and machines in, before those that come with devbc",
    )  # fmt: skip


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.guests.replay import merge

    results = []
    with output.progress("loading the machine's programs") as tell:
        from devbc.catalog import load_machine

        devices, wires = load_machine(args.machine, args.devices)
        engine = make_engine(args.engine)
        for path in args.recordings:
            tell(f"replaying {path.name}")
            results.append(_replay(path, devices, wires, engine))
    merged = merge(results)
    if output.json:
        output.object({"engine": args.engine, "machine": args.machine} | merged.to_json())
    else:
        _print(merged, args.engine, args.machine, output)
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


def _replay(path: Path, devices: Any, wires: Any, engine: Engine | None) -> Replay:
    from devbc.guests.recording import read_recording
    from devbc.guests.replay import replay
    from devbc.hypervisor.vm import VM

    recording = read_recording(path)
    vm = VM(devices, wires, rtc_base=recording.rtc_base)
    if engine:
        vm.attach(engine)
    result = replay(recording, vm)
    _raise_failure(engine)
    return result


def _raise_failure(engine: Engine | None) -> None:
    """What the checked engine could not raise while native code was calling it."""
    if engine and engine.name == "checked":
        from devbc.engines.checked import CheckedEngine

        assert isinstance(engine, CheckedEngine)
        engine.raise_failure()


def _print(result: Replay, engine: str, machine: str, output: Output) -> None:
    from rich import box
    from rich.table import Table

    title = f"{result.recording} on `{machine}`, engine {engine}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("device")
    table.add_column("register")
    table.add_column("")
    for heading in ("accesses", "handled", "declined", "mismatches", "ns/exit"):
        table.add_column(heading, justify="right")
    claimed = [(name, tally) for name, tally in result.registers.items() if name.device]
    shown = sorted(claimed, key=lambda row: -row[1].accesses)[:_ROWS]
    device = ""
    for name, tally in claimed:
        if (name, tally) not in shown:
            continue
        table.add_row(
            name.device if name.device != device else "", name.register, str(name.op), *_cells(tally)
        )
        device = name.device
    if len(shown) < len(claimed):
        table.add_section()
        table.add_row("", f"{len(claimed) - len(shown)} more registers", "", *_cells(_rest(claimed, shown)))
    table.add_section()
    table.add_row("", "no device", "", f"{result.total.unclaimed:,}", "", "", "", "", style="dim")
    table.add_row("all", "", "", *_cells(result.total), style="bold")
    output.rich(table)
    share = 100 * result.total.handled / max(1, result.total.accesses)
    output.text(
        f"{share:.2f} % of {result.total.accesses:,} accesses handled by programs, "
        f"{result.total.mismatches} mismatches, {result.seconds:.2f} s"
    )
    for each in result.mismatches:
        output.text(
            f"mismatch: {each.name.device} {each.name.register}, access {each.index} at {each.time} ns: "
            f"got {each.got:#x}, recorded {each.recorded:#x}"
        )


def _rest(claimed: list[tuple[RegisterName, Tally]], shown: list[tuple[RegisterName, Tally]]) -> Tally:
    from devbc.guests.replay import Tally

    rest = Tally()
    for row in claimed:
        if row not in shown:
            rest.add(row[1])
    return rest


def _cells(tally: Tally) -> list[str]:
    ns = tally.ns_per_handled_exit
    return [
        f"{tally.accesses:,}",
        f"{tally.handled:,}",
        f"{tally.declined:,}" if tally.declined else "",
        f"[red]{tally.mismatches:,}[/red]" if tally.mismatches else "0",
        "" if ns is None else f"{ns:.1f}",
    ]
