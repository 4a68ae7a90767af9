"""The high precision event timer in userspace: a 64-bit counter of 100 MHz and three comparators.

Follows the IA-PC HPET specification 1.0a in its registers, and the recorded emulator where that departs from
it: README.md lists the differences.

Holds true: all state is in the shared area. Time is ns of the VM clock; the main counter is
`(now + offset) / TICK_NS` while it runs. `deadline` of a timer is when its comparator next matches, 0 for
never. A disabled one-shot timer is *inert*: nothing that its match does can be seen, so the host's timer is
armed if and only if `deadline` is set and the timer is not inert. A guest that writes comparators in a loop,
as Linux does when it measures the clock, costs no host timers. `_settle` works out what an inert timer would
have done by now, for the writes after which it matters.
"""

from __future__ import annotations

from typing import Any, Final

from devbc.hypervisor.model import Host

TIMERS: Final = 3
TICK_NS: Final = 10
#: COUNTER_CLK_PERIOD in fs; 3 timers, 64-bit counter, legacy replacement capable, revision 1.
CAPABILITIES: Final = 10_000_000 << 32 | 0x8086_A201
M32: Final = (1 << 32) - 1
M64: Final = (1 << 64) - 1
#: A periodic timer interrupts no more often than this; its comparator then catches up.
MIN_PERIOD_NS: Final = 100_000

# General configuration
ENABLE_CNF: Final = 1 << 0
LEG_RT_CNF: Final = 1 << 1

# Timer N configuration and capabilities
INT_TYPE_CNF: Final = 1 << 1
INT_ENB_CNF: Final = 1 << 2
TYPE_CNF: Final = 1 << 3
PER_INT_CAP: Final = 1 << 4
SIZE_CAP: Final = 1 << 5
VAL_SET_CNF: Final = 1 << 6
MODE32_CNF: Final = 1 << 8
INT_ROUTE_SHIFT: Final = 9
FSB_EN_CNF: Final = 1 << 14
WRITABLE: Final = INT_TYPE_CNF | INT_ENB_CNF | TYPE_CNF | VAL_SET_CNF | MODE32_CNF | 0x1F << 9 | FSB_EN_CNF
#: INT_ROUTE_CAP: input 2 of the I/O APIC.
ROUTES: Final = 1 << 2 << 32

#: Interrupt inputs that have a wire, by route.
LINES: Final = {0: "irq0", 2: "irq2", 8: "irq8"}
LEGACY_ROUTES: Final = (0, 8)


