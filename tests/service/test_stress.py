"""Eight clients load, replace and unload programs while vCPUs run; most are killed, at random moments.

The service neither dies nor keeps anything, and the clients that live see right values throughout.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from devbc_lang import compile_source
from tests.service.probe import STEP, answers, read, vm_with_probe
from tests.service.served import Holdings, Served, nothing_left, served
from tests.service.stress import GOOD, VICTIM, kill, spawn

CLIENTS = 8
LIVING = 2
#: Growth of the service's memory that is no leak: fragmentation, stacks and arenas that it keeps, in KiB.
SLACK = 24 << 10
SECONDS = [pytest.param(6, id="short"), pytest.param(180, id="long", marks=pytest.mark.long)]


def campaign(service: Served, folder: Path, seconds: float, seed: int) -> tuple[int, int, float]:
    """Run clients for so long: how many were killed, how many values were checked, the slowest request."""
    source = random.Random(seed)
    until = time.monotonic() + seconds
    reports = [folder / f"{seed}-{number}" for number in range(LIVING)]
    living = [
        spawn(service.socket, 1000 * seed + number, until, GOOD, report)
        for number, report in enumerate(reports)
    ]
    number = 1000 * seed + LIVING
    victims: list[int] = []
    killed = 0
    while time.monotonic() < until:
        while len(victims) < CLIENTS - LIVING:
            number += 1
            victims.append(spawn(service.socket, number, until + 60, VICTIM, folder / str(number)))
        time.sleep(source.random() / 5)
        kill(victims.pop(source.randrange(len(victims))))
        killed += 1
        assert service.process.poll() is None
    for victim in victims:
        kill(victim)
    for pid in living:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "a client that lives saw what is wrong"
    assert [*folder.glob("*.error")] == []
    found = [report.read_text().split() for report in reports]
    for each in found:
        assert int(each[0]) > 0
    return killed, sum(int(each[0]) for each in found), max(float(each[1]) for each in found)


@pytest.mark.parametrize("seconds", SECONDS)
def test_clients_that_are_killed(tmp_path: Path, seconds: float) -> None:
    with served(tmp_path) as service:
        held: list[Holdings] = []
        for seed in (1, 2):
            with nothing_left(service):
                killed, checked, slowest = campaign(service, tmp_path, seconds, seed)
                service.forget_what_persists()
            held.append(service.holdings())
            vms = sum(each["event"] == "vm" for each in service.log())
            print(f"{killed} killed, {checked} values, slowest {slowest:.2f} s, {vms} VMs, {held[-1]}")
            assert killed > 2 * seconds
        assert held[1].memory - held[0].memory < SLACK


#: A program whose verification and compilation take about a second each.
_LARGE = "device large { state { w: [u64; 32] } bank mmio[0x1000] {" + "".join(
    f"""
    register r{number} at {8 * number} : u64 {{
        read {{
            var sum: u64 = 0;
            for i in 0..30 {{ if state.w[i] & 1 != 0 {{ sum += state.w[(i + {number}) & 31]; }} }}
            return sum;
        }}
    }}"""
    for number in range(100)
) + "} }"  # fmt: skip


def test_uploads_of_others_hold_up_no_guest(tmp_path: Path) -> None:
    """Verification is Python's work, and takes turns; exits and small requests go on beside it.

    What is not asserted: LLVM serves one caller at a time, so that attaching may wait for another's.
    """
    large = compile_source(_LARGE, "large.dev").object
    with served(tmp_path) as service, nothing_left(service):
        if (pid := os.fork()) == 0:
            try:
                with service.connect("greedy") as greedy:
                    while True:
                        vm = greedy.create_vm()
                        vm.add_device("large", large, {"mmio": 0}).attach()
                        vm.destroy()
            finally:
                os._exit(1)
        try:
            with service.connect("beside") as hypervisor:
                vm, _ = vm_with_probe(hypervisor, engine="interp")
                vcpu = vm.create_vcpu(256)
                slowest, expected, until = 0.0, 1, time.monotonic() + 4
                while time.monotonic() < until:
                    begin = time.monotonic()
                    assert answers(vcpu, read(STEP) * 256) == [*range(expected, expected + 256)]
                    vm.figures()
                    vm.status()
                    slowest = max(slowest, time.monotonic() - begin)
                    expected += 256
        finally:
            kill(pid)
        print(f"slowest {1000 * slowest:.0f} ms, {expected} values")
        assert slowest < 1
        assert sum(each["event"] == "vm" for each in service.log()) > 2
