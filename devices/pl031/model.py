"""The PrimeCell real-time clock in userspace: answers every access.

All that lasts is in the shared area (`state` of pl031.dev), and the counter is computed: the VM clock in
whole seconds plus `offset`. Register names are those of Arm DDI 0224, chapter 3.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from devbc.hypervisor.model import Host

SECOND: Final = 1_000_000_000  # ns
U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1
#: RTCPeriphID0 to 3 and RTCPCellID0 to 3: part 0x031 of designer 0x41 (Arm), revision 1; a PrimeCell.
IDENTIFICATION: Final = (0x31, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


class Register(IntEnum):
    """Offsets in the bank."""

    DR = 0x000
    MR = 0x004
    LR = 0x008
    CR = 0x00C
    IMSC = 0x010
    RIS = 0x014
    MIS = 0x018
    ICR = 0x01C
    ID = 0xFE0


class Model:
    """`devbc.hypervisor.model.Model` for a PL031."""

    def __init__(self, scratch: Any, host: Host) -> None:
        self.scratch = scratch
        self.host = host

    def reset(self) -> None:
        """Power-on: the counter has the host's time, and nothing is waited for."""
        s = self.scratch
        s.offset = self.host.rtc_base & U32
        s.mr = s.lr = s.imsc = s.ris = 0
        self.host.cancel("alarm")
        self.host.lower_line("irq")

    def read(self, bank: str, offset: int, size: int) -> int:
        """Registers are read whole; what else there may be reads as 0."""
        if size != 4 or offset & 3:
            return 0
        s = self.scratch
        match offset:
            case Register.DR:
                return self._count()
            case Register.MR:
                return int(s.mr)
            case Register.LR:
                return int(s.lr)
            case Register.CR:
                return 1
            case Register.IMSC:
                return int(s.imsc)
            case Register.RIS:
                return int(s.ris)
            case Register.MIS:
                return int(s.ris & s.imsc)
            case _ if offset >= Register.ID:
                return IDENTIFICATION[(offset - Register.ID) // 4]
            case _:  # ICR is written only
                return 0

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        if size != 4:
            return
        s = self.scratch
        match offset:
            case Register.MR:
                s.mr = value
                self._expect_match()
            case Register.LR:
                s.lr = value
                s.offset = value - self._seconds() & U32
                self._expect_match()
            case Register.IMSC:
                s.imsc = value & 1
                self._update()
            case Register.ICR:
                s.ris &= ~value
                self._update()
            case _:  # the others are read only, and CR is set
                pass

    def timer(self, name: str, deadline: int) -> None:
        """`alarm`: the counter has reached RTCMR."""
        self._match()

    def line(self, name: str, level: int) -> None:
        """The device has no input lines."""

    def signal(self, name: str) -> None:
        """The program sends none."""

    def _seconds(self) -> int:
        return self.host.now() // SECOND

    def _count(self) -> int:
        return int(self.scratch.offset + self._seconds()) & U32

    def _expect_match(self) -> None:
        """The match comes at the moment the counter shows it; of a time that is past, in 2**32 s."""
        left = self.scratch.mr - self._count() & U32
        if left:
            self.host.arm("alarm", (self._seconds() + left) * SECOND & U64)
        else:
            self.host.cancel("alarm")
            self._match()

    def _match(self) -> None:
        self.scratch.ris = 1
        self._update()

    def _update(self) -> None:
        if self.scratch.ris & self.scratch.imsc:
            self.host.raise_line("irq")
        else:
            self.host.lower_line("irq")
