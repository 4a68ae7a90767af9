"""The ACPI PM timer: 3.579545 MHz, 24 bits, read-only."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from tests.devices.bench import Bench

HZ = 3_579_545


@given(st.integers(0, (1 << 63) - 1))
def test_counts_whole_periods(now: int) -> None:
    bench = Bench("acpi_pm_timer", None, start=now)
    assert bench.read(0, 4) == int(Fraction(now, 1_000_000_000) * HZ) % (1 << 24)


def test_wraps_after_24_bits() -> None:
    bench = Bench("acpi_pm_timer", None, start=-(-(1 << 24) * 1_000_000_000 // HZ) - 1)
    assert bench.read(0, 4) == 0xFF_FFFF
    bench.advance(1)
    assert bench.read(0, 4) == 0


def test_parts_are_bytes_of_the_register() -> None:
    bench = Bench("acpi_pm_timer", None, start=1_000_000_000)
    assert bench.read(0, 4) == HZ
    assert [bench.read(offset) for offset in range(4)] == list(HZ.to_bytes(4, "little"))
    assert [bench.read(offset, 2) for offset in (0, 2)] == [HZ & 0xFFFF, HZ >> 16]


def test_writes_change_nothing() -> None:
    bench = Bench("acpi_pm_timer", None, start=1_000_000_000)
    bench.write(0, 0xFFFF_FFFF, 4)
    assert bench.read(0, 4) == HZ
