"""A device's lock in a client's hands, also in those of a client that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from devbc.client.models import Models
from devbc.hypervisor.layouts import AREA_HEADER, Holder, Outcome
from devbc.service import protocol
from tests.service.probe import STEP, VALUE, ProbeModel, answers, read, vm_with_probe, write
from tests.service.served import Served, await_, nothing_left

#: Takes the lock of the probe of VM `locked`, leaves a change half done, says so, and waits to be killed.
_HOLDER = """
import sys, time
from devbc.client import connect
device = connect(sys.argv[1], name="holder").open_vm("locked").device("probe")
with device.lock:
    device.scratch.value = 99
    print("held", flush=True)
    time.sleep(60)
"""


def holder(service: Served) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, str(service.socket)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.stdout.close()
    return process


def test_while_a_client_holds_the_lock_mutating_handlers_decline(service: Served) -> None:
    with service.connect() as hypervisor:
        vm, device = vm_with_probe(hypervisor)
        vcpu = vm.create_vcpu(8)
        vcpu.feed(read(STEP) + read(VALUE) + read(STEP))
        outcomes = []
        with device.lock:
            device.scratch.value = 10
            for exit_ in vcpu.run():
                outcomes.append(exit_.outcome)
                exit_.answer(0)
        # Also a pure one that reads: what it would see is half a change.
        assert outcomes == [Outcome.CONTENDED] * 3
        assert answers(vcpu, read(STEP) + read(VALUE)) == [11, 11]
        assert {each.section: each.contended for each in vm.figures().handlers}["pio/read@0x4:4"] == 2


def test_a_client_that_dies_with_the_lock_leaves_the_device_to_its_model(service: Served) -> None:
    with nothing_left(service), service.connect() as hypervisor:
        vm, device = vm_with_probe(hypervisor, "locked", persists=True)
        vcpu = vm.create_vcpu(8)
        assert answers(vcpu, write(VALUE, 5) + read(STEP))[1] == 6
        process = holder(service)
        header = AREA_HEADER.struct.from_buffer(device._map)
        assert header.lock >= Holder.CLIENTS
        process.send_signal(signal.SIGKILL)
        process.wait()

        def info() -> protocol.DeviceInfo:
            return hypervisor.connection.ask(protocol.OpenDevice(vm.number, "probe"), protocol.DeviceInfo)

        assert await_(lambda: info().abandoned)
        assert info().engine == ""
        # The model takes the lock, and finds what was left.
        models = Models(vm, {})
        device.model = ProbeModel(device.scratch, None)
        assert (header.lock, header.sequence & 1) == (Holder.FREE, 0)
        with device.lock:
            assert device.scratch.value == 99
            device.scratch.value = 6
        seen = []
        vcpu.feed(read(STEP))
        for exit_ in vcpu.run():
            seen.append(exit_.outcome)
            exit_.answer(7)
        assert seen == [Outcome.NO_PROGRAM]
        # Attached again, it works as before.
        device.attach()
        assert not info().abandoned
        assert answers(vcpu, read(STEP) + read(VALUE), models) == [7, 7]
        events = [each for each in service.log() if each["event"] == "abandoned"]
        assert events[-1]["devices"] == ["probe"]
        vm.destroy()


def test_a_client_that_dies_with_its_own_vm(service: Served) -> None:
    """Killed while it holds a lock, an exit is open, and another vCPU of its runs without end."""
    script = """
import sys, time
from tests.service.probe import *
from devbc.client import connect
hypervisor = connect(sys.argv[1])
vm, device = vm_with_probe(hypervisor, live=True)
busy, waiting = vm.create_vcpu(8), vm.create_vcpu(8)
busy.feed(read(VALUE) * 8)
busy._feed.tail = 1 << 62
busy.start()
waiting.feed(read(KEEP))
next(waiting.run())
with device.lock:
    print("held", flush=True)
    time.sleep(60)
"""
    with nothing_left(service):
        root = Path(__file__).parents[2]
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(service.socket)], stdout=subprocess.PIPE, cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.stdout.close()
        process.kill()
        process.wait()
