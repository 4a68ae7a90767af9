"""The handlers in C do what the handlers do: verdict, exit and shared area, in many states of each device."""

from __future__ import annotations

import ctypes
import mmap
import random
from functools import partial
from typing import Any

import pytest

from bench.engines import JIT, JIT_V2, c_handlers
from bench.peers import pingpong
from bench.peers.c import CHandlers
from bench.runner import cpus, pinned
from bench.subjects import SUBJECTS, Access, Area, verified
from bench.subjects import handler as handler_of
from devbc.engines.clock import host_page, virtual_page
from devbc.engines.jit import JitEngine
from devbc.hypervisor.layouts import EXIT

HANDLERS = sorted({(each.device, access) for each in SUBJECTS for access in each.accesses}, key=str)
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_void_p] * 4)
_STATES = 400


def state(device: str, image: bytes, source: random.Random) -> bytearray:
    """A shared area near a subject's: a few bytes are anything, booleans stay booleans."""
    area = bytearray(image)
    kind = verified(device, "v4").program.scratch_type
    if kind is None:
        return area
    view = kind.from_buffer(area)
    next(each for each in SUBJECTS if each.device == device).prepare(view)
    for _ in range(source.randrange(12)):
        _disturb(view, source)
    return area


def _disturb(view: Any, source: random.Random) -> None:
    """Set one scalar, somewhere in a structure."""
    name = source.choice(view._fields_)[0]
    place, index = view, name
    value = getattr(view, name)
    while isinstance(value, ctypes.Array):
        place, index = value, source.randrange(len(value))
        value = place[index]
    if isinstance(value, ctypes.Structure):
        _disturb(value, source)
        return
    new: Any = source.choice((0, 1, 2, 3, 0x0A, 0x0B, 0x32, source.getrandbits(8), source.getrandbits(62)))
    if isinstance(value, bool):
        new = bool(new & 1)
    if isinstance(index, str):
        setattr(place, index, new)
    else:
        place[index] = new


@pytest.mark.parametrize(("device", "access"), HANDLERS, ids=[f"{d}-{a.c_name}" for d, a in HANDLERS])
def test_c_and_jit_agree(device: str, access: Access) -> None:
    compiled = c_handlers()
    if not isinstance(compiled, CHandlers):
        pytest.skip(compiled)
    program = verified(device, "v4")
    engines = {
        "C": _FUNCTION(compiled.address(access.c_name)),
        JIT: _function(device, "v4", access),
    }
    if not next(each for each in SUBJECTS if each.device == device).not_v2:
        engines[JIT_V2] = _function(device, "v2", access)
    source = random.Random(7)
    verdicts = set()
    for _ in range(_STATES):
        area = state(device, program.program.scratch_image or bytes(8), source)
        value = source.choice((access.value, source.getrandbits(8 * access.size)))
        offset = source.randrange(3) if access.section.startswith("pio/read@0x0-0x2") else access.offset
        now = source.choice((0, 1, 10**9, source.getrandbits(61)))
        clock_offset = source.choice((0, 5, (1 << 64) - 7))
        found = {
            name: _run(function, area, clock_offset, now, (offset, value, access.size))
            for name, function in engines.items()
        }
        assert len(set(found.values())) == 1, found
        verdicts.add(found[JIT][0])
    assert 1 in verdicts


def _function(device: str, cpu: str, access: Access) -> Any:
    loaded = JitEngine().load([verified(device, cpu)])
    return loaded.function(handler_of(verified(device, cpu), access.section))


def _run(
    function: Any, area: bytearray, clock_offset: int, now: int, access: tuple[int, int, int]
) -> tuple[int, bytes, bytes]:
    offset, value, size = access
    exit_ = EXIT.struct(offset=offset, value=value, size=size, clock_offset=clock_offset)
    copy = ctypes.create_string_buffer(bytes(area), max(8, len(area)))
    clock = virtual_page(now)
    verdict = function(*(ctypes.addressof(each) for each in (exit_, copy)), None, ctypes.addressof(clock))
    return verdict, bytes(exit_) if verdict else b"", copy.raw


def test_c_and_jit_read_one_clock() -> None:
    """On the host's clock their readings of the HPET's counter, in turn, never run backwards."""
    compiled = c_handlers()
    if not isinstance(compiled, CHandlers):
        pytest.skip(compiled)
    subject = next(each for each in SUBJECTS if each.name == "HPET counter read")
    area, clock = Area(subject, verified("hpet", "v4").program), host_page()
    functions = (
        _FUNCTION(compiled.address("c_hpet_counter_read")),
        _function("hpet", "v4", subject.accesses[0]),
    )
    readings = []
    for number in range(200):
        function = functions[number % 2]
        assert function(area.exit_address(0), area.address, None, ctypes.addressof(clock)) == 1
        readings.append(area.exits[0].value)
    assert readings == sorted(readings)
    assert readings[-1] - readings[0] < 10**8


@pytest.mark.parametrize("kind", ["eventfd", "pipe", "socket", "futex", "word"])
def test_ping_pongs_end(kind: str) -> None:
    """The other process answers every word, once, and is gone afterwards."""
    cpu = cpus()[0]
    make = (
        partial(pingpong.word, sleeps=kind == "futex")
        if kind in ("futex", "word")
        else partial(pingpong.descriptors, kind)
    )
    if kind == "word" and len(cpus()) == 1:
        pytest.skip("two that spin need a CPU each")
    other = cpus()[-1] if kind == "word" else cpu
    with pinned(cpus()), make(cpu, other) as ping:
        assert ping(20) > 0
    answered = mmap.mmap(-1, mmap.PAGESIZE)

    def answer() -> None:
        answered[0] += 1

    with pinned(cpus()), make(cpu, other, answer) as ping:
        assert ping(20) > 0
    assert answered[0] == 20
