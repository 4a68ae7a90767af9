"""Measuring: warm-up, batches long enough to be timed, and rounds in which all competitors take part.

A round runs each competitor once, in an order that changes from round to round, so that drift of the machine
and what a neighbour leaves in caches and predictors hit all alike. Nothing is discarded but the warm-up.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Final

from bench.results import Figure, RecordingResult, Skipped


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. `batch_ns`: what a sample takes at least; `slow`: rounds of what takes long."""

    name: str
    repetitions: int
    slow: int
    batch_ns: int
    warmups: int


FULL: Final = Effort("full", 41, 11, 4_000_000, 3)
QUICK: Final = Effort("quick", 11, 3, 500_000, 1)
#: For tests, that nothing rots: the figures mean nothing.
TINY: Final = Effort("tiny", 1, 1, 1, 0)

#: Runs so many operations, and returns the ns that they took.
Work = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Competitor:
    """`batch`: operations of each sample; None: as many as fill a batch's time."""

    name: str
    work: Work
    batch: int | None = None
    group: str = ""
    note: str = ""
    x: float | None = None


@dataclass
class Bench:
    """A run in progress: what benchmarks are given, and where they leave what they find."""

    effort: Effort
    tell: Callable[[str], None] = lambda _: None
    figures: list[Figure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    recordings: list[RecordingResult] = field(default_factory=list)
    name: str = ""

    def skip(self, competitor: str, reason: str) -> None:
        entry = Skipped(benchmark=self.name, competitor=competitor, reason=reason)
        if entry not in self.skipped:
            self.skipped.append(entry)

    def compete(
        self, subject: str, competitors: Sequence[Competitor], *, unit: str = "ns", slow: bool = False
    ) -> list[Figure]:
        """Measure competitors on one subject, in rounds; their samples are ns an operation, in `unit`."""
        self.tell(f"{self.name}: {subject}")
        repetitions = self.effort.slow if slow else self.effort.repetitions
        batches = {each.name: each.batch or self._batch(each.work) for each in competitors}
        assert len(batches) == len(competitors)
        works = {each.name: each.work for each in competitors}
        samples = rounds(works, batches, repetitions, self.effort.warmups)
        scale = _SCALES[unit]
        figures = [
            Figure(
                benchmark=self.name, subject=subject, competitor=each.name, unit=unit,
                samples=tuple(float(f"{ns / scale:.5g}") for ns in samples[each.name]),
                batch=batches[each.name], group=each.group, note=each.note, x=each.x,
            )
            for each in competitors
        ]  # fmt: skip
        self.figures += figures
        return figures

    def add(self, subject: str, competitor: str, unit: str, samples: Sequence[float], **more: object) -> None:
        """A figure that is not a time of `compete`'s: a rate, or a size."""
        values = tuple(float(f"{each:.5g}") for each in samples)
        self.figures.append(
            Figure(
                benchmark=self.name, subject=subject, competitor=competitor, unit=unit, samples=values,
                **more,  # type: ignore[arg-type]
            )
        )  # fmt: skip

    def _batch(self, work: Work) -> int:
        """Operations that fill a batch: more and more, until even the best of three times is long enough.

        One time alone may hold a whole time slice of somebody else's.
        """
        batch = 1
        while (ns := min(work(batch) for _ in range(3))) < self.effort.batch_ns and batch < _BATCH:
            factor = self.effort.batch_ns / max(ns, 1)
            batch = min(batch * 16, max(batch + 1, int(batch * factor * 1.1)))
        return batch


#: More operations than any batch needs: what takes no time at all does not take for ever.
_BATCH: Final = 1 << 30
_SCALES: Final = {"ns": 1.0, "us": 1e3, "ms": 1e6}


def rounds(
    works: Mapping[str, Work], batches: Mapping[str, int], repetitions: int, warmups: int
) -> dict[str, list[float]]:
    """ns an operation, by competitor and round. The order within a round is shuffled, by a seed."""
    samples: dict[str, list[float]] = {name: [] for name in works}
    names, shuffle = list(works), random.Random(1).shuffle
    with quiet():
        for number in range(-warmups, repetitions):
            shuffle(names)
            for name in names:
                ns = works[name](batches[name]) / batches[name]
                if number >= 0:
                    samples[name].append(ns)
    return samples


def timed(call: Callable[[], object]) -> float:
    """ns that a call takes."""
    start = perf_counter_ns()
    call()
    return float(perf_counter_ns() - start)


def once(call: Callable[[], object]) -> Work:
    """Work of one call an operation."""

    def work(count: int) -> float:
        return sum(timed(call) for _ in range(count))

    return work


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage is collected meanwhile."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and what it starts, on some CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpus() -> list[int]:
    """The CPUs that this process may use, the one to be pinned to first: the last, where least else runs."""
    return sorted(os.sched_getaffinity(0), reverse=True)
