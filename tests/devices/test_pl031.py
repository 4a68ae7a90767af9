"""The PL031: the model against a counter that ticks, and programs against the model."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from devbc.program.verified import HandlerClass
from tests.devices.bench import Bench, new_area, program
from tests.devices.twins import Twins, access_handlers

DEVICE = "pl031"
DR, MR, LR, CR, IMSC, RIS, MIS, ICR, ID = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C, 0xFE0
SECOND = 1_000_000_000
WRAP = 1 << 32
NOON = 1_709_208_000
WORDS = st.one_of(st.sampled_from([0, 1, 2, WRAP - 2, WRAP - 1]), st.integers(0, WRAP - 1))
WAITS = st.one_of(st.integers(0, 3 * SECOND), st.integers(0, 20).map(lambda seconds: seconds * SECOND))


class Rtc(Bench):
    def __init__(self, moment: int = NOON) -> None:
        self.rtc_base = moment
        super().__init__(DEVICE, new_area(DEVICE))

    def get(self, register: int) -> int:
        return self.read(register, 4, "mmio")

    def put(self, register: int, value: int) -> None:
        self.write(register, value, 4, "mmio")

    @property
    def irq(self) -> bool:
        return bool(self.levels.get("irq"))


def test_power_on() -> None:
    rtc = Rtc()
    assert [rtc.get(each) for each in (DR, MR, LR, CR, IMSC, RIS, MIS, ICR)] == [NOON, 0, 0, 1, 0, 0, 0, 0]


def test_identification() -> None:
    """Part 031 and designer 41 (ASCII A) in RTCPeriphID0 to 2, and every PrimeCell's class."""
    rtc = Rtc()
    peripheral, cell = (
        sum(rtc.get(first + 4 * index) << 8 * index for index in range(4)) for first in (ID, ID + 0x10)
    )
    assert peripheral & 0xFFF == 0x031
    assert peripheral >> 12 & 0xFF == 0x41
    assert cell == 0xB105_F00D


