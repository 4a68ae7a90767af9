"""The goldfish real-time clock in userspace: answers every access.

All that lasts is in the shared area (`state` of goldfish_rtc.dev), and the time is computed: the VM clock
plus `time_offset`. Registers are those of Google's "Goldfish Virtual Hardware" and of Linux's driver.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from devbc.hypervisor.model import Host

SECOND: Final = 1_000_000_000  # ns
U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1


class Register(IntEnum):
    """Offsets in the bank."""

    TIME_LOW = 0x00
    TIME_HIGH = 0x04
    ALARM_LOW = 0x08
    ALARM_HIGH = 0x0C
    IRQ_ENABLED = 0x10
    CLEAR_ALARM = 0x14
    ALARM_STATUS = 0x18
    CLEAR_INTERRUPT = 0x1C


class Model:
    """`devbc.hypervisor.model.Model` for a goldfish RTC."""

    def __init__(self, scratch: Any, host: Host) -> None:
        self.scratch = scratch
        self.host = host

    def reset(self) -> None:
        """Power-on: the time is the host's, and no alarm is set."""
        s = self.scratch
        s.time_offset = self.host.rtc_base * SECOND & U64
        s.alarm = s.time_high = 0
        s.armed = s.irq_enabled = s.irq_pending = False
        self.host.cancel("alarm")
        self.host.lower_line("irq")

    def read(self, bank: str, offset: int, size: int) -> int:
        """Registers are read whole; what else there may be reads as 0."""
        if size != 4:
            return 0
        s = self.scratch
        match offset:
            case Register.TIME_LOW:
                time = self._time()
                s.time_high = time >> 32
                return time & U32
            case Register.TIME_HIGH:
                return int(s.time_high)
            case Register.ALARM_LOW:
                return int(s.alarm) & U32
            case Register.ALARM_HIGH:
                return int(s.alarm) >> 32
            case Register.IRQ_ENABLED:
                return int(s.irq_enabled)
            case Register.ALARM_STATUS:
                return int(s.armed)
            case _:  # CLEAR_ALARM and CLEAR_INTERRUPT are written only
                return 0

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        if size != 4:
            return
        s = self.scratch
        match offset:
            case Register.TIME_LOW:
                self._set_time(self._time() & ~U32 | value)
            case Register.TIME_HIGH:
                self._set_time(self._time() & U32 | value << 32)
            case Register.ALARM_LOW:
                s.alarm = s.alarm & ~U32 | value
                self._start()
            case Register.ALARM_HIGH:
                s.alarm = s.alarm & U32 | value << 32
            case Register.IRQ_ENABLED:
                s.irq_enabled = bool(value & 1)
                self._update()
            case Register.CLEAR_ALARM:
                s.armed = False
                self.host.cancel("alarm")
            case Register.CLEAR_INTERRUPT:
                s.irq_pending = False
                self._update()
            case _:  # ALARM_STATUS is read only
                pass

    def timer(self, name: str, deadline: int) -> None:
        """`alarm` is due."""
        self._expire()

    def line(self, name: str, level: int) -> None:
        """The device has no input lines."""

    def signal(self, name: str) -> None:
        """The program sends none."""

    def _time(self) -> int:
        """ns since 1970, modulo 2**64."""
        return int(self.host.now() + self.scratch.time_offset) & U64

    def _set_time(self, time: int) -> None:
        self.scratch.time_offset = time - self.host.now() & U64

    def _start(self) -> None:
        """Arm the alarm. What is past is due at once; what no 64-bit clock reaches never is."""
        s = self.scratch
        left = s.alarm - self._time()
        if left <= 0:
            self.host.cancel("alarm")
            self._expire()
        else:
            s.armed = True
            self.host.arm("alarm", min(self.host.now() + left, U64))

    def _expire(self) -> None:
        self.scratch.armed = False
        self.scratch.irq_pending = True
        self._update()

    def _update(self) -> None:
        s = self.scratch
        if s.irq_pending and s.irq_enabled:
            self.host.raise_line("irq")
        else:
            self.host.lower_line("irq")
