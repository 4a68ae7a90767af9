"""Benchmark `recordings`: exits avoided on recorded guests, and the device time that they would have taken.

Counts are exact: the recorded accesses are replayed, and each value is compared with the recorded one.
Device time is modelled, so many exits at so much each: by what benchmark `mechanisms` measured in this run,
and by published cost profiles (`devbc.guests.cost_profiles`). A model knows nothing of caches that an exit
leaves cold, of locks, or of time that a guest would have slept.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

from bench import mechanisms
from bench.results import Figure, ModelledTime, RecordingResult, RegisterRow, Timeline
from bench.runner import Bench, cpus, pinned
from devbc.diagnostics import Rejected
from devbc.engines.engine import Engine
from devbc.guests.cost_profiles import PROFILES
from devbc.guests.recording import Recording, read_recording
from devbc.guests.replay import Replay, register_name, replay, tally
from devbc.hypervisor.layouts import MISMATCH, Outcome, Reason
from devbc.hypervisor.run import Run
from devbc.hypervisor.vcpu import VCpu
from devbc.hypervisor.vm import VM

NAME: Final = "recordings"

#: Bins of a timeline: as many as a picture shows.
_BINS: Final = 400
_NS_PER_MS: Final = 1_000_000

JIT: Final = "JIT"
JIT_TIMED: Final = "JIT, each exit timed"
INTERPRETER: Final = "interpreter"
#: Handled exits in a row that are timed as a whole, at least and at most: a call from Python takes some
#: 1.3 us, somebody else's time slice some ms.
_LEAST: Final = 1_000
_MOST: Final = 4_000
MEASURED: Final = "this run, software only"
MEASURED_KVM: Final = "this run, exits of KVM"


def run(bench: Bench) -> None:
    tiny = bench.effort.repetitions == 1
    with pinned(cpus()[:1]):
        for path in [*paths()][: 1 if tiny else None]:
            bench.tell(f"{bench.name}: {path.name}")
            try:
                _measure(bench, path)
            except Rejected as rejection:
                bench.skip(path.name.partition(".")[0], rejection.diagnostics[0].message)


def paths() -> Iterator[Path]:
    """Recordings of the checkout, and those that are kept beside it (or where DEVBC_SHARED says)."""
    here = Path(__file__).parent
    beside = Path(os.environ.get("DEVBC_SHARED") or here.parents[1] / "shared")
    seen = set()
    for folder in (here / "traces", beside / "traces"):
        for path in sorted(folder.glob("*.tsv.gz")):
            if path.name not in seen:
                seen.add(path.name)
                yield path


def _measure(bench: Bench, path: Path) -> None:
    from devbc.catalog import load_machine, machine_of
    from devbc.engines.jit import JitEngine
    from devbc.engines.native_interpreter import InterpreterEngine

    recording = _shortened(read_recording(path), 2_000 if bench.effort.repetitions == 1 else None)
    machine = machine_of(recording.machine) or "pc"
    devices, wires = load_machine(machine)

    def fresh(engine: Engine) -> VM:
        vm = VM(devices, wires, rtc_base=recording.rtc_base)
        vm.attach(engine)
        return vm

    vm, run = fresh(JitEngine()), Run(recording.accesses)
    vm.run(run)
    counted = tally(recording, run, vm, 0.0)
    parts = _parts(run.outcomes)
    samples: dict[str, list[float]] = {JIT: [], INTERPRETER: [], JIT_TIMED: []}
    for _ in range(min(bench.effort.slow, 6)):
        samples[JIT] += _untimed(recording, fresh(JitEngine()), parts)
        samples[INTERPRETER] += _untimed(recording, fresh(InterpreterEngine()), parts)
        if (ns := replay(recording, fresh(JitEngine())).total.ns_per_handled_exit) is not None:
            samples[JIT_TIMED].append(ns)
    share = sum(part.stop - part.start for part in parts if part.long) / max(1, counted.total.handled)
    whole = f"median of means over {_LEAST:,} to {_MOST:,} in a row, {share:.0%} of the handled exits"
    for name, found in samples.items():
        if found:
            note = "median of handled exits" if name == JIT_TIMED else whole
            bench.add(recording.name, name, "ns", found, note=note)
    bench.recordings.append(_result(recording, machine, vm, counted, run, bench.figures))


@dataclass(frozen=True, slots=True)
class _Part:
    """Accesses of a recording, `start` up to `stop`; `long`: all handled, and so many that they are timed."""

    start: int
    stop: int
    long: bool


def _parts(outcomes: Sequence[int]) -> list[_Part]:
    """A recording in parts: handled exits in long rows, and what lies between them."""
    found, start, begun = [], 0, 0
    for index, outcome in enumerate((*outcomes, Outcome.UNCLAIMED)):
        if outcome & ~MISMATCH == Outcome.HANDLED:
            continue
        if index - begun >= _LEAST:
            found.append(_Part(start, begun, long=False))
            # As few as may be, alike in length.
            pieces = -(-(index - begun) // _MOST)
            ends = [begun + (index - begun) * number // pieces for number in range(pieces + 1)]
            found += [_Part(*ends, long=True) for ends in pairwise(ends)]
            start = index
        begun = index + 1
    return [*found, _Part(start, len(outcomes), long=False)]


def _untimed(recording: Recording, vm: VM, parts: Sequence[_Part]) -> list[float]:
    """ns of a handled exit that is not timed itself: the median of the long parts' means, in a replay of all.

    Long parts do not leave the native loop; what devices signal meanwhile is served in the parts between.
    Each counts for as many exits as it has.
    """
    size = len(recording.accesses) // max(1, len(recording))
    means: list[tuple[float, int]] = []
    for part in parts:
        run = Run(recording.accesses[part.start * size : part.stop * size], timed=False)
        if not part.long:
            vm.run(run)
            continue
        start = perf_counter_ns()
        vm.vcpus[0].run(run, _unexpected)
        means.append(((perf_counter_ns() - start) / run.count, run.count))
    half = sum(count for _, count in means) / 2
    for mean, count in sorted(means):
        half -= count
        if half <= 0:
            return [mean]
    return []


def _shortened(recording: Recording, count: int | None) -> Recording:
    """The first accesses of a recording."""
    if count is None or count >= len(recording):
        return recording
    size = len(recording.accesses) // len(recording)
    accesses, targets = recording.accesses[: count * size], recording.target_of[:count]
    return replace(recording, accesses=accesses, target_of=targets)


def _unexpected(_vcpu: VCpu, run: Run, reason: Reason) -> None:
    raise AssertionError(f"an exit that was handled before is not ({reason}, {run.done})")


def _result(
    recording: Recording, machine: str, vm: VM, replayed: Replay, run: Run, figures: Sequence[Figure]
) -> RecordingResult:
    outcomes = Counter(
        zip(recording.target_of, (outcome & ~MISMATCH for outcome in run.outcomes), strict=True)
    )
    rows: dict[Any, Counter[Outcome]] = {name: Counter() for name in replayed.registers}
    for (target, outcome), count in outcomes.items():
        rows[register_name(vm, recording.targets[target])][Outcome(outcome)] += count
    handled, accesses = replayed.total.handled, replayed.total.accesses
    last = run.accesses[run.count - 1].time if run.count else 0
    return RecordingResult(
        name=recording.name,
        machine=machine,
        accesses=accesses,
        seconds=last / 1e9,
        mismatches=replayed.total.mismatches,
        registers=tuple(
            RegisterRow(
                device=name.device, register=name.register, op=str(name.op), accesses=sum(counts.values()),
                handled=counts[Outcome.HANDLED], declined=counts[Outcome.DECLINED],
                contended=counts[Outcome.CONTENDED], no_program=counts[Outcome.NO_PROGRAM],
                unclaimed=counts[Outcome.UNCLAIMED],
            )
            for name, counts in rows.items()
        ),
        times=tuple(_times(figures, handled, accesses)),
        timeline=_timeline(run, last),
    )  # fmt: skip


def _times(figures: Sequence[Figure], handled: int, accesses: int) -> Iterator[ModelledTime]:
    """Device time by each cost profile, in ms."""
    for name, source, kernel, userspace in _profiles(figures):
        yield ModelledTime(
            profile=name, source=source, unit="ms", handled_cost=kernel, userspace_cost=userspace,
            without=accesses * userspace / 1e6,
            with_programs=(handled * kernel + (accesses - handled) * userspace) / 1e6,
        )  # fmt: skip


def _profiles(figures: Sequence[Figure]) -> Iterator[tuple[str, str, float, float]]:
    """Name, source, ns in the kernel and through userspace: what was measured, then what is published."""
    measured = {
        figure.competitor: figure.summary.median
        for figure in figures
        if (figure.benchmark, figure.subject) == (mechanisms.NAME, mechanisms.MAIN)
    }
    handler = measured.get(mechanisms.JIT)
    if handler and mechanisms.SLEEPING_ONE in measured:
        source = f"handler in the JIT against “{mechanisms.SLEEPING_ONE}”; without the hardware's exit"
        yield MEASURED, source, handler, measured[mechanisms.SLEEPING_ONE]
    if handler and {mechanisms.KVM_PIT, mechanisms.KVM_USERSPACE} <= measured.keys():
        kernel = measured[mechanisms.KVM_PIT] + handler
        source = "KVM's in-kernel PIT plus a handler, against KVM_RUN to a userspace that answers nothing"
        yield MEASURED_KVM, source, kernel, measured[mechanisms.KVM_USERSPACE]
    for profile in PROFILES.values():
        yield profile.name, f"{profile}; {profile.source}", profile.kernel_ns, profile.userspace_ns


def _timeline(run: Run, last: int) -> Timeline:
    """Exits to userspace by bins of guest time: a whole number of ms each."""
    bin_ms = max(1, -(-last // (_BINS * _NS_PER_MS)))
    count = last // (bin_ms * _NS_PER_MS) + 1
    without, with_programs = [0] * count, [0] * count
    for access, outcome in zip(run.accesses, run.outcomes, strict=True):
        place = access.time // (bin_ms * _NS_PER_MS)
        without[place] += 1
        if outcome & ~MISMATCH != Outcome.HANDLED:
            with_programs[place] += 1
    return Timeline(bin_ms=float(bin_ms), without=tuple(without), with_programs=tuple(with_programs))