@given(moment=st.integers(0, WRAP - 1), ns=st.integers(0, 1 << 60))
@settings(deadline=None)
def test_counts_seconds_of_the_vm_clock(moment: int, ns: int) -> None:
    rtc = Rtc(moment)
    rtc.advance(ns)
    assert rtc.get(DR) == (moment + ns // SECOND) % WRAP


def test_loading_the_counter_keeps_the_second() -> None:
    rtc = Rtc()
    rtc.advance(SECOND // 2)
    rtc.put(LR, 5)
    assert (rtc.get(DR), rtc.get(LR)) == (5, 5)
    rtc.advance(SECOND // 2)
    assert (rtc.get(DR), rtc.get(LR)) == (6, 5)


@pytest.mark.parametrize("ahead", [1, 2, 3600])
def test_a_match_comes_when_the_counter_shows_it(ahead: int) -> None:
    rtc = Rtc()
    rtc.advance(SECOND // 3)
    rtc.put(IMSC, 1)
    rtc.put(MR, NOON + ahead)
    rtc.advance(ahead * SECOND - SECOND // 3 - 1)
    assert not rtc.irq
    assert rtc.get(DR) == NOON + ahead - 1
    rtc.advance(1)
    assert rtc.irq
    assert rtc.get(DR) == rtc.get(MR)
    rtc.put(ICR, 1)
    assert not rtc.irq
    rtc.advance(SECOND)
    assert not rtc.irq


def test_a_masked_match_shows_in_ris_only() -> None:
    rtc = Rtc()
    rtc.put(MR, NOON)
    assert (rtc.get(RIS), rtc.get(MIS), rtc.irq) == (1, 0, False)
    rtc.put(IMSC, 1)
    assert (rtc.get(RIS), rtc.get(MIS), rtc.irq) == (1, 1, True)
    rtc.put(ICR, 0)
    assert rtc.get(RIS) == 1


def test_other_sizes_are_not_answered() -> None:
    rtc = Rtc()
    assert [rtc.read(offset, size, "mmio") for offset, size in ((0, 1), (2, 2), (0, 8), (1, 4))] == [0] * 4
    rtc.write(LR, 1, 2, "mmio")
    assert rtc.get(DR) == NOON


class AgainstACounter(RuleBasedStateMachine):
    """A counter that ticks each second and compares each time; it knows nothing of offsets and deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.rtc = Rtc()
        self.count, self.phase = NOON, 0
        self.match = self.load = self.mask = self.raw = 0
        self.waits = False  # the comparator is written before it is of use

    @rule(ns=WAITS)
    def wait(self, ns: int) -> None:
        self.rtc.advance(ns)
        self.phase += ns
        while self.phase >= SECOND:
            self.phase -= SECOND
            self.count = (self.count + 1) % WRAP
            self._compare()

    def _compare(self) -> None:
        if self.waits and self.count == self.match:
            self.raw = 1

    @rule(value=WORDS)
    def write_match(self, value: int) -> None:
        self._match_is(value)

    @rule(ahead=st.integers(-2, 10))
    def match_soon(self, ahead: int) -> None:
        self._match_is((self.count + ahead) % WRAP)

    def _match_is(self, value: int) -> None:
        self.rtc.put(MR, value)
        self.match, self.waits = value, True
        self._compare()

    @rule(value=WORDS)
    def write_load(self, value: int) -> None:
        self.rtc.put(LR, value)
        self.load = self.count = value
        self.waits = True
        self._compare()

    @rule(value=WORDS)
    def write_mask(self, value: int) -> None:
        self.rtc.put(IMSC, value)
        self.mask = value % 2

    @rule(value=WORDS)
    def clear(self, value: int) -> None:
        self.rtc.put(ICR, value)
        self.raw &= ~value

    @rule(register=st.sampled_from([DR, CR, RIS, MIS, ID, ID + 0x1C, 0x20]), value=WORDS)
    def write_read_only(self, register: int, value: int) -> None:
        self.rtc.put(register, value)

    @invariant()
    def registers_say_so(self) -> None:
        shown = [self.rtc.get(each) for each in (DR, MR, LR, CR, IMSC, RIS, MIS)]
        assert shown == [
            self.count, self.match, self.load, 1, self.mask, self.raw, self.raw & self.mask
        ]  # fmt: skip
        assert self.rtc.irq == bool(self.raw & self.mask)


TestAgainstACounter = AgainstACounter.TestCase
TestAgainstACounter.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


OFFSETS = st.sampled_from([*range(0, 0x24, 4), ID, ID + 0x0C, ID + 0x1C])
STEPS = st.one_of(
    st.tuples(st.just("advance"), WAITS),
    st.tuples(st.just("read"), OFFSETS, st.sampled_from([4, 4, 4, 2, 8])),
    st.tuples(st.just("write"), OFFSETS, WORDS, st.sampled_from([4, 4, 4, 2, 8])),
    st.tuples(st.just("match"), st.integers(-2, 10)),
)


@given(st.lists(STEPS, min_size=10, max_size=40))
@settings(max_examples=60, deadline=None)
def test_programs_against_the_model(steps: list[tuple[Any, ...]]) -> None:
    rtc = Twins(DEVICE, start=1_000)
    for name, *operands in steps:
        match name, operands:
            case "advance", [ns]:
                rtc.advance(ns)
            case "read", [offset, size]:
                rtc.read(offset, size, "mmio")
            case "write", [offset, value, size]:
                rtc.write(offset, value, size, "mmio")
            case "match", [ahead]:
                rtc.write(MR, (rtc.read(DR, 4, "mmio") + ahead) % WRAP, 4, "mmio")


@given(image=st.binary(min_size=20, max_size=20), time=st.integers(0, (1 << 64) - 1))
@settings(max_examples=60, deadline=None)
def test_programs_decline_nothing_whatever_the_shared_area_holds(image: bytes, time: int) -> None:
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


def test_the_clock_is_read_without_a_lock() -> None:
    handlers = {handler.handler.section: handler for handler in program(DEVICE).handlers}
    assert handlers["mmio/read@0x0:4"].handler_class is HandlerClass.PURE
    assert handlers["mmio/read@0x0:4"].worst_case <= 12
