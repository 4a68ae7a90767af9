"""The PrimeCell UART in userspace: answers every access, and is the line's other end.

The registers live in the shared area (`state` of pl011.dev), where program and model both work on them; each
method leaves them as the program would. What is only here is what no program needs: characters that the line
has delivered but the receiver has no room for (`waiting`), and what was sent (`transmitted`).

Register and bit names are those of Arm DDI 0183, chapter 3. Where the recorded emulator differs from it, it
is followed; README.md lists the places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Any, Final

from devbc.hypervisor.model import Host

#: UARTPeriphID0 to 3 and UARTPCellID0 to 3: part 0x011 of designer 0x41 (Arm), revision 1; a PrimeCell.
IDENTIFICATION: Final = (0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)
#: The receiver's FIFO, in characters.
FIFO: Final = 16


class Register(IntEnum):
    """Offsets in the bank."""

    DR = 0x000
    RSR_ECR = 0x004
    FR = 0x018
    ILPR = 0x020
    IBRD = 0x024
    FBRD = 0x028
    LCR_H = 0x02C
    CR = 0x030
    IFLS = 0x034
    IMSC = 0x038
    RIS = 0x03C
    MIS = 0x040
    ICR = 0x044
    DMACR = 0x048
    ID = 0xFE0


class Fr(IntFlag):
    RXFE = 0x10
    RXFF = 0x40
    TXFE = 0x80


class Error(IntFlag):
    """Of a received character: UARTRSR, and UARTDR 8 bits higher."""

    BREAK = 0x4
    OVERRUN = 0x8


class Interrupt(IntFlag):
    """UARTIMSC, UARTRIS, UARTMIS and UARTICR."""

    RECEIVE = 0x010
    TRANSMIT = 0x020
    BREAK = 0x200
    OVERRUN = 0x400


#: UARTLCR_H.FEN
FIFOS: Final = 0x10
#: UARTCR.LBE
LOOPBACK: Final = 0x80
#: Registers that are storage: their fields in the shared area, and the bits they have.
STORAGE: Final = {
    Register.ILPR: ("ilpr", 0xFF),
    Register.IBRD: ("ibrd", 0xFFFF),
    Register.FBRD: ("fbrd", 0x3F),
    Register.LCR_H: ("lcr_h", 0xFF),
    Register.CR: ("cr", 0xFF87),
    Register.IFLS: ("ifls", 0x3F),
    Register.IMSC: ("imsc", 0x7FF),
    Register.DMACR: ("dmacr", 0x7),
}

Sink = Callable[[bytes], object]


class Model:
    """`devbc.hypervisor.model.Model` for a PL011.

    What the guest sends goes to `sink` if there is one, otherwise it collects in `transmitted`.
    """

    def __init__(self, scratch: Any, host: Host, *, sink: Sink | None = None) -> None:
        self.scratch = scratch
        self.host = host
        self.sink = sink
        self.transmitted = bytearray()
        self.waiting: deque[int] = deque()

    def reset(self) -> None:
        s = self.scratch
        for name, _ in STORAGE.values():
            setattr(s, name, 0)
        s.rsr = s.ris = 0
        s.cr = 0x300
        s.ifls = 0x12
        s.rx_head = s.rx_count = 0
        s.rx_waiting = False
        s.tx_tail = s.tx_head
        self.waiting.clear()
        self.host.lower_line("irq")

    # The guest's side.

    def read(self, bank: str, offset: int, size: int) -> int:
        """A part of a register, or the whole; the bytes of an access beyond it read as 0."""
        register = offset & ~3
        return self._read(register) >> 8 * (offset - register) & (1 << 8 * size) - 1

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        """A part of a register, or the whole: its other bits stay."""
        register = offset & ~3
        shift = 8 * (offset - register)
        self._write(register, value << shift, (1 << 8 * size) - 1 << shift)

    def timer(self, name: str, deadline: int) -> None:
        """The device has no timers."""

    def line(self, name: str, level: int) -> None:
        """The device has no input lines."""

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
        """The line is held low for longer than a character: a null character, and the break error."""
        self._receive(Error.BREAK << 8)
        self.scratch.ris |= Interrupt.BREAK
        self._update()

    # Registers.

    def _read(self, register: int) -> int:
        s = self.scratch
        if register in STORAGE:
            return int(getattr(s, STORAGE[Register(register)][0]))
        match register:
            case Register.DR:
                return self._read_character()
            case Register.RSR_ECR:
                return int(s.rsr)
            case Register.FR:
                if not s.rx_count:
                    return Fr.TXFE | Fr.RXFE
                return Fr.TXFE | Fr.RXFF if s.rx_count >= self._depth() else Fr.TXFE
            case Register.RIS:
                return int(s.ris)
            case Register.MIS:
                return int(s.ris & s.imsc)
            case _ if register >= Register.ID:
                return IDENTIFICATION[(register - Register.ID) // 4]
            case _:  # ICR is written only
                return 0

    def _write(self, register: int, value: int, mask: int) -> None:
        s = self.scratch
        if register in STORAGE:
            name, bits = STORAGE[Register(register)]
            before = int(getattr(s, name))
            after = before & ~mask | value & bits
            setattr(s, name, after)
            if register == Register.LCR_H and (before ^ after) & FIFOS:
                self._empty()
            elif register == Register.CR:
                self._deliver()
            elif register == Register.IMSC:
                self._update()
        elif register == Register.DR and mask & 1:
            self._send(value & 0xFF)
        elif register == Register.RSR_ECR:
            s.rsr = 0
        elif register == Register.ICR:
            s.ris &= ~value
            self._update()

    def _update(self) -> None:
        if self.scratch.ris & self.scratch.imsc:
            self.host.raise_line("irq")
        else:
            self.host.lower_line("irq")

    # Receiver.

    def _depth(self) -> int:
        return FIFO if self.scratch.lcr_h & FIFOS else 1

    def _read_character(self) -> int:
        s = self.scratch
        if not s.rx_count:
            return 0
        character = int(s.rx[s.rx_head % FIFO])
        s.rx_head = (s.rx_head + 1) % FIFO
        s.rx_count -= 1
        # "The status information for overrun is set immediately" (UARTRSR), not with a character.
        s.rsr = s.rsr & Error.OVERRUN | character >> 8 & 7
        if not s.rx_count:
            s.ris &= ~Interrupt.RECEIVE
            self._update()
        self._deliver()
        return character

    def _empty(self) -> None:
        """The FIFOs have been turned on or off: nothing is left that an interrupt could ask to be read."""
        s = self.scratch
        s.rx_head = s.rx_count = 0
        s.ris &= ~Interrupt.RECEIVE
        self._update()
        self._deliver()

    def _deliver(self) -> None:
        """Hand waiting characters to the receiver, and ask the program to say when there is room for more.

        In loopback mode the receiver is cut off from the line.
        """
        s = self.scratch
        while self.waiting and s.rx_count < self._depth() and not s.cr & LOOPBACK:
            self._receive(self.waiting.popleft())
        s.rx_waiting = bool(self.waiting)

    def _receive(self, character: int) -> None:
        """A character with its errors; an overrun leaves the FIFO as it is."""
        s = self.scratch
        if s.rx_count < self._depth():
            s.rx[(s.rx_head + s.rx_count) % FIFO] = character
            s.rx_count += 1
            s.ris |= Interrupt.RECEIVE
        else:
            s.rsr |= Error.OVERRUN
            s.ris |= Interrupt.OVERRUN
        self._update()

    # Transmitter.

    def _send(self, character: int) -> None:
        """UARTDR is written; what programs have put into the ring went before it."""
        s = self.scratch
        self._drain()
        s.ris |= Interrupt.TRANSMIT
        self._update()
        if s.cr & LOOPBACK:
            self._receive(character)
        else:
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
