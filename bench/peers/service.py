"""A userspace in another process: the service plays the kernel, this process answers its exits.

What answers is a native loop (nothing but the hand-over: wait, answer) or a device's Python model. The
service is pinned to one CPU; where its client is pinned says whether both share it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic, perf_counter_ns, sleep
from typing import Any, Final

from bench.runner import Work
from devbc.client import Hypervisor, Vcpu, connect
from devbc.client.models import Models
from devbc.hypervisor.layouts import RUN_PAGE, PageState, Reason

_START_SECONDS: Final = 20
_SERVE: Final = """
import os, sys
from pathlib import Path
from devbc.service.server import Service
os.sched_setaffinity(0, [int(sys.argv[2])])
Service(Path(sys.argv[1])).run()
"""

#: answer(page, wake_fd, spins, wait, answered) -> the reason that is no access: answers every access with 0.
_IR: Final = """
declare i32 @poll(ptr, i64, i32)
declare i64 @read(i32, ptr, i64)

define i64 @answer(ptr %page, i32 %fd, i64 %spins, ptr %wait, ptr %answered) {{
entry:
  %polled = alloca [2 x i32]
  %word = alloca i64
  %events = getelementptr i32, ptr %polled, i64 1
  %reason.at = getelementptr i8, ptr %page, i64 {reason}
  %answer.at = getelementptr i8, ptr %page, i64 {answer}
  br label %look
look:
  %ready = call i32 %wait(ptr %page, i64 %spins)
  %come = icmp ne i32 %ready, 0
  br i1 %come, label %exit, label %sleep
sleep:
  store i32 %fd, ptr %polled
  store i32 1, ptr %events
  %woken = call i32 @poll(ptr %polled, i64 1, i32 -1)
  %drained = call i64 @read(i32 %fd, ptr %word, i64 8)
  br label %look
exit:
  %reason = load volatile i32, ptr %reason.at
  %access = icmp eq i32 %reason, {access}
  br i1 %access, label %give, label %done
give:
  store i64 0, ptr %answer.at
  call void %answered(ptr %page, i32 {given})
  br label %look
done:
  %wide = zext i32 %reason to i64
  ret i64 %wide
}}
"""


@cache
def _answerer() -> Any:
    from devbc.engines.native import NativeModule

    page = RUN_PAGE.struct
    text = _IR.format(
        reason=page.reason.offset, answer=page.answer.offset, access=int(Reason.ACCESS),
        given=int(PageState.ANSWERED),
    )  # fmt: skip
    i64, p = ctypes.c_int64, ctypes.c_void_p
    return NativeModule(text, ["answer"], ["poll", "read"]).function(
        "answer", ctypes.CFUNCTYPE(i64, p, ctypes.c_int32, i64, p, p)
    )


@contextmanager
def service(cpu: int) -> Iterator[Hypervisor]:
    """A service of our own, pinned, and a connection to it."""
    with tempfile.TemporaryDirectory(prefix="devbc-bench-") as folder:
        path = Path(folder) / "socket"
        process = subprocess.Popen([sys.executable, "-c", _SERVE, str(path), str(cpu)])
        try:
            _wait_for(path, process)
            with connect(path, name="bench") as hypervisor:
                yield hypervisor
        finally:
            process.terminate()
            process.wait()


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = monotonic() + _START_SECONDS
    while not path.exists():
        if process.poll() is not None or monotonic() > end:
            raise OSError("the service does not start")
        sleep(0.01)


def native_work(vcpu: Vcpu, accesses: Callable[[int], bytes], cpu: int) -> Work:
    """Exits answered by the native loop, its thread pinned to a CPU. `accesses`: so many, packed."""
    native = vcpu._native
    functions = [ctypes.cast(each, ctypes.c_void_p).value for each in (native.wait, native.answer)]

    def run() -> None:
        vcpu.resume()
        _answerer()(ctypes.addressof(vcpu.page), vcpu.wake_fd, vcpu.spins, *functions)

    return _work(vcpu, accesses, cpu, run)


def model_work(models: Models, vcpu: Vcpu, accesses: Callable[[int], bytes], cpu: int) -> Work:
    """Exits answered by the devices' Python models, their thread pinned to a CPU."""
    return _work(vcpu, accesses, cpu, lambda: models.run(vcpu))


def _work(vcpu: Vcpu, accesses: Callable[[int], bytes], cpu: int, run: Callable[[], None]) -> Work:
    guest = vcpu.guest
    assert guest is not None
    capacity = guest.capacity

    def work(count: int) -> float:
        os.sched_setaffinity(0, [cpu])
        total = 0.0
        while count > 0:
            part = min(count, capacity)
            vcpu.feed(accesses(part))
            start = perf_counter_ns()
            run()
            total += perf_counter_ns() - start
            count -= part
        return total

    work(1)  # starts the vCPU
    return work
