"""The userspace side of a device: what answers an access that no program answered.

A device folder holds `NAME.dev` (the fast path) and `model.py` with a class `Model` (this protocol). Both
work on the same shared area; the model can answer every access, whether programs run or not. What a model
learns and programs need must live in the area, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Host(Protocol):
    """What the machine offers a model. Names are those of the device's ports."""

    @property
    def rtc_base(self) -> int:
        """Wall-clock time at VM clock 0, in seconds since 1970-01-01 UTC."""
        ...

    def now(self) -> int:
        """The VM clock, in ns. It stands still while a model answers one access."""
        ...

    def raise_line(self, line: str) -> None: ...
    def lower_line(self, line: str) -> None: ...

    def arm(self, timer: str, deadline: int) -> None:
        """Let `timer` expire at `deadline` (ns of the VM clock); replaces an earlier deadline."""
        ...

    def cancel(self, timer: str) -> None: ...


class Model(Protocol):
    """The full model of a device in userspace.

    `scratch` is the shared area as a ctypes structure, its fields those of the program's `state`.
    """

    def __init__(self, scratch: Any, host: Host) -> None: ...

    def reset(self) -> None:
        """Power-on: put the area into its reset state. Called once, before the first access."""
        ...

    def read(self, bank: str, offset: int, size: int) -> int:
        """Answer a read of `size` bytes at `offset` of a bank."""
        ...

    def write(self, bank: str, offset: int, size: int, value: int) -> None: ...

    def timer(self, name: str, deadline: int) -> None:
        """A timer has expired that no program answered. `Host.now()` is its deadline or later."""
        ...

    def line(self, name: str, level: int) -> None:
        """An input line has changed to `level` and no program answered."""
        ...

    def signal(self, name: str) -> None:
        """A program signalled userspace; several signals may have become one."""
        ...


class HypercallModel(Model, Protocol):
    """A model that also answers the hypercalls that its programs decline, or have no handler for."""

    def call(self, number: int, arguments: Sequence[int]) -> int:
        """Answer a hypercall of six arguments; `number` counts from the device's first."""
        ...


def named_port(name: str, numbers: Mapping[str, int], what: str) -> int:
    """The number of a port that a model names; LookupError, which the model's line is blamed for."""
    if name not in numbers:
        known = ", ".join(f"`{each}`" for each in numbers) or "none"
        raise LookupError(f"{what} `{name}`; there are: {known}")
    return numbers[name]
