"""What torture tests are made of: programs in the mini-language, runs of one access, bounded threads.

`Counting` counts a handler's runs where they happen, in native code and without a barrier, so that what it
counts stays as racy as it was.
"""

from __future__ import annotations

import ctypes
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from llvmlite import ir

from devbc.abi import EXIT_FIELDS, Op, Space
from devbc.engines.jit import JitEngine
from devbc.engines.layout import I32, I64, PTR
from devbc.engines.native import NativeModule
from devbc.hypervisor.bus import kind_of
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import ACCESS, HYPERCALL
from devbc.hypervisor.native_flow import Cell, body, element, while_
from devbc.hypervisor.run import Run
from devbc.limits import VCPUS
from devbc.program.elf import load_object
from devbc.program.verified import VerifiedHandler, VerifiedProgram
from devbc.verifier import verify_program
from devbc_lang import compile_source

#: How long a test goes on, for `parametrize`.
SECONDS = [pytest.param(1, id="short"), pytest.param(60, id="long", marks=pytest.mark.long)]
#: Accesses of one run: some ms, so that a test can look at the clock in between.
BATCH = 100_000


@cache
def verified(source: str) -> VerifiedProgram:
    """A program of the mini-language."""
    return verify_program(load_object(compile_source(source, "test.dev").object, name="test.dev"))


def spec(name: str, source: str, model: Any, at: Mapping[str, int]) -> DeviceSpec:
    return DeviceSpec(name, verified(source), model, at)


def accesses(
    space: Space, op: Op, address: int, size: int, values: Iterable[int] = (0,), *, vcpu: int = 0
) -> bytes:
    """Packed accesses at time 0, one a value."""
    where = (address, kind_of(space), list(Op).index(op), size.bit_length() - 1)
    return b"".join(ACCESS.packer.pack(0, value, *where, 0, vcpu) for value in values)


def hypercalls(number: int, count: int, *, vcpu: int = 0) -> bytes:
    return ACCESS.packer.pack(0, 0, number, HYPERCALL, 0, 3, 0, vcpu) * count


def batch(one: bytes, count: int = BATCH, *, timed: bool = True) -> Run:
    return Run(one * count, recorded=False, timed=timed)


def run_threads(seconds: float, *bodies: Callable[[Callable[[], bool]], None]) -> None:
    """Run each body in a thread of its own, until it returns; it is given a function that says when to go on.

    The first exception of a body stops the others, and is raised.
    """
    end = time.monotonic() + seconds
    failures: list[BaseException] = []
    together = threading.Barrier(len(bodies))

    def go_on() -> bool:
        return not failures and time.monotonic() < end

    def thread(body: Callable[[Callable[[], bool]], None]) -> None:
        try:
            together.wait()
            body(go_on)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(body,)) for body in bodies]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failures:
        raise failures[0]


def ascending(values: array[int]) -> bool:
    """Whether no u64 is below the one before it. Native, so that other threads go on meanwhile."""
    return bool(_ascending()(values.buffer_info()[0], len(values)))


@cache
def _ascending() -> Any:
    module = ir.Module("ascending")
    function = ir.Function(module, ir.FunctionType(I64, [PTR, I64]), "ascending")
    b, (values, count) = body(function)
    index, before = Cell(b, I64(0)), Cell(b, I64(0))
    with while_(b, lambda: b.icmp_unsigned("<", index.get(), count)):
        value = b.load(element(b, values, I64, index.get()), typ=I64)
        with b.if_then(b.icmp_unsigned("<", value, before.get())):
            b.ret(I64(0))
        before.set(value)
        index.set(b.add(index.get(), I64(1)))
    b.ret(I64(1))
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
    return NativeModule(module, ["ascending"]).function("ascending", prototype)


class Counting:
    """The JIT, with a count of all runs of handlers by vCPU, whether their answers were used or not."""

    name = "counting"

    def __init__(self) -> None:
        self._runs = (ctypes.c_uint64 * (VCPUS * 8))()

    def runs(self) -> int:
        return sum(self._runs)

    def load(self, programs: Sequence[VerifiedProgram]) -> _Counted:
        inner = JitEngine().load(programs)
        handlers = [handler for program in programs for handler in program.handlers]
        module = ir.Module("counting")
        kind = ir.FunctionType(I64, [PTR] * 4)
        names = {id(handler): f"counting_{number}" for number, handler in enumerate(handlers)}
        targets = (ctypes.c_void_p * len(handlers))(*(inner.address(each) for each in handlers))
        for number, handler in enumerate(handlers):
            function = ir.Function(module, kind, names[id(handler)])
            b = ir.IRBuilder(function.append_basic_block())
            field = b.gep(function.args[0], [I64(EXIT_FIELDS["vcpu"].offset)], source_etype=ir.IntType(8))
            # A cache line each: vCPUs that count do not slow each other down.
            index = b.mul(b.zext(b.load(field, typ=I32), I64), I64(8))
            counts = b.inttoptr(I64(ctypes.addressof(self._runs)), PTR)
            cell = b.gep(counts, [index], source_etype=I64)
            b.store(b.add(b.load(cell, typ=I64), I64(1)), cell)
            target = b.inttoptr(I64(ctypes.addressof(targets) + 8 * number), PTR)
            b.ret(b.call(b.load(target, typ=kind.as_pointer()), function.args))
        return _Counted((inner, targets), NativeModule(module, names.values()), names)


class _Counted:
    def __init__(self, keep: Any, code: NativeModule, names: Mapping[int, str]) -> None:
        self._keep, self._code, self._names = keep, code, names

    def address(self, handler: VerifiedHandler) -> int:
        return self._code.address(self._names[id(handler)])
