"""A service in a process of its own, for a test, and a PC to put into it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from devbc.catalog import bundled_devices, compile_object, find_machine, load_model
from devbc.client import connect
from devbc.diagnostics import Rejected
from devbc.hypervisor.wiring import WireSpec

_SERVE = "import sys, pathlib, devbc.service.server as s; s.Service(pathlib.Path(sys.argv[1])).run()"
_SECONDS = 30


@contextmanager
def serving(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service that listens on a socket; it has to end within `_SECONDS` of SIGTERM."""
    with subprocess.Popen([sys.executable, "-c", _SERVE, str(path)]) as service:
        try:
            await_socket(path, service)
            yield service
        finally:
            service.terminate()
            try:
                service.wait(_SECONDS)
            finally:
                service.kill()


def await_socket(path: Path, service: subprocess.Popen[Any]) -> None:
    """Wait until somebody listens on a socket, which is there a moment earlier."""
    limit = time.monotonic() + _SECONDS
    while True:
        assert service.poll() is None, "the service has ended"
        assert time.monotonic() < limit, "the service does not listen"
        with contextlib.suppress(Rejected), connect(path):
            return
        time.sleep(0.01)


@cache
def pc() -> tuple[
    tuple[tuple[str, bytes, Mapping[str, int]], ...], tuple[WireSpec, ...], Mapping[str, Callable[..., Any]]
]:
    """The machine `pc`: devices as name, object and addresses, wires, and a model for each device."""
    folder = bundled_devices()
    machine = find_machine("pc", [folder])
    devices = tuple(
        (each.name, compile_object(folder / each.type / f"{each.type}.dev"), each.at)
        for each in machine.devices
    )
    return devices, machine.wires, {each.name: load_model(folder / each.type) for each in machine.devices}
