"""Byte code lifted to LLVM IR: one handler becomes one function, and one more for each local call's target.

Registers are SSA values: blocks with one predecessor continue with its values, others get a phi for each
register that is live into them. The stack is an alloca, which LLVM dissolves into values where a program
only spills. Each memory access goes through what the verifier has found out about it (`AccessFact`): a
pointer derived from its region's base, so that LLVM's alias analysis knows as much as the verifier did.

What it holds true: a verified handler does here what `devbc.semantics` says, with no check that the verifier
has made unnecessary. An edge that the verifier has proven dead does not exist here. Accesses that may reach
the shared area are done once, whole, and as written (`devbc.engines.shared_memory`).

Code without facts is lifted for people who trust it (conformance tests): addresses are then plain numbers,
alignment is not assumed, and the stack is zeroed. It is as safe as any native code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llvmlite import ir

from devbc.abi import EXIT_SIZE, Helper, MapIndex
from devbc.engines.flow import ARGUMENTS, RESULT, Block, flow, functions
from devbc.engines.layout import I8, I64, PTR, at
from devbc.engines.llvm_algebra import LlvmAlgebra, Value, constant, integer
from devbc.engines.shared_memory import atomic, load_once, store_once
from devbc.isa.insn import Insn
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS, Kind, Operation
from devbc.limits import STACK_BYTES
from devbc.program.verified import AccessFact, Region
from devbc.semantics import condition, source, step, updated

#: `u64 handler(struct devbc_exit *exit, void *scratch, const void *rodata, const struct clock_page *clock)`.
HANDLER: Final = ir.FunctionType(I64, [PTR] * 4)
#: A local function: r1 to r5, then exit, scratch, clock.
_LOCAL: Final = ir.FunctionType(I64, [I64] * len(ARGUMENTS) + [PTR] * 3)

_UNKNOWN: Final = AccessFact(None, None)
#: Regions that nobody but the run at hand can reach while it lasts.
_PRIVATE: Final = frozenset({Region.EXIT, Region.STACK, Region.OUTER_STACK, Region.RODATA})
_MAP_REGIONS: Final = {MapIndex.SCRATCH.value: Region.SCRATCH, MapIndex.RODATA.value: Region.RODATA}


@dataclass(frozen=True)
class Unit:
    """What the functions of one handler have in common.

    `accesses` is None for code to be trusted. `rodata`: the constant that holds the program's read-only
    data. `now`: `devbc_now` of `devbc.engines.clock`. `locals`: LLVM functions by their first slot.
    """

    module: Any
    insns: Mapping[int, Insn]
    accesses: Mapping[int, AccessFact] | None
    rodata: Value
    now: Value
    locals: dict[int, Value] = field(default_factory=dict)

    @property
    def trusting(self) -> bool:
        return self.accesses is None


def lift(unit: Unit, name: str, r2: int = 0) -> None:
    """Add the handler to the unit's module as a function `name` of type HANDLER.

    `r2` is what that register holds at entry; no verified handler reads it.
    """
    entry, *callees = functions(unit.insns)
    handler = ir.Function(unit.module, HANDLER, name)
    handler.attributes.add("nounwind")
    for argument, argument_name in zip(handler.args, ("exit", "scratch", "rodata", "clock"), strict=True):
        argument.name = argument_name
    for slot in callees:
        local = ir.Function(unit.module, _LOCAL, f"{name}+{slot}")
        local.linkage = "internal"
        local.attributes.add("nounwind")
        unit.locals[slot] = local
    exit_, scratch, _, clock = handler.args
    if not unit.trusting:
        # Whatever else the program can name lies outside this structure, and nobody else has its address.
        exit_.add_attribute("noalias")
        exit_.attributes.dereferenceable = EXIT_SIZE
    clock.add_attribute("noalias")
    _Function(unit, handler, exit_, scratch, clock).lift(entry, {1: exit_, 2: constant(r2, 64)})
    for slot, local in unit.locals.items():
        *values, exit_, scratch, clock = local.args
        _Function(unit, local, exit_, scratch, clock).lift(slot, dict(zip(ARGUMENTS, values, strict=True)))


class _Function:
    """One function being lifted: the machine that `devbc.semantics` runs on, over LLVM values."""

    def __init__(self, unit: Unit, function: Any, exit_: Value, scratch: Value, clock: Value) -> None:
        self.unit = unit
        self.function = function
        self.clock = clock
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.algebra = LlvmAlgebra(self.builder)
        frame = self.builder.alloca(ir.ArrayType(I8, STACK_BYTES), name="frame")
        frame.align = 16
        frame.type = PTR  # llvmlite's alloca has a typed pointer; memory here has none
        if unit.trusting:
            self.builder.store(ir.Constant(frame.allocated_type, None), frame)
        #: The pointers that every access derives from, and the numbers that the program knows them by.
        self.bases = {
            Region.EXIT: exit_,
            Region.STACK: at(self.builder, frame, STACK_BYTES),
            Region.SCRATCH: scratch,
            Region.RODATA: unit.rodata,
        }
        self.origins = {
            region: self.builder.ptrtoint(base, I64, name=region) for region, base in self.bases.items()
        }
        self.registers: dict[int, Value] = {}
        self.slot = 0

    def lift(self, entry: int, arguments: Mapping[int, Value]) -> None:
        """Lift the function at slot `entry`. Registers that hold no argument start as zero."""
        graph = flow(self.unit.insns, entry)
        prologue = self.builder.block
        blocks = {start: self.function.append_basic_block(f"L{start}") for start in graph.blocks}
        self.builder.branch(blocks[entry])
        initial = {register: constant(0, 64) for register in range(REGISTERS)}
        for register, value in arguments.items():
            is_pointer = isinstance(value.type, ir.PointerType)
            initial[register] = self.origins[Region.EXIT] if is_pointer else value
        final: dict[int, dict[int, Value]] = {}
        ends: dict[int, Any] = {}
        phis: dict[int, dict[int, Any]] = {}
        for start, block in graph.blocks.items():
            self.builder.position_at_end(blocks[start])
            predecessors = graph.predecessors[start]
            if start == entry and not predecessors:
                self.registers = initial
            elif start != entry and len(predecessors) == 1:
                # Its only way in: in reverse postorder that block has been lifted before this one.
                self.registers = dict(final[predecessors[0]])
            else:
                phis[start] = {each: self.builder.phi(I64, f"r{each}") for each in sorted(graph.live[start])}
                self.registers = dict(phis[start])
            self._body(block)
            self._terminate(block, blocks)
            final[start], ends[start] = self.registers, self.builder.block
        for start, registers in phis.items():
            for register, phi in registers.items():
                if start == entry:
                    phi.add_incoming(initial[register], prologue)
                for predecessor in graph.predecessors[start]:
                    phi.add_incoming(final[predecessor][register], ends[predecessor])

    def _body(self, block: Block) -> None:
        for slot in block.slots:
            self.slot = slot
            insn = self.unit.insns[slot]
            match insn.spec.kind:
                case Kind.CALL:
                    self._call(insn)
                case Kind.JUMP | Kind.JA | Kind.EXIT:
                    pass
                case _:
                    step(self, insn)

    def _terminate(self, block: Block, blocks: Mapping[int, Any]) -> None:
        insn = self.unit.insns[self.slot]
        match block.successors:
            case (taken, following):
                jumps = condition(self.algebra, insn.spec, self.get(insn.dst), source(self, insn))
                self.builder.cbranch(jumps, blocks[taken], blocks[following])
            case (only,):
                self.builder.branch(blocks[only])
            case _ if insn.spec.kind is Kind.EXIT:
                self.builder.ret(self.get(RESULT))
            case _:
                self.builder.unreachable()

    def _call(self, insn: Insn) -> None:
        match insn.spec.operation:
            case Operation.CALL_LOCAL:
                target = insn.target(self.slot)
                assert target is not None
                arguments = [self.get(register) for register in ARGUMENTS]
                bases = [self.bases[Region.EXIT], self.bases[Region.SCRATCH], self.clock]
                result = self.builder.call(self.unit.locals[target], arguments + bases)
            case Operation.CALL_HELPER if insn.imm == Helper.KTIME_GET_NS:
                result = self.builder.call(self.unit.now, [self.clock])
            case _:
                raise ValueError(f"slot {self.slot}: no verified program has `{insn.spec.name} {insn.imm}`")
        for register in ARGUMENTS:
            self.set(register, constant(0, 64))
        self.set(RESULT, result)

    # The machine of `devbc.semantics`.

    def get(self, register: int) -> Value:
        return self.origins[Region.STACK] if register == FRAME_POINTER else self.registers[register]

    def set(self, register: int, value: Value) -> None:
        self.registers[register] = value

    def load(self, address: Value, bits: int) -> Value:
        pointer = self._pointer(address)
        if self._shared:
            return load_once(self.builder, pointer, bits)
        return self.builder.load(pointer, align=self._alignment(bits), typ=integer(bits))

    def store(self, address: Value, value: Value, bits: int) -> None:
        pointer = self._pointer(address)
        if self._shared:
            store_once(self.builder, value, pointer, bits)
        else:
            self.builder.store(value, pointer, align=self._alignment(bits))

    def atomic(self, insn: Insn, address: Value, operand: Value, expected: Value | None) -> Value:
        if self._shared or self.unit.trusting:
            return atomic(self.builder, insn.spec.operation, self._pointer(address), operand, expected)
        # In memory that nobody else can reach, any update is one step.
        old = self.load(address, insn.spec.width)
        new = updated(self.algebra, insn.spec, old, operand, expected)
        self.store(address, new, insn.spec.width)
        return old

    def address(self, insn: Insn) -> Value:
        region = _MAP_REGIONS.get(insn.map_index)
        if insn.spec.operation is not Operation.MAP_VALUE_BY_IDX or region is None:
            raise ValueError(f"slot {self.slot}: no verified program has `{insn.spec.name} {insn.map_index}`")
        return self.algebra.add(self.origins[region], constant(insn.map_offset, 64), 64)

    # Where accesses go.

    @property
    def _fact(self) -> AccessFact:
        return _UNKNOWN if self.unit.accesses is None else self.unit.accesses[self.slot]

    @property
    def _shared(self) -> bool:
        """Whether the access at hand may reach memory that others write."""
        return not self.unit.trusting and self._fact.region not in _PRIVATE

    def _alignment(self, bits: int) -> int:
        return 1 if self.unit.trusting else bits // 8

    def _pointer(self, address: Value) -> Value:
        """The address as a pointer, derived from its region's base where that is known.

        `inbounds` is what the verifier has proven. A caller's frame is not a base here: it is another
        function's alloca, whose address has come in as a number.
        """
        fact = self._fact
        base = self.bases.get(fact.region) if fact.region is not None else None
        if base is None or fact.region is None:
            return self.builder.inttoptr(address, PTR)
        if fact.offset is not None:
            return at(self.builder, base, fact.offset)
        distance = self.builder.sub(address, self.origins[fact.region])
        return self.builder.gep(base, [distance], inbounds=True, source_etype=I8)
