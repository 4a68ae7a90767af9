"""The clock that `ktime_get_ns` reads: a page that says what time it is, or how to find out.

Each vCPU's native code is given a pointer to a `CLOCK_PAGE`. The virtual clock is a number in the page: a
load and a branch that is always taken the same way, and two calls within one run give one value. The host's
clock is CLOCK_MONOTONIC, so that programs and the userspace models agree on it: computed from the
time-stamp counter where Linux itself trusts that counter, asked of the C library elsewhere.

Accuracy of the time-stamp counter's rate: a calibration brackets two readings of CLOCK_MONOTONIC, some
20 ms apart, between readings of the counter; with brackets below 100 ns the rate is good to 5 parts in a
million, that is 5 us for each second since. Who needs more takes `HOST`, at some 30 ns a call.

Not here: the VM clock. Programs add the exit's `clock_offset` themselves.
"""

from __future__ import annotations

import ctypes
import time
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from llvmlite import ir

from devbc.engines.layout import I32, I64, POINTER, PTR, U64, Layout
from devbc.engines.native import NativeModule, engine_version, host_machine
from devbc.engines.shared_memory import load_once


class ClockKind(IntEnum):
    """How a page tells the time."""

    VIRTUAL = 0  # now_ns
    TSC = 1  # base_ns + (counter - counter_base) * mult / 2**SHIFT
    HOST = 2  # clock_gettime(CLOCK_MONOTONIC)


#: Fractional bits of `mult`: at 4 GHz it has 30 bits, and a rounding error below 1 ns for each second.
SHIFT: Final = 32

CLOCK_PAGE: Final = Layout(
    "ClockPage",
    (
        ("now_ns", U64),
        ("kind", U64),
        ("counter_base", U64),
        ("base_ns", U64),
        ("mult", U64),
        ("clock_gettime", POINTER),  # int (*)(clockid_t, struct timespec *)
    ),
)

#: `struct timespec` of 64-bit systems.
_TIMESPEC: Final = Layout("Timespec", (("seconds", U64), ("nanoseconds", U64)))

#: What one calibration reading takes down: counter, CLOCK_MONOTONIC, counter.
_READING: Final = Layout("Reading", (("before", U64), ("ns", U64), ("after", U64)))

_READINGS: Final = 200
_CALIBRATION_SECONDS: Final = 0.02


def virtual_page(now_ns: int = 0) -> ctypes.Structure:
    """A page whose time is what its `now_ns` says."""
    return CLOCK_PAGE.struct(now_ns=now_ns, kind=ClockKind.VIRTUAL)


def host_page(kind: ClockKind | None = None) -> ctypes.Structure:
    """A page that tells CLOCK_MONOTONIC: by the counter if the host has a usable one, unless `kind` says how.

    Raises ValueError if `TSC` is asked for and there is none.
    """
    usable = tsc_is_usable()
    if kind is ClockKind.TSC and not usable:
        raise ValueError("this host has no time-stamp counter that its kernel trusts")
    page: Any = CLOCK_PAGE.struct(kind=ClockKind.HOST)
    page.clock_gettime = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
    if usable and kind in (None, ClockKind.TSC):
        page.counter_base, page.base_ns, page.mult = _calibration(page)
        page.kind = ClockKind.TSC
    structure: ctypes.Structure = page
    return structure


def read_clock(page: Any) -> int:
    """What `ktime_get_ns` tells programs that have this page, in ns: for whoever has to agree with them."""
    return int(_teller()(ctypes.byref(page)))


@cache
def _teller() -> Any:
    def build() -> ir.Module:
        module = ir.Module("devbc_clock")
        function = ir.Function(module, ir.FunctionType(I64, [PTR]), "devbc_read_clock")
        builder = ir.IRBuilder(function.append_basic_block())
        order_clock(builder)
        builder.ret(builder.call(define_now(module), function.args))
        return module

    # Quicker than letting go of the interpreter's lock.
    prototype = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
    native = NativeModule(build, ["devbc_read_clock"], content=f"clock {engine_version()}")
    return native.function("devbc_read_clock", prototype)


