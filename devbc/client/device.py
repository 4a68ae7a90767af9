"""A device of a VM of the service: its program, and the scratch area that the client maps too."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cached_property
from typing import Any

from devbc.abi import SCRATCH_HEADER
from devbc.client.connection import Connection
from devbc.hypervisor.area_lock import AreaLock
from devbc.hypervisor.layouts import NEVER
from devbc.hypervisor.model import named_port
from devbc.program.program import Program
from devbc.service import protocol


class Device:
    """A device: `scratch` is its shared area as named, typed fields; `lock` its lock, for `with`."""

    def __init__(self, connection: Connection, info: protocol.DeviceInfo, scratch_fd: int) -> None:
        self._connection = connection
        self.info = info
        self.name = info.name
        self.index = info.index
        self.model: Any = None
        try:
            size = os.fstat(scratch_fd).st_size
            self._map = mmap.mmap(scratch_fd, size)
        finally:
            os.close(scratch_fd)
        self._base = (ctypes.c_char * size).from_buffer(self._map)
        self.lock = AreaLock(ctypes.addressof(self._base), connection.token)
        self.bytes = memoryview(self._map)[SCRATCH_HEADER : SCRATCH_HEADER + info.scratch_bytes]

    @cached_property
    def program(self) -> Program:
        from devbc.program.elf import load_object

        return load_object(self.info.object, name=self.name)

    @cached_property
    def scratch(self) -> Any:
        """The area's variables as a ctypes structure made from the program's BTF; plain bytes without BTF."""
        view = self.program.scratch_type
        return view.from_buffer(self._map, SCRATCH_HEADER) if view else self.bytes

    def attach(self, engine: str = "jit") -> None:
        """Let the program answer from now on, on `jit` or `interp`."""
        self._connection.ask(protocol.Attach(self.info.vm, self.name, engine), protocol.Done)

    def detach(self) -> None:
        """Let every access of the device be an exit from now on."""
        self._connection.ask(protocol.Detach(self.info.vm, self.name), protocol.Done)

    def replace(self, object: bytes, *, engine: str = "jit", policy: str = "") -> None:
        """Put another program in place, while vCPUs run; the scratch area stays as it is."""
        request = protocol.Replace(self.info.vm, self.name, object, engine, policy)
        self._connection.ask(request, protocol.Done)

    def status(self) -> protocol.DeviceInfo:
        """The device as it is now: the engine of its program, and whether a client died with its lock."""
        listed = self._connection.ask(protocol.ListDevices(self.info.vm), protocol.Devices).devices
        return next(each for each in listed if each.name == self.name)

    # Lines and timers, at other times than while an exit is answered. LookupError for a name that is none.

    def raise_line(self, line: str) -> None:
        self.request(raise_=1 << self.line_number(line))

    def lower_line(self, line: str) -> None:
        self.request(lower=1 << self.line_number(line))

    def arm(self, timer: str, deadline: int) -> None:
        """Let a timer expire at a deadline in ns of the VM clock; what is out of range becomes its end."""
        number = self.timer_number(timer)
        deadlines = tuple(clamped(deadline) if each == number else 0 for each in range(number + 1))
        self.request(arm=1 << number, deadlines=deadlines)

    def cancel(self, timer: str) -> None:
        self.request(cancel=1 << self.timer_number(timer))

    def line_number(self, line: str) -> int:
        return named_port(line, self._lines, f"`{self.name}` has no output line")

    def timer_number(self, timer: str) -> int:
        return named_port(timer, self._timers, f"`{self.name}` has no timer")

    @cached_property
    def _lines(self) -> dict[str, int]:
        return {name: number for number, name in self.program.names.lines.items()}

    @cached_property
    def _timers(self) -> dict[str, int]:
        return {name: number for number, name in self.program.names.timers.items()}

    def request(
        self,
        *,
        raise_: int = 0,
        lower: int = 0,
        arm: int = 0,
        cancel: int = 0,
        deadlines: tuple[int, ...] = (),
    ) -> None:
        """The same by numbers, several at once: masks of lines and timers, deadlines in ns."""
        request = protocol.Effects(self.info.vm, self.name, raise_, lower, arm, cancel, deadlines)
        self._connection.ask(request, protocol.Done)

    def notify_signal(self, signal: str, eventfd: int) -> None:
        """Let a signal of the program write an eventfd, instead of waiting for the device's next exit.

        A signal has one eventfd: the next takes its place. So has a line.
        """
        request = protocol.Notify(self.info.vm, f"{self.name}.{signal}")
        self._connection.ask(request, protocol.Done, [eventfd])

    def notify_line(self, line: str, eventfd: int) -> None:
        """Let rising edges of an output line write an eventfd."""
        request = protocol.Notify(self.info.vm, f"{self.name}.{line}", signal=False)
        self._connection.ask(request, protocol.Done, [eventfd])


def clamped(deadline: int) -> int:
    """A deadline as the machine takes it, in ns."""
    return min(max(deadline, 0), NEVER)
