"""The goldfish RTC: the model against a clock that is kept as a moment, and programs against the model."""

from __future__ import annotations

import ctypes
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.devices.bench import Bench, new_area, program
from tests.devices.twins import Twins, access_handlers

DEVICE = "goldfish_rtc"
TIME_LOW, TIME_HIGH, ALARM_LOW, ALARM_HIGH = 0x00, 0x04, 0x08, 0x0C
IRQ_ENABLED, CLEAR_ALARM, ALARM_STATUS, CLEAR_INTERRUPT = 0x10, 0x14, 0x18, 0x1C
SECOND = 1_000_000_000
LOW = (1 << 32) - 1
WORDS = st.one_of(st.sampled_from([0, 1, 2, LOW >> 1, LOW]), st.integers(0, LOW))
#: Short enough for alarms to be met, and long enough for the lower half to wrap.
WAITS = st.one_of(st.integers(0, 1_000), st.integers(0, 20 * SECOND))


class Rtc(Bench):
    def __init__(self, moment: int = 0) -> None:
        self.rtc_base = moment
        super().__init__(DEVICE, new_area(DEVICE))

    def get(self, register: int) -> int:
        return self.read(register, 4, "mmio")

    def put(self, register: int, value: int) -> None:
        self.write(register, value, 4, "mmio")

    def moment(self) -> int:
        """As drivers read it: the lower half first."""
        low = self.get(TIME_LOW)
        return self.get(TIME_HIGH) << 32 | low

    def set_alarm(self, moment: int) -> None:
        """As drivers write it: the upper half first."""
        self.put(ALARM_HIGH, moment >> 32)
        self.put(ALARM_LOW, moment & LOW)

    @property
    def irq(self) -> bool:
        return bool(self.levels.get("irq"))


def test_the_time_is_the_hosts() -> None:
    leap_day = datetime(2024, 2, 28, 23, 58, tzinfo=UTC)
    rtc = Rtc(int(leap_day.timestamp()))
    rtc.advance(150 * SECOND)
    shown = datetime.fromtimestamp(rtc.moment() / SECOND, UTC)
    assert shown == datetime(2024, 2, 29, 0, 0, 30, tzinfo=UTC)


def test_both_halves_are_of_one_moment() -> None:
    """The guest is held up between the two reads, and the lower half wraps meanwhile."""
    rtc = Rtc(1_709_164_680)
    before = rtc.moment()
    rtc.advance(LOW - (before & LOW))
    low = rtc.get(TIME_LOW)
    assert low == LOW
    rtc.advance(1)
    assert rtc.get(TIME_HIGH) << 32 | low == before | LOW
    assert rtc.moment() == (before | LOW) + 1


@given(moment=st.integers(0, (1 << 64) - 1), uptime=st.integers(0, 1 << 50))
@settings(deadline=None)
def test_setting_the_time(moment: int, uptime: int) -> None:
    rtc = Rtc(1_709_164_680)
    rtc.advance(uptime)
    rtc.put(TIME_HIGH, moment >> 32)
    rtc.put(TIME_LOW, moment & LOW)
    assert rtc.moment() == moment
    rtc.advance(5)
    assert rtc.moment() == (moment + 5) % (1 << 64)


@given(ahead=st.integers(1, 100 * SECOND))
@settings(deadline=None)
def test_an_alarm_comes_at_its_moment(ahead: int) -> None:
    rtc = Rtc(1_709_164_680)
    rtc.put(IRQ_ENABLED, 1)
    rtc.set_alarm(rtc.moment() + ahead)
    rtc.advance(ahead - 1)
    assert rtc.get(ALARM_STATUS) == 1
    assert not rtc.irq
    rtc.advance(1)
    assert rtc.get(ALARM_STATUS) == 0
    assert rtc.irq
    rtc.put(CLEAR_INTERRUPT, 0)
    assert not rtc.irq


def test_an_alarm_in_the_past_is_due_at_once() -> None:
    rtc = Rtc(1_709_164_680)
    rtc.put(IRQ_ENABLED, 1)
    rtc.set_alarm(rtc.moment())
    assert rtc.irq
    assert rtc.get(ALARM_STATUS) == 0


