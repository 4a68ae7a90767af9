"""All engines compute the same: random programs that stay inside their memory, run on each.

The programs need no verifier to be safe: registers and the part of the stack that is used are written first,
memory is reached through r10 only, jumps lead forward. What they end with depends on all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.isa.asm import assemble
from devbc.isa.insn import Insn, encode
from devbc.isa.opcodes import FRAME_POINTER, SPECS, Kind, Source, Spec
from tests.conformance import ENGINES, Engine
from tests.strategies import S32, U64

STACK_SLOTS = 4
COMPUTING = [spec for spec in SPECS.values() if spec.kind in (Kind.ALU, Kind.UNARY)]
ACCESSING = [spec for spec in SPECS.values() if spec.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)]
CONDITIONAL = [spec for spec in SPECS.values() if spec.kind is Kind.JUMP]
JUMPING = [*CONDITIONAL, SPECS["ja"], SPECS["ja32"]]


@dataclass(frozen=True)
class Step:
    """An instruction of the body, and for jumps how many of the body's instructions they skip."""

    insn: Insn
    skips: int = 0


REGISTER = st.integers(0, 9)


def _operands(spec: Spec) -> st.SearchStrategy[Insn]:
    base = spec.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
    offsets = st.sampled_from(range(-8 * STACK_SLOTS, 0, max(1, spec.bytes)))
    return st.builds(
        Insn,
        st.just(spec),
        dst=st.just(FRAME_POINTER) if base and spec.kind is not Kind.LOAD else _register(spec.dst),
        src=st.just(FRAME_POINTER) if spec.kind is Kind.LOAD else _register(spec.src),
        off=offsets if base else st.just(spec.off or 0),
        imm=S32 if spec.source is Source.IMM else st.just(spec.imm or 0),
    )


def _register(fixed: int | None) -> st.SearchStrategy[int]:
    return REGISTER if fixed is None else st.just(fixed)


STEPS = st.one_of(
    st.sampled_from(COMPUTING).flatmap(_operands).map(Step),
    st.sampled_from(ACCESSING).flatmap(_operands).map(Step),
    st.builds(Step, st.sampled_from(JUMPING).flatmap(_operands), st.integers(0, 4)),
)


def program(values: list[int], stack: list[int], steps: list[Step]) -> bytes:
    """Set-up, the steps, and an end that folds all registers and the stack into r0."""
    body = [each.insn for each in steps]
    starts = [0]
    for insn in body:
        starts.append(starts[-1] + insn.spec.slots)
    for index, each in enumerate(steps):
        if each.insn.spec in JUMPING:
            distance = starts[min(index + 1 + each.skips, len(body))] - starts[index] - 1
            by_imm = each.insn.spec.name == "ja32"
            body[index] = replace(each.insn, imm=distance) if by_imm else replace(each.insn, off=distance)
    lines = [f"lddw %r0, {value}\nstxdw [%r10-{8 * slot}], %r0" for slot, value in enumerate(stack, 1)]
    lines += [f"lddw %r{register}, {value}" for register, value in enumerate(values)]
    fold = [f"mul %r0, 31\nadd %r0, %r{register}" for register in range(1, 10)]
    fold += [f"ldxdw %r1, [%r10-{8 * slot}]\nmul %r0, 31\nadd %r0, %r1" for slot in range(1, STACK_SLOTS + 1)]
    return encode([*assemble("\n".join(lines)), *body, *assemble("\n".join([*fold, "exit"]))])


PROGRAMS = st.builds(
    program,
    st.lists(U64, min_size=10, max_size=10),
    st.lists(U64, min_size=STACK_SLOTS, max_size=STACK_SLOTS),
    st.lists(STEPS, min_size=1, max_size=40),
)


@pytest.mark.parametrize("engine", [each for name, each in ENGINES.items() if name != "interpreter"],
                         ids=[name for name in ENGINES if name != "interpreter"])  # fmt: skip
@settings(max_examples=60, deadline=None)
@given(code=PROGRAMS)
def test_random_programs(engine: Engine, code: bytes) -> None:
    assert engine(code, b"") == ENGINES["interpreter"](code, b"")


EDGES = [0, 1, 2, 31, 32, 63, 64, 0x7F, 0x80, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, (1 << 63) - 1,
         1 << 63, (1 << 64) - 1, 0x0123_4567_89AB_CDEF]  # fmt: skip


@pytest.mark.parametrize("spec", [*COMPUTING, *CONDITIONAL], ids=lambda spec: spec.name)
def test_every_form_on_values_at_the_edges(spec: Spec) -> None:
    """Operands come from memory; the native interpreter against the reference."""
    load = assemble("ldxdw %r0, [%r1+0]\nldxdw %r2, [%r1+8]")
    tail = assemble("mov %r0, 1\nexit" if spec in CONDITIONAL else "exit")
    for b in EDGES:
        imm = b - (1 << 32) if b >> 31 == 1 else b
        if spec.source is Source.IMM and not imm < 1 << 31:
            continue
        insn = Insn(spec, 0, 2 if spec.src is None else spec.src, 1 if spec in CONDITIONAL else spec.off or 0,
                    imm if spec.source is Source.IMM else spec.imm or 0)  # fmt: skip
        code = encode([*load, insn, *tail])
        for a in EDGES:
            mem = a.to_bytes(8, "little") + b.to_bytes(8, "little")
            assert ENGINES["native-interpreter"](code, mem) == ENGINES["interpreter"](code, mem), (a, b)


def test_the_programs_reach_every_form_that_computes() -> None:
    """What the strategy is made of; the rest has tests of its own."""
    kinds = {spec.kind for spec in (*COMPUTING, *ACCESSING, *JUMPING)}
    assert set(Kind) - kinds == {Kind.LDDW, Kind.CALL, Kind.EXIT}


CALLS = """
    mov %r6, 6
    mov %r7, 7
    stdw [%r10-8], 1
    mov %r1, %r10
    add %r1, -8
    mov %r2, 5
    call local outer
    ldxdw %r1, [%r10-8]
    add %r0, %r1
    add %r0, %r6
    add %r0, %r7
    exit
outer:
    mov %r6, %r1
    mov %r7, %r2
    stdw [%r10-8], 100
    mov %r1, %r10
    add %r1, -8
    call local inner
    ldxdw %r1, [%r10-8]
    add %r0, %r1
    ldxdw %r1, [%r6+0]
    add %r1, %r7
    stxdw [%r6+0], %r1
    exit
inner:
    mov %r6, 1000
    stdw [%r10-8], 77
    lock fetch add [%r1+0], %r6
    mov %r0, %r6
    exit
"""


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_nested_calls_have_stacks_and_registers_of_their_own(engine: Engine) -> None:
    # inner: r0 = old value 100, its caller's slot becomes 1100; outer: r0 = 1200, the entry's slot 1 + 5.
    assert engine(encode(assemble(CALLS)), b"") == 1200 + 6 + 6 + 7
