"""From LLVM IR to BPF: LLVM's optimiser, its BPF backend, and the object that devbc and other tools load.

The target machine is made once in a process. What LLVM refuses of our IR is our bug, not the user's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm

_TRIPLE = "bpfel"
#: The instruction set of RFC 9669: signed division, sign extension, 32-bit jumps, `gotol`.
_CPU = "v4"


def optimise(ir: str) -> Any:
    """The module of this IR, after LLVM's -O2."""
    machine = _target_machine()
    module = llvm.parse_assembly(ir)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return module


def emit_assembly(module: Any) -> str:
    """BPF assembly, as LLVM writes it."""
    text: str = _target_machine().emit_assembly(module)
    return text


def emit_object(module: Any) -> bytes:
    """A relocatable ELF object with BTF."""
    data: bytes = _target_machine().emit_object(module)
    return data


@cache
def _target_machine() -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(_TRIPLE).create_target_machine(cpu=_CPU, opt=2)
