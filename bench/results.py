"""What a run leaves behind: typed records, as JSON. Plots, page and comparison read nothing else.

Every sample is kept, in the order of its round, so that medians, intervals and ratios are made when they are
shown, and can be made anew by whoever doubts them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bench.statistics import Summary, paired_ratios, summarise
from devbc.cli.errors import BAD_RESULTS
from devbc.diagnostics import Span, reject
from devbc.files import read_file

#: 2: a handler's exits are no longer timed one by one, where the row does not say so.
FORMAT: Final = 2
#: A report of ours has some 2 MB; what is much larger is something else.
_BYTES: Final = 64 << 20


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What all records have in common."""


class Figure(Record, frozen=True, kw_only=True):
    """One competitor's times on one subject; those of the same benchmark and subject share their rounds.

    `samples`: in `unit`, one a round; `batch`: operations that each is the mean of. `x`: the place on an
    axis, for figures that are a series. `group`: what the competitor belongs to, for colours and captions.
    """

    benchmark: str
    subject: str
    competitor: str
    unit: str
    samples: tuple[float, ...]
    batch: int = 1
    x: float | None = None
    group: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        place = "" if self.x is None else f"@{self.x:g}"
        return f"{self.benchmark}/{self.subject}/{self.competitor}{place}"

    @property
    def summary(self) -> Summary:
        return summarise(self.samples)

    def ratio_to(self, reference: Figure) -> Summary:
        """How many times the reference; round by round where both share their rounds, else of the medians."""
        if (self.benchmark, self.subject) == (reference.benchmark, reference.subject) and (
            len(self.samples) == len(reference.samples)
        ):
            return summarise(paired_ratios(self.samples, reference.samples))
        mine, other = self.summary, reference.summary
        ratio = mine.median / other.median
        return Summary(
            ratio, mine.low / other.high, mine.high / other.low, min(mine.coverage, other.coverage),
            mine.least / other.greatest, mine.greatest / other.least, min(mine.count, other.count),
        )  # fmt: skip


class Skipped(Record, frozen=True, kw_only=True):
    """A competitor, or a whole benchmark, that was not measured, and why."""

    benchmark: str
    competitor: str
    reason: str


class RegisterRow(Record, frozen=True, kw_only=True):
    """A register of a recorded guest: who answered its accesses."""

    device: str
    register: str
    op: str
    accesses: int
    handled: int
    declined: int
    contended: int
    no_program: int
    unclaimed: int


class ModelledTime(Record, frozen=True, kw_only=True):
    """Device time of a recording by a cost model: so many exits of each kind, at so much each.

    `without`: every access of a device is a userspace exit. `with_`: handled ones are in-kernel exits.
    """

    profile: str
    source: str
    unit: str
    handled_cost: float
    userspace_cost: float
    without: float
    with_programs: float


class Timeline(Record, frozen=True, kw_only=True):
    """Exits to userspace in each bin of guest time, without and with programs."""

    bin_ms: float
    without: tuple[int, ...]
    with_programs: tuple[int, ...]


class RecordingResult(Record, frozen=True, kw_only=True):
    """A recorded guest, replayed: counts are exact, times are modelled."""

    name: str
    machine: str
    accesses: int
    seconds: float
    mismatches: int
    registers: tuple[RegisterRow, ...]
    times: tuple[ModelledTime, ...]
    timeline: Timeline

    def total(self, what: str) -> int:
        return sum(int(getattr(row, what)) for row in self.registers)


class Target(Record, frozen=True, kw_only=True):
    """A speed that the project set itself, in `unit`; `met` is None if it was not measured.

    `row` and `column`: its place, for targets that are shown as a table of subjects and peers.
    """

    name: str
    value: float | None
    limit: float
    unit: str
    at_least: bool = False
    note: str = ""
    row: str = ""
    column: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def ratio(self) -> float | None:
        """What was measured, in times of the limit."""
        return None if self.value is None or not self.limit else self.value / self.limit


class Environment(Record, frozen=True, kw_only=True):
    """What the run ran on. `clock_step_ns`: between two readings of the counter, as a rule."""

    cpu: str
    cpus: int
    virtualised: bool
    kernel: str
    governor: str
    python: str
    llvm: str
    devbc: str
    c_compiler: str
    counter_mhz: float | None
    clock_step_ns: float | None
    load: float


class Results(Record, frozen=True, kw_only=True):
    """A run of the suite. `pinning`: what was pinned where, in words."""

    format: int
    started: str
    seconds: float
    effort: str
    repetitions: int
    pinning: str
    environment: Environment
    figures: tuple[Figure, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    recordings: tuple[RecordingResult, ...] = ()
    targets: tuple[Target, ...] = ()

    def find(self, benchmark: str, subject: str, competitor: str) -> Figure | None:
        for figure in self.figures:
            if (figure.benchmark, figure.subject, figure.competitor) == (benchmark, subject, competitor):
                return figure
        return None

    def of(self, benchmark: str) -> list[Figure]:
        return [figure for figure in self.figures if figure.benchmark == benchmark]


def encode(results: Results) -> bytes:
    return msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"


def read(path: Path) -> Results:
    """The results in a file. Raises Rejected: C001 unreadable, C010 no results of this version."""
    data = read_file(path, _BYTES)
    try:
        results = msgspec.json.decode(data, type=Results)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise reject(BAD_RESULTS, f"they do not read: {error}".rstrip("."), Span(str(path))) from None
    if results.format != FORMAT:
        message = f"they are of format {results.format}, this version reads {FORMAT}"
        raise reject(BAD_RESULTS, message, Span(str(path)))
    if any(not figure.samples for figure in results.figures):
        raise reject(BAD_RESULTS, "a figure has no samples", Span(str(path)))
    return results
