"""The PL011: the model against a UART made of queues, and programs against the model."""

from __future__ import annotations

import ctypes
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from devbc.program.verified import HandlerClass
from tests.devices.bench import Bench, new_area, program
from tests.devices.twins import Twins, access_handlers, described

DEVICE = "pl011"
DR, RSR, FR, ILPR, IBRD, FBRD, LCR_H, CR = 0x00, 0x04, 0x18, 0x20, 0x24, 0x28, 0x2C, 0x30
IFLS, IMSC, RIS, MIS, ICR, DMACR, ID = 0x34, 0x38, 0x3C, 0x40, 0x44, 0x48, 0xFE0
FEN, LBE = 0x10, 0x80
RXFE, RXFF, TXFE = 0x10, 0x40, 0x80
RX, TX, BE, OE = 0x010, 0x020, 0x200, 0x400
#: Registers that are storage, and the bits they have (DDI 0183, chapter 3).
STORAGE = {ILPR: 0xFF, IBRD: 0xFFFF, FBRD: 0x3F, IFLS: 0x3F, DMACR: 0x07}
WORDS = st.one_of(st.sampled_from([0, 0x10, 0x20, 0x80, 0x7FF, 0xFFFF_FFFF]), st.integers(0, 0xFFFF_FFFF))


class Uart(Bench):
    def __init__(self) -> None:
        super().__init__(DEVICE, new_area(DEVICE))

    def get(self, register: int, size: int = 4) -> int:
        return self.read(register, size, "mmio")

    def put(self, register: int, value: int, size: int = 4) -> None:
        self.write(register, value, size, "mmio")

    @property
    def irq(self) -> bool:
        return bool(self.levels.get("irq"))


@pytest.fixture
def uart() -> Uart:
    return Uart()


def test_power_on(uart: Uart) -> None:
    """Reset values of DDI 0183, table 3-1."""
    values = {FR: RXFE | TXFE, CR: 0x300, IFLS: 0x12}
    for register in (DR, RSR, FR, *STORAGE, LCR_H, CR, IMSC, RIS, MIS, ICR):
        assert uart.get(register) == values.get(register, 0), hex(register)


def test_identification(uart: Uart) -> None:
    peripheral, cell = (
        sum(uart.get(first + 4 * index) << 8 * index for index in range(4)) for first in (ID, ID + 0x10)
    )
    assert peripheral & 0xFFF == 0x011
    assert peripheral >> 12 & 0xFF == 0x41, "designed by Arm"
    assert cell == 0xB105_F00D, "a PrimeCell"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_polled_transmission(uart: Uart, size: int) -> None:
    for character in b"hello":
        assert not uart.get(FR) & 0x28, "neither full nor busy"
        uart.put(DR, character, size)
    assert uart.model.transmitted == b"hello"


def test_a_sink_takes_the_place_of_the_buffer(uart: Uart) -> None:
    pieces: list[bytes] = []
    uart.model.sink = pieces.append
    uart.put(DR, 0x141)
    assert pieces == [b"A"]
    assert not uart.model.transmitted


def test_the_transmit_ring_goes_before_what_userspace_sends(uart: Uart) -> None:
    """A program has filled the ring, over its end and over the end of the index; then it declines."""
    size = len(uart.area.tx)
    start = (1 << 32) - 3
    uart.area.tx_tail = start
    for index in range(size):
        uart.area.tx[(start + index) % size] = index & 0xFF
    uart.area.tx_head = (start + size) & 0xFFFF_FFFF
    uart.put(DR, 0xEE)
    assert uart.model.transmitted == bytes(index & 0xFF for index in range(size)) + b"\xee"
    assert uart.area.tx_tail == uart.area.tx_head


def test_transmit_interrupt_comes_with_a_character_and_not_with_its_enable(uart: Uart) -> None:
    """UARTTXINTR: it is based on a transition, so that the first characters come from elsewhere."""
    uart.put(IMSC, TX)
    assert not uart.irq
    uart.put(DR, 0x41)
    assert uart.irq
    assert uart.get(MIS) == TX
    uart.put(ICR, TX)
    assert not uart.irq


