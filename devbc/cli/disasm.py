"""`devbc disasm`: the linked byte code of each handler, with its source lines between."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from devbc.cli.handlers import chosen, configure_handler
from devbc.cli.output import EXIT_OK, Output

if TYPE_CHECKING:
    from devbc.program.program import Handler

SUMMARY = "show the byte code of a program's handlers, with source lines"
EXAMPLES = """\
  devbc disasm devices/i8254/i8254.dev
  devbc disasm pit.o --handler pio/read@0x0-0x2:1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a .dev source or a BPF object")
    configure_handler(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    from devbc.catalog import load_program

    program = chosen(load_program(args.file), args.handler, args.file)
    handlers = program.handlers
    if output.json:
        output.object({"device": program.device, "handlers": [_handler_json(each) for each in handlers]})
    else:
        output.text("\n\n".join(_listing(each) for each in handlers))
    return EXIT_OK


def _listing(handler: Handler) -> str:
    from devbc.isa.disasm import listing
    from devbc.isa.insn import decode

    insns = decode(handler.code, name=handler.section)
    functions = {function.slot: function.name for function in handler.functions}
    body = listing(insns, functions=functions, lines=handler.lines)
    return f"{handler.section}:  {len(insns)} instructions\n{body}"


def _handler_json(handler: Handler) -> dict[str, object]:
    from devbc.isa.disasm import disassemble
    from devbc.isa.insn import decode

    insns = decode(handler.code, name=handler.section)
    return {
        "section": handler.section,
        "code": handler.code.hex(),
        "instructions": [
            {
                "slot": slot,
                "text": disassemble(insn, slot),
                "line": span.line if (span := handler.span(slot)) else None,
            }
            for slot, insn in insns.items()
        ],
    }
