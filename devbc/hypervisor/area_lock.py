"""A device's lock, as userspace takes it: a word and a sequence count at the head of its shared area.

A mutating handler tries the lock and declines if it is taken; userspace waits, since handlers hold it for
some hundred ns at most. While either holds it the sequence count is odd, so that pure handlers, which take no
lock, see no change half done: they decline. Whoever dies holding it leaves the device to its model: nothing
in the machine ever waits for it.
"""

from __future__ import annotations

import ctypes
import time
from functools import cache
from types import TracebackType
from typing import Any, Final

from devbc.hypervisor.layouts import AREA_HEADER, Holder

#: Attempts before it sleeps, and seconds of each sleep.
_ATTEMPTS: Final = 200
_NAP: Final = 50e-6


class AreaLock:
    """The lock of the shared area at an address, as a context manager. Not reentrant.

    `token` says who holds it (`layouts.Holder`). Entering raises TimeoutError if others hold
    it for `patience` seconds.
    """

    def __init__(
        self, header_address: int, token: int = Holder.IN_PROCESS, *, patience: float = 10.0
    ) -> None:
        self._address = header_address
        self._token = token
        self._patience = patience
        self._native = _native()

    def __enter__(self) -> AreaLock:
        if not self.try_lock():
            self._wait()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.unlock()

    def try_lock(self) -> bool:
        return bool(self._native.lock(self._address, self._token))

    def unlock(self) -> None:
        self._native.unlock(self._address)

    @property
    def holder(self) -> int:
        """Whose token the word holds; anybody who maps the area may have written it."""
        return int(AREA_HEADER.struct.from_address(self._address).lock)

    def _wait(self) -> None:
        limit = time.monotonic() + self._patience
        while True:
            for _ in range(_ATTEMPTS):
                if self.try_lock():
                    return
            if time.monotonic() > limit:
                raise TimeoutError(f"the device's lock is held by {self.holder:#x}")
            time.sleep(_NAP)


class _Native:
    """The two operations, in native code: a compare-and-exchange, and stores in order."""

    def __init__(self) -> None:
        from devbc.engines.native import NativeModule
        from devbc.hypervisor.native_machine import machine_version

        content = f"lock {machine_version()}"
        self._code = NativeModule(_module, ["devbc_lock", "devbc_unlock"], content=content)
        # Neither blocks: calling them with the interpreter's lock held is quicker than letting go of it.
        pointer = ctypes.c_void_p
        self.lock = ctypes.PYFUNCTYPE(ctypes.c_uint32, pointer, ctypes.c_uint32)(
            self._code.address("devbc_lock")
        )
        self.unlock = ctypes.PYFUNCTYPE(None, pointer)(self._code.address("devbc_unlock"))


@cache
def _native() -> _Native:
    return _Native()


def _module() -> Any:
    from llvmlite import ir

    from devbc.engines.layout import I32, PTR
    from devbc.hypervisor.native_flow import body, load_shared, store_shared

    module = ir.Module("devbc_area_lock")
    function = ir.Function(module, ir.FunctionType(I32, [PTR, I32]), "devbc_lock")
    b, (header, token) = body(function)
    pair = b.cmpxchg(AREA_HEADER.address(b, header, "lock"), I32(Holder.FREE), token, "acquire", "monotonic")
    taken = b.extract_value(pair, 1)
    with b.if_then(taken):
        odd = b.or_(load_shared(b, AREA_HEADER, header, "sequence"), I32(1))
        # A full barrier: seen by all before whoever takes the lock looks at the clock (`exit_loop._invoke`).
        b.atomic_rmw("xchg", AREA_HEADER.address(b, header, "sequence"), odd, "seq_cst")
        b.fence("release")
    b.ret(b.zext(taken, I32))
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [PTR]), "devbc_unlock")
    b, (header,) = body(function)
    odd = b.or_(load_shared(b, AREA_HEADER, header, "sequence"), I32(1))
    store_shared(b, AREA_HEADER, b.add(odd, I32(1)), header, "sequence", "release")
    store_shared(b, AREA_HEADER, I32(Holder.FREE), header, "lock", "release")
    b.ret_void()
    return module
