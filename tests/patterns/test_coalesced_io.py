"""The coalescing pattern against KVM_REGISTER_COALESCED_MMIO: what waits in the ring, and what exits."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc.abi import Op, Space
from devbc.diagnostics import Rejected
from devbc.program.elf import load_object
from devbc.verifier import verify_program
from devbc_lang import compile_source
from tests.patterns.bench import ENGINES, PATTERNS, Pattern, pattern
from tests.patterns.kvm import KVM_COALESCED_MMIO_MAX as MAX
from tests.patterns.kvm import CoalescedRing, Entry, Write

SOURCE = PATTERNS / "coalesced_io" / "coalesced_io.dev"


class KvmEntry(ctypes.Structure):
    """struct kvm_coalesced_mmio, as include/uapi/linux/kvm.h has it."""

    _fields_ = (
        ("phys_addr", ctypes.c_uint64),
        ("len", ctypes.c_uint32),
        ("pio", ctypes.c_uint32),
        ("data", ctypes.c_uint8 * 8),
    )


class KvmRing(ctypes.Structure):
    """struct kvm_coalesced_mmio_ring, with the entries that fit its page."""

    _fields_ = (("first", ctypes.c_uint32), ("last", ctypes.c_uint32), ("entry", KvmEntry * MAX))


def ring(bench: Pattern) -> KvmRing:
    """The pattern's shared area, read as a monitor reads KVM's."""
    return KvmRing.from_buffer(bench.device.area.bytes)


def drain(found: KvmRing, most: int) -> list[Entry]:
    """A monitor's loop (`kvm_flush_coalesced_mmio_buffer` in QEMU), up to `most` entries."""
    entries = []
    while most and found.first != found.last:
        each = found.entry[found.first]
        data = int.from_bytes(bytes(each.data[: each.len]), "little")
        entries.append(Entry(each.phys_addr, each.len, each.pio, data))
        found.first = (found.first + 1) % MAX
        most -= 1
    return entries


def prepared(engine: str) -> tuple[Pattern, CoalescedRing]:
    bench = pattern("coalesced_io", engine)
    bench.reset()
    bench.state.zone[:] = [bench.at(Space.MMIO), bench.at(Space.PIO)]
    return bench, CoalescedRing({space: (bench.at(space), bench.size(space)) for space in Space})