def test_without_fifos_the_receiver_holds_one_character(uart: Uart) -> None:
    uart.put(IMSC, RX)
    uart.model.receive(b"ab")
    assert uart.get(FR) == TXFE | RXFF
    assert uart.area.rx_waiting
    assert uart.get(DR) == ord("a")
    assert uart.irq, "what waited follows at once"
    assert uart.get(DR) == ord("b")
    assert uart.get(FR) == TXFE | RXFE
    assert not uart.irq


def test_fifos_hold_16(uart: Uart) -> None:
    uart.put(LCR_H, FEN)
    data = bytes(range(0x41, 0x41 + 20))
    uart.model.receive(data[:15])
    assert uart.get(FR) == TXFE
    uart.model.receive(data[15:])
    assert uart.get(FR) == TXFE | RXFF
    assert bytes(uart.get(DR) for _ in data) == data
    assert not uart.area.rx_waiting


def test_turning_the_fifos_off_leaves_no_interrupt_without_a_character(uart: Uart) -> None:
    uart.put(LCR_H, FEN)
    uart.put(IMSC, RX)
    uart.model.receive(b"abc")
    assert uart.irq
    uart.put(LCR_H, 0)
    assert uart.get(FR) & RXFE
    assert not uart.irq


def test_loopback_keeps_the_line_out(uart: Uart) -> None:
    uart.put(CR, 0x300 | LBE)
    uart.model.receive(b"outside")
    uart.put(DR, 0x55)
    assert uart.get(DR) == 0x55
    assert not uart.model.transmitted
    uart.put(CR, 0x300)
    assert uart.get(DR) == ord("o")


def test_loopback_overruns(uart: Uart) -> None:
    """The FIFO stays as it is; UARTRSR.OE is set at once, and until UARTECR is written."""
    uart.put(CR, 0x300 | LBE)
    uart.put(DR, 0x55)
    uart.put(DR, 0xAA)
    assert uart.get(RIS) == TX | RX | OE
    assert uart.get(RSR) == 0x8
    assert uart.get(DR) == 0x55
    assert uart.get(RSR) == 0x8
    uart.put(RSR, 0)
    assert uart.get(RSR) == 0


def test_break(uart: Uart) -> None:
    uart.put(LCR_H, FEN)
    uart.put(IMSC, BE)
    uart.model.receive(b"a")
    uart.model.receive_break()
    uart.model.receive(b"b")
    assert uart.get(MIS) == BE
    assert uart.irq
    assert [(uart.get(DR), uart.get(RSR)) for _ in range(3)] == [(ord("a"), 0), (0x400, 4), (ord("b"), 0)]


def test_halves_of_a_register(uart: Uart) -> None:
    uart.put(IBRD, 0x1234, 2)
    uart.put(IBRD + 2, 0xFFFF, 2)
    assert uart.get(IBRD) == uart.get(IBRD, 2) == 0x1234
    assert uart.get(IBRD + 2, 2) == 0
    uart.put(DR + 2, 0x4141, 2)
    assert not uart.model.transmitted, "the data is in the lowest byte"


