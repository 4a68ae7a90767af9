"""Exploration stays bounded: paths that meet are compared, crowded places are joined, budgets are kept."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from devbc.diagnostics import Rejected, render
from devbc.verifier import DEFAULT, Policy
from tests.verifier.oracle import explore, rejected, verify


def diamonds(count: int, body: str) -> str:
    """A row of `count` branches on bits of an unknown number, each around `body`."""
    rows = [
        f"mov %r4, %r3\nrsh %r4, {number}\nand %r4, 1\njeq %r4, 0, l{number}\n{body}\nl{number}:"
        for number in range(count)
    ]
    return "ldxdw %r3, [%r1+16]\nmov %r2, 0\n" + "\n".join(rows) + "\nmov %r0, 1\nexit"


def explored_steps(text: str) -> int:
    return len(explore(text).explored.points)


def test_dead_leftovers_do_not_keep_paths_apart() -> None:
    assert explored_steps(diamonds(40, "mov %r5, 7")) < 1000


def test_a_sum_over_branches_grows_with_its_values_only() -> None:
    text = diamonds(40, "add %r2, 1").replace("mov %r0, 1", "mov %r0, 1\nstxdw [%r1+8], %r2")
    assert explored_steps(text) < 20_000


def test_different_unknown_numbers_are_joined_where_they_crowd() -> None:
    rows = [
        f"jset %r3, {1 << number}, l{number}\nadd %r2, %r5\nxor %r2, {number * 7 + 1}\nl{number}:"
        for number in range(24)
    ]
    text = (
        "ldxdw %r3, [%r1+16]\nldxdw %r2, [%r1+8]\nldxb %r5, [%r1+8]\n"
        + "\n".join(rows)
        + "\nstxdw [%r1+8], %r2\nmov %r0, 1\nexit"
    )
    assert explored_steps(text) < 20_000


def test_the_longest_path_is_counted_through_joined_states() -> None:
    """The second way into the join is covered by the first, which has the longer rest."""
    verified = verify(diamonds(10, "mov %r5, 1\nmov %r5, 2"))
    assert verified.worst_case == 2 + 10 * 6 + 2


def test_nested_loops_are_counted_exactly() -> None:
    text = """
        mov %r2, 0
    outer:
        mov %r3, 5
    inner:
        add %r3, -1
        jne %r3, 0, inner
        add %r2, 1
        jlt %r2, 4, outer
        mov %r0, 1
        exit"""
    assert verify(text).worst_case == 1 + 4 * (1 + 5 * 2 + 2) + 2


POLICIES = {
    "slots": ("mov %r0, 1\nmov %r0, 1\nexit", Policy(slots=2)),
    "instructions": ("mov %r0, 1\nmov %r0, 1\nexit", Policy(instructions=2)),
    "stack": ("stdw [%r10-16], 0\nmov %r0, 1\nexit", Policy(stack_bytes=8)),
    "helpers": ("call 5\nmov %r0, 1\nexit", Policy(helpers=frozenset())),
    "effects": ("stw [%r1+80], 1\nmov %r0, 1\nexit", Policy(effects=DEFAULT.effects - {"raise"})),
    "lines": ("stw [%r1+80], 4\nmov %r0, 1\nexit", Policy(lines=2)),
    "lines, for an unknown mask": (
        "ldxdw %r2, [%r1+8]\nstxw [%r1+80], %r2\nmov %r0, 1\nexit",
        Policy(lines=2),
    ),
    "signals": ("stw [%r1+88], 1\nmov %r0, 1\nexit", Policy(signals=0)),
    "timers": ("stw [%r1+96], 2\nmov %r0, 1\nexit", Policy(timers=1)),
    "deadlines": ("stdw [%r1+112], 5\nmov %r0, 1\nexit", Policy(timers=1)),
    "calls": ("call local f\nmov %r0, 1\nexit\nf:\nexit", Policy(call_depth=1)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_refuses_what_the_default_grants(name: str) -> None:
    text, policy = POLICIES[name]
    rejected(text, policy=policy)
    verify(text)


def test_a_policy_grants_what_fits_it() -> None:
    policy = Policy(lines=2, timers=1, signals=1)
    verify("stw [%r1+80], 3\nstw [%r1+92], 1\nstdw [%r1+104], 9\nmov %r0, 1\nexit", policy=policy)
    verify("ldxdw %r2, [%r1+8]\nand %r2, 3\nstxw [%r1+80], %r2\nmov %r0, 1\nexit", policy=policy)
    # What is read back from an effect field can only be what could be stored.
    text = "stw [%r1+80], 1\nldxw %r2, [%r1+80]\nor %r2, 2\nstxw [%r1+80], %r2\nmov %r0, 1\nexit"
    verify(text, policy=policy)


def test_a_policy_only_lowers() -> None:
    with pytest.raises(ValueError, match="may lower `stack_bytes`"):
        replace(DEFAULT, stack_bytes=1024)


def test_a_rejection_as_people_see_it() -> None:
    text = "lddw %r2, map_value_by_idx 0, 0\nstb [%r2+8], 1\nmov %r0, 0\nexit"
    with pytest.raises(Rejected) as caught:
        verify(text)
    assert (
        render(caught.value.diagnostics[0])
        == """\
error[V015]: the handler declines after it has written the shared area
 --> pio/write@0x0:4:4:1
  |
2 | *(u8 *)(r2 + 8) = 1
  | ------------------- scratch is written here
...
4 | exit
  | ^^^^ `r0` is 0 here
  = help: decide whether to decline before the first write"""
    )


def test_what_is_known_of_an_address_is_said() -> None:
    text = """
        ldxdw %r2, [%r1+8]
        jgt %r2, 71, out
        lddw %r3, map_value_by_idx 0, 0
        add %r3, %r2
        ldxb %r2, [%r3+0]
    out:
        mov %r0, 0
        exit"""
    diagnostic = rejected(text).diagnostics[0]
    assert diagnostic.message == "an access of 1 byte may lie outside scratch"
    assert diagnostic.label == "`r3` points to scratch + x, where x is in 0..=71 here"
    assert diagnostic.notes == ("the access begins at scratch + 0..=71; scratch has 64 bytes",)


#: `r2` is 2 or 2**63 + 1, as both orders say, and its lower half 0 or -1: no run comes to where it is used.
#: No part of the word excludes what another part leaves, so that the contradiction is not seen.
NO_RUN = """
    ldxdw %r2, [%r1+16]
    mov %r0, 0
    lddw %r3, 0x8000000000000001
    jlt %r2, 2, out
    jgt %r2, %r3, out
    jsgt %r2, 2, out
    jslt %r2, %r3, out
    jslt32 %r2, -1, out
    jsgt32 %r2, 0, out
    {use}
out:
    exit"""


@pytest.mark.parametrize(
    "use",
    ["neg %r2", "sdiv %r2, 3", "smod %r2, %r2", "arsh %r2, %r2", "movsx3264 %r2, %r2",
     "and %r2, -8\nlddw %r3, map_value_by_idx 1, 0\nadd %r3, %r2\nldxdw %r3, [%r3+0]"],
)  # fmt: skip
def test_a_contradiction_that_is_not_seen_does_no_harm(use: str) -> None:
    with contextlib.suppress(Rejected):
        verify(NO_RUN.format(use=use))
