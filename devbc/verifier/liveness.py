"""Which registers and stack bytes may still be read from each slot on: a backward dataflow over the code.

The exploration forgets what is dead before it compares states, so that a leftover does not keep two paths
apart. Soundness does not hang on this module: what is forgotten counts as uninitialised, and reading it is
refused. A mistake here could reject a good program, never accept a bad one.

Stack bytes are tracked where the code names them directly (`r10` with an offset, as compilers spill). A
function that takes an address of its frame has all of it live throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from devbc import limits
from devbc.isa.insn import Insn, written_registers
from devbc.isa.opcodes import FRAME_POINTER, Kind, Operation, Source
from devbc.verifier.shape import Shape

_ARGUMENTS: Final = 0b111110
_CLOBBERED: Final = 0b111111
_ALL_BYTES: Final = (1 << limits.STACK_BYTES) - 1

_USES_DST: Final = frozenset({Kind.ALU, Kind.UNARY, Kind.JUMP, Kind.STORE, Kind.ATOMIC})
_MOVES: Final = (Operation.MOV, Operation.MOVSX)
# Bound to names of their own: an enum's attributes are slow to look up.
_LOAD, _STORE, _ATOMIC, _CALL, _EXIT, _REG = (
    Kind.LOAD, Kind.STORE, Kind.ATOMIC, Kind.CALL, Kind.EXIT, Source.REG,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Liveness:
    """By slot: bits of live registers before it, and bits of live stack bytes (bit 0 is the lowest byte)."""

    registers: Mapping[int, int]
    stack: Mapping[int, int]


class Effect(NamedTuple):
    """Registers used and defined, stack bytes read and wholly written, as bits; whether an address of the
    frame is taken. What a local call uses is its callee's to say."""

    used: int
    defined: int
    read: int
    written: int
    escapes: bool
    local_call: bool


def effect(insn: Insn) -> Effect:
    """Of an instruction, wherever it stands."""
    spec, kind, dst, src = insn.spec, insn.spec.kind, insn.dst, insn.src
    used, defined, read, written = 0, 0, 0, 0
    if spec.source is _REG:
        used = 1 << src
    if kind in _USES_DST and spec.operation not in _MOVES:
        used |= 1 << dst
    for register in written_registers(spec, dst, src):
        defined |= 1 << register
    if kind is _LOAD and src == FRAME_POINTER:
        read = stack_bits(insn.off, spec.bytes)
    elif kind is _STORE and dst == FRAME_POINTER:
        written = stack_bits(insn.off, spec.bytes)
    elif kind is _ATOMIC:
        if spec.operation is Operation.CMPXCHG:
            used |= 1
        if dst == FRAME_POINTER:
            read = stack_bits(insn.off, spec.bytes)
    elif kind is _EXIT:
        used = 1
    elif kind is _CALL:
        defined = _CLOBBERED
    escapes = FRAME_POINTER in (insn.dst, insn.src) and _takes_frame_address(insn)
    local_call = spec.operation is Operation.CALL_LOCAL
    return Effect(used, defined, read, written & _ALL_BYTES, escapes, local_call)


def stack_bits(offset: int, size: int) -> int:
    """The bits of the bytes at `offset` (negative, from r10)."""
    position = offset + limits.STACK_BYTES
    return ((1 << size) - 1) << position if position >= 0 else _ALL_BYTES


def liveness(shape: Shape, effects: Mapping[int, Effect]) -> Liveness:
    """Of every reachable slot, given the effects of the instructions there. A call reads what its callee
    reads of the arguments, to a fixed point.
    """
    registers: dict[int, int] = {}
    stack: dict[int, int] = {}
    arguments = dict.fromkeys(shape.reachable, 0)
    callers = _callers(shape, effects)
    # Callees come behind their callers, and are solved first. A function is solved again when one that it
    # calls turns out to read more: at most once for each argument and call.
    order = list(shape.reachable)
    pending = set(order)
    while order:
        entry = order.pop()
        if entry not in pending:
            continue
        pending.discard(entry)
        _solve(shape, effects, entry, arguments, registers, stack)
        needed = registers.get(entry, 0) & _ARGUMENTS
        if needed != arguments[entry]:
            arguments[entry] = needed
            order += [caller for caller in callers[entry] if caller not in pending]
            pending |= callers[entry]
    return Liveness(registers, stack)


def _callers(shape: Shape, effects: Mapping[int, Effect]) -> dict[int, set[int]]:
    """The functions that call each function."""
    callers: dict[int, set[int]] = {entry: set() for entry in shape.reachable}
    for slot, owner in shape.owner.items():
        if effects[slot].local_call:
            callers[shape.insns[slot].target(slot) or 0].add(owner)
    return callers


def _solve(
    shape: Shape,
    effects: Mapping[int, Effect],
    entry: int,
    arguments: dict[int, int],
    registers: dict[int, int],
    stack: dict[int, int],
) -> None:
    slots, successors = shape.reachable[entry], shape.successors
    escapes = any(effects[slot].escapes for slot in slots)

    def changes(slot: int) -> bool:
        used, defined, read, written, _, local_call = effects[slot]
        if local_call:
            used = arguments.get(shape.insns[slot].target(slot) or 0, _ARGUMENTS)
        after, bytes_after = 0, 0
        for successor in successors[slot]:
            after |= registers.get(successor, 0)
            bytes_after |= stack.get(successor, 0)
        live = after & ~defined | used
        live_bytes = _ALL_BYTES if escapes else bytes_after & ~written | read
        if live == registers.get(slot) and live_bytes == stack.get(slot):
            return False
        registers[slot], stack[slot] = live, live_bytes
        return True

    # Backward order settles code without jumps backwards in one pass.
    for slot in reversed(slots):
        changes(slot)
    order = [slot for slot in slots if any(successor <= slot for successor in successors[slot])]
    if not order:
        return
    predecessors: dict[int, list[int]] = {slot: [] for slot in slots}
    for slot in slots:
        for successor in successors[slot]:
            predecessors[successor].append(slot)
    pending = set(order)
    while order:
        slot = order.pop()
        pending.discard(slot)
        if changes(slot):
            fresh = [each for each in predecessors[slot] if each not in pending]
            pending.update(fresh)
            order += fresh


def _takes_frame_address(insn: Insn) -> bool:
    """Whether r10 is an operand other than the base of an access."""
    match insn.spec.kind:
        case Kind.ALU | Kind.JUMP:
            return FRAME_POINTER in (insn.dst, insn.src if insn.spec.source is Source.REG else None)
        case Kind.STORE | Kind.ATOMIC:
            return insn.src == FRAME_POINTER and insn.spec.source is Source.REG
    return False
