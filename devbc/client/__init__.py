"""The client of the service: a monitor's main loop in Python.

    with connect() as hypervisor:
        vm = hypervisor.create_vm("guest")
        timer = vm.add_device("pmtimer", compile_object(path), at={"pio": 0x608})
        timer.attach()
        vcpu = vm.create_vcpu(capacity=1024)
        vcpu.feed(access(Space.PIO, Op.READ, 0x608, 4))
        for exit in vcpu.run():
            exit.answer(my_timer(exit.kind, exit.offset, exit.value))

`devbc.client.models` puts device folders' `model.py` behind such a loop, `devbc.client.aio` is the same for
asyncio; `docs/vmm-guide.md` goes through all of it. What the service refuses is raised as
`devbc.diagnostics.Rejected`, as it is in process.
"""

from devbc.client.connection import Connection
from devbc.client.device import Device
from devbc.client.guest import access, hypercall
from devbc.client.hypervisor import Hypervisor, connect
from devbc.client.vcpu import Exit, ExitKind, Vcpu
from devbc.client.vm import Vm

__all__ = [
    "Connection", "Device", "Exit", "ExitKind", "Hypervisor", "Vcpu", "Vm", "access", "connect", "hypercall"
]  # fmt: skip
