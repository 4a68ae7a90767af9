"""The client for asyncio: requests are awaited, and many vCPUs' exits are one loop's.

    async with connect_async() as hypervisor:
        vm = await hypervisor.create_vm("guest")
        timer = await vm.add_device("pmtimer", compile_object(path), at={"pio": 0x608})
        await timer.attach()
        vcpu = await vm.create_vcpu(capacity=1024)
        vcpu.feed(access(Space.PIO, Op.READ, 0x608, 4))
        async for exit in vcpu.exits():
            exit.answer(my_timer(exit.kind, exit.offset, exit.value))

What is asked of the service, and what comes back, is the plain client's (`devbc.client`): `plain` of each
object here is the one of there. A connection's requests are carried out in order, by a thread of its own;
exits need none: the loop waits for a vCPU's descriptor while somebody awaits its exits, and only then.

Whoever is cancelled while a request is on its way has made it nevertheless. An exit that was not answered
comes again. A device's lock is for a moment, and no lock to hold over an `await`.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

from devbc.client.device import Device
from devbc.client.hypervisor import Hypervisor, connect
from devbc.client.models import Models
from devbc.client.vcpu import Exit, Vcpu
from devbc.client.vm import Vm
from devbc.diagnostics import reject
from devbc.hypervisor.model import Model
from devbc.service import errors

P = ParamSpec("P")
R = TypeVar("R")
W = TypeVar("W")

#: Exits in a row of a vCPU that never has to wait, before the loop's other tasks have their turn.
_EXITS_IN_A_ROW: Final = 64


def connect_async(path: Path | str | None = None, *, name: str = "") -> AsyncHypervisor:
    """A connection to a service, made by `async with`, which raises Rejected (S001) if there is none."""
    return AsyncHypervisor(path, name)


class _Requests:
    """The thread that makes a connection's requests, one after the other as the service takes them."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="devbc-requests")
        self._ended = False

    async def make(self, request: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._ended:
            raise reject(errors.LOST, "the connection is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: request(*args, **kwargs))

    def awaited(self, request: Callable[P, R]) -> Callable[P, Awaitable[R]]:
        """The plain client's method, to be awaited."""

        def make(*args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
            return self.make(request, *args, **kwargs)

        return make

    def giving(self, request: Callable[P, R], kind: Callable[[_Requests, R], W]) -> Callable[P, Awaitable[W]]:
        """The same for a method whose result has an awaited counterpart."""

        async def make(*args: P.args, **kwargs: P.kwargs) -> W:
            return kind(self, await self.make(request, *args, **kwargs))

        return make

    async def end(self) -> None:
        """Wait until the thread has gone; its connection is closed, so that it waits for nothing."""
        self._ended = True
        await asyncio.to_thread(self._thread.shutdown)


class AsyncHypervisor:
    """`devbc.client.Hypervisor`, awaited. Leaving its `async with` closes the connection."""

    def __init__(self, path: Path | str | None, name: str) -> None:
        self._path, self._name = path, name
        self._requests = _Requests()
        self._connected = False

    async def __aenter__(self) -> AsyncHypervisor:
        requests = self._requests
        try:
            await requests.make(self._connect)
        except BaseException:
            # Who is cancelled here may be connected a moment later.
            await requests.end()
            if self._connected:
                self.plain.close()
            raise
        self.create_vm = requests.giving(self.plain.create_vm, AsyncVm)
        self.open_vm = requests.giving(self.plain.open_vm, AsyncVm)
        self.vms = requests.awaited(self.plain.vms)
        return self

    def _connect(self) -> None:
        self.plain: Hypervisor = connect(self._path, name=self._name)
        self._connected = True

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.plain.close()
        await self._requests.end()


class AsyncVm:
    """`devbc.client.Vm`, awaited."""

    def __init__(self, requests: _Requests, plain: Vm) -> None:
        self.plain = plain
        self.number = plain.number
        self.timers = AsyncVcpu(requests, plain.timers) if plain.timers else None
        self.add_device = requests.giving(plain.add_device, AsyncDevice)
        self.create_vcpu = requests.giving(plain.create_vcpu, AsyncVcpu)
        self.wire = requests.awaited(plain.wire)
        self.refresh = requests.awaited(plain.refresh)
        self.resample = requests.awaited(plain.resample)
        self.set_level_triggered = requests.awaited(plain.set_level_triggered)
        self.acknowledge = requests.awaited(plain.acknowledge)
        self.inquire = requests.awaited(plain.inquire)
        self.figures = requests.awaited(plain.figures)
        self.status = requests.awaited(plain.status)
        self.save = requests.awaited(plain.save)
        self.restore = requests.awaited(plain.restore)
        self.destroy = requests.awaited(plain.destroy)
        self._requests = requests

    async def models(self, models: Mapping[str, Callable[[Any, Any], Model]]) -> Models:
        """Make and reset the models of devices; `AsyncVcpu.run` asks them."""
        return await self._requests.make(Models, self.plain, models)

    def device(self, name: str) -> AsyncDevice:
        """The device of a name; KeyError if this client knows of none."""
        return AsyncDevice(self._requests, self.plain.device(name))


class AsyncDevice:
    """`devbc.client.Device`, awaited; what is shared memory there is so here."""

    def __init__(self, requests: _Requests, plain: Device) -> None:
        self.plain = plain
        self.name = plain.name
        self.lock = plain.lock
        self.attach = requests.awaited(plain.attach)
        self.detach = requests.awaited(plain.detach)
        self.replace = requests.awaited(plain.replace)
        self.status = requests.awaited(plain.status)
        self.raise_line = requests.awaited(plain.raise_line)
        self.lower_line = requests.awaited(plain.lower_line)
        self.arm = requests.awaited(plain.arm)
        self.cancel = requests.awaited(plain.cancel)
        self.request = requests.awaited(plain.request)
        self.notify_signal = requests.awaited(plain.notify_signal)
        self.notify_line = requests.awaited(plain.notify_line)

    @property
    def scratch(self) -> Any:
        return self.plain.scratch


class AsyncVcpu:
    """`devbc.client.Vcpu`, its exits awaited. They are one task's at a time."""

    def __init__(self, requests: _Requests, plain: Vcpu) -> None:
        self.plain = plain
        self.index = plain.index
        self.feed = plain.feed
        self.results = plain.results
        self.stop = requests.awaited(plain.stop)
        self._resume = requests.awaited(plain.resume)
        self._awaited = False

    @property
    def done(self) -> int:
        """Accesses done so far."""
        return self.plain.done

    @property
    def answers(self) -> array[int]:
        """What reads and hypercalls returned, of all accesses done so far, or the ring's last."""
        return self.plain.answers

    async def exits(self) -> AsyncIterator[Exit]:
        """Run the guest: yields each exit, to be answered before the next, and ends with its accesses.

        It also ends if the vCPU was stopped. After `feed`, call it again. Raises Rejected (S006) if the
        connection is gone, and RuntimeError if the next exit is asked for before this one is answered.
        """
        if self.plain.running:
            self.plain.resume()
        else:
            # Whether it runs is asked again in its turn: who was cancelled may have started it.
            await self._resume()
        in_a_row = 0
        while True:
            if not self.plain.ready():
                await self._wait()
                in_a_row = 0
            elif (in_a_row := in_a_row + 1) == _EXITS_IN_A_ROW:
                await asyncio.sleep(0)
                in_a_row = 0
            if (exit_ := self.plain.exit()) is None:
                return
            yield exit_
            self.plain.check_answered(exit_)

    async def run(self, models: Models) -> None:
        """Run the guest to the end of its accesses, each exit answered by its device's model."""
        async for exit_ in self.exits():
            exit_.answer(models.answer_of(exit_, self.plain))

    async def _wait(self) -> None:
        """Wait until there is an exit; the loop knows of the descriptor no longer than that."""
        if self._awaited:
            raise RuntimeError("another task awaits this vCPU's exits")
        self._awaited = True
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.plain, readable.set)
        try:
            while not self.plain.ready():
                readable.clear()
                await readable.wait()
                self.plain.drain()
        finally:
            loop.remove_reader(self.plain)
            self._awaited = False
