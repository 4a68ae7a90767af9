"""Recordings through the service, models in this process: as many mismatches as in process, which is none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from devbc.client import Hypervisor
from devbc.client.replay import build_vm, replay
from devbc.guests.recording import Recording, read_recording
from tests.service.probe import BASE, ProbeModel, probe, vm_with_probe
from tests.service.served import Served, nothing_left
from tests.service.serving import pc
from tests.shared import shared

BOOT = Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz"
RANDOM = [
    f"random/{device}-{number}" for device in ("pit", "rtc", "pmtimer", "hpet", "uart") for number in (1, 2)
]
SHORT = ("boot", "random/pit-1", "random/hpet-1", "random/uart-1")


@cache
def recording(name: str) -> Recording:
    return read_recording(BOOT if name == "boot" else shared(f"traces/{name}.tsv.gz"))


def cases() -> Iterator[object]:
    """Every trace on every engine; what takes long, or says little more, is `long`."""
    for name in ("boot", "x86-pc-userland", *RANDOM):
        for engine in ("jit", "interp", ""):
            for vcpus, spins in ((1, 0), (1, 1000), (2, 0), (2, 1000)):
                short = name in SHORT and ((engine, vcpus, spins) in (("jit", 1, 1000), ("interp", 2, 0)))
                marks = () if short else (pytest.mark.long,)
                yield pytest.param(name, engine, vcpus, spins, marks=marks)


@pytest.mark.parametrize(("name", "engine", "vcpus", "spins"), [*cases()])
def test_every_value_is_the_recorded_one(
    service: Served, name: str, engine: str, vcpus: int, spins: int
) -> None:
    guest = recording(name)
    devices, wires, models = pc()
    with nothing_left(service), service.connect(name) as hypervisor:
        vm = build_vm(hypervisor, devices, wires, rtc_base=guest.rtc_base)
        for device in vm.devices if engine else ():
            device.attach(engine)
        result = replay(guest, vm, models, vcpus=vcpus, spins=spins)
    assert result.mismatches == ()
    assert result.total.accesses == len(guest)
    own = [tally for register, tally in result.registers.items() if register.device]
    share = sum(each.handled for each in own) / sum(each.accesses for each in own)
    assert share > 0.9 if engine else share == 0


@pytest.mark.parametrize("vcpus", [1, 2])
def test_timers_of_a_live_vm_have_models_too(hypervisor: Hypervisor, tmp_path: Path, vcpus: int) -> None:
    """A vCPU that has a line's change to wait for waits for the timer that is told before it."""
    path = tmp_path / "guest.tsv"
    access = f"0\t0\tpio\tread\t{BASE:#x}\t4\t0x0\tprobe\n"
    path.write_text("# exit-trace 1\n" + access * 200)
    vm, device = vm_with_probe(hypervisor, engine=None, live=True)
    source = vm.add_device("source", probe(), {"pio": 0x200})
    vm.wire("source.irq", "probe.in0")
    assert vm.timers is not None
    device.arm("tick", vm.status().now)
    assert vm.timers.wait(10)
    source.raise_line("irq")
    result = replay(read_recording(path), vm, {"probe": ProbeModel}, vcpus=vcpus)
    assert (result.total.accesses, result.total.mismatches) == (200, 0)
    told = [each[:2] for each in device.model.done if each[0] != "read"]
    assert told == [("timer", "tick"), ("line", "in0")]
