"""VMs whose handlers and models are Python functions, to test the machine apart from compiler and engines."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from devbc.abi import Space, parse_binding
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import EXIT
from devbc.program.program import Bank, Function, Handler, Names, Program
from devbc.program.verified import ByteRange, HandlerClass, VerifiedHandler, VerifiedProgram

#: A handler: given the exit and the scratch word, changes them and says whether it handled.
Body = Callable[[Any, Any], bool]

_SIGNATURE = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_void_p] * 4)


class Scratch(ctypes.Structure):
    _fields_ = (("word", ctypes.c_uint64),)


class Callbacks:
    """An engine whose handlers are Python functions, by section."""

    name = "callbacks"

    def __init__(self, bodies: dict[str, Body]) -> None:
        self._functions = {section: _SIGNATURE(self._wrap(body)) for section, body in bodies.items()}

    def load(self, programs: Sequence[VerifiedProgram]) -> Callbacks:
        return self

    def address(self, handler: VerifiedHandler) -> int:
        function = self._functions[handler.handler.section]
        return ctypes.cast(function, ctypes.c_void_p).value or 0

    @staticmethod
    def _wrap(body: Body) -> Callable[..., int]:
        def call(exit_: int, scratch: int, _rodata: int, _clock: int) -> int:
            return body(EXIT.struct.from_address(exit_), Scratch.from_address(scratch))

        return call


class RecordingModel:
    """A model that notes what it is asked, and answers reads with 0x5A."""

    def __init__(self, scratch: Any, host: Any) -> None:
        self.scratch, self.host = scratch, host
        self.seen: list[tuple[Any, ...]] = []

    def reset(self) -> None: ...

    def read(self, bank: str, offset: int, size: int) -> int:
        self.seen.append(("read", bank, offset, size))
        return 0x5A

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        self.seen.append(("write", bank, offset, size, value))

    def timer(self, name: str, deadline: int) -> None:
        self.seen.append(("timer", name, deadline, self.host.now()))

    def line(self, name: str, level: int) -> None:
        self.seen.append(("line", name, level))

    def signal(self, name: str) -> None:
        self.seen.append(("signal", name))


def device(
    name: str,
    sections: Sequence[str],
    at: int,
    *,
    mutating: bool = False,
    effects: Sequence[str] = ("raise", "lower", "signal", "arm", "cancel"),
    scratch_read: bool = False,
) -> DeviceSpec:
    """A device with one PIO bank of 16 bytes, ports of every kind, and handlers of the given sections."""
    handlers = []
    for section in sections:
        binding = parse_binding(section)
        assert not isinstance(binding, str), binding
        handler = Handler(section, binding, b"", (Function("entry", 0),))
        handlers.append(
            VerifiedHandler(
                handler=handler, insns={}, accesses={}, worst_case=1, stack_bytes=0,
                handler_class=HandlerClass.MUTATING if mutating else HandlerClass.PURE,
                may_decline=True, may_handle=True,
                scratch_read=(ByteRange(0, 8),) if scratch_read else (), scratch_written=(),
                effects=frozenset(effects), helpers=frozenset(),
            )
        )  # fmt: skip
    names = Names(
        timers={0: "t0", 1: "t1"}, lines={0: "out", 1: "aux"}, inputs={0: "in0"}, signals={0: "bell", 3: "tx"}
    )
    program = Program(
        device=name,
        handlers=tuple(each.handler for each in handlers),
        scratch_image=bytes(8),
        rodata=b"",
        names=names,
        banks=(Bank("pio", Space.PIO, 16),),
        scratch_type=Scratch,
    )
    return DeviceSpec(name, VerifiedProgram(program, tuple(handlers)), RecordingModel, {"pio": at})
