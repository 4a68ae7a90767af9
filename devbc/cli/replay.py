"""`devbc replay`: run recorded guests through a machine's programs, and compare every value read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbc.cli.output import EXIT_OK, EXIT_REJECTED, Output, cache_option
from devbc.cli.replay_table import COLUMNS, print_replay, rows_options

if TYPE_CHECKING:
    from devbc.engines.engine import Engine
    from devbc.guests.recording import Recording
    from devbc.guests.replay import Replay

SUMMARY = "replay recorded guests, and compare every value with what the recording emulator returned"
EXAMPLES = """\
  devbc replay bench/traces/x86-pc-boot.tsv.gz                    the machine it was recorded on, the JIT
  devbc replay --engine interp boot.tsv.gz                        the same programs, interpreted
  devbc replay --device hpet --device pit boot.tsv.gz             programs for these two, models for the rest
  devbc replay --engine checked boot.tsv.gz                       each step held to the proof: minutes
  devbc replay --engine none boot.tsv.gz                          userspace models only: the baseline
  devbc replay --machine ./board.toml --devices ./devices a.tsv   your own machine and devices
"""

ENGINES = ("jit", "interp", "checked", "none")
#: What is measured, below the options.
_NOTES = f"""\
A recording is every access of a guest to its devices, with its time and the value that the recording emulator
returned (`devbc explain H001`). The machine's virtual clock follows those times.

{COLUMNS}
Accesses that no device of the machine claims are counted, and given the recorded value. The time in the last
line is that of the whole run, models included, after loading and compiling.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recordings", nargs="+", type=Path, metavar="TRACE", help="a recording, gzipped or not"
    )
    parser.epilog = _NOTES
    parser.add_argument(
        "--machine",
        help="a machine's name, or a path ending in .toml (default: what it was recorded on, else pc)",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="jit",
        help="what runs the programs; `none`: the models answer everything (default: jit)",
    )  # fmt: skip
    parser.add_argument(
        "--device", action="append", dest="only", metavar="NAME",
        help="run programs of this device of the machine only; may be repeated (default: of all)",
    )  # fmt: skip
    rows_options(parser)
    cache_option(parser)
    parser.add_argument(
        "--devices", action="append", type=Path, default=[], metavar="DIR",
        help="a folder to look for devices and machines in, before those that come with devbc",
    )  # fmt: skip


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.guests.replay import merge

    results = []
    loaded: dict[str, Any] = {}
    with output.progress("loading the machine's programs") as tell:
        from devbc.catalog import load_machine, machine_of
        from devbc.guests.recording import read_recording

        engine = make_engine(args.engine)
        for path in args.recordings:
            recording = read_recording(path)
            machine = args.machine or machine_of(recording.machine, args.devices) or "pc"
            if machine not in loaded:
                loaded[machine] = load_machine(machine, args.devices)
            tell(f"replaying {path.name}")
            devices, wires = loaded[machine]
            results.append(_replay(recording, devices, wires, engine, args.only))
    merged = merge(results)
    machines = ", ".join(loaded)
    checked = _checked(engine)
    if output.json:
        about: dict[str, Any] = {"engine": args.engine, "machine": machines}
        if checked is not None:
            about["checked_instructions"] = checked
        output.object(about | merged.to_json())
    else:
        title = f"{merged.recording} on `{machines}`, engine {args.engine}"
        if args.only and engine:
            title += f", programs of {', '.join(args.only)}"
        print_replay(merged, title, len(merged.registers) if args.all else args.top, output)
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
    recording: Recording, devices: Any, wires: Any, engine: Engine | None, only: Sequence[str] | None
) -> Replay:
    from devbc.guests.replay import replay
    from devbc.hypervisor.vm import VM

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
