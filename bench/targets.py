"""The speeds that the project set itself, held to what a run has measured: goal, ratio, and yes or no.

Where one is not held, its note has the figures of the run that the distance is made of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import msgspec

from bench import engines, mechanisms, recordings, startup
from bench.results import Figure, Results, Target
from bench.statistics import paired_ratios, summarise


def targets(results: Results) -> Results:
    """The results with their targets; what was not measured has no value."""
    found = (*_replay(results), *_engines(results), *_exits(results), *_startup(results))
    return msgspec.structs.replace(results, targets=found)


def _median(figure: Figure | None) -> float | None:
    return None if figure is None else figure.summary.median


def _main(results: Results, competitor: str) -> float | None:
    """The median of who answers the main access."""
    return _median(results.find(mechanisms.NAME, mechanisms.MAIN, competitor))


def _replay(results: Results) -> Iterator[Target]:
    """The exit loop over the x86 recordings, and what the host's clock adds."""
    raw, ordered = (
        _median(results.find(engines.NAME, engines.CLOCK, name))
        for name in (engines.COUNTER, engines.ORDERED)
    )
    counter = "" if raw is None else f"a raw reading of the counter takes {raw:.3g} ns by itself"
    step = results.environment.clock_step_ns
    steps = f", and advances by {step:g} ns" if counter and step else ""
    untimed = _worst(results, recordings.JIT)
    yield Target(
        name="replay loop: a handled exit, virtual clock, over the x86 recordings", limit=10.0, unit="ns",
        value=None if untimed is None else untimed.summary.median,
        note="" if untimed is None else f"the worst of them, {untimed.subject}: {untimed.note}",
    )  # fmt: skip
    timed = _worst(results, recordings.JIT_TIMED)
    yield Target(
        name="replay loop: the same, each exit timed", limit=10.0, unit="ns",
        value=None if timed is None else timed.summary.median,
        note="" if timed is None else f"{timed.subject}: {timed.note}; {counter}{steps}",
    )  # fmt: skip
    clock = (
        f"{counter}; in order with the loads before it, {ordered:.3g} ns" if ordered is not None else counter
    )
    for name, host, virtual in (
        ("host clock: what a handled exit takes more", mechanisms.JIT_HOST, mechanisms.JIT),
        ("host clock: the same, each exit timed", mechanisms.JIT_HOST_TIMED, mechanisms.JIT_TIMED),
    ):
        more, less = _main(results, host), _main(results, virtual)
        known = more is not None and less is not None
        yield Target(
            name=name, limit=10.0 if raw is None else raw, unit="ns",
            value=round(more - less, 2) if more is not None and less is not None else None,
            note=f"{more:.3g} and {less:.3g} ns; {clock}" if known else clock,
        )  # fmt: skip


def _worst(results: Results, competitor: str) -> Figure | None:
    """The slowest of the x86 recordings: those of a PC."""
    names = {each.name for each in results.recordings if each.machine == "pc"}
    figures = [
        figure
        for figure in results.of(recordings.NAME)
        if figure.competitor == competitor and figure.subject in names
    ]
    return max(figures, key=lambda each: each.summary.median, default=None)


def _engines(results: Results) -> list[Target]:
    found = []
    for figure in results.of(engines.NAME):
        if figure.competitor != engines.JIT:
            continue
        peers = {
            peer: results.find(engines.NAME, figure.subject, peer)
            for peer in (engines.C, engines.RTE_JIT, engines.LINUX)
        }
        if figure.subject != "nothing":
            for peer, reference in peers.items():
                if reference is not None:
                    compared = _against_linux(results, figure, reference) if peer == engines.LINUX else None
                    found.append(compared or _against(figure, reference, peer))
    if not found:
        found.append(Target(name="JIT against C at -O2", value=None, limit=1.1, unit="times"))
    return found


