"""The i8254 programmable interval timer and the system control port 0x61, in userspace.

Follows Intel's 8254 datasheet (231164) in its registers and commands, and the recorded emulator in what it
leaves out: counting starts at the write of the count, without the clock that a chip needs to load it; the
gate restarts counting but does not stop it; BCD counts in binary; modes 6 and 7 are not folded to 2 and 3.
README.md lists these.

Holds true: all state is in the shared area, so program and model may take turns on any access. Elapsed
counter clocks are computed from the VM clock, there is nothing that ticks. Interrupts of channel 0 come
from one timer, `edge`, that is armed at the next rising edge of OUT 0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from devbc.hypervisor.model import Host

HZ: Final = 1_193_182
NS_PER_SECOND: Final = 1_000_000_000
CHANNELS: Final = 3
#: Interrupts are no closer than this: a count of 1 would be an interrupt every 838 ns.
MIN_EDGE_NS: Final = 500_000


class Bytes(IntEnum):
    """RW1 and RW0 of the control word: what accesses to a counter move; of a latch: what is still unread."""

    NONE = 0
    LOW = 1
    HIGH = 2
    WORD = 3
    #: The second access of a word. Never programmed: it is where `reading` and `writing` stand in between.
    WORD_HIGH = 4


class Mode(IntEnum):
    """M2..M0 of the control word."""

    TERMINAL_COUNT = 0
    ONE_SHOT = 1
    RATE_GENERATOR = 2
    SQUARE_WAVE = 3
    SOFTWARE_STROBE = 4
    HARDWARE_STROBE = 5


#: Modes whose gate restarts the count on a rising edge.
TRIGGERED: Final = (Mode.ONE_SHOT, Mode.RATE_GENERATOR, Mode.SQUARE_WAVE, Mode.HARDWARE_STROBE)


class Model:
    """The full device; the protocol is `devbc.hypervisor.model.Model`."""

    def __init__(self, scratch: Any, host: Host) -> None:
        self.state = scratch
        self.host = host

    def reset(self) -> None:
        """All channels in mode 3 with the largest count, as the emulator leaves its power-on."""
        state = self.state
        for index in range(CHANNELS):
            channel = state.channel[index]
            channel.loaded_at = self.host.now()
            channel.count = 0x1_0000
            channel.latched = 0
            channel.unread = Bytes.NONE
            channel.status = 0
            channel.status_latched = False
            channel.access = Bytes.NONE
            channel.reading = Bytes.NONE
            channel.writing = Bytes.NONE
            channel.low_byte = 0
            channel.mode = Mode.SQUARE_WAVE
            channel.bcd = False
            channel.gate = index != 2
        state.speaker_data = False
        state.refresh = False
        state.masked = False
        self._arm_edge()

    def read(self, bank: str, offset: int, size: int) -> int:
        """A counter's latched status, latched count or count; port 0x61; wider accesses byte by byte."""
        if size > 1:
            return sum(self.read(bank, offset + byte, 1) << 8 * byte for byte in range(size))
        if bank == "speaker":
            return self._read_port_61() if offset == 0 else 0
        return self._read_counter(self.state.channel[offset]) if offset < CHANNELS else 0

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        if size > 1:
            for byte in range(size):
                self.write(bank, offset + byte, 1, value >> 8 * byte & 0xFF)
        elif bank == "speaker":
            if offset == 0:
                self._write_port_61(value)
        elif offset < CHANNELS:
            self._write_counter(offset, value)
        elif offset == CHANNELS:
            self._write_control(value)

    def timer(self, name: str, deadline: int) -> None:
        """OUT 0 has risen."""
        channel = self.state.channel[0]
        self.host.raise_line("irq0")
        if channel.mode in (Mode.RATE_GENERATOR, Mode.SQUARE_WAVE):
            self.host.lower_line("irq0")
            self._arm_edge(after=deadline + MIN_EDGE_NS)
        elif channel.mode in (Mode.SOFTWARE_STROBE, Mode.HARDWARE_STROBE):
            self.host.lower_line("irq0")

    def line(self, name: str, level: int) -> None:
        """`legacy`: an HPET in legacy replacement mode takes over IRQ 0 while the line is high."""
        self.state.masked = bool(level)
        if level:
            self._stop_edge()
        else:
            self._arm_edge()

    def signal(self, name: str) -> None:
        raise ValueError(f"the i8254 has no signal `{name}`")

    # The counters

    def _elapsed(self, channel: Any) -> int:
        """Counter clocks since the count was loaded."""
        return (self.host.now() - int(channel.loaded_at)) * HZ // NS_PER_SECOND

    def _counting_element(self, channel: Any) -> int:
        """The count at this moment, 16 bits."""
        elapsed, count = self._elapsed(channel), channel.count
        match channel.mode:
            case Mode.TERMINAL_COUNT | Mode.ONE_SHOT | Mode.SOFTWARE_STROBE | Mode.HARDWARE_STROBE:
                value = count - elapsed
            case Mode.SQUARE_WAVE:
                value = count - 2 * elapsed % count
            case _:
                value = count - elapsed % count
        return int(value) & 0xFFFF

    def _out(self, channel: Any) -> bool:
        """The level of OUT at this moment."""
        elapsed, count = self._elapsed(channel), channel.count
        match channel.mode:
            case Mode.ONE_SHOT:
                return bool(elapsed < count)
            case Mode.RATE_GENERATOR:
                return bool(elapsed != 0 and elapsed % count == 0)
            case Mode.SQUARE_WAVE:
                return bool(elapsed % count < count + 1 >> 1)
            case Mode.SOFTWARE_STROBE | Mode.HARDWARE_STROBE:
                return bool(elapsed == count)
            case _:
                return bool(elapsed >= count)

    def _read_counter(self, channel: Any) -> int:
        """A latched status comes first, then a latched count, then the count as it runs."""
        if channel.status_latched:
            channel.status_latched = False
            return int(channel.status)
        if channel.unread:
            value = int(channel.latched)
            match channel.unread:
                case Bytes.WORD:
                    channel.unread = Bytes.HIGH
                    return value & 0xFF
                case Bytes.HIGH:
                    channel.unread = Bytes.NONE
                    return value >> 8
                case _:
                    channel.unread = Bytes.NONE
                    return value & 0xFF
        value = self._counting_element(channel)
        match channel.reading:
            case Bytes.HIGH:
                return value >> 8
            case Bytes.WORD:
                channel.reading = Bytes.WORD_HIGH
                return value & 0xFF
            case Bytes.WORD_HIGH:
                channel.reading = Bytes.WORD
                return value >> 8
            case _:
                return value & 0xFF

    def _write_counter(self, index: int, value: int) -> None:
        channel = self.state.channel[index]
        match channel.writing:
            case Bytes.HIGH:
                self._load(index, value << 8)
            case Bytes.WORD:
                channel.low_byte = value
                channel.writing = Bytes.WORD_HIGH
            case Bytes.WORD_HIGH:
                channel.writing = Bytes.WORD
                self._load(index, value << 8 | channel.low_byte)
            case _:
                self._load(index, value)

    def _load(self, index: int, count: int) -> None:
        """Start counting; a count of 0 is the largest."""
        channel = self.state.channel[index]
        channel.count = count or 0x1_0000
        channel.loaded_at = self.host.now()
        if index == 0:
            self.host.lower_line("irq0")
            self._arm_edge()

    def _write_control(self, value: int) -> None:
        """A control word, a counter latch command (RW = 0) or a read-back command (SC = 3)."""
        index, access = value >> 6, value >> 4 & 3
        if index == 3:
            for each in range(CHANNELS):
                if value & 2 << each:
                    self._read_back(self.state.channel[each], count=not value & 0x20, status=not value & 0x10)
            return
        channel = self.state.channel[index]
        if access == Bytes.NONE:
            self._latch(channel)
            return
        channel.access = channel.reading = channel.writing = access
        channel.mode = value >> 1 & 7
        channel.bcd = bool(value & 1)
        if index == 0:
            self._stop_edge()

    def _latch(self, channel: Any) -> None:
        """Hold the count until it is read. A second latch command before that is ignored."""
        if not channel.unread:
            channel.latched = self._counting_element(channel)
            channel.unread = channel.access

    def _read_back(self, channel: Any, *, count: bool, status: bool) -> None:
        if count:
            self._latch(channel)
        if status and not channel.status_latched:
            out = self._out(channel)
            channel.status = out << 7 | channel.access << 4 | channel.mode << 1 | channel.bcd
            channel.status_latched = True

    # Channel 0's interrupt

    def _stop_edge(self) -> None:
        self.host.cancel("edge")
        self.host.lower_line("irq0")

    def _arm_edge(self, after: int = 0) -> None:
        """Arm `edge` at the first rise of OUT 0 that is later than now and no earlier than `after`."""
        if self.state.masked:
            return
        channel = self.state.channel[0]
        elapsed, count = self._elapsed(channel), channel.count
        if channel.mode in (Mode.RATE_GENERATOR, Mode.SQUARE_WAVE):
            clocks = (elapsed // count + 1) * count
        elif elapsed < count:
            clocks = count
        else:
            return
        # Rounded up, so that at the deadline the clocks have passed.
        deadline = channel.loaded_at + clocks * NS_PER_SECOND // HZ + 1
        self.host.arm("edge", max(deadline, after))

    # Port 0x61

    def _read_port_61(self) -> int:
        """Bit 0 gate 2, bit 1 speaker data, bit 4 refresh request, bit 5 OUT 2."""
        state, channel = self.state, self.state.channel[2]
        # DRAM refresh toggles too fast to be timed by software: a change at each read is all that is asked.
        state.refresh = not state.refresh
        value = channel.gate | state.speaker_data << 1 | state.refresh << 4 | self._out(channel) << 5
        return int(value)

    def _write_port_61(self, value: int) -> None:
        channel = self.state.channel[2]
        gate = bool(value & 1)
        self.state.speaker_data = bool(value & 2)
        if gate and not channel.gate and channel.mode in TRIGGERED:
            channel.loaded_at = self.host.now()
        channel.gate = gate
