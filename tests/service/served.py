"""A service under test: its process, what it holds, and what it has logged.

Everything that a test needs to say that the service is as it was: descriptors, threads, memory, VMs and
sessions, and that it has met no error of its own (a traceback in its log is a bug, whoever provoked it).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devbc.client import Hypervisor, connect
from devbc.diagnostics import Rejected

_SERVE = """
import sys, pathlib
from devbc.service.logs import Log
from devbc.service.server import Service
Service(pathlib.Path(sys.argv[1]), Log(sys.stderr)).run()
"""
SECONDS = 30
#: The service's threads when it has no clients: the one that accepts them, and the one that nudges.
_THREADS = 2


@dataclass(frozen=True)
class Holdings:
    """What a process holds: open descriptors, threads, and resident memory in KiB."""

    descriptors: int
    threads: int
    memory: int


class Served:
    """A service in a process of its own, on a socket in a folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.socket = folder / "devbc.sock"
        self.log_path = folder / "log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(self.socket)], stderr=log, env=os.environ | environment
            )
        assert await_(lambda: self.process.poll() is not None or self.answers()), "it does not answer"
        # Once it has done something, it holds what it always holds.
        with self.connect("first") as first:
            first.create_vm(live=True).acknowledge(0)
        await_(lambda: self.holdings().threads == _THREADS)
        self.first = self.holdings()

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self, name: str = "test") -> Hypervisor:
        return connect(self.socket, name=name)

    def answers(self) -> bool:
        """Whether a client can connect."""
        try:
            self.connect().close()
        except Rejected:
            return False
        return True

    def forget_what_persists(self) -> None:
        """Destroy the VMs that outlive their clients."""
        with self.connect("heir") as hypervisor:
            for each in hypervisor.vms():
                hypervisor.open_vm(str(each.vm)).destroy()

    def log(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines]

    def failures(self) -> list[str]:
        """Errors of the service's own; also lines that are no events, such as a thread's last words."""
        found = []
        for line in self.log_path.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                found.append(line)
                continue
            if "traceback" in event:
                found.append("".join(event["traceback"]))
        return found

    def holdings(self) -> Holdings:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
        )
        return Holdings(
            len(os.listdir(f"/proc/{self.pid}/fd")), int(status["Threads"]), int(status["VmRSS"].split()[0])
        )

    def settled(self, before: Holdings) -> Holdings:
        """What it holds once it holds no more descriptors and threads than before, or in the end."""
        await_(lambda: _as_few(self.holdings(), before))
        return self.holdings()

    def stop(self) -> int:
        """End it in an orderly way; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextmanager
def served(folder: Path, **environment: str) -> Iterator[Served]:
    """A service; it must end in an orderly way, and must have met no error of its own."""
    service = Served(folder, **environment)
    try:
        yield service
        assert service.process.poll() is None, "the service has died"
        assert service.stop() == 0
        assert not service.socket.exists()
        assert service.failures() == []
    finally:
        service.process.kill()
        service.process.wait()


@contextmanager
def nothing_left(service: Served) -> Iterator[None]:
    """What is done in here leaves neither descriptors nor threads in the service; it has no clients now."""
    before = service.first
    yield
    after = service.settled(before)
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)


def await_(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    """Wait until something holds; whether it does."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.005)
    return True


def _as_few(now: Holdings, before: Holdings) -> bool:
    return now.descriptors <= before.descriptors and now.threads <= before.threads