@pytest.mark.parametrize("behind", [1, SECOND, 1 << 62])
def test_an_alarm_that_no_clock_reaches_is_never_due(behind: int) -> None:
    """The time was set back, so that the deadline lies beyond the 64 bits of the VM clock."""
    rtc = Rtc()
    rtc.advance(behind)
    rtc.put(TIME_HIGH, 0)
    rtc.put(TIME_LOW, 0)
    rtc.put(IRQ_ENABLED, 1)
    rtc.set_alarm((1 << 64) - 1)
    rtc.advance(1 << 62)
    assert not rtc.irq
    assert rtc.get(ALARM_STATUS) == 1


def test_an_interrupt_waits_to_be_enabled() -> None:
    rtc = Rtc()
    rtc.set_alarm(0)
    assert not rtc.irq
    rtc.put(IRQ_ENABLED, 1)
    assert rtc.irq
    rtc.put(IRQ_ENABLED, 0)
    assert not rtc.irq


def test_other_sizes_and_write_only_registers_read_as_0() -> None:
    rtc = Rtc(1_709_164_680)
    assert [rtc.read(TIME_LOW, size, "mmio") for size in (1, 2, 8)] == [0, 0, 0]
    assert rtc.get(CLEAR_ALARM) == rtc.get(CLEAR_INTERRUPT) == 0
    rtc.write(IRQ_ENABLED, 1, 1, "mmio")
    assert rtc.get(IRQ_ENABLED) == 0


class AgainstAMoment(RuleBasedStateMachine):
    """A clock that counts the ns one wait after the other, with its alarm as a moment of the VM clock."""

    def __init__(self) -> None:
        super().__init__()
        self.rtc = Rtc(1_709_164_680)
        self.moment = 1_709_164_680 * SECOND
        self.latch = 0
        self.alarm = 0
        self.left: int | None = None  # ns until the alarm, if one is set
        self.pending = self.enabled = False

    @rule(ns=WAITS)
    def wait(self, ns: int) -> None:
        self.rtc.advance(ns)
        self.moment += ns
        if self.left is not None:
            self.left -= ns
            if self.left <= 0:
                self.left, self.pending = None, True

    @rule()
    def read_low(self) -> None:
        assert self.rtc.get(TIME_LOW) == self.moment % (1 << 32)
        self.latch = self.moment >> 32

    @rule()
    def read_high(self) -> None:
        assert self.rtc.get(TIME_HIGH) == self.latch

    @rule(value=WORDS)
    def write_low(self, value: int) -> None:
        self.rtc.put(TIME_LOW, value)
        self.moment += value - self.moment % (1 << 32)

    @rule(value=st.integers(0, 1 << 30))
    def write_high(self, value: int) -> None:
        self.rtc.put(TIME_HIGH, value)
        self.moment = self.moment % (1 << 32) + (value << 32)

    @rule(value=WORDS)
    def write_alarm_high(self, value: int) -> None:
        self.rtc.put(ALARM_HIGH, value)
        self.alarm = self.alarm % (1 << 32) + (value << 32)

    @rule(value=WORDS)
    def write_alarm_low(self, value: int) -> None:
        self.rtc.put(ALARM_LOW, value)
        self._alarm_is(self.alarm - self.alarm % (1 << 32) + value)

    @rule(ahead=st.integers(0, 10 * SECOND))
    def set_alarm_soon(self, ahead: int) -> None:
        self.rtc.set_alarm(self.moment + ahead)
        self._alarm_is(self.moment + ahead)

    def _alarm_is(self, alarm: int) -> None:
        self.alarm, self.left = alarm, alarm - self.moment
        if self.left <= 0:
            self.left, self.pending = None, True

    @rule(value=WORDS)
    def write_irq_enabled(self, value: int) -> None:
        self.rtc.put(IRQ_ENABLED, value)
        self.enabled = value % 2 == 1

    @rule(value=WORDS)
    def clear_alarm(self, value: int) -> None:
        self.rtc.put(CLEAR_ALARM, value)
        self.left = None

    @rule(value=WORDS)
    def clear_interrupt(self, value: int) -> None:
        self.rtc.put(CLEAR_INTERRUPT, value)
        self.pending = False

    @rule(value=WORDS)
    def write_read_only(self, value: int) -> None:
        self.rtc.put(ALARM_STATUS, value)

    @invariant()
    def registers_say_so(self) -> None:
        assert self.rtc.get(ALARM_HIGH) << 32 | self.rtc.get(ALARM_LOW) == self.alarm
        assert self.rtc.get(ALARM_STATUS) == (self.left is not None)
        assert self.rtc.get(IRQ_ENABLED) == self.enabled
        assert self.rtc.irq == (self.pending and self.enabled)


