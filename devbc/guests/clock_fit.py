"""Is a row of values a clock's? A counter modulo a power of two, up or down, at a steady rate.

Intervals between reads are compared, short and long ones: from each read to the next, over four reads, over
sixteen. Some of them are taken for right in turn, and each is tried on longer and longer ones, while the
error of the rate so far leaves no doubt about how often the counter has wrapped. What counts is the
candidate that most agree with. Nothing is assumed about the value at time 0, so that a counter that was set
or stopped between two reads costs the intervals across that moment, and no more.

A fit is evidence, not proof: how likely values without a clock would have fitted is part of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from statistics import median
from typing import Final

#: Distinct values, and intervals in which the counter moved visibly, below which nothing is said.
_VALUES: Final = 8
_INTERVALS: Final = 8
#: From a length of intervals to the next longer one, in reads.
_LONGER: Final = 4
#: Intervals of each length that candidates are tried on, and how many of all are candidates.
_TRIED: Final = 128
_SEEDS: Final = 48
#: Of the intervals, how many must agree; those without a write to the device between, nearly all.
_AGREE: Final = 0.8
_AGREE_UNDISTURBED: Final = 0.97
#: Counts per ns: no register that a guest reads by an exit counts faster.
_FASTEST: Final = 4.0
#: A read's value is a whole number: two of them may each be off by one.
_QUANTUM: Final = 2.0


@dataclass(frozen=True, slots=True)
class ClockFit:
    """A counter that agrees with its values.

    `hz`: its rate, negative if it counts down, known to `error_hz`. `bits`: of the largest value; `wrapped`:
    whether it was seen to pass 0, so that these are all its bits. `agree` of `intervals` are within
    `tolerance` counts; `residual` is the median distance of these, in counts. `chance`: how likely a random
    value would have agreed, for each interval.
    """

    hz: float
    error_hz: float
    bits: int
    wrapped: bool
    agree: int
    intervals: int
    residual: float
    tolerance: float
    chance: float


@dataclass(frozen=True, slots=True)
class _Interval:
    """Between two reads: `time` in ns, `step` modulo the counter's range, past 0, a write between or not."""

    time: int
    step: float
    turned: bool
    disturbed: bool


@dataclass(slots=True)
class _Mean:
    """The least-squares line through the origin: long intervals tell a rate better than short ones."""

    products: float = 0.0
    squares: float = 0.0

    def add(self, counts: float, time: float) -> None:
        self.products += counts * time
        self.squares += time * time

    @property
    def rate(self) -> float:
        return self.products / self.squares


def fit_clock(
    times: Sequence[int], values: Sequence[int], epochs: Sequence[int], *, jitter: int
) -> ClockFit | None:
    """The clock that the values follow, or None.

    `times` in ns; `epochs`: a number that changes with each write to the device; `jitter`: how far the times
    may be off, in ns.
    """
    if len(set(values)) < _VALUES:
        return None
    bits = max(values).bit_length()
    kept = _apart(times, 8 * jitter)
    best: ClockFit | None = None
    for sign in (1, -1):
        lengths: list[list[_Interval]] = []
        ends = kept
        while len(ends) > 1:
            lengths.append(
                [
                    _Interval(times[b] - times[a], step % (1 << bits), step < 0, epochs[a] != epochs[b])
                    for a, b in pairwise(ends)
                    if times[b] > times[a]
                    for step in [sign * (values[b] - values[a])]
                ]
            )
            ends = ends[::_LONGER]
        found = _fit(lengths, bits, sign, jitter)
        if found and (best is None or abs(found.hz) < abs(best.hz)):
            best = found
    return best


def _apart(times: Sequence[int], least: int) -> list[int]:
    """Reads so far apart that their times' jitter does not hide the counter's movement."""
    kept: list[int] = []
    for index, time in enumerate(times):
        if not kept or time >= times[kept[-1]] + least:
            kept.append(index)
    return kept


