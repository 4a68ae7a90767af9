"""What a register's reads depend on, as far as the values show.

A trace has values, not a datasheet: each class is what the values agree with, and carries its evidence in
words. `constant`, `clock`, `storage` and `state` are pure: a handler can answer them from the state and the
clock and change nothing. The order of the questions is that of how much the answer says.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from devbc.guests.clock_fit import ClockFit, fit_clock
from devbc.guests.trace_formats.access import UNKNOWN

#: Reads below which nothing is said.
ENOUGH: Final = 8


class ReadClass(StrEnum):
    CONSTANT = "constant"
    CLOCK = "clock"
    STORAGE = "storage"
    STATE = "state"
    SIDE_EFFECT = "side effect?"
    BY_ITSELF = "changes by itself"
    UNDECIDED = "undecided"

    @property
    def pure(self) -> bool:
        """Whether it is a function of state and clock."""
        return self in (ReadClass.CONSTANT, ReadClass.CLOCK, ReadClass.STORAGE, ReadClass.STATE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A class, the evidence for it in a sentence, and the clock for `CLOCK` and counters read in bytes."""

    read_class: ReadClass
    evidence: str
    clock: ClockFit | None = None


@dataclass(slots=True)
class Reads:
    """A register's reads in order.

    `times` in ns, `UNKNOWN` throughout if the trace has none. `epochs`: how many writes the device has seen
    before each; `touches`: how many accesses of its other registers, and writes of this one; `states`: a hash
    of the values last written to each of its registers; `written`: the value last written to this register,
    `NEVER_WRITTEN` before the first. `partial`: reads whose value is unknown, not among the others.
    """

    size: int = 1
    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[int] = field(default_factory=lambda: array("Q"))
    epochs: array[int] = field(default_factory=lambda: array("I"))
    touches: array[int] = field(default_factory=lambda: array("I"))
    states: array[int] = field(default_factory=lambda: array("q"))
    written: list[int] = field(default_factory=list)
    partial: int = 0


NEVER_WRITTEN: Final = -1


def classify(reads: Reads, *, jitter: int) -> Verdict:
    """What the reads depend on. `jitter`: how far their times may be off, in ns."""
    count = len(reads.values)
    if reads.partial:
        text = (
            f"the trace has no value, or only the first, of {_of(reads.partial, count + reads.partial)} reads"
        )
        return Verdict(ReadClass.UNDECIDED, text)
    if count < ENOUGH:
        same = "all the same" if len(set(reads.values)) == 1 else "of different values"
        return Verdict(
            ReadClass.UNDECIDED, f"{count} read{_s(count)} only" + (f", {same}" if count > 1 else "")
        )
    if len(set(reads.values)) == 1:
        return Verdict(ReadClass.CONSTANT, f"{reads.values[0]:#x} in all {count:,} reads")
    return (
        _clock(reads, jitter)
        or _storage(reads)
        or _state(reads)
        or _state_of_others(reads)
        or _counter_in_bytes(reads, jitter)
        or _changing(reads)
    )


def _clock(reads: Reads, jitter: int) -> Verdict | None:
    if UNKNOWN in reads.times:
        return None
    fit = fit_clock(reads.times, reads.values, reads.epochs, jitter=jitter)
    return Verdict(ReadClass.CLOCK, _clock_text(fit), fit) if fit else None


def _clock_text(fit: ClockFit) -> str:
    way = "up" if fit.hz > 0 else "down"
    bits = f"{fit.bits} bits" if fit.wrapped else f"{fit.bits} bits or more (not seen to wrap)"
    return (
        f"counts {way} at {hertz(fit.hz)} (known to {percent(fit.error_hz / abs(fit.hz))}) in {bits}: "
        f"{_of(fit.agree, fit.intervals)} intervals agree, {fit.residual:.1f} counts off (median); of random "
        f"values {percent(fit.chance)} would"
    )


def _storage(reads: Reads) -> Verdict | None:
    """Whether the bits that ever change are those last written."""
    pairs = [(v, w) for v, w in zip(reads.values, reads.written, strict=True) if w != NEVER_WRITTEN]
    changing = differing = 0
    for value, written in pairs:
        changing |= value ^ pairs[0][0]
        differing |= value ^ written
    if len(pairs) < ENOUGH or not changing or changing & differing:
        return None
    before = set(reads.values[: len(reads.values) - len(pairs)])
    if len(before) > 1:
        return None
    kept = ", but for bits that are always the same" if differing else ""
    return Verdict(ReadClass.STORAGE, f"the value last written, in {len(pairs):,} reads{kept}")


