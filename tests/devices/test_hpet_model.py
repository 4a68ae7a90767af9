"""The HPET model: what the specification says, a loop in place of a formula, timers that are always armed."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devices.bench import DEVICES, Bench, model_module, new_area

CONFIG, STATUS, COUNTER = 0x10, 0x20, 0xF0
LEVEL, ENABLE, PERIODIC, SET_VALUE, NARROW = 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 8
TICK_NS = 10


def timer_config(index: int) -> int:
    return 0x100 + 0x20 * index


def comparator(index: int) -> int:
    return 0x108 + 0x20 * index


class Hpet(Bench):
    def __init__(self, module: ModuleType | None = None) -> None:
        super().__init__("hpet", new_area("hpet"), module=module)

    def get(self, offset: int, size: int = 8) -> int:
        return self.read(offset, size, "mmio")

    def put(self, offset: int, value: int, size: int = 4) -> None:
        self.write(offset, value, size, "mmio")

    def ticks(self, ticks: int) -> None:
        self.advance(ticks * TICK_NS)


@pytest.fixture
def hpet() -> Hpet:
    return Hpet()


def test_capabilities(hpet: Hpet) -> None:
    capabilities = hpet.get(0)
    assert capabilities >> 32 == TICK_NS * 1_000_000, "period in fs"
    assert capabilities >> 16 & 0xFFFF == 0x8086
    assert capabilities >> 8 & 0x1F == 3 - 1, "number of the last timer"
    assert capabilities >> 13 & 1 == 1, "64-bit counter"
    assert capabilities >> 15 & 1 == 1, "legacy replacement"
    hpet.put(0, 0xFFFF_FFFF)
    assert hpet.get(0) == capabilities


@given(value=st.integers(0, (1 << 64) - 1), run=st.integers(0, 1 << 40), rest=st.integers(0, 1 << 40))
@settings(max_examples=50, deadline=None)
def test_counter_runs_only_while_enabled(value: int, run: int, rest: int) -> None:
    hpet = Hpet()
    hpet.put(COUNTER, value, size=8)
    hpet.ticks(rest)
    assert hpet.get(COUNTER) == value
    hpet.put(CONFIG, 1)
    hpet.ticks(run)
    # The counter is kept as ns modulo 2**64: its value is good to that.
    after = (value + run) % (1 << 64) if value < 1 << 60 else None
    counted = hpet.get(COUNTER)
    assert after is None or counted == after
    assert hpet.get(COUNTER, 4) == counted & 0xFFFF_FFFF
    assert hpet.get(COUNTER + 4, 4) == counted >> 32
    hpet.put(CONFIG, 0)
    hpet.ticks(rest)
    assert hpet.get(COUNTER) == counted


def test_one_shot_level_interrupt_waits_for_its_acknowledgement(hpet: Hpet) -> None:
    hpet.put(timer_config(2), ENABLE | LEVEL | 2 << 9)
    hpet.put(comparator(2), 1000, size=8)
    hpet.put(CONFIG, 1)
    hpet.ticks(999)
    assert (hpet.get(STATUS), hpet.levels.get("irq2", 0)) == (0, 0)
    hpet.ticks(1)
    assert (hpet.get(STATUS), hpet.levels["irq2"]) == (1 << 2, 1)
    hpet.put(STATUS, 3)
    assert hpet.get(STATUS) == 1 << 2, "only a 1 clears"
    hpet.put(STATUS, 4)
    assert (hpet.get(STATUS), hpet.levels["irq2"]) == (0, 0)
    hpet.ticks(1 << 30)
    assert hpet.rises("irq2") == [10_000]


def test_edge_interrupt_leaves_no_status(hpet: Hpet) -> None:
    hpet.put(timer_config(0), ENABLE | 2 << 9)
    hpet.put(comparator(0), 50, size=8)
    hpet.put(CONFIG, 1)
    hpet.ticks(60)
    assert (hpet.rises("irq2"), hpet.levels["irq2"], hpet.get(STATUS)) == ([500], 0, 0)


@pytest.mark.parametrize("narrow", [0, NARROW])
def test_periodic_interrupts_come_at_each_period(hpet: Hpet, narrow: int) -> None:
    """First comparator, then period, through VAL_SET: specification, section 2.3.9.2.2."""
    hpet.put(COUNTER, 0xFFFF_0000, size=8)
    hpet.put(comparator(0) + 4, 0)
    hpet.put(timer_config(0), ENABLE | PERIODIC | SET_VALUE | narrow | 2 << 9)
    hpet.put(comparator(0), 0xFFFF_0000 + 20_000)
    hpet.put(comparator(0), 40_000)
    hpet.put(CONFIG, 1)
    hpet.ticks(200_000)
    assert hpet.rises("irq2") == [TICK_NS * (20_000 + 40_000 * n) for n in range(5)]
    expected = 0xFFFF_0000 + 20_000 + 40_000 * 5
    assert hpet.get(comparator(0)) == (expected % (1 << 32) if narrow else expected)


def test_periods_are_no_shorter_than_the_host_can_bear(hpet: Hpet) -> None:
    hpet.put(comparator(0) + 4, 0)
    hpet.put(timer_config(0), ENABLE | PERIODIC | SET_VALUE | 2 << 9)
    hpet.put(comparator(0), 1)
    hpet.put(comparator(0), 1)
    hpet.put(CONFIG, 1)
    hpet.advance(10_000_000)
    rises = hpet.rises("irq2")
    assert len(rises) == 100
    assert all(later - earlier >= 100_000 for earlier, later in pairwise(rises))
    assert hpet.get(comparator(0)) > rises[-1] // TICK_NS, "the comparator has caught up"


def test_narrow_one_shot_expires_at_the_wrap_and_at_the_match(hpet: Hpet) -> None:
    """Specification, section 2.3.9.2.1: an interrupt is also generated when the counter wraps."""
    hpet.put(COUNTER, 0xFFFF_FF00, size=8)
    hpet.put(timer_config(1), ENABLE | NARROW | 2 << 9)
    hpet.put(comparator(1), 0x100)
    hpet.put(CONFIG, 1)
    hpet.ticks(0x1000)
    assert hpet.rises("irq2") == [0xFF * TICK_NS, 0x200 * TICK_NS]


def test_a_passed_comparator_matches_on_the_next_tick(hpet: Hpet) -> None:
    hpet.put(CONFIG, 1)
    hpet.ticks(5000)
    hpet.put(timer_config(0), ENABLE | 2 << 9)
    hpet.put(comparator(0), 4000, size=8)
    hpet.ticks(5)
    assert hpet.rises("irq2") == [50_010]


def test_a_match_beyond_the_clock_is_not_waited_for(hpet: Hpet) -> None:
    hpet.put(CONFIG, 1)
    hpet.put(timer_config(0), ENABLE | 2 << 9)
    hpet.put(comparator(0), (1 << 63) - 1, size=8)
    assert all(0 <= deadline < 1 << 63 for deadline in hpet.deadlines.values())


def test_legacy_replacement_takes_irq_0_and_8(hpet: Hpet) -> None:
    for index in range(3):
        hpet.put(timer_config(index), ENABLE | 2 << 9)
        hpet.put(comparator(index), 100 * (index + 1), size=8)
    hpet.put(CONFIG, 3)
    assert hpet.levels["legacy"] == 1
    hpet.ticks(1000)
    assert hpet.edges[1:] == [(1000, "irq0"), (2000, "irq8"), (3000, "irq2")]
    hpet.put(CONFIG, 1)
    assert hpet.levels["legacy"] == 0


def test_undefined_accesses_read_zero_and_write_nothing(hpet: Hpet) -> None:
    before = bytes(hpet.area)
    for offset, size in [(0x10, 1), (0x10, 2), (0xF2, 4), (0xF4, 8), (0x08, 4), (0x160, 4), (0x3F8, 8)]:
        assert hpet.read(offset, size, "mmio") == 0
        hpet.write(offset, (1 << 8 * size) - 1, size, "mmio")
    assert bytes(hpet.area) == before


def test_read_only_bits_of_the_timer_configuration(hpet: Hpet) -> None:
    hpet.put(timer_config(0), 0xFFFF_FFFF_FFFF_FFFF, size=8)
    assert hpet.get(timer_config(0)) == 0x4 << 32 | 0x7F4E | 0x30


BITS = 5
SMALL = range(1 << BITS)


# A period of half the range would never bring the comparator ahead.
@pytest.mark.parametrize("period", [each for each in SMALL if each not in (0, 1 << BITS - 1)])
def test_advance_is_the_loop(period: int) -> None:
    """Each comparator and tick of 5 bits. The loop is the specification: add until it lies ahead."""
    advance = model_module("hpet").advance
    half, mask = 1 << BITS - 1, (1 << BITS) - 1
    for tick in SMALL:
        for start in SMALL:
            looped = start
            while tick - looped & mask <= half:
                looped = looped + period & mask
            assert advance(start, period, tick, BITS) == looped


def always_armed() -> ModuleType:
    """The model without its shortcut for timers whose expiry shows nothing."""
    spec = importlib.util.spec_from_file_location("always_armed", DEVICES / "hpet" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.inert = lambda config: False  # type: ignore[attr-defined]
    return module


ALWAYS_ARMED = always_armed()
SHORT = st.integers(0, 300)
STEPS = st.one_of(
    st.tuples(st.just("ticks"), SHORT),
    st.tuples(st.just("ticks"), st.sampled_from([10_000, 100_000])),
    st.tuples(st.just("config"), st.integers(0, 1)),
    st.tuples(st.just("timer"), st.integers(0, 2), st.integers(0, 0x1FF)),
    st.tuples(st.just("near"), st.integers(0, 2), st.integers(-100, 300)),
    st.tuples(st.just("low"), st.integers(0, 2), SHORT),
    st.tuples(st.just("high"), st.integers(0, 2), st.sampled_from([0, 1, 0x8000_0000])),
    st.tuples(st.just("acknowledge"), st.integers(0, 7)),
)


@given(st.integers(0, 400), st.lists(STEPS, max_size=30))
@settings(max_examples=60, deadline=None)
def test_inert_timers_cannot_be_told_from_armed_ones(before_wrap: int, steps: list[tuple[str, int]]) -> None:
    """All registers and all interrupts are the same whether or not inert timers are armed."""
    pair = [Hpet(), Hpet(ALWAYS_ARMED)]
    for hpet in pair:
        hpet.put(COUNTER, (1 << 32) - before_wrap, size=8)
        for index, route in enumerate((0, 2, 8)):
            hpet.put(timer_config(index), route << 9)
        hpet.put(CONFIG, 1)
    for name, *operands in steps:
        for hpet in pair:
            match name, operands:
                case "ticks", [ticks]:
                    hpet.ticks(ticks)
                case "config", [value]:
                    hpet.put(CONFIG, value)
                case "timer", [index, value]:
                    hpet.put(timer_config(index), value | (0, 2, 8)[index] << 9)
                case "near", [index, distance]:
                    hpet.put(comparator(index), (hpet.get(COUNTER) + distance) % (1 << 32))
                case "low", [index, value]:
                    hpet.put(comparator(index), value)
                case "high", [index, value]:
                    hpet.put(comparator(index) + 4, value)
                case "acknowledge", [value]:
                    hpet.put(STATUS, value)
        quick, slow = pair
        for offset in (
            CONFIG,
            STATUS,
            COUNTER,
            *(f(index) for f in (timer_config, comparator) for index in range(3)),
        ):
            assert quick.get(offset) == slow.get(offset), f"after {name}{operands}, at {offset:#x}"
        assert quick.edges == slow.edges
