"""Programs of mc146818 and uart16550 against their models: nobody can tell who answered."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devices.bench import Bench, program
from tests.devices.twins import Twins, described

FEW = settings(max_examples=40, deadline=None)
BYTES = st.integers(0, 255)
SECOND = 1_000_000_000


class Rtc(Twins):
    def state(self, bench: Bench) -> Any:
        """The area as the model would find it: looks at the calendar that programs noted are written down."""
        copy = type(bench.area).from_buffer_copy(bytes(bench.area))
        type(self.alone.model)(copy, bench)._catch_up()
        return described(copy)

    def get(self, register: int) -> int:
        self.write(0, register)
        return self.read(1)

    def put(self, register: int, value: int) -> None:
        self.write(0, register)
        self.write(1, value)


CALENDAR = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32, 0x37]
REGISTERS = st.one_of(st.sampled_from(CALENDAR), st.integers(0x0A, 0x0D), st.integers(0, 0x7F))
#: Values that are digits, modes, "any", and the rest.
VALUES = st.one_of(
    st.sampled_from([0x00, 0x02, 0x06, 0x12, 0x23, 0x26, 0x29, 0x42, 0x59, 0x70, 0x82, 0xC0]), BYTES
)
RTC_STEPS = st.one_of(
    st.tuples(st.just("advance"), st.one_of(st.integers(0, 2_000_000), st.integers(0, 3 * SECOND))),
    st.tuples(st.just("read"), REGISTERS),
    st.tuples(st.just("write"), REGISTERS, VALUES),
    st.tuples(st.just("update")),
    st.tuples(st.just("wide"), st.integers(0, 0xFFFF)),
)


@given(st.lists(RTC_STEPS, min_size=15, max_size=40))
@FEW
def test_mc146818(steps: list[tuple[Any, ...]]) -> None:
    rtc = Rtc("mc146818", start=1_000)
    for name, *operands in steps:
        match name, operands:
            case "advance", [ns]:
                rtc.advance(ns)
            case "read", [register]:
                rtc.get(register)
            case "write", [register, value]:
                rtc.put(register, value)
            case "update", []:  # to the last microsecond of a second
                now = rtc.alone.model._now()
                rtc.advance(max(SECOND - now % SECOND - 1_000, 0))
                rtc.get(0x0A)
            case "wide", [value]:
                rtc.write(0, value, 2)
                rtc.read(0, 2)


@given(
    moment=st.one_of(
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.integers(-9_223_372_036, 9_223_372_035).map(lambda seconds: seconds * SECOND),
    ),
    mode=st.integers(0, 3).map(lambda bits: bits << 1),
)
@FEW
def test_mc146818_shows_any_moment(moment: int, mode: int) -> None:
    """All that 64 bits of ns can name, in each of the four formats."""
    rtc = Rtc("mc146818", start=1_000)
    rtc.put(0x0B, mode)
    for bench in (rtc.alone, rtc.both):
        bench.area.time_offset = moment % (1 << 64)
    for register in (*CALENDAR, 0x0A):
        rtc.get(register)


class Uart(Twins):
    def state(self, bench: Bench) -> Any:
        """Programs send through the ring, the model does not: what counts is what was sent."""
        model = self.alone.model if bench is self.alone else self.with_programs.model
        return bytes(model.transmitted), bytes(model.waiting), described(bench.area, but=("_", "tx"))

    def receive(self, data: bytes) -> None:
        self.alone.model.receive(data)
        self.with_programs.model.receive(data)
        self.compare(f"{data!r} received")

    def receive_break(self) -> None:
        self.alone.model.receive_break()
        self.with_programs.model.receive_break()
        self.compare("a break")


#: A machine has one of them; with both, they are two ways to one device.
BANKS = st.sampled_from(["pio", "mmio"])
UART_STEPS = st.one_of(
    st.tuples(st.just("advance"), st.one_of(st.integers(0, 1_000_000), st.integers(0, SECOND))),
    st.tuples(st.just("read"), st.integers(0, 7), BANKS),
    st.tuples(st.just("write"), st.integers(0, 7), BYTES, BANKS),
    st.tuples(
        st.just("control"),
        st.sampled_from([(3, 0x03), (2, 0x01), (2, 0xC1), (4, 0x10), (4, 0x0B), (1, 0x0F)]),
    ),
    st.tuples(st.just("receive"), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("break")),
    st.tuples(st.just("wide"), st.sampled_from([2, 4]), st.integers(0, 4)),
)


@given(st.lists(UART_STEPS, min_size=20, max_size=60))
@FEW
def test_uart16550(steps: list[tuple[Any, ...]]) -> None:
    uart = Uart("uart16550", start=1_000)
    for name, *operands in steps:
        match name, operands:
            case "advance", [ns]:
                uart.advance(ns)
            case "read", [offset, bank]:
                uart.read(offset, bank=bank)
            case "write", [offset, value, bank]:
                uart.write(offset, value, bank=bank)
            case "control", [(offset, value)]:
                uart.write(offset, value)
            case "receive", [data]:
                uart.receive(data)
            case "break", []:
                uart.receive_break()
            case "wide", [size, offset]:
                uart.read(offset, size)


@pytest.mark.parametrize("bank", ["pio", "mmio"])
def test_uart16550_declines_nothing_but_a_full_ring(bank: str) -> None:
    uart = Uart("uart16550")
    area = uart.both.area
    for offset in range(8):
        uart.write(offset, 0, bank=bank)
        uart.read(offset, bank=bank)
    assert uart.with_programs.declined == 0
    area.tx_tail = (area.tx_head - len(area.tx)) % (1 << 32)
    uart.both.write(0, 0x41, bank=bank)
    assert uart.with_programs.declined == 1
    assert uart.with_programs.model.transmitted.endswith(b"A")
    assert area.tx_tail == area.tx_head


@pytest.mark.parametrize("register", [*range(0x0E, 0x80), *CALENDAR, *range(0x0A, 0x0E)], ids=hex)
def test_mc146818_answers_every_read_while_nothing_is_due(register: int) -> None:
    rtc = Rtc("mc146818")
    rtc.get(register)
    assert rtc.with_programs.declined == 0


@pytest.mark.parametrize("device", ["mc146818", "uart16550"])
@given(area=st.integers(0, 255), flips=st.lists(st.tuples(st.integers(0, 1 << 16), BYTES), max_size=30))
@settings(max_examples=20, deadline=None)
def test_any_shared_area_gets_some_answer(device: str, area: int, flips: list[tuple[int, int]]) -> None:
    """A hostile userspace can make a device wrong for its own guest, and nothing else."""
    twins = Rtc(device) if device == "mc146818" else Uart(device)
    size = ctypes.sizeof(twins.both.area)
    image = bytearray([area] * size)
    for place, value in flips:
        image[place % size] = value
    twins.with_programs.model = _Silent()
    for offset in range(2 if device == "mc146818" else 8):
        for value in (0, 0xFF):
            ctypes.memmove(ctypes.addressof(twins.both.area), bytes(image), size)
            twins.both.read(offset)
            twins.both.write(offset, value)


class _Silent:
    """A model that answers nothing: what the programs do with any area is all that is asked."""

    def read(self, bank: str, offset: int, size: int) -> int:
        return 0

    def write(self, bank: str, offset: int, size: int, value: int) -> None: ...
    def timer(self, name: str, deadline: int) -> None: ...
    def signal(self, name: str) -> None: ...


def test_polling_the_line_status_takes_few_instructions() -> None:
    handlers = {handler.handler.section: handler for handler in program("uart16550").handlers}
    assert handlers["pio/read@0x5:1"].worst_case <= 80
    assert handlers["mmio/read@0x5:1"].worst_case == handlers["pio/read@0x5:1"].worst_case
