"""States: links, joins, pruning and single steps, for random states and runs that they admit.

What is compared is in `state_checks.py`. Each check says how many of its cases had something to say; were
these few, it would show little.
"""

from __future__ import annotations

import pytest

from tests.verifier import state_checks as evidence

#: For each check: cases, a lower bound of those that say something, and cases of the long profile.
CHECKS = {
    "what one copy teaches another": (evidence.check_follow, 3000, 600, 400_000),
    "what a jump teaches all copies": (evidence.check_learn, 600, 180, 60_000),
    "what is still a copy": (evidence.check_bits_of, 200, 2500, 20_000),
    "joined states": (evidence.check_joined, 300, 300, 30_000),
    "states that cover others": (evidence.check_covers, 600, 300, 60_000),
    "one instruction": (evidence.check_step, 800, 1600, 80_000),
}


@pytest.mark.parametrize("name", CHECKS)
def test_states(name: str) -> None:
    check, cases, telling, _ = CHECKS[name]
    assert check(cases, 1) >= telling


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("name", CHECKS)
def test_states_for_long(name: str, seed: int) -> None:
    check, cases, telling, many = CHECKS[name]
    assert check(many, seed) >= telling * many // cases * 0.9
