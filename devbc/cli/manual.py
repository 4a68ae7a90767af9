"""The manual of diagnostics: every stage's codes, and the generated page `docs/diagnostics.md`.

`python -m devbc.cli.manual FILE` writes the page; a test holds the page to it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from devbc.diagnostics import Code, registered_codes

#: The modules that define codes; importing them registers the codes.
_DEFINERS = (
    "devbc_lang.errors",
    "devbc.isa.errors",
    "devbc.program.errors",
    "devbc.verifier.errors",
    "devbc.engines.errors",
    "devbc.hypervisor.errors",
    "devbc.guests.errors",
    "devbc.service.errors",
    "devbc.files",
    "devbc.cli.output",
    "devbc.cli.errors",
)

_STAGES = {
    "C": "Command line",
    "E": "Engines",
    "H": "Hypervisor and machine files",
    "I": "Instruction set and assembler",
    "L": "Mini-language",
    "O": "Program objects",
    "S": "Service and its clients",
    "V": "Verifier",
}


def codes() -> list[Code]:
    """Every diagnostic code of every stage, in order."""
    for module in _DEFINERS:
        importlib.import_module(module)
    return list(registered_codes())


def page() -> str:
    """The diagnostics page, in Markdown."""
    parts = [
        "# Diagnostics",
        "Generated from the definitions of the codes by `make docs`; edit those. "
        "`devbc explain CODE` prints the same text.",
    ]
    stage = ""
    for code in codes():
        if code.id[0] != stage:
            stage = code.id[0]
            parts.append(f"## {_STAGES[stage]}")
        parts.append(f"### {code.id}: {code.title}\n\n{code.manual}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
