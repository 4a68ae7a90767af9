"""`devbc compile`: from the mini-language to a BPF object, or to any stage before it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from devbc.cli.output import EXIT_OK, Output

SUMMARY = "compile a device program to a BPF object"
EXAMPLES = """\
  devbc compile pit.dev                 writes pit.o
  devbc compile pit.dev -o /tmp/pit.o
  devbc compile pit.dev --emit asm      LLVM's BPF assembly, to stdout
  devbc compile pit.dev --emit ast      the syntax tree
"""

_STAGES = ("ast", "ir", "asm", "obj")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="FILE.dev", help="a source file")
    parser.add_argument("--emit", choices=_STAGES, default="obj", help="the stage to show (default: obj)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write; default: FILE.o")


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.files import read_text, write_file
    from devbc_lang import compile_source

    compiled = compile_source(read_text(args.source), str(args.source))
    if not output.json:
        for warning in compiled.warnings:
            output.diagnostic(warning)
    warnings = [each.to_json() for each in compiled.warnings]
    if args.emit == "obj":
        target = args.output or args.source.with_suffix(".o")
        write_file(target, compiled.object)
        if output.json:
            output.object(
                {"ok": True, "output": str(target), "bytes": len(compiled.object), "diagnostics": warnings}
            )
        else:
            print(f"wrote {target}, {len(compiled.object)} bytes", file=sys.stderr)
        return EXIT_OK
    text = {"ast": lambda: compiled.ast_text, "ir": lambda: compiled.ir, "asm": lambda: compiled.assembly}[
        args.emit
    ]()
    if args.output:
        write_file(args.output, text.encode())
    elif output.json:
        output.object({"ok": True, "stage": args.emit, "text": text, "diagnostics": warnings})
    else:
        output.text(text.rstrip("\n"))
    return EXIT_OK
