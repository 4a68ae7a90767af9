"""A VM's figures by register: what became of each handler's runs, and how long handled exits took.

The service counts by handler, with a bucket for each power of two of the time-stamp counter's cycles. Several
handlers of one register and operation (parts of it, sizes of access) are one row here. What no handler is
run for is no handler's figure: it goes straight to userspace, and is counted by device and reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from devbc.abi import AccessBinding, Binding, HypercallBinding, LineBinding, TimerBinding, parse_binding

if TYPE_CHECKING:
    from devbc.client import Device, Vm
    from devbc.program.program import Program
    from devbc.service.protocol import Figures, HandlerFigures

#: What a contended access met, by what its handler needs.
CONTENTION: Final = {"lock": "lock_held", "sequence": "in_change", "none": "queue_full"}
_BARS: Final = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of a register's reads or writes, or of a timer, line or hypercall of the device.

    `contended`: by the values of `CONTENTION`. `buckets[n]`: handled exits that took 2**n up to 2**(n + 1)
    cycles; `period_ns` is one cycle's, or 0.
    """

    device: str
    register: str
    op: str
    handled: int
    declined: int
    contended: Mapping[str, int]
    buckets: tuple[int, ...]
    period_ns: float

    @property
    def runs(self) -> int:
        return self.handled + self.declined + sum(self.contended.values())

    def quantile(self, share: float) -> float | None:
        """The time, in ns, within which this share of the handled exits was done; None if it is not known.

        Interpolated within its bucket, which is a factor of two wide.
        """
        total = sum(self.buckets)
        if not total or not self.period_ns:
            return None
        wanted, below = share * total, 0
        for power, seen in enumerate(self.buckets):
            if seen and below + seen >= wanted:
                low = 1 << power if power else 0
                return (low + ((2 << power) - low) * (wanted - below) / seen) * self.period_ns
            below += seen
        return None

    def to_json(self) -> dict[str, Any]:
        median, late = self.quantile(0.5), self.quantile(0.99)
        histogram = [
            {
                "from_ns": round((1 << power if power else 0) * self.period_ns, 1),
                "to_ns": round((2 << power) * self.period_ns, 1),
                "exits": seen,
            }
            for power, seen in enumerate(self.buckets)
            if seen
        ]
        return {
            "device": self.device, "register": self.register, "op": self.op, "handled": self.handled,
            "declined": self.declined, "contended": sum(self.contended.values()),
            **self.contended,
            "median_ns": None if median is None else round(median, 1),
            "p99_ns": None if late is None else round(late, 1),
            "histogram": histogram if self.period_ns else [],
        }  # fmt: skip


def rows(vm: Vm, figures: Figures, only: str | None = None) -> list[Row]:
    """A VM's figures by register, of all devices or of one."""
    programs = {device.name: device.program for device in vm.devices}
    found: dict[tuple[str, str, str], list[HandlerFigures]] = {}
    for each in figures.handlers:
        # A device that somebody has added meanwhile is in the next answer.
        if each.device in programs and only in (None, each.device):
            register, op = section_name(programs[each.device], each.section)
            found.setdefault((each.device, register, op), []).append(each)
    return [_row(key, handlers, figures.period_ns) for key, handlers in found.items()]


def _row(key: tuple[str, str, str], handlers: Sequence[HandlerFigures], period_ns: float) -> Row:
    return Row(
        *key,
        handled=sum(each.handled for each in handlers),
        declined=sum(each.declined for each in handlers),
        contended={
            why: sum(each.contended for each in handlers if each.guard == guard)
            for guard, why in CONTENTION.items()
        },
        buckets=tuple(map(sum, zip(*(each.ticks for each in handlers), strict=True))),
        period_ns=period_ns,
    )


def of_device(device: Device, figures: Iterable[HandlerFigures]) -> dict[str, HandlerFigures]:
    """A device's figures by section."""
    return {each.section: each for each in figures if each.device == device.name}


def section_name(program: Program, section: str) -> tuple[str, str]:
    """The register and operation of a handler's section; what is not an access is an operation itself."""
    binding = parse_binding(section)
    return (section, "") if isinstance(binding, str) else handler_name(program, binding)


def handler_name(program: Program, binding: Binding) -> tuple[str, str]:
    """What a handler answers, as people call it: the register and the operation."""
    match binding:
        case AccessBinding():
            return _register(program, binding), str(binding.op)
        case TimerBinding(name):
            return name, "timer"
        case LineBinding(name):
            return name, "line"
        case HypercallBinding(number):
            return program.names.calls.get(number, f"{number:#x}"), "hypercall"


def _register(program: Program, binding: AccessBinding) -> str:
    from devbc.guests.replay import register_label

    for each in program.registers:
        if each.bank == binding.bank and (label := register_label(each, binding.lo)):
            last = register_label(each, binding.hi)
            if each.count > 1 and last != label:
                return f"{each.name}[{label.partition('[')[2].partition(']')[0]}-{last.partition('[')[2]}"
            return label
    return str(binding).partition("@")[2]


def bars(buckets: Sequence[int], first: int, last: int) -> str:
    """A histogram as a line of text: buckets `first` to `last`, their heights in powers of about 5.

    A bucket with a single exit shows, beside one with a million.
    """
    return "".join(
        _BARS[min((seen.bit_length() + 1) * 2 // 5 + 1 if seen else 0, len(_BARS) - 1)]
        for seen in buckets[first : last + 1]
    )


def span(found: Iterable[Row]) -> tuple[int, int]:
    """The first and the last bucket that any of the rows has something in."""
    used = [power for row in found for power, seen in enumerate(row.buckets) if seen]
    return (min(used), max(used)) if used else (0, -1)


def ns(value: float | None) -> str:
    """A time for people: 12 ns, 3.4 us, 1.2 ms."""
    if value is None:
        return ""
    for unit in ("ns", "us", "ms"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 100 or unit == "ns" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} s"
