"""The i8254 model against a counter that is clocked one decrement at a time and a channel made of queues."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.devices.bench import Bench, new_area

HZ = 1_193_182
CHANNELS = st.integers(0, 2)
BYTES = st.integers(0, 255)


def clocks_since(loaded_at: int, now: int) -> int:
    return (now - loaded_at) * HZ // 1_000_000_000


def clocked(mode: int, count: int, clocks: int) -> tuple[int, bool]:
    """Counting element and OUT after that many clocks, found by clocking."""
    value, out = count, {0: False, 1: True, 2: False, 3: True, 4: False, 5: False}.get(mode, False)
    for clock in range(1, clocks + 1):
        value -= 2 if mode == 3 else 1
        while value <= 0 and mode in (2, 3, 6, 7):
            value += count
        match mode:
            case 0 | 6 | 7:
                out = out or clock == count
            case 1:
                out = out and clock != count
            case 2:
                out = value == count
            case 3:
                out = clock % count < (count + 1) // 2
            case 4 | 5:
                out = clock == count
    return value & 0xFFFF, out


class SlowChannel:
    """A channel as the datasheet's block diagram has it: latches are queues of bytes."""

    def __init__(self, gate: bool) -> None:
        self.mode, self.count, self.loaded_at = 3, 0x1_0000, 0
        self.access, self.bcd, self.gate = 0, 0, gate
        self.latched: deque[int] = deque()
        self.status: deque[int] = deque()
        self.written: list[int] = []
        self.read_high = False

    def element(self, now: int) -> tuple[int, bool]:
        return clocked(self.mode, self.count, clocks_since(self.loaded_at, now))

    def bytes_of(self, value: int) -> list[int]:
        return {0: [], 1: [value & 255], 2: [value >> 8], 3: [value & 255, value >> 8]}[self.access]

    def control(self, access: int, mode: int, bcd: int) -> None:
        self.access, self.mode, self.bcd = access, mode, bcd
        self.written, self.read_high = [], False

    def latch(self, now: int) -> None:
        if not self.latched:
            self.latched.extend(self.bytes_of(self.element(now)[0]))

    def latch_status(self, now: int) -> None:
        if not self.status:
            self.status.append(self.element(now)[1] << 7 | self.access << 4 | self.mode << 1 | self.bcd)

    def read(self, now: int) -> int:
        for queue in (self.status, self.latched):
            if queue:
                return queue.popleft()
        value = self.element(now)[0]
        if self.access == 3:
            self.read_high = not self.read_high
            return value & 255 if self.read_high else value >> 8
        return value >> 8 if self.access == 2 else value & 255

    def write(self, value: int, now: int) -> None:
        self.written.append(value)
        if self.access == 3 and len(self.written) < 2:
            return
        low, high = {2: (0, value), 3: (self.written[0], value)}.get(self.access, (value, 0))
        self.count, self.loaded_at, self.written = low | high << 8 or 0x1_0000, now, []

    def set_gate(self, gate: bool, now: int) -> None:
        if gate and not self.gate and self.mode in (1, 2, 3, 5):
            self.loaded_at = now
        self.gate = gate


