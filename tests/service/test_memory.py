"""What is given back: code of replaced programs, and memory of VMs that are destroyed, at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.probe import VALUE, answers, probe, read, vm_with_probe
from tests.service.served import Served, served

#: Memory that an allocator may keep for a while, in KiB.
SLACK = 3 << 10


def growth(service: Served, act: Callable[[], None], rounds: int) -> int:
    """By how many KiB the service grows while something is done so often, after it was done before."""
    for _ in range(rounds // 4):
        act()
    before = service.holdings().memory
    for _ in range(rounds):
        act()
    return service.holdings().memory - before


@pytest.mark.parametrize(("engine", "rounds"), [("jit", 50), ("interp", 90)])
def test_code_of_programs_that_were_replaced(tmp_path: Path, engine: str, rounds: int) -> None:
    """llvmlite kept 80 KiB of each module that was ever compiled."""
    with served(tmp_path) as service, service.connect() as hypervisor:
        _, device = vm_with_probe(hypervisor, engine=engine)
        assert growth(service, lambda: device.replace(probe(), engine=engine), rounds) < SLACK


def test_memory_of_vms_that_were_destroyed(tmp_path: Path) -> None:
    """A ring of 12 MiB each, which the service has read and written; it does not wait for a collector."""
    count = 1 << 18

    def guest() -> None:
        vm, device = vm_with_probe(hypervisor, engine=None)
        device.attach("interp")
        answers(vm.create_vcpu(count), read(VALUE) * count)
        vm.destroy()

    with served(tmp_path) as service, service.connect() as hypervisor:
        assert growth(service, guest, 8) < 12 << 10
