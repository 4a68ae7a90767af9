"""The reference interpreter: `devbc.semantics` on Python integers, with every access checked.

It is the oracle for the other engines and for the verifier, so it trusts nothing: code that leaves its
memory, reads what was never written, calls what does not exist or runs for too long ends in a `Fault`, and
never in another exception. What the verifier proves of a handler is what is checked here at each step; a
fault in a verified handler is a bug of the verifier.

Addresses are those of no real machine: each region lies in a slot of its own, 2**40 bytes from the next, so
that no offset that a program is likely to compute leads from one region into another.

Not here: speed. The engine that users know as `interp` is `devbc.engines.native_interpreter`. Atomics are
atomic among runs of one Python thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from devbc.abi import EXIT_FIELDS, Access, Helper, MapIndex, Verdict
from devbc.engines.integers import INTEGERS, Integers
from devbc.isa.disasm import disassemble
from devbc.isa.insn import Insn
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS, Kind, Operation
from devbc.limits import CALL_DEPTH, RUN_INSTRUCTIONS, STACK_BYTES
from devbc.program.verified import Region, VerifiedHandler
from devbc.semantics import condition, source, step, updated

Buffer = bytes | bytearray | memoryview


class FaultKind(StrEnum):
    MEMORY = "memory"  # outside every region
    READ_ONLY = "read-only"
    MISALIGNED = "misaligned"
    UNINITIALISED = "uninitialised"  # a register or stack byte read before it was written
    NO_INSTRUCTION = "no instruction"  # control left the code, or landed inside a `lddw`
    ADDRESS = "address"  # a `lddw` of something that this machine does not have
    CALL = "call"  # an unknown helper
    CALL_DEPTH = "call depth"
    STEP_LIMIT = "step limit"
    VERDICT = "verdict"  # a handler returned neither DECLINE nor HANDLED


class Fault(Exception):  # noqa: N818 - the field's word for it
    """What the code at `slot` did that no verified program does; `address` where an access was the cause."""

    def __init__(self, kind: FaultKind, slot: int, message: str, address: int | None = None) -> None:
        super().__init__(f"slot {slot}: {message}")
        self.kind = kind
        self.slot = slot
        self.address = address


#: Bits of an address that say where in its region it is; those above say which region.
REGION_BITS: Final = 40
#: Where each region begins. Frames of the stack follow one another, the outermost first.
BASES: Final = {
    region: index << REGION_BITS
    for index, region in enumerate((Region.EXIT, Region.SCRATCH, Region.RODATA, Region.STACK), 1)
}
_MAP_REGIONS: Final = {MapIndex.SCRATCH.value: Region.SCRATCH, MapIndex.RODATA.value: Region.RODATA}

#: Registers that a callee gives back as it found them, and those that no call gives back (section 2).
CALLEE_SAVED: Final = range(6, 10)
CALLER_SAVED: Final = range(1, 6)

#: Bytes of the exit that a program may not write.
EXIT_READ_ONLY: Final = frozenset(
    byte
    for each in EXIT_FIELDS.values()
    if each.access is Access.READ
    for byte in range(each.offset, each.end)
)


class Memory:
    """One region: live bytes that others may change at any time, and what a program may do with them.

    `read_only`: offsets of bytes that a store must not touch; a read-only buffer is so as a whole.
    `fresh`: no byte counts as initialised until it is written.
    """

    def __init__(
        self, region: Region, buffer: Buffer, *, read_only: frozenset[int] = frozenset(), fresh: bool = False
    ) -> None:
        self.region = region
        self.view = memoryview(buffer).cast("B")
        self.read_only = read_only
        self.written = bytearray(len(self.view)) if fresh else None

    def why_not(self, offset: int, size: int, *, load: bool, store: bool) -> tuple[FaultKind, str] | None:
        """The reason why an access is refused, if it is."""
        if offset + size > len(self.view):
            return FaultKind.MEMORY, f"beyond the {len(self.view)} bytes of {self.region}"
        if store and (self.view.readonly or not self.read_only.isdisjoint(range(offset, offset + size))):
            return FaultKind.READ_ONLY, f"a store to read-only bytes of {self.region}"
        if load and self.written is not None and not all(self.written[offset : offset + size]):
            return FaultKind.UNINITIALISED, f"a load of bytes of {self.region} that were never written"
        return None

    def load(self, offset: int, size: int) -> int:
        return int.from_bytes(self.view[offset : offset + size], "little")

    def store(self, offset: int, size: int, value: int) -> None:
        self.view[offset : offset + size] = value.to_bytes(size, "little")
        if self.written is not None:
            self.written[offset : offset + size] = b"\1" * size


@dataclass(frozen=True, slots=True)
class Frame:
    """What a local call keeps: where it returns to, and the caller's registers."""

    return_slot: int
    registers: tuple[int | None, ...]


