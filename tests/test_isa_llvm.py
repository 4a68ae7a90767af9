"""LLVM's assembler reads what our disassembler prints and gives the same bytes: an oracle for both.

Needs a clang that knows BPF's cpu v4 (18 or newer), and skips without it.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from devbc.isa.disasm import disassemble
from devbc.isa.insn import Insn, encode, written_registers
from devbc.isa.opcodes import FRAME_POINTER, SPECS, Kind, Operation, Spec

VERSIONS = ("clang", *(f"clang-{version}" for version in range(30, 17, -1)))

#: What LLVM has no text for, or writes with a symbol.
WITHOUT_TEXT = {"call_local", "call_btf"} | {
    spec.name for spec in SPECS.values() if spec.kind is Kind.LDDW and spec.operation is not Operation.IMM64
}


def _insn(spec: Spec, rng: random.Random) -> Insn:
    insn = Insn(
        spec,
        dst=rng.randrange(11) if spec.dst is None else spec.dst,
        src=rng.randrange(11) if spec.src is None else spec.src,
        off=rng.randrange(-(1 << 15), 1 << 15) if spec.off is None else spec.off,
        imm=rng.randrange(-(1 << 31), 1 << 31) if spec.imm is None else spec.imm,
    )
    if spec.kind is Kind.LDDW:
        insn = replace(insn, imm=rng.randrange(1 << 64))
    if spec.kind is Kind.JA and spec.imm is None:
        # LLVM's assembler takes larger distances as labels only.
        insn = replace(insn, imm=rng.randrange(-(1 << 15), 1 << 15))
    return _insn(spec, rng) if FRAME_POINTER in written_registers(spec, insn.dst, insn.src) else insn


def _assemble(text: str, folder: Path) -> bytes:
    """The byte code that clang makes of the text; skips where there is no clang that knows v4."""
    source, output = folder / "code.s", folder / "code.o"
    source.write_text(".text\nnop: goto +0\n")
    for clang in filter(shutil.which, VERSIONS):
        command = [clang, "-target", "bpf", "-mcpu=v4", "-c", str(source), "-o", str(output)]
        if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0:
            break
    else:
        pytest.skip("there is no clang that assembles BPF at cpu v4")
    source.write_text(text)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with output.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        assert section is not None
        return bytes(section.data())


def test_llvm_assembles_our_text_to_our_bytes(tmp_path: Path) -> None:
    rng = random.Random(9669)
    insns = [_insn(spec, rng) for spec in SPECS.values() if spec.name not in WITHOUT_TEXT for _ in range(20)]
    code = _assemble("".join(f"{_llvm_text(insn)}\n" for insn in insns), tmp_path)
    at = 0
    for insn in insns:
        size = 8 * insn.spec.slots
        assert code[at : at + size] == encode([insn]), disassemble(insn)
        at += size
    assert at == len(code)


def _llvm_text(insn: Insn) -> str:
    """A helper bears a name in our text, which LLVM would make a symbol of: it is given the number."""
    return f"call {insn.imm}" if insn.spec.operation is Operation.CALL_HELPER else disassemble(insn)