class Model:
    """The full device; the protocol is `devbc.hypervisor.model.Model`."""

    def __init__(self, scratch: Any, host: Host) -> None:
        self.state = scratch
        self.host = host

    def reset(self) -> None:
        state = self.state
        state.config = state.status = state.counter = state.offset = 0
        for index in range(TIMERS):
            timer = state.timer[index]
            timer.config = PER_INT_CAP | SIZE_CAP | ROUTES
            timer.comparator = M64
            timer.period = timer.route = timer.deadline = 0
            timer.wraps = False

    def read(self, bank: str, offset: int, size: int) -> int:
        """A register's half or, aligned, all of it; 0 for what the specification leaves undefined."""
        if size == 8 and offset % 8 == 0:
            return self._read32(offset) | self._read32(offset + 4) << 32
        return self._read32(offset) if size == 4 and offset % 4 == 0 else 0

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        if size == 8 and offset % 8 == 0:
            self._write32(offset, value & M32)
            self._write32(offset + 4, value >> 32)
        elif size == 4 and offset % 4 == 0:
            self._write32(offset, value)

    def timer(self, name: str, deadline: int) -> None:
        """Comparator N of timer `tN` matches."""
        index = int(name[1:])
        timer = self.state.timer[index]
        now = self.host.now()
        tick = self._tick(now)
        timer.deadline = 0
        if timer.config & TYPE_CNF:
            if timer.period:
                bits = 32 if timer.config & MODE32_CNF else 64
                timer.comparator = advance(timer.comparator, timer.period, tick, bits)
                self._expect(index, max(self._match(timer, now, tick), now + MIN_PERIOD_NS))
        elif timer.wraps and timer.config & MODE32_CNF:
            timer.wraps = False
            self._expect(index, self._match(timer, now, tick))
        self._interrupt(index)

    def line(self, name: str, level: int) -> None:
        raise ValueError(f"the HPET has no input `{name}`")

    def signal(self, name: str) -> None:
        raise ValueError(f"the HPET has no signal `{name}`")

    # Registers

    def _read32(self, offset: int) -> int:
        state, shift = self.state, 8 * (offset & 4)
        match offset & ~4:
            case 0x000:
                value = CAPABILITIES
            case 0x010:
                value = state.config
            case 0x020:
                value = state.status
            case 0x0F0:
                value = self._counter()
            case timer if 0x100 <= timer < 0x100 + 0x20 * TIMERS:
                each = state.timer[timer - 0x100 >> 5]
                value = {0x00: each.config, 0x08: each.comparator, 0x10: each.route}.get(timer & 0x1F, 0)
            case _:
                value = 0
        return int(value) >> shift & M32

    def _write32(self, offset: int, value: int) -> None:
        state = self.state
        match offset:
            case 0x010:
                self._write_config(value)
            case 0x020:
                for index in range(TIMERS):
                    if value & state.status & 1 << index:
                        self._clear(index)
            case 0x0F0:
                state.counter = state.counter & ~M32 & M64 | value
            case 0x0F4:
                state.counter = state.counter & M32 | value << 32
            case timer if 0x100 <= timer < 0x100 + 0x20 * TIMERS:
                index = timer - 0x100 >> 5
                each = state.timer[index]
                match timer & 0x1F:
                    case 0x00:
                        self._write_timer_config(index, value)
                    case 0x08:
                        self._write_comparator(index, value, high=False)
                    case 0x0C:
                        self._write_comparator(index, value, high=True)
                    case 0x10:
                        each.route = each.route & ~M32 & M64 | value
                    case 0x14:
                        each.route = each.route & M32 | value << 32

    def _write_config(self, value: int) -> None:
        """ENABLE_CNF starts and halts the counter; LEG_RT_CNF takes IRQ 0 and 8 from PIT and RTC."""
        state = self.state
        old, new = state.config, value & (ENABLE_CNF | LEG_RT_CNF)
        now = self.host.now()
        state.config = new
        if new & ~old & ENABLE_CNF:
            state.offset = (state.counter * TICK_NS - now) & M64
            for index in range(TIMERS):
                if state.timer[index].comparator != M64:
                    self._start(index)
        elif old & ~new & ENABLE_CNF:
            state.counter = self._tick(now)
            for index in range(TIMERS):
                self._stop(index)
        if (old ^ new) & LEG_RT_CNF:
            self.host.lower_line("irq0")
            if new & LEG_RT_CNF:
                self.host.lower_line("irq8")
                self.host.raise_line("legacy")
            else:
                self.host.lower_line("legacy")

    def _write_timer_config(self, index: int, value: int) -> None:
        timer = self.state.timer[index]
        old = timer.config
        new = old & ~WRITABLE | value & WRITABLE
        self._settle(index)
        if new & ~old & FSB_EN_CNF:
            self._clear(index)
        timer.config = new
        if value & MODE32_CNF:
            timer.comparator &= M32
            timer.period &= M32
        if new & ~old & INT_ENB_CNF and self._running():
            self._start(index)
        elif old & ~new & INT_ENB_CNF:
            self._stop(index)
        elif inert(new):
            self.host.cancel(f"t{index}")
        elif inert(old) and timer.deadline:
            self.host.arm(f"t{index}", timer.deadline)

    def _write_comparator(self, index: int, value: int, *, high: bool) -> None:
        """Sets the comparator of a one-shot timer; of a periodic one the period, and with VAL_SET both.

        (The recorded emulator sets the high half of one or the other, not of both.)
        """
        timer = self.state.timer[index]
        periodic, settable = timer.config & TYPE_CNF, timer.config & VAL_SET_CNF
        period = value & M32 >> 1 if timer.config & MODE32_CNF else value
        if not periodic or settable:
            timer.comparator = put(timer.comparator, value, high=high)
        if periodic and not (high and settable):
            timer.period = put(timer.period, period, high=high)
        timer.config &= ~VAL_SET_CNF
        if self._running():
            self._start(index)

    # Counter and comparators

    def _running(self) -> bool:
        return bool(self.state.config & ENABLE_CNF)

    def _tick(self, now: int) -> int:
        return int((now + self.state.offset & M64) // TICK_NS)

    def _counter(self) -> int:
        return self._tick(self.host.now()) if self._running() else int(self.state.counter)

    def _match(self, timer: Any, now: int, tick: int) -> int:
        """When the comparator matches, in ns; `now` if the clock cannot express it.

        A comparator less than half the counter's range behind has been missed and matches on the next tick.
        The recorded emulator computes the moment in 64-bit ns, which wraps for distances beyond 29 years.
        """
        bits = 32 if timer.config & MODE32_CNF else 64
        return moment(now, distance(timer.comparator, tick, bits))

    def _start(self, index: int) -> None:
        """Wait for the match. A 32-bit one-shot timer also expires when the counter's lower half wraps."""
        timer = self.state.timer[index]
        now = self.host.now()
        tick = self._tick(now)
        deadline = self._match(timer, now, tick)
        timer.wraps = False
        if timer.config & MODE32_CNF and not timer.config & TYPE_CNF:
            wrap = M32 - (tick & M32)
            if wrap < distance(timer.comparator, tick, 32):
                timer.wraps = True
                deadline = moment(now, wrap)
        self._expect(index, deadline)

    def _expect(self, index: int, deadline: int) -> None:
        timer = self.state.timer[index]
        timer.deadline = deadline
        if not inert(timer.config):
            self.host.arm(f"t{index}", deadline)

    def _stop(self, index: int) -> None:
        self.state.timer[index].deadline = 0
        self.host.cancel(f"t{index}")
        self._clear(index)

    def _settle(self, index: int) -> None:
        """Bring the deadline of an inert timer up to date."""
        timer = self.state.timer[index]
        if not inert(timer.config) or not timer.deadline or timer.deadline > self.host.now():
            return
        passed = timer.deadline
        timer.deadline = 0
        if timer.wraps and timer.config & MODE32_CNF:
            timer.wraps = False
            again = self._match(timer, passed, self._tick(passed))
            timer.deadline = again if again > self.host.now() else 0

    # Interrupts

    def _line(self, index: int) -> str | None:
        """The wire that the timer's interrupt goes to, if there is one."""
        config = self.state.timer[index].config
        if config & FSB_EN_CNF:
            return None
        if self.state.config & LEG_RT_CNF and index < len(LEGACY_ROUTES):
            return LINES[LEGACY_ROUTES[index]]
        return LINES.get(config >> INT_ROUTE_SHIFT & 0x1F)

    def _clear(self, index: int) -> None:
        self.state.status &= ~(1 << index)
        if line := self._line(index):
            self.host.lower_line(line)

    def _interrupt(self, index: int) -> None:
        config = self.state.timer[index].config
        if not config & INT_ENB_CNF or not self._running():
            self._clear(index)
            return
        if config & FSB_EN_CNF:
            return
        line = self._line(index)
        if line:
            self.host.raise_line(line)
        if config & INT_TYPE_CNF:
            self.state.status |= 1 << index
            return
        self.state.status &= ~(1 << index)
        if line:
            self.host.lower_line(line)


def inert(config: int) -> bool:
    """Whether a match of the timer has no effect: neither an interrupt nor the next period."""
    return not config & (INT_ENB_CNF | TYPE_CNF)


def put(register: int, half: int, *, high: bool) -> int:
    """`register` with one of its 32-bit halves replaced."""
    return register & M32 | half << 32 if high else register & ~M32 & M64 | half


def distance(comparator: int, tick: int, bits: int) -> int:
    """Ticks until the match: at least 1, also for a comparator that has been passed."""
    ahead = comparator - tick & (1 << bits) - 1
    return ahead if 0 < ahead < 1 << bits - 1 else 1


def moment(now: int, ticks: int) -> int:
    """`ticks` from now, in ns of a signed 64-bit clock; never before now."""
    deadline = now + ticks * TICK_NS & M64
    return deadline if now <= deadline < 1 << 63 else now


def advance(comparator: int, period: int, tick: int, bits: int) -> int:
    """The comparator after as many periods as bring it from `tick` or behind to ahead of `tick`."""
    mask, half = (1 << bits) - 1, 1 << bits - 1
    behind, step = tick - comparator & mask, period & mask
    if behind > half or step == 0:
        return comparator
    # A step of half the range or more goes backwards, until it comes round to the other side.
    steps = behind // step + 1 if step < half else (half - behind) // (mask + 1 - step) + 1
    return comparator + steps * step & mask
