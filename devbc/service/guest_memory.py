"""A vCPU's guest: a ring of accesses in memory that the client writes and the vCPU reads, and their answers.

One memfd, its parts at page boundaries: the ring's ends (`layouts.FEED`), accesses (`layouts.ACCESS`),
outcomes (u8), answers (u64), ticks (u32), and where they were asked for turns (u64) and hypercall arguments
(6 u64). A recording is a ring that is written once, as long as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from mmap import PAGESIZE
from typing import Final

from devbc.hypervisor.layouts import ACCESS
from devbc.hypervisor.run import ARGUMENTS

#: Bytes of an element of each part that every ring has, after the ring's ends.
_PARTS: Final = {"accesses": ACCESS.size, "outcomes": 1, "answers": 8, "ticks": 4}
_TURN: Final = 8
_ARGUMENTS: Final = 8 * ARGUMENTS


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """Where each part of a ring of `capacity` accesses, a power of two, lies: byte offsets, 0 for none."""

    capacity: int
    turns: bool
    arguments: bool

    def offset(self, part: str) -> int:
        return self._offsets()[0].get(part, 0)

    @property
    def size(self) -> int:
        return self._offsets()[1]

    def _offsets(self) -> tuple[dict[str, int], int]:
        parts = dict(_PARTS)
        if self.turns:
            parts["turns"] = _TURN
        if self.arguments:
            parts["arguments"] = _ARGUMENTS
        offsets, end = {}, PAGESIZE
        for part, size in parts.items():
            offsets[part] = end
            end += -(-size * self.capacity // PAGESIZE) * PAGESIZE
        return offsets, end