@dataclass(slots=True)
class State:
    """A run at one instruction: what `devbc.semantics` calls a machine, and what an observer sees.

    A register is None until it is written; calls make r1 to r5 so again, as Linux's verifier has it.
    `frames` are the callers' of the function at hand; `memory` holds each region under its address's
    upper bits.
    """

    memory: dict[int, Memory]
    aligned: bool
    registers: list[int | None] = field(default_factory=lambda: [None] * REGISTERS)
    frames: list[Frame] = field(default_factory=list)
    slot: int = 0
    steps: int = 0

    @property
    def algebra(self) -> Integers:
        return INTEGERS

    def get(self, register: int) -> int:
        value = self.registers[register]
        if value is None:
            raise self.fault(FaultKind.UNINITIALISED, f"r{register} is read, and was never written")
        return value

    def set(self, register: int, value: int) -> None:
        self.registers[register] = value

    def load(self, address: int, bits: int) -> int:
        memory, offset = self._locate(address, bits // 8, load=True, store=False)
        return memory.load(offset, bits // 8)

    def store(self, address: int, value: int, bits: int) -> None:
        memory, offset = self._locate(address, bits // 8, load=False, store=True)
        memory.store(offset, bits // 8, value)

    def atomic(self, insn: Insn, address: int, operand: int, expected: int | None) -> int:
        size = insn.spec.bytes
        memory, offset = self._locate(address, size, load=True, store=True)
        old = memory.load(offset, size)
        memory.store(offset, size, updated(INTEGERS, insn.spec, old, operand, expected))
        return old

    def address(self, insn: Insn) -> int:
        region = _MAP_REGIONS.get(insn.map_index)
        if insn.spec.operation is not Operation.MAP_VALUE_BY_IDX or region is None:
            raise self.fault(FaultKind.ADDRESS, f"`{disassemble(insn)}` names nothing that this machine has")
        return BASES[region] + insn.map_offset

    def fault(self, kind: FaultKind, message: str, address: int | None = None) -> Fault:
        return Fault(kind, self.slot, message, address)

    def enter_frame(self) -> None:
        """Give the function at hand a stack of its own, none of whose bytes is initialised.

        Each may use all of STACK_BYTES here; that a chain of calls does so together is not checked.
        """
        base = BASES[Region.STACK] + (len(self.frames) << REGION_BITS)
        self.memory[base >> REGION_BITS] = Memory(Region.STACK, bytearray(STACK_BYTES), fresh=True)
        self.registers[FRAME_POINTER] = base + STACK_BYTES

    def leave_frame(self) -> None:
        """Take it away: pointers into it are dead."""
        del self.memory[(BASES[Region.STACK] >> REGION_BITS) + len(self.frames)]

    def _locate(self, address: int, size: int, *, load: bool, store: bool) -> tuple[Memory, int]:
        memory = self.memory.get(address >> REGION_BITS)
        offset = address & (1 << REGION_BITS) - 1
        if memory is None:
            raise self.fault(FaultKind.MEMORY, f"an access to {address:#x}, in no region", address)
        if reason := memory.why_not(offset, size, load=load, store=store):
            raise self.fault(reason[0], f"an access to offset {offset}, {reason[1]}", address)
        if self.aligned and address % size:
            raise self.fault(FaultKind.MISALIGNED, f"an access of {size} bytes to {address:#x}", address)
        return memory, offset


@dataclass(frozen=True, slots=True)
class Result:
    """What a run returned in r0, and how many instructions it took, the exit counted."""

    r0: int
    steps: int


#: Called before each instruction. It may look at the state, not change it.
Observer = Callable[[State], None]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Code with its memory, ready to run; each run has registers and a stack of its own.

    `insns`: instructions by slot, from `devbc.isa.insn.decode`; any that decode, however hostile.
    `aligned`: whether an access must be a multiple of its size from its region's start.
    `clock`: nanoseconds, for `ktime_get_ns`.
    """

    insns: Mapping[int, Insn]
    memory: Iterable[Memory] = ()
    aligned: bool = False
    clock: Callable[[], int] = time.monotonic_ns
    step_limit: int = RUN_INSTRUCTIONS
    observer: Observer | None = None

    def run(self, *arguments: int) -> Result:
        """Run from slot 0 with the arguments in r1 and up. Raises Fault."""
        state = State({BASES[each.region] >> REGION_BITS: each for each in self.memory}, self.aligned)
        state.registers[1 : 1 + len(arguments)] = arguments
        state.enter_frame()
        while True:
            insn = self.insns.get(state.slot)
            if insn is None:
                raise state.fault(FaultKind.NO_INSTRUCTION, "there is no instruction here")
            if state.steps == self.step_limit:
                raise state.fault(FaultKind.STEP_LIMIT, f"still running after {state.steps} instructions")
            if self.observer:
                self.observer(state)
            state.steps += 1
            match insn.spec.kind:
                case Kind.EXIT if state.frames:
                    _return(state)
                case Kind.EXIT:
                    return Result(state.get(0), state.steps)
                case Kind.CALL:
                    self._call(state, insn)
                case Kind.JA:
                    state.slot = _target(state, insn)
                case Kind.JUMP if condition(INTEGERS, insn.spec, state.get(insn.dst), source(state, insn)):
                    state.slot = _target(state, insn)
                case Kind.JUMP:
                    state.slot += 1
                case _:
                    step(state, insn)
                    state.slot += insn.spec.slots

    def _call(self, state: State, insn: Insn) -> None:
        match insn.spec.operation:
            case Operation.CALL_LOCAL:
                _call_local(state, insn)
            case Operation.CALL_HELPER if insn.imm == Helper.KTIME_GET_NS:
                _clobber(state)
                state.set(0, INTEGERS.const(self.clock(), 64))
                state.slot += 1
            case _:
                raise state.fault(FaultKind.CALL, f"`{disassemble(insn, state.slot)}` calls nothing known")


def run_handler(
    handler: VerifiedHandler | Mapping[int, Insn],
    exit: Buffer,
    scratch: Buffer,
    rodata: bytes,
    clock: Callable[[], int],
    *,
    observer: Observer | None = None,
) -> Verdict:
    """Run one handler, verified or not, under the contract that the verifier proves. Raises Fault.

    `exit`: `EXIT_SIZE` bytes, answered and filled with effects in place. `scratch`: the program's variables,
    without the shared area's header. A verified handler may run for as many instructions as was proven.
    """
    if isinstance(handler, VerifiedHandler):
        insns, limit = handler.insns, handler.worst_case
    else:
        insns, limit = handler, RUN_INSTRUCTIONS
    interpreter = Interpreter(
        insns,
        (
            Memory(Region.EXIT, exit, read_only=EXIT_READ_ONLY),
            Memory(Region.SCRATCH, scratch),
            Memory(Region.RODATA, rodata),
        ),
        aligned=True,
        clock=clock,
        step_limit=limit,
        observer=observer,
    )
    result = interpreter.run(BASES[Region.EXIT])
    if result.r0 not in (Verdict.DECLINE, Verdict.HANDLED):
        raise Fault(FaultKind.VERDICT, 0, f"the handler returned {result.r0:#x}, which is no verdict")
    return Verdict(result.r0)


def _target(state: State, insn: Insn) -> int:
    target = insn.target(state.slot)
    assert target is not None, f"{insn.spec.name} has a target"
    return target


def _call_local(state: State, insn: Insn) -> None:
    """The callee sees the arguments and nothing else of its caller's registers (section 4.3.2)."""
    if len(state.frames) + 1 == CALL_DEPTH:
        raise state.fault(FaultKind.CALL_DEPTH, f"a call of {CALL_DEPTH + 1} frames")
    state.frames.append(Frame(state.slot + 1, tuple(state.registers)))
    for register in (0, *CALLEE_SAVED):
        state.registers[register] = None
    state.enter_frame()
    state.slot = _target(state, insn)


def _return(state: State) -> None:
    state.leave_frame()
    frame = state.frames.pop()
    for register in (*CALLEE_SAVED, FRAME_POINTER):
        state.registers[register] = frame.registers[register]
    _clobber(state)
    state.slot = frame.return_slot


def _clobber(state: State) -> None:
    for register in CALLER_SAVED:
        state.registers[register] = None
