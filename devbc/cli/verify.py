"""`devbc verify`: prove a program's handlers safe, and say what was proven of each."""

from __future__ import annotations

import argparse
from pathlib import Path

from devbc.cli.output import EXIT_OK, Output

SUMMARY = "verify a program's handlers, and say what was proven of each"
EXAMPLES = """\
  devbc verify devices/i8254/i8254.dev
  devbc verify pit.o --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a .dev source or a BPF object")


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.catalog import load_program
    from devbc.verifier import verify_program
    from devbc.verifier.report import report_json, report_text

    programs = []
    for path in args.files:
        with output.progress(f"verifying {path.name}"):
            programs.append((path, verify_program(load_program(path))))
    if output.json:
        output.object(
            {"ok": True, "programs": [{"file": str(path)} | report_json(each) for path, each in programs]}
        )
    else:
        output.text("\n\n".join(report_text(each) for _, each in programs))
    return EXIT_OK
