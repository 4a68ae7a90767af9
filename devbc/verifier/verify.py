"""The verifier's entry points: from a linked handler to a `VerifiedHandler`, or to diagnostics.

The stages: shape of the code (`shape.py`), liveness, exploration. A breach of the contract travels as a
`Fault` and becomes a diagnostic here, with its place in the source.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from devbc.abi import AccessBinding, Verdict
from devbc.diagnostics import Diagnostic, Label, Rejected
from devbc.program.program import Handler, Program
from devbc.program.verified import HandlerClass, VerifiedHandler, VerifiedProgram
from devbc.verifier import errors
from devbc.verifier.arithmetic import WordAlgebra
from devbc.verifier.budget import Budget
from devbc.verifier.context import Context, exit_context
from devbc.verifier.errors import Fault
from devbc.verifier.explore import Exploration, Observer
from devbc.verifier.policy import DEFAULT, Policy
from devbc.verifier.prepare import prepare
from devbc.verifier.shape import Shape
from devbc.verifier.strides import touched
from devbc.verifier.tables import Tables
from devbc.verifier.word import Word

#: A frame takes what its function uses, rounded up to this many bytes: r10 stays aligned for any access.
_FRAME_STEP = 8

#: Held by the verification that does without the garbage collector.
_COLLECTOR = threading.Lock()

#: Faults of a program that are diagnosed in full: nobody reads a hundred, and each takes a tenth of a second.
_DIAGNOSED = 8


def verify_program(program: Program, *, policy: Policy = DEFAULT) -> VerifiedProgram:
    """Verify every handler. Raises Rejected with the faults of all, the first few diagnosed in full."""
    faults = list(oversized(len(program.scratch_image), len(program.rodata), policy))
    with without_collector():
        handlers = _prove_all(program, policy, faults)
    if faults:
        raise Rejected(*faults)
    return VerifiedProgram(program, handlers)


class _Proof(NamedTuple):
    """What was proven of a handler's code, and all that was asked of the exit's contents for it."""

    verified: VerifiedHandler
    asked: Mapping[tuple[int, int, int], Word]

    def holds_in(self, context: Context, words: WordAlgebra, budget: Budget) -> bool:
        """Whether it is a proof of the same code in this context too.

        An exploration knows of its handler the code, of the exit's contents the answers to what it asks, and
        else what all handlers of the program have in common. If each answer admits what this context admits,
        each run in this context is one that was explored. A question is a step of the budget.
        """
        if len(self.asked) > budget.left:
            return False
        budget.spent += len(self.asked)
        return all(word.includes(context.loaded(words, *place)) for place, word in self.asked.items())


def _prove_all(program: Program, policy: Policy, faults: list[Diagnostic]) -> tuple[VerifiedHandler, ...]:
    """The handlers that keep the contract; what is wrong with the others is added to `faults`."""
    outcomes: dict[int, VerifiedHandler | Rejected] = {}
    scratch_size, tables, budget = len(program.scratch_image), Tables(), Budget(policy.steps)
    for twins in _twins(program.handlers):
        proof: _Proof | None = None
        for number in twins:
            handler = program.handlers[number]
            context = exit_context(handler.binding)
            if proof is not None and proof.holds_in(context, tables.values.words, budget):
                outcomes[number] = replace(proof.verified, handler=handler)
                continue
            try:
                exploration = prepare(
                    handler, scratch_size, program.rodata, policy, context, None, tables, budget
                )
                outcomes[number] = proven = prove(exploration, policy)
                proof = _Proof(proven, exploration.machine.asked)
            except Rejected as rejected:
                outcomes[number] = rejected
    handlers: list[VerifiedHandler] = []
    for number, handler in enumerate(program.handlers):
        outcome = outcomes[number]
        if isinstance(outcome, VerifiedHandler):
            handlers.append(outcome)
            continue
        full = len(faults) < _DIAGNOSED
        faults += _diagnosed(outcome, handler, program, policy) if full else outcome.diagnostics
    return tuple(handlers)


def _twins(handlers: Sequence[Handler]) -> Iterable[list[int]]:
    """Numbers of the handlers that have the same code; first those of wide accesses, whose values are any."""
    groups: dict[bytes, list[int]] = {}
    for number, handler in enumerate(handlers):
        groups.setdefault(handler.code, []).append(number)
    for group in groups.values():
        group.sort(key=lambda number: _width(handlers[number]), reverse=True)
    return groups.values()


def _width(handler: Handler) -> int:
    return max(handler.binding.sizes) if isinstance(handler.binding, AccessBinding) else 0


def _diagnosed(
    rejected: Rejected, handler: Handler, program: Program, policy: Policy
) -> tuple[Diagnostic, ...]:
    # Only a refusal needs this much.
    from devbc.verifier.diagnosis import diagnosed
    from devbc.verifier.fields import scratch_names
    from devbc.verifier.trail import Setting

    setting = Setting.of(
        handler, scratch_size=len(program.scratch_image), rodata=program.rodata, policy=policy
    )
    return diagnosed(rejected.diagnostics, setting, partial(scratch_names, program))


def oversized(scratch_size: int, rodata_size: int, policy: Policy) -> tuple[Diagnostic, ...]:
    """The regions of these sizes, in bytes, that a policy does not grant."""
    return tuple(
        Diagnostic(errors.POLICY, f"the {name} has {size:,} bytes, and {cap:,} are allowed")
        for name, size, cap in (
            ("shared area", scratch_size, policy.scratch_bytes),
            ("read-only data", rodata_size, policy.rodata_bytes),
        )
        if size > cap
    )


def verify_handler(
    handler: Handler,
    *,
    scratch_size: int,
    rodata: bytes = b"",
    policy: Policy = DEFAULT,
    context: Context | None = None,
    observer: Observer | None = None,
) -> VerifiedHandler:
    """Prove that every run of a handler keeps the contract.

    `scratch_size`: bytes of the shared area without its header. `context`: what r1 points to, if that is not
    the exit of the handler's binding. `observer` sees each instruction that is explored with the abstract
    state before it. Raises Rejected with what was found: all faults of the code's shape, otherwise the first
    breach.
    """
    return prove(prepare(handler, scratch_size, rodata, policy, context, observer), policy)


def prove(exploration: Exploration, policy: Policy) -> VerifiedHandler:
    """Explore all paths, and report what holds on them. Raises Rejected with the first breach."""
    shape, machine = exploration.shape, exploration.machine
    try:
        with without_collector():
            exploration.run()
        stack_bytes = _stack_bytes(exploration, policy)
    except Fault as fault:
        raise Rejected(_diagnostic(fault, shape, machine.state.slot)) from None
    finally:
        exploration.settle()
    accesses = (machine.scratch_read, machine.scratch_written)
    read, written = touched(shape, machine.words, accesses, exploration.operands)
    return VerifiedHandler(
        handler=shape.handler,
        insns={slot: shape.insns[slot] for slot in sorted(exploration.visited)},
        accesses=machine.accesses,
        worst_case=exploration.worst_case,
        stack_bytes=stack_bytes,
        handler_class=HandlerClass.MUTATING if written else HandlerClass.PURE,
        may_decline=Verdict.DECLINE in exploration.verdicts,
        may_handle=Verdict.HANDLED in exploration.verdicts,
        scratch_read=read,
        scratch_written=written,
        effects=frozenset(machine.effects),
        helpers=frozenset(exploration.helpers),
    )


@contextmanager
def without_collector() -> Iterator[None]:
    """An exploration keeps nearly all that it makes until its end: looking for garbage doubles its time.

    The collector is the process's: one verification at a time does without it, and others that run meanwhile
    do not prolong that. A service that verifies all the time collects between any two of them.
    """
    if not _COLLECTOR.acquire(blocking=False):
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        _COLLECTOR.release()


def _stack_bytes(exploration: Exploration, policy: Policy) -> int:
    """Bytes of the deepest chain of frames; a fault if they are too many."""
    frames = {
        entry: (depth + _FRAME_STEP - 1) // _FRAME_STEP * _FRAME_STEP
        for entry, depth in exploration.machine.depth.items()
    }
    deepest = 0
    for chain, slot in exploration.chains.items():
        total = sum(frames.get(entry, 0) for entry in chain)
        if total > policy.stack_bytes:
            names = " + ".join(
                f"{frames.get(entry, 0)} (`{exploration.shape.functions[entry]}`)" for entry in chain
            )
            raise Fault(
                errors.STACK,
                f"the frames of this chain of calls take {total} bytes of {policy.stack_bytes}",
                slot=slot,
                notes=(f"the frames are {names}",),
            )
        deepest = max(deepest, total)
    return deepest


def _diagnostic(fault: Fault, shape: Shape, slot: int) -> Diagnostic:
    slot = slot if fault.slot is None else fault.slot
    return Diagnostic(
        fault.code,
        fault.message,
        shape.span(slot),
        label=fault.label,
        labels=tuple(Label(shape.span(where), text) for where, text in fault.labels),
        notes=fault.notes,
        help=fault.help,
        data={"section": shape.handler.section, "slot": slot},
    )
