"""Why a handler was refused, in full: the fault with its causal slice and, if one is found, a run that goes
wrong.

The verifier itself stops at the first fault with the place, the values there and what would help. This module
takes that handler, follows the failing path again and adds what it tells. It decides nothing: the fault stays
the same, and where there is nothing to add, so does the diagnostic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from devbc.diagnostics import Diagnostic
from devbc.isa.disasm import disassemble
from devbc.program.verified import ByteRange
from devbc.verifier import errors
from devbc.verifier.policy import Policy
from devbc.verifier.slice import Names, Step, causal_slice, labels
from devbc.verifier.trail import Failure, Setting, failing_path

#: Faults that are about a path and the values on it. Of the others the message says all.
_ABOUT_A_PATH: Final = frozenset(
    {
        errors.UNINITIALISED, errors.OUT_OF_BOUNDS, errors.MISALIGNED, errors.POINTER_ARITHMETIC,
        errors.POINTER_LEAK, errors.NOT_AN_ADDRESS, errors.FIELD_RIGHTS, errors.ENDLESS, errors.TOO_LONG,
        errors.UNCLEAN_DECLINE, errors.BAD_VERDICT, errors.POLICY, errors.POINTER_COMPARISON,
    }
)  # fmt: skip

#: Instructions of a run that is too long that are followed: many rounds of any loop that is worth a slice.
_ROUNDS: Final = 2_500

_NOT_FOUND: Final = (
    "no concrete run was found that goes wrong: the verifier could not prove it safe, which may be its own "
    "weakness"
)


def diagnosed(
    diagnostics: Sequence[Diagnostic], setting: Setting, names: Names | None = None
) -> tuple[Diagnostic, ...]:
    """The diagnostics of a refused handler, with what the failing path tells.

    `names`: the shared area's fields in a range of bytes. Takes some hundredths of a second.
    """
    codes = {each.code for each in diagnostics}
    if not codes & _ABOUT_A_PATH:
        return tuple(diagnostics)
    failure = failing_path(_within_reach(setting) if errors.TOO_LONG in codes else setting)
    if failure is None:
        return tuple(diagnostics)
    return tuple(
        _explained(each, failure, setting.policy, names or _unnamed) if _is_about(each, failure) else each
        for each in diagnostics
    )


def _within_reach(setting: Setting) -> Setting:
    """Where a run is too long, its first rounds show what makes it long: a cap that they break soon."""
    policy = setting.policy
    return replace(setting, policy=replace(policy, instructions=min(policy.instructions, _ROUNDS)))


def _is_about(diagnostic: Diagnostic, failure: Failure) -> bool:
    """Whether the failure is the diagnostic's: under another cap another loop may be the first too long."""
    fault = failure.fault
    slot = failure.machine.state.slot if fault.slot is None else fault.slot
    return diagnostic.code is fault.code and diagnostic.data["slot"] == slot


def _explained(diagnostic: Diagnostic, failure: Failure, policy: Policy, names: Names) -> Diagnostic:
    from devbc.verifier import counterexample

    steps = causal_slice(failure, names)
    data = diagnostic.data | {"slice": [_step_json(failure, step) for step in steps]}
    notes = diagnostic.notes
    if counterexample.searchable(failure):
        found = counterexample.search(failure)
        if found is not None and policy != failure.setting.policy:
            found = counterexample.prolonged(found, failure, policy)
        data["counterexample"] = None if found is None else counterexample.to_json(found, failure, names)
        notes += (_NOT_FOUND if found is None else counterexample.text(found, failure, names),)
    return replace(diagnostic, labels=diagnostic.labels + labels(failure, steps), notes=notes, data=data)


def _step_json(failure: Failure, step: Step) -> dict[str, Any]:
    span = failure.shape.span(step.slot)
    return {
        "slot": step.slot,
        "instruction": disassemble(failure.shape.insns[step.slot], step.slot),
        "file": span.file,
        "line": span.line,
        "text": step.text,
    }


def _unnamed(_: Sequence[ByteRange]) -> list[str]:
    return []
