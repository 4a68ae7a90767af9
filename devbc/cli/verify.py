"""`devbc verify`: prove a program's handlers safe, and say what was proven of each."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devbc.cli.handlers import chosen, configure_handler
from devbc.cli.output import EXIT_OK, EXIT_REJECTED, Output, cache_option

if TYPE_CHECKING:
    from devbc.diagnostics import Diagnostic
    from devbc.program.program import Program
    from devbc.program.verified import VerifiedProgram
    from devbc.verifier import Policy

SUMMARY = "verify a program's handlers, and say what was proven of each"
EXAMPLES = """\
  devbc verify devices/i8254/i8254.dev
  devbc verify pit.o --json
  devbc verify pit.o --explain                  which lines write, have effects, take the time
  devbc verify pit.o --policy untrusted.toml    under the caps and capabilities of a file
  devbc verify pit.o --handler timer/edge --trace | less
                                                the state at each instruction that was explored
"""

#: Columns where stdout is not a terminal.
_WIDTH = 100


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a .dev source or a BPF object")
    configure_handler(parser)
    parser.add_argument("--policy", type=Path, metavar="TOML", help="caps and capabilities to verify under")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--explain", action="store_true", help="say where each fact comes from")
    how.add_argument("--trace", action="store_true", help="print each instruction that is explored")
    cache_option(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.verifier.report import report_json, report_text

    policy = _policy(args.policy)
    if args.trace:
        return _trace(args, policy, output)
    verified = []
    for path in args.files:
        with output.progress(f"verifying {path.name}"):
            verified.append((path, _verified(path, args.handler, policy)))
    explain = policy if args.explain else None
    if output.json:
        programs = [{"file": str(path)} | report_json(each, explain=explain) for path, each in verified]
        output.object({"ok": True, "programs": programs})
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
        output.text("\n\n".join(report_text(each, width=width, explain=explain) for _, each in verified))
    return EXIT_OK


def _verified(path: Path, handler: str | None, policy: Policy) -> VerifiedProgram:
    from devbc.catalog import load_program, load_verified
    from devbc.verifier import verify_program

    if handler is None:
        return load_verified(path, policy)
    return verify_program(chosen(load_program(path), handler, path), policy=policy)


def _policy(path: Path | None) -> Policy:
    from devbc.files import read_file
    from devbc.limits import SOURCE_BYTES
    from devbc.verifier import DEFAULT
    from devbc.verifier.policy_file import parse_policy

    return DEFAULT if path is None else parse_policy(read_file(path, SOURCE_BYTES), file=str(path))


def _trace(args: argparse.Namespace, policy: Policy, output: Output) -> int:
    """The log of each handler on stdout, and then what was wrong."""
    from devbc.catalog import load_program
    from devbc.diagnostics import Rejected

    faults: list[Diagnostic] = []
    logs: list[dict[str, Any]] = []
    for path in args.files:
        program = chosen(load_program(path), args.handler, path)
        for log, found in _traced(program, policy, output):
            logs.append({"file": str(path)} | log)
            faults += found
    if output.json:
        output.object(
            {"ok": not faults, "handlers": logs, "diagnostics": [each.to_json() for each in faults]}
        )
        return EXIT_REJECTED if faults else EXIT_OK
    if faults:
        raise Rejected(*faults)
    return EXIT_OK


def _traced(
    program: Program, policy: Policy, output: Output
) -> Iterator[tuple[dict[str, Any], tuple[Diagnostic, ...]]]:
    """Each handler's log, printed as it is made unless it is wanted as JSON, and its faults."""
    from devbc.verifier.diagnosis import diagnosed
    from devbc.verifier.fields import scratch_names
    from devbc.verifier.trace import Entry, Printer, trace
    from devbc.verifier.trail import Setting

    for handler in program.handlers:
        setting = Setting.of(
            handler, scratch_size=len(program.scratch_image), rodata=program.rodata, policy=policy
        )
        entries: list[Entry] = []
        if output.json:
            outcome = trace(setting, entries.append)
        else:
            output.text(handler.section)
            printer = Printer(output.text)
            outcome = trace(setting, printer.entry)
            printer.finish(outcome)
        faults = outcome if isinstance(outcome, tuple) else ()
        log = {
            "section": handler.section,
            "accepted": not faults,
            "entries": [asdict(each) for each in entries],
        }
        yield log, diagnosed(faults, setting, partial(scratch_names, program))
