"""A VM of the service."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from devbc.abi import Space
from devbc.client.connection import Connection
from devbc.client.device import Device
from devbc.client.vcpu import Vcpu
from devbc.diagnostics import Diagnostic, from_json
from devbc.hypervisor.bus import AddressMap, kind_of, placements
from devbc.service import protocol


class Vm:
    """A VM: its devices by name, its wires, its vCPUs. `timers` is where a live VM's timers exit to."""

    def __init__(
        self, connection: Connection, info: protocol.VmInfo, rtc_base: int, timers: list[int]
    ) -> None:
        self._connection = connection
        self.info = info
        self.number = info.vm
        self.rtc_base = rtc_base
        self.devices: list[Device] = []
        self.vcpus: list[Vcpu] = []
        self._map: AddressMap | None = None
        self.timers = (
            Vcpu(connection, self.number, self.devices, 0, None, timers, spins=0) if timers else None
        )

    def add_device(self, name: str, object: bytes, at: Mapping[str, int], *, policy: str = "") -> Device:
        """Upload a program and put a device into the VM; its program does not answer before `attach`.

        `at`: an address for each bank, and the first number of its hypercalls for `hypercall`. `policy`: the
        text of a policy file. Raises Rejected with the verifier's diagnoses.
        """
        request = protocol.AddDevice(self.number, name, object, dict(at), policy)
        info, passed = self._connection.ask_for_descriptors(request, protocol.DeviceInfo)
        self.devices.append(Device(self._connection, info, passed[0]))
        self._map = None
        return self.devices[-1]

    def refresh(self) -> None:
        """Learn of devices that others have added."""
        listed = self._connection.ask(protocol.ListDevices(self.number), protocol.Devices).devices
        for each in listed[len(self.devices) :]:
            request = protocol.OpenDevice(self.number, each.name)
            info, passed = self._connection.ask_for_descriptors(request, protocol.DeviceInfo)
            self.devices.append(Device(self._connection, info, passed[0]))
        self._map = None

    def device(self, name: str) -> Device:
        """The device of a name; KeyError if this client knows of none."""
        return next((each for each in self.devices if each.name == name), None) or _missing(name)

    def find(self, space: Space, address: int) -> tuple[Device, str, int] | None:
        """The device, bank and offset at an address."""
        if self._map is None:
            every = [
                place
                for device in self.devices
                for place in placements(device.index, device.program, device.info.at)
            ]
            self._map = AddressMap(every, {device.index: device.name for device in self.devices})
        place = self._map.find(kind_of(space), address)
        return (self.devices[place.device], place.bank, address - place.base) if place else None

    def wire(self, source: str, target: str) -> None:
        """Lead `device.line` to `device.input` or to `guest.N`."""
        self._connection.ask(protocol.Wire(self.number, source, target), protocol.Done)

    def resample(self, line: int, eventfd: int) -> None:
        """Let the acknowledgement of a level-triggered line of the guest write an eventfd."""
        self._connection.ask(protocol.Resample(self.number, line), protocol.Done, [eventfd])

    def set_level_triggered(self, lines: Iterable[int]) -> None:
        """Say which of the guest's lines stay pending while they are high."""
        mask = sum(1 << line for line in set(lines))
        self._connection.ask(protocol.SetLevelTriggered(self.number, mask), protocol.Done)

    def acknowledge(self, line: int) -> None:
        """The guest's end of interrupt."""
        self._connection.ask(protocol.Acknowledge(self.number, line), protocol.Done)

    def create_vcpu(
        self,
        capacity: int,
        *,
        recorded: bool = False,
        turns: bool = False,
        arguments: bool = False,
        spins: int = 0,
    ) -> Vcpu:
        """A vCPU with a ring of `capacity` accesses, rounded up to a power of two.

        `recorded`: reads carry the value that was recorded, to be compared. `turns`: accesses carry their
        place among all vCPUs'. `arguments`: they carry hypercalls' arguments. `spins`: turns of waiting, on
        either side, before it sleeps; at some ns each.
        """
        capacity = 1 << max(0, capacity - 1).bit_length()
        request = protocol.CreateVcpu(self.number, capacity, turns, arguments, recorded, spins)
        info, passed = self._connection.ask_for_descriptors(request, protocol.VcpuInfo)
        from devbc.service.guest_memory import GuestMemory

        guest = GuestMemory(capacity, turns, arguments)
        vcpu = Vcpu(
            self._connection, self.number, self.devices, info.index, guest, passed,
            spins=spins, recorded=recorded,
        )  # fmt: skip
        self.vcpus.append(vcpu)
        return vcpu

    def inquire(self, space: Space, address: int, size: int) -> int | None:
        """What a read would return, without its effects; None if no program answers it."""
        request = protocol.Inquire(self.number, str(space), address, size)
        return self._connection.ask(request, protocol.Value).value

    def figures(self) -> protocol.Figures:
        """What became of each handler's runs."""
        return self._connection.ask(protocol.GetFigures(self.number), protocol.Figures)

    def status(self) -> protocol.VmInfo:
        """The VM as it is now."""
        vms = self._connection.ask(protocol.ListVms(), protocol.Vms).vms
        return next(each for each in vms if each.vm == self.number)

    def save(self) -> bytes:
        """The VM's state; its vCPUs must stand still. What to do with it: `docs/migration.md`."""
        return self._connection.ask(protocol.Save(self.number), protocol.State).state

    def restore(self, state: bytes) -> tuple[Diagnostic, ...]:
        """Take up a saved state; what of it did not fit."""
        restored = self._connection.ask(protocol.Restore(self.number, state), protocol.Restored)
        return tuple(from_json(json.loads(each)) for each in restored.misfits)

    def destroy(self) -> None:
        self._connection.ask(protocol.DestroyVm(self.number), protocol.Done)


def _missing(name: str) -> Device:
    raise KeyError(name)
