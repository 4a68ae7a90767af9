"""A client that writes random bytes into everything that it shares with the service, while its vCPUs run."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

from devbc.client import connect
from devbc.client.device import Device
from devbc.client.vcpu import Vcpu
from devbc.diagnostics import Rejected
from devbc.hypervisor.layouts import RUN_PAGE, PageState, Reason
from tests.service.probe import ARM, BASE, KEEP, MOVE, RING, STEP, VALUE, probe, read, vm_with_probe, write

_GUEST = b"".join((
    read(VALUE), read(STEP), write(VALUE, 3), write(RING, 1), write(MOVE, 1), write(MOVE, 0), write(ARM, 5),
    write(KEEP, 1), read(KEEP),
))  # fmt: skip
_WORDS = (0, 1, 2, 3, 4, 0xFFFF_FFFF, 1 << 63, (1 << 64) - 1)


def hostile_guest(socket: Path, source: random.Random, seconds: float = 30) -> None:
    """Run until it is killed, or for so long."""
    hypervisor = connect(socket, name="hostile")
    vm, device = vm_with_probe(
        hypervisor, engine=source.choice(("jit", "interp")), live=source.random() < 0.5, exits_unclaimed=True
    )
    vm.add_device("second", probe(), {"pio": BASE + 0x100})
    vm.wire("probe.irq", "second.in0")
    vm.wire("probe.irq", "guest.3")
    event = os.eventfd(0)
    device.notify_signal("bell", event)
    device.notify_line("irq", event)
    turns = source.random() < 0.5
    vcpus = [vm.create_vcpu(16, turns=turns, arguments=True, spins=source.choice((0, 10_000))) for _ in "123"]
    for vcpu in vcpus:
        vcpu.feed(_GUEST)
        vcpu.start()
    writers = [threading.Thread(target=_write, args=(each, source, seconds), daemon=True) for each in vcpus]
    for each in writers:
        each.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _write_area(device, source)
        _tease(source.choice((event, *(each.wake_fd for each in vcpus))), source)
        with contextlib.suppress(Rejected):
            match source.randrange(30):
                case 0:
                    source.choice(vcpus).stop()
                case 1:
                    source.choice(vcpus).start()
                case 2:
                    device.replace(probe(), engine="interp")
                case 3:
                    device.request(raise_=source.getrandbits(32), lower=source.getrandbits(32), arm=255)
                case 4:
                    vm.acknowledge(3)


def _write(vcpu: Vcpu, source: random.Random, seconds: float) -> None:
    page, memory = vcpu._page_map, vcpu._memory
    native: Any = vcpu._native
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for target, size in ((page, RUN_PAGE.size), (memory, 64), (memory, len(memory))):
            place = source.randrange(size // 8) * 8
            value = source.choice(_WORDS) if source.random() < 0.7 else source.getrandbits(64)
            target[place : place + 8] = value.to_bytes(8, "little")
        if source.random() < 0.7:
            # As an answer would: with effects, or as nothing that there is.
            vcpu.page.effects.lower = source.getrandbits(32)
            setattr(vcpu.page.effects, "raise", source.getrandbits(32))
            vcpu.page.effects.arm = source.getrandbits(8)
            state = source.choice((PageState.ANSWERED, PageState.EFFECTS, PageState.RUNNING, 77))
            native.answer(vcpu._page_address, state)
        if source.random() < 0.3:
            # Many accesses that are as good as any.
            memory[mmap.PAGESIZE : mmap.PAGESIZE + len(_GUEST)] = _GUEST
            vcpu._feed.tail = source.choice((1 << 62, vcpu._feed.head + source.randrange(32)))
        if vcpu.page.reason == Reason.STOPPED:
            with contextlib.suppress(Rejected):
                vcpu.start()


def _write_area(device: Device, source: random.Random) -> None:
    header = ctypes.sizeof(ctypes.c_uint64) * 8
    place = source.randrange((header + len(device.bytes)) // 4) * 4
    device._map[place : place + 4] = source.randbytes(4)
    if source.random() < 0.5:
        device._map[0:8] = bytes(8)


def _tease(event: int, source: random.Random) -> None:
    """Fill an eventfd, so that writes to it block, or empty it."""
    os.set_blocking(event, source.random() < 0.5)
    with contextlib.suppress(BlockingIOError, OSError):
        os.set_blocking(event, False)
        if source.random() < 0.5:
            os.eventfd_write(event, (1 << 64) - 2)
        else:
            os.eventfd_read(event)
    os.set_blocking(event, source.random() < 0.5)
