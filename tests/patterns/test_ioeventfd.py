"""The ioeventfd patterns against KVM_IOEVENTFD: which writes signal, and which are userspace's."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc.abi import Space
from devbc.hypervisor.bus import kind_of
from devbc.hypervisor.layouts import ACCESS, Outcome
from devbc.hypervisor.run import Run
from tests.patterns.bench import ENGINES, Pattern, pattern
from tests.patterns.kvm import IoEventFd, Write

#: Registers of `ioeventfd_datamatch` by length: offset and signal.
MATCHED = {1: (0x0, "doorbell1"), 2: (0x2, "doorbell2"), 4: (0x4, "doorbell4"), 8: (0x8, "doorbell8")}
#: Those of `ioeventfd_wildcard`: length 0 is any.
WILDCARDS = {4: (0x0, "any_value"), 0: (0x8, "any_length")}

#: Few enough that they meet, and bits beyond every length.
VALUES = st.sampled_from([0, 1, 0x7F, 0x100, 0x1_0001, 0xFFFF_FFFF, 1 << 32, (1 << 64) - 1])


@st.composite
def writes(draw: st.DrawFn) -> tuple[Space, int, int, int]:
    """Space, offset, length and value of a write somewhere in a bank of 16 bytes; at most 4 to ports."""
    space = draw(st.sampled_from(Space))
    length = draw(st.sampled_from((1, 2, 4) if space is Space.PIO else (1, 2, 4, 8)))
    offset = draw(st.one_of(st.sampled_from((0, 2, 4, 8)), st.integers(0, 15)))
    return space, offset, length, draw(VALUES) & (1 << 8 * length) - 1


def held_against(bench: Pattern, ioeventfds: dict[str, list[IoEventFd]], write: Write) -> bool:
    """Do a write to both, and compare what exits and what each eventfd counts."""
    before = {signal: sum(each.signalled for each in group) for signal, group in ioeventfds.items()}
    taken = any(each.takes(write) for group in ioeventfds.values() for each in group)
    assert bench.write(write) == taken
    for signal, group in ioeventfds.items():
        assert bench.count(signal) == sum(each.signalled for each in group) - before[signal], signal
    return taken


@pytest.mark.parametrize("engine", ENGINES)
@given(st.tuples(*[VALUES] * 4), st.lists(writes(), max_size=40))
def test_datamatch(
    engine: str, datamatch: tuple[int, ...], accesses: list[tuple[Space, int, int, int]]
) -> None:
    bench = pattern("ioeventfd_datamatch", engine)
    bench.reset()
    bench.state.datamatch[:] = datamatch
    ioeventfds = {
        signal: [IoEventFd(space, bench.at(space) + offset, length, match) for space in Space]
        for (length, (offset, signal)), match in zip(MATCHED.items(), datamatch, strict=True)
    }
    for space, offset, length, value in accesses:
        held_against(bench, ioeventfds, Write(space, bench.at(space) + offset, length, value))


@pytest.mark.parametrize("engine", ENGINES)
@given(st.lists(writes(), max_size=40))
def test_wildcard(engine: str, accesses: list[tuple[Space, int, int, int]]) -> None:
    bench = pattern("ioeventfd_wildcard", engine)
    bench.reset()
    ioeventfds = {
        signal: [IoEventFd(space, bench.at(space) + offset, length) for space in Space]
        for length, (offset, signal) in WILDCARDS.items()
    }
    for space, offset, length, value in accesses:
        held_against(bench, ioeventfds, Write(space, bench.at(space) + offset, length, value))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", Space)
@pytest.mark.parametrize("length", MATCHED)
def test_each_datamatch_is_met_and_missed(engine: str, space: Space, length: int) -> None:
    """What random accesses may never do: a hit by each length, and misses by address, length and value."""
    bench = pattern("ioeventfd_datamatch", engine)
    bench.reset()
    match = 0xA5A5_A5A5_A5A5_A5A5 & (1 << 8 * length) - 1
    bench.state.datamatch[:] = [match] * 4
    offset, signal = MATCHED[length]
    ioeventfds = {signal: [IoEventFd(space, bench.at(space) + offset, length, match)]}
    hit = Write(space, bench.at(space) + offset, length, match)
    other = {1: 2, 2: 1, 4: 2, 8: 4}[length]
    assert held_against(bench, ioeventfds, hit)
    assert not held_against(bench, ioeventfds, Write(space, hit.address + 1, length, match))
    assert not held_against(bench, ioeventfds, Write(space, hit.address, length, match ^ 1))
    assert not held_against(bench, ioeventfds, Write(space, hit.address, other, match & (1 << 8 * other) - 1))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_datamatch_beyond_its_length_never_matches(engine: str) -> None:
    bench = pattern("ioeventfd_datamatch", engine)
    bench.reset()
    bench.state.datamatch[:] = [0x1_00, 0x1_0000, 1 << 32, 0]
    for length in (1, 2, 4):
        assert not bench.write(Write(Space.MMIO, bench.at(Space.MMIO) + MATCHED[length][0], length, 0))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_of_writes_adds_one_each(engine: str) -> None:
    """In one go, without userspace in between: an eventfd counts every write of one vCPU."""
    bench = pattern("ioeventfd_wildcard", engine)
    bench.reset()
    one = ACCESS.packer.pack(bench.vm.now(), 7, bench.at(Space.MMIO), kind_of(Space.MMIO), 1, 2, 0, 0)
    run = Run(one * 1000, recorded=False)
    bench.vm.run(run)
    assert array("B", run.outcomes) == array("B", [Outcome.HANDLED] * 1000)
    assert (bench.count("any_value"), bench.count("any_length"), bench.model.seen) == (1000, 0, [])
