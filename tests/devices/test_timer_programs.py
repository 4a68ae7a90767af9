"""Programs of i8254, HPET and ACPI PM timer against their models: nobody can tell who answered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.abi import Op
from devbc.program.verified import HandlerClass
from tests.devices.twins import Twins, access_handlers

FEW = settings(max_examples=40, deadline=None)
BYTES = st.integers(0, 255)
SOON = st.integers(0, 100_000)

PIT_STEPS = st.one_of(
    st.tuples(st.just("advance"), st.one_of(SOON, st.integers(0, 100_000_000))),
    st.tuples(st.just("read"), st.integers(0, 4)),
    st.tuples(st.just("write"), st.integers(0, 4), BYTES),
    st.tuples(st.just("control"), BYTES),
    st.tuples(st.just("wide"), st.sampled_from([2, 4]), st.integers(0, (1 << 32) - 1)),
    st.tuples(st.just("legacy"), st.integers(0, 1)),
)


@given(st.lists(PIT_STEPS, max_size=40))
@FEW
def test_i8254(steps: list[tuple[str, int]]) -> None:
    pit = Twins("i8254", start=1_000)
    for name, *operands in steps:
        match name, operands:
            case "advance", [ns]:
                pit.advance(ns)
            case "read", [4]:
                pit.read(0, bank="speaker")
            case "read", [offset]:
                pit.read(offset)
            case "write", [4, value]:
                pit.write(0, value, bank="speaker")
            case "write", [offset, value]:
                pit.write(offset, value)
            case "control", [value]:
                pit.write(3, value)
            case "wide", [size, value]:
                pit.write(0, value % (1 << 8 * size), size)
                pit.read(0, size)
            case "legacy", [level]:
                pit.line("legacy", level)


OFFSETS = st.one_of(
    st.sampled_from([0x00, 0x10, 0x20, 0xF0]),
    st.builds(
        lambda index, register: 0x100 + 0x20 * index + register,
        st.integers(0, 2),
        st.sampled_from([0, 8, 16]),
    ),
    st.integers(0, 0x7F).map(lambda register: register * 8),
)
VALUES = st.one_of(st.integers(0, 0x7FFF), st.integers(0, (1 << 64) - 1))
HPET_STEPS = st.one_of(
    st.tuples(st.just("advance"), st.one_of(SOON, st.integers(0, 10_000_000))),
    st.tuples(st.just("read"), OFFSETS, st.sampled_from([0, 4, 8])),
    st.tuples(st.just("write"), OFFSETS, st.sampled_from([0, 4, 8]), VALUES),
    st.tuples(st.just("config"), st.integers(0, 3)),
    st.tuples(st.just("timer"), st.integers(0, 2), st.integers(0, 0x3FFF)),
    st.tuples(st.just("near"), st.integers(0, 2), st.integers(-100, 20_000)),
)


@given(st.sampled_from([0, 0xFFFF_FF00, (1 << 64) - 5000]), st.lists(HPET_STEPS, max_size=40))
@FEW
def test_hpet(counter: int, steps: list[tuple[str, int]]) -> None:
    hpet = Twins("hpet", start=1_000)
    hpet.write(0xF0, counter, 8, "mmio")
    hpet.write(0x10, 1, 4, "mmio")
    for name, *operands in steps:
        match name, operands:
            case "advance", [ns]:
                hpet.advance(ns)
            case "read", [offset, part]:
                hpet.read(offset + part % 8, part or 8, "mmio")
            case "write", [offset, part, value]:
                hpet.write(offset + part % 8, value % (1 << 32) if part else value, part or 8, "mmio")
            case "config", [value]:
                hpet.write(0x10, value, 4, "mmio")
            case "timer", [index, value]:
                hpet.write(0x100 + 0x20 * index, value, 4, "mmio")
            case "near", [index, distance]:
                now = hpet.read(0xF0, 8, "mmio")
                hpet.write(0x108 + 0x20 * index, (now + distance) % (1 << 64), 8, "mmio")


@given(
    st.integers(0, (1 << 63) - 1), st.sampled_from([(0, 4), (0, 2), (2, 2), (0, 1), (1, 1), (2, 1), (3, 1)])
)
@FEW
def test_acpi_pm_timer(now: int, part: tuple[int, int]) -> None:
    timer = Twins("acpi_pm_timer", start=now)
    timer.read(*part)
    timer.write(part[0], (1 << 8 * part[1]) - 1, part[1])
    assert timer.with_programs.declined == 0


def test_everything_hot_is_answered_by_programs() -> None:
    pit, hpet = Twins("i8254"), Twins("hpet")
    for value in (0x34, 0x70, 0xB6, 0x80, 0xC2, 0xEE):
        pit.write(3, value)
    for offset in (0, 1, 2):
        pit.write(offset, 0x55)
        pit.read(offset)
    pit.read(0, bank="speaker")
    pit.write(0, 1, bank="speaker")
    hpet.write(0x10, 1, 4, "mmio")
    for offset in (0x148, 0x14C):
        hpet.write(offset, 0x1234, 4, "mmio")
    for offset in (0x00, 0x04, 0x10, 0x20, 0xF0, 0xF4, 0x100, 0x148):
        hpet.read(offset, 4, "mmio")
    for twins in (pit, hpet):
        assert twins.with_programs.declined == 0


@pytest.mark.parametrize(("device", "bank", "offset"), [("hpet", "mmio", 0xF0), ("acpi_pm_timer", "pio", 0)])
def test_a_clock_is_read_without_a_lock_in_few_instructions(device: str, bank: str, offset: int) -> None:
    handler = access_handlers(device)[bank, Op.READ, offset, 4]
    assert handler.handler_class is HandlerClass.PURE
    assert handler.worst_case <= 20
