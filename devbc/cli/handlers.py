"""Choosing one handler of a program by its section's name, for `--handler`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from devbc.diagnostics import did_you_mean, reject
from devbc.program.program import Program


def configure_handler(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--handler", metavar="SECTION", help="only this handler")


def chosen(program: Program, section: str | None, path: Path) -> Program:
    """The program with only that handler, or with all; Rejected (H003) if it has no such handler."""
    if section is None:
        return program
    from devbc.hypervisor.errors import UNKNOWN_NAME

    handlers = tuple(each for each in program.handlers if each.section == section)
    if not handlers:
        sections = [each.section for each in program.handlers]
        help = did_you_mean(section, sections) or (f"it has {', '.join(sections)}",)
        raise reject(UNKNOWN_NAME, f"`{path}` has no handler `{section}`", help=help)
    return replace(program, handlers=handlers)
