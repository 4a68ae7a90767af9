"""What the attaching side lets a program have: caps and capabilities, as one value.

The verifier refuses a program that needs more, and names the item. The defaults are the machine's own caps
(`devbc.limits`) and every capability there is; a policy may only lower them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from devbc import limits
from devbc.abi import EXIT_FIELDS, Access, Helper

#: The exit's fields that ask the machine to do something: what a program may write, but for the answer.
EFFECTS: Final = frozenset(
    field.name
    for field in EXIT_FIELDS.values()
    if field.access is Access.READ_WRITE and field.name != "value"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Caps (at most) and capabilities (only these).

    `slots`: of one handler's code. `instructions`: of its longest run. `steps`: work of the verifier for a
    program before it gives up, in instructions explored. `stack_bytes`: all frames together. `lines`,
    `signals`, `timers`: ports of the device; the bits of an effect mask beyond them must be 0.
    """

    slots: int = limits.HANDLER_SLOTS
    instructions: int = limits.RUN_INSTRUCTIONS
    steps: int = limits.VERIFIER_STEPS
    stack_bytes: int = limits.STACK_BYTES
    call_depth: int = limits.CALL_DEPTH
    scratch_bytes: int = limits.SCRATCH_BYTES
    rodata_bytes: int = limits.RODATA_BYTES
    lines: int = limits.LINES
    signals: int = limits.SIGNALS
    timers: int = limits.TIMERS
    helpers: frozenset[Helper] = frozenset(Helper)
    effects: frozenset[str] = EFFECTS

    def __post_init__(self) -> None:
        for field in fields(self):
            value, most = getattr(self, field.name), field.default
            exceeds = not 0 <= value <= most if isinstance(most, int) else not value <= most
            if exceeds:
                raise ValueError(f"a policy may lower `{field.name}` from {most}, not set it to {value}")

    def mask(self, effect: str) -> int | None:
        """The bits that may be set in an effect field; None for fields that are not masks."""
        match effect:
            case "raise" | "lower":
                return (1 << self.lines) - 1
            case "signal":
                return (1 << self.signals) - 1
            case "arm" | "cancel":
                return (1 << self.timers) - 1
        return None


DEFAULT: Final = Policy()
