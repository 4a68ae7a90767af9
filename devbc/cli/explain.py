"""`devbc explain`: the manual's text of a diagnostic code."""

from __future__ import annotations

import argparse

from devbc.cli.manual import codes
from devbc.cli.output import EXIT_OK, UNKNOWN_CODE, Output
from devbc.diagnostics import did_you_mean, reject

SUMMARY = "say what a diagnostic code means, and what to do"
EXAMPLES = """\
  devbc explain V007
  devbc explain          list all codes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "code", nargs="?", metavar="CODE", help="a code as in `error[V007]`; without one, all are listed"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    manual = {code.id: code for code in codes()}
    if args.code is None:
        if output.json:
            output.object({"codes": [{"code": code.id, "title": code.title} for code in manual.values()]})
        else:
            output.text("\n".join(f"{code.id}  {code.title}" for code in manual.values()))
        return EXIT_OK
    code = manual.get(args.code.upper())
    if code is None:
        raise reject(
            UNKNOWN_CODE,
            f"there is no diagnostic `{args.code}`",
            help=[*did_you_mean(args.code.upper(), manual), "`devbc explain` lists all codes"],
        )
    if output.json:
        output.object({"code": code.id, "title": code.title, "manual": code.manual})
    else:
        output.text(f"{code.id}: {code.title}\n\n{code.manual}")
    return EXIT_OK