TestAgainstAMoment = AgainstAMoment.TestCase
TestAgainstAMoment.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


STEPS = st.one_of(
    st.tuples(st.just("advance"), WAITS),
    st.tuples(st.just("read"), st.integers(0, 7).map(lambda word: 4 * word)),
    st.tuples(st.just("write"), st.integers(0, 7).map(lambda word: 4 * word), WORDS),
    st.tuples(st.just("alarm"), st.integers(-10, 10 * SECOND)),
    st.tuples(st.just("far")),
    st.tuples(st.just("odd"), st.sampled_from([(0, 1), (2, 2), (8, 8), (3, 1)])),
)


@given(st.lists(STEPS, min_size=10, max_size=40))
@settings(max_examples=60, deadline=None)
def test_programs_against_the_model(steps: list[tuple[Any, ...]]) -> None:
    rtc = Twins(DEVICE, start=1_000)
    for name, *operands in steps:
        match name, operands:
            case "advance", [ns]:
                rtc.advance(ns)
            case "read", [register]:
                rtc.read(register, 4, "mmio")
            case "write", [register, value]:
                rtc.write(register, value, 4, "mmio")
            case "alarm", [ahead]:
                low = rtc.read(TIME_LOW, 4, "mmio")
                alarm = max((rtc.read(TIME_HIGH, 4, "mmio") << 32 | low) + ahead, 0) % (1 << 64)
                rtc.write(ALARM_HIGH, alarm >> 32, 4, "mmio")
                rtc.write(ALARM_LOW, alarm & LOW, 4, "mmio")
            case "far", []:  # the clock set back, and an alarm beyond what the VM clock reaches
                for register, value in ((TIME_HIGH, 0), (TIME_LOW, 0), (ALARM_HIGH, LOW), (ALARM_LOW, LOW)):
                    rtc.write(register, value, 4, "mmio")
            case "odd", [(offset, size)]:
                rtc.read(offset, size, "mmio")
                rtc.write(offset, 1, size, "mmio")


def test_programs_decline_nothing() -> None:
    rtc = Twins(DEVICE)
    for bank, op, offset, size in access_handlers(DEVICE):
        if op == "read":
            rtc.read(offset, size, bank)
        else:
            rtc.write(offset, 0xFFFF_FFFF, size, bank)
    assert rtc.with_programs.declined == 0
    assert all(handler.worst_case <= 40 for handler in program(DEVICE).handlers)


@given(image=st.binary(min_size=24, max_size=24), time=st.integers(0, (1 << 64) - 1))
@settings(max_examples=60, deadline=None)
def test_any_shared_area_gets_some_answer(image: bytes, time: int) -> None:
    """A hostile userspace can make the clock wrong for its own guest, and nothing else."""
    rtc = Twins(DEVICE, start=time)
    assert ctypes.sizeof(rtc.both.area) == len(image)
    for bank, op, offset, size in access_handlers(DEVICE):
        ctypes.memmove(ctypes.addressof(rtc.both.area), image, len(image))
        rtc.both.deadlines.clear()
        if op == "read":
            rtc.both.read(offset, size, bank)
        else:
            rtc.both.write(offset, 0xFFFF_FFFF, size, bank)
    assert rtc.with_programs.declined == 0
