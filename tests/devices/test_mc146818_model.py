"""The MC146818 model against the library's calendar, a search through the day, and the datasheet."""

from __future__ import annotations

import calendar
import time
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devices.bench import Bench, model_module, new_area

SECOND = 1_000_000_000
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
SET, PIE, AIE, UIE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
UIP = 0x80
ANY = 0xC0
CALENDAR = (0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32)
#: Leap days, ends of centuries, the last second that 63 bits of ns can name.
EDGES = [
    0,
    951_782_399,
    951_782_400,
    1_709_164_799,
    1_709_251_199,
    4_107_542_399,
    4_107_542_400,
    9_223_372_035,
]


class Rtc(Bench):
    def __init__(self, moment: int = 0, *, registers: int = HOURS_24) -> None:
        self.rtc_base = moment
        super().__init__("mc146818", new_area("mc146818"))
        if registers != HOURS_24:
            self.put(B, registers)

    def get(self, register: int) -> int:
        self.write(0, register)
        return self.read(1)

    def put(self, register: int, value: int) -> None:
        self.write(0, register)
        self.write(1, value)

    def moment(self) -> int:
        """The calendar as seconds since 1970, read by somebody who knows the format from register B."""
        mode = self.get(B)
        second, minute, hour, weekday, day, month, year, century = map(self.get, CALENDAR)

        def number(value: int) -> int:
            if mode & BINARY:
                return value
            assert value & 0xF <= 9, "not a decimal digit"
            return (value >> 4) * 10 + (value & 0xF)

        if mode & HOURS_24:
            hours = number(hour)
        else:
            assert 1 <= number(hour & 0x7F) <= 12
            hours = number(hour & 0x7F) % 12 + (12 if hour & 0x80 else 0)
        result = calendar.timegm(
            (
                number(century) * 100 + number(year),
                number(month),
                number(day),
                hours,
                number(minute),
                number(second),
            )
        )
        assert (time.gmtime(result).tm_wday + 1) % 7 + 1 == number(weekday), "Sunday is 1"
        return result


@pytest.fixture
def rtc() -> Rtc:
    return Rtc(1_709_164_680)


@given(
    moment=st.sampled_from(EDGES) | st.integers(0, 9_223_372_035),
    mode=st.sampled_from([0, BINARY, HOURS_24, BINARY | HOURS_24]),
)
@settings(deadline=None)
def test_shows_the_time_in_each_format(moment: int, mode: int) -> None:
    rtc = Rtc(moment, registers=mode)
    assert rtc.moment() == moment


@given(st.integers(0, 400 * 86_400 * SECOND))
@settings(deadline=None)
def test_runs_with_the_vm_clock(ns: int) -> None:
    rtc = Rtc(951_782_399)
    rtc.time = ns  # timers aside, nothing counts the seconds
    assert rtc.moment() == 951_782_399 + ns // SECOND


@given(
    moment=st.sampled_from(EDGES) | st.integers(0, 4_000_000_000),
    mode=st.sampled_from([0, BINARY, HOURS_24, BINARY | HOURS_24]),
    wait=st.integers(0, 3 * SECOND),
)
@settings(deadline=None)
def test_setting_the_calendar(moment: int, mode: int, wait: int) -> None:
    """As software does it: SET, write the registers, release SET; the place within the second stays."""
    shown = Rtc(moment, registers=mode)
    registers = {register: shown.get(register) for register in CALENDAR}
    rtc = Rtc(0, registers=mode)
    rtc.advance(wait)
    rtc.put(B, mode | SET)
    for register, value in registers.items():
        rtc.put(register, value)
        assert rtc.get(register) == value
    rtc.put(B, mode)
    assert rtc.moment() == moment
    rtc.advance(SECOND - wait % SECOND - 1)
    assert rtc.moment() == moment
    rtc.advance(1)
    assert rtc.moment() == moment + 1


def test_set_holds_the_registers(rtc: Rtc) -> None:
    before = rtc.moment()
    rtc.put(B, HOURS_24 | SET)
    rtc.advance(10 * SECOND)
    assert rtc.moment() == before


