"""What KVM has no mechanism for, against the full exit that it takes there: same state, same wake-ups."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc.abi import Op, Space
from devbc.hypervisor.bus import kind_of
from devbc.hypervisor.layouts import ACCESS
from devbc.hypervisor.run import Run
from tests.patterns.bench import ENGINES, Pattern, pattern
from tests.patterns.kvm import Write

QUEUES = 8
SPACES = st.sampled_from(Space)
U32 = st.integers(0, (1 << 32) - 1)


@dataclass
class Doorbell:
    """A monitor that takes each notification by a full exit (virtio 1.2, 2.9: vqn, next_off, next_wrap).

    It wakes the device's thread unless it knows that it is awake for that queue already.
    """

    values: list[int] = field(default_factory=lambda: [0] * QUEUES)
    waiting: set[int] = field(default_factory=set)
    wakes: int = 0

    def notify(self, value: int) -> bool:
        queue, following = value & 0xFFFF, value >> 16
        if queue >= QUEUES:
            return False
        self.values[queue] = following
        self.wakes += queue not in self.waiting
        self.waiting.add(queue)
        return True


NOTIFICATIONS = st.one_of(
    st.builds(lambda queue, following: queue | following << 16, st.integers(0, 9), st.integers(0, 0xFFFF)),
    U32,
)


@pytest.mark.parametrize("engine", ENGINES)
@given(st.lists(st.one_of(st.tuples(SPACES, NOTIFICATIONS), st.none()), max_size=50))
def test_a_doorbell_keeps_its_value(engine: str, steps: list[tuple[Space, int] | None]) -> None:
    """None: userspace takes what waits."""
    bench = pattern("stored_doorbell", engine)
    bench.reset()
    monitor = Doorbell()
    for step in steps:
        if step is None:
            assert {queue for queue in range(32) if bench.state.rung >> queue & 1} == monitor.waiting
            bench.state.rung = 0
            monitor.waiting.clear()
            continue
        space, value = step
        wakes = monitor.wakes
        assert bench.write(Write(space, bench.at(space), 4, value)) == monitor.notify(value)
        assert bench.count("kick") == monitor.wakes - wakes
        assert list(bench.state.value) == monitor.values


@pytest.mark.parametrize("engine", ENGINES)
@given(st.lists(st.tuples(st.sampled_from(("set", "read", "write")), SPACES, U32), max_size=50))
def test_flags_are_cleared_and_told(engine: str, steps: list[tuple[str, Space, int]]) -> None:
    """As a monitor that answers each exit itself: it clears, and tells whoever waits, if there was a flag."""
    bench = pattern("clear_and_signal", engine)
    bench.reset()
    flags = 0
    for name, space, value in steps:
        told = 0
        if name == "set":
            with bench.device:
                bench.state.flags |= value
            flags |= value
        elif name == "read":
            address = bench.at(space)
            assert bench.vm.access(space, Op.READ, address, 4, time=bench.vm.now()) == flags
        else:
            assert bench.write(Write(space, bench.at(space), 4, value))
            told = int(flags & value != 0)
            flags &= ~value
        assert (bench.count("cleared"), bench.state.flags) == (told, flags)
    assert bench.model.seen == []


@pytest.mark.parametrize("engine", ENGINES)
def test_who_is_told_finds_the_flag_cleared(engine: str) -> None:
    """With the guest on another CPU, acknowledging all the time: the wake-up never overtakes the flag."""
    bench = Pattern("clear_and_signal", engine)
    once = ACCESS.packer.pack(0, 1, bench.at(Space.MMIO), kind_of(Space.MMIO), 1, 2, 0, 0)
    stop = threading.Event()

    def guest() -> None:
        while not stop.is_set():
            bench.vm.run(Run(once * 1000, recorded=False))

    thread = threading.Thread(target=guest)
    thread.start()
    found = []
    try:
        fd, end = bench.eventfds["cleared"], time.monotonic() + 1
        os.set_blocking(fd, True)
        while time.monotonic() < end:
            with bench.device:
                bench.state.flags = 1
            assert os.eventfd_read(fd) == 1
            found.append(bench.state.flags)
    finally:
        stop.set()
        thread.join()
    assert len(found) > 100
    assert not any(found)
