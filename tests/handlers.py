"""Handlers for tests of engines: made by hand, run on the reference interpreter and on native code alike.

The facts that the verifier would prove of a handler's accesses are observed here, in runs of the reference
interpreter: tests of an engine stand without the verifier, and hold for the inputs that were observed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from devbc.abi import AccessBinding, Op, Space
from devbc.engines.clock import virtual_page
from devbc.engines.interpreter import BASES, EXIT_READ_ONLY, Interpreter, Memory, State
from devbc.isa.asm import assemble
from devbc.isa.insn import Insn, decode, encode
from devbc.isa.opcodes import FRAME_POINTER, Kind
from devbc.limits import STACK_BYTES
from devbc.program.program import Function, Handler, Names, Program
from devbc.program.verified import AccessFact, HandlerClass, Region, VerifiedHandler, VerifiedProgram

#: The interpreter puts each region, and each frame of the stack, into a slot of its own of this many bits.
_REGION_BITS = 40
_MEMORY = (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
_REGIONS = {base >> _REGION_BITS: region for region, base in BASES.items()}


def code(text: str) -> bytes:
    return encode(assemble(text))


@dataclass(frozen=True, slots=True)
class Input:
    """What a handler is run on."""

    exit: bytes
    scratch: bytes
    rodata: bytes = b""
    now: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a handler leaves behind."""

    r0: int
    exit: bytes
    scratch: bytes


def interpret(
    insns: Mapping[int, Insn], given: Input, observer: Callable[[State], None] | None = None
) -> Outcome:
    """A run on the reference interpreter, held to what the verifier asks of memory accesses."""
    exit_, scratch = bytearray(given.exit), bytearray(given.scratch)
    memory = (
        Memory(Region.EXIT, exit_, read_only=EXIT_READ_ONLY),
        Memory(Region.SCRATCH, scratch),
        Memory(Region.RODATA, given.rodata),
    )
    machine = Interpreter(insns, memory, aligned=True, clock=lambda: given.now, observer=observer)
    return Outcome(machine.run(BASES[Region.EXIT]).r0, bytes(exit_), bytes(scratch))


def run_native(function: Callable[..., int], given: Input) -> Outcome:
    """A run of native code of the handler signature."""
    exit_ = ctypes.create_string_buffer(given.exit, len(given.exit))
    # Eight bytes more than needed: programs may name any byte of scratch by its natural alignment.
    scratch = (ctypes.c_uint64 * (len(given.scratch) // 8 + 1))()
    ctypes.memmove(scratch, given.scratch, len(given.scratch))
    clock = virtual_page(given.now)
    r0 = function(exit_, scratch, given.rodata, ctypes.byref(clock))
    return Outcome(r0, exit_.raw, ctypes.string_at(scratch, len(given.scratch)))


def observed_facts(insns: Mapping[int, Insn], inputs: Iterable[Input]) -> dict[int, AccessFact]:
    """A fact for each memory instruction, the strongest that holds in the runs on these inputs."""
    facts: dict[int, AccessFact] = {}

    def observer(state: State) -> None:
        insn = insns[state.slot]
        if insn.spec.kind in _MEMORY:
            fact = _fact(state, insn)
            facts[state.slot] = _join(facts.get(state.slot, fact), fact)

    for given in inputs:
        interpret(insns, given, observer)
    return facts


def verified_handler(insns: Mapping[int, Insn], accesses: Mapping[int, AccessFact]) -> VerifiedHandler:
    """A handler with these facts; what engines do not read is filled in with anything."""
    binding = AccessBinding(Space.PIO, "pio", Op.READ, 0, 0, (1,))
    handler = Handler(str(binding), binding, b"", (Function("handler", 0),))
    return VerifiedHandler(
        handler, insns, accesses, worst_case=1 << 16, stack_bytes=STACK_BYTES,
        handler_class=HandlerClass.MUTATING, may_decline=True, may_handle=True, scratch_read=(),
        scratch_written=(), effects=frozenset(), helpers=frozenset(),
    )  # fmt: skip


def verified_program(*handlers: VerifiedHandler, rodata: bytes = b"") -> VerifiedProgram:
    """A program of these handlers, at offsets one after another."""
    placed: list[VerifiedHandler] = []
    for offset, each in enumerate(handlers):
        binding = AccessBinding(Space.PIO, "pio", Op.READ, offset, offset, (1,))
        placed.append(replace(each, handler=replace(each.handler, section=str(binding), binding=binding)))
    program = Program("test", tuple(each.handler for each in placed), b"", rodata, Names(), ())
    return VerifiedProgram(program, tuple(placed))


def observed_program(text: str | bytes, *inputs: Input) -> VerifiedProgram:
    """A program of one handler, with the facts observed on the inputs.

    Code that no input reaches stays in it, so that the engine decides each branch for itself.
    """
    insns = decode(code(text) if isinstance(text, str) else text)
    nothing = {slot: AccessFact(None, None) for slot, insn in insns.items() if insn.spec.kind in _MEMORY}
    handler = verified_handler(insns, nothing | observed_facts(insns, inputs))
    return verified_program(handler, rodata=inputs[0].rodata)


def _fact(state: State, insn: Insn) -> AccessFact:
    base = insn.src if insn.spec.kind is Kind.LOAD else insn.dst
    address = state.get(base) + insn.off & (1 << 64) - 1
    frame_pointer = state.get(FRAME_POINTER)
    if frame_pointer - STACK_BYTES <= address < frame_pointer:
        return AccessFact(Region.STACK, address - frame_pointer)
    region = _REGIONS.get(address >> _REGION_BITS)
    if region in (None, Region.STACK):
        return AccessFact(Region.OUTER_STACK, None)
    return AccessFact(region, address - BASES[region])


def _join(a: AccessFact, b: AccessFact) -> AccessFact:
    if a.region is not b.region:
        return AccessFact(None, None)
    return a if a.offset == b.offset else AccessFact(a.region, None)
