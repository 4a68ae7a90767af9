"""The soundness campaign: programs are made, those that are accepted are run, and every step is checked.

Where programs come from (`Origin`): made to be accepted (`programs.py`), mutations of those, mutations of
real handlers (the shipped devices, and what clang made), random instructions. An accepted program is run in
the checked engine with scratch overwritten before every load; then, with scratch left alone, there, in the
native interpreter and as JIT code, which must agree on all that is visible.

Each program follows from its origin and a seed, so that a violation is found again by these two.

    python -m tests.verifier.campaign 10_000_000        so many instructions; figures as JSON
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from itertools import count
from pathlib import Path

from devbc.abi import EXIT_FIELDS, Verdict
from devbc.catalog import bundled_devices, load_program
from devbc.diagnostics import Rejected
from devbc.engines.checked import CheckedHandler, Unsound
from devbc.engines.jit import PROTOTYPE, JitEngine
from devbc.engines.native_interpreter import InterpreterEngine
from devbc.isa.insn import Insn, decode, encode
from devbc.isa.opcodes import SPECS, Kind, Spec
from devbc.program.program import Handler, Names, Program
from devbc.program.verified import VerifiedProgram
from devbc.verifier import Policy
from devbc.verifier.explored import explore_handler
from tests.handlers import Input, Outcome, run_native
from tests.verifier.oracle import check_run, handler, interesting, random_exit, scratch_writer
from tests.verifier.programs import random_program

TESTS = Path(__file__).parents[1]
SECTIONS = ("pio/write@0x0:4", "mmio/read@0x10-0x30:4,8", "pio/write@0x3:1", "mmio/write@0x0-0x3f",
            "timer/tick", "line/in0", "hypercall/0x10")  # fmt: skip
OPCODES = [spec.opcode for spec in SPECS.values()]

#: Explorations are cut short: time goes into runs.
POLICY = Policy(steps=60_000, instructions=20_000)
RUNS = 12
COMPARED = 3
#: Programs that are compiled at once.
BATCH = 32


class Origin(StrEnum):
    MADE = "made"
    MUTATED = "mutated"
    REAL = "mutated real handlers"
    RANDOM = "random instructions"


@dataclass(frozen=True)
class Candidate:
    """A handler that may or may not be accepted, with what surrounds it."""

    origin: Origin
    seed: int
    handler: Handler
    scratch_size: int = 64
    rodata: bytes = bytes(range(0, 128, 2))

    def explore(self) -> CheckedHandler:
        """Raises Rejected."""
        return CheckedHandler(
            explore_handler(self.handler, scratch_size=self.scratch_size, rodata=self.rodata, policy=POLICY)
        )


@dataclass
class Figures:
    """What a campaign did. `violations` should be empty."""

    programs: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    instructions: int = 0
    runs: int = 0
    compared: int = 0
    violations: list[str] = field(default_factory=list)


def candidate(origin: Origin, seed: int) -> Candidate:
    rng = random.Random(f"{origin} {seed}")
    match origin:
        case Origin.MADE:
            return Candidate(origin, seed, handler(random_program(rng), SECTIONS[seed % 2 and 3]))
        case Origin.MUTATED:
            code = mutated(encode(random_program(rng)), rng)
            return Candidate(origin, seed, handler(code, rng.choice(SECTIONS)))
        case Origin.REAL:
            program, real = rng.choice(real_handlers())
            code = mutated(real.code, rng)
            changed = Handler(real.section, real.binding, code, real.functions)
            return Candidate(origin, seed, changed, len(program.scratch_image), program.rodata)
    return Candidate(origin, seed, handler(random_instructions(rng), rng.choice(SECTIONS)))


@cache
def real_handlers() -> list[tuple[Program, Handler]]:
    """The handlers of the shipped devices and of clang's objects, each device with the same weight."""
    sources = sorted(bundled_devices().glob("*/*.dev"))
    objects = sorted([*TESTS.glob("data/clang/*.o"), *TESTS.glob("verifier/corpus/idioms.o")])
    programs = [load_program(path) for path in (*sources, *objects)]
    most = max(len(program.handlers) for program in programs)
    return [
        (program, each)
        for program in programs
        for each in (program.handlers * (most // len(program.handlers)))
    ]


def mutated(code: bytes, rng: random.Random) -> bytes:
    """One to three changes: of instructions as a whole, mostly, else of bytes."""
    change = _changed_bytes if rng.random() < 0.15 else _changed_insns
    return change(code, rng)


def _changed_insns(code: bytes, rng: random.Random) -> bytes:
    """Another form of the same kind, another operand or constant, another order; what results decodes."""
    insns = list(decode(code).values())
    for _ in range(rng.randrange(1, 4)):
        at, other = rng.randrange(len(insns)), rng.randrange(len(insns))
        insn = insns[at]
        match rng.randrange(9):
            case 0:
                insns[at] = _of_form(
                    rng.choice([each for each in SPECS.values() if each.kind is insn.spec.kind]), insn
                )
            case 1 | 2:
                register = rng.choice([rng.randrange(10), insns[other].dst, insns[other].src])
                insns[at] = _of_form(
                    insn.spec, rng.choice([replace(insn, dst=register), replace(insn, src=register)])
                )
            case 3:
                insns[at] = _of_form(insn.spec, replace(insn, off=rng.randrange(-16, 16)))
            case 4:
                insns[at] = _of_form(insn.spec, replace(insn, imm=interesting(rng, 32) - (1 << 31)))
            case 5 | 6:
                # A bound, offset or distance that is off by a little.
                name, near = rng.choice(["off", "imm"]), rng.choice([-8, -4, -1, 1, 4, 8])
                insns[at] = _of_form(insn.spec, replace(insn, **{name: getattr(insn, name) + near}))
            case 7 if insn.spec.slots == insns[other].spec.slots:
                insns[at], insns[other] = insns[other], insns[at]
            case _:
                # Deleted, and its place kept: jumps to the next instruction.
                insns[at : at + 1] = [Insn(SPECS["ja"])] * insn.spec.slots
    return encode(insns)


def _of_form(spec: Spec, insn: Insn) -> Insn:
    """The instruction as one of this form: what the form fixes is as it asks, what it does not fits."""

    def fitting(fixed: int | None, value: int, bits: int) -> int:
        return fixed if fixed is not None else (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)

    if spec.slots != insn.spec.slots:
        return insn
    written = spec.kind in (Kind.ALU, Kind.UNARY, Kind.LOAD, Kind.LDDW)
    return Insn(
        spec,
        dst=(insn.dst % 10 if written else insn.dst) if spec.dst is None else spec.dst,
        src=(insn.src % 10 if spec.fetch else insn.src) if spec.src is None else spec.src,
        off=fitting(spec.off, insn.off, 16),
        imm=insn.imm if spec.kind is Kind.LDDW else fitting(spec.imm, insn.imm, 32),
    )


def _changed_bytes(code: bytes, rng: random.Random) -> bytes:
    out = bytearray(code)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out) // 8) * 8
        if rng.random() < 0.3:
            out[at] = rng.choice(OPCODES)
        else:
            out[at + rng.randrange(8)] ^= 1 << rng.randrange(8)
    return bytes(out)


#: Forms that make a random program fail at once are rare among random instructions.
_HARMLESS = [
    spec for spec in SPECS.values() if spec.kind in (Kind.ALU, Kind.UNARY, Kind.JUMP, Kind.LOAD, Kind.STORE)
]


def random_instructions(rng: random.Random) -> bytes:
    """Bytes, or forms with random operands; registers set before, a verdict behind."""
    if rng.random() < 0.1:
        return rng.randbytes(8 * rng.randrange(1, 12))
    body = bytearray()
    for _ in range(rng.randrange(1, 10)):
        spec = rng.choice(_HARMLESS)
        registers = rng.randrange(10) << 4 | rng.randrange(10)
        if spec.src is not None:
            registers = registers & 15 | spec.src << 4
        offset = spec.off if spec.off is not None else rng.choice([-16, -8, -4, 0, 0, 1, 2, 8])
        imm = spec.imm if spec.imm is not None else interesting(rng, 32)
        if spec.kind in (Kind.LOAD, Kind.STORE) and rng.random() < 0.8:
            # On the stack, at a place that is aligned.
            base = 10 << 4 | registers & 15 if spec.kind is Kind.LOAD else 10 | registers & 0xF0
            registers, offset = base, -spec.bytes * rng.randrange(1, 16 // spec.bytes + 1)
        body += bytes((spec.opcode, registers)) + (offset % (1 << 16)).to_bytes(2, "little")
        body += (imm % (1 << 32)).to_bytes(4, "little")
    store = SPECS["stdw"].opcode
    head = b"".join(
        bytes((SPECS["mov_imm"].opcode, register, 0, 0)) + interesting(rng, 32).to_bytes(4, "little")
        for register in (0, *range(2, 10))
    )
    head += b"".join(
        bytes((store, 10))
        + (-at % (1 << 16)).to_bytes(2, "little")
        + interesting(rng, 32).to_bytes(4, "little")
        for at in (8, 16)
    )
    head += bytes((SPECS["ldxdw"].opcode, 1 << 4 | 2, EXIT_FIELDS["value"].offset, 0, 0, 0, 0, 0))
    tail = bytes((SPECS["mov_imm"].opcode, 0, 0, 0, rng.randrange(2), 0, 0, 0, SPECS["exit"].opcode)) + bytes(
        7
    )
    return head + bytes(body) + tail


def campaign(
    candidates: Iterable[Candidate], figures: Figures, *, instructions: int | None = None
) -> Figures:
    """Check candidates until they, or the number of instructions to check, are used up."""
    batch: list[tuple[Candidate, CheckedHandler]] = []
    for each in candidates:
        if instructions is not None and figures.instructions >= instructions:
            break
        figures.programs[each.origin] += 1
        try:
            checked = each.explore()
        except Rejected as rejected:
            figures.refused[rejected.diagnostics[0].code.id] += 1
            continue
        figures.accepted[each.origin] += 1
        rng = random.Random(each.seed)
        try:
            for _ in range(RUNS):
                figures.instructions += check_run(checked, rng)
                figures.runs += 1
        except Unsound as violation:
            figures.violations.append(f"{each.origin} {each.seed}: {violation}")
            continue
        batch.append((each, checked))
        if len(batch) == BATCH:
            compare(batch, figures)
            batch.clear()
    compare(batch, figures)
    return figures


def compare(batch: list[tuple[Candidate, CheckedHandler]], figures: Figures) -> None:
    """Run accepted programs on all engines; what a handled run leaves behind must be the same bytes."""
    programs = [_verified(each, checked) for each, checked in batch]
    engines = [engine.load(programs) for engine in (JitEngine(), InterpreterEngine())]
    for (each, checked), program in zip(batch, programs, strict=True):
        functions = [PROTOTYPE(engine.address(program.handlers[0])) for engine in engines]
        rng = random.Random(-each.seed)
        for _ in range(COMPARED):
            given = random_input(each, rng)
            try:
                expected, steps = run_reference(checked, given)
            except Unsound as violation:
                figures.violations.append(f"{each.origin} {each.seed}: {violation}")
                break
            figures.instructions += steps
            figures.compared += 1
            for function, name in zip(functions, ("jit", "interp"), strict=True):
                if why := disagreement(expected, run_native(function, given), given):
                    figures.violations.append(f"{each.origin} {each.seed}: {name}: {why}")


def disagreement(expected: Outcome, got: Outcome, given: Input) -> str:
    """How an engine's outcome differs from the reference where anybody can see it; empty if it does not."""
    if got.r0 != expected.r0:
        return f"r0 is {got.r0:#x}, not {expected.r0:#x}"
    if expected.r0 == Verdict.DECLINE:
        return "" if got.scratch == expected.scratch == given.scratch else "a decline changed scratch"
    if got.scratch != expected.scratch:
        return "scratch differs"
    return "" if got.exit == expected.exit else "the exit differs"


def random_input(each: Candidate, rng: random.Random) -> Input:
    scratch = bytearray(each.scratch_size)
    scratch_writer(rng)(scratch)
    exit_ = random_exit(rng, each.handler.binding)
    return Input(bytes(exit_), bytes(scratch), each.rodata, interesting(rng, 64))


def run_reference(checked: CheckedHandler, given: Input) -> tuple[Outcome, int]:
    exit_, scratch = bytearray(given.exit), bytearray(given.scratch)
    result = checked.run(exit_, scratch, lambda: given.now)
    return Outcome(result.verdict, bytes(exit_), bytes(scratch)), result.steps


def _verified(each: Candidate, checked: CheckedHandler) -> VerifiedProgram:
    program = Program("campaign", (each.handler,), bytes(each.scratch_size), each.rodata, Names(), ())
    return VerifiedProgram(program, (checked.verified,))


def stream(start: int, *, step: int = 1) -> Iterable[Candidate]:
    """Candidates of all origins, mixed."""
    origins = (Origin.MADE, Origin.REAL, Origin.MUTATED, Origin.MADE, Origin.REAL, Origin.MADE, Origin.RANDOM)
    for seed in count(start, step):
        yield candidate(origins[seed % len(origins)], seed)


def main(instructions: int, start: int) -> int:
    began = time.monotonic()
    figures = campaign(stream(start), Figures(), instructions=instructions)
    print(json.dumps(vars(figures) | {"seconds": round(time.monotonic() - began)}, indent=2))
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
