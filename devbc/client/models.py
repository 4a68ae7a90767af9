"""Userspace models behind a vCPU's exits: what `model.py` of a device folder is in process, in a client.

A model works on the shared area that its device's program works on, under the device's lock, and asks for
effects through its `Host`. While it answers an exit its effects travel with the answer, in the page, and cost
nothing more; at other times they are requests to the service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from devbc.client.device import Device, clamped
from devbc.client.vcpu import Exit, ExitKind, Vcpu
from devbc.client.vm import Vm
from devbc.diagnostics import Rejected
from devbc.hypervisor.model import Model
from devbc.hypervisor.model_fault import model_failed


class Models:
    """The models of a VM's devices; several threads may run a vCPU each."""

    def __init__(self, vm: Vm, models: Mapping[str, Callable[[Any, Any], Model]]) -> None:
        """Make and reset the models of the devices named. What a model raises is Rejected (H007)."""
        self._hosts: dict[int, ClientHost] = {}
        for name, make in models.items():
            device = vm.device(name)
            host = ClientHost(vm, device)
            with host.answering(None):
                host.model = device.model = make(device.scratch, host)
                host.model.reset()
            self._hosts[device.index] = host

    def run(self, vcpu: Vcpu) -> None:
        """Run a vCPU to the end of its accesses, each exit answered by its device's model."""
        for exit_ in vcpu.run():
            vcpu.answer(self.answer_of(exit_, vcpu))

    def answer_of(self, exit_: Exit, vcpu: Vcpu) -> int:
        """What the exit's device answers. A device without a model reads as ones, or as it was recorded."""
        host = self._hosts.get(exit_.device.index) if exit_.device else None
        if host is None:
            return exit_.value if exit_.kind is ExitKind.READ and vcpu.recorded else -1
        with host.answering(vcpu, exit_.time) as model:
            for name in exit_.signals:
                model.signal(name)
            return _answer(model, exit_)


def _answer(model: Model, exit_: Exit) -> int:
    match exit_.kind:
        case ExitKind.READ:
            return model.read(exit_.bank, exit_.offset, exit_.size)
        case ExitKind.WRITE:
            model.write(exit_.bank, exit_.offset, exit_.size, exit_.value)
        case ExitKind.HYPERCALL:
            call: Callable[..., int] | None = getattr(model, "call", None)
            return call(exit_.offset, exit_.arguments) if call else -1
        case ExitKind.TIMER:
            model.timer(exit_.port, exit_.value)
        case ExitKind.LINE:
            model.line(exit_.port, exit_.value)
    return 0


class ClientHost:
    """What a client offers a model (`devbc.hypervisor.model.Host`)."""

    def __init__(self, vm: Vm, device: Device) -> None:
        self.model: Model
        self._vm = vm
        self._device = device
        self._vcpu: Vcpu | None = None
        self._now = 0

    def answering(self, vcpu: Vcpu | None, now: int = 0) -> _Answering:
        """A context that holds the device's lock; effects go with a vCPU's exit, if there is one."""
        return _Answering(self, vcpu, now)

    @property
    def rtc_base(self) -> int:
        return self._vm.rtc_base

    def now(self) -> int:
        return self._now if self._vcpu else self._vm.status().now

    def raise_line(self, line: str) -> None:
        if self._vcpu is None:
            self._device.raise_line(line)
            return
        effects, bit = self._vcpu.effects(), 1 << self._device.line_number(line)
        if effects.lower or getattr(effects, "raise") > bit:
            # The machine raises before it lowers, and lines in their order: this is a change after those.
            self._vcpu.flush_effects()
        setattr(effects, "raise", getattr(effects, "raise") | bit)

    def lower_line(self, line: str) -> None:
        if self._vcpu is None:
            self._device.lower_line(line)
            return
        effects, bit = self._vcpu.effects(), 1 << self._device.line_number(line)
        if effects.lower > bit:
            self._vcpu.flush_effects()
        effects.lower |= bit

    def arm(self, timer: str, deadline: int) -> None:
        if self._vcpu is None:
            self._device.arm(timer, deadline)
            return
        effects, number = self._vcpu.effects(), self._device.timer_number(timer)
        effects.arm |= 1 << number
        effects.deadline[number] = clamped(deadline)

    def cancel(self, timer: str) -> None:
        if self._vcpu is None:
            self._device.cancel(timer)
            return
        effects, bit = self._vcpu.effects(), 1 << self._device.timer_number(timer)
        effects.arm &= ~bit
        effects.cancel |= bit


class _Answering:
    """Entering gives the model, with the device's lock held; what the model raises becomes H007."""

    def __init__(self, host: ClientHost, vcpu: Vcpu | None, now: int) -> None:
        self._host, self._vcpu, self._now = host, vcpu, now

    def __enter__(self) -> Model:
        self._host._device.lock.__enter__()
        self._host._vcpu, self._host._now = self._vcpu, self._now
        return getattr(self._host, "model", None)  # type: ignore[return-value]

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._host._vcpu = None
        self._host._device.lock.unlock()
        if isinstance(error, Exception) and not isinstance(error, Rejected):
            raise model_failed(self._host._device.name, error) from error
