"""An exploration made ready: the handler's code has its shape, and who is live where is known.

Verifying begins here, and so does whatever looks at a handler again: diagnoses, explanations, traces.
"""

from __future__ import annotations

from devbc.program.program import Handler
from devbc.verifier.budget import Budget
from devbc.verifier.context import Context, exit_context
from devbc.verifier.explore import Exploration, Observer
from devbc.verifier.liveness import liveness
from devbc.verifier.machine import AbstractMachine
from devbc.verifier.policy import Policy
from devbc.verifier.shape import check_shape
from devbc.verifier.tables import Tables


def prepare(
    handler: Handler,
    scratch_size: int,
    rodata: bytes,
    policy: Policy,
    context: Context | None,
    observer: Observer | None,
    tables: Tables | None = None,
    budget: Budget | None = None,
) -> Exploration:
    """An exploration that has not begun. Raises Rejected if the code has no proper shape.

    `tables` and `budget` are those of the handler's program, if it belongs to one.
    """
    shape = check_shape(handler, policy)
    context = context or exit_context(handler.binding)
    tables = tables or Tables()
    machine = AbstractMachine(tables.values, context, scratch_size, rodata, policy)
    ops = tables.ops(shape.insns, shape.owner)
    live = liveness(shape, {slot: op.effect for slot, op in ops.items()})
    return Exploration(shape, ops, live, machine, tables, budget or Budget(policy.steps), policy, observer)
