"""A pattern in a VM, its signals wired to eventfds, and a userspace that notes what reaches it."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from devbc.abi import Op, Space
from devbc.catalog import load_machine
from devbc.cli.replay import make_engine
from devbc.hypervisor.device import Device, DeviceSpec
from devbc.hypervisor.vm import VM
from tests.hypervisor.machines import RecordingModel
from tests.patterns.kvm import Write

PATTERNS = Path(__file__).parents[2] / "devices" / "patterns"
ENGINES = ("jit", "interp")


@cache
def specs() -> dict[str, DeviceSpec]:
    """Every pattern of the machine `patterns`, by its type, without a model."""
    devices, _ = load_machine("patterns", [PATTERNS])
    return {each.program.device: replace(each, model=None) for each in devices}


class Pattern:
    """One pattern, answered by an engine."""

    def __init__(self, name: str, engine: str, *others: DeviceSpec, model: Any = RecordingModel) -> None:
        self.vm = VM([replace(specs()[name], model=model), *others])
        loaded = make_engine(engine)
        assert loaded is not None
        self.vm.attach(loaded)
        self.eventfds: dict[str, int] = {}
        for signal in self.device.signal_names.values():
            fd = self.eventfds[signal] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.vm.notify_signal(self.device.name, signal, self.vm.add_notice(fd))

    @property
    def device(self) -> Device:
        return self.vm.devices[0]

    @property
    def state(self) -> Any:
        return self.device.area.view

    @property
    def model(self) -> Any:
        return self.device.model

    def at(self, space: Space) -> int:
        return self.device.spec.at[str(space)]

    def size(self, space: Space) -> int:
        (bank,) = (each for each in self.device.spec.program.banks if each.space is space)
        return bank.size

    def reset(self) -> None:
        """As it was at first, but for the clock."""
        image = self.device.spec.program.scratch_image
        self.device.area.bytes[:] = image
        self.model.seen.clear()
        for signal in self.eventfds:
            self.count(signal)

    def count(self, signal: str) -> int:
        """What has been added to a signal's eventfd since the last look."""
        try:
            return os.eventfd_read(self.eventfds[signal])
        except BlockingIOError:
            return 0

    def write(self, write: Write) -> bool:
        """A guest's write: whether it was answered without userspace, which else has seen all of it."""
        seen = len(self.model.seen)
        self.vm.access(write.space, Op.WRITE, write.address, write.length, write.value, time=self.vm.now())
        exits = self.model.seen[seen:]
        offset = write.address - self.at(write.space)
        assert exits in ([], [("write", str(write.space), offset, write.length, write.value)])
        return not exits

    def __del__(self) -> None:
        for fd in getattr(self, "eventfds", {}).values():
            os.close(fd)


@cache
def pattern(name: str, engine: str) -> Pattern:
    return Pattern(name, engine)
