"""The JIT: verified handlers as native code, those of all programs together, in modules of some size.

Not here: how byte code becomes LLVM IR (`devbc.engines.lift`), or that native code (`devbc.engines.native`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

from llvmlite import ir

from devbc.engines.clock import define_now, virtual_page
from devbc.engines.lift import Unit, lift
from devbc.engines.llvm_text import global_name
from devbc.engines.native import NativeModule, engine_version
from devbc.isa.insn import decode
from devbc.limits import ALIGNMENT, MODULE_SLOTS
from devbc.program.verified import VerifiedHandler, VerifiedProgram

#: A handler as a ctypes function: exit, scratch, rodata, clock.
PROTOTYPE: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_void_p] * 4)


@dataclass(frozen=True)
class JitProgram:
    """Compiled handlers. Addresses and functions are valid while this object, or one of the functions, lives.

    `programs` are those that were compiled; handlers are told apart by identity.
    """

    programs: tuple[VerifiedProgram, ...]
    modules: tuple[NativeModule, ...]
    #: Each handler's module and its name there, by the handler's identity.
    places: Mapping[int, tuple[NativeModule, str]]

    def symbol(self, handler: VerifiedHandler) -> str:
        """The handler's name in `ir` and `assembly`."""
        return self.places[id(handler)][1]

    def address(self, handler: VerifiedHandler) -> int:
        """The address of `u64 handler(exit *, scratch *, rodata *, clock_page *)`; rodata is not used."""
        module, symbol = self.places[id(handler)]
        return module.address(symbol)

    def function(self, handler: VerifiedHandler) -> Callable[..., int]:
        """The handler as a ctypes callable, for tests and measurements."""
        module, symbol = self.places[id(handler)]
        return module.function(symbol, PROTOTYPE)

    @property
    def ir(self) -> str:
        """The optimised LLVM IR."""
        return "\n".join(module.optimised_ir() for module in self.modules)

    @property
    def assembly(self) -> str:
        """The machine code, as assembly."""
        return "\n".join(module.assembly() for module in self.modules)


class JitEngine:
    """The engine `jit` of the hypervisor (`devbc.engines.engine.Engine`)."""

    name: Final = "jit"

    def load(self, programs: Sequence[VerifiedProgram]) -> JitProgram:
        """Compile all handlers of the programs; devices of one type may share a program."""
        distinct = [*{id(each): each for each in programs}.values()]
        content = _content(distinct)
        places: dict[int, tuple[NativeModule, str]] = {}
        modules = []
        for number, part in enumerate(_parts(distinct)):
            exports = [each.symbol for each in part]
            kept = content and f"{content} part {number}"
            modules.append(NativeModule(partial(_build, part), exports, content=kept, optimised=True))
            places |= {id(each.handler): (modules[-1], each.symbol) for each in part}
        return JitProgram(tuple(programs), tuple(modules), places)


@dataclass(frozen=True)
class _Entry:
    """A handler to be compiled: whose program's, under which name, and the name of its read-only data."""

    program: VerifiedProgram
    handler: VerifiedHandler
    symbol: str
    rodata: str


def _parts(programs: Sequence[VerifiedProgram]) -> Iterator[list[_Entry]]:
    """The handlers in modules of some size: LLVM works on one at a time for the whole process, and a client's
    large program must not keep the others' waiting for long."""
    part: list[_Entry] = []
    slots = 0
    for index, program in enumerate(programs):
        prefix = f"{index}.{program.program.device}"
        for handler in program.handlers:
            if part and slots + len(handler.insns) > MODULE_SLOTS:
                yield part
                part, slots = [], 0
            part.append(_Entry(program, handler, f"{prefix}.{handler.handler.section}", f"{prefix}.rodata"))
            slots += len(handler.insns)
    yield part


def _build(part: Sequence[_Entry]) -> str:
    """The IR of the handlers. Those that come out equal are one function with several names."""
    rodata = {each.rodata: each.program.program.rodata for each in part}
    lines = [_clock(), *(_constant_data(name, data) for name, data in rodata.items())]
    names: dict[str, str] = {}
    for each in part:
        handler, name = each.handler, global_name(each.symbol)
        unit = Unit(handler.insns, handler.accesses, global_name(each.rodata))
        function, called = lift(unit, each.symbol)
        first = names.setdefault(function, name)
        if first is name:
            lines.append(f"define i64 {name}{function}{called}")
        else:
            lines.append(f"{name} = alias i64 (ptr, ptr, ptr, ptr), ptr {first}")
    return "\n".join(lines)


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
    function, called = lift(Unit(decode(code), None, global_name("rodata")), "raw", r2=len(mem))
    module = f"{_clock()}\n{_constant_data('rodata', b'')}\ndefine i64 @raw{function}{called}"
    run = NativeModule(module, ["raw"], optimised=True).function("raw", PROTOTYPE)
    buffer, clock = ctypes.create_string_buffer(mem, len(mem)), virtual_page()
    return int(run(buffer, None, None, ctypes.byref(clock)))


@cache
def _clock() -> str:
    """The IR of `devbc_now`, with its module's header."""
    module = ir.Module("devbc_jit")
    define_now(module)
    return str(module)


def _constant_data(name: str, data: bytes) -> str:
    """The read-only data as a constant of the module: LLVM folds loads from it, and nothing can change it."""
    content = data or b"\0"
    text = "\\" + content.hex("\\")
    return f'{global_name(name)} = internal constant [{len(content)} x i8] c"{text}", align {ALIGNMENT}'
