"""virtio_ctl: what virtio 1.2 asks, programs against model, and one body behind three transports."""

from __future__ import annotations

import ctypes
import re
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.abi import EXIT_FIELDS, Op, Space
from devbc.catalog import load_machine
from devbc.cli.replay import make_engine
from devbc.engines.jit import JitProgram, compile_program
from devbc.hypervisor.device import DeviceSpec
from devbc.hypervisor.layouts import EXIT
from devbc.hypervisor.vm import VM
from devbc.program.verified import HandlerClass
from tests.devices.bench import DEVICES, Bench, model_module, program
from tests.devices.twins import Twins, access_handlers, call_handlers, described
from tests.handlers import Input, interpret, run_native

DEVICE = "virtio_ctl"
BANKS = ("pio", "mmio")
VERSION_1, NOTIFICATION_DATA = 1 << 32, 1 << 38
#: Device status (2.1), written here once more: the model is the subject.
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
EINVAL, ENOSYS = (1 << 64) - 22, (1 << 64) - 38


class Ctl(Twins):
    """The twins; what userspace has heard is compared, too."""

    def __init__(self) -> None:
        super().__init__(DEVICE)
        self.heard: list[list[tuple[int, int]]] = [[], []]
        for bench_model, heard in zip((self.alone.model, self.with_programs.model), self.heard, strict=True):
            bench_model.on_notify = lambda queue, doorbell, heard=heard: heard.append((queue, doorbell))

    def state(self, bench: Bench) -> Any:
        model = self.alone.model if bench is self.alone else self.with_programs.model
        heard = self.heard[0 if bench is self.alone else 1]
        return described(bench.area), model.kicks, model.starts, heard

    def get(self, offset: int, bank: str = "mmio") -> int:
        return self.read(offset, 4, bank)

    def put(self, offset: int, value: int, bank: str = "mmio") -> None:
        self.write(offset, value, 4, bank)

    def start(self, features: int = VERSION_1 | NOTIFICATION_DATA) -> None:
        """A driver's way to DRIVER_OK with two queues (3.1.1)."""
        for value in (0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER):
            self.put(0x70, value)
        for word in (0, 1):
            self.put(0x24, word)
            self.put(0x20, features >> 32 * word & 0xFFFF_FFFF)
        self.put(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        assert self.get(0x70) & FEATURES_OK
        for queue in (0, 1):
            self.put(0x30, queue)
            assert self.get(0x44) == 0
            self.put(0x38, self.get(0x34))
            for offset in (0x80, 0x90, 0xA0):
                self.put(offset, 0x1000 + offset)
                self.put(offset + 4, queue)
            self.put(0x44, 1)
        self.put(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        assert self.get(0x70) == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK


# --- what the specification asks ---


@pytest.mark.parametrize("bank", BANKS)
def test_identification(bank: str) -> None:
    ctl = Ctl()
    assert ctl.get(0x000, bank).to_bytes(4, "little") == b"virt"
    assert ctl.get(0x004, bank) == 2
    assert ctl.get(0x008, bank) == 3
    assert ctl.get(0x00C, bank).to_bytes(4, "little") == b"devb"
    for word, wanted in ((0, 0), (1, 1 << 0 | 1 << 6), (2, 0), (0xFFFF_FFFF, 0)):
        ctl.put(0x14, word, bank)
        assert ctl.get(0x10, bank) == wanted


def test_a_driver_starts_the_device() -> None:
    ctl = Ctl()
    ctl.start()
    area = ctl.both.area
    assert ctl.with_programs.model.starts == 1
    assert [queue.size for queue in area.queue][:3] == [256, 64, 0]
    assert area.queue[1].descriptors == 1 << 32 | 0x1080
    assert area.queue[1].device_area == 1 << 32 | 0x10A0


@pytest.mark.parametrize(
    ("features", "accepted"),
    [
        (VERSION_1, True),
        (VERSION_1 | NOTIFICATION_DATA, True),
        (NOTIFICATION_DATA, False),  # a legacy driver
        (0, False),
        (VERSION_1 | 1 << 5, False),  # not offered
        (VERSION_1 | 1 << 63, False),
    ],
)
def test_features_that_cannot_be_accepted_leave_features_ok_clear(features: int, accepted: bool) -> None:
    """2.2.2; and a device whose features are not agreed on does not start."""
    ctl = Ctl()
    ctl.call(1, features)
    ctl.put(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK)
    assert ctl.get(0x70) == ACKNOWLEDGE | DRIVER | (FEATURES_OK if accepted else 0)
    ctl.put(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    assert bool(ctl.get(0x70) & DRIVER_OK) is accepted
    ctl.call(1, VERSION_1)  # too late for those that were accepted (2.2)
    wanted = features if accepted else VERSION_1
    assert ctl.both.area.driver_features[1] << 32 | ctl.both.area.driver_features[0] == wanted


def test_status_bits_are_cleared_by_reset_only() -> None:
    ctl = Ctl()
    ctl.put(0x70, FAILED | ACKNOWLEDGE)
    ctl.put(0x70, DRIVER)
    assert ctl.get(0x70) == FAILED | ACKNOWLEDGE | DRIVER
    ctl.put(0x70, NEEDS_RESET | 0xFFFF_FF00)  # the device's own bit, and what are no bits
    assert ctl.get(0x70) == FAILED | ACKNOWLEDGE | DRIVER
    ctl.put(0x70, 0x100)
    assert ctl.get(0x70) == FAILED | ACKNOWLEDGE | DRIVER
    ctl.put(0x70, 0)
    assert ctl.get(0x70) == 0


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("by", ["pio", "mmio", "status call", "reset call"])
def test_reset(by: str, started: bool) -> None:
    """2.4.1 and 4.2.2.1: status, interrupts, queues. While queues run it is userspace's."""
    ctl = Ctl()
    if started:
        ctl.start()
        ctl.put(0x50, 7 << 16 | 1)
        for model in (ctl.alone.model, ctl.with_programs.model):
            model.used_buffer()
        assert ctl.get(0x60) == 1
        assert ctl.both.levels["irq"] == 1
    else:
        # Whatever userspace, or an older program, has left there.
        for area in (ctl.alone.area, ctl.both.area):
            area.status = ACKNOWLEDGE | NEEDS_RESET
            for field in (
                "device_features_sel",
                "driver_features_sel",
                "queue_sel",
                "rung",
                "interrupt_status",
            ):
                setattr(area, field, 3)
            area.driver_features[0] = area.driver_features[1] = 5
            for queue in area.queue:
                for field in ("descriptors", "driver_area", "device_area", "size", "ready", "doorbell"):
                    setattr(queue, field, 7)
    declined = ctl.with_programs.declined
    match by:
        case "status call":
            assert ctl.call(11, 0) == 0
        case "reset call":
            assert ctl.call(12) == 0
        case bank:
            ctl.put(0x70, 0, bank)
    assert ctl.with_programs.declined - declined == started
    assert ctl.both.levels.get("irq", 0) == 0
    fresh = described(Ctl().both.area)
    assert described(ctl.both.area) == fresh


def test_a_notification_rings_once_until_userspace_looks() -> None:
    """Clear the flag, then signal: what was rung meanwhile is handed over in one go, with the last values."""
    ctl = Ctl()
    ctl.start()
    model = ctl.with_programs.model
    ctl.with_programs.model = _Deaf()
    for offset, value in ((0, 5), (1, 0x8001), (0, 9)):
        ctl.both.write(0x50, value << 16 | offset, 4, "mmio")
    assert ctl.with_programs.model.signals == ["kick"]
    assert ctl.both.area.rung == 0b11
    model.signal("kick")
    assert ctl.heard[1] == [(0, 9), (1, 0x8001)]
    ctl.both.write(0x50, 1, 4, "mmio")
    assert ctl.with_programs.model.signals == ["kick", "kick"]


class _Deaf:
    """A userspace that is slow to look."""

    def __init__(self) -> None:
        self.signals: list[str] = []

    def signal(self, name: str) -> None:
        self.signals.append(name)


def test_nothing_is_notified_before_driver_ok_nor_without_a_queue() -> None:
    ctl = Ctl()
    ctl.put(0x50, 0)
    assert ctl.call(13, 0, 0) == EINVAL
    ctl.start(VERSION_1)
    for value in (2, 8, 0xFFFF, 1 << 16):  # not ready, no queue, data that was not negotiated
        ctl.put(0x50, value)
        assert ctl.call(13, value & 0xFFFF, value >> 16) == EINVAL
    assert ctl.call(13, 1 << 16, 0) == EINVAL
    assert ctl.call(13, 0, 1 << 16) == EINVAL
    assert ctl.heard[1] == []
    ctl.put(0x50, 1)
    assert ctl.call(13, 0, 0) == 0
    assert ctl.heard[1] == [(1, 0), (0, 0)]


def test_interrupts_are_acknowledged_one_by_one() -> None:
    ctl = Ctl()
    models = (ctl.alone.model, ctl.with_programs.model)
    for model in models:
        model.used_buffer()
    assert ctl.get(0x60) == 0, "none before DRIVER_OK (2.1.2)"
    ctl.start()
    for model in models:
        model.used_buffer()
        model.change_config(b"abcdefgh")
    assert ctl.get(0x60) == 3
    assert ctl.get(0xFC) == 1
    assert ctl.read(0x102, 2, "mmio") == int.from_bytes(b"cd", "little")
    ctl.put(0x64, 1)
    assert ctl.get(0x60) == 2
    assert ctl.both.levels["irq"] == 1
    assert ctl.call(9, 0xFFFF_FFFF) == 0
    assert ctl.call(8) == 0
    assert ctl.both.levels["irq"] == 0
    for model in models:
        model.fail()
    assert ctl.call(10) & NEEDS_RESET
    assert ctl.both.levels["irq"] == 1


def test_calls_that_make_no_sense() -> None:
    ctl = Ctl()
    assert ctl.call(14) == ENOSYS
    assert ctl.call(1 << 31) == ENOSYS
    for number in (3, 4, 5, 6, 9, 11):
        assert ctl.call(number, 1 << 32) == EINVAL
    assert ctl.call(0) == VERSION_1 | NOTIFICATION_DATA


# --- programs against the model ---

#: Control registers, and what lies between and behind them.
OFFSETS = st.sampled_from([int(each) for each in model_module(DEVICE).Register]) | st.integers(0, 0x1FF)
WORDS = st.one_of(
    st.sampled_from([0, 1, 2, 7, 8, 0x0B, 0x0F, 0x41, 0x80, 0x8001, 1 << 16, 5 << 16 | 1, (1 << 32) - 1]),
    st.integers(0, (1 << 32) - 1),
)
REGISTER_VALUES = WORDS | st.sampled_from([VERSION_1, VERSION_1 | NOTIFICATION_DATA, 1 << 63, (1 << 64) - 1])
STEPS = st.one_of(
    st.tuples(st.just("start"), st.sampled_from([VERSION_1, VERSION_1 | NOTIFICATION_DATA])),
    st.tuples(st.just("read"), OFFSETS, st.sampled_from([4, 4, 4, 1, 2, 8]), st.sampled_from(BANKS)),
    st.tuples(st.just("write"), OFFSETS, st.sampled_from([4, 4, 4, 1, 2, 8]), st.sampled_from(BANKS), WORDS),
    st.tuples(st.just("call"), st.integers(0, 15), REGISTER_VALUES, REGISTER_VALUES),
    st.tuples(st.just("device"), st.sampled_from(["used_buffer", "fail"])),
)


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_virtio_ctl(steps: list[tuple[Any, ...]]) -> None:
    ctl = Ctl()
    for name, *operands in steps:
        match name, operands:
            case "start", [features]:
                ctl.put(0x70, 0)
                ctl.start(features)
            case "read", [offset, size, bank]:
                if bank == "mmio" or offset < 0x100:
                    ctl.read(offset, size, bank)
            case "write", [offset, size, bank, value]:
                if bank == "mmio" or offset < 0x100:
                    ctl.write(offset, value % (1 << 8 * size), size, bank)
            case "call", [number, *arguments]:
                ctl.call(number, *arguments)
            case "device", [event]:
                for model in (ctl.alone.model, ctl.with_programs.model):
                    getattr(model, event)()


#: A register's offset, the calls of its read and its write.
CALLED = [(0x10, 2, None), (0x14, None, 3), (0x20, None, 4), (0x24, None, 5), (0x30, None, 6)]
CALLED += [(0x34, 7, None), (0x60, 8, None), (0x64, None, 9), (0x70, 10, 11)]


@given(
    st.lists(st.tuples(st.sampled_from([*CALLED, (0x50, None, 13)]), st.booleans(), WORDS), max_size=30),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_one_body_behind_three_transports(
    steps: list[tuple[tuple[int, int | None, int | None], bool, int]], started: bool
) -> None:
    """Three devices, each reached in one way: the same answers, the same state, the same interrupts."""
    pio, mmio, calls = Ctl(), Ctl(), Ctl()
    for ctl in (pio, mmio, calls):
        if started:
            ctl.start()
    for (offset, read, write), is_read, value in steps:
        if is_read and read is not None:
            assert pio.get(offset, "pio") == mmio.get(offset) == calls.call(read)
        elif write is not None:
            pio.put(offset, value, "pio")
            mmio.put(offset, value)
            calls.call(write, *((value & 0xFFFF, value >> 16) if offset == 0x50 else (value,)))
        assert pio.state(pio.both) == mmio.state(mmio.both) == calls.state(calls.both)
        assert pio.both.edges == mmio.both.edges == calls.both.edges
    declined = {ctl.with_programs.declined for ctl in (pio, mmio, calls)}
    assert len(declined) == 1


def test_what_is_answered_in_the_kernel() -> None:
    answered = access_handlers(DEVICE)
    for bank in BANKS:
        written = {offset for name, op, offset, _ in answered if (name, op) == (bank, Op.WRITE)}
        assert written == {0x08, 0x14, 0x20, 0x24, 0x30, 0x50, 0x60, 0x64, 0x70, 0xFC}
    assert sorted(call_handlers(DEVICE)) == list(range(14))
    reads = [each for (_, op, _, _), each in answered.items() if op is Op.READ]
    assert {each.handler_class for each in reads} == {HandlerClass.PURE}
    ctl = Ctl()
    ctl.start()
    before = ctl.with_programs.declined
    for _ in range(3):
        ctl.put(0x50, 1)
        ctl.put(0x50, 0, "pio")
        ctl.call(13, 1, 2)
        ctl.put(0x64, ctl.get(0x60))
        ctl.call(0)
    assert ctl.with_programs.declined == before, "the hot path stays in the kernel"


def test_calls_have_names() -> None:
    names = program(DEVICE).program.names.calls
    assert names[11] == "status.write"
    assert names[13] == "queue_notify"
    assert len(names) == 14


@given(fill=st.integers(0, 255), flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255))))
@settings(max_examples=20, deadline=None)
def test_any_shared_area_gets_some_answer(fill: int, flips: list[tuple[int, int]]) -> None:
    """A hostile userspace can make the device wrong for its own guest, and nothing else."""
    ctl = Ctl()
    size = ctypes.sizeof(ctl.both.area)
    image = bytearray([fill] * size)
    for place, value in flips:
        image[place % size] = value
    ctl.with_programs.model = _Silent()
    for value in (0, 1, 8, (1 << 32) - 1):
        for offset in range(0, 0x100, 4):
            ctypes.memmove(ctypes.addressof(ctl.both.area), bytes(image), size)
            ctl.both.read(offset, 4, "mmio")
            ctl.both.write(offset, value, 4, "pio")
        for number in range(14):
            ctl.both.model.call(number, [value] * EXIT_FIELDS["arg"].count)


@cache
def _compiled() -> JitProgram:
    return compile_program(program(DEVICE))


@given(
    number=st.integers(0, 13),
    registers=st.lists(REGISTER_VALUES, min_size=6, max_size=6),
    words=st.lists(WORDS, min_size=1, max_size=92),
)
@settings(max_examples=150, deadline=None)
def test_calls_on_native_code(number: int, registers: list[int], words: list[int]) -> None:
    """The JIT against the reference interpreter, on any area: verdict, exit, what is left in the area."""
    handler = call_handlers(DEVICE)[number]
    exit_ = EXIT.struct(offset=number)
    for index, register in enumerate(registers):
        exit_.arg[index] = register
    size = len(program(DEVICE).program.scratch_image)
    area = b"".join(word.to_bytes(4, "little") for word in words) * (size // 4 + 1)
    given_ = Input(bytes(exit_), area[:size])
    assert run_native(_compiled().function(handler), given_) == interpret(handler.insns, given_)


class _Machine:
    """The device in a VM, in all three places at once."""

    PLACES: ClassVar = {"pio": 0xC000, "mmio": 0xA00_0000, "hypercall": 0x100}

    def __init__(self, engine: str) -> None:
        self.heard: list[tuple[int, int]] = []
        model = partial(
            model_module(DEVICE).Model, on_notify=lambda queue, bell: self.heard.append((queue, bell))
        )
        self.vm = VM([DeviceSpec("ctl", program(DEVICE), model, self.PLACES)])
        if (made := make_engine(engine)) is not None:
            self.vm.attach(made)

    def do(self, step: tuple[Any, ...]) -> int:
        match step:
            case "call", number, *arguments:
                return self.vm.hypercall(self.PLACES["hypercall"] + number, *arguments)
            case op, offset, bank, *value:
                return self.vm.access(Space(bank), Op(op), self.PLACES[bank] + offset, 4, *value)
        raise AssertionError(step)


#: A driver's way to DRIVER_OK, each step by another transport; notifications, nonsense, a reset.
SESSION: list[tuple[Any, ...]] = [
    *[("read", 0, bank) for bank in BANKS],
    ("call", 12),
    ("write", 0x70, "mmio", 1),
    ("write", 0x70, "pio", 3),
    ("call", 0),
    ("call", 1, VERSION_1 | NOTIFICATION_DATA),
    ("call", 11, 0xB),
    ("read", 0x70, "pio"),
    ("call", 6, 1),
    ("call", 7),
    ("write", 0x38, "mmio", 64),
    ("write", 0x44, "pio", 1),
    ("write", 0x70, "mmio", 0xF),
    ("write", 0x50, "mmio", 3 << 16 | 1),
    ("write", 0x50, "pio", 4 << 16 | 1),
    ("call", 13, 1, 5),
    ("call", 13, 1, 1 << 16),
    ("call", 13, 0, 0),
    ("call", 14),
    ("call", 20, 1, 2, 3, 4, 5, 6),
    ("call", 10),
    ("write", 0x70, "pio", 0),
    ("call", 10),
]


@pytest.mark.parametrize("engine", ["jit", "interp", "checked"])
def test_in_a_machine(engine: str) -> None:
    """The hypervisor's three kinds of exit, against the model alone."""
    alone, machine = _Machine("none"), _Machine(engine)
    for step in SESSION:
        assert machine.do(step) == alone.do(step), step
        areas = [described(each.vm.devices[0].area.view) for each in (alone, machine)]
        assert areas[0] == areas[1], step
    assert alone.heard == machine.heard == [(1, 3), (1, 4), (1, 5)]


def test_the_machine_file_of_the_page(tmp_path: Path) -> None:
    """README.md says how a machine places the device; that is what a guest then finds."""
    (at,) = re.findall(r"^at = .*$", (DEVICES / DEVICE / "README.md").read_text(), re.MULTILINE)
    machine = tmp_path / "board.toml"
    machine.write_text(f'[[device]]\nname = "ctl"\ntype = "{DEVICE}"\n{at}\n')
    vm = VM(*load_machine(str(machine)))
    assert vm.access(Space.MMIO, Op.READ, 0xA00_0000, 4) == 0x7472_6976
    assert vm.access(Space.PIO, Op.READ, 0xC004, 4) == 2
    assert vm.hypercall(0x100) == VERSION_1 | NOTIFICATION_DATA


class _Silent:
    """A model that answers nothing: what the programs do with any area is all that is asked."""

    def read(self, bank: str, offset: int, size: int) -> int:
        return 0

    def write(self, bank: str, offset: int, size: int, value: int) -> None: ...
    def call(self, number: int, args: Any) -> int:
        return 0

    def signal(self, name: str) -> None: ...
