"""What an exit costs, as published: named models for times that were not measured here.

A profile has two figures, of one source, on one machine: an exit that the kernel answers, and one that
userspace answers. Where the source gives cycles, time needs a clock rate that the source does not give: the
profile names the one it takes. Every time computed from a profile carries its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

#: The clock rate taken for figures in cycles, in Hz: of a server of those years. Ratios do not depend on it.
ASSUMED_HZ: Final = 2_500_000_000


@dataclass(frozen=True, slots=True)
class CostProfile:
    """`kernel` and `userspace`: one exit each, in `unit`. `hz`: cycles a second, 0 if the unit is ns."""

    name: str
    kernel: float
    userspace: float
    unit: str
    hz: int
    source: str

    @property
    def kernel_ns(self) -> float:
        return self._ns(self.kernel)

    @property
    def userspace_ns(self) -> float:
        return self._ns(self.userspace)

    @property
    def saved_ns(self) -> float:
        """What an exit gains that the kernel answers instead of userspace."""
        return self.userspace_ns - self.kernel_ns

    def _ns(self, figure: float) -> float:
        return figure * 1e9 / self.hz if self.hz else figure

    def __str__(self) -> str:
        """The profile in a sentence, as it stands beside every figure computed from it."""
        unit = self.unit
        text = (
            f"{self.name}: {self.kernel:,} {unit} in the kernel, {self.userspace:,} {unit} through userspace"
        )
        return f"{text}, at an assumed {self.hz / 1e9:g} GHz" if self.hz else text

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "kernel": self.kernel, "userspace": self.userspace, "unit": self.unit,
            "assumed_hz": self.hz or None, "kernel_ns": self.kernel_ns, "userspace_ns": self.userspace_ns,
            "source": self.source,
        }  # fmt: skip


_PROFILES = (
    CostProfile(
        "vmx-2012", 7_237, 20_574, "cycles", ASSUMED_HZ,
        "kvm-unit-tests, commit 00bfecaa: an exit on VMX, bare metal, handled in the kernel and by userspace",
    ),
    CostProfile(
        "nested-vmx", 13_518, 44_826, "cycles", ASSUMED_HZ,
        "the same under nested VMX, as this project was given them",
    ),
    CostProfile(
        "arm-vgic", 451, 1_683, "ns", 0,
        "a read of the vGIC and one of userspace's, as this project was given them",
    ),
)  # fmt: skip

PROFILES: Final = {profile.name: profile for profile in _PROFILES}
DEFAULT: Final = "vmx-2012"
