"""Linux's verifier and BPF as a third opinion, where bpf(2) is allowed.

Results must agree on every program that both accept. Verdicts differ for reasons that have names: each
disagreement falls into a class of `REFUSED_BY_LINUX` or `ACCEPTED_BY_LINUX` (`docs/verifier.md` explains
them), and one that falls into none fails the test. Programs are those of the soundness campaign.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from devbc.diagnostics import Diagnostic, Rejected
from devbc.engines import linux
from devbc.engines.checked import CheckedHandler
from devbc.engines.linux import LinuxProgram, Refused, try_load
from tests.handlers import Outcome
from tests.verifier.campaign import (
    COMPARED,
    Candidate,
    Origin,
    candidate,
    disagreement,
    random_input,
    real_handlers,
    run_reference,
)

#: Why Linux refuses what we accept: classes, and what Linux's log says.
REFUSED_BY_LINUX = {
    "the exit at a variable or moved pointer": r"variable ctx access|dereference of modified ctx ptr",
    "a form that RFC 9669 defines": r"^invalid shift|^div by zero",
    "code that no run reaches": r"^unreachable insn|^last insn is not|^jump out of range|"
    r"^call to invalid destination|^Bad address",
    "a result that points to a caller's stack": r"cannot return stack pointer",
    "less is known": r"unbounded|outside of the allowed memory range|makes .* pointer be out of bounds|"
    r"math between .* pointer|^misaligned|variable-offset|write into map forbidden|!read_ok|"
    r"min value is negative|invalid access to map value|infinite loop detected|^old state|"
    r"invalid (read|write|size)|pointer (arithmetic|comparison)|prohibited|combined stack|"
    r"sequence of \d+ jumps is too complex|too large|type=|leads to invalid memory access",
}
#: Why Linux accepts what we refuse: classes, and our codes.
ACCEPTED_BY_LINUX = {
    "this machine's contract": {"V003", "V004", "V011", "V015", "V016", "V018", "V019"},
    "privileged programs may show pointers": {"V008", "V009", "V022"},
    "privileged programs may read a stack that is not set": {"V005"},
    "the exit may be larger": {"V006"},
    "a run may be longer": {"V012", "V013", "V014"},
    "a field that Linux does not look at": {"I002", "I003"},
}


@dataclass
class Opinions:
    both: int = 0
    neither: int = 0
    compared: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    unnamed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    def ask(self, each: Candidate) -> None:
        """Both verifiers on one program, and both engines if both accept."""
        checked: CheckedHandler | Diagnostic
        try:
            checked = each.explore()
        except Rejected as rejected:
            checked = rejected.diagnostics[0]
        theirs = try_load(each.handler.code, scratch_size=each.scratch_size, rodata=each.rodata, strict=True)
        if isinstance(theirs, Refused):
            if isinstance(checked, Diagnostic):
                self.neither += 1
            else:
                self._classify(each, class_of_refusal(theirs.reason), theirs.reason)
            return
        with theirs:
            if isinstance(checked, Diagnostic):
                self._classify(each, class_of_acceptance(checked), checked.message)
            else:
                self.both += 1
                self._compare(each, checked, theirs)

    def _classify(self, each: Candidate, name: str | None, reason: str) -> None:
        if name is None:
            self.unnamed.append(f"{each.origin} {each.seed}: {reason}")
        else:
            self.classes[name] += 1

    def _compare(self, each: Candidate, checked: CheckedHandler, theirs: LinuxProgram) -> None:
        if checked.verified.helpers:
            # Linux's clock is the host's, and no two runs see the same time.
            return
        rng = random.Random(-each.seed)
        for _ in range(COMPARED):
            given = random_input(each, rng)
            expected, _steps = run_reference(checked, given)
            theirs.scratch[:] = given.scratch
            r0, exit_ = theirs.run(given.exit)
            got = Outcome(r0, exit_, bytes(theirs.scratch))
            self.compared += 1
            if why := disagreement(expected, got, given):
                self.different.append(f"{each.origin} {each.seed}: {why}")


def class_of_refusal(reason: str) -> str | None:
    return next((name for name, said in REFUSED_BY_LINUX.items() if re.search(said, reason)), None)


def class_of_acceptance(fault: Diagnostic) -> str | None:
    if fault.code.id == "V006" and "the exit" not in fault.message:
        return None
    return next((name for name, codes in ACCEPTED_BY_LINUX.items() if fault.code.id in codes), None)


def opinions(candidates: Iterable[Candidate]) -> Opinions:
    if reason := linux.why_unavailable():
        pytest.skip(reason)
    result = Opinions()
    for each in candidates:
        result.ask(each)
    return result


def test_real_handlers() -> None:
    """As compiled: nearly all are accepted by Linux too, and do the same there."""
    distinct = {(each.section, each.code): (program, each) for program, each in real_handlers()}
    result = opinions(
        Candidate(Origin.REAL, seed, each, len(program.scratch_image), program.rodata)
        for seed, (program, each) in enumerate(distinct.values())
    )
    assert result.different == result.unnamed == []
    assert result.both > 0.9 * len(distinct)
    assert result.compared > result.both
    assert not result.classes.keys() & ACCEPTED_BY_LINUX.keys()


@pytest.mark.parametrize(("origin", "seeds"), [(Origin.MADE, 80), (Origin.MUTATED, 120), (Origin.REAL, 200),
                                               (Origin.RANDOM, 200)])  # fmt: skip
def test_programs_of_the_campaign(origin: Origin, seeds: int) -> None:
    result = opinions(candidate(origin, seed) for seed in range(seeds))
    assert result.different == result.unnamed == []
    assert result.both > 20


@pytest.mark.long
@pytest.mark.parametrize("origin", Origin)
def test_programs_of_the_campaign_for_long(origin: Origin) -> None:
    result = opinions(candidate(origin, seed) for seed in range(20_000, 20_600))
    assert result.different == result.unnamed == []