class AgainstQueues(RuleBasedStateMachine):
    """The datasheet's UART in loopback and out of it, its line fed in between."""

    def __init__(self) -> None:
        super().__init__()
        self.uart = Uart()
        self.stored = dict.fromkeys(STORAGE, 0) | {IFLS: 0x12}
        self.control, self.line_control = 0x300, 0
        self.fifo: deque[int] = deque()
        self.waiting: deque[int] = deque()
        self.raw = self.mask = self.status = 0
        self.sent = bytearray()

    @property
    def depth(self) -> int:
        return 16 if self.line_control & FEN else 1

    def arrive(self, character: int) -> None:
        if len(self.fifo) < self.depth:
            self.fifo.append(character)
            self.raw |= RX
        else:
            self.raw |= OE
            self.status |= 8

    def deliver(self) -> None:
        while self.waiting and len(self.fifo) < self.depth and not self.control & LBE:
            self.arrive(self.waiting.popleft())

    @rule(data=st.binary(min_size=1, max_size=20))
    def receive(self, data: bytes) -> None:
        self.uart.model.receive(data)
        self.waiting.extend(data)
        self.deliver()

    @rule()
    def receive_break(self) -> None:
        self.uart.model.receive_break()
        self.arrive(0x400)
        self.raw |= BE

    @rule(value=WORDS)
    def write_data(self, value: int) -> None:
        self.uart.put(DR, value)
        self.raw |= TX
        if self.control & LBE:
            self.arrive(value & 0xFF)
        else:
            self.sent.append(value & 0xFF)

    @rule()
    def read_data(self) -> None:
        expected = self.fifo.popleft() if self.fifo else None
        assert self.uart.get(DR) == (expected or 0)
        if expected is not None:
            self.status = self.status & 8 | expected >> 8
            if not self.fifo:
                self.raw &= ~RX
        self.deliver()

    @rule(value=WORDS)
    def write_control(self, value: int) -> None:
        self.uart.put(CR, value)
        self.control = value & 0xFF87
        self.deliver()

    @rule(value=WORDS)
    def write_line_control(self, value: int) -> None:
        self.uart.put(LCR_H, value)
        if (self.line_control ^ value) & FEN:
            self.fifo.clear()
            self.raw &= ~RX
        self.line_control = value & 0xFF
        self.deliver()

    @rule(value=WORDS)
    def write_mask(self, value: int) -> None:
        self.uart.put(IMSC, value)
        self.mask = value & 0x7FF

    @rule(value=WORDS)
    def clear_interrupts(self, value: int) -> None:
        self.uart.put(ICR, value)
        self.raw &= ~value

    @rule(value=WORDS)
    def clear_errors(self, value: int) -> None:
        self.uart.put(RSR, value)
        self.status = 0

    @rule(register=st.sampled_from([*STORAGE]), value=WORDS)
    def write_storage(self, register: int, value: int) -> None:
        self.uart.put(register, value)
        self.stored[register] = value & STORAGE[register]

    @rule(register=st.sampled_from([FR, RIS, MIS, ID, 0x08, 0x4C]), value=WORDS)
    def write_read_only(self, register: int, value: int) -> None:
        self.uart.put(register, value)

    @invariant()
    def registers_say_so(self) -> None:
        expected = self.stored | {
            CR: self.control, LCR_H: self.line_control, IMSC: self.mask, RIS: self.raw,
            MIS: self.raw & self.mask, RSR: self.status,
            FR: TXFE | (0 if self.fifo else RXFE) | (RXFF if len(self.fifo) >= self.depth else 0),
        }  # fmt: skip
        assert {register: self.uart.get(register) for register in expected} == expected
        assert self.uart.irq == bool(self.raw & self.mask)
        assert self.uart.model.transmitted == self.sent


TestAgainstQueues = AgainstQueues.TestCase
TestAgainstQueues.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


class Pair(Twins):
    def state(self, bench: Bench) -> Any:
        """Programs send through the ring, the model does not: what counts is what was sent."""
        model = self.alone.model if bench is self.alone else self.with_programs.model
        return bytes(model.transmitted), bytes(model.waiting), described(bench.area, but=("_", "tx"))

    def on_the_line(self, method: str, *operands: Any) -> None:
        for model in (self.alone.model, self.with_programs.model):
            getattr(model, method)(*operands)
        self.compare(method)


