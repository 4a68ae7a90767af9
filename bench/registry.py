"""The suite: named benchmarks as values, in the order in which they run, and a whole run of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter, strftime
from typing import Final

from bench import engines, mechanisms, recordings, scale, startup
from bench.environment import environment
from bench.results import FORMAT, Results
from bench.runner import Bench, Effort, cpus
from bench.targets import targets


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`about`: what it measures, in a sentence. `pinning`: what runs where."""

    name: str
    about: str
    pinning: str
    run: Callable[[Bench], None]


#: `recordings` models with what `mechanisms` has measured in the same run, so that it comes after it.
BENCHMARKS: Final = (
    Benchmark(
        engines.NAME,
        "the same handlers in our engines and their peers: C, librte_bpf, Linux's BPF",
        "one CPU",
        engines.run,
    ),
    Benchmark(
        mechanisms.NAME,
        "one exit by who answers it: a handler, Linux's BPF, a model, another process, KVM",
        "one CPU; to another process also two, as each row says",
        mechanisms.run,
    ),
    Benchmark(
        scale.NAME,
        "exits per second against vCPUs and VMs, with and without a lock; an exit against registers attached",
        "threads on all CPUs in turn; registers on one",
        scale.run,
    ),
    Benchmark(
        startup.NAME,
        "what a program costs before its first exit: compile, verify, JIT, load, the cache",
        "one CPU",
        startup.run,
    ),
    Benchmark(
        recordings.NAME,
        "exits avoided on recorded guests, and the device time that they would take (modelled)",
        "one CPU",
        recordings.run,
    ),
)
NAMES: Final = tuple(each.name for each in BENCHMARKS)


def run(
    names: Iterable[str], effort: Effort, progress: Callable[[int, str], None] = lambda _done, _what: None
) -> Results:
    """Run benchmarks. `progress` is told how many are done, and what is being measured."""
    chosen = [each for each in BENCHMARKS if each.name in set(names)]
    before, start, began = environment(), perf_counter(), strftime("%Y-%m-%d %H:%M:%S %z")
    bench = Bench(effort)
    for number, benchmark in enumerate(chosen):
        bench.name = benchmark.name
        bench.tell = lambda what, number=number: progress(number, what)  # type: ignore[misc]
        bench.tell(benchmark.name)
        benchmark.run(bench)
    progress(len(chosen), "done")
    results = Results(
        format=FORMAT, started=began, seconds=round(perf_counter() - start, 1), effort=effort.name,
        repetitions=effort.repetitions, pinning=_pinning(chosen), environment=before,
        figures=tuple(bench.figures), skipped=tuple(bench.skipped), recordings=tuple(bench.recordings),
    )  # fmt: skip
    return targets(results)


def _pinning(chosen: Sequence[Benchmark]) -> str:
    rows = "; ".join(f"{each.name}: {each.pinning}" for each in chosen)
    return f"CPUs {', '.join(map(str, sorted(cpus())))}. {rows}"
