"""Each code of the verifier: its page of the manual shows a program that is refused with that very code."""

from __future__ import annotations

import re
from typing import Final

import pytest

from devbc.diagnostics import Code, registered_codes, render
from devbc.verifier import errors
from tests.verifier.oracle import rejected

CODES: Final = {code.id: code for code in registered_codes() if code.id.startswith("V")}

#: Codes that no program by itself is refused with: they take a lowered policy, or a policy file.
BY_POLICY: Final = {errors.TOO_COMPLEX, errors.BAD_POLICY}


def example(code: Code) -> str | None:
    """The program in assembly of a page."""
    found = re.search(r"```asm\n(.*?)```", code.manual, re.DOTALL)
    return found and found[1]


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_the_example_of_a_page(code: Code) -> None:
    program = example(code)
    if program is None:
        assert code in BY_POLICY
        return
    refusal = rejected(program, section="pio/write@0x0:1", scratch_size=64, rodata=bytes(64))
    assert [each.code for each in refusal.diagnostics] == [code]
    (diagnostic,) = refusal.diagnostics
    assert diagnostic.span is not None
    assert diagnostic.span.text
    text = render(diagnostic)
    assert text.startswith(f"error[{code.id}]: {diagnostic.message}\n")
    # Like rustc's: lower case (but for names in backticks), no full stop.
    for message in (diagnostic.message, diagnostic.label, *diagnostic.notes, *diagnostic.help):
        assert not message[:1].isupper(), message
        assert not message.endswith("."), message


def test_codes_have_no_gaps() -> None:
    assert list(CODES) == [f"V{number:03}" for number in range(1, len(CODES) + 1)]
