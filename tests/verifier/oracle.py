"""The oracle of the verifier's soundness: what it accepts is run, and compared step by step with its claims.

`check_run` runs an accepted handler on the reference interpreter, which refuses every access that the
contract forbids, and asserts beside that, at each instruction: the concrete registers and stack lie in an
abstract state that the verifier explored there; the access lies where its fact says; scratch is written only
within the reported ranges, and never on a run that declines. Between any two instructions scratch is
overwritten, since userspace may do that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, AccessBinding, Op, Verdict, parse_binding
from devbc.diagnostics import Rejected
from devbc.engines import interpreter
from devbc.engines.interpreter import BASES, run_handler
from devbc.isa.asm import assemble
from devbc.isa.insn import Insn, encode
from devbc.isa.opcodes import Kind
from devbc.limits import STACK_BYTES
from devbc.program.program import Function, Handler
from devbc.program.verified import Region, VerifiedHandler
from devbc.verifier import DEFAULT, Policy, verify_handler
from devbc.verifier.state import Cell, State
from devbc.verifier.values import Pointer, Value

U64 = (1 << 64) - 1
Registers = tuple[Value | None, ...]
Cells = tuple[dict[int, Cell], ...]


def handler(program: str | bytes | list[Insn], section: str = "pio/write@0x0:4") -> Handler:
    """A handler of assembly text, instructions or byte code."""
    if isinstance(program, str):
        program = assemble(program)
    code = program if isinstance(program, bytes) else encode(program)
    binding = parse_binding(section)
    assert not isinstance(binding, str)
    return Handler(section, binding, code, (Function("entry", 0),))


@dataclass
class Explored:
    """A verdict, with the abstract states that led to it, by slot."""

    verified: VerifiedHandler
    states: dict[int, list[tuple[Registers, Cells]]]
    scratch_size: int
    rodata: bytes


def verify(
    program: str | bytes | list[Insn],
    *,
    section: str = "pio/write@0x0:4",
    scratch_size: int = 64,
    rodata: bytes = bytes(range(0, 128, 2)),
    policy: Policy = DEFAULT,
) -> VerifiedHandler:
    return verify_handler(handler(program, section), scratch_size=scratch_size, rodata=rodata, policy=policy)


def rejected(program: str | bytes | list[Insn], **options: object) -> Rejected:
    """The rejection of a program that must not be accepted."""
    try:
        verify(program, **options)  # type: ignore[arg-type]
    except Rejected as rejection:
        return rejection
    raise AssertionError("the program was accepted")


def explore(
    program: str | bytes | list[Insn],
    *,
    section: str = "pio/write@0x0:4",
    scratch_size: int = 64,
    rodata: bytes = bytes(range(0, 128, 2)),
    policy: Policy = DEFAULT,
) -> Explored:
    """Verify and keep every abstract state. Raises Rejected."""
    states: dict[int, list[tuple[Registers, Cells]]] = {}

    def observer(slot: int, state: State) -> None:
        cells = tuple(frame.cells.copy() for frame in state.frames)
        states.setdefault(slot, []).append((tuple(state.registers), cells))

    verified = verify_handler(
        handler(program, section), scratch_size=scratch_size, rodata=rodata, policy=policy, observer=observer
    )
    return Explored(verified, states, scratch_size, rodata)


def random_exit(rng: random.Random, binding: object) -> bytearray:
    """An exit as the machine would make it for this binding, otherwise random."""
    exit_ = bytearray(EXIT_SIZE)

    def put(name: str, value: int) -> None:
        field = EXIT_FIELDS[name]
        exit_[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")

    assert isinstance(binding, AccessBinding)
    offset, size = rng.choice(list(binding.accesses()))
    put("offset", offset)
    put("size", size)
    put("vcpu", rng.getrandbits(32))
    put("clock_offset", _interesting(rng, 64))
    if binding.op is Op.WRITE:
        put("value", _interesting(rng, 8 * size))
    return exit_


def _interesting(rng: random.Random, bits: int) -> int:
    match rng.randrange(3):
        case 0:
            return rng.getrandbits(bits)
        case 1:
            return rng.randrange(16) & ((1 << bits) - 1)
    return (rng.choice([0, 1, -1, 1 << 31, 1 << 63, -(1 << 31)]) + rng.randrange(-3, 4)) & ((1 << bits) - 1)


def check_run(explored: Explored, rng: random.Random) -> int:
    """One run; the number of instructions it took."""
    verified = explored.verified
    exit_ = random_exit(rng, verified.handler.binding)
    scratch = bytearray(rng.randbytes(explored.scratch_size))
    steps = 0
    pending: tuple[Insn, int, bytes] | None = None
    wrote = False

    def check_store() -> None:
        nonlocal wrote
        if pending is None:
            return
        _, size, before = pending
        changed = {index for index in range(len(scratch)) if scratch[index] != before[index]}
        if size or changed:
            wrote = True
        allowed = {byte for each in verified.scratch_written for byte in range(each.start, each.end)}
        assert changed <= allowed, f"wrote {changed - allowed} outside the reported ranges"

    def observer(state: interpreter.State) -> None:
        nonlocal steps, pending
        check_store()
        pending = None
        steps += 1
        _check_state(explored, state)
        insn = verified.insns[state.slot]
        scratch[:] = rng.randbytes(len(scratch))
        if insn.spec.kind in (Kind.STORE, Kind.ATOMIC, Kind.LOAD):
            base = insn.src if insn.spec.kind is Kind.LOAD else insn.dst
            address = (state.get(base) + insn.off) & U64
            region = _check_fact(verified, state, address)
            writes = insn.spec.kind is not Kind.LOAD and region is Region.SCRATCH
            if insn.spec.kind is not Kind.LOAD:
                pending = (insn, int(writes), bytes(scratch))

    verdict = run_handler(
        verified, exit_, scratch, explored.rodata, lambda: rng.getrandbits(64), observer=observer
    )
    check_store()
    assert steps <= verified.worst_case
    assert verified.may_decline if verdict is Verdict.DECLINE else verified.may_handle
    assert not (wrote and verdict is Verdict.DECLINE), "declined after writing scratch"
    assert str(verified.handler_class) == "mutating" or not wrote
    for name in ("raise", "lower", "signal", "arm", "cancel"):
        field = EXIT_FIELDS[name]
        assert name in verified.effects or not any(exit_[field.offset : field.end])
    return steps


def _check_fact(verified: VerifiedHandler, state: interpreter.State, address: int) -> Region:
    """The region that an access goes to, after comparing it with the fact."""
    fact = verified.accesses[state.slot]
    region = next(
        (each for each in (Region.RODATA, Region.SCRATCH, Region.EXIT) if address >> 40 == BASES[each] >> 40),
        Region.STACK,
    )
    top = BASES[Region.STACK] + (len(state.frames) << 40) + STACK_BYTES
    if region is Region.STACK and address >> 40 != top >> 40:
        region = Region.OUTER_STACK
    assert fact.region in (None, region)
    if fact.offset is not None:
        start = top if region is Region.STACK else BASES[region]
        assert address == (start + fact.offset) & U64
    return region


def _check_state(explored: Explored, state: interpreter.State) -> None:
    for registers, cells in explored.states.get(state.slot, ()):
        if len(cells) != len(state.frames) + 1:
            continue
        if all(_admits(known, have) for known, have in zip(registers, state.registers, strict=True)) and all(
            _admits_cells(number, frame, state) for number, frame in enumerate(cells)
        ):
            return
    shown = [None if each is None else hex(each) for each in state.registers]
    raise AssertionError(f"slot {state.slot}: no abstract state admits {shown}")


def _admits(known: Value | None, have: int | None) -> bool:
    if known is None:
        return True
    if have is None:
        return False
    if isinstance(known, Pointer):
        base = BASES[known.region]
        if known.region is Region.STACK:
            base += (known.frame << 40) + STACK_BYTES
        return known.offset.contains(have - base)
    return known.contains(have)


def _admits_cells(number: int, cells: dict[int, Cell], state: interpreter.State) -> bool:
    memory = state.memory[(BASES[Region.STACK] >> 40) + number]
    for offset, cell in cells.items():
        start = offset + STACK_BYTES
        assert memory.written is not None
        if not all(memory.written[start : start + cell.size]):
            return False
        if not _admits(cell.value, memory.load(start, cell.size)):
            return False
    return True
