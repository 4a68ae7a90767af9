"""Accepted means safe: random handlers are run, and every step is compared with what was proven.

The oracle is `tests/verifier/oracle.py`. The short profile is a sample; `make test-long` runs for longer.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.diagnostics import Rejected
from devbc.isa.insn import Insn, encode
from devbc.isa.opcodes import SPECS
from tests.strategies import INSNS
from tests.verifier.oracle import check_run, explore
from tests.verifier.programs import random_program

SECTIONS = ("pio/write@0x0:4", "mmio/read@0x10-0x30:4,8", "pio/write@0x3:1", "mmio/write@0x0-0x3f")
OPCODES = [spec.opcode for spec in SPECS.values()]


def campaign(seeds: range, runs: int, *, mutate: bool) -> tuple[int, int]:
    """Handlers accepted, and instructions checked in their runs."""
    accepted = steps = 0
    for seed in seeds:
        rng = random.Random(seed)
        code = encode(random_program(rng))
        section = SECTIONS[0]
        if mutate:
            code, section = mutated(code, rng), rng.choice(SECTIONS)
        try:
            explored = explore(code, section=section)
        except Rejected:
            continue
        accepted += 1
        for _ in range(runs):
            steps += check_run(explored, rng)
    return accepted, steps


def mutated(code: bytes, rng: random.Random) -> bytes:
    out = bytearray(code)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out) // 8) * 8
        match rng.randrange(6):
            case 0:
                out[at] = rng.choice(OPCODES)
            case 1:
                out[at + 1] = rng.randrange(11) | rng.randrange(11) << 4
            case 2:
                out[at + 2 : at + 4] = rng.randrange(-16, 16).to_bytes(2, "little", signed=True)
            case 3:
                imm = rng.choice([rng.randrange(-20, 20), rng.getrandbits(32) - (1 << 31)])
                out[at + 4 : at + 8] = imm.to_bytes(4, "little", signed=True)
            case 4:
                other = rng.randrange(len(out) // 8) * 8
                out[at : at + 8] = out[other : other + 8]
            case _:
                out[at + rng.randrange(8)] ^= 1 << rng.randrange(8)
    return bytes(out)


def test_random_handlers() -> None:
    accepted, steps = campaign(range(400), 5, mutate=False)
    # Were nearly all refused, the test would say nothing.
    assert accepted > 200
    assert steps > 40_000


def test_mutated_handlers() -> None:
    accepted, _ = campaign(range(100_000, 101_500), 4, mutate=True)
    assert accepted > 100


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
def test_random_handlers_for_long(part: int) -> None:
    campaign(range(1_000_000 * (part + 1), 1_000_000 * (part + 1) + 4_000), 8, mutate=False)
    campaign(range(1_000_000 * (part + 21), 1_000_000 * (part + 21) + 20_000), 8, mutate=True)


@settings(max_examples=300, deadline=None)
@given(code=st.binary(max_size=160))
def test_random_bytes_never_crash_it(code: bytes) -> None:
    try_it(code)


@settings(max_examples=300, deadline=None)
@given(insns=st.lists(INSNS, min_size=1, max_size=12), seed=st.integers(0, 1 << 32))
def test_random_instructions_never_crash_it(insns: list[Insn], seed: int) -> None:
    try_it(encode(insns), seed)


def try_it(code: bytes, seed: int = 0) -> None:
    try:
        explored = explore(code)
    except Rejected:
        return
    check_run(explored, random.Random(seed))
