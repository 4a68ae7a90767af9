"""The language reference is true: its examples compile, and verify unless they say otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devbc.diagnostics import Rejected
from devbc.program.elf import load_object
from devbc.verifier import verify_program
from devbc_lang import compile_source

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text()
EXAMPLES = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

#: Declarations that the page's fragments refer to, each given where a fragment does not declare it.
PREAMBLE = {
    "HZ": "const HZ = 1_193_182;",
    "irq": "line irq;",
    "gate": "input gate;",
    "tx": "signal tx;",
    "tick": "timer tick;",
    "Channel": "struct Channel { loaded_at: u64, reload: u32, latched: bool }",
    "state": """state {
        channel: [Channel; 3], divisor: u16, fifo: [u8; 16], head: u8, pending: u32, scratch: u8, isr: u32,
        comparator: [u64; 3], config: u64 }""",
    "elapsed": "fn elapsed(c: &Channel) -> u64 { return now() - c.loaded_at; }",
}


def complete(example: str) -> str:
    """A whole device around a fragment: of declarations, of registers, of banks' outlines, of statements."""
    if example.lstrip().startswith("//") and "device" in example:
        return example
    if "{ ... }" in example:
        return f"device d {{ {example.replace('...', 'register NAME at 0 : u8 = 0;')} }}"
    declarations, registers, statements = "", "", ""
    if re.match(r"const|line|signal|fn|on |bank", example):
        declarations = example
    elif "register" in example:
        registers = example
    else:
        statements = example
    declared = [
        text
        for name, text in PREAMBLE.items()
        if not re.search(
            rf"^(const|line|input|signal|timer|struct|fn) {name}\b|^{name} \{{", declarations, re.M
        )
    ]
    return f"""device d {{ {" ".join(declared)} {declarations}
        bank mmio around[0x400] {{ {registers}
            register used at 0x300 : u8 {{ write(v) {{ var i: u8 = v; i += 1; {statements} }} }} }} }}"""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0][:40])
def test_examples_compile(example: str) -> None:
    names = iter(range(100))
    text = re.sub("NAME", lambda _: f"r{next(names)}", complete(example))
    program = load_object(compile_source(text, "language.md").object, name="language.md")
    if "// refused" in example:
        with pytest.raises(Rejected):
            verify_program(program)
        return
    verify_program(program)


@pytest.mark.parametrize("example", [text for text in EXAMPLES if "// refused" in text])
def test_what_is_refused_is_the_line_that_says_so(example: str) -> None:
    """Without the line, the rest of the example is accepted."""
    accepted = [line for line in example.splitlines() if "// refused" not in line]
    text = complete("\n".join([*accepted, ""]))
    verify_program(load_object(compile_source(text, "language.md").object, name="language.md"))
