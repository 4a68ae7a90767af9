"""How a service begins and ends, who may use it, and what it does about clients that do not do their part."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import devbc.service.framing as framing
from devbc import limits
from devbc.client import Hypervisor
from devbc.diagnostics import Rejected
from devbc.service import protocol
from tests.service.probe import KEEP, MOVE, RING, STEP, VALUE, answers, read, vm_with_probe, write
from tests.service.served import Served, await_, nothing_left, served

FULL = (1 << 64) - 2


def test_its_socket_is_its_owners(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with served(tmp_path) as service:
            mode = service.socket.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_turned_away(tmp_path: Path) -> None:
    """Also if the file lets them in: the service asks the system who it is."""
    script = f"""
import os, sys
from devbc.client import connect
os.seteuid(65534)
try:
    connect({str(tmp_path / "devbc.sock")!r})
except Exception as error:
    print(error)
"""
    with served(tmp_path) as service:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(folder.stat().st_mode | 0o011)

        def said() -> str:
            return subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True
            ).stdout

        assert "permission denied" in said()
        service.socket.chmod(0o666)
        assert "user 65534 may not use this service" in said()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_users_service_is_not_trusted(tmp_path: Path) -> None:
    """Somebody who took the name first would see what clients share. Root knows what it does."""
    script = f"""
import os, socket
from devbc.client import connect
path = {str(tmp_path / "s")!r}
other = socket.socket(socket.AF_UNIX)
other.bind(path)
os.chmod(path, 0o666)
os.seteuid(65533)
other.listen()
os.seteuid(0)
os.seteuid(65534)
try:
    connect(path)
except Exception as error:
    print(error)
