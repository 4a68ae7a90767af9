"""A vCPU of a VM in this process: the record that native code works on, and the thread that runs it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from devbc.hypervisor.layouts import OFFLINE, VCPU, Reason
from devbc.hypervisor.native_machine import NativeMachine
from devbc.hypervisor.run import Run


class VCpu:
    """One vCPU. It runs in whatever thread calls `run`, one at a time; several vCPUs run in parallel."""

    def __init__(
        self, index: int, machine: Any, clock: Any, clock_offset: int, native: NativeMachine
    ) -> None:
        self.index = index
        self.record = VCPU.struct(
            machine=ctypes.addressof(machine), clock=ctypes.addressof(clock), index=index, epoch=OFFLINE
        )
        self.record.exit.clock_offset = clock_offset
        self.thread = 0
        self._native = native
        self._busy = threading.Lock()

    @property
    def address(self) -> int:
        return ctypes.addressof(self.record)

    def nudge(self) -> None:
        """Nothing that this process's own vCPUs call blocks."""

    def run(self, run: Run, userspace: Callable[[VCpu, Run, Reason], None]) -> None:
        """Take accesses to their end; `userspace` acts where no program does.

        Raises RuntimeError if the vCPU is running already: a model or another thread called it.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("the vCPU is running: a model or another thread called it")
        try:
            self.record.cursor = ctypes.addressof(run.cursor)
            self.thread = threading.get_ident()
            while (reason := self._native.run(self.address)) != Reason.DONE:
                if reason == Reason.STOPPED:
                    return
                if reason != Reason.PAUSE:
                    userspace(self, run, Reason(reason))
        finally:
            self.thread = 0
            self._native.release(self.address)
            self._busy.release()
