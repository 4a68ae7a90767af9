"""Effects that models ask for through the service come about as they do in process, in every order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devbc.abi import Op, Space
from devbc.client.models import Models
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.vm import VM
from devbc.hypervisor.wiring import WireSpec
from devbc.program.elf import load_object
from devbc.verifier import verify_program
from tests.service.probe import BASE, KEEP, VALUE, ProbeModel, answers, probe, read, write
from tests.service.served import Served, nothing_left

#: What a model does in one answer: a letter each.
ACTS: dict[str, Callable[[Any], None]] = {
    "R": lambda host: host.raise_line("irq"),
    "L": lambda host: host.lower_line("irq"),
    "r": lambda host: host.raise_line("aux"),
    "l": lambda host: host.lower_line("aux"),
    "a": lambda host: host.arm("tick", 1),
    "A": lambda host: host.arm("tick", 0),
    "c": lambda host: host.cancel("tick"),
}
#: Both lines lead to the guest's line 3 and to another device, so that their order is seen.
WIRES = (
    WireSpec("probe", "irq", guest=3),
    WireSpec("probe", "aux", guest=3),
    WireSpec("probe", "irq", guest=4),
    WireSpec("probe", "irq", "first", "in0"),
    WireSpec("probe", "aux", "second", "in0"),
)
AT = {"probe": BASE, "first": 0x200, "second": 0x300}


def model(acts: Iterator[str], done: list[Any]) -> Callable[[Any, Any], ProbeModel]:
    """Models that note what happens, and do the next acts when KEEP is written."""

    class Acting(ProbeModel):
        def write(self, bank: str, offset: int, size: int, value: int) -> None:
            done.append("write")
            for each in next(acts):
                ACTS[each](self.host)

        def line(self, name: str, level: int) -> None:
            done.append((self.number, level))

        def timer(self, name: str, deadline: int) -> None:
            done.append((name, deadline))

        def __init__(self, scratch: Any, host: Any) -> None:
            super().__init__(scratch, host)
            self.number = next(_numbers)

    from itertools import count

    _numbers = count()
    return Acting


def in_process(scripts: list[str]) -> tuple[Any, ...]:
    done: list[Any] = []
    make = model(iter(scripts), done)
    verified = verify_program(load_object(probe(), name="probe"))
    vm = VM([DeviceSpec(name, verified, make, {"pio": at}) for name, at in AT.items()], WIRES)
    for _ in scripts:
        vm.access(Space.PIO, Op.WRITE, KEEP, 4, 0)
        done.append((vm.guest_lines, vm.guest_pending, vm.guest_interrupts))
    vm.access(Space.PIO, Op.READ, VALUE, 4, time=10)
    return tuple(done)


def through_the_service(service: Served, scripts: list[str]) -> tuple[Any, ...]:
    done: list[Any] = []
    make = model(iter(scripts), done)
    with service.connect() as hypervisor:
        vm = hypervisor.create_vm()
        for name, at in AT.items():
            vm.add_device(name, probe(), {"pio": at})
        for wire in WIRES:
            vm.wire(
                f"{wire.device}.{wire.line}",
                f"guest.{wire.guest}" if wire.guest >= 0 else f"{wire.to_device}.{wire.to_input}",
            )
        models = Models(vm, dict.fromkeys(AT, make))
        vcpu = vm.create_vcpu(64)
        for _ in scripts:
            answers(vcpu, write(KEEP, 0), models)
            status = vm.status()
            done.append((status.guest_lines, status.guest_pending, status.guest_interrupts))
        answers(vcpu, read(VALUE, time=10), models)
    return tuple(done)


@pytest.mark.parametrize(
    "scripts",
    [
        ["R", "L", "RL", "LR", "RLR", "LRL", "RLRLRLR"],
        ["Rr", "Lr", "rL", "lR", "rR", "rlRL", "RrLl", "lLrR"],
        ["rR", "lL", "rR", "Ll", "LRlr", "rlrl"],
        ["a", "c", "ac", "ca", "aca", "cac", "aA", "Aa"],
        ["aRcLA", "Ra", "lcrA"],
    ],
)  # fmt: skip
def test_effects_come_in_the_order_of_the_model(service: Served, scripts: list[str]) -> None:
    with nothing_left(service):
        assert through_the_service(service, scripts) == in_process(scripts)


@pytest.mark.parametrize("count", [20, pytest.param(2000, marks=pytest.mark.long)])
def test_effects_of_any_model(service: Served, count: int) -> None:
    source = random.Random(4)
    for _ in range(count):
        scripts = ["".join(source.choices([*ACTS], k=source.randrange(8))) for _ in range(12)]
        assert through_the_service(service, scripts) == in_process(scripts), scripts


def test_effects_outside_of_exits(service: Served) -> None:
    """A model's other threads ask for them too: the same, one request each."""
    with service.connect() as hypervisor:
        vm = hypervisor.create_vm()
        device = vm.add_device("probe", probe(), {"pio": BASE})
        vm.wire("probe.irq", "guest.3")
        models = Models(vm, {"probe": ProbeModel})
        host = device.model.host
        for _ in range(3):
            host.raise_line("irq")
            host.raise_line("irq")
            host.lower_line("irq")
        assert vm.status().guest_interrupts == 3
        host.arm("tick", 5)
        host.cancel("tick")
        host.arm("tick", 7)
        answers(vm.create_vcpu(4), read(VALUE, time=10), models)
        assert device.model.done == [("timer", "tick", 7), ("read", 0)]
        with pytest.raises(LookupError, match="no output line `nmi`"):
            host.raise_line("nmi")