@st.composite
def aligned(draw: st.DrawFn) -> tuple[str, Space, int, int, int]:
    space = draw(st.sampled_from(Space))
    length = draw(st.sampled_from((1, 2, 4) if space is Space.PIO else (1, 2, 4, 8)))
    size = 8 if space is Space.PIO else 16
    offset = draw(st.integers(0, size // length - 1)) * length
    return "write", space, offset, length, draw(st.integers(0, (1 << 8 * length) - 1))


STEPS = st.one_of(
    aligned(),
    st.tuples(st.just("many"), st.integers(1, MAX + 5)),
    st.tuples(st.just("drain"), st.sampled_from((1, 2, 50, MAX))),
)


@pytest.mark.parametrize("engine", ENGINES)
@given(st.lists(STEPS, max_size=30))
def test_writes_wait_in_the_ring(engine: str, steps: list[tuple[Any, ...]]) -> None:
    """Random writes and drains. A drain brings what KVM's ring would; what exits is what KVM lets exit."""
    bench, kvm = prepared(engine)
    found = ring(bench)
    serial = 0
    for step in steps:
        match step:
            case "write", space, offset, length, value:
                write = Write(space, bench.at(space) + offset, length, value)
                assert bench.write(write) == kvm.takes(write)
            case "many", count:
                for _ in range(count):
                    serial += 1
                    write = Write(Space.MMIO, bench.at(Space.MMIO) + 8, 4, serial)
                    assert bench.write(write) == kvm.takes(write)
            case "drain", most:
                assert drain(found, most) == list(kvm.drain(most))
        assert (found.first, found.last) == (kvm.first, kvm.last)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_ring_exits_and_one_drained_entry_makes_room(engine: str) -> None:
    bench, kvm = prepared(engine)
    found = ring(bench)
    write = Write(Space.PIO, bench.at(Space.PIO) + 2, 2, 0xBEEF)
    for _ in range(3):
        answers = [bench.write(write) for _ in range(MAX)]
        assert answers == [kvm.takes(write) for _ in range(MAX)]
        assert answers[-1] is False
        assert len(bench.model.seen) == answers.count(False)
        assert drain(found, 1) == list(kvm.drain(1)) == [Entry(write.address, 2, 1, 0xBEEF)]
        assert bench.write(write)
        assert kvm.takes(write)
        bench.model.seen.clear()
        drain(found, 100)
        assert len([*kvm.drain(100)]) == 100


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("last", [MAX, MAX + 1, 1 << 31, (1 << 32) - 1])
def test_an_index_outside_the_ring_exits_and_writes_nothing(engine: str, last: int) -> None:
    """CVE-2019-14821: KVM wrote where `last` said."""
    bench, kvm = prepared(engine)
    ring(bench).last = kvm.last = last
    before = bytes(bench.device.area.bytes)
    write = Write(Space.MMIO, bench.at(Space.MMIO), 4, 0x5555_5555)
    assert not kvm.takes(write)
    assert not bench.write(write)
    assert bytes(bench.device.area.bytes) == before


def test_the_verifier_refuses_the_program_that_trusts_the_index() -> None:
    """The hole of CVE-2019-14821, put back."""
    text, removed = re.subn(r"\n *if last >= MAX \{ decline; \}", "", SOURCE.read_text())
    assert removed == 1
    program = load_object(compile_source(text, "trusting.dev").object, name="trusting.dev")
    with pytest.raises(Rejected) as caught:
        verify_program(program)
    assert {each.code.id for each in caught.value.diagnostics} == {"V006"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("space", "offset", "length"), [(Space.MMIO, 1, 2), (Space.PIO, 2, 4)])
def test_what_is_not_aligned_exits(engine: str, space: Space, offset: int, length: int) -> None:
    """The one difference: KVM coalesces it. A register is answered at multiples of an access's size."""
    bench, kvm = prepared(engine)
    write = Write(space, bench.at(space) + offset, length, 1)
    assert kvm.takes(write)
    assert not bench.write(write)


class Screen:
    """A device whose every write matters, in order: it drains the ring before it does anything else."""

    def __init__(self, scratch: Any, host: Any) -> None:
        self.scratch, self.host = scratch, host
        self.written: list[tuple[int, int, int]] = []
        self.exits = 0

    def reset(self) -> None: ...

    def read(self, bank: str, offset: int, size: int) -> int:
        self._drain()
        return len(self.written) & (1 << 8 * size) - 1

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        self._drain()
        self.exits += 1
        self.written.append((offset, size, value))

    def _drain(self) -> None:
        s = self.scratch
        while s.first != s.last:
            each = s.entry[s.first]
            self.written.append((each.phys_addr, each.len, each.data))
            s.first = (s.first + 1) % MAX

    def timer(self, name: str, deadline: int) -> None: ...
    def line(self, name: str, level: int) -> None: ...
    def signal(self, name: str) -> None: ...


@pytest.mark.parametrize("engine", ENGINES)
def test_the_device_behind_it_sees_the_writes_of_a_machine_without_it(engine: str) -> None:
    """All of them, in order, also around a ring that fills up; a read comes after the writes before it."""
    with_ring, alone = (Pattern("coalesced_io", engine, model=Screen) for _ in range(2))
    alone.vm.detach([alone.device.name])
    base = alone.at(Space.MMIO)
    reads = []
    for bench in (with_ring, alone):
        for number in range(3 * MAX):
            bench.vm.access(Space.MMIO, Op.WRITE, base + 4 * (number % 4), 4, number, time=number)
            if number % 200 == 199:
                reads.append(bench.vm.access(Space.MMIO, Op.READ, base, 4, time=number))
        reads.append(bench.vm.access(Space.MMIO, Op.READ, base, 4, time=3 * MAX))
    assert with_ring.model.written == alone.model.written
    assert reads[:3] == reads[3:] == [200, 400, 3 * MAX]
    assert alone.model.exits == 3 * MAX
    assert with_ring.model.exits <= 4
