"""The oracle of the verifier's soundness: what it accepts is run, and compared step by step with its claims.

`check_run` runs an accepted handler in the checked engine (`devbc.engines.checked`, which says what is
compared) on an exit as the machine would make it, with boundary values preferred. Before each load scratch is
overwritten, since userspace may do that.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from devbc.abi import (
    EXIT_FIELDS,
    EXIT_SIZE,
    AccessBinding,
    Binding,
    HypercallBinding,
    LineBinding,
    Op,
    TimerBinding,
    parse_binding,
)
from devbc.diagnostics import Rejected
from devbc.engines.checked import CheckedHandler
from devbc.engines.interpreter import Buffer
from devbc.isa.asm import assemble
from devbc.isa.insn import Insn, encode
from devbc.limits import LINES, TIMERS
from devbc.program.program import Function, Handler
from devbc.program.verified import VerifiedHandler
from devbc.verifier import DEFAULT, Policy, verify_handler
from devbc.verifier.explored import explore_handler


def handler(program: str | bytes | list[Insn], section: str = "pio/write@0x0:4") -> Handler:
    """A handler of assembly text, instructions or byte code."""
    if isinstance(program, str):
        program = assemble(program)
    code = program if isinstance(program, bytes) else encode(program)
    binding = parse_binding(section)
    assert not isinstance(binding, str)
    return Handler(section, binding, code, (Function("entry", 0),))


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
) -> CheckedHandler:
    """Verify and keep every abstract state. Raises Rejected."""
    return CheckedHandler(
        explore_handler(handler(program, section), scratch_size=scratch_size, rodata=rodata, policy=policy)
    )


def random_exit(rng: random.Random, binding: Binding) -> bytearray:
    """An exit as the machine would make it for this binding, otherwise random."""
    exit_ = bytearray(EXIT_SIZE)

    def put(name: str, value: int, index: int = 0) -> None:
        field = EXIT_FIELDS[name]
        start = field.offset + index * field.size
        exit_[start : start + field.size] = value.to_bytes(field.size, "little")

    put("vcpu", rng.choice([0, 1, (1 << 32) - 1, rng.getrandbits(32)]))
    put("clock_offset", interesting(rng, 64))
    match binding:
        case AccessBinding():
            size = rng.choice(binding.sizes)
            places = (binding.hi - binding.lo) // size
            put("offset", binding.lo + size * rng.choice([0, places, rng.randint(0, places)]))
            put("size", size)
            if binding.op is Op.WRITE:
                put("value", interesting(rng, 8 * size))
        case TimerBinding() | LineBinding():
            ports = TIMERS if isinstance(binding, TimerBinding) else LINES
            put("offset", rng.choice([0, ports - 1, rng.randrange(ports)]))
            put("value", interesting(rng, 64) if isinstance(binding, TimerBinding) else rng.randrange(2))
        case HypercallBinding():
            put("offset", binding.number)
            for index in range(EXIT_FIELDS["arg"].count):
                put("arg", interesting(rng, 64), index)
    return exit_


#: Where the verifier's ranges end, and programs' comparisons: powers of two and small numbers, give or take.
_EDGES = (0, 1, 2, 3, 7, 8, 15, 16, 1 << 7, 1 << 8, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 63)


def interesting(rng: random.Random, bits: int) -> int:
    """A number of so many bits, at a boundary more often than not."""
    match rng.randrange(4):
        case 0:
            return rng.getrandbits(bits)
        case 1:
            return rng.randrange(16) & ((1 << bits) - 1)
    return (rng.choice((1, -1)) * rng.choice(_EDGES) + rng.randrange(-2, 3)) & ((1 << bits) - 1)


def scratch_writer(rng: random.Random) -> Callable[[Buffer], None]:
    """Userspace that overwrites scratch: with noise, with one byte everywhere, with numbers at boundaries."""

    def overwrite(scratch: Buffer) -> None:
        view = memoryview(scratch)
        size = len(view)
        match rng.randrange(4):
            case 0:
                view[:] = rng.randbytes(size)
            case 1:
                view[:] = bytes([rng.choice((0, 1, 7, 8, 0x7F, 0x80, 0xFF))]) * size
            case 2:
                word = interesting(rng, 64).to_bytes(8, "little")
                view[:] = (word * (size // 8 + 1))[:size]
            case _:
                word = interesting(rng, 32).to_bytes(4, "little")
                view[:] = (word * (size // 4 + 1))[:size]

    return overwrite


def check_run(checked: CheckedHandler, rng: random.Random) -> int:
    """One run; the number of instructions it took. Raises Unsound."""
    explored = checked.explored
    exit_ = random_exit(rng, explored.verified.handler.binding)
    overwrite = scratch_writer(rng)
    scratch = bytearray(explored.scratch_size)
    overwrite(scratch)
    return checked.run(exit_, scratch, lambda: interesting(rng, 64), overwrite).steps
