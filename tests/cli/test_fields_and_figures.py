"""Fields of a shared area by name, and quantiles of a histogram: against values that are known."""

from __future__ import annotations

import ctypes

import pytest

from devbc.cli.figures import Row, bars, ns
from devbc.cli.scratch_fields import every, find, plain, shown, type_name
from devbc.diagnostics import Rejected


class _Inner(ctypes.LittleEndianStructure):
    _fields_ = (("low", ctypes.c_int16), ("high", ctypes.c_float), ("_gap1", ctypes.c_uint8 * 2))


class _Area(ctypes.LittleEndianStructure):
    _anonymous_ = ("_unnamed1",)
    _fields_ = (("_unnamed1", _Inner), ("on", ctypes.c_bool), ("bytes_", ctypes.c_uint8 * 9))


def test_fields_of_every_kind() -> None:
    area = _Area()
    find(area, "low").store(find(area, "low").parse("-0x8000"))
    find(area, "high").store(find(area, "high").parse("1.5"))
    find(area, "on").store(find(area, "on").parse("1"))
    find(area, "bytes_[0x8]").store(find(area, "bytes_[8]").parse("0b11"))
    assert {each.path: plain(each) for each in every(area)} == {
        "low": -0x8000, "high": 1.5, "on": True, "bytes_": [0] * 8 + [3],
    }  # fmt: skip
    assert [type_name(each.ctype) for each in every(area)] == ["i16", "f32", "bool", "[u8; 9]"]
    assert [shown(each.value) for each in every(area)] == ["-0x8000", "1.5", "true", "[0 x8, 3]"]
    for path, text in (
        ("low", "0x8000"),
        ("on", "2"),
        ("bytes_", "1"),
        ("high", "x"),
        ("_gap1", "1"),
        ("", "1"),
    ):
        with pytest.raises(Rejected):
            find(area, path).parse(text)


def test_quantiles_of_a_histogram() -> None:
    """Exits of known cycles, sorted into their buckets: a quantile is within the bucket that holds it."""
    cycles = sorted([26] * 50 + [52] * 40 + [5000] * 10)
    buckets = [0] * 32
    for each in cycles:
        buckets[each.bit_length() - 1] += 1
    row = Row("d", "r", "read", 100, 0, {}, tuple(buckets), 0.5)
    for share in (0.01, 0.5, 0.51, 0.9, 0.91, 1.0):
        true = cycles[round(share * 100) - 1] * 0.5
        found = row.quantile(share)
        assert found is not None
        assert true / 2 < found < true * 2
    assert Row("d", "r", "read", 0, 0, {}, (0,) * 32, 0.5).quantile(0.5) is None
    assert [ns(each) for each in (None, 9.6, 1234.0, 2.5e6, 3e9)] == [
        "",
        "10 ns",
        "1.2 us",
        "2.5 ms",
        "3.0 s",
    ]
    drawn = bars([0, 1, 1_000, 1_000_000, 1 << 40], 0, 4)
    assert drawn[0] == " "
    assert sorted(drawn) == [*drawn]
    assert len(set(drawn[:4])) == 4
