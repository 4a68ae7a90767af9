"""Structured control flow, spinning and system calls for LLVM's builder: what the native loop is written in.

Not here: what the loop does (`exit_loop.py`, `delivery.py`, `run_page.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from llvmlite import ir

from devbc.engines.layout import I32, I64, PTR, Layout, Type
from devbc.engines.native import host_machine
from devbc.engines.shared_memory import load_once, store_once

NULL: Final = ir.Constant(PTR, None)
I1: Final = ir.IntType(1)
#: Turns of a spinning loop before the processor is offered to others.
SPINS: Final = 128
#: How long a vCPU sleeps that waits for another, which may wait for userspace, in ns.
NAP: Final = 50_000

#: Functions of the C library that native code calls, with their types.
LIBRARY: Final = {
    "sched_yield": ir.FunctionType(I32, []),
    "write": ir.FunctionType(I64, [I32, PTR, I64]),
    "syscall": ir.FunctionType(I64, [I64], var_arg=True),
}
#: futex(2): the call's number by architecture, and the operations, for memory that processes share.
_FUTEX: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1


def library(module: Any, name: str) -> Any:
    """A function of `LIBRARY`, declared in the module."""
    return module.globals.get(name) or ir.Function(module, LIBRARY[name], name)


class Cell:
    """A local variable: an alloca that LLVM promotes to SSA values."""

    def __init__(self, builder: Any, initial: Any) -> None:
        self.builder, self.type = builder, initial.type
        with builder.goto_entry_block():
            self.slot = builder.alloca(initial.type)
        builder.store(initial, self.slot)

    def get(self) -> Any:
        return self.builder.load(self.slot, typ=self.type)

    def set(self, value: Any) -> None:
        self.builder.store(value, self.slot)


def body(function: Any) -> tuple[Any, Any]:
    """A builder at the start of a function, and the function's arguments."""
    entry = function.append_basic_block("entry")
    start = function.append_basic_block("start")
    ir.IRBuilder(entry).branch(start)
    return ir.IRBuilder(start), function.args


@contextmanager
def while_(b: Any, condition: Callable[[], Any]) -> Iterator[None]:
    head, inside, after = (b.append_basic_block(name) for name in ("while", "do", "done"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch(condition(), inside, after)
    b.position_at_end(inside)
    yield
    b.branch(head)
    b.position_at_end(after)


@contextmanager
def forever(b: Any) -> Iterator[None]:
    """A loop that is left by returning from the function."""
    head = b.append_basic_block("again")
    b.branch(head)
    b.position_at_end(head)
    yield
    b.branch(head)


@contextmanager
def loop(b: Any, start: Any) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """A loop over one i64: yields its value and a function that goes on to the next one.

    The body ends by going on or by returning from the function.
    """
    before = b.block
    head = b.append_basic_block("next")
    b.branch(head)
    b.position_at_end(head)
    value = b.phi(I64)
    value.add_incoming(start, before)

    def proceed(following: Any) -> None:
        value.add_incoming(following, b.block)
        b.branch(head)

    yield value, proceed


@contextmanager
def each_bit(b: Any, mask: Any) -> Iterator[Any]:
    """The numbers of the bits set in an integer, lowest first."""
    left = Cell(b, mask)
    kind = mask.type
    with while_(b, lambda: b.icmp_unsigned("!=", left.get(), kind(0))):
        bits = left.get()
        left.set(b.and_(bits, b.sub(bits, kind(1))))
        yield b.cttz(bits, I1(1))


def copy(b: Any, layout: Layout, source: Any, target: Any) -> None:
    for name, _ in layout.fields:
        layout.store(b, layout.load(b, source, name), target, name)


def element(b: Any, array: Any, kind: Any, index: Any) -> Any:
    return b.gep(array, [index], inbounds=True, source_etype=kind)


# Fields that other threads or processes write at the same time.


def load_shared(b: Any, layout: Layout, base: Any, field: str, order: str = "monotonic") -> Any:
    kind = layout.element_type(field)
    value = load_once(b, layout.address(b, base, field), 8 * kind.size, order)
    return b.inttoptr(value, PTR) if kind is Type.POINTER else value


def store_shared(b: Any, layout: Layout, value: Any, base: Any, field: str, order: str = "monotonic") -> None:
    store_once(b, value, layout.address(b, base, field), 8 * layout.element_type(field).size, order)


def pause(b: Any) -> None:
    """Tell the processor that this is a spinning loop."""
    if host_machine() == "x86_64":
        name, arguments = "llvm.x86.sse2.pause", []
    elif host_machine() == "aarch64":
        name, arguments = "llvm.aarch64.hint", [I32(1)]  # YIELD
    else:
        return
    function = b.module.globals.get(name) or ir.Function(
        b.module, ir.FunctionType(ir.VoidType(), [each.type for each in arguments]), name
    )
    b.call(function, arguments)


def spin_lock(b: Any, word: Any) -> None:
    """Take a lock of native code's own, whose holders are quick. Its holder may have lost the processor."""
    tries = Cell(b, I32(0))
    taken = Cell(b, I1(0))
    with while_(b, lambda: b.not_(taken.get())):
        pair = b.cmpxchg(word, I32(0), I32(1), "acquire", "monotonic")
        taken.set(b.extract_value(pair, 1))
        with b.if_then(b.not_(taken.get()), likely=False):
            pause(b)
            tries.set(b.add(tries.get(), I32(1)))
            with b.if_then(b.icmp_unsigned("==", b.and_(tries.get(), I32(SPINS - 1)), I32(0))):
                b.call(library(b.module, "sched_yield"), [])


def unlock(b: Any, word: Any) -> None:
    store_once(b, I32(0), word, 32, "release")


def write_eventfd(b: Any, fd: Any) -> None:
    """Add 1 to an eventfd. What comes back is of no interest: a full counter is a signal too."""
    with b.goto_entry_block():
        one = b.alloca(I64)
    b.store(I64(1), one)
    b.call(library(b.module, "write"), [fd, one, I64(8)])


def futex_wait(b: Any, word: Any, expected: Any, nanoseconds: Any) -> None:
    """Sleep while the word holds `expected`, at most so long; it may wake early, for no reason."""
    with b.goto_entry_block():
        timespec = b.alloca(ir.ArrayType(I64, 2))
    second = I64(10**9)
    for part, value in enumerate((b.udiv(nanoseconds, second), b.urem(nanoseconds, second))):
        b.store(value, b.gep(timespec, [I64(0), I64(part)]))
    call = library(b.module, "syscall")
    b.call(call, [I64(_FUTEX[host_machine()]), word, I32(_FUTEX_WAIT), expected, timespec])


def futex_wake(b: Any, word: Any) -> None:
    """Wake whoever sleeps on the word. Never blocks."""
    call = library(b.module, "syscall")
    b.call(call, [I64(_FUTEX[host_machine()]), word, I32(_FUTEX_WAKE), I32((1 << 31) - 1)])