def _against(figure: Figure, reference: Figure, peer: str) -> Target:
    """The JIT against a peer: the median of ratios within rounds."""
    ratio = figure.ratio_to(reference)
    times = f"{figure.summary.median:.3g} against {reference.summary.median:.3g} ns"
    note = f"{times}; {ratio.low:.2f} to {ratio.high:.2f} times"
    return Target(
        name=_name(peer, figure.subject), value=round(ratio.median, 3), unit="times", note=note,
        limit=1.1 if peer == engines.C else 1.0, row=figure.subject, column=peer,
    )  # fmt: skip


def _against_linux(results: Results, figure: Figure, reference: Figure) -> Target:
    """The JIT against Linux's BPF, in whose figures our loop takes the kernel's place, round by round."""
    loops = [
        results.find(engines.NAME, figure.subject, name) for name in (engines.LINUX_LOOP, engines.OUR_LOOP)
    ]
    theirs, ours = (each.samples if each else (0.0,) * len(reference.samples) for each in loops)
    linux = [
        max(whole - kernel + loop, 0.1)
        for whole, kernel, loop in zip(reference.samples, theirs, ours, strict=True)
    ]
    ratio = summarise(paired_ratios(figure.samples, linux))
    note = (
        f"{figure.summary.median:.3g} against {summarise(linux).median:.3g} ns, without the kernel's loop of "
        f"{summarise(theirs).median:.3g}; with it {figure.ratio_to(reference).median:.2f} times"
    )
    return Target(
        name=_name(engines.LINUX, figure.subject), value=round(ratio.median, 3), limit=1.0,
        unit="times", note=note, row=figure.subject, column=engines.LINUX,
    )  # fmt: skip


def _name(peer: str, subject: str) -> str:
    return f"JIT against {peer}: {subject}"


def _exits(results: Results) -> Iterator[Target]:
    """The cheapest way to another process that sleeps, were it only a word handed over and back."""
    handled = results.find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT)
    asleep = [
        figure
        for figure in results.of(mechanisms.NAME)
        if figure.subject == mechanisms.MAIN
        and (
            figure.competitor in (mechanisms.SLEEPING_ONE, mechanisms.SLEEPING_TWO)
            or (figure.group == mechanisms.FLOORS and "spinning" not in figure.competitor)
        )
    ]
    value, note = None, ""
    if handled is not None and asleep:
        cheapest = min(asleep, key=lambda each: each.summary.median)
        value = round(cheapest.ratio_to(handled).median, 1)
        note = f"the cheapest: {cheapest.competitor}"
        if timed := results.find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT_TIMED):
            note += f"; {cheapest.ratio_to(timed).median:,.0f} times an exit that is timed"
    yield Target(
        name="a userspace exit to another process that sleeps, against a handled exit", value=value,
        limit=100.0, unit="times", at_least=True, note=note,
    )  # fmt: skip


def _startup(results: Results) -> Iterator[Target]:
    stages: defaultdict[str, float] = defaultdict(float)
    for figure in results.of(startup.NAME):
        if not figure.x:
            stages[figure.competitor] += figure.summary.median
    by_stage = "stage by stage: " + ", ".join(
        f"{stage} {stages[stage]:,.0f} ms"
        + (f" (LLVM {stages[startup.BY_LLVM[stage]]:,.0f})" if stage in startup.BY_LLVM else "")
        for stage in startup.STAGES
    )
    python = _median(results.find(startup.NAME, startup.PC, startup.PYTHON))
    alone = "" if python is None else f"Python takes {python:.0f} ms of it by itself"
    for name, competitor, limit, note in (
        ("upload of the PC's five devices, text to callable, cold", startup.COLD, 300.0, by_stage),
        ("upload: the same with the cache", startup.CACHED, 30.0, ""),
        ("devbc --help", startup.HELP, 100.0, alone),
    ):
        value = _median(results.find(startup.NAME, startup.PC, competitor))
        yield Target(name=name, value=value, limit=limit, unit="ms", note="" if value is None else note)
