"""The 16550 UART in userspace: answers every access, and is the line's other end.

The registers live in the shared area (`state` of uart16550.dev), where program and model both work on them;
each method leaves them as the program would. What is only here is what no program needs: characters that
the line has delivered but the receiver has no room for (`waiting`), and what was sent (`transmitted`).

A transmitter that userspace drains is never seen busy: THRE and TEMT stay set, and a character written
to THR is sent at once. That is how the recorded emulator behaves, too. Register and bit names are those of
the NS16550A datasheet, whose chapters are cited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Any

from devbc.hypervisor.model import Host


class Register(IntEnum):
    """Offsets in the bank. With LCR.DLAB set, 0 and 1 are the divisor latch."""

    DATA = 0  # read: RBR, write: THR
    IER = 1
    IIR_FCR = 2  # read: IIR, write: FCR
    LCR = 3
    MCR = 4
    LSR = 5
    MSR = 6
    SCR = 7


class Ier(IntFlag):
    RECEIVED_DATA = 0x01
    THR_EMPTY = 0x02
    LINE_STATUS = 0x04
    MODEM_STATUS = 0x08
    ALL = 0x0F


class Iir(IntEnum):
    """Interrupt identification (IIR), highest priority first."""

    LINE_STATUS = 0x06
    TIMEOUT = 0x0C
    RECEIVED_DATA = 0x04
    THR_EMPTY = 0x02
    MODEM_STATUS = 0x00
    NONE = 0x01


IIR_ID = 0x06
IIR_FIFOS = 0xC0


class Fcr(IntFlag):
    ENABLE = 0x01
    RESET_RECEIVER = 0x02
    RESET_TRANSMITTER = 0x04
    KEPT = 0xC9  # the resets clear themselves


class Lcr(IntFlag):
    WORD_LENGTH = 0x03
    TWO_STOP_BITS = 0x04
    PARITY = 0x08
    DLAB = 0x80


class Mcr(IntFlag):
    DTR = 0x01
    RTS = 0x02
    OUT1 = 0x04
    OUT2 = 0x08
    LOOP = 0x10
    ALL = 0x1F


class Lsr(IntFlag):
    DATA_READY = 0x01
    OVERRUN = 0x02
    BREAK = 0x10
    THR_EMPTY = 0x20
    TRANSMITTER_EMPTY = 0x40
    INTERRUPTING = 0x1E


class Msr(IntFlag):
    DELTA_CTS = 0x01
    DELTA_DSR = 0x02
    TRAILING_RI = 0x04
    DELTA_DCD = 0x08
    DELTAS = 0x0F
    CTS = 0x10
    DSR = 0x20
    RI = 0x40
    DCD = 0x80


#: Receiver trigger levels by FCR[7:6], in characters.
TRIGGER_LEVELS = (1, 4, 8, 14)
#: The receiver's FIFO, in characters.
FIFO = 16
#: A character timeout is due after four character times without a read ("FIFO Interrupt Mode Operation").
TIMEOUT_CHARACTERS = 4
#: The reset value of the character time: 10 bits at 9600 baud, in ns.
RESET_CHAR_NS = 10 * (1_000_000_000 // 9_600)
#: The rate that the recorded emulator assumes for a divisor of 0.
ZERO_DIVISOR_BAUD = 3_500

Sink = Callable[[bytes], object]


class Model:
    """`devbc.hypervisor.model.Model` for a 16550.

    `baud_base` is the input clock over 16, in Hz. What the guest sends goes to `sink` if there is one,
    otherwise it collects in `transmitted`.
    """

    def __init__(
        self, scratch: Any, host: Host, *, baud_base: int = 115_200, sink: Sink | None = None
    ) -> None:
        self.scratch = scratch
        self.host = host
        self.baud_base = baud_base
        self.sink = sink
        self.transmitted = bytearray()
        self.waiting: deque[int] = deque()

    def reset(self) -> None:
        """Power-on. The line is connected and quiet: DCD, DSR and CTS are asserted."""
        s = self.scratch
        s.ier = s.fcr = s.lcr = s.scr = s.rbr = 0
        s.iir = Iir.NONE
        s.mcr = Mcr.OUT2
        s.lsr = Lsr.THR_EMPTY | Lsr.TRANSMITTER_EMPTY
        s.msr = Msr.DCD | Msr.DSR | Msr.CTS
        s.divisor = 12
        s.baud_base = self.baud_base
        s.char_ns = RESET_CHAR_NS
        s.thre_due = s.timeout_due = s.rx_waiting = False
        s.rx_head = s.rx_count = 0
        s.tx_tail = s.tx_head
        self.waiting.clear()
        self.host.cancel("timeout")
        self.host.lower_line("irq")

    # The guest's side.

    def read(self, bank: str, offset: int, size: int) -> int:
        """Accesses wider than a register act on each register in turn, lowest offset first."""
        value = 0
        for index in range(size):
            value |= self._read(offset + index) << 8 * index
        return value

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        for index in range(size):
            self._write(offset + index, value >> 8 * index & 0xFF)

    def timer(self, name: str, deadline: int) -> None:
        """Characters have lain in the FIFO for four character times."""
        if self.scratch.rx_count:
            self.scratch.timeout_due = True
            self._update()

    def line(self, name: str, level: int) -> None:
        """A UART has no input lines of this kind; its modem lines are `set_modem_lines`."""

    def signal(self, name: str) -> None:
        """`tx`: the transmit ring has characters. `rx`: the receiver has room for what is waiting."""
        if name == "tx":
            self._drain()
        else:
            self._deliver()

    # The line's side.

    def receive(self, data: bytes) -> None:
        """Characters arrive on the line. What the receiver cannot take now waits; nothing overruns."""
        self.waiting.extend(data)
        self._deliver()

    def receive_break(self) -> None:
        """The line is held low for longer than a character: a null character, and LSR.BI."""
        s = self.scratch
        s.rbr = 0
        self._push(0)
        s.lsr |= Lsr.BREAK | Lsr.DATA_READY
        self._update()

    def set_modem_lines(self, lines: Msr) -> None:
        """CTS, DSR, RI and DCD change; MSR notes what changed, for RI only that it fell."""
        s = self.scratch
        before = s.msr
        level = int(lines) & 0xF0
        changed = (level ^ before) >> 4
        if not before & Msr.RI:
            changed &= ~Msr.TRAILING_RI
        s.msr = level | before & Msr.DELTAS | changed
        self._update()

    # Registers.

    def _read(self, offset: int) -> int:
        s = self.scratch
        match offset:
            case Register.DATA:
                return s.divisor & 0xFF if s.lcr & Lcr.DLAB else self._read_character()
            case Register.IER:
                return s.divisor >> 8 if s.lcr & Lcr.DLAB else int(s.ier)
            case Register.IIR_FCR:
                value = int(s.iir)
                if value & IIR_ID == Iir.THR_EMPTY:
                    s.thre_due = False
                    self._update()
                return value
            case Register.LCR:
                return int(s.lcr)
            case Register.MCR:
                return int(s.mcr)
            case Register.LSR:
                value = int(s.lsr)
                if value & (Lsr.BREAK | Lsr.OVERRUN):
                    s.lsr = value & ~(Lsr.BREAK | Lsr.OVERRUN)
                    self._update()
                return value
            case Register.MSR:
                return self._read_modem_status()
            case Register.SCR:
                return int(s.scr)
            case _:  # a wide access that reaches past the bank
                return 0xFF

    def _write(self, offset: int, value: int) -> None:
        s = self.scratch
        match offset:
            case Register.DATA if s.lcr & Lcr.DLAB:
                s.divisor = s.divisor & 0xFF00 | value
                self._set_character_time()
            case Register.IER if s.lcr & Lcr.DLAB:
                s.divisor = s.divisor & 0x00FF | value << 8
                self._set_character_time()
            case Register.DATA:
                self._send(value)
            case Register.IER:
                changed = (s.ier ^ value) & Ier.ALL
                s.ier = value & Ier.ALL
                # The transmitter is empty: enabling its interrupt makes it due, even if IIR had cleared it.
                if changed & Ier.THR_EMPTY:
                    s.thre_due = bool(value & Ier.THR_EMPTY)
                if changed:
                    self._update()
            case Register.IIR_FCR:
                self._control_fifos(value)
            case Register.LCR:
                s.lcr = value
                self._set_character_time()
            case Register.MCR:
                s.mcr = value & Mcr.ALL
                if not value & Mcr.LOOP:
                    self._deliver()
            case Register.SCR:
                s.scr = value
            case _:  # LSR and MSR are read-only here
                pass

    def _read_character(self) -> int:
        s = self.scratch
        value = int(s.rbr)
        left = 0
        if s.fcr & Fcr.ENABLE:
            value = 0
            if s.rx_count:
                value = int(s.rx[s.rx_head % FIFO])
                s.rx_head = (s.rx_head + 1) % FIFO
                s.rx_count -= 1
            left = s.rx_count
            s.timeout_due = False
        if left:
            self._restart_timeout()
        else:
            s.lsr &= ~(Lsr.DATA_READY | Lsr.BREAK)
        self._update()
        self._deliver()
        return value

    def _read_modem_status(self) -> int:
        s = self.scratch
        if s.mcr & Mcr.LOOP:
            # "Modem Control Register", bit 4: RTS, DTR, OUT1 and OUT2 are connected to CTS, DSR, RI and DCD.
            wires = ((Mcr.RTS, Msr.CTS), (Mcr.DTR, Msr.DSR), (Mcr.OUT1, Msr.RI), (Mcr.OUT2, Msr.DCD))
            return sum(int(line) for control, line in wires if s.mcr & control)
        value = int(s.msr)
        if value & Msr.DELTAS:
            s.msr = value & ~Msr.DELTAS
            self._update()
        return value

    def _control_fifos(self, value: int) -> None:
        """The FIFO control register. Turning the FIFOs on or off empties them."""
        s = self.scratch
        if (value ^ s.fcr) & Fcr.ENABLE:
            value |= Fcr.RESET_RECEIVER | Fcr.RESET_TRANSMITTER
        if value & Fcr.RESET_RECEIVER:
            s.lsr &= ~(Lsr.DATA_READY | Lsr.BREAK)
            s.timeout_due = False
            s.rx_head = s.rx_count = 0
            self.host.cancel("timeout")
        if value & Fcr.RESET_TRANSMITTER:
            s.thre_due = True
        s.fcr = value & Fcr.KEPT
        self._update()
        self._deliver()

    def _set_character_time(self) -> None:
        """Start bit, data bits, parity bit and stop bits at the rate that the divisor selects."""
        s = self.scratch
        bits = 1 + 5 + (s.lcr & Lcr.WORD_LENGTH) + (1 if s.lcr & Lcr.PARITY else 0)
        bits += 2 if s.lcr & Lcr.TWO_STOP_BITS else 1
        if s.divisor:
            s.char_ns = bits * s.divisor * 1_000_000_000 // s.baud_base if s.baud_base else 0
        else:
            s.char_ns = bits * 1_000_000_000 // ZERO_DIVISOR_BAUD

    def _update(self) -> None:
        """Identify the interrupt of highest priority and drive the line accordingly."""
        s = self.scratch
        ier = int(s.ier)
        if ier & Ier.LINE_STATUS and s.lsr & Lsr.INTERRUPTING:
            pending = Iir.LINE_STATUS
        elif ier & Ier.RECEIVED_DATA and s.timeout_due:
            pending = Iir.TIMEOUT
        elif ier & Ier.RECEIVED_DATA and s.lsr & Lsr.DATA_READY and self._triggered():
            pending = Iir.RECEIVED_DATA
        elif ier & Ier.THR_EMPTY and s.thre_due:
            pending = Iir.THR_EMPTY
        elif ier & Ier.MODEM_STATUS and s.msr & Msr.DELTAS:
            pending = Iir.MODEM_STATUS
        else:
            pending = Iir.NONE
        s.iir = pending | (IIR_FIFOS if s.fcr & Fcr.ENABLE else 0)
        if pending is Iir.NONE:
            self.host.lower_line("irq")
        else:
            self.host.raise_line("irq")

    # Receiver.

    def _trigger(self) -> int:
        return TRIGGER_LEVELS[self.scratch.fcr >> 6]

    def _triggered(self) -> bool:
        return not self.scratch.fcr & Fcr.ENABLE or self.scratch.rx_count >= self._trigger()

    def _room(self) -> int:
        """Characters that the line may deliver now: up to the trigger level, then one at a time.

        More would overrun a driver that is not fast enough; and in loopback mode the receiver is cut off
        from the line.
        """
        s = self.scratch
        if s.mcr & Mcr.LOOP:
            return 0
        if not s.fcr & Fcr.ENABLE:
            return 0 if s.lsr & Lsr.DATA_READY else 1
        if s.rx_count >= FIFO:
            return 0
        return max(self._trigger() - s.rx_count, 0) if s.rx_count <= self._trigger() else 1

    def _deliver(self) -> None:
        """Hand waiting characters to the receiver, and ask the program to say when there is room for more."""
        arrived = min(self._room(), len(self.waiting))
        if arrived:
            self._receive(bytes(self.waiting.popleft() for _ in range(arrived)))
        self.scratch.rx_waiting = bool(self.waiting)

    def _receive(self, data: bytes) -> None:
        s = self.scratch
        for character in data:
            if s.fcr & Fcr.ENABLE:
                self._push(character)
            else:
                if s.lsr & Lsr.DATA_READY:
                    s.lsr |= Lsr.OVERRUN
                s.rbr = character
            s.lsr |= Lsr.DATA_READY
        if s.fcr & Fcr.ENABLE:
            self._restart_timeout()
        self._update()

    def _push(self, character: int) -> None:
        """Into the FIFO; an overrun leaves it as it is ("Line Status Register", bit 1)."""
        s = self.scratch
        if s.rx_count >= FIFO:
            s.lsr |= Lsr.OVERRUN
            return
        s.rx[(s.rx_head + s.rx_count) % FIFO] = character
        s.rx_count += 1

    def _restart_timeout(self) -> None:
        self.host.arm("timeout", self.host.now() + TIMEOUT_CHARACTERS * self.scratch.char_ns)

    # Transmitter.

    def _send(self, character: int) -> None:
        """THR is written; what programs have put into the ring went before it."""
        s = self.scratch
        self._drain()
        s.thre_due = True
        if s.mcr & Mcr.LOOP:
            self._receive(bytes([character]))
            return
        self._update()
        self._transmit(bytes([character]))

    def _drain(self) -> None:
        """Take the transmit ring's contents. The indices run freely; a program is not trusted with them."""
        s = self.scratch
        size = len(s.tx)
        count = min((s.tx_head - s.tx_tail) & 0xFFFF_FFFF, size)
        data = bytes(s.tx[(s.tx_tail + index) % size] for index in range(count))
        s.tx_tail = s.tx_head
        self._transmit(data)

    def _transmit(self, data: bytes) -> None:
        if not data:
            return
        if self.sink is not None:
            self.sink(data)
        else:
            self.transmitted += data
