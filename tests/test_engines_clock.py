"""The clock page, read by native code: three kinds of time, one function."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import ir

from devbc.engines.clock import (
    CLOCK_PAGE,
    SHIFT,
    ClockKind,
    define_now,
    host_page,
    tsc_is_usable,
    virtual_page,
)
from devbc.engines.layout import I64, PTR
from devbc.engines.native import NativeModule
from tests.strategies import U64


@pytest.fixture(scope="module")
def now() -> Callable[..., int]:
    module = ir.Module("test")
    function = ir.Function(module, ir.FunctionType(I64, [PTR]), "now")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(builder.call(define_now(module), function.args))
    native = NativeModule(module, ["now"])
    return native.function("now", ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p))


@given(U64)
def test_the_virtual_clock_is_what_the_page_says(now: Callable[..., int], ns: int) -> None:
    assert now(ctypes.byref(virtual_page(ns))) == ns


def kinds() -> list[ClockKind]:
    return [ClockKind.HOST, *([ClockKind.TSC] if tsc_is_usable() else [])]


@pytest.mark.parametrize("kind", kinds())
def test_the_host_clock_is_clock_monotonic(now: Callable[..., int], kind: ClockKind) -> None:
    """Within 1 ms over 50 ms: twenty times what is claimed, so that a busy machine does not fail it."""
    page = host_page(kind)
    for _ in range(5):
        before, ns, after = time.monotonic_ns(), now(ctypes.byref(page)), time.monotonic_ns()
        assert before - 1_000_000 <= ns <= after + 1_000_000
        time.sleep(0.01)


@pytest.mark.parametrize("kind", kinds())
def test_the_host_clock_does_not_run_backwards(now: Callable[..., int], kind: ClockKind) -> None:
    page = host_page(kind)
    readings = [now(ctypes.byref(page)) for _ in range(2000)]
    assert readings == sorted(readings)


@given(elapsed=st.integers(0, 1 << 62), base_ns=U64, mult=st.integers(1, (1 << 36) - 1))
def test_the_counter_is_scaled_with_128_bits(
    now: Callable[..., int], elapsed: int, base_ns: int, mult: int
) -> None:
    """Against Python's integers, between two readings of the bare counter, after years of uptime too."""
    if not tsc_is_usable():
        pytest.skip("this host has no usable time-stamp counter")
    bare = CLOCK_PAGE.struct(kind=ClockKind.TSC, mult=1 << SHIFT)
    base = (now(ctypes.byref(bare)) - elapsed) % (1 << 64)
    page = CLOCK_PAGE.struct(kind=ClockKind.TSC, counter_base=base, base_ns=base_ns, mult=mult)
    before, ns, after = (now(ctypes.byref(each)) for each in (bare, page, bare))
    low, high = ((each - base) % (1 << 64) * mult >> SHIFT for each in (before, after))
    assert (ns - base_ns - low) % (1 << 64) <= high - low


def test_an_unusable_counter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devbc.engines.clock.tsc_is_usable", lambda: False)
    with pytest.raises(ValueError, match="no time-stamp counter"):
        host_page(ClockKind.TSC)
    assert host_page().kind == ClockKind.HOST