def test_divider_reset_holds_the_clock_and_releases_it_half_a_second_early(rtc: Rtc) -> None:
    rtc.advance(SECOND // 3)
    before = rtc.moment()
    rtc.put(A, 0x66)
    rtc.advance(10 * SECOND)
    assert rtc.moment() == before
    rtc.put(A, 0x26)
    rtc.advance(SECOND // 2 - 1)
    assert rtc.moment() == before
    rtc.advance(1)
    assert rtc.moment() == before + 1


@pytest.mark.parametrize("looks", [False, True], ids=["first look", "latched"])
def test_uip_precedes_the_update_by_244_us(rtc: Rtc, looks: bool) -> None:
    rtc.advance(SECOND - 244_141)
    assert not rtc.get(A) & UIP
    rtc.advance(1)
    assert not looks or rtc.get(A) & UIP
    rtc.advance(244_139)
    assert rtc.get(A) & UIP
    before = rtc.moment()
    rtc.advance(1)
    assert not rtc.get(A) & UIP
    assert rtc.moment() == before + 1


@pytest.mark.parametrize("rate", range(16))
def test_periodic_interrupts_come_at_the_rate(rtc: Rtc, rate: int) -> None:
    """Register A's table: rates 3 to 15 halve from 8192 Hz; 1 and 2 are 256 and 128 Hz; 0 is none."""
    hertz = {0: 0, 1: 256, 2: 128}.get(rate, 65_536 >> rate)
    rtc.put(A, 0x20 | rate)
    rtc.put(B, HOURS_24 | PIE)
    half_a_period = SECOND // (2 * hertz) if hertz else SECOND
    seen = 0
    for _ in range(128):
        rtc.advance(half_a_period)
        flags = rtc.get(C)
        assert bool(flags & IRQF) == bool(flags & PF)
        seen += bool(flags & PF)
    assert len(rtc.rises("irq")) == seen
    assert seen in (range(63, 65) if hertz else (0,))


def test_periodic_interrupts_keep_the_time_base_when_the_rate_changes(rtc: Rtc) -> None:
    rtc.put(B, HOURS_24 | PIE)
    rtc.advance(SECOND // 1000)
    due = rtc.area.periodic_at
    rtc.put(A, 0x25)  # half the period, of which more than half is over
    assert rtc.area.periodic_at <= due
    assert rtc.area.periodic_at > rtc.now()


def test_update_ended_interrupts_come_each_second(rtc: Rtc) -> None:
    rtc.put(B, HOURS_24 | UIE)
    for second in range(1, 5):
        rtc.advance(SECOND)
        assert rtc.get(C) == IRQF | UF
        assert rtc.get(C) == 0
        assert rtc.rises("irq") == [each * SECOND for each in range(1, second + 1)]


def test_a_flag_waits_for_its_enable(rtc: Rtc) -> None:
    rtc.advance(SECOND)
    assert not rtc.levels.get("irq")
    rtc.put(B, HOURS_24 | UIE)
    assert rtc.levels["irq"]
    rtc.put(B, HOURS_24)
    assert not rtc.levels["irq"]
    assert rtc.get(C) == UF, "IRQF goes with the enable"


@given(
    start=st.integers(0, 86_399),
    hour=st.integers(0, 23) | st.just(-1),
    minute=st.integers(0, 59) | st.just(-1),
    second=st.integers(0, 59) | st.just(-1),
)
def test_alarm_is_found_by_searching_the_day(start: int, hour: int, minute: int, second: int) -> None:
    def at(moment: int) -> tuple[int, int, int]:
        return moment // 3600 % 24, moment // 60 % 60, moment % 60

    def matches(moment: int) -> bool:
        return all(want in (-1, have) for want, have in zip((hour, minute, second), at(moment), strict=True))

    found = model_module("mc146818").seconds_to_alarm(at(start), (hour, minute, second))
    if matches(start) and second != -1:
        assert found == 86_400, "an alarm that matches now is due tomorrow, as in the recorded emulator"
    else:
        assert found == next(each for each in range(1, 86_401) if matches(start + each))


def test_alarm_interrupt(rtc: Rtc) -> None:
    """23:58:00 now; an alarm at any hour's 59:30."""
    rtc.put(0x01, 0x30)
    rtc.put(0x03, 0x59)
    rtc.put(0x05, ANY)
    rtc.put(B, HOURS_24 | AIE)
    rtc.advance(90 * SECOND - 1)
    assert not rtc.rises("irq")
    rtc.advance(1)
    assert rtc.rises("irq") == [90 * SECOND]
    assert rtc.get(C) == IRQF | AF | UF


@given(st.dates())
def test_day_numbers(day: date) -> None:
    expected = day.toordinal() - date(1970, 1, 1).toordinal()
    assert model_module("mc146818").days_since_1970(day.year, day.month, day.day) == expected


def test_both_century_addresses_are_one_register(rtc: Rtc) -> None:
    rtc.put(B, HOURS_24 | SET)
    rtc.put(0x37, 0x19)
    assert rtc.get(0x32) == rtc.get(0x37) == 0x19


def test_plain_memory_and_read_only_registers(rtc: Rtc) -> None:
    memory = [each for each in range(0x0E, 0x80) if each not in (0x32, 0x37)]
    for register in memory:
        rtc.put(register, register ^ 0xFF)
    assert all(rtc.get(register) == register ^ 0xFF for register in memory)
    for register, value in ((C, 0), (D, 0x80)):
        rtc.put(register, 0x55)
        assert rtc.get(register) == value
    rtc.put(A, 0xA6)
    assert rtc.get(A) == 0x26, "UIP is read-only"


def test_index_port(rtc: Rtc) -> None:
    rtc.write(0, 0x8D)  # bit 7 is the NMI mask
    assert rtc.read(1) == 0x80
    assert rtc.read(0) == 0xFF
    rtc.write(0, 0x5A_0E, size=2)
    assert rtc.read(0, size=2) == 0x5A_FF


def test_what_the_machine_leaves_in_the_ram() -> None:
    cmos = model_module("mc146818").pc_cmos(ram=6 << 30, cpus=4)
    assert cmos[0x15] | cmos[0x16] << 8 == 640
    assert (cmos[0x34] | cmos[0x35] << 8) * 65_536 + (16 << 20) == 0xE000_0000
    assert (cmos[0x5B] | cmos[0x5C] << 8 | cmos[0x5D] << 16) * 65_536 == (6 << 30) - 0xE000_0000
    assert cmos[0x5F] == 3
