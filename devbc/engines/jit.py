"""The JIT: verified handlers as native code, all handlers of all programs in one module.

Not here: how byte code becomes LLVM IR (`devbc.engines.lift`), or that native code (`devbc.engines.native`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llvmlite import ir

from devbc.engines.clock import define_now, virtual_page
from devbc.engines.layout import I8
from devbc.engines.lift import Unit, lift
from devbc.engines.native import NativeModule, engine_version
from devbc.isa.insn import decode
from devbc.limits import ALIGNMENT
from devbc.program.verified import VerifiedHandler, VerifiedProgram

#: A handler as a ctypes function: exit, scratch, rodata, clock.
PROTOTYPE: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_void_p] * 4)


@dataclass(frozen=True)
class JitProgram:
    """Compiled handlers. Addresses and functions are valid while this object, or one of the functions, lives.

    `programs` are those that were compiled; handlers are told apart by identity.
    """

    programs: tuple[VerifiedProgram, ...]
    native: NativeModule
    symbols: Mapping[int, str]

    def symbol(self, handler: VerifiedHandler) -> str:
        """The handler's name in `ir` and `assembly`."""
        return self.symbols[id(handler)]

    def address(self, handler: VerifiedHandler) -> int:
        """The address of `u64 handler(exit *, scratch *, rodata *, clock_page *)`; rodata is not used."""
        return self.native.address(self.symbol(handler))

    def function(self, handler: VerifiedHandler) -> Callable[..., int]:
        """The handler as a ctypes callable, for tests and measurements."""
        return self.native.function(self.symbol(handler), PROTOTYPE)

    @property
    def ir(self) -> str:
        """The optimised LLVM IR."""
        return self.native.optimised_ir()

    @property
    def assembly(self) -> str:
        """The machine code, as assembly."""
        return self.native.assembly()


class JitEngine:
    """The engine `jit` of the hypervisor (`devbc.engines.engine.Engine`)."""

    name: Final = "jit"

    def load(self, programs: Sequence[VerifiedProgram]) -> JitProgram:
        """Compile all handlers of the programs; devices of one type may share a program."""
        distinct = [*{id(each): each for each in programs}.values()]
        symbols = {
            id(handler): f"{_prefix(index, program)}.{handler.handler.section}"
            for index, program in enumerate(distinct)
            for handler in program.handlers
        }

        def build() -> ir.Module:
            module = ir.Module("devbc_jit")
            now = define_now(module)
            for index, program in enumerate(distinct):
                name = f"{_prefix(index, program)}.rodata"
                rodata = _constant_data(module, name, program.program.rodata)
                for handler in program.handlers:
                    unit = Unit(module, handler.insns, handler.accesses, rodata, now)
                    lift(unit, symbols[id(handler)])
            return module

        native = NativeModule(build, symbols.values(), content=_content(distinct))
        return JitProgram(tuple(programs), native, symbols)


def _prefix(index: int, program: VerifiedProgram) -> str:
    return f"{index}.{program.program.device}"


def _content(programs: Sequence[VerifiedProgram]) -> str:
    """What the programs' code is made from, by their digests; empty if one has none."""
    digests = [program.digest for program in programs]
    return " ".join(["jit", engine_version(), *digests]) if all(digests) else ""


def compile_program(program: VerifiedProgram) -> JitProgram:
    """Compile one program's handlers."""
    return JitEngine().load([program])


def run_raw(code: bytes, mem: bytes) -> int:
    """Run byte code that the caller trusts on a copy of `mem` (r1: its address, r2: its length); gives r0.

    For conformance tests: nothing is verified, and code that leaves its memory takes the process with it.
    Raises Rejected if the code does not decode.
    """
    module = ir.Module("devbc_raw")
    rodata = _constant_data(module, "rodata", b"")
    lift(Unit(module, decode(code), None, rodata, define_now(module)), "raw", r2=len(mem))
    function = NativeModule(module, ["raw"]).function("raw", PROTOTYPE)
    buffer, clock = ctypes.create_string_buffer(mem, len(mem)), virtual_page()
    return int(function(buffer, None, None, ctypes.byref(clock)))


def _constant_data(module: Any, name: str, data: bytes) -> Any:
    """The read-only data as a constant of the module: LLVM folds loads from it, and nothing can change it."""
    content = data or b"\0"
    kind = ir.ArrayType(I8, len(content))
    constant = ir.GlobalVariable(module, kind, name)
    constant.linkage = "internal"
    constant.global_constant = True
    constant.align = ALIGNMENT
    constant.initializer = ir.Constant(kind, bytearray(content))
    return constant
