"""The interpreter that users know as `interp`: `devbc.semantics` on LLVM values, compiled once.

One native function runs any verified handler: it walks an array of decoded instructions with a `switch` over
their forms. Each case is an instruction form of the opcode table, instantiated from `devbc.semantics` with
operands that are not known until it runs: register numbers, offsets and immediates are LLVM values, loaded
from the instruction at hand. Nothing of a program is compiled but a stub that names its array.

What it relies on: the verifier. Addresses are the machine's own and no access is checked; a slot that the
verifier has shown to be dead traps. What it adds: none of a handler's accesses to memory is repeated, left
out or torn (`shared_memory`).

Not here: the oracle for other engines, which is `devbc.engines.interpreter`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

from llvmlite import ir

from devbc.abi import Helper, MapIndex
from devbc.engines.clock import define_now, virtual_page
from devbc.engines.layout import I8, I32, I64, POINTER, PTR, U32, U64, Layout, at
from devbc.engines.llvm_algebra import LlvmAlgebra, Value
from devbc.engines.native import NativeModule, engine_version
from devbc.engines.shared_memory import atomic, load_once, store_once
from devbc.isa.insn import Insn, decode, encode
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS, SPECS, Kind, Operation, Spec
from devbc.limits import CALL_DEPTH, STACK_BYTES
from devbc.program.verified import VerifiedHandler, VerifiedProgram
from devbc.semantics import condition, source, step

#: An instruction, decoded: its form's number, its fields with the immediate sign-extended, and for jumps and
#: local calls the distance in bytes from here to where they lead. A map's `lddw` has the map's index in `src`
#: and the offset in `imm`.
DECODED: Final = Layout(
    "Decoded",
    (
        ("form", U32),
        ("reserved", U32),
        ("dst", U64),
        ("src", U64),
        ("off", U64),
        ("imm", U64),
        ("distance", U64),
    ),
)
#: What a local call keeps for its caller.
_FRAME: Final = Layout("Frame", (("return_to", POINTER), ("saved", (U64, 4))))
#: Registers that a callee gives back as it found them (RFC 9669 section 2).
_SAVED: Final = range(6, 10)

#: The forms that can run, by number; the number after the last is a slot that no run reaches.
_FORMS: Final = tuple(
    spec
    for spec in SPECS.values()
    if spec.kind not in (Kind.LDDW, Kind.CALL)
    or spec.operation
    in (Operation.IMM64, Operation.MAP_VALUE_BY_IDX, Operation.CALL_HELPER, Operation.CALL_LOCAL)
)
_NUMBERS: Final = {spec.name: number for number, spec in enumerate(_FORMS)}
_DEAD: Final = len(_FORMS)

_INTERPRET: Final = "devbc_interpret"
_HANDLER_TYPE: Final = ir.FunctionType(I64, [PTR] * 4)
_INTERPRET_TYPE: Final = ir.FunctionType(I64, [PTR] * 5)


class InterpreterEngine:
    """`devbc.engines.engine.Engine`: runs verified programs without compiling them."""

    name: Final = "interp"

    def load(self, programs: Sequence[VerifiedProgram]) -> InterpretedPrograms:
        return InterpretedPrograms([handler for program in programs for handler in program.handlers])


class InterpretedPrograms:
    """`devbc.engines.engine.LoadedPrograms`: decoded instructions, and a native stub for each handler."""

    def __init__(self, handlers: Sequence[VerifiedHandler]) -> None:
        # Kept: the handlers because their identity is the key, the rest because native code points to it.
        self._handlers = tuple(handlers)
        self._interpreter = _interpreter()
        self._codes = [decoded(handler.insns) for handler in handlers]
        self._stubs = _stubs(self._interpreter.address(_INTERPRET), self._codes)
        self._addresses = {
            id(handler): self._stubs.address(_stub_name(number)) for number, handler in enumerate(handlers)
        }

    def address(self, handler: VerifiedHandler) -> int:
        """The address of `u64 handler(exit *, scratch *, rodata *, clock *)`; KeyError for one not loaded."""
        return self._addresses[id(handler)]


def run_raw(code: bytes, mem: bytes) -> int:
    """Run byte code that the caller trusts on a copy of `mem` (r1: its address, r2: its length); gives r0.

    For tests of the engine itself: nothing is verified, and code that leaves its memory takes the process
    with it. Raises Rejected if the code does not decode.
    """
    length = encode([Insn(SPECS["mov_imm"], dst=2, imm=len(mem))])
    records = decoded(decode(length + code))
    buffer, clock = ctypes.create_string_buffer(mem, len(mem)), virtual_page()
    run = _interpreter().function(_INTERPRET, ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_void_p] * 5))
    return int(run(buffer, None, None, ctypes.byref(clock), ctypes.byref(records)))


def decoded(insns: Mapping[int, Insn]) -> Any:
    """The instructions as a ctypes array of `DECODED` records, and a record that traps behind them.

    Slots that are not among `insns` have none: what leads there leads to the trap.
    """
    places = {slot: place for place, slot in enumerate(sorted(insns))}
    records = (DECODED.struct * (len(places) + 1))()
    for slot, place in places.items():
        insn = insns[slot]
        records[place] = _record(insn)
        target = insn.target(slot)
        if target is not None:
            records[place].distance = (places.get(target, len(places)) - place) * DECODED.size
    records[len(places)].form = _DEAD
    return records


def _record(insn: Insn) -> Any:
    spec = insn.spec
    operands = replace(insn, src=insn.map_index, imm=insn.map_offset) if _names_map(spec) else insn
    return DECODED.struct(
        form=_NUMBERS.get(spec.name, _DEAD),
        dst=insn.dst,
        src=operands.src,
        off=operands.off,
        imm=operands.imm,
    )


def _names_map(spec: Spec) -> bool:
    return spec.operation is Operation.MAP_VALUE_BY_IDX


@cache
def _interpreter() -> NativeModule:
    """The interpreter, compiled at first use and then shared."""

    def build() -> ir.Module:
        module = ir.Module("devbc_interpreter")
        _Builder(module).build()
        return module

    return NativeModule(build, [_INTERPRET], content=f"interpreter {engine_version()}")


def _stub_name(number: int) -> str:
    return f"devbc_stub_{number}"


def _stubs(interpret: int, codes: Sequence[Any]) -> NativeModule:
    """A function for each handler, which calls the interpreter with the handler's instructions."""
    module = ir.Module("devbc_stubs")
    names = [_stub_name(number) for number in range(len(codes))]
    for name, code in zip(names, codes, strict=True):
        function = ir.Function(module, _HANDLER_TYPE, name)
        builder = ir.IRBuilder(function.append_basic_block())
        callee = builder.inttoptr(I64(interpret), _INTERPRET_TYPE.as_pointer())
        instructions = builder.inttoptr(I64(ctypes.addressof(code)), PTR)
        builder.ret(builder.call(callee, [*function.args, instructions], tail=True))
    return NativeModule(module, names)


