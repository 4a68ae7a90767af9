"""What the loader's tests share: objects from clang and from LLVM IR, and runs of linked handlers."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import binding as llvm

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, Verdict
from devbc.engines.interpreter import run_handler
from devbc.isa.insn import decode
from devbc.program.elf import load_object
from devbc.program.program import Handler, Program

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "clang"
INCLUDE = ROOT / "devbc" / "include"


@cache
def load(name: str) -> Program:
    """A checked-in object from clang."""
    return load_object((DATA / f"{name}.o").read_bytes(), name=f"{name}.o")


@cache
def clang() -> str | None:
    """A clang that has BPF's cpu v4, if there is one."""
    for name in ("clang", *(f"clang-{version}" for version in range(30, 17, -1))):
        if path := shutil.which(name):
            asked = subprocess.run([path, "-target", "bpf", "-mcpu=help", "-xc", "-E", "-"],
                                   input="", capture_output=True, text=True, check=False)  # fmt: skip
            if "v4" in (asked.stderr + asked.stdout).split():
                return path
    return None


def compile_ir(text: str, *, level: int = 2) -> bytes:
    """The BPF object that LLVM makes of a module in LLVM IR, not optimised but for code generation."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(f'target triple = "bpfel"\n{text}')
    module.verify()
    machine = llvm.Target.from_triple("bpfel").create_target_machine(cpu="v4", opt=level)
    return bytes(machine.emit_object(module))


def load_ir(text: str, *, level: int = 2) -> Program:
    return load_object(compile_ir(text, level=level), name="test.o")


def handler(program: Program, section: str) -> Handler:
    return next(each for each in program.handlers if each.section == section)


def run(
    program: Program, section: str, scratch: bytearray, *, clock: int = 0, **fields: int
) -> tuple[Verdict, dict[str, Any]]:
    """Run a handler on an exit with these fields; the verdict and the exit's fields afterwards."""
    exit = bytearray(EXIT_SIZE)
    for name, value in fields.items():
        field = EXIT_FIELDS[name]
        exit[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    insns = decode(handler(program, section).code)
    verdict = run_handler(insns, exit, scratch, program.rodata, lambda: clock)
    after: dict[str, Any] = {}
    for name, field in EXIT_FIELDS.items():
        values = [
            int.from_bytes(exit[at : at + field.size], "little")
            for at in range(field.offset, field.end, field.size)
        ]
        after[name] = values if field.count > 1 else values[0]
    return verdict, after
