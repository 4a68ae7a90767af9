"""What `--emit` shows: the syntax tree and the IR of small devices, as golden files beside their sources.

`DEVBC_BLESS=1` writes them anew. BPF assembly is LLVM's and changes with it: of that, only what must hold.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devbc_lang import compile_source

SOURCES = sorted((Path(__file__).parent / "stages").glob("*.dev"))
SOURCE = Path(__file__).parent / "stages" / "timer.dev"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
@pytest.mark.parametrize("stage", ["ast", "ir"])
def test_stage_is_as_it_was(source: Path, stage: str) -> None:
    compiled = compile_source(source.read_text(), source.name)
    text = {"ast": lambda: compiled.ast_text, "ir": lambda: compiled.ir}[stage]()
    expected = source.with_suffix(f".{stage}")
    if os.environ.get("DEVBC_BLESS"):
        expected.write_text(text)
    assert text == expected.read_text()


def test_assembly_has_a_section_for_each_handler() -> None:
    compiled = compile_source(SOURCE.read_text(), SOURCE.name)
    for binding in ("pio/read@0x0:4", "pio/read@0x4:1", "pio/write@0x4:1", "timer/tick"):
        assert f'"{binding}"' in compiled.assembly or f"\t{binding}," in compiled.assembly
    assert "gotox" not in compiled.assembly
    assert "call 5" not in compiled.assembly  # nothing here asks for the time


def test_the_object_does_not_depend_on_where_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SOURCE.read_text()
    before = compile_source(text, "a.dev").object
    monkeypatch.chdir(tmp_path)
    assert compile_source(text, "a.dev").object == before
    assert b"count * STEP" in before  # the source's lines travel in .BTF