@cache
def counter_period_ns() -> float | None:
    """Length of a cycle of the time-stamp counter, in ns; None where there is none to use."""
    if not tsc_is_usable():
        return None
    page: Any = host_page(ClockKind.TSC)
    return float(page.mult / (1 << SHIFT))


@cache
def tsc_is_usable() -> bool:
    """Whether the counter runs at one rate, in all sleep states, alike on all CPUs.

    Linux lists `tsc` as a clock source only while it believes all of that. On other architectures the
    counter that LLVM reads may trap in user mode, so that the C library is asked there.
    """
    sources = Path("/sys/devices/system/clocksource/clocksource0/available_clocksource")
    try:
        return host_machine() == "x86_64" and "tsc" in sources.read_text().split()
    except OSError:
        return False


def define_now(module: Any) -> Any:
    """Add `i64 devbc_now(ptr clock)` to a module, to be inlined where it is called.

    The time is read before all that comes after the call. Whoever needs it to be read after something that
    came before says so there (`order_clock`): the exit loop knows when that is, handlers do not.
    Only the virtual clock is inlined. The other kinds are behind a call that preserves the caller's
    registers, so that a handler pays nothing for them while the virtual clock is used.
    """
    host = _define_host_time(module)
    function = ir.Function(module, ir.FunctionType(I64, [PTR]), "devbc_now")
    function.linkage = "internal"
    function.attributes.add("alwaysinline")
    (clock,) = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    kind = CLOCK_PAGE.load(builder, clock, "kind")
    # A page keeps its kind: a second call in one handler need not look again.
    kind.set_metadata("invariant.load", module.add_metadata([]))
    real = builder.icmp_unsigned("!=", kind, I64(ClockKind.VIRTUAL))
    with builder.if_then(real, likely=False):
        builder.ret(builder.call(host, [clock, kind], cconv=host.calling_convention))
    builder.ret(CLOCK_PAGE.load(builder, clock, "now_ns"))
    return function


def define_time_of(module: Any) -> Any:
    """Add `i64 devbc_time_of(ptr clock, i64 counter)` to a module: the time at a reading of the counter.

    Clocks that do not go by the counter give the present time.
    """
    function = ir.Function(module, ir.FunctionType(I64, [PTR, I64]), "devbc_time_of")
    function.linkage = "internal"
    function.attributes.add("alwaysinline")
    clock, counter = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    kind = CLOCK_PAGE.load(builder, clock, "kind")
    with builder.if_then(builder.icmp_unsigned("==", kind, I64(ClockKind.TSC)), likely=True):
        builder.ret(_counter_time(builder, clock, counter))
    builder.ret(builder.call(module.globals["devbc_now"], [clock]))
    return function


def _define_host_time(module: Any) -> Any:
    function = ir.Function(module, ir.FunctionType(I64, [PTR, I64]), "devbc_host_time")
    function.linkage = "internal"
    function.calling_convention = "preserve_mostcc"
    function.attributes.add("noinline")
    clock, kind = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    if host_machine() == "x86_64":
        with builder.if_then(builder.icmp_unsigned("==", kind, I64(ClockKind.TSC))):
            _return_awaited(builder, clock, _counter_time(builder, clock, _counter(builder)))
    _return_awaited(builder, clock, _monotonic(builder, clock))
    return function


def _return_awaited(builder: Any, clock: Any, ns: Any) -> None:
    """Return a time that was read before all later loads and stores.

    A load whose address depends on the time waits for it, and x86 does no later load before that one; it is
    one of two words of the page, whatever the time. (Linux has this for arm64's counter,
    `arch_counter_enforce_ordering`. An LFENCE would hold up all that follows, not just loads.) Stores wait in
    any case: none is seen before what comes before it has retired.
    """
    word = builder.gep(clock, [builder.lshr(ns, I64(63))], inbounds=True, source_etype=I64)
    load_once(builder, word, 64)
    builder.ret(ns)


