"""The 16550 model against a UART made of queues and sentences of the datasheet, under random programming."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.devices.bench import Bench, new_area

DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 1, 2, 2, 3, 4, 5, 6, 7
DLAB, LOOP, FIFOS = 0x80, 0x10, 0x01
DR, OE, BI, EMPTY = 0x01, 0x02, 0x10, 0x60
NONE, THRE, RDA, CTI, RLS, MS = 0x01, 0x02, 0x04, 0x0C, 0x06, 0x00
LINES = 0xB0  # DCD, DSR and CTS of a line that is connected

BYTES = st.integers(0, 255)


class Uart(Bench):
    def __init__(self) -> None:
        super().__init__("uart16550", new_area("uart16550"))

    @property
    def irq(self) -> bool:
        return bool(self.levels.get("irq"))

    def set_rate(self, divisor: int, lcr: int = 0x03) -> None:
        self.write(LCR, DLAB | lcr)
        self.write(DATA, divisor & 0xFF)
        self.write(IER, divisor >> 8)
        self.write(LCR, lcr)


@pytest.fixture
def uart() -> Uart:
    return Uart()


def test_reset(uart: Uart) -> None:
    assert [uart.read(register) for register in range(8)] == [0, 0, NONE, 0, 0x08, EMPTY, LINES, 0]
    uart.write(LCR, DLAB)
    assert uart.read(DATA, size=2) == 12, "9600 baud"


def test_polled_transmission(uart: Uart) -> None:
    for character in b"hello":
        assert uart.read(LSR) & EMPTY == EMPTY
        uart.write(DATA, character)
    assert uart.model.transmitted == b"hello"


def test_a_sink_takes_the_place_of_the_buffer(uart: Uart) -> None:
    pieces: list[bytes] = []
    uart.model.sink = pieces.append
    uart.write(DATA, 0x41)
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
    uart.write(DATA, 0xEE)
    assert uart.model.transmitted == bytes(index & 0xFF for index in range(size)) + b"\xee"
    assert uart.area.tx_tail == uart.area.tx_head


def test_transmitter_interrupt(uart: Uart) -> None:
    uart.write(IER, 0x02)
    assert uart.irq
    assert uart.read(IIR) == THRE
    assert uart.read(IIR) == NONE, "reading IIR takes it back"
    assert not uart.irq
    uart.write(DATA, 0x41)
    assert uart.irq
    assert uart.read(IIR) == THRE
    uart.write(IER, 0)
    uart.write(IER, 0x02)
    assert uart.read(IIR) == THRE, "enabling it makes it due again"


def test_receiver_without_fifos(uart: Uart) -> None:
    uart.write(IER, 0x01)
    uart.model.receive(b"ab")
    assert uart.read(IIR) == RDA
    assert uart.read(LSR) & DR
    assert uart.read(DATA) == ord("a")
    assert uart.read(DATA) == ord("b"), "what waited follows at once"
    assert not uart.read(LSR) & DR
    assert not uart.irq


def test_receiver_fills_to_its_trigger_level(uart: Uart) -> None:
    uart.write(FCR, FIFOS | 0x80)
    uart.write(IER, 0x01)
    uart.model.receive(b"0123456")
    assert uart.read(IIR) == 0xC0 | NONE
    uart.model.receive(b"789")
    assert uart.read(IIR) == 0xC0 | RDA
    assert uart.area.rx_count == 8
    assert uart.area.rx_waiting
    assert bytes(uart.read(DATA) for _ in range(10)) == b"0123456789"
    assert not uart.area.rx_waiting


def test_characters_that_lie_raise_a_timeout(uart: Uart) -> None:
    uart.set_rate(1)  # 115200 8N1: 86805 ns a character
    uart.write(FCR, FIFOS | 0xC0)
    uart.write(IER, 0x01)
    uart.model.receive(b"ab")
    uart.advance(4 * 86_805 - 1)
    assert uart.read(IIR) == 0xC0 | NONE
    uart.advance(1)
    assert uart.read(IIR) == 0xC0 | CTI
    assert uart.irq
    uart.read(DATA)
    assert uart.read(IIR) == 0xC0 | NONE
    uart.advance(4 * 86_805)
    assert uart.read(IIR) == 0xC0 | CTI, "one character is left"
    uart.read(DATA)
    uart.advance(1_000_000_000)
    assert uart.read(IIR) == 0xC0 | NONE


@pytest.mark.parametrize(
    ("lcr", "bits"),
    [(0x00, 7), (0x03, 10), (0x07, 11), (0x0B, 11), (0x1F, 12)],
    ids=["5N1", "8N1", "8N2", "8O1", "8E2"],
)
def test_character_time(uart: Uart, lcr: int, bits: int) -> None:
    uart.set_rate(3, lcr)
    assert uart.area.char_ns == bits * 3 * 1_000_000_000 // 115_200


def test_loopback_keeps_the_line_out(uart: Uart) -> None:
    uart.write(MCR, LOOP)
    uart.model.receive(b"outside")
    uart.write(DATA, 0x55)
    assert uart.read(DATA) == 0x55
    assert not uart.model.transmitted
    uart.write(MCR, 0)
    assert uart.read(DATA) == ord("o")


@pytest.mark.parametrize(("control", "status"), [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)])
def test_loopback_connects_modem_control_to_modem_status(uart: Uart, control: int, status: int) -> None:
    uart.write(MCR, LOOP | control)
    assert uart.read(MSR) == status


def test_modem_status(uart: Uart) -> None:
    uart.write(IER, 0x08)
    uart.model.set_modem_lines(0xF0)
    assert uart.read(IIR) == NONE, "RI rising is no event"
    uart.model.set_modem_lines(0x80)
    assert uart.read(IIR) == MS
    assert uart.read(MSR) == 0x80 | 0x07, "CTS and DSR changed, RI fell"
    assert uart.read(MSR) == 0x80
    assert not uart.irq


def test_break(uart: Uart) -> None:
    uart.write(IER, 0x04)
    uart.model.receive_break()
    assert uart.read(IIR) == RLS
    assert uart.read(LSR) == EMPTY | BI | DR
    assert uart.read(LSR) == EMPTY | DR
    assert uart.read(DATA) == 0


def test_wide_accesses_act_on_each_register(uart: Uart) -> None:
    uart.write(MCR, 0xAA_00_00_03, size=4)
    assert uart.read(MCR, size=4) == 0xAA << 24 | LINES << 16 | EMPTY << 8 | 0x03


class AgainstQueues(RuleBasedStateMachine):
    """The datasheet's UART in loopback and out of it; nothing here knows how the model keeps its state."""

    def __init__(self) -> None:
        super().__init__()
        self.uart = Uart()
        self.registers = {IER: 0, LCR: 0, MCR: 0x08, SCR: 0}
        self.divisor = 12
        self.fcr = 0
        self.fifo: deque[int] = deque()
        self.buffer = 0
        self.flags = 0
        self.empty_due = False
        self.timeout = 0
        self.timed_out = False
        self.sent = bytearray()
        self.character = 10 * (1_000_000_000 // 9_600)

    @property
    def fifos(self) -> bool:
        return bool(self.fcr & FIFOS)

    @property
    def dlab(self) -> bool:
        return bool(self.registers[LCR] & DLAB)

    def identification(self) -> int:
        enabled = self.registers[IER]
        trigger = {0: 1, 1: 4, 2: 8, 3: 14}[self.fcr >> 6] if self.fifos else 1
        waiting = len(self.fifo) if self.fifos else self.flags & DR
        causes = [
            (0x04, RLS, self.flags & (OE | BI)),
            (0x01, CTI, self.timed_out),
            (0x01, RDA, waiting >= trigger and self.flags & DR),
            (0x02, THRE, self.empty_due),
        ]
        pending = (code for enable, code, cause in causes if enabled & enable and cause)
        return next(pending, NONE) | (0xC0 if self.fifos else 0)

    def new_character_time(self) -> None:
        lcr = self.registers[LCR]
        bits = 1 + 5 + (lcr & 3) + bool(lcr & 8) + (2 if lcr & 4 else 1)
        self.character = (
            bits * 1_000_000_000 * self.divisor // 115_200 if self.divisor else bits * 1_000_000_000 // 3_500
        )

    @rule(value=BYTES)
    def write_data(self, value: int) -> None:
        self.uart.write(DATA, value)
        if self.dlab:
            self.divisor = self.divisor & 0xFF00 | value
            self.new_character_time()
            return
        self.empty_due = True
        if not self.registers[MCR] & LOOP:
            self.sent.append(value)
            return
        if not self.fifos:
            self.flags |= OE if self.flags & DR else 0
            self.buffer = value
        elif len(self.fifo) < 16:
            self.fifo.append(value)
        else:
            self.flags |= OE
        self.flags |= DR
        if self.fifos:
            self.timeout = self.uart.time + 4 * self.character

    @rule(value=BYTES)
    def write_ier(self, value: int) -> None:
        self.uart.write(IER, value)
        if self.dlab:
            self.divisor = self.divisor & 0xFF | value << 8
            self.new_character_time()
            return
        if (self.registers[IER] ^ value) & 0x02:
            self.empty_due = bool(value & 0x02)
        self.registers[IER] = value & 0x0F

    @rule(value=BYTES)
    def write_fcr(self, value: int) -> None:
        self.uart.write(FCR, value)
        switched = (value ^ self.fcr) & FIFOS
        if switched or value & 0x02:
            self.fifo.clear()
            self.flags &= ~(DR | BI)
            self.timed_out, self.timeout = False, 0
        if switched or value & 0x04:
            self.empty_due = True
        self.fcr = value & 0xC9

    @rule(register=st.sampled_from([LCR, MCR, SCR]), value=BYTES)
    def write_register(self, register: int, value: int) -> None:
        self.uart.write(register, value)
        self.registers[register] = value & 0x1F if register == MCR else value
        if register == LCR:
            self.new_character_time()

    @rule(register=st.sampled_from([LSR, MSR]), value=BYTES)
    def write_read_only(self, register: int, value: int) -> None:
        self.uart.write(register, value)

    @rule()
    def read_data(self) -> None:
        if self.dlab:
            assert self.uart.read(DATA) == self.divisor & 0xFF
            return
        if self.fifos:
            expected = self.fifo.popleft() if self.fifo else 0
            self.timed_out = False
            if self.fifo:
                self.timeout = self.uart.time + 4 * self.character
        else:
            expected = self.buffer
        if not self.fifos or not self.fifo:
            self.flags &= ~(DR | BI)
        assert self.uart.read(DATA) == expected

    @rule()
    def read_ier(self) -> None:
        assert self.uart.read(IER) == (self.divisor >> 8 if self.dlab else self.registers[IER])

    @rule()
    def read_iir(self) -> None:
        expected = self.identification()
        assert self.uart.read(IIR) == expected
        if expected & 0x0F == THRE:
            self.empty_due = False

    @rule()
    def read_lsr(self) -> None:
        assert self.uart.read(LSR) == EMPTY | self.flags
        self.flags &= ~(OE | BI)

    @rule(register=st.sampled_from([LCR, MCR, SCR]))
    def read_register(self, register: int) -> None:
        assert self.uart.read(register) == self.registers[register]

    @rule(ns=st.sampled_from([1, 1_000, 100_000, 10_000_000, 1_000_000_000]))
    def wait(self, ns: int) -> None:
        self.uart.advance(ns)
        if self.timeout and self.uart.time >= self.timeout:
            self.timeout = 0
            self.timed_out = self.timed_out or bool(self.fifo)

    @invariant()
    def line_follows_the_identification(self) -> None:
        assert self.uart.irq == (self.identification() & 0x01 == 0)

    @invariant()
    def everything_was_sent(self) -> None:
        assert self.uart.model.transmitted == self.sent


TestAgainstQueues = AgainstQueues.TestCase
TestAgainstQueues.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
