"""A small device for tests of the service, its model, and accesses to it."""

from __future__ import annotations

from array import array
from functools import cache
from typing import Any

from devbc.abi import Op, Space
from devbc.client import Hypervisor, Vm, access
from devbc.client.device import Device
from devbc.client.vcpu import Vcpu
from devbc.hypervisor.layouts import ACCESS
from devbc_lang import compile_source

#: Where the probe sits.
BASE = 0x100
VALUE, STEP, KEEP, RING, MOVE, ARM = (BASE + 4 * number for number in range(6))

#: `{step}` is what a read of STEP adds: programs that differ in it can replace each other.
_SOURCE = """
device probe {
    line irq;
    line aux;
    input in0;
    timer tick;
    signal bell;

    state {
        value: u32,
        kept: u32,       // declined: the model's
        level: u32,      // of in0
        ticks: u32,
    }

    bank pio[0x20] {
        register value at 0 : u32 { read { return state.value; } write(v) { state.value = v; } }
        register step at 4 : u32 {
            read {
                let next = state.value + {step};
                state.value = next;
                return next;
            }
        }
        register keep at 8 : u32 { read { decline; } write(v) { decline; } }
        register ring at 12 : u32 { write(v) { state.value = v; signal bell; } }
        register move at 16 : u32 {
            write(v) { if v & 1 != 0 { raise irq; } else { lower irq; } }
        }
        register arm at 20 : u32 { write(v) { arm tick at u64(v); } }
    }

    on in0(level) { state.level = u32(level); }
    on tick(deadline) { let t = state.ticks; state.ticks = t + 1; }

    hypercall 0 add(a: u64, b: u64) -> u64 { return a + b; }
}
"""


@cache
def probe(step: int = 1) -> bytes:
    """The object of the probe."""
    return compile_source(_SOURCE.replace("{step}", str(step)), "probe.dev").object


class ProbeModel:
    """What answers where the program does not; `done` is what it was asked."""

    def __init__(self, scratch: Any, host: Any) -> None:
        self.scratch, self.host = scratch, host
        self.done: list[tuple[Any, ...]] = []

    def reset(self) -> None:
        self.scratch.value = 0

    def read(self, bank: str, offset: int, size: int) -> int:
        self.done.append(("read", offset))
        if offset == STEP - BASE:
            self.scratch.value += 1
        return int(self.scratch.kept if offset == KEEP - BASE else self.scratch.value)

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        self.done.append(("write", offset, value))
        if offset == KEEP - BASE:
            self.scratch.kept = value
        else:
            self.scratch.value = value

    def timer(self, name: str, deadline: int) -> None:
        self.done.append(("timer", name, deadline))

    def line(self, name: str, level: int) -> None:
        self.done.append(("line", name, level))

    def signal(self, name: str) -> None:
        self.done.append(("signal", name))


def read(address: int, *, time: int = 0) -> bytes:
    return access(Space.PIO, Op.READ, address, 4, time=time)


def write(address: int, value: int, *, time: int = 0) -> bytes:
    return access(Space.PIO, Op.WRITE, address, 4, value, time=time)


def vm_with_probe(
    hypervisor: Hypervisor, name: str = "", *, engine: str | None = "jit", **keywords: Any
) -> tuple[Vm, Device]:
    """A VM with one probe."""
    vm = hypervisor.create_vm(name, **keywords)
    device = vm.add_device("probe", probe(), {"pio": BASE, "hypercall": 0x10})
    if engine:
        device.attach(engine)
    return vm, device


def answers(vcpu: Vcpu, accesses: bytes, models: Any = None) -> list[int]:
    """Run accesses on a vCPU whose ring they fill no more than once; what each returned."""
    first = vcpu.done
    vcpu.feed(accesses)
    if models is not None:
        models.run(vcpu)
    else:
        for exit_ in vcpu.run():
            exit_.answer()
    assert vcpu.guest is not None
    count = len(accesses) // ACCESS.size
    assert vcpu.done == first + count
    every: array[int] = vcpu.results("answers", "Q")
    return [every[index % vcpu.guest.capacity] for index in range(first, first + count)]