class Timers(RuleBasedStateMachine):
    """Any commands, counts and reads, with little time between them: each read is the slow channel's."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench("i8254", new_area("i8254"))
        self.slow = [SlowChannel(gate=channel != 2) for channel in range(3)]
        self.refresh = False
        self.speaker = 0

    @rule(ns=st.integers(0, 60_000))
    def advance(self, ns: int) -> None:
        self.bench.advance(ns)

    @rule(channel=CHANNELS, access=st.integers(1, 3), mode=st.integers(0, 7), bcd=st.integers(0, 1))
    def control(self, channel: int, access: int, mode: int, bcd: int) -> None:
        self.bench.write(3, channel << 6 | access << 4 | mode << 1 | bcd)
        self.slow[channel].control(access, mode, bcd)

    @rule(channel=CHANNELS, rest=st.integers(0, 15))
    def latch(self, channel: int, rest: int) -> None:
        self.bench.write(3, channel << 6 | rest)
        self.slow[channel].latch(self.bench.time)

    @rule(command=st.integers(0xC0, 0xFF))
    def read_back(self, command: int) -> None:
        self.bench.write(3, command)
        for channel, slow in enumerate(self.slow):
            if command >> channel + 1 & 1:
                if not command & 0x20:
                    slow.latch(self.bench.time)
                if not command & 0x10:
                    slow.latch_status(self.bench.time)

    @rule(channel=CHANNELS, value=BYTES)
    def write(self, channel: int, value: int) -> None:
        self.bench.write(channel, value)
        self.slow[channel].write(value, self.bench.time)

    @rule(channel=CHANNELS)
    def read(self, channel: int) -> None:
        assert self.bench.read(channel) == self.slow[channel].read(self.bench.time)

    @rule(value=BYTES)
    def write_port_61(self, value: int) -> None:
        self.bench.write(0, value, bank="speaker")
        self.slow[2].set_gate(bool(value & 1), self.bench.time)
        self.speaker = value & 2

    @rule()
    def read_port_61(self) -> None:
        self.refresh = not self.refresh
        out = self.slow[2].element(self.bench.time)[1]
        expected = self.slow[2].gate | self.speaker | self.refresh << 4 | out << 5
        assert self.bench.read(0, bank="speaker") == expected

    @invariant()
    def control_is_write_only(self) -> None:
        assert self.bench.read(3) == 0


TestTimers = Timers.TestCase
TestTimers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("mode", range(8))
@pytest.mark.parametrize("count", [1, 2, 3, 0x8000, 0xFFFF, 0])
def test_long_runs(mode: int, count: int) -> None:
    """Past the wrap of 16 bits, at the moments where the count changes."""
    bench = Bench("i8254", new_area("i8254"))
    bench.write(3, 2 << 6 | 3 << 4 | mode << 1)
    bench.write(2, count & 255)
    bench.write(2, count >> 8)
    for clocks in (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x10001, 70_001):
        bench.advance(-(-clocks * 1_000_000_000 // HZ) - bench.time)
        bench.write(3, 2 << 6)
        assert bench.read(2) | bench.read(2) << 8 == clocked(mode, count or 0x1_0000, clocks)[0]


def program(bench: Bench, mode: int, count: int) -> None:
    """Channel 0, both bytes."""
    bench.write(3, 3 << 4 | mode << 1)
    bench.write(0, count & 255)
    bench.write(0, count >> 8)


@pytest.mark.parametrize("mode", [2, 3])
def test_periodic_interrupts(mode: int) -> None:
    bench = Bench("i8254", new_area("i8254"), start=12_345)
    program(bench, mode, 4772)  # 250 Hz, as Linux programs it
    bench.advance(1_000_000_000)
    rises = bench.rises("irq0")
    assert len(rises) == 250
    assert all(clocks_since(12_345, time) == 4772 * (n + 1) for n, time in enumerate(rises))


def test_interrupts_of_a_small_count_are_spaced() -> None:
    bench = Bench("i8254", new_area("i8254"))
    program(bench, 2, 1)
    bench.advance(100_000_000)
    rises = bench.rises("irq0")
    assert len(rises) > 100
    assert all(later - earlier >= 500_000 for earlier, later in pairwise(rises))


def test_terminal_count_interrupts_once_and_holds() -> None:
    bench = Bench("i8254", new_area("i8254"))
    program(bench, 0, 1000)
    bench.advance(10_000_000)
    assert [clocks_since(0, time) for time in bench.rises("irq0")] == [1000]
    assert bench.levels["irq0"] == 1
    program(bench, 0, 1000)
    assert bench.levels["irq0"] == 0


def test_power_on_interrupts_at_18_hz_and_a_control_word_stops_them() -> None:
    bench = Bench("i8254", new_area("i8254"))
    bench.advance(1_000_000_000)
    assert len(bench.rises("irq0")) == 18
    bench.write(3, 0x34)
    bench.advance(1_000_000_000)
    assert len(bench.rises("irq0")) == 18


def test_legacy_replacement_masks_the_interrupt_and_not_the_count() -> None:
    bench = Bench("i8254", new_area("i8254"))
    program(bench, 2, 1193)
    bench.model.line("legacy", 1)
    bench.advance(5_000_000)
    assert bench.rises("irq0") == []
    bench.write(3, 0)
    assert bench.read(0) | bench.read(0) << 8 == clocked(2, 1193, clocks_since(0, bench.time))[0]
    program(bench, 2, 1193)
    bench.advance(5_000_000)
    assert bench.rises("irq0") == []
    bench.model.line("legacy", 0)
    bench.advance(5_000_000)
    assert len(bench.rises("irq0")) == 5


def test_wide_accesses_are_bytes_in_order() -> None:
    bench = Bench("i8254", new_area("i8254"))
    bench.write(0, 0x34 << 24 | 0x030201, size=4)
    assert (
        bench.read(0, size=2)
        == bench.area.channel[0].count & 0xFF | bench.area.channel[1].count << 8 & 0xFF00
    )
    assert [bench.area.channel[channel].count for channel in range(3)] == [1, 2, 3]
    assert bench.area.channel[0].mode == 2
