"""What verification costs, in steps: near-linear in a program's size, and never more than the budget.

Steps are counted, not seconds, so that nothing here depends on the machine; `bench/verification.py` measures
the seconds.
"""

from __future__ import annotations

import pytest

from bench.families import FAMILIES, HOSTILE, doubling
from devbc.abi import parse_binding
from devbc.catalog import bundled_devices, load_program
from devbc.diagnostics import Diagnostic, Rejected, render
from devbc.program.program import Handler, Names, Program
from devbc.verifier import DEFAULT, Policy, errors, verify_program
from devbc.verifier.explore import Exploration
from devbc.verifier.prepare import prepare
from devbc.verifier.verify import prove
from tests.verifier.oracle import handler, rejected

#: Of steps for ten times the instructions: ten, and something for what is constant.
GROWTH = 12


def exploration(text: str, policy: Policy = DEFAULT) -> Exploration:
    return prepare(handler(text), 64, bytes(64), policy, None, None)


def steps(text: str) -> int:
    explored = exploration(text)
    prove(explored, DEFAULT)
    return explored.steps


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_grow_with_the_size(family: str) -> None:
    small, large = steps(FAMILIES[family](300)), steps(FAMILIES[family](3000))
    assert large <= GROWTH * small


@pytest.mark.parametrize("family", ["straight line", "branches", "loops"])
def test_ten_thousand_instructions_are_within_the_budget(family: str) -> None:
    assert steps(FAMILIES[family](10_000)) <= 25_000


@pytest.mark.parametrize("family", FAMILIES)
def test_families_have_about_the_size_that_is_asked_for(family: str) -> None:
    """Of the longest run for loops and calls, of the code for the others."""
    for size in (100, 1000):
        explored = exploration(FAMILIES[family](size))
        worst_case = prove(explored, DEFAULT).worst_case
        assert 0.8 * size <= worst_case <= 1.1 * size


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_end_with_the_budget(name: str) -> None:
    policy = Policy(steps=20_000)
    explored = exploration(HOSTILE[name], policy)
    with pytest.raises(Rejected) as caught:
        prove(explored, policy)
    assert caught.value.diagnostics[0].code is errors.TOO_COMPLEX
    # The step that passes the budget may be charged for one large state.
    assert 20_000 < explored.steps <= 20_300


def program(*texts: str) -> Program:
    handlers = []
    for number, text in enumerate(texts):
        section = f"pio/write@{number:#x}:1"
        binding = parse_binding(section)
        assert not isinstance(binding, str)
        made = handler(text)
        handlers.append(Handler(section, binding, made.code, made.functions))
    return Program("test", tuple(handlers), bytes(64), b"", Names(), ())


def test_handlers_share_one_budget() -> None:
    # Each of another code: equal ones would be verified once.
    texts = [f"mov %r2, {number}\n" + FAMILIES["loops"](1000) for number in range(5)]
    policy = Policy(steps=2500)
    verify_program(program(*texts[:2]), policy=policy)
    with pytest.raises(Rejected) as caught:
        verify_program(program(*texts), policy=policy)
    # The third and all that come after it are refused, each with its own diagnosis.
    first, *others = caught.value.diagnostics
    assert first.code is errors.TOO_COMPLEX
    assert len(others) == 2
    assert first.notes[-1].endswith("of the steps went into handlers before this one")


def overspent(text: str) -> Diagnostic:
    return rejected(text, policy=Policy(steps=3000)).diagnostics[0]


def test_a_diagnosis_names_the_branches_and_what_they_leave() -> None:
    diagnostic = overspent(doubling(30))
    assert diagnostic.message == "the verifier gave up after 3,000 steps"
    assert "different states arrived here, where branches meet" in diagnostic.label
    assert diagnostic.notes[0].startswith("the states differ in `r7` (")
    assert diagnostic.labels
    for label in diagnostic.labels:
        assert label.span.text.startswith("if r3 == 0 goto")
        assert "this branch went both ways" in label.text
    assert "this branch went both ways" in render(diagnostic)


def test_a_diagnosis_names_the_loop() -> None:
    diagnostic = overspent("mov %r2, 0\nl:\nadd %r2, 1\njlt %r2, 60000, l\nmov %r0, 1\nexit")
    assert diagnostic.span is not None
    assert diagnostic.span.line == 1
    assert diagnostic.label == "1,500 different states arrived at this loop"
    assert diagnostic.notes == ("the states differ in `r2` (1,500 values)",)
    assert not diagnostic.labels


def test_shipped_devices_spend_little() -> None:
    """All of hpet's handlers in a twentieth of the budget."""
    for path in sorted(bundled_devices().glob("*/*.dev")):
        verify_program(load_program(path), policy=Policy(steps=DEFAULT.steps // 20))