def _state(reads: Reads) -> Verdict | None:
    """Whether the value follows from what was written to the device."""
    quiet, changed = _quiet(reads, reads.epochs)
    if quiet >= ENOUGH and not changed:
        text = f"changes only after writes to the device: {quiet:,} reads without one between, none different"
        return Verdict(ReadClass.STATE, text)
    seen: dict[int, int] = {}
    repeated = 0
    for state, value in zip(reads.states, reads.values, strict=True):
        repeated += state in seen
        if seen.setdefault(state, value) != value:
            return None
    if repeated < ENOUGH:
        return None
    text = f"follows from the values last written to the device: {repeated:,} times again, none different"
    return Verdict(ReadClass.STATE, text)


def _state_of_others(reads: Reads) -> Verdict | None:
    """Whether the value changes only when another register is read or written: the effect is the other's."""
    quiet, changed = _quiet(reads, reads.touches)
    if quiet < ENOUGH or changed:
        return None
    text = (
        f"changes only after accesses of the device's other registers: {quiet:,} reads without one between, "
        "none different"
    )
    return Verdict(ReadClass.STATE, text)


def _quiet(reads: Reads, marks: Sequence[int]) -> tuple[int, int]:
    """Pairs of neighbouring reads between which a mark stands still, and how many of them differ."""
    quiet = changed = 0
    for index in range(1, len(reads.values)):
        if marks[index] == marks[index - 1]:
            quiet += 1
            changed += reads.values[index] != reads.values[index - 1]
    return quiet, changed


def _counter_in_bytes(reads: Reads, jitter: int) -> Verdict | None:
    """Whether a byte register shows a 16-bit counter, low byte and high byte in turn (as the i8254 does).

    Which byte comes first is not known after a write: whoever reads begins with the low one.
    """
    if reads.size != 1 or UNKNOWN in reads.times:
        return None
    times, values, epochs = array("q"), array("Q"), array("I")
    index = 0
    while index + 1 < len(reads.values):
        if reads.epochs[index] != reads.epochs[index + 1]:
            index += 1
            continue
        times.append(reads.times[index])
        values.append(reads.values[index] | reads.values[index + 1] << 8)
        epochs.append(reads.epochs[index])
        index += 2
    if len(values) < ENOUGH or not (fit := fit_clock(times, values, epochs, jitter=jitter)):
        return None
    text = f"low and high byte of a counter in turn, each read moves to the other: {_clock_text(fit)}"
    return Verdict(ReadClass.SIDE_EFFECT, text, fit)


def _changing(reads: Reads) -> Verdict:
    """A value that changes without a write to the device: who changed it?"""
    count = len(reads.values)
    quiet, changed = _quiet(reads, reads.epochs)
    if not changed:
        text = f"{_of(count - 1 - quiet, count - 1)} reads follow a write to the device"
        return Verdict(ReadClass.UNDECIDED, text)
    cleared = _cleared(reads)
    if cleared:
        text = f"bits that are set are clear in the next read: {cleared:,} times, and never read twice"
        return Verdict(ReadClass.SIDE_EFFECT, text)
    text = f"{_of(changed, quiet)} reads differ from the one before, without a write to the device between"
    if 2 * changed > quiet:
        clock = "" if UNKNOWN not in reads.times else "; without times a clock cannot be told"
        return Verdict(ReadClass.SIDE_EFFECT, text + clock)
    return Verdict(ReadClass.BY_ITSELF, f"{text}: time, input from outside, or an effect of the read")


def _cleared(reads: Reads) -> int:
    """How often bits were read as set and then as clear, if they were never set in two reads in a row."""
    pairs = [
        (reads.values[index - 1], reads.values[index])
        for index in range(1, len(reads.values))
        if reads.epochs[index] == reads.epochs[index - 1]
    ]
    falling = kept = 0
    for before, after in pairs:
        falling |= before & ~after
        kept |= before & after
    alone = falling & ~kept
    times = sum(bool(before & alone) for before, _ in pairs)
    return times if alone and alone == falling and times >= ENOUGH // 2 else 0


def hertz(hz: float) -> str:
    """A rate as people write it."""
    size = abs(hz)
    for unit, name in ((1e9, "GHz"), (1e6, "MHz"), (1e3, "kHz")):
        if size >= unit:
            return f"{size / unit:.7g} {name}"
    return f"{size:.4g} Hz"


def _of(part: int, whole: int) -> str:
    return f"all {whole:,}" if part == whole else f"{part:,} of {whole:,}"


def percent(share: float) -> str:
    return "less than 0.01 %" if share < 0.0001 else f"{100 * share:.2g} %"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
