"""What a client may have is counted as the system counts it, and is there for every client at once."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from devbc import limits
from devbc.client import Hypervisor
from devbc.diagnostics import Rejected
from devbc.service import protocol
from devbc.service.framing import Stream, close_all
from devbc.service.nudge import NUDGE
from devbc.service.server import Service
from devbc.service.session import Session
from tests.service.probe import BASE, STEP, answers, probe, read, vm_with_probe
from tests.service.served import Served, nothing_left, served


class Books:
    """A session in this process: requests, and what they cost by the session's books and by the system's."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._ends = socket.socketpair()
        self.session = Session(service, Stream(self._ends[0]), 3, os.geteuid(), os.getpid(), "books")
        self.vm = 0
        # What is loaded and opened once, and for good.
        self.ask(protocol.DestroyVm(self.made(live=True)))
        # What other tests have left to the collector is not closed in the middle of this one.
        gc.collect()
        self.before = _descriptors()

    def ask(self, request: protocol.Request, *passed: int) -> protocol.Reply:
        reply, found = self.session._answer(request, [*passed])
        close_all(found)
        return reply

    def made(self, *, live: bool, persists: bool = False) -> int:
        reply = self.ask(protocol.CreateVm("books", live=live, persists=persists))
        assert isinstance(reply, protocol.VmInfo)
        return reply.vm

    def check(self) -> None:
        """Both agree."""
        booked = sum(vm.cost[1] for vm in self.service.visible(self.session))
        assert _descriptors() - self.before == booked

    def close(self) -> None:
        self.session._clean_up()
        self._ends[1].close()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    # It only has to interrupt what a thread waits for, as in a service's process.
    before = signal.signal(NUDGE, lambda *_: None)
    try:
        service = Service(tmp_path / "devbc.sock")
        found = Books(service)
        yield found
        found.close()
        service._shut_down()
    finally:
        signal.signal(NUDGE, before)


@pytest.mark.parametrize("live", [False, True])
def test_descriptors_are_counted_as_the_system_counts_them(books: Books, live: bool) -> None:
    vm = books.made(live=live)
    books.check()
    books.ask(protocol.AddDevice(vm, "probe", probe(), {"pio": BASE}))
    books.check()
    books.ask(protocol.CreateVcpu(vm, 4, turns=True, arguments=True))
    books.check()
    event = os.eventfd(0)
    books.before += 1
    for _ in range(2):
        for request in (
            protocol.Notify(vm, "probe.bell"), protocol.Notify(vm, "probe.irq", signal=False),
            protocol.Resample(vm, 1),
        ):  # fmt: skip
            books.ask(request, event)
            books.check()
    books.ask(protocol.Attach(vm, "probe", "interp"))
    books.ask(protocol.Replace(vm, "probe", probe(2), "interp"))
    books.check()
    os.close(event)
    books.before -= 1
    books.ask(protocol.DestroyVm(vm))
    books.check()
    assert _descriptors() == books.before


def test_what_a_client_leaves_behind_costs_nothing_any_more(books: Books) -> None:
    vm = books.made(live=True, persists=True)
    before = books.service.find(vm, books.session).cost
    books.ask(protocol.CreateVcpu(vm, 4))
    books.check()
    books.service.find(vm, books.session).abandon(books.session.token)
    books.check()
    assert books.service.find(vm, books.session).cost == before


def test_no_thread_is_left_for_a_vcpu(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is refused as any that is too much, and what was begun is given back."""
    vm = books.made(live=False)
    books.ask(protocol.CreateVcpu(vm, 4))

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for request in (protocol.StartVcpu(vm, 0), protocol.CreateVm("none", live=True)):
            with pytest.raises(OSError, match="can't start new thread"):
                books.ask(request)
    books.check()
    books.ask(protocol.StartVcpu(vm, 0))


def test_no_descriptor_is_left_for_a_vcpu(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its eventfd is the last that it needs: its page and its guest's memory are given back."""
    vm = books.made(live=False)

    def eventfd(value: int, flags: int) -> int:
        raise OSError(errno.EMFILE, "none left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "eventfd", eventfd)
        for request in (protocol.CreateVcpu(vm, 4), protocol.CreateVm("none", live=True)):
            with pytest.raises(OSError, match="none left"):
                books.ask(request)
        books.check()
    books.ask(protocol.CreateVcpu(vm, 4))
    books.check()


@contextmanager
def _greedy(service: Served, clients: int, *, live: bool) -> Iterator[list[str]]:
    """Clients that take all VMs and vCPUs that they get; why each of them got no more."""
    with ExitStack() as everybody:
        greedy = [everybody.enter_context(service.connect(f"greedy {n}")) for n in range(clients)]
        yield [_take_all(each, live=live) for each in greedy]


def _take_all(hypervisor: Hypervisor, *, live: bool) -> str:
    try:
        while True:
            vm = hypervisor.create_vm(live=live)
            for _ in range(limits.VCPUS - 1 if live else 0):
                vm.create_vcpu(1)
    except Rejected as rejected:
        return str(rejected)


def _works(service: Served) -> None:
    with service.connect() as hypervisor:
        vm, _ = vm_with_probe(hypervisor, engine="interp")
        assert answers(vm.create_vcpu(4), read(STEP) * 3) == [1, 2, 3]


def test_every_client_gets_its_vms(tmp_path: Path) -> None:
    """Nine that take all that they may have: more than all of them together once had."""
    with served(tmp_path) as service, nothing_left(service), _greedy(service, 9, live=False) as reasons:
        assert {each.partition(":")[0] for each in reasons} == {"S004"}
        assert all(f"at most {limits.CLIENT_VMS} VMs" in each for each in reasons)
        _works(service)


def test_every_client_gets_its_descriptors(tmp_path: Path) -> None:
    """As many clients as there may be take their share of few descriptors; the service never runs out."""
    with served(tmp_path) as service, nothing_left(service):
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (1500, 1500))
        with _greedy(service, limits.CLIENTS - 1, live=True) as reasons:
            assert all("descriptors for a client" in each for each in reasons), reasons
            _works(service)
        assert not [each for each in service.log() if each["event"] in ("exhausted", "accept")]