REGISTERS = st.sampled_from([DR, RSR, FR, LCR_H, CR, IMSC, RIS, MIS, ICR, ID, *STORAGE])
#: Offset in the register and size; some that no register answers.
PARTS = st.sampled_from([(0, 4), (0, 4), (0, 2), (2, 2), (0, 1), (1, 1), (3, 1)])
#: What drivers write.
CONTROL = [(LCR_H, FEN), (LCR_H, 0), (IMSC, RX | TX), (IMSC, 0), (CR, 0x300), (CR, 0x380), (ICR, TX)]
STEPS = st.one_of(
    st.tuples(st.just("read"), REGISTERS, PARTS),
    st.tuples(st.just("write"), REGISTERS, PARTS, WORDS),
    st.tuples(st.just("read"), st.just(DR), st.just((0, 4))),
    st.tuples(st.just("write"), st.just(DR), st.just((0, 1)), st.just(0x41)),
    st.tuples(st.just("control"), st.sampled_from(CONTROL)),
    st.tuples(st.just("receive"), st.sampled_from([b"a", b"ab", b"0123456789abcdefg"])),
    st.tuples(st.just("break")),
)


@given(st.lists(STEPS, min_size=20, max_size=60))
@settings(max_examples=80, deadline=None)
def test_programs_against_the_model(steps: list[tuple[Any, ...]]) -> None:
    uart = Pair(DEVICE)
    for name, *operands in steps:
        match name, operands:
            case "read", [register, (offset, size)]:
                uart.read(register + offset, size, "mmio")
            case "write", [register, (offset, size), value]:
                uart.write(register + offset, value & (1 << 8 * size) - 1, size, "mmio")
            case "control", [(register, value)]:
                uart.write(register, value, 4, "mmio")
            case "receive", [data]:
                uart.on_the_line("receive", data)
            case "break", []:
                uart.on_the_line("receive_break")


def test_programs_decline_loopback_and_a_full_ring_only() -> None:
    uart = Pair(DEVICE)
    for bank, op, offset, size in access_handlers(DEVICE):
        if op == "read":
            uart.read(offset, size, bank)
        else:
            uart.write(offset, 0, size, bank)
    assert uart.with_programs.declined == 0
    uart.write(CR, LBE, 4, "mmio")
    uart.write(DR, 0x41, 2, "mmio")
    assert uart.with_programs.declined == 1
    uart.write(CR, 0, 4, "mmio")
    area = uart.both.area
    area.tx_tail = (area.tx_head - len(area.tx)) % (1 << 32)
    uart.both.write(DR, 0x42, 2, "mmio")
    assert uart.with_programs.declined == 2
    assert uart.with_programs.model.transmitted.endswith(b"B")
    assert area.tx_tail == area.tx_head


@given(area=st.integers(0, 255), image=st.binary(min_size=84, max_size=84))
@settings(max_examples=20, deadline=None)
def test_any_shared_area_gets_some_answer(area: int, image: bytes) -> None:
    """A hostile userspace can make the UART wrong for its own guest, and nothing else."""
    uart = Pair(DEVICE)
    size = ctypes.sizeof(uart.both.area)
    uart.with_programs.model = _Silent()
    hostile = image + bytes([area]) * (size - len(image))
    for bank, op, offset, width in access_handlers(DEVICE):
        ctypes.memmove(ctypes.addressof(uart.both.area), hostile, size)
        if op == "read":
            uart.both.read(offset, width, bank)
        else:
            uart.both.write(offset, (1 << 8 * width) - 1, width, bank)


class _Silent:
    """A model that answers nothing: what the programs do with any area is all that is asked."""

    def read(self, bank: str, offset: int, size: int) -> int:
        return 0

    def write(self, bank: str, offset: int, size: int, value: int) -> None: ...
    def signal(self, name: str) -> None: ...


def test_polling_the_flags_takes_few_instructions_and_no_lock() -> None:
    handlers = {handler.handler.section: handler for handler in program(DEVICE).handlers}
    assert handlers["mmio/read@0x18:2,4"].handler_class is HandlerClass.PURE
    assert handlers["mmio/read@0x18:2,4"].worst_case <= 16
