"""The MC146818 real-time clock in userspace: answers every access, keeps the calendar and its alarm.

The shared area (`state` of mc146818.dev) holds the 128 registers and when the timers are due. The running
calendar is not counted anywhere: it is the VM clock plus `time_offset`, and the calendar registers are
brought up to date when somebody looks. A program that looks only notes when (`refreshed`); the model writes
the registers then, before it does anything else, so that both sides agree on what they hold.

Register and bit names are those of the MC146818A datasheet. Where the recorded emulator differs from it, the
recording is followed; README.md lists the places.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum, IntFlag
from typing import Any, Final

from devbc.hypervisor.model import Host

SECOND: Final = 1_000_000_000  # ns
DAY: Final = 86_400  # s
U64: Final = (1 << 64) - 1
#: A timer that is not armed.
NEVER: Final = U64
#: The time base, in Hz, that periodic interrupts are divided from.
TIME_BASE: Final = 32_768
#: UIP is set this long before an update: 8 periods of the time base (the datasheet's t_BUC is 244 us).
UIP_HOLD: Final = 8 * SECOND // TIME_BASE
#: From the release of the divider chain to the first update (datasheet, divider control).
FIRST_UPDATE: Final = SECOND // 2
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Register(IntEnum):
    SECONDS = 0x00
    SECONDS_ALARM = 0x01
    MINUTES = 0x02
    MINUTES_ALARM = 0x03
    HOURS = 0x04
    HOURS_ALARM = 0x05
    DAY_OF_WEEK = 0x06
    DATE = 0x07
    MONTH = 0x08
    YEAR = 0x09
    A = 0x0A
    B = 0x0B
    C = 0x0C
    D = 0x0D
    CENTURY = 0x32
    #: Where an IBM PS/2 has the century; the same register as CENTURY.
    CENTURY_PS2 = 0x37


CALENDAR: Final = frozenset(
    {
        Register.SECONDS,
        Register.MINUTES,
        Register.HOURS,
        Register.DAY_OF_WEEK,
        Register.DATE,
        Register.MONTH,
        Register.YEAR,
        Register.CENTURY,
    }
)
ALARM: Final = frozenset({Register.SECONDS_ALARM, Register.MINUTES_ALARM, Register.HOURS_ALARM})


class A(IntFlag):
    RATE = 0x0F
    DIVIDER = 0x70
    #: Both bits set: the divider chain is held in reset.
    DIVIDER_RESET = 0x60
    UIP = 0x80


#: The largest DIVIDER that selects a time base; the clock stands still with any other.
DIVIDER_RUNS: Final = 0x20


class B(IntFlag):
    HOURS_24 = 0x02
    BINARY = 0x04
    UPDATE_ENDED = 0x10
    ALARM = 0x20
    PERIODIC = 0x40
    SET = 0x80


class C(IntFlag):
    UPDATE_ENDED = 0x10
    ALARM = 0x20
    PERIODIC = 0x40
    SOURCES = 0x70
    IRQ = 0x80


#: D: the RAM and the time are valid.
VALID: Final = 0x80
PM: Final = 0x80
#: Both bits set in an alarm register: any value matches.
ANY: Final = 0xC0


def pc_cmos(*, ram: int = 128 << 20, cpus: int = 1) -> dict[int, int]:
    """What a PC's firmware leaves in the RAM for the next boot, as the recorded machine sets it.

    `ram` is the guest's memory in bytes. Addresses and units are those of the AT's CMOS map, and from 0x34
    on of what PC firmware for virtual machines reads: memory above 16 MiB and above 4 GiB in units of
    64 KiB, the number of processors, the boot order. No floppy, no disk with a geometry.
    """
    extended = min(max(ram - (1 << 20), 0) >> 10, 0xFFFF)
    below_4g = min(ram, 0xE000_0000)
    above_16m = min(max(below_4g - (16 << 20), 0) >> 16, 0xFFFF)
    above_4g = (ram - below_4g) >> 16
    return {
        0x14: 0x06,  # equipment: a coprocessor, a PS/2 mouse
        0x15: 640 & 0xFF,
        0x16: 640 >> 8,
        0x17: extended & 0xFF,
        0x18: extended >> 8,
        0x30: extended & 0xFF,
        0x31: extended >> 8,
        0x34: above_16m & 0xFF,
        0x35: above_16m >> 8,
        0x38: 0x30,  # third boot device: CD; floppy signatures are checked
        0x3D: 0x12,  # first boot device: disk; second: floppy
        0x5B: above_4g & 0xFF,
        0x5C: above_4g >> 8 & 0xFF,
        0x5D: above_4g >> 16 & 0xFF,
        0x5F: cpus - 1,
    }


class Model:
    """`devbc.hypervisor.model.Model` for an MC146818 with a PC's 128 registers.

    `cmos` is what the RAM holds at power-on, by address; what it does not name is 0.
    """

    def __init__(self, scratch: Any, host: Host, *, cmos: Mapping[int, int] | None = None) -> None:
        self.scratch = scratch
        self.host = host
        self.cmos = pc_cmos() if cmos is None else cmos

    def reset(self) -> None:
        """Power-on with a good battery: the time is the host's, the divider runs from 32 KiHz."""
        s = self.scratch
        for address in range(len(s.cmos)):
            s.cmos[address] = self.cmos.get(address, 0)
        s.cmos[Register.A] = 0x26
        s.cmos[Register.B] = B.HOURS_24
        s.cmos[Register.C] = 0
        s.cmos[Register.D] = VALID
        s.index = 0
        s.time_offset = self.host.rtc_base * SECOND & U64
        s.phase = 0
        s.refreshed = 0
        s.periodic_at = NEVER
        self.host.cancel("periodic")
        self.host.lower_line("irq")
        self._schedule_update()

    # The machine's side.

    def read(self, bank: str, offset: int, size: int) -> int:
        """Accesses wider than a register act on each port in turn, lowest first."""
        self._catch_up()
        value = 0
        for index in range(size):
            byte = self._read_data() if (offset + index) & 1 else 0xFF
            value |= byte << 8 * index
        return value

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        self._catch_up()
        for index in range(size):
            byte = value >> 8 * index & 0xFF
            if (offset + index) & 1:
                self._write_data(byte)
            else:
                self.scratch.index = byte & 0x7F

    def timer(self, name: str, deadline: int) -> None:
        self._catch_up()
        if name == "periodic":
            self._periodic_interrupt()
        else:
            self._update_cycle()

    def line(self, name: str, level: int) -> None:
        """The device has no input lines."""

    def signal(self, name: str) -> None:
        """The program sends none."""

    # Registers.

    def _read_data(self) -> int:
        s = self.scratch
        if s.index == Register.CENTURY_PS2:
            s.index = Register.CENTURY
        register = int(s.index) & 0x7F
        if register in CALENDAR:
            if self._running():
                self._show(self._now())
        elif register == Register.A:
            return int(s.cmos[Register.A]) | (A.UIP if self._update_in_progress() else 0)
        elif register == Register.C:
            flags = int(s.cmos[Register.C])
            s.cmos[Register.C] = 0
            self.host.lower_line("irq")
            if flags & (C.UPDATE_ENDED | C.ALARM):
                self._schedule_update()
            return flags
        return int(s.cmos[register])

    def _write_data(self, value: int) -> None:
        s = self.scratch
        if s.index == Register.CENTURY_PS2:
            s.index = Register.CENTURY
        register = int(s.index) & 0x7F
        match register:
            case Register.A:
                self._write_a(value)
            case Register.B:
                self._write_b(value)
            case Register.C | Register.D:
                pass  # read-only
            case _:
                s.cmos[register] = value
                if register in CALENDAR and self._running():
                    self._set_clock()
                    self._schedule_update()
                elif register in ALARM:
                    self._schedule_update()

    def _write_a(self, value: int) -> None:
        s = self.scratch
        before = int(s.cmos[Register.A])
        ticks_before = self._period_ticks()
        held_before = before & A.DIVIDER_RESET == A.DIVIDER_RESET
        uip = before & int(A.UIP)
        if value & A.DIVIDER_RESET == A.DIVIDER_RESET:
            if self._running():
                self._show(self._now())
            uip = 0
        elif held_before and value & A.DIVIDER <= DIVIDER_RUNS:
            if not s.cmos[Register.B] & B.SET:
                s.phase = FIRST_UPDATE
                self._set_clock()
            uip = 0
        s.cmos[Register.A] = value & ~A.UIP | uip
        if (before ^ value) & A.RATE:
            self._schedule_periodic(self.host.now(), ticks_before)
        self._schedule_update()

    def _write_b(self, value: int) -> None:
        s = self.scratch
        before = int(s.cmos[Register.B])
        ticks_before = self._period_ticks()
        if value & B.SET:
            if self._running():
                self._show(self._now())
            s.cmos[Register.A] &= ~A.UIP
            value &= ~B.UPDATE_ENDED
        elif before & B.SET and s.cmos[Register.A] & A.DIVIDER <= DIVIDER_RUNS:
            # Keep the place within the second that the clock would have had.
            s.phase = self._now() % SECOND
            self._set_clock()
        # The line is asserted while any flag and its enable are both set (datasheet, register C).
        if value & s.cmos[Register.C] & C.SOURCES:
            s.cmos[Register.C] |= C.IRQ
            self.host.raise_line("irq")
        else:
            s.cmos[Register.C] &= ~C.IRQ
            self.host.lower_line("irq")
        s.cmos[Register.B] = value
        if (before ^ value) & B.PERIODIC:
            self._schedule_periodic(self.host.now(), ticks_before)
        self._schedule_update()

    # The calendar.

    def _running(self) -> bool:
        cmos = self.scratch.cmos
        return not cmos[Register.B] & B.SET and cmos[Register.A] & A.DIVIDER <= DIVIDER_RUNS

    def _now(self) -> int:
        """The calendar's time, in ns since 1970, modulo 2**64."""
        return int(self.host.now() + self.scratch.time_offset) & U64

    def _catch_up(self) -> None:
        """Write the calendar registers that a program has shown to the guest without writing them."""
        s = self.scratch
        if s.refreshed:
            self._show(s.refreshed - 1 + s.time_offset & U64)
            s.refreshed = 0

    def _show(self, time: int) -> None:
        """Bring the calendar registers to `time`, ns since 1970 modulo 2**64."""
        cmos = self.scratch.cmos
        # A time beyond 2**63 ns is one before 1970; the recorded emulator rounds it towards 1970.
        seconds = time // SECOND if time < 1 << 63 else -((U64 + 1 - time) // SECOND)
        moment = EPOCH + timedelta(seconds=seconds)
        if cmos[Register.B] & B.HOURS_24:
            hours = self._encode(moment.hour)
        else:
            hours = self._encode(moment.hour % 12 or 12) | (PM if moment.hour >= 12 else 0)
        cmos[Register.SECONDS] = self._encode(moment.second)
        cmos[Register.MINUTES] = self._encode(moment.minute)
        cmos[Register.HOURS] = hours
        cmos[Register.DAY_OF_WEEK] = self._encode(moment.isoweekday() % 7 + 1)
        cmos[Register.DATE] = self._encode(moment.day)
        cmos[Register.MONTH] = self._encode(moment.month)
        cmos[Register.YEAR] = self._encode(moment.year % 100)
        cmos[Register.CENTURY] = self._encode(moment.year // 100)

    def _set_clock(self) -> None:
        """Let the clock run on from what the calendar registers say, `phase` ns into that second."""
        s = self.scratch
        s.time_offset = self._calendar_seconds() * SECOND - self.host.now() + s.phase & U64

    def _calendar_seconds(self) -> int:
        """Seconds since 1970 of the calendar registers, whatever a guest has written into them."""
        cmos = self.scratch.cmos
        hours = self._decode(cmos[Register.HOURS] & ~PM)
        if not cmos[Register.B] & B.HOURS_24:
            hours = hours % 12 + (12 if cmos[Register.HOURS] & PM else 0)
        year = self._decode(cmos[Register.YEAR]) + 100 * self._decode(cmos[Register.CENTURY])
        days = days_since_1970(year, self._decode(cmos[Register.MONTH]), self._decode(cmos[Register.DATE]))
        minutes = self._decode(cmos[Register.MINUTES])
        return days * DAY + hours * 3600 + minutes * 60 + self._decode(cmos[Register.SECONDS])

    def _encode(self, value: int) -> int:
        return value if self.scratch.cmos[Register.B] & B.BINARY else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        """A register's number; -1 if it is an alarm's "any" (the recorded emulator asks that of all)."""
        if value & ANY == ANY:
            return -1
        return value if self.scratch.cmos[Register.B] & B.BINARY else (value >> 4) * 10 + (value & 0xF)

    # Update cycle and alarm.

    def _update_in_progress(self) -> bool:
        s = self.scratch
        if not self._running():
            return False
        if self.host.now() + UIP_HOLD >= s.update_at:
            # Seen once, it stays until the update has happened.
            s.cmos[Register.A] |= A.UIP
            return True
        now = self._now()
        return now < 1 << 63 and now % SECOND >= SECOND - UIP_HOLD

    def _schedule_update(self) -> None:
        """Arm the update timer for the next update whose end anyone could notice."""
        s = self.scratch
        if s.cmos[Register.A] & A.DIVIDER_RESET == A.DIVIDER_RESET:
            self._arm_update(NEVER)
            return
        next_second = self.host.now() + SECOND - self._now() % SECOND
        s.alarm_at = next_second + (self._seconds_to_alarm() - 1) * SECOND & U64
        if s.cmos[Register.A] & A.UIP or not s.cmos[Register.C] & C.UPDATE_ENDED:
            self._arm_update(next_second)
        elif s.cmos[Register.B] & B.SET or s.cmos[Register.C] & C.ALARM:
            self._arm_update(NEVER)
        else:
            self._arm_update(s.alarm_at)

    def _arm_update(self, deadline: int) -> None:
        self.scratch.update_at = deadline
        if deadline == NEVER:
            self.host.cancel("update")
        else:
            self.host.arm("update", deadline)

    def _update_cycle(self) -> None:
        """A second has ended: set UF, and AF if the alarm has been reached."""
        s = self.scratch
        if not s.cmos[Register.B] & B.SET:
            self._show(self._now())
        s.cmos[Register.A] &= ~A.UIP
        flags = C.UPDATE_ENDED | (C.ALARM if self.host.now() >= s.alarm_at else 0)
        raised = flags & ~s.cmos[Register.C]
        s.cmos[Register.C] |= flags
        if raised & s.cmos[Register.B]:
            s.cmos[Register.C] |= C.IRQ
            self.host.raise_line("irq")
        self._schedule_update()

    def _seconds_to_alarm(self) -> int:
        """Seconds from the calendar's second to the next that matches the alarm registers, at least 1."""
        s = self.scratch
        if not s.cmos[Register.B] & B.SET:
            self._show(self._now())
        cmos = s.cmos
        hour, minute, second = (
            self._hour(self._decode(cmos[Register.HOURS])),
            self._decode(cmos[Register.MINUTES]),
            self._decode(cmos[Register.SECONDS]),
        )
        alarm_hour = self._decode(cmos[Register.HOURS_ALARM])
        alarm = (
            alarm_hour if alarm_hour < 0 else self._hour(alarm_hour),
            self._decode(cmos[Register.MINUTES_ALARM]),
            self._decode(cmos[Register.SECONDS_ALARM]),
        )
        return seconds_to_alarm((hour, minute, second), alarm)

    def _hour(self, hour: int) -> int:
        """An hour on the 24-hour dial; the recorded emulator takes AM or PM from HOURS, even for an alarm."""
        cmos = self.scratch.cmos
        if cmos[Register.B] & B.HOURS_24:
            return hour
        half = 12 if cmos[Register.HOURS] & PM else 0
        return c_remainder(hour, 12) + half

    # Periodic interrupt.

    def _period_ticks(self) -> int:
        """The periodic interrupt's period in ticks of the time base, or 0 if it is off."""
        cmos = self.scratch.cmos
        rate = int(cmos[Register.A]) & A.RATE
        if not cmos[Register.B] & B.PERIODIC or not rate:
            return 0
        return 1 << (rate - 1 if rate > 2 else rate + 6)

    def _schedule_periodic(self, now: int, ticks_before: int = 0) -> None:
        """Arm the periodic timer from `now`; a change of rate counts the time since the last interrupt."""
        s = self.scratch
        ticks = self._period_ticks()
        if not ticks:
            s.periodic_at = NEVER
            self.host.cancel("periodic")
            return
        tick = now * TIME_BASE // SECOND
        elapsed = 0
        if ticks_before:
            last = s.periodic_at * TIME_BASE // SECOND - ticks_before
            elapsed = min(tick - last, ticks)
        s.periodic_at = (tick + ticks - elapsed) * SECOND // TIME_BASE + 1
        self.host.arm("periodic", s.periodic_at)

    def _periodic_interrupt(self) -> None:
        s = self.scratch
        self._schedule_periodic(s.periodic_at)
        s.cmos[Register.C] |= C.PERIODIC
        if s.cmos[Register.B] & B.PERIODIC:
            s.cmos[Register.C] |= C.IRQ
            self.host.raise_line("irq")


def c_quotient(a: int, b: int) -> int:
    """Division that rounds towards zero; `b` is positive."""
    return a // b if a >= 0 else -(-a // b)


def c_remainder(a: int, b: int) -> int:
    return a - c_quotient(a, b) * b


def days_since_1970(year: int, month: int, day: int) -> int:
    """The day number of a date in the Gregorian calendar.

    Months and days out of range, which a guest can write, count on linearly, and years before 0 round
    towards 0: where that lands matters to nobody, but the recorded emulator lands there.
    """
    if month < 3:  # the year begins in March: the leap day is its last
        year, month = year - 1, month + 12
    leap_days = c_quotient(year, 4) - c_quotient(year, 100) + c_quotient(year, 400)
    return 365 * year + leap_days + c_quotient(153 * month - 457, 5) + day - 719_469


Time = tuple[int, int, int]


def seconds_to_alarm(now: Time, alarm: Time) -> int:
    """Seconds until hour, minute and second next match `alarm`, where -1 matches any: from 1 to a day.

    What has passed already comes again with the next minute or hour that is "any", otherwise tomorrow.
    An alarm that matches now is due tomorrow, even if it matches sooner, and registers that hold no time of
    day are taken as numbers: both as the recorded emulator has it.
    """
    now_hour, now_minute, now_second = now
    hour, minute, second = alarm
    any_hour, any_minute = hour < 0, minute < 0
    if any_hour:
        hour = now_hour
    same_hour = hour == now_hour
    if any_minute:
        minute = now_minute if same_hour else 0
    same_minute = same_hour and minute == now_minute
    if second < 0:
        second = now_second + 1 if same_minute else 0

    later = int(same_hour and (minute, second) < (now_minute, now_second))
    if same_minute and second == 60 and (any_hour or any_minute):
        second = 0
        later += 1
    if any_minute:
        minute += later
        if not any_hour:
            minute = c_remainder(minute, 60)
    elif any_hour:
        hour += later
    elif same_minute:
        second = c_remainder(second, 60)

    minute = max(minute, 0)
    if second == 60:
        minute, second = minute + 1, 0
    if minute == 60:
        hour, minute = hour + 1, 0
    hour = c_remainder(hour, 24)
    seconds = (hour - now_hour) * 3600 + (minute - now_minute) * 60 + second - now_second
    return seconds if seconds > 0 else seconds + DAY
