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
    """The module of this IR, optimised. LLVM verifies a module with debug information where it parses it."""
    module = llvm.parse_assembly(ir)
    builder = llvm.create_pass_builder(_target_machine(), llvm.create_pipeline_tuning_options(speed_level=2))
    _passes().run(module, builder)
    for function in module.functions:
        # For code generation only: as a hint for the passes it would leave loops as they are.
        function.add_function_attribute("minsize")
    return module


def _passes() -> Any:
    """Of the sixty passes of -O2, those that make a difference to handlers (`docs/decisions.md`).

    Nothing is inlined or vectorised here, and the lowering does not repeat what it knows.
    """
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_jump_threading_pass()
    passes.add_loop_unroll_pass()
    passes.add_instruction_combine_pass()
    passes.add_global_dead_code_eliminate_pass()  # tables that no handler reads
    return passes


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
