"""`devbc.verify`: raw instructions against a described context, with the verdict as a value.

For programs that are no device handlers, such as other corpora of BPF. The memory, pointer and termination
rules are those of handlers. What the contract asks of handlers only is off: r0 may be any number, and scratch
may be written on every path.

Not here: objects (`devbc.program`), and handlers (`verify_program`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from devbc.abi import HypercallBinding
from devbc.diagnostics import Diagnostic, Rejected
from devbc.program.program import Function, Handler
from devbc.program.verified import VerifiedHandler
from devbc.verifier.context import bytes_context
from devbc.verifier.diagnosis import diagnosed
from devbc.verifier.policy import DEFAULT, Policy
from devbc.verifier.trail import Setting
from devbc.verifier.verify import oversized, verify_handler

#: Raw instructions are bound to nothing; the type asks for a binding, and nothing reads this one.
_UNBOUND: Final = HypercallBinding(0)


@dataclass(frozen=True, slots=True)
class Accepted:
    """`program` holds what was proven: instructions, accesses, the longest run, the stack.

    Its `may_decline` and `may_handle` are False: there is no verdict.
    """

    program: VerifiedHandler


@dataclass(frozen=True, slots=True)
class Refused:
    """Why not: at least one diagnostic. `devbc.diagnostics.render` makes text of each."""

    diagnostics: tuple[Diagnostic, ...]


def verify(
    code: bytes,
    *,
    ctx_size: int,
    scratch_size: int = 0,
    rodata: bytes = b"",
    policy: Policy = DEFAULT,
    name: str = "code",
) -> Accepted | Refused:
    """Verify instructions that are called with r1 = the address of `ctx_size` bytes and r2 = `ctx_size`.

    The bytes may be read and written; messages call them the exit. `lddw` of map value 0 gives the address
    of `scratch_size` bytes of shared memory, of map value 1 that of `rodata`. The program runs from its
    first instruction. `name` stands for the file in spans. No code makes this raise; ValueError is for a
    negative size.
    """
    if ctx_size < 0 or scratch_size < 0:
        raise ValueError("a size is not negative")
    if faults := oversized(scratch_size, len(rodata), policy):
        return Refused(faults)
    handler = Handler(name, _UNBOUND, code, (Function(name, 0),))
    context = bytes_context(ctx_size)
    try:
        return Accepted(
            verify_handler(handler, scratch_size=scratch_size, rodata=rodata, policy=policy, context=context)
        )
    except Rejected as rejected:
        setting = Setting(handler, scratch_size, rodata, policy, context)
        return Refused(diagnosed(rejected.diagnostics, setting))