def _counter_time(builder: Any, clock: Any, counter: Any) -> Any:
    """base_ns + ((counter - counter_base) * mult >> SHIFT), the product with 128 bits."""
    wide = ir.IntType(128)
    elapsed = builder.sub(counter, CLOCK_PAGE.load(builder, clock, "counter_base"))
    mult = CLOCK_PAGE.load(builder, clock, "mult")
    product = builder.mul(builder.zext(elapsed, wide), builder.zext(mult, wide))
    ns = builder.trunc(builder.lshr(product, wide(SHIFT)), I64)
    return builder.add(CLOCK_PAGE.load(builder, clock, "base_ns"), ns)


def order_clock(builder: Any) -> None:
    """Let the clock, from here on, be read after all loads and locked instructions before.

    RDTSC may run ahead of them (Intel SDM, RDTSC: software that needs the order puts LFENCE before it). It is
    not needed between two readings of one processor, which never go backwards (SDM volume 3, Time-Stamp
    Counter). CLOCK_MONOTONIC, which is asked elsewhere, is ordered by who answers.
    """
    if host_machine() == "x86_64":
        builder.call(_intrinsic(builder.module, "llvm.x86.sse2.lfence", ir.VoidType()), [])


def _counter(builder: Any) -> Any:
    return builder.call(_intrinsic(builder.module, "llvm.readcyclecounter", I64), [])


def _monotonic(builder: Any, clock: Any) -> Any:
    """CLOCK_MONOTONIC in ns; the call cannot fail with a valid clock and a valid pointer."""
    words = ir.ArrayType(I64, 2)
    with builder.goto_entry_block():
        timespec = builder.alloca(words)
    signature = ir.FunctionType(I32, [I32, PTR])
    function = CLOCK_PAGE.load_function(builder, clock, "clock_gettime", signature)
    builder.call(function, [I32(time.CLOCK_MONOTONIC), timespec])
    seconds = _TIMESPEC.load(builder, timespec, "seconds")
    return builder.add(builder.mul(seconds, I64(10**9)), _TIMESPEC.load(builder, timespec, "nanoseconds"))


def _intrinsic(module: Any, name: str, result: Any) -> Any:
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, []), name)


def _calibration(page: Any) -> tuple[int, int, int]:
    """(counter_base, base_ns, mult) of the time-stamp counter against CLOCK_MONOTONIC."""
    read = _reader()
    first = _best_reading(read, page)
    time.sleep(_CALIBRATION_SECONDS)
    last = _best_reading(read, page)
    ticks, ns = last[0] - first[0], last[1] - first[1]
    return last[0], last[1], (ns << SHIFT) // ticks


def _best_reading(read: Any, page: Any) -> tuple[int, int]:
    """(counter, ns) of one instant: the middle of the narrowest bracket, which no interrupt has widened."""
    reading: Any = _READING.struct()
    best = (1 << 64, 0, 0)
    for _ in range(_READINGS):
        read(ctypes.byref(page), ctypes.byref(reading))
        width = reading.after - reading.before
        best = min(best, (width, reading.before + width // 2, reading.ns))
    return best[1], best[2]


@cache
def _reader() -> Any:
    """`void devbc_reading(ptr clock, ptr reading)`, compiled at the first calibration."""

    def build() -> ir.Module:
        module = ir.Module("devbc_calibration")
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR, PTR]), "devbc_reading")
        clock, reading = function.args
        builder = ir.IRBuilder(function.append_basic_block())
        before = _counter(builder)
        order_clock(builder)
        ns = _monotonic(builder, clock)
        order_clock(builder)
        after = _counter(builder)
        for field, value in (("before", before), ("ns", ns), ("after", after)):
            _READING.store(builder, value, reading, field)
        builder.ret_void()
        return module

    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    native = NativeModule(build, ["devbc_reading"], content=f"calibration {engine_version()}")
    return native.function("devbc_reading", prototype)
