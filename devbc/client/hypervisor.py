"""The service as its client sees it: VMs to create, to open and to list."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from devbc.client.connection import Connection
from devbc.client.vm import Vm
from devbc.service import protocol
from devbc.service.server import default_socket


def connect(path: Path | str | None = None, *, name: str = "") -> Hypervisor:
    """Connect to a service, by default to the user's (`devbc serve`). Raises Rejected (S001).

    `name` is what the service's log and lists call the client.
    """
    who = name or f"{Path(sys.argv[0]).name}[{os.getpid()}]"
    return Hypervisor(Connection(Path(path) if path else default_socket(), who))


class Hypervisor:
    """A connection to a service; leaving its `with` closes it, and the service reclaims its VMs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __enter__(self) -> Hypervisor:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def create_vm(
        self,
        name: str = "",
        *,
        live: bool = False,
        rtc_base: int = 0,
        persists: bool = False,
        exits_unclaimed: bool = False,
    ) -> Vm:
        """A new VM. `live`: on the host's clock, whose timers run whether its vCPUs do or not.

        `rtc_base`: wall-clock time at VM clock 0, in s since 1970. `persists`: it outlives this connection.
        `exits_unclaimed`: accesses that no device claims are exits too, of no device.
        """
        request = protocol.CreateVm(name, live, rtc_base, persists, exits_unclaimed)
        info, passed = self.connection.ask_for_descriptors(request, protocol.VmInfo)
        return Vm(self.connection, info, rtc_base, passed)

    def open_vm(self, vm: str) -> Vm:
        """A VM that persists, by its name or number."""
        info, passed = self.connection.ask_for_descriptors(protocol.OpenVm(vm), protocol.VmInfo)
        opened = Vm(self.connection, info, info.rtc_base, passed)
        opened.refresh()
        return opened

    def vms(self) -> tuple[protocol.VmInfo, ...]:
        return self.connection.ask(protocol.ListVms(), protocol.Vms).vms
