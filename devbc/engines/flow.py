"""Control flow of byte code: its functions, their basic blocks, and the registers live into each block.

Works on instructions by slot, as `devbc.isa.insn.decode` gives them, or those of them that the verifier has
found reachable: an edge to a slot that is not among them is proven never taken, and left out.

Not here: whether the code makes sense. A jump to nowhere is an edge that is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from devbc.isa.insn import Insn, written_registers
from devbc.isa.opcodes import FRAME_POINTER, REGISTERS, Kind, Operation, Source, Spec

#: Registers that carry a call's arguments, none of which it preserves, and its result (RFC 9669 section 2).
ARGUMENTS = range(1, 6)
RESULT = 0
_JUMPS: Final = frozenset({Kind.JUMP, Kind.JA})
_ENDS: Final = _JUMPS | {Kind.EXIT}


@dataclass(frozen=True, slots=True)
class Block:
    """Instructions that run one after another.

    `slots`: where they are. `successors`: where the last one jumps to, then where control goes otherwise,
    without edges that it does not have or that no run takes.
    """

    slots: tuple[int, ...]
    successors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """One function: its blocks by first slot in reverse postorder, the entry first.

    `predecessors`: of each block, once each. `live`: the registers that are read after the block's start
    before they are written; never r10, which is the same in the whole function.
    """

    blocks: Mapping[int, Block]
    predecessors: Mapping[int, tuple[int, ...]]
    live: Mapping[int, frozenset[int]]


def functions(insns: Mapping[int, Insn]) -> tuple[int, ...]:
    """First slots of the functions: slot 0, then the targets of local calls in order."""
    called = {
        target
        for slot, insn in insns.items()
        if insn.spec.operation is Operation.CALL_LOCAL
        and (target := insn.target(slot)) is not None
        and target in insns
    }
    return (0, *sorted(called - {0}))


def flow(insns: Mapping[int, Insn], entry: int) -> Flow:
    """The control flow of the function that begins at `entry`."""
    blocks = _reverse_postorder(_blocks(insns, entry), entry)
    predecessors: dict[int, list[int]] = {start: [] for start in blocks}
    for start, block in blocks.items():
        for successor in block.successors:
            predecessors[successor].append(start)
    return Flow(
        blocks, {start: tuple(each) for start, each in predecessors.items()}, _liveness(insns, blocks)
    )


def read_registers(insn: Insn) -> tuple[int, ...]:
    """The registers whose values an instruction uses; the counterpart of `insn.written_registers`.

    A local call reads all five arguments: which of them its callee wants is not known at the call.
    """
    spec = insn.spec
    src = (insn.src,) if spec.source is Source.REG else ()
    match spec.kind:
        case Kind.ALU if spec.operation in (Operation.MOV, Operation.MOVSX):
            return src
        case Kind.ALU | Kind.JUMP | Kind.STORE:
            return (insn.dst, *src)
        case Kind.ATOMIC:
            return (insn.dst, insn.src, *((RESULT,) if spec.operation is Operation.CMPXCHG else ()))
        case Kind.UNARY:
            return (insn.dst,)
        case Kind.LOAD:
            return src
        case Kind.CALL if spec.operation is Operation.CALL_LOCAL:
            return tuple(ARGUMENTS)
        case Kind.EXIT:
            return (RESULT,)
    return ()


def _blocks(insns: Mapping[int, Insn], entry: int) -> dict[int, Block]:
    """Blocks by first slot: the entry, and both sides of each jump, whosever function they are."""
    starts = {entry}
    for slot, insn in insns.items():
        if insn.spec.kind in _JUMPS:
            starts.update(_edges(insns, slot))
    return {start: _block(insns, start, starts) for start in starts}


def _block(insns: Mapping[int, Insn], start: int, starts: Collection[int]) -> Block:
    slots = []
    following = start
    while True:
        slots.append(following)
        spec = insns[following].spec
        following += spec.slots
        if spec.kind in _ENDS or following in starts or following not in insns:
            return Block(tuple(slots), _edges(insns, slots[-1]))


def _edges(insns: Mapping[int, Insn], slot: int) -> tuple[int, ...]:
    """Where the instruction at `slot` jumps to, and what follows it otherwise, within its function."""
    insn = insns[slot]
    kind = insn.spec.kind
    edges = []
    if kind in _JUMPS and (target := insn.target(slot)) is not None and target in insns:
        edges.append(target)
    if kind not in (Kind.JA, Kind.EXIT) and (following := slot + insn.spec.slots) in insns:
        edges.append(following)
    return tuple(dict.fromkeys(edges))


def _reverse_postorder(blocks: Mapping[int, Block], entry: int) -> dict[int, Block]:
    """Each block before its successors, except along the edges that close loops."""
    order: list[int] = []
    seen = {entry}
    path = [(entry, iter(blocks[entry].successors))]
    while path:
        start, successors = path[-1]
        for successor in successors:
            if successor not in seen:
                seen.add(successor)
                path.append((successor, iter(blocks[successor].successors)))
                break
        else:
            order.append(start)
            path.pop()
    return {start: blocks[start] for start in reversed(order)}


def _liveness(insns: Mapping[int, Insn], blocks: Mapping[int, Block]) -> dict[int, frozenset[int]]:
    """The least solution of: live in = read first, and live out that is not written."""
    uses = {start: _uses(insns, block) for start, block in blocks.items()}
    live = dict.fromkeys(blocks, 0)
    changed = True
    while changed:
        changed = False
        for start, block in reversed(tuple(blocks.items())):
            reads, writes = uses[start]
            after = 0
            for each in block.successors:
                after |= live[each]
            before = reads | after & ~writes
            changed = changed or before != live[start]
            live[start] = before
    return {start: _registers(bits) for start, bits in live.items()}


def _uses(insns: Mapping[int, Insn], block: Block) -> tuple[int, int]:
    """Registers that a block reads before it writes them, and those that it writes, a bit each."""
    reads, writes = 0, 1 << FRAME_POINTER
    for slot in block.slots:
        insn = insns[slot]
        (dst, src, others), (to_dst, to_src, to_others) = _operands(insn.spec)
        reads |= (others | dst << insn.dst | src << insn.src) & ~writes
        writes |= to_others | to_dst << insn.dst | to_src << insn.src
    return reads, writes


@cache
def _operands(spec: Spec) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """What instructions of a form read, and what they write: dst or not, src or not, bits for others."""
    dst, src = 6, 7  # registers that no form names by itself
    written = {*written_registers(spec, dst, src), *(ARGUMENTS if spec.kind is Kind.CALL else ())}
    read = set(read_registers(Insn(spec, dst, src)))
    return tuple(  # type: ignore[return-value]
        (int(dst in each), int(src in each), sum(1 << other for other in each - {dst, src}))
        for each in (read, written)
    )


@cache
def _registers(bits: int) -> frozenset[int]:
    return frozenset(each for each in range(REGISTERS) if bits >> each & 1)
