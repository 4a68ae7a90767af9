"""Accepted means safe: programs of all origins are run, and every step is compared with what was proven.

The campaign is `tests/verifier/campaign.py`. Each run of the suite takes a sample with fixed seeds;
`make test-long` checks ten million instructions, in parts that do not overlap.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.diagnostics import Rejected
from devbc.isa.insn import Insn, encode
from tests.strategies import INSNS
from tests.verifier.campaign import Figures, Origin, campaign, candidate, stream
from tests.verifier.oracle import check_run, explore

PARTS = 8
LONG = 10_000_000


@pytest.mark.parametrize(
    ("origin", "seeds", "accepted", "instructions"),
    [
        # Were nearly all refused, or left after a few steps, the test would say nothing.
        (Origin.MADE, 160, 90, 60_000),
        (Origin.MUTATED, 160, 40, 10_000),
        (Origin.REAL, 240, 60, 15_000),
        (Origin.RANDOM, 300, 60, 5_000),
    ],
)
def test_what_is_accepted_keeps_to_its_proof(
    origin: Origin, seeds: int, accepted: int, instructions: int
) -> None:
    figures = campaign((candidate(origin, seed) for seed in range(seeds)), Figures())
    assert figures.violations == []
    assert figures.accepted[origin] > accepted
    assert figures.instructions > instructions
    assert figures.compared > accepted


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_million_instructions(part: int) -> None:
    figures = campaign(stream(1_000_000 + part, step=PARTS), Figures(), instructions=LONG // PARTS)
    assert figures.violations == []
    assert figures.instructions >= LONG // PARTS


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
