"""Byte code lifted to LLVM IR: one handler becomes one function, and one more for each local call's target.

Registers are SSA values: where paths join that left different ones in a live register, a phi chooses. The
stack is an alloca, which LLVM dissolves into values where a program only spills. Each memory access goes
through what the verifier has found out about it (`AccessFact`): a pointer derived from its region's base, so
that LLVM's alias analysis knows as much as the verifier did.

What it holds true: a verified handler does here what `devbc.semantics` says, with no check that the verifier
has made unnecessary. An edge that the verifier has proven dead does not exist here. Accesses that may reach
the shared area are done once, whole, and as written (`devbc.engines.shared_memory`).

Code without facts is lifted for people who trust it (conformance tests): addresses are then plain numbers,
alignment is not assumed, and the stack is zeroed. It is as safe as any native code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from devbc.abi import EXIT_SIZE, Helper, MapIndex
from devbc.engines import shared_memory
from devbc.engines.flow import ARGUMENTS, RESULT, Block, flow, functions
from devbc.engines.llvm_text import TextAlgebra, Value, global_name, truth
from devbc.isa.insn import Insn
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS, Kind, Operation
from devbc.limits import ALIGNMENT, STACK_BYTES
from devbc.program.verified import AccessFact, Region
from devbc.semantics import condition, source, step, updated

_UNKNOWN: Final = AccessFact(None, None)
#: Regions that nobody but the run at hand can reach while it lasts.
_PRIVATE: Final = frozenset({Region.EXIT, Region.STACK, Region.OUTER_STACK, Region.RODATA})
_MAP_REGIONS: Final = {MapIndex.SCRATCH.value: Region.SCRATCH, MapIndex.RODATA.value: Region.RODATA}
#: Instructions that answer at once: value, result, exit.
_GLANCE: Final = 4
#: What a local function is passed, beside r1 to r5.
_BASES: Final = "ptr %exit, ptr %scratch, ptr %clock"


def _label(slot: int) -> str:
    """The name of the block that begins at a slot."""
    return f"L{slot}"


class _Way(IntEnum):
    """Where a branch leads, from the unlikely to the likely, as a weight.

    A decline costs a thousand times what a handler takes. A way that answers at once is the one of a guest
    that polls, which is what handlers are for; the way out of a loop is not. A counter that runs, which takes
    the time, is read more often than one that stands. LLVM lays out the likely way's code to be run without
    a jump.
    """

    DECLINES = 1
    GOES_ON = 1 << 8
    ASKS_TIME = 1 << 12
    ANSWERS = 1 << 16


@dataclass(frozen=True)
class Unit:
    """What the functions of one handler have in common.

    `accesses` is None for code to be trusted. `rodata`: the name of the constant that holds the program's
    read-only data.
    """

    insns: Mapping[int, Insn]
    accesses: Mapping[int, AccessFact] | None
    rodata: str

    @property
    def trusting(self) -> bool:
        return self.accesses is None


def lift(unit: Unit, name: str, r2: int = 0) -> tuple[str, str]:
    """The handler as a function of LLVM IR: what follows its name, and the functions that it calls.

    `u64 handler(devbc_exit *exit, void *scratch, const void *rodata, const clock_page *clock)`, in a module
    that has `devbc_now` (`devbc.engines.clock`). `name` is for the functions that the handler calls; `r2` is
    what that register holds at entry, which no verified handler reads.
    """
    entry, *callees = functions(unit.insns)
    names = {slot: global_name(f"{name}+{slot}") for slot in callees}
    function = _Function(unit, names)
    body = function.lift(entry, {1: function.origin(Region.EXIT), 2: r2})
    # Whatever else a verified program can name lies outside the exit, and nobody else has its address.
    exit_ = "ptr %exit" if unit.trusting else f"ptr noalias dereferenceable({EXIT_SIZE}) %exit"
    parameters = f"({exit_}, ptr %scratch, ptr %rodata, ptr noalias %clock)"
    # A cache line of its own: where code lies in its line decides a cycle or two of seven.
    handler = f"{parameters} nounwind align {ALIGNMENT} {body}"
    arguments = {register: f"%r{register}" for register in ARGUMENTS}
    parameters = ", ".join(f"i64 {each}" for each in arguments.values()) + f", {_BASES}"
    called = [
        f"define internal i64 {local}({parameters}) nounwind {_Function(unit, names).lift(slot, arguments)}"
        for slot, local in names.items()
    ]
    return handler, "".join(called)


class _Function:
    """One function being lifted: the machine that `devbc.semantics` runs on, over LLVM values."""

    def __init__(self, unit: Unit, names: Mapping[int, str]) -> None:
        self.unit = unit
        #: The local functions' names, by their first slot.
        self.names = names
        self.algebra = TextAlgebra()
        #: Lines of the entry block, each once.
        self.prologue: dict[str, None] = {}
        self.registers: dict[int, Value] = {}
        self.slot = 0
        self.loops = False

    def lift(self, entry: int, arguments: Mapping[int, Value]) -> str:
        """The body of the function at slot `entry`. Registers that hold no argument start as zero."""
        graph = flow(self.unit.insns, entry)
        place = {start: index for index, start in enumerate(graph.blocks)}
        self.loops = any(place[each] >= place[start] for start in place for each in graph.predecessors[start])
        lines = self.algebra.lines
        initial: dict[int, Value] = {**dict.fromkeys(range(REGISTERS), 0), **arguments}
        final: dict[int, dict[int, Value]] = {}
        #: Phis: the line of each, its block and its register.
        phis: list[tuple[int, int, int]] = []
        for start, block in graph.blocks.items():
            if start != entry and self._returns(block):
                continue
            lines.append(f"{_label(start)}:")
            ways_in = [final.get(each) for each in graph.predecessors[start]]
            if start == entry:
                ways_in.append(initial)
            self.registers = {}
            for register in sorted(graph.live[start]):
                # A way in that has not been lifted yet closes a loop.
                values = {None if each is None else each[register] for each in ways_in}
                value = values.pop() if len(values) == 1 else None
                if value is None:
                    phis.append((len(lines), start, register))
                    value = self.algebra.result("phi i64 ")
                self.registers[register] = value
            self._body(block)
            self._terminate(block, graph.blocks)
            final[start] = self.registers
        for line, start, register in phis:
            ways = [(final[each][register], _label(each)) for each in graph.predecessors[start]]
            if start == entry:
                ways.append((initial[register], "entry"))
            lines[line] += ", ".join(f"[ {value}, %{label} ]" for value, label in ways)
        return "\n".join(["{", "entry:", *self.prologue, f"br label %{_label(entry)}", *lines, "}\n"])

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

    def _returns(self, block: Block) -> bool:
        """Whether a block does no more than return a value.

        Each way to it has one of its own: code generation joins what it likes, and a handler's likely way
        should end where it is, without a jump.
        """
        *before, last = (self.unit.insns[slot].spec.kind for slot in block.slots)
        return last is Kind.EXIT and before in ([], [Kind.ALU])

    def _terminate(self, block: Block, blocks: Mapping[int, Block]) -> None:
        slot = self.slot
        insn = self.unit.insns[slot]
        returns = [each for each in block.successors if self._returns(blocks[each])]
        match block.successors:
            case (taken, following):
                jumps = truth(condition(self.algebra, insn.spec, self.get(insn.dst), source(self, insn)))
                ways = self._way(taken), self._way(following)
                weights = f', !prof !{{!"branch_weights", i32 {ways[0]:d}, i32 {ways[1]:d}}}'
                hint = weights if ways[0] is not ways[1] else ""
                labels = [
                    f"{_label(each)}.{slot}" if each in returns else _label(each)
                    for each in (taken, following)
                ]
                self._add(f"br i1 {jumps}, label %{labels[0]}, label %{labels[1]}{hint}")
            case (only,):
                self._add(f"br label %{_label(only)}" + (f".{slot}" if returns else ""))
            case _ if insn.spec.kind is Kind.EXIT:
                self._add(f"ret i64 {self.get(RESULT)}")
            case _:
                self._add("unreachable")
        after = self.registers
        for each in returns:
            self._add(f"{_label(each)}.{slot}:")
            self.registers = after.copy()
            self._body(blocks[each])
            self._add(f"ret i64 {self.get(RESULT)}")
        self.registers = after

    def _way(self, slot: int) -> _Way:
        """What the code at `slot` does, come to from here: a look at a few instructions."""
        result = self.registers.get(RESULT)
        for _ in range(_GLANCE):
            insn = self.unit.insns.get(slot)
            if insn is None:
                break
            match insn.spec.kind:
                case Kind.EXIT:
                    if result == 0:
                        return _Way.DECLINES
                    return _Way.GOES_ON if self.loops else _Way.ANSWERS
                case Kind.CALL if insn.spec.operation is Operation.CALL_HELPER and not self.loops:
                    return _Way.ASKS_TIME
                case Kind.ALU if insn.dst == RESULT:
                    result = insn.imm if insn.spec.name in ("mov_imm", "mov32_imm") else None
                case Kind.STORE if self._fact_at(slot).region is not Region.EXIT:
                    break
                case Kind.ALU | Kind.STORE:
                    pass
                case _:
                    break
            slot += insn.spec.slots
        return _Way.GOES_ON

    def _call(self, insn: Insn) -> None:
        match insn.spec.operation:
            case Operation.CALL_LOCAL:
                target = insn.target(self.slot)
                assert target is not None
                values = "".join(f"i64 {self.get(register)}, " for register in ARGUMENTS)
                call = f"call i64 {self.names[target]}({values}{_BASES})"
            case Operation.CALL_HELPER if insn.imm == Helper.KTIME_GET_NS:
                call = "call i64 @devbc_now(ptr %clock)"
            case _:
                raise ValueError(f"slot {self.slot}: no verified program has `{insn.spec.name} {insn.imm}`")
        for register in ARGUMENTS:
            self.set(register, 0)
        self.set(RESULT, self.algebra.result(call))

    def _add(self, instruction: str) -> None:
        """Add an instruction without a result."""
        self.algebra.lines.append(instruction)

    # The machine of `devbc.semantics`.

    def get(self, register: int) -> Value:
        return self.origin(Region.STACK) if register == FRAME_POINTER else self.registers[register]

    def set(self, register: int, value: Value) -> None:
        self.registers[register] = value

    def load(self, address: Value, bits: int) -> Value:
        pointer = self._pointer(address)
        if self._shared:
            return self.algebra.result(shared_memory.load(pointer, bits))
        return self.algebra.result(f"load i{bits}, ptr {pointer}, align {self._alignment(bits)}")

    def store(self, address: Value, value: Value, bits: int) -> None:
        pointer = self._pointer(address)
        if self._shared:
            self._add(shared_memory.store(value, pointer, bits))
        else:
            self._add(f"store i{bits} {value}, ptr {pointer}, align {self._alignment(bits)}")

    def atomic(self, insn: Insn, address: Value, operand: Value, expected: Value | None) -> Value:
        bits = insn.spec.width
        if self._shared or self.unit.trusting:
            pointer = self._pointer(address)
            if expected is None:
                update = shared_memory.update(insn.spec.operation, pointer, operand, bits)
                return self.algebra.result(update)
            pair = self.algebra.result(shared_memory.exchange(pointer, expected, operand, bits))
            return self.algebra.result(f"extractvalue {{ i{bits}, i1 }} {pair}, 0")
        # In memory that nobody else can reach, any update is one step.
        old = self.load(address, bits)
        self.store(address, updated(self.algebra, insn.spec, old, operand, expected), bits)
        return old

    def address(self, insn: Insn) -> Value:
        region = _MAP_REGIONS.get(insn.map_index)
        if insn.spec.operation is not Operation.MAP_VALUE_BY_IDX or region is None:
            raise ValueError(f"slot {self.slot}: no verified program has `{insn.spec.name} {insn.map_index}`")
        origin = self.origin(region)
        return self.algebra.add(origin, insn.map_offset, 64) if insn.map_offset else origin

    # Where accesses go.

    def _fact_at(self, slot: int) -> AccessFact:
        return _UNKNOWN if self.unit.accesses is None else self.unit.accesses[slot]

    @property
    def _fact(self) -> AccessFact:
        return self._fact_at(self.slot)

    @property
    def _shared(self) -> bool:
        """Whether the access at hand may reach memory that others write."""
        return not self.unit.trusting and self._fact.region not in _PRIVATE

    def _alignment(self, bits: int) -> int:
        return 1 if self.unit.trusting else bits // 8

    def _base(self, region: Region | None) -> str | None:
        """The pointer that the region's accesses derive from.

        A caller's frame has none: it is another function's alloca, whose address has come in as a number.
        """
        match region:
            case Region.EXIT | Region.SCRATCH:
                return f"%{region}"
            case Region.RODATA:
                return self.unit.rodata
            case Region.STACK:
                frame = f"[{STACK_BYTES} x i8]"
                self._once(f"%frame = alloca {frame}, align 16")
                if self.unit.trusting:
                    self._once(f"store {frame} zeroinitializer, ptr %frame")
                self._once(f"%stack = getelementptr inbounds i8, ptr %frame, i64 {STACK_BYTES}")
                return "%stack"
        return None

    def origin(self, region: Region) -> str:
        """The number that the program knows a region's base by."""
        self._once(f"%{region}.at = ptrtoint ptr {self._base(region)} to i64")
        return f"%{region}.at"

    def _once(self, line: str) -> None:
        self.prologue.setdefault(line)

    def _pointer(self, address: Value) -> str:
        """The address as a pointer, derived from its region's base where that is known.

        `inbounds` is what the verifier has proven.
        """
        fact = self._fact
        base = self._base(fact.region)
        if base is None or fact.region is None:
            return self.algebra.result(f"inttoptr i64 {address} to ptr")
        distance = fact.offset
        if distance == 0:
            return base
        offset = self.algebra.sub(address, self.origin(fact.region), 64) if distance is None else distance
        return self.algebra.result(f"getelementptr inbounds i8, ptr {base}, i64 {offset}")
