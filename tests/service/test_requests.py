"""Every request of the protocol, and every refusal: what is refused changes nothing, and says why."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

from devbc import limits
from devbc.abi import Space
from devbc.client import Hypervisor, Vm, hypercall
from devbc.client.models import Models
from devbc.diagnostics import Rejected
from devbc.hypervisor.layouts import Outcome
from devbc.service import protocol
from tests.service.probe import (
    ARM,
    BASE,
    KEEP,
    MOVE,
    RING,
    STEP,
    VALUE,
    ProbeModel,
    answers,
    probe,
    read,
    vm_with_probe,
    write,
)
from tests.service.served import Served, await_, served


def ask(hypervisor: Hypervisor, request: protocol.Message, *descriptors: int) -> protocol.Message:
    return hypervisor.connection.ask(request, protocol.Message, descriptors)


def refused(hypervisor: Hypervisor, request: protocol.Message, *descriptors: int) -> Rejected:
    with pytest.raises(Rejected) as caught:
        ask(hypervisor, request, *descriptors)
    return caught.value


# What is asked for is done.


@pytest.mark.parametrize("engine", ["jit", "interp"])
def test_a_program_answers_what_it_handles_and_the_model_the_rest(
    hypervisor: Hypervisor, engine: str
) -> None:
    vm, device = vm_with_probe(hypervisor, engine=engine)
    models = Models(vm, {"probe": ProbeModel})
    vcpu = vm.create_vcpu(16, spins=100)
    accesses = write(VALUE, 40) + read(STEP) + read(STEP) + write(KEEP, 7) + read(KEEP) + read(0x5000)
    assert answers(vcpu, accesses, models)[1:3] == [41, 42]
    assert device.model.done == [("write", KEEP - BASE, 7), ("read", KEEP - BASE)]
    assert [*vcpu.results("outcomes", "B")] == [
        Outcome.HANDLED, Outcome.HANDLED, Outcome.HANDLED, Outcome.DECLINED, Outcome.DECLINED,
        Outcome.UNCLAIMED,
    ]  # fmt: skip
    assert (device.scratch.value, device.scratch.kept) == (42, 7)
    figures = {each.section: each for each in vm.figures().handlers}
    assert figures["pio/read@0x4:4"].handled == 2
    assert figures["pio/read@0x8:4"].declined == 1


def test_attached_detached_and_replaced_while_it_runs(hypervisor: Hypervisor) -> None:
    """A guest that counts: each program adds another number, the model 1; no step is lost or done twice."""
    import threading

    vm, device = vm_with_probe(hypervisor, engine=None)
    models = Models(vm, {"probe": ProbeModel})
    vcpu = vm.create_vcpu(1 << 12, spins=1000)
    done = threading.Event()
    changes = 0

    def change() -> None:
        nonlocal changes
        while not done.is_set():
            for act in (device.attach, device.detach, lambda: device.attach("interp")):
                act()
                changes += 1

    changer = threading.Thread(target=change)
    changer.start()
    try:
        expected = 0
        while expected < 30 * 4096 or changes < 4:
            found = answers(vcpu, read(STEP) * 4096, models)
            assert found == [*range(expected + 1, expected + 4097)]
            expected += 4096
    finally:
        done.set()
        changer.join()
    assert device.scratch.value == expected


def test_a_replaced_program_goes_on_with_the_area(hypervisor: Hypervisor) -> None:
    vm, device = vm_with_probe(hypervisor)
    vcpu = vm.create_vcpu(4)
    assert answers(vcpu, read(STEP) * 2) == [1, 2]
    device.replace(probe(10), engine="interp")
    assert answers(vcpu, read(STEP) * 2) == [12, 22]
    info = ask(hypervisor, protocol.OpenDevice(vm.number, "probe"))
    assert isinstance(info, protocol.DeviceInfo)
    assert (info.object, info.engine) == (probe(10), "interp")


@pytest.mark.parametrize("arguments", [False, True])
def test_hypercalls_have_arguments_and_a_result(hypervisor: Hypervisor, arguments: bool) -> None:
    vm, _ = vm_with_probe(hypervisor)
    vcpu = vm.create_vcpu(4, arguments=arguments)
    given = array("Q", [30, 12, 0, 0, 0, 0]) if arguments else None
    vcpu.feed(hypercall(0x10), arguments=given)
    assert [*vcpu.run()] == []
    assert vcpu.answers[0] == (42 if arguments else 0)


def test_a_declined_hypercall_is_an_exit_with_its_arguments(hypervisor: Hypervisor) -> None:
    vm, device = vm_with_probe(hypervisor, engine=None)
    vcpu = vm.create_vcpu(4, arguments=True)
    vcpu.feed(hypercall(0x10), arguments=array("Q", range(1, 7)))
    for exit_ in vcpu.run():
        assert (exit_.device, exit_.kind, exit_.offset) == (device, "hypercall", 0)
        assert exit_.arguments == (1, 2, 3, 4, 5, 6)
        exit_.answer(99)
    assert [*vcpu.answers] == [99]


def test_a_ring_smaller_than_its_guest(hypervisor: Hypervisor) -> None:
    """Fed while it runs, by whoever answers; the ring goes round many times."""
    vm, _ = vm_with_probe(hypervisor)
    vcpu = vm.create_vcpu(8)
    vcpu.feed(read(STEP) * 5)
    fed = 5
    seen: list[int] = []
    for number in range(1, 200):
        assert [*vcpu.run()] == []
        every = vcpu.results("answers", "Q")
        seen += [every[index % 8] for index in range(len(seen), vcpu.done)]
        count = number % 8 + 1
        vcpu.feed(read(STEP) * count)
        fed += count
    assert [*vcpu.run()] == []
    assert seen == [*range(1, len(seen) + 1)]
    assert vcpu.done == fed
    with pytest.raises(ValueError, match="no room"):
        vcpu.feed(read(STEP) * 9)


def test_fed_while_an_exit_is_open(hypervisor: Hypervisor) -> None:
    vm, _ = vm_with_probe(hypervisor)
    vcpu = vm.create_vcpu(4)
    vcpu.feed(read(KEEP))
    seen = []
    for exit_ in vcpu.run():
        seen.append(exit_.offset)
        if len(seen) < 20:
            vcpu.feed(read(STEP) + read(KEEP))
        exit_.answer()
    assert seen == [KEEP - BASE] * 20
    assert vcpu.done == 39


def test_what_nobody_claims_is_an_exit_if_asked_for(hypervisor: Hypervisor) -> None:
    vm, _ = vm_with_probe(hypervisor, exits_unclaimed=True)
    vcpu = vm.create_vcpu(4)
    vcpu.feed(read(0x5000) + write(0x5004, 9))
    seen = []
    for exit_ in vcpu.run():
        assert exit_.device is None
        seen.append((str(exit_.kind), exit_.address, exit_.value))
        exit_.answer(77)
    assert seen == [("read", 0x5000, 0), ("write", 0x5004, 9)]
    assert vcpu.answers[0] == 77


def test_signals_lines_and_resampling_write_eventfds(hypervisor: Hypervisor) -> None:
    vm, device = vm_with_probe(hypervisor)
    bell, line, resample = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3))
    try:
        device.notify_signal("bell", bell)
        device.notify_line("irq", line)
        vm.wire("probe.irq", "guest.5")
        vm.set_level_triggered([5])
        vm.resample(5, resample)
        vcpu = vm.create_vcpu(8)
        answers(vcpu, write(RING, 1) * 3 + write(MOVE, 1) + write(MOVE, 1))
        # Each is told at least once, and no more often than it happened.
        assert 1 <= os.eventfd_read(bell) <= 3
        assert os.eventfd_read(line) == 1
        assert vm.status().guest_pending == 1 << 5
        vm.acknowledge(5)
        assert os.eventfd_read(resample) == 1
        assert vm.status().guest_pending == 1 << 5
        answers(vcpu, write(MOVE, 0))
        vm.acknowledge(5)
        assert vm.status().guest_pending == 0
        device.request(raise_=1)
        assert os.eventfd_read(line) == 1
        assert vm.status().guest_interrupts == 2
    finally:
        for each in (bell, line, resample):
            os.close(each)


def test_an_eventfd_takes_the_place_of_the_last(service: Served, hypervisor: Hypervisor) -> None:
    """However often it is asked for: a monitor that comes back brings its own, and holds no more for it."""
    vm, device = vm_with_probe(hypervisor)
    vm.wire("probe.irq", "guest.5")
    vm.set_level_triggered([5])
    events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(6)]
    told = {"signal": events[:2], "line": events[2:4], "resample": events[4:]}
    vcpu = vm.create_vcpu(4)
    try:
        held = 0
        for turn in range(2 * limits.NOTICES):
            device.notify_signal("bell", told["signal"][turn & 1])
            device.notify_line("irq", told["line"][turn & 1])
            vm.resample(5, told["resample"][turn & 1])
            held = held or service.holdings().descriptors
        assert service.holdings().descriptors == held
        answers(vcpu, write(RING, 1) + write(MOVE, 1))
        vm.acknowledge(5)
        for before, now in told.values():
            assert os.eventfd_read(now) == 1
            with pytest.raises(BlockingIOError):
                os.eventfd_read(before)
    finally:
        for each in events:
            os.close(each)


def test_an_eventfd_is_replaced_while_vcpus_write_it(hypervisor: Hypervisor) -> None:
    """Each is written from then on, and the one before not any more."""
    vm, device = vm_with_probe(hypervisor)
    vcpu = vm.create_vcpu(8)
    vcpu.feed(write(RING, 1) * 8)
    vcpu._feed.tail = 1 << 62
    events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]
    try:
        device.notify_signal("bell", events[0])
        vcpu.start()
        for turn in range(100):
            before, now = events[turn % 3], events[(turn + 1) % 3]
            device.notify_signal("bell", now)
            assert select.select([now], [], [], 10)[0], "it is not written"
            # Whoever was about to write when it was replaced has done so by now.
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(before)
            far = vcpu.done + 1000
            while vcpu.done < far:
                time.sleep(0.001)
            with pytest.raises(BlockingIOError):
                os.eventfd_read(before)
            os.eventfd_read(now)
    finally:
        vm.destroy()
        for each in events:
            os.close(each)


def test_signals_without_an_eventfd_come_with_the_next_exit(hypervisor: Hypervisor) -> None:
    vm, device = vm_with_probe(hypervisor)
    models = Models(vm, {"probe": ProbeModel})
    vcpu = vm.create_vcpu(8)
    answers(vcpu, write(RING, 1) + read(KEEP), models)
    assert device.model.done == [("signal", "bell"), ("read", KEEP - BASE)]


def test_wires_lead_to_inputs(hypervisor: Hypervisor) -> None:
    vm, _ = vm_with_probe(hypervisor)
    second = vm.add_device("second", probe(), {"pio": 0x200})
    vm.wire("probe.irq", "second.in0")
    vcpu = vm.create_vcpu(4)
    models = Models(vm, {"probe": ProbeModel, "second": ProbeModel})
    answers(vcpu, write(MOVE, 1) + read(VALUE), models)
    assert second.model.done == [("line", "in0", 1)]
    second.attach()
    answers(vcpu, write(MOVE, 0) + write(MOVE, 1) + read(VALUE), models)
    assert second.scratch.level == 1
    assert second.model.done == [("line", "in0", 1)]


@pytest.mark.parametrize("handled", [True, False])
def test_timers_of_a_live_vm_run_without_a_guest(hypervisor: Hypervisor, handled: bool) -> None:
    vm, device = vm_with_probe(hypervisor, engine="jit" if handled else None, live=True)
    deadline = vm.status().now + 20_000_000
    device.request(arm=1, deadlines=(deadline,))
    if handled:
        assert await_(lambda: device.scratch.ticks == 1)
    else:
        assert vm.timers is not None
        assert vm.timers.wait(10)
        exit_ = vm.timers.exit()
        assert exit_ is not None
        assert (exit_.kind, exit_.port, exit_.value) == ("timer", "tick", deadline)
        assert exit_.time >= deadline
        exit_.answer()
    assert vm.status().now >= deadline


def test_a_virtual_clock_is_the_guests(hypervisor: Hypervisor) -> None:
    vm, device = vm_with_probe(hypervisor)
    vcpu = vm.create_vcpu(4)
    answers(vcpu, write(ARM, 1000, time=500) + read(VALUE, time=999))
    assert (device.scratch.ticks, vm.status().now) == (0, 999)
    answers(vcpu, read(VALUE, time=1000))
    assert (device.scratch.ticks, vm.status().now) == (1, 1000)


def test_an_inquiry_has_no_effect(hypervisor: Hypervisor) -> None:
    vm, device = vm_with_probe(hypervisor)
    assert vm.inquire(Space.PIO, STEP, 4) == 1
    assert vm.inquire(Space.PIO, STEP, 4) == 1
    assert vm.inquire(Space.PIO, KEEP, 4) is None
    assert vm.inquire(Space.MMIO, 0, 8) is None
    assert device.scratch.value == 0


def test_a_vm_that_persists_is_found_again(service: Served, hypervisor: Hypervisor) -> None:
    with service.connect() as first:
        vm, device = vm_with_probe(first, "kept", persists=True, rtc_base=1_000, live=True)
        vcpu = vm.create_vcpu(4)
        assert answers(vcpu, read(STEP)) == [1]
        assert refused(first, protocol.CreateVm("kept", persists=True)).diagnostics[0].code.id == "S003"
        own = first.create_vm("own")
    for name in ("kept", str(vm.number)):
        found = hypervisor.open_vm(name)
        assert (found.number, found.rtc_base, found.info.client) == (vm.number, 1_000, "")
    assert refused(hypervisor, protocol.OpenVm(str(own.number)))
    # Its vCPUs were its client's; the next have their places, also many times over.
    for step in range(2, 2 * limits.VCPUS):
        with service.connect() as other:
            again = other.open_vm("kept")
            assert answers(again.create_vcpu(4), read(STEP)) == [step]
    # Also the thread of its timers is anybody's.
    found.device("probe").detach()
    found.device("probe").request(arm=1, deadlines=(0,))
    assert found.timers is not None
    assert found.timers.wait(10)
    found.timers.answer()
    found.destroy()
    assert refused(hypervisor, protocol.OpenVm("kept"))
    assert device.scratch.value == 2 * limits.VCPUS - 1


def test_a_destroyed_vm_is_nobodys(service: Served, hypervisor: Hypervisor) -> None:
    """Another client has it open: each of its requests is refused."""
    vm, _ = vm_with_probe(hypervisor, "shared", persists=True)
    with service.connect() as other:
        opened = other.open_vm("shared")
        vcpu = opened.create_vcpu(4)
        vcpu.feed(read(KEEP))
        exits = vcpu.run()
        next(exits)
        vm.destroy()
        # What waits for an answer is over; answering it now is answering nobody.
        vcpu.answer(1)
        assert [*exits] == []
        for act in (opened.refresh, opened.figures, opened.destroy, lambda: opened.create_vcpu(4)):
            with pytest.raises(Rejected, match="no VM"):
                act()


def test_a_vcpu_is_stopped_and_started_anywhere(hypervisor: Hypervisor) -> None:
    vm, _ = vm_with_probe(hypervisor)
    vcpu = vm.create_vcpu(8)
    vcpu.feed(read(STEP) + read(KEEP) + read(STEP))
    exits = vcpu.run()
    assert next(exits).offset == KEEP - BASE
    vcpu.stop()
    vcpu.answer(5)  # too late
    assert [*exits] == []
    # The access is still to be done.
    for exit_ in vcpu.run():
        exit_.answer(6)
    assert [*vcpu.answers] == [1, 6, 2]
    refusal = refused(hypervisor, protocol.StartVcpu(vm.number, vcpu.index))
    assert "is running" in refusal.diagnostics[0].message


def test_an_endless_ring_is_stopped(hypervisor: Hypervisor) -> None:
    """Its client says that it has written more than it holds: what is there is run round and round."""
    vm, _ = vm_with_probe(hypervisor)
    vcpu = vm.create_vcpu(8)
    vcpu.feed(read(VALUE) * 8)
    vcpu._feed.tail = 1 << 63
    vcpu.start()
    assert await_(lambda: vcpu.done > 1000)
    vcpu.stop()
    vcpu.start()
    vm.destroy()


# What is refused.

_OBJECT = probe()
_FAR = 1 << 70


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (protocol.Hello(protocol.VERSION, ""), "was said before"),
        (protocol.OpenVm("nobody's"), "no VM `nobody's`"),
        (protocol.DestroyVm(999), "no VM 999"),
        (protocol.CreateVm("", rtc_base=-1), "rtc_base"),
        (protocol.CreateVm("", rtc_base=1 << 50), "rtc_base"),
        (protocol.AddDevice(999, "x", _OBJECT, {"pio": 0}), "no VM 999"),
        (protocol.AddDevice(0, "x", b"", {"pio": 0}), "is empty"),
        (protocol.AddDevice(0, "x", _OBJECT[:1000], {"pio": 0}), ""),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": BASE}), "both claim"),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": -1}), "no address"),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": 1 << 63}), "no address"),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": 0xFFF0}), ""),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": 0x800, "mmio": 0}), ""),
        (protocol.AddDevice(0, "probe", _OBJECT, {"pio": 0x800}), "probe"),
        (protocol.AddDevice(0, "guest", _OBJECT, {"pio": 0x800}), "no name for a device"),
        (protocol.AddDevice(0, "a.b", _OBJECT, {"pio": 0x800}), "no name for a device"),
        (protocol.AddDevice(0, "", _OBJECT, {"pio": 0x800}), "no name for a device"),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": 0x800}, "helpers = 5"), "helpers"),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": 0x800}, "=" + "[" * 9_000), "TOML"),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": 0x800}, "a = " + "[" * 9_000), "nesting"),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": 0x800}, "a = " + "9" * 9_000), "number"),
        (protocol.AddDevice(0, "x", _OBJECT, {"pio": 0x800}, "effects = []"), ""),
        (protocol.OpenDevice(0, "x"), "no device `x`"),
        (protocol.ListDevices(999), "no VM 999"),
        (protocol.Attach(0, "x"), "no device `x`"),
        (protocol.Attach(0, "probe", "gpu"), "no engine `gpu`"),
        (protocol.Detach(0, "x"), "no device `x`"),
        (protocol.Replace(0, "x", _OBJECT), "no device `x`"),
        (protocol.Replace(0, "probe", _OBJECT, "gpu"), "no engine `gpu`"),
        (protocol.Replace(0, "probe", b"\x7fELF"), ""),
        (protocol.Wire(0, "probe.irq", "guest.64"), "guest.63"),
        (protocol.Wire(0, "probe.irq", "guest.-1"), "guest.63"),
        (protocol.Wire(0, "probe.irq", "probe.in0"), "circle"),
        (protocol.Wire(0, "probe.none", "guest.1"), "no output line"),
        (protocol.Wire(0, "probe", "guest.1"), "device.line"),
        (protocol.Wire(0, "probe.irq", "x.in0"), "no device `x`"),
        (protocol.Notify(0, "probe.bell"), "one descriptor"),
        (protocol.Notify(0, "probe.none"), "no signal"),
        (protocol.Notify(0, "probe.none", False), "no output line"),
        (protocol.Notify(0, "x.irq", False), "no device `x`"),
        (protocol.Resample(0, 3), "one descriptor"),
        (protocol.Resample(0, 64), "0 to 63"),
        (protocol.Resample(0, -1), "0 to 63"),
        (protocol.SetLevelTriggered(0, -1), "64 lines"),
        (protocol.Acknowledge(0, 64), "0 to 63"),
        (protocol.Acknowledge(0, -1), "0 to 63"),
        (protocol.Effects(0, "x", raise_=1), "no device `x`"),
        (protocol.CreateVcpu(0, 0), "power of two"),
        (protocol.CreateVcpu(0, -4), "power of two"),
        (protocol.CreateVcpu(0, 3), "power of two"),
        (protocol.CreateVcpu(0, 1 << 40), "power of two"),
        (protocol.CreateVcpu(0, 4, spins=-1), "spins"),
        (protocol.CreateVcpu(0, 4, spins=1 << 40), "spins"),
        (protocol.StartVcpu(0, 0), "no vCPU 0"),
        (protocol.StopVcpu(0, -1), "no vCPU -1"),
        (protocol.Inquire(0, "pio", BASE, 3), "3 bytes"),
        (protocol.Inquire(0, "csr", BASE, 4), "`csr`"),
        (protocol.GetFigures(-1), "no VM -1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, protocol.Message) else value[:12],
)  # fmt: skip
def test_refusals(service: Served, hypervisor: Hypervisor, message: Any, words: str) -> None:
    """VM 0 stands for one with a probe; it is as it was, and its client goes on."""
    import msgspec

    vm, _ = vm_with_probe(hypervisor)
    vcpu_before = vm.status()
    if getattr(message, "vm", None) == 0:
        message = msgspec.structs.replace(message, vm=vm.number)
    if isinstance(message, protocol.AddDevice) and message.policy == "effects = []":
        words = "effect"
    refusal = refused(hypervisor, message)
    assert any(words in each.message for each in refusal.diagnostics), refusal
    assert all(each.code.id != "S005" for each in refusal.diagnostics)
    assert msgspec.structs.replace(vm.status(), now=vcpu_before.now) == vcpu_before
    assert answers(vm.create_vcpu(4), read(STEP)) == [1]


def test_descriptors_that_are_no_eventfds(service: Served, hypervisor: Hypervisor, tmp_path: Path) -> None:
    vm, _ = vm_with_probe(hypervisor)
    one, other = socket.socketpair()
    pipe = os.pipe()
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    event = os.eventfd(0)
    try:
        before = service.holdings().descriptors
        for each in (one.fileno(), *pipe, file):
            refusal = refused(hypervisor, protocol.Notify(vm.number, "probe.bell"), each)
            assert "an eventfd" in refusal.diagnostics[0].message
        assert refused(hypervisor, protocol.Notify(vm.number, "probe.bell"), event, event)
        assert refused(hypervisor, protocol.ListVms(), event)
        assert service.holdings().descriptors == before
    finally:
        one.close()
        other.close()
        for each in (*pipe, file, event):
            os.close(each)


def test_another_version_is_told(service: Served, hypervisor: Hypervisor) -> None:
    from devbc.service.framing import Stream

    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.socket))
        stream = Stream(raw)
        stream.send(protocol.encode(protocol.Hello(protocol.VERSION + 1, "newer")))
        reply = protocol.decode_reply(stream.receive()[0])
        assert isinstance(reply, protocol.Refused)
        assert f"version {protocol.VERSION + 1}".encode() in reply.diagnostics[0]
        assert raw.recv(1) == b""


def test_nobody_speaks_before_hello(service: Served, hypervisor: Hypervisor) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.socket))
        body = protocol.encode(protocol.ListVms())
        raw.sendall(struct.pack("<II", len(body), 0) + body)
        assert b"Hello" in raw.recv(4096)
        assert raw.recv(1) == b""


# Limits.


def test_too_many_vms(hypervisor: Hypervisor) -> None:
    vms = [hypervisor.create_vm() for _ in range(limits.CLIENT_VMS)]
    assert "at most 16 VMs" in refused(hypervisor, protocol.CreateVm("")).diagnostics[0].message
    vms[3].destroy()
    hypervisor.create_vm()


def test_too_much_memory(hypervisor: Hypervisor) -> None:
    """Nothing is touched of it: what counts is what might be."""
    vm = hypervisor.create_vm()
    ring = protocol.CreateVcpu(vm.number, limits.GUEST_ACCESSES, turns=True, arguments=True)
    assert "MiB" in _until_refused(hypervisor, ring)
    vm.destroy()
    hypervisor.create_vm().create_vcpu(limits.GUEST_ACCESSES)


def test_too_many_vcpus_and_eventfds(hypervisor: Hypervisor) -> None:
    vm, _ = vm_with_probe(hypervisor)
    assert "16 vCPUs" in _until_refused(hypervisor, protocol.CreateVcpu(vm.number, 1))
    event = os.eventfd(0)
    try:
        for line in range(limits.GUEST_LINES):
            vm.resample(line, event)
        with pytest.raises(Rejected, match=r"descriptors for a client|256 eventfds"):
            _notify_of_more_and_more(vm, event)
    finally:
        os.close(event)


def _notify_of_more_and_more(vm: Vm, event: int) -> None:
    for number in range(limits.NOTICES):
        device = vm.add_device(f"probe{number}", probe(), {"pio": 0x1000 + 0x20 * number})
        device.notify_signal("bell", event)
        device.notify_line("irq", event)
        device.notify_line("aux", event)


def test_what_persists_is_counted_whoever_made_it(service: Served, hypervisor: Hypervisor) -> None:
    vm = hypervisor.create_vm("big", persists=True)
    try:
        for _ in range(2):
            with service.connect() as other:
                other.open_vm("big")
                for _ in range(2):
                    request = protocol.CreateVcpu(vm.number, limits.GUEST_ACCESSES, arguments=True)
                    ask(other, request)
                assert "MiB" in _until_refused(other, request)
    finally:
        vm.destroy()


def _until_refused(hypervisor: Hypervisor, request: protocol.Message, *descriptors: int) -> str:
    for _ in range(2000):
        try:
            ask(hypervisor, request, *descriptors)
        except Rejected as rejected:
            return str(rejected)
    raise AssertionError("there is no limit")


def test_too_many_clients(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        before = service.holdings()
        clients = [service.connect(f"client {number}") for number in range(limits.CLIENTS)]
        with pytest.raises(Rejected, match="64 clients"):
            service.connect()
        clients.pop().close()
        assert await_(lambda: _connects(service))
        for each in clients:
            each.close()
        assert service.settled(before).descriptors == before.descriptors


def _connects(service: Served) -> bool:
    try:
        service.connect().close()
    except Rejected:
        return False
    return True