"""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "is another user's, 65533's" in said


def test_a_second_service_leaves_the_first_alone(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        second = subprocess.run(
            [sys.executable, "-c", "import sys, pathlib\n"
             "from devbc.service.server import Service\nService(pathlib.Path(sys.argv[1])).run()",
             str(service.socket)], capture_output=True, text=True,
        )  # fmt: skip
        assert second.returncode != 0
        assert "another service listens on" in second.stderr
        service.connect().close()


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    first = Served(tmp_path)
    first.process.kill()
    first.process.wait()
    assert first.socket.is_socket()
    with served(tmp_path) as service:
        service.connect().close()
    assert {each.name for each in tmp_path.iterdir()} == {"log"}


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    from devbc.service.server import Service

    path = tmp_path / "file"
    path.write_text("mine")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Rejected, match="cannot listen"):
        Service(path)
    assert path.read_text() == "mine"
    with pytest.raises(Rejected, match="cannot listen"):
        Service(tmp_path / ("long" * 100))
    with pytest.raises(Rejected, match="cannot listen"):
        Service(tmp_path / "no" / "folder")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_nobody_there(tmp_path: Path) -> None:
    from devbc.client import connect

    with pytest.raises(Rejected, match="no service at"):
        connect(tmp_path / "none")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_vcpus_run_and_clients_wait(tmp_path: Path, number: signal.Signals) -> None:
    """What waits for it is told; a client that is late with an answer is, too."""
    service = Served(tmp_path)
    with service.connect() as hypervisor:
        vm, _ = vm_with_probe(hypervisor, live=True)
        busy = vm.create_vcpu(8)
        busy.feed(read(VALUE) * 8)
        busy._feed.tail = 1 << 62
        busy.start()
        late = vm.create_vcpu(8)
        late.feed(read(KEEP))
        exits = late.run()
        next(exits)
        ends: list[Any] = []

        def wait_for(vcpu: Any) -> None:
            try:
                ends.append(vcpu.exit() if vcpu.wait(20) else "nothing")
            except Rejected as rejected:
                ends.append(rejected.diagnostics[0].code.id)

        assert vm.timers is not None
        waiting = [threading.Thread(target=wait_for, args=[each]) for each in (busy, vm.timers)]
        for each in waiting:
            each.start()
        begin = time.monotonic()
        service.process.send_signal(number)
        assert service.process.wait(10) == 0
        for each in waiting:
            each.join()
        assert all(each in (None, "S006") for each in ends), ends
        late.answer(5)
        with pytest.raises((StopIteration, Rejected)):
            next(exits)
        assert time.monotonic() - begin < 10
        with pytest.raises(Rejected, match="closed the connection"):
            vm.status()
    assert service.failures() == []


def test_who_waits_for_a_service_that_is_killed_is_told(tmp_path: Path) -> None:
    service = Served(tmp_path)
    with service.connect() as hypervisor:
        vm, _ = vm_with_probe(hypervisor)
        vcpu = vm.create_vcpu(8)
        vcpu.feed(read(KEEP))
        exits = vcpu.run()
        next(exits)
        service.process.kill()
        service.process.wait()
        vcpu.answer()
        with pytest.raises(Rejected, match="is gone"):
            next(exits)


# Clients that do not do their part.


@pytest.fixture(name="service")
def _service(tmp_path: Path) -> Any:
    with served(tmp_path) as found:
        yield found


def works(service: Served) -> None:
    """Somebody else is served, and soon."""
    begin = time.monotonic()
    with service.connect() as hypervisor:
        vm, _ = vm_with_probe(hypervisor)
        assert answers(vm.create_vcpu(4), read(STEP) * 3) == [1, 2, 3]
    assert time.monotonic() - begin < 5


def test_half_a_message(service: Served) -> None:
    """Somebody stops in the middle: in a header, in a body, before any word."""
    begun = []
    with nothing_left(service):
        hello = protocol.encode(protocol.Hello(protocol.VERSION, "half"))
        for part in (b"", b"\1", struct.pack("<II", 100, 0), struct.pack("<II", len(hello), 0) + hello[:5]):
            raw = socket.socket(socket.AF_UNIX)
            raw.connect(str(service.socket))
            raw.sendall(part)
            begun.append(raw)
        works(service)
        for number, raw in enumerate(begun):
            raw.settimeout(limits.MESSAGE_SECONDS + 5)
            assert bool(raw.recv(4096)) is (number > 0)
            assert raw.recv(1) == b""
            raw.close()


def test_nobody_takes_the_answer(service: Served) -> None:
    """A client asks and asks, and reads nothing: after a while it is given up."""
    with nothing_left(service), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.socket))
        for message in (protocol.Hello(protocol.VERSION, "deaf"), protocol.CreateVm("deaf")):
            body = protocol.encode(message)
            raw.sendall(struct.pack("<II", len(body), 0) + body)
        body = protocol.encode(protocol.ListVms())
        raw.settimeout(1)
        with contextlib.suppress(OSError):  # a time-out, or a broken pipe
            while True:
                raw.sendall((struct.pack("<II", len(body), 0) + body) * 1000)
        works(service)
        assert await_(lambda: service.log()[-1]["event"] == "gone", limits.MESSAGE_SECONDS + 5)


def _blocked_eventfds(hypervisor: Hypervisor) -> tuple[Any, Any, list[int]]:
    """A VM whose signal and line write eventfds that are full and block."""
    vm, device = vm_with_probe(hypervisor)
    events = [os.eventfd(0), os.eventfd(0)]
    device.notify_signal("bell", events[0])
    device.notify_line("irq", events[1])
    for each in events:
        os.eventfd_write(each, FULL)
    return vm, device, events


def test_an_eventfd_that_blocks_the_service(service: Served) -> None:
    """A request that writes one is answered all the same, and its VM can be destroyed."""
    with nothing_left(service), service.connect() as hypervisor:
        vm, device, events = _blocked_eventfds(hypervisor)
        device.request(raise_=1)
        works(service)
        device.request(lower=1)
        device.request(raise_=1)
        vm.destroy()
        for each in events:
            assert os.eventfd_read(each) >= FULL
            os.close(each)


def test_an_eventfd_that_blocks_a_vcpu(service: Served) -> None:
    """The vCPU waits for its own client; replacing, stopping and destroying go on."""
    with nothing_left(service), service.connect() as hypervisor:
        vm, device, events = _blocked_eventfds(hypervisor)
        vcpu, other = vm.create_vcpu(8), vm.create_vcpu(8)
        # The client's own eventfd, too: it shares its flags with the service.
        os.set_blocking(vcpu.wake_fd, True)
        os.eventfd_write(vcpu.wake_fd, FULL)
        vcpu.feed(write(RING, 1) + write(MOVE, 1) + read(KEEP))
        vcpu.start()
        time.sleep(0.2)
        assert answers(other, read(VALUE)) == [1]
        device.attach("interp")
        works(service)
        vcpu.stop()
        vm.destroy()
        for each in events:
            os.close(each)


def test_a_client_is_killed_while_its_eventfd_blocks_the_service(service: Served) -> None:
    with nothing_left(service):
        pid = os.fork()
        if pid == 0:
            try:
                _, device, _ = _blocked_eventfds(service.connect())
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                while True:
                    device.request(raise_=1)
                    device.request(lower=1)
            finally:
                os._exit(1)
        os.waitpid(pid, 0)
        works(service)


def test_too_many_descriptors_at_once(service: Served) -> None:
    """What is passed and not taken is closed, by whoever has it."""
    with nothing_left(service):
        for count, announced in ((1, 0), (0, 1), (4, 3), (5, 5), (200, 200), (253, 4)):
            event = os.eventfd(0)
            raw = socket.socket(socket.AF_UNIX)
            raw.connect(str(service.socket))
            body = protocol.encode(protocol.Hello(protocol.VERSION, ""))
            socket.send_fds(raw, [struct.pack("<II", len(body), announced) + body], [event] * count)
            stream = framing.Stream(raw)
            reply, _ = stream.receive()
            assert b"S002" in reply
            os.close(event)
            raw.close()


def test_a_signal_ends_it_whichever_thread_it_comes_to(tmp_path: Path) -> None:
    """The system may give it to any; the one that waits for clients must hear of it."""
    service = Served(tmp_path)
    try:
        with service.connect("idle"):
            threads = {int(each) for each in os.listdir(f"/proc/{service.pid}/task")} - {service.pid}
            assert ctypes.CDLL(None).tgkill(service.pid, min(threads), signal.SIGTERM) == 0
            assert service.process.wait(10) == 0
    finally:
        service.process.kill()
        service.process.wait()
