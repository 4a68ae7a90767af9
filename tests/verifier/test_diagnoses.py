"""The verifier's messages, in full: `diagnoses/NAME.dev` beside what is said of it, `NAME.stderr`.

`DEVBC_BLESS=1 pytest tests/verifier/test_diagnoses.py` writes the files anew; the difference is then for a
person to judge. Programs in C are those of `tests/data/rejected`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devbc.diagnostics import Rejected, render
from devbc.program.elf import load_object
from devbc.verifier import verify_program
from devbc_lang import compile_source

FOLDER = Path(__file__).parent / "diagnoses"
OBJECTS = Path(__file__).parents[1] / "data" / "rejected"


def said_of(object: bytes, name: str) -> str:
    """Every diagnostic of a program that must be refused."""
    try:
        verify_program(load_object(object, name=name))
    except Rejected as rejected:
        return "\n\n".join(render(each) for each in rejected.diagnostics) + "\n"
    raise AssertionError("it was accepted")


def compare(text: str, expected: Path) -> None:
    if os.environ.get("DEVBC_BLESS"):
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.dev")), ids=lambda path: path.stem)
def test_programs_of_the_language(path: Path) -> None:
    text = said_of(compile_source(path.read_text(), path.name).object, path.name)
    compare(text, path.with_suffix(".stderr"))
    assert f"[{path.stem[:4]}]" in text


@pytest.mark.parametrize("path", sorted(OBJECTS.glob("*.o")), ids=lambda path: path.stem)
def test_programs_in_c(path: Path) -> None:
    compare(said_of(path.read_bytes(), path.name), FOLDER / f"{path.stem}.stderr")
