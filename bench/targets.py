"""The speeds that the project set itself, held to what a run has measured: a ratio, and yes or no."""

from __future__ import annotations

import msgspec

from bench import engines, mechanisms, recordings, startup
from bench.results import Figure, Results, Target

#: Exits to userspace that sleep until they are told: the measure of what a handled exit saves.
_SLEEPING = (mechanisms.SLEEPING_ONE, mechanisms.SLEEPING_TWO)


def targets(results: Results) -> Results:
    """The results with their targets; what was not measured has no value."""
    found = (*_replay(results), *_engines(results), _exits(results), *_startup(results))
    return msgspec.structs.replace(results, targets=found)


def _median(figure: Figure | None) -> float | None:
    return None if figure is None else figure.summary.median


def _replay(results: Results) -> list[Target]:
    x86 = [
        figure.summary.median
        for figure in results.of(recordings.NAME)
        if figure.competitor == "JIT" and figure.subject.startswith("x86")
    ]
    find = results.find
    virtual = _median(find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT))
    host = _median(find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT_HOST))
    raw = _median(find(engines.NAME, engines.CLOCK, engines.COUNTER))
    ordered = _median(find(engines.NAME, engines.CLOCK, engines.ORDERED))
    note = "one raw read of the counter, measured in this run"
    if ordered is not None:
        note += f"; in order with the loads around it, it takes {ordered:.3g} ns"
    return [
        Target(
            name="handled exit in the replay loop, virtual clock, median over the x86 recordings",
            value=max(x86, default=None), limit=10.0, unit="ns", note="the worst of the recordings",
        ),
        Target(
            name="the same with the host's clock: what it takes more",
            value=None if virtual is None or host is None else round(host - virtual, 2),
            limit=raw if raw is not None else 10.0, unit="ns",
            note=note,
        ),
    ]  # fmt: skip


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
    """The JIT against a peer: on the peer's byte code's terms, medians of ratios within rounds."""
    ratio = figure.ratio_to(reference)
    note = f"{ratio.low:.2f} to {ratio.high:.2f}"
    return Target(
        name=_name(peer, figure.subject), value=round(ratio.median, 3), unit="times", note=note,
        limit=1.1 if peer == engines.C else 1.0, row=figure.subject, column=peer,
    )  # fmt: skip


def _against_linux(results: Results, figure: Figure, reference: Figure) -> Target:
    """The JIT against Linux's BPF, whose figure holds the kernel's loop: ours takes that loop's place."""
    loops = [results.find(engines.NAME, "nothing", name) for name in (engines.LINUX, engines.JIT)]
    theirs, ours = (each.summary.median if each else 0.0 for each in loops)
    linux = max(reference.summary.median - theirs + ours, 1e-3)
    return Target(
        name=_name(engines.LINUX, figure.subject), value=round(figure.summary.median / linux, 3), limit=1.0,
        unit="times", note=f"without the kernel's loop; with it {figure.ratio_to(reference).median:.2f}",
        row=figure.subject, column=engines.LINUX,
    )  # fmt: skip


def _name(peer: str, subject: str) -> str:
    return f"JIT against {peer}: {subject}"


def _exits(results: Results) -> Target:
    handled = results.find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT)
    others = [results.find(mechanisms.NAME, mechanisms.MAIN, name) for name in _SLEEPING]
    asleep = [each for each in others if each is not None]
    value, note = None, ""
    if handled is not None and asleep:
        cheapest = min(asleep, key=lambda each: each.summary.median)
        value = round(cheapest.ratio_to(handled).median, 1)
        note = f"the cheapest: {cheapest.competitor}"
    return Target(
        name="a userspace exit to another process that sleeps, against a handled exit", value=value,
        limit=100.0, unit="times", at_least=True, note=note,
    )  # fmt: skip


def _startup(results: Results) -> list[Target]:
    rows = (
        ("upload of the PC's five devices, text to callable, cold", startup.COLD, 300.0),
        ("the same with the cache", startup.CACHED, 30.0),
        ("devbc --help", startup.HELP, 100.0),
    )
    return [
        Target(
            name=name,
            value=_median(results.find(startup.NAME, startup.PC, competitor)),
            limit=limit,
            unit="ms",
        )
        for name, competitor, limit in rows
    ]
