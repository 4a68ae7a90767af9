"""The ACPI power management timer in userspace: a 24-bit counter at 3.579545 MHz (ACPI 4.8.3.3).

The whole device is a function of the clock: the shared area stays empty, and a write changes nothing. Not
here: the TMR_STS bit that the counter's top bit sets, which belongs to the PM1 event registers.
"""

from __future__ import annotations

from typing import Any, Final

from devbc.hypervisor.model import Host

HZ: Final = 3_579_545
NS_PER_SECOND: Final = 1_000_000_000
COUNTER_MASK: Final = 0xFF_FFFF


class Model:
    """The full device; the protocol is `devbc.hypervisor.model.Model`."""

    def __init__(self, scratch: Any, host: Host) -> None:
        self.host = host

    def reset(self) -> None:
        """Nothing: the counter runs from the VM clock's 0 and cannot be stopped."""

    def read(self, bank: str, offset: int, size: int) -> int:
        """TMR_VAL; a part of the register is the bytes that were asked for, a part beyond it is 0."""
        value = self.host.now() * HZ // NS_PER_SECOND & COUNTER_MASK
        return value >> 8 * offset & (1 << 8 * size) - 1

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        """TMR_VAL is read-only."""

    def timer(self, name: str, deadline: int) -> None:
        raise ValueError(f"the PM timer has no timer `{name}`")

    def line(self, name: str, level: int) -> None:
        raise ValueError(f"the PM timer has no input `{name}`")

    def signal(self, name: str) -> None:
        raise ValueError(f"the PM timer has no signal `{name}`")