def _fit(lengths: list[list[_Interval]], bits: int, sign: int, jitter: int) -> ClockFit | None:
    intervals = sorted(chain.from_iterable(lengths), key=lambda each: each.time)
    tried = sorted(chain.from_iterable(map(_sample, lengths)), key=lambda each: each.time)
    seeds = tried[:: max(1, len(tried) // _SEEDS)]
    candidates = {_refined(seed, tried, bits, jitter) for seed in seeds if seed.step}
    # In the shortest interval the counter has not gone around, or its rate cannot be known.
    limit = min(_FASTEST, (1 << bits) / (2 * intervals[0].time))
    rates = [rate for rate in candidates if 0 < rate < limit]
    if not rates:
        return None
    agree = {rate: sum(_agrees(each, rate, bits, jitter) for each in tried) for rate in rates}
    # Rates that differ by whole turns in a time that all intervals are multiples of agree alike: the slowest.
    rate = min(rate for rate in rates if agree[rate] >= 0.95 * max(agree.values()))
    return _judged(
        _refined(_as_seed(rate, intervals), intervals, bits, jitter), intervals, bits, sign, jitter
    )


def _as_seed(rate: float, intervals: Sequence[_Interval]) -> _Interval:
    """An interval without an error of its own, to begin with a rate that is known already."""
    time = max(1, intervals[0].time)
    return _Interval(time, rate * time, False, False)


def _sample(intervals: list[_Interval]) -> list[_Interval]:
    return sorted(intervals, key=lambda each: each.time)[:: len(intervals) // _TRIED + 1]


def _refined(seed: _Interval, intervals: Sequence[_Interval], bits: int, jitter: int) -> float:
    """The rate in counts per ns that begins as one interval's, and learns from longer ones that agree.

    `intervals`: the shortest first.
    """
    mean, longest = _Mean(), seed.time
    mean.add(seed.step, seed.time)
    for each in intervals[bisect_left(intervals, seed.time, key=lambda each: each.time) :]:
        tolerance = _tolerance(mean.rate, jitter)
        # The rate is known as well as its longest interval tells it.
        allowed = tolerance * (1 + each.time / longest)
        if 4 * allowed >= 1 << bits:
            break
        off = _off(each, mean.rate, bits)
        if abs(off) <= allowed:
            mean.add(mean.rate * each.time + off, each.time)
            longest = each.time
    return mean.rate


def _judged(
    rate: float, intervals: Sequence[_Interval], bits: int, sign: int, jitter: int
) -> ClockFit | None:
    """The fit, if enough intervals agree in which the counter has moved."""
    tolerance = _tolerance(rate, jitter)
    chance = min(1.0, (2 * tolerance + 1) / (1 << bits))
    moved = [each for each in intervals if rate * each.time > tolerance]
    off = [abs(_off(each, rate, bits)) for each in moved]
    agree = [distance for distance in off if distance <= tolerance]
    quiet = [distance for each, distance in zip(moved, off, strict=True) if not each.disturbed]
    if len(agree) * (1 - chance) < _INTERVALS or len(agree) < _AGREE * len(moved):
        return None
    if sum(distance <= tolerance for distance in quiet) < _AGREE_UNDISTURBED * len(quiet):
        return None
    agreeing = [each for each, distance in zip(moved, off, strict=True) if distance <= tolerance]
    # A counter that is set lower now and then has not wrapped: its intervals do not agree.
    wrapped = any(each.turned for each in agreeing)
    error = tolerance / max(each.time for each in agreeing)
    return ClockFit(
        sign * rate * 1e9,
        error * 1e9,
        bits,
        wrapped,
        len(agree),
        len(moved),
        median(agree),
        tolerance,
        chance,
    )


def _tolerance(rate: float, jitter: int) -> float:
    """How far a step may be off, in counts."""
    return _QUANTUM + 2 * rate * jitter


def _off(interval: _Interval, rate: float, bits: int) -> float:
    """How far the step is from what the rate says, modulo 2**bits: the number of least size."""
    half = 1 << (bits - 1)
    return (interval.step - rate * interval.time + half) % (2 * half) - half


def _agrees(interval: _Interval, rate: float, bits: int, jitter: int) -> bool:
    return abs(_off(interval, rate, bits)) <= _tolerance(rate, jitter)
