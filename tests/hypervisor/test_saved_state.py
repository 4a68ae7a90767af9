"""Saving and restoring: a recording goes on where it was cut, programs change, files are damaged."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.abi import Op, Space
from devbc.catalog import load_machine
from devbc.diagnostics import Rejected
from devbc.engines.jit import JitEngine
from devbc.engines.native_interpreter import InterpreterEngine
from devbc.guests.recording import Recording, read_recording
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import ACCESS, MISMATCH
from devbc.hypervisor.run import Run
from devbc.hypervisor.saved_state import restore, save
from devbc.hypervisor.vm import VM
from devbc.hypervisor.wiring import WireSpec
from tests.hypervisor.machines import RecordingModel, device
from tests.hypervisor.torture import verified
from tests.shared import shared

BOOT = Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz"
ENGINES = {"jit": JitEngine, "interp": InterpreterEngine, "models": None}


@cache
def recording(path: Path) -> Recording:
    return read_recording(path)


def machine(found: Recording, engine: str, name: str = "pc") -> VM:
    devices, wires = load_machine(name)
    vm = VM(devices, wires, rtc_base=found.rtc_base)
    if made := ENGINES[engine]:
        vm.attach(made())
    return vm


def play(vm: VM, accesses: bytes | bytearray) -> None:
    run = Run(bytes(accesses))
    vm.run(run)
    assert not [index for index, outcome in enumerate(run.outcomes) if outcome & MISMATCH]


def halves(path: Path, cut: int, engines: tuple[str, str], most: int, name: str = "pc") -> None:
    found = recording(path)
    accesses = bytes(found.accesses[: most * ACCESS.size])
    before, after = accesses[: cut * ACCESS.size], accesses[cut * ACCESS.size :]
    first, second, unmoved = (machine(found, engine, name) for engine in (*engines, engines[0]))
    play(first, before)
    cut_there = save(first)
    assert restore(second, cut_there).misfits == ()
    assert save(second) == cut_there
    play(second, after)
    # The end of a run is an occasion for models: the one that is not moved pauses there, too.
    play(unmoved, before)
    play(unmoved, after)
    # A model may keep what a program computes: only programs must agree on every field.
    if "models" not in engines:
        assert save(second) == save(unmoved)


@pytest.mark.parametrize("engines", [("jit", "jit"), ("jit", "interp"), ("interp", "jit"), ("models", "jit")])
def test_a_recording_goes_on_in_another_vm(engines: tuple[str, str]) -> None:
    most = 20_000 if "models" in engines else 100_000
    for cut in (1, Random(str(engines)).randrange(most)):
        halves(BOOT, cut, engines, most)


@pytest.mark.parametrize("seed", range(2))
def test_anywhere_in_the_boot(seed: int) -> None:
    count = len(recording(BOOT).accesses) // ACCESS.size
    halves(BOOT, Random(seed).randrange(count), ("jit", "jit"), count)


def test_another_guest() -> None:
    path = shared("traces") / "x86-pc-userland.tsv.gz"
    halves(path, Random(7).randrange(50_000), ("jit", "jit"), 50_000)


OLD = """
device gauge {
    struct Channel { reload: u16, count: u32 }
    state {
        total: u32, wide: u64, gone: u8, turned: u8, level: u8 = 9,
        list: [u8; 4], channel: [Channel; 2],
    }
    timer tick;
    timer spare;
    line out;
    line extra;
    bank pio[4] { register level at 0 : u8 { read { return state.level; } } }
}
"""
NEW = """
device gauge {
    struct Channel { reload: u16, count: u64, gate: bool }
    state {
        fresh: u32 = 77, wide: u8, total: u64, turned: [u8; 2], level: u8 = 3,
        list: [u8; 5], channel: [Channel; 2],
    }
    line out;
    timer tick;
    bank pio[4] { register level at 0 : u8 { read { return state.level; } } }
}
"""
WIRES = (WireSpec("gauge", "out", guest=5),)


class Still(RecordingModel):
    """A model that does nothing of itself."""


def gauge(source: str) -> VM:
    return VM([DeviceSpec("gauge", verified(source), Still, {"pio": 0x40})], WIRES)


def filled() -> VM:
    vm = gauge(OLD)
    (found,) = vm.devices
    scratch: Any = found.area.view
    scratch.total, scratch.wide, scratch.gone, scratch.turned, scratch.level = 0xDEAD_BEEF, 300, 1, 2, 55
    scratch.list[:] = [1, 2, 3, 4]
    scratch.channel[1].reload, scratch.channel[1].count = 0xFFFF, 0xFFFF_FFFF
    found.arm("tick", 1_000_000)
    found.arm("spare", 7)
    found.raise_line("out")
    found.raise_line("extra")
    return vm


def test_a_newer_program_takes_what_fits_and_names_the_rest() -> None:
    vm = gauge(NEW)
    misfits = {each.message for each in restore(vm, save(filled())).misfits}
    assert misfits == {
        "there is no field `gauge.gone`",
        "`gauge.wide` is of type u8, and the state has 300",
        "`gauge.turned` is an array of 2, and the state has 2",
        "`gauge.list` is an array of 5, and the state has an array of 4",
        "`gauge` has no timer `spare`",
        "`gauge` has no output line `extra`",
    }
    scratch: Any = vm.devices[0].area.view
    assert (scratch.total, scratch.level, scratch.fresh) == (0xDEAD_BEEF, 55, 77)
    assert (scratch.wide, list(scratch.turned), list(scratch.list)) == (0, [0, 0], [0] * 5)
    channel = scratch.channel[1]
    assert (channel.reload, channel.count, channel.gate) == (0xFFFF, 0xFFFF_FFFF, False)
    assert (vm.guest_lines, vm.guest_pending) == (1 << 5, 1 << 5)
    assert vm.access(Space.PIO, Op.READ, 0x40, 1, time=999_999) == 0x5A
    assert ("timer", "tick", 1_000_000, 1_000_000) not in vm.devices[0].model.seen  # type: ignore[union-attr]
    vm.access(Space.PIO, Op.READ, 0x40, 1, time=1_000_001)
    assert ("timer", "tick", 1_000_000, 1_000_000) in vm.devices[0].model.seen  # type: ignore[union-attr]


def test_lines_that_wait_and_signals_are_part_of_it() -> None:
    def make() -> VM:
        devices = [device("a", [], 0x100), device("b", [], 0x200)]
        return VM(devices, [WireSpec("a", "out", to_device="b", to_input="in0")])

    one, other = make(), make()
    one.devices[0].raise_line("out")
    one.devices[1].ports.signals = 1 << 3
    other.devices[0].raise_line("aux")
    assert restore(other, save(one)).misfits == ()
    assert other.devices[0].ports.levels == 1
    other.access(Space.PIO, Op.READ, 0x300, 1)
    assert other.devices[1].model.seen == [("signal", "tx"), ("line", "in0", 1)]  # type: ignore[union-attr]
    assert len(msgspec.msgpack.decode(save(other))["events"]) == 0


def test_a_live_clock_goes_on_from_where_it_was() -> None:
    one, other = VM(live=True), VM(live=True)
    one._clock_offset += 10**15
    before = one.now()
    restore(other, save(one))
    assert before <= other.now() < before + 10**11
    virtual = VM()
    restore(virtual, save(other))
    assert before <= virtual.now() <= other.now()


def test_devices_that_are_not_on_both_sides_are_named() -> None:
    one, other = VM([device("a", [], 0x100)]), VM([device("b", [], 0x100)])
    misfits = [each.message for each in restore(other, save(one)).misfits]
    assert misfits == ["there is no device `a`", "the state has no device `b`, which stays as it is"]
    assert {each.code.id for each in restore(other, save(one)).misfits} == {"H011"}


def test_not_while_it_runs() -> None:
    class Saves(RecordingModel):
        def read(self, bank: str, offset: int, size: int) -> int:
            save(vm)
            return 0

    vm = VM([DeviceSpec("gauge", verified(OLD), Saves, {"pio": 0x40})])
    with pytest.raises(Rejected, match="H012: vCPU 0 is running"):
        vm.access(Space.PIO, Op.READ, 0x40, 1)
    save(vm)


def check_hostile(data: bytes) -> None:
    vm = gauge(NEW)
    before = save(vm)
    try:
        restore(vm, data)
        refused = None
    except Rejected as rejected:
        refused = rejected
    after = save(vm)
    if refused:
        assert {each.code.id for each in refused.diagnostics} == {"H010"}
        assert after == before
    else:
        assert restore(vm, after).misfits == ()
        assert save(vm) == after


@cache
def state() -> bytes:
    return save(filled())


#: Some place in the file, modulo its length.
PLACES = st.integers(0, 1 << 16)


@settings(max_examples=300)
@given(st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_files_are_refused_or_understood(changes: list[tuple[int, int]]) -> None:
    data = bytearray(state())
    for place, value in changes:
        data[place % len(data)] = value
    check_hostile(bytes(data))


@given(PLACES)
def test_truncated_files_are_refused(length: int) -> None:
    with pytest.raises(Rejected, match="H010"):
        restore(gauge(NEW), state()[: length % len(state())])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=9), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip
FIELDS = ["total", "wide", "level", "turned", "list", "channel", "reload", "count", "gate", "_gap1", "fresh"]


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES | st.dictionaries(st.sampled_from(FIELDS), VALUES)))
def test_any_value_in_any_field(scratch: dict[str, Any]) -> None:
    found = msgspec.msgpack.decode(state())
    found["devices"]["gauge"]["scratch"] = scratch
    check_hostile(msgspec.msgpack.encode(found))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc0", b"\x91" * 100_000 + b"\xc0", b"\x81\x91\xc0\xc0", msgspec.msgpack.encode({"format": "x"})],
)
def test_what_is_no_state(data: bytes) -> None:
    with pytest.raises(Rejected, match="H010"):
        restore(gauge(NEW), data)


@pytest.mark.parametrize(
    ("field", "value"), [("version", 2), ("now", -1), ("now", 1.5), ("devices", []), ("other", 1)]
)
def test_states_of_another_kind(field: str, value: object) -> None:
    found = msgspec.msgpack.decode(state()) | {field: value}
    with pytest.raises(Rejected, match="H010"):
        restore(gauge(NEW), msgspec.msgpack.encode(found))
