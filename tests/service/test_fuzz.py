"""The protocol and the shared pages under fuzzing, with a well-behaved client beside it.

Its values stay right and its requests are answered within a bound; the service keeps nothing, and meets no
error of its own: no reply is S005, and its log has no traceback (`served`).
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.fuzz import REQUESTS, Fuzzer
from tests.service.hostile import hostile_guest
from tests.service.probe import STEP, answers, probe, read, vm_with_probe
from tests.service.served import Served, nothing_left, served

#: Seconds that a request of the well-behaved client may take, on a machine that is busy.
BOUND = 10.0
MESSAGES = [pytest.param(2_000, id="short"), pytest.param(200_000, id="long", marks=pytest.mark.long)]
GUESTS = [pytest.param(12, id="short"), pytest.param(600, id="long", marks=pytest.mark.long)]
SLACK = 24 << 10


class Beside(threading.Thread):
    """A client that does its part, again and again, and checks all that it sees."""

    def __init__(self, service: Served) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.done = threading.Event()
        self.checked = 0
        self.slowest = 0.0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error

    def _run(self) -> None:
        with self.service.connect("beside") as hypervisor:
            vm, device = vm_with_probe(hypervisor, engine="interp")
            vcpu = vm.create_vcpu(256)
            expected = 1
            while not self.done.is_set():
                begin = time.monotonic()
                found = answers(vcpu, read(STEP) * 256)
                assert found == [*range(expected, expected + 256)]
                expected += 256
                device.replace(probe(), engine="interp")
                self.slowest = max(self.slowest, time.monotonic() - begin)
                assert self.slowest < BOUND
                self.checked += len(found)


@contextmanager
def beside(service: Served) -> Iterator[Beside]:
    client = Beside(service)
    client.start()
    try:
        yield client
    finally:
        client.done.set()
        client.join(60)
    assert not client.is_alive(), "the client beside waits for something"
    if client.error:
        raise client.error
    assert client.checked > 0


@pytest.mark.parametrize("messages", MESSAGES)
def test_messages(tmp_path: Path, messages: int) -> None:
    with served(tmp_path) as service:
        with nothing_left(service), beside(service) as client:
            fuzzer = Fuzzer(service.socket, random.Random(messages))
            begin, warm = time.monotonic(), None
            while fuzzer.sent < messages:
                fuzzer.step()
                if warm is None and fuzzer.sent > messages // 2:
                    warm = service.holdings()
            fuzzer.close()
            service.forget_what_persists()
            seconds = time.monotonic() - begin
        after = service.holdings()
        assert warm is not None
        print(
            f"{fuzzer.sent} messages, {seconds:.0f} s, {client.checked} values, slowest {client.slowest:.2f}"
        )
        print(service.first, warm, after, fuzzer.met)
        assert "S005" not in fuzzer.met
        # It got far: requests were done, not only refused.
        assert fuzzer.met["Done"] > messages // 40
        assert fuzzer.met["S003"] > messages // 40
        assert fuzzer.met["S002"] > messages // 40
        assert len(REQUESTS) > 20
        assert after.memory - warm.memory < SLACK


@pytest.mark.parametrize("guests", GUESTS)
def test_pages(tmp_path: Path, guests: int) -> None:
    """Random bytes in run pages, rings, areas and eventfds while vCPUs run; the clients are killed."""
    source = random.Random(guests)
    with served(tmp_path) as service:
        with nothing_left(service), beside(service) as client:
            for number in range(guests):
                if (pid := os.fork()) == 0:
                    try:
                        hostile_guest(service.socket, random.Random(number))
                    finally:
                        os._exit(0)
                time.sleep(0.3 + source.random() / 2)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        print(f"{guests} guests, {client.checked} values, slowest {client.slowest:.2f}", service.holdings())
