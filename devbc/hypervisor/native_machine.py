"""The machine's native code, compiled once a process: the exit loop, delivery, grace periods, run pages."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from devbc.cache import version
from devbc.hypervisor.layouts import MACHINE, OFFLINE, VCPU


class NativeMachine:
    """Entry points as ctypes functions; what may run long lets go of the interpreter's lock."""

    def __init__(self) -> None:
        from devbc.engines.native import NativeModule
        from devbc.hypervisor.native_flow import LIBRARY

        code = NativeModule(_build, _EXPORTS, LIBRARY, content=f"machine {machine_version()}")
        u64, pointer = ctypes.c_uint64, ctypes.c_void_p
        quick, long = ctypes.PYFUNCTYPE, ctypes.CFUNCTYPE
        self._code = code
        self.run = long(u64, pointer)(code.address("devbc_run"))
        self.complete = quick(None, pointer, u64, u64)(code.address("devbc_complete"))
        self.request = long(u64, pointer, pointer, pointer)(code.address("devbc_request"))
        self.acknowledge = long(None, pointer, u64)(code.address("devbc_acknowledge"))
        self.notify = long(None, pointer)(code.address("devbc_notify"))
        self.fetch_signals = quick(u64, pointer)(code.address("devbc_fetch_signals"))
        self.publish = quick(u64, pointer, pointer)(code.address("devbc_publish"))
        self.passed = quick(u64, pointer, u64)(code.address("devbc_passed"))
        self.serve = long(u64, pointer)(code.address("devbc_serve"))
        self.tick = long(u64, pointer)(code.address("devbc_tick"))
        self.release = quick(None, pointer)(code.address("devbc_release"))


_EXPORTS = (
    "devbc_run", "devbc_complete", "devbc_request", "devbc_acknowledge", "devbc_notify", "devbc_publish",
    "devbc_passed", "devbc_release", "devbc_serve", "devbc_tick", "devbc_fetch_signals",
)  # fmt: skip


@cache
def machine_version() -> str:
    """A hash of the sources, and of what of the host, decides what the machine's native code is."""
    from devbc.engines.clock import tsc_is_usable
    from devbc.engines.native import engine_version

    return f"{engine_version()} {version(Path(__file__).parent)} {tsc_is_usable()}"


@cache
def native_machine() -> NativeMachine:
    return NativeMachine()


def _build() -> Any:
    from llvmlite import ir

    from devbc.hypervisor.exit_loop import build_loop
    from devbc.hypervisor.run_page import build_run_page

    module = ir.Module("devbc_machine")
    build_run_page(module, build_loop(module))
    _build_grace_periods(module)
    return module


def _build_grace_periods(module: Any) -> None:
    """The publisher's half of `devbc.hypervisor.versions`, and letting go of an abandoned delivery."""
    from llvmlite import ir

    from devbc.engines.layout import I32, I64, PTR
    from devbc.engines.shared_memory import store_once
    from devbc.hypervisor.native_flow import body, load_shared, store_shared

    # publish(machine, map) -> epoch
    b, (machine, map_) = body(ir.Function(module, ir.FunctionType(I64, [PTR, PTR]), "devbc_publish"))
    store_once(b, b.ptrtoint(map_, I64), MACHINE.address(b, machine, "map"), 64, "release")
    before = b.atomic_rmw("add", MACHINE.address(b, machine, "epoch"), I64(1), "seq_cst")
    b.ret(b.add(before, I64(1)))

    # passed(vcpu, epoch) -> whether the vCPU can see no map older than that of `epoch`
    b, (vcpu, epoch) = body(ir.Function(module, ir.FunctionType(I64, [PTR, I64]), "devbc_passed"))
    seen = load_shared(b, VCPU, vcpu, "epoch", "seq_cst")
    offline = b.icmp_unsigned("==", seen, I64(OFFLINE))
    b.ret(b.zext(b.or_(offline, b.icmp_unsigned(">=", seen, epoch)), I64))

    # release(vcpu): let others deliver events, if this vCPU was doing so and its model did not come back
    b, (vcpu,) = body(ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR]), "devbc_release"))
    machine = VCPU.load(b, vcpu, "machine")
    me = b.trunc(b.add(VCPU.load(b, vcpu, "index"), I64(1)), I32)
    mine = b.icmp_unsigned("==", load_shared(b, MACHINE, machine, "settling"), me)
    with b.if_then(mine):
        store_shared(b, MACHINE, I32(0), machine, "settling", "release")
    b.ret_void()