class _DynamicAlgebra(LlvmAlgebra):
    """LLVM values, where what an instruction holds as a constant may be a value already."""

    def const(self, value: Any, bits: int) -> Value:
        return value if isinstance(value, ir.Value) else super().const(value, bits)


class _Builder:
    """Builds the interpreter, and is the machine of `devbc.semantics` while it does.

    `insn` is the record of the instruction at hand. Registers and the position live in memory of the
    function at hand; LLVM promotes the position to a register.
    """

    def __init__(self, module: Any) -> None:
        self.now = define_now(module)
        self.trap = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "llvm.trap")
        self.function = ir.Function(module, _INTERPRET_TYPE, _INTERPRET)
        self.exit, self.scratch, self.rodata, self.clock, self.code = self.function.args
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.algebra = _DynamicAlgebra(self.builder)
        self.registers = self._room(8 * REGISTERS)
        self.stack = self._room(STACK_BYTES * CALL_DEPTH)
        self.frames = self._room(_FRAME.size * (CALL_DEPTH - 1))
        self.frame = self.builder.alloca(PTR, name="frame")
        self.position = self.builder.alloca(PTR, name="position")
        self.insn: Value = None

    def build(self) -> None:
        builder = self.builder
        self.set(1, builder.ptrtoint(self.exit, I64))
        self.set(FRAME_POINTER, builder.ptrtoint(at(builder, self.stack, STACK_BYTES), I64))
        builder.store(self.frames, self.frame)
        builder.store(self.code, self.position)
        dispatch = self.function.append_basic_block("dispatch")
        dead = self.function.append_basic_block("dead")
        builder.branch(dispatch)
        builder.position_at_end(dispatch)
        self.insn = builder.load(self.position, name="insn", typ=PTR)
        switch = builder.switch(DECODED.load(builder, self.insn, "form"), dead)
        for number, spec in enumerate(_FORMS):
            block = self.function.append_basic_block(spec.name)
            switch.add_case(I32(number), block)
            builder.position_at_end(block)
            self._case(spec)
            if not builder.block.is_terminated:
                builder.branch(dispatch)
        builder.position_at_end(dead)
        builder.call(self.trap, [])
        builder.unreachable()

    def _case(self, spec: Spec) -> None:
        # The fields of an `Insn` are integers to everyone else. `devbc.semantics` only hands them on, to
        # `get`, `set` and `const`, so that here they are values.
        insn = Insn(spec, *(self._field(name) for name in ("dst", "src", "off", "imm")))
        match spec.kind:
            case Kind.JUMP:
                taken = condition(self.algebra, spec, self.get(insn.dst), source(self, insn))
                self._go(self.builder.select(taken, self._field("distance"), I64(DECODED.size)))
            case Kind.JA:
                self._go(self._field("distance"))
            case Kind.EXIT:
                self._return()
            case Kind.CALL if spec.operation is Operation.CALL_LOCAL:
                self._call()
            case Kind.CALL:
                self._call_helper()
            case _:
                step(self, insn)
                self._go(I64(DECODED.size))

    def _go(self, distance: Value) -> None:
        self.builder.store(self._beyond(self.insn, distance), self.position)

    def _call_helper(self) -> None:
        """There is one helper that a verified program can call."""
        assert list(Helper) == [Helper.KTIME_GET_NS]
        self.set(0, self.builder.call(self.now, [self.clock]))
        self._go(I64(DECODED.size))

    def _call(self) -> None:
        """A new frame of the stack is next to the caller's; the verifier has counted the frames."""
        builder = self.builder
        frame = builder.load(self.frame, typ=PTR)
        _FRAME.store(builder, at(builder, self.insn, DECODED.size), frame, "return_to")
        for index, register in enumerate(_SAVED):
            _FRAME.store(builder, self.get(register), frame, "saved", I64(index))
        builder.store(at(builder, frame, _FRAME.size), self.frame)
        self._move_stack(STACK_BYTES)
        self._go(self._field("distance"))

    def _return(self) -> None:
        builder = self.builder
        frame = builder.load(self.frame, typ=PTR)
        with builder.if_then(builder.icmp_unsigned("==", frame, self.frames)):
            builder.ret(self.get(0))
        frame = at(builder, frame, -_FRAME.size)
        builder.store(frame, self.frame)
        for index, register in enumerate(_SAVED):
            self.set(register, _FRAME.load(builder, frame, "saved", I64(index)))
        self._move_stack(-STACK_BYTES)
        builder.store(_FRAME.load(builder, frame, "return_to"), self.position)

    def _move_stack(self, by: int) -> None:
        self.set(FRAME_POINTER, self.builder.add(self.get(FRAME_POINTER), I64(by)))

    def _field(self, name: str) -> Any:
        return DECODED.load(self.builder, self.insn, name)

    def _room(self, size: int) -> Value:
        room = self.builder.alloca(ir.ArrayType(I8, size))
        room.align = 8
        room.type = PTR  # llvmlite would have it hold nothing but what it was made for
        return room

    def _beyond(self, pointer: Value, distance: Value) -> Value:
        return self.builder.gep(pointer, [distance], inbounds=True, source_etype=I8)

    # The machine of `devbc.semantics`.

    def get(self, register: Any) -> Value:
        return self.builder.load(self._register(register), typ=I64)

    def set(self, register: Any, value: Value) -> None:
        self.builder.store(value, self._register(register))

    def load(self, address: Value, bits: int) -> Value:
        return load_once(self.builder, self.builder.inttoptr(address, PTR), bits)

    def store(self, address: Value, value: Value, bits: int) -> None:
        store_once(self.builder, value, self.builder.inttoptr(address, PTR), bits)

    def atomic(self, insn: Insn, address: Value, operand: Value, expected: Value | None) -> Value:
        pointer = self.builder.inttoptr(address, PTR)
        return atomic(self.builder, insn.spec.operation, pointer, operand, expected)

    def address(self, insn: Insn) -> Value:
        builder = self.builder
        is_scratch = builder.icmp_unsigned("==", self._field("src"), I64(MapIndex.SCRATCH))
        base = builder.ptrtoint(builder.select(is_scratch, self.scratch, self.rodata), I64)
        return builder.add(base, self._field("imm"))

    def _register(self, register: Any) -> Value:
        index = register if isinstance(register, ir.Value) else I64(register)
        return self.builder.gep(self.registers, [index], inbounds=True, source_etype=I64)
