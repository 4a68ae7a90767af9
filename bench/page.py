"""The report: one HTML file that needs no network and no script, and reads on light and dark screens.

What is modelled or computed says so in its heading or its row; everything else was measured in this run.
Text of results is escaped: a results file may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Final

from bench import engines, mechanisms, recordings, scale, startup
from bench.results import Figure, RecordingResult, Results, Target
from bench.texts import amount_text, held_text, interval_text, limit_text, ratio_text, time_text, value_text

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2329; --dim: #5d6670; --line: #d5dae0; --back: #ffffff; --soft:
#f4f6f8; --good: #0b6e4f; --bad: #b3261e; --model: #7a5200; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3e8; --dim: #98a2ad; --line: #363d45; --back:
#14171a; --soft: #1d2226; --good: #5fd3a8; --bad: #ff9a90; --model: #e7b75a; } } * { box-sizing: border-box;
} body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; color: var(--ink); background:
var(--back); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; } h1 { font-size: 1.7rem;
line-height: 1.2; margin: 0 0 .25rem; } h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; padding-top:
.75rem; border-top: 1px solid var(--line); } h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; } p { margin:
.4rem 0; max-width: 52rem; } .dim, caption, figcaption { color: var(--dim); } .lead { font-size: 1.05rem; }
nav a { margin-right: 1.1rem; } a { color: inherit; } figure { margin: 1rem 0; } figure svg { width: 100%;
height: auto; display: block; } .scroll { overflow-x: auto; } table { border-collapse: collapse; margin:
.6rem 0; font-variant-numeric: tabular-nums; } caption { text-align: left; padding-bottom: .25rem; } th, td
{ padding: .22rem .8rem .22rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space:
nowrap; } th { font-weight: 600; color: var(--dim); white-space: normal; vertical-align: bottom;
  max-width: 8.5rem; }
th:first-child, .words th { max-width: none; } th:first-child, td:first-child, .words td, .words th {
text-align: left; } .words td { vertical-align: top; }
.words td:first-child, .words td:last-child { white-space: normal; } tr.main td { font-weight: 600; }
.yes { color: var(--good); font-weight: 600; } .no { color: var(--bad); font-weight: 600; } .modelled {
color: var(--model); border: 1px solid currentColor; border-radius: .6rem; padding: 0 .45rem; font-size:
.75rem; font-weight: 600; vertical-align: .1em; } dl { display: grid; grid-template-columns: max-content
1fr; gap: .1rem 1.2rem; margin: .75rem 0; } dt { color: var(--dim); } dd { margin: 0; } summary { cursor:
pointer; color: var(--dim); margin: .6rem 0; }
"""
_MODELLED: Final = '<span class="modelled">modelled</span>'
_COMPUTED: Final = '<span class="modelled">computed</span>'
#: Registers of a recording that are shown; the others are summed up.
_REGISTERS: Final = 24

Pictures = Mapping[str, tuple[str, str]]


def page(results: Results, pictures: Pictures, why_no_pictures: str | None) -> str:
    """The whole document. `pictures`: caption and SVG text by name."""
    sections = [
        ("targets", "Targets", _targets(results)),
        ("mechanisms", "One exit, by who answers it", _mechanisms(results, pictures)),
        ("recordings", "Exits avoided on recorded guests", _recordings(results, pictures)),
        ("engines", "Engines and their peers", _engines(results, pictures)),
        ("startup", "Before the first exit", _startup(results, pictures)),
        ("scale", "Scale", _scale(results, pictures)),
        ("skipped", "Skipped", _skipped(results)),
        ("figures", "Every figure", _figures(results)),
    ]
    parts = [(key, title, "".join(body)) for key, title, body in sections]
    parts = [each for each in parts if each[2]]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in parts)
    missing = f"<p>There are no plots: {escape(why_no_pictures)}.</p>" if why_no_pictures else ""
    body = "".join(f'<h2 id="{key}">{title}</h2>{text}' for key, title, text in parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>devbc bench, "
        f"{escape(results.started)}</title><style>{_STYLE}</style></head>\n<body><h1>What an avoided exit "
        f"saves</h1>{_lead(results)}<nav>{links}</nav>{missing}{_conditions(results)}{body}\n</body>\n</html>\n"
    )


def _lead(results: Results) -> str:
    """The result in a sentence or two."""
    find = results.find
    handled = find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT)
    asleep = find(mechanisms.NAME, mechanisms.MAIN, mechanisms.SLEEPING_ONE)
    words = []
    if handled and asleep:
        words.append(
            f"A handled exit takes {time_text(handled.summary.median)} of software; the same exit through "
            f"another process takes {time_text(asleep.summary.median)}, "
            f"{asleep.ratio_to(handled).median:,.0f} times as much."
        )
    for recording in results.recordings:
        share = recording.total("handled") / max(1, recording.accesses)
        words.append(
            f"Of the {recording.accesses:,} exits of {escape(recording.name)}, {share:.2%} are avoided."
        )
    return f'<p class="lead">{" ".join(words)}</p>' if words else ""


def _conditions(results: Results) -> str:
    machine = results.environment
    virtual = "a virtual machine" if machine.virtualised else "no hypervisor seen"
    counter = (
        f"{machine.counter_mhz:,g} MHz, readings in a row mostly {machine.clock_step_ns:g} ns apart"
        if machine.counter_mhz is not None and machine.clock_step_ns is not None
        else "none that the kernel trusts"
    )
    rows = (
        ("machine", f"{machine.cpu}, {machine.cpus} CPUs, {virtual}; load {machine.load:g} at the start"),
        ("frequency governor", machine.governor),
        ("time-stamp counter", counter),
        ("kernel", machine.kernel),
        (
            "versions",
            f"devbc {machine.devbc}, {machine.python}, LLVM {machine.llvm}, C: {machine.c_compiler}",
        ),
        ("pinning", results.pinning),
        (
            "run",
            f"{results.started}, {results.seconds:,.0f} s, {results.effort}: {results.repetitions} rounds",
        ),
    )
    items = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    note = (
        "Times are medians of rounds; every round runs all competitors of a table row, in shuffled order. "
        "The interval is the median's at 95 %, from order statistics; where there were too few rounds for "
        "that, the percentage that it covers is given. Nothing was left out: least and greatest are in the "
        "last table. Ratios are medians of the rounds' ratios. Times of other runs and machines do not "
        "compare."
    )
    return f"<dl>{items}</dl><p class='dim'>{note}</p>"


def _targets(results: Results) -> Iterator[str]:
    if not results.targets:
        return
    rows = [
        (
            escape(each.name), limit_text(each), value_text(each), ratio_text(each), _held(held_text(each)),
            escape(each.note),
        )
        for each in results.targets
        if not (each.column and each.met)
    ]  # fmt: skip
    yield _table(("target", "goal", "measured", "times the goal", "held", "remark"), rows, words=True)
    matrix = {(each.row, each.column): each for each in results.targets if each.column}
    columns = [each for each in engines.COMPETITORS if any(column == each for _, column in matrix)]
    if not columns:
        return
    limits = {
        column: next(each.limit for (_, of), each in matrix.items() if of == column) for column in columns
    }
    cells = [
        (escape(row), *(_ratio_cell(matrix.get((row, column))) for column in columns))
        for row in dict.fromkeys(row for row, _ in matrix)
    ]
    yield _table(
        ("JIT, times", *(f"{column} (at most {limits[column]:g})" for column in columns)),
        cells,
        caption="The JIT's time as a ratio to each peer's, handler by handler. Linux's BPF without the loop "
        "that repeats it, ours in its place. Blank: the peer does not run the handler (Skipped).",
    )


def _ratio_cell(target: Target | None) -> str:
    """A ratio and whether it holds, what else is known of it as a tool tip."""
    if target is None or target.value is None:
        return ""
    return f'<span title="{escape(target.note)}">{target.value:.2f}</span> {_held(held_text(target))}'


def _held(text: str) -> str:
    return f'<span class="{text}">{text}</span>' if text in ("yes", "no") else text


def _mechanisms(results: Results, pictures: Pictures) -> Iterator[str]:
    figures = results.of(mechanisms.NAME)
    main = [each for each in figures if each.subject == mechanisms.MAIN]
    handled = results.find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT)
    if not main or handled is None:
        return
    yield (
        "<p>The same access, a read of the ACPI PM timer, measured from the machine's side. A handler's row "
        "is the native exit loop: dispatch, handler, result. Where each exit is timed, the loop also reads "
        "the time-stamp counter after each. Linux's BPF is repeated by the kernel, whose loop is in its "
        "figure. Rows of another process are the service's, whose client answers at once in native code "
        "unless the row says Python. Floors are two processes that do nothing but hand a word over and back. "
        "KVM's rows are a small real guest's, and contain the hardware's exit and entry, which the others do "
        "not; its ioeventfd and its PIT answer accesses of their own.</p>"
    )
    yield _picture(pictures, "mechanisms")
    rows = [_timed_row(each, handled) for each in sorted(main, key=lambda each: each.summary.median)]
    yield _table(("answered by", "median", "95 % interval", "times a handled exit"), rows, main=0)
    if handed := [each for each in figures if each.subject == mechanisms.HANDED]:
        rows = [_timed_row(each, handled) for each in sorted(handed, key=lambda each: each.summary.median)]
        heads = (escape(mechanisms.HANDED), "median", "95 % interval", "times a handled exit")
        yield _table(
            heads, rows, caption="The Python model in a process that answers words, without the service."
        )
    yield "<h3>Every access</h3>"
    yield _picture(pictures, "accesses")
    yield _table(
        ("access", *(head for head, _ in mechanisms.COLUMNS)),
        [
            (escape(access), *(_median(each) if each else "" for each in found))
            for access, found in mechanisms.by_access(results).items()
        ],
        caption="Medians. JIT to interpreter: the native exit loop. Linux's BPF: repeated by the kernel, and "
        "by a system call each; on the host's clock where the handler asks for the time. KVM: what it "
        "answers in the kernel (its PIT, an ioeventfd), and what its userspace does. Models are Python: in "
        "the same process, and in another. A row of accesses counts for each of its accesses. Blank: no such "
        "thing, or skipped.",
    )


def _timed_row(figure: Figure, reference: Figure) -> tuple[str, ...]:
    ratio = figure.ratio_to(reference)
    return escape(figure.competitor), _median(figure), interval_text(figure), f"{ratio.median:,.1f}"


def _median(figure: Figure) -> str:
    return amount_text(figure.summary.median, figure.unit)


def _recordings(results: Results, pictures: Pictures) -> Iterator[str]:
    if not results.recordings:
        return
    yield (
        "<p>Guests that were recorded under QEMU, replayed access by access; every value that a read "
        "returned was compared with the recorded one. Counts are exact. An exit is avoided if a program "
        "handles it; it is left to userspace if the program declines it, if the device's lock is taken, if "
        "no program of the device answers it, or if the machine has no such device.</p>"
    )
    for each in results.recordings:
        yield from _recording(results, each, pictures)


def _recording(results: Results, recording: RecordingResult, pictures: Pictures) -> Iterator[str]:
    parts = ("handled", "declined", "contended", "no_program", "unclaimed")
    yield f"<h3>{escape(recording.name)}, {recording.seconds:,.1f} s of guest time</h3>"
    heads = ("exits", "handled", "declined", "lock taken", "no program", "no device", "values that differ")
    cells = (
        f"{recording.accesses:,}",
        *(f"{recording.total(each):,}" for each in parts),
        f"{recording.mismatches:,}",
    )
    yield _table(heads, [cells])
    yield _picture(pictures, f"timeline-{recording.name}")
    yield f"<h3>Device time {_MODELLED}</h3>"
    rows = [
        (
            escape(each.profile), time_text(each.handled_cost), time_text(each.userspace_cost),
            amount_text(each.without, each.unit), amount_text(each.with_programs, each.unit),
            f"{each.without / each.with_programs:,.2f}" if each.with_programs else "", escape(each.source),
        )
        for each in recording.times
    ]  # fmt: skip
    heads = (
        "cost profile",
        "in the kernel",
        "through userspace",
        "without programs",
        "with",
        "times less",
        "source",
    )
    yield _table(heads, rows, words=True)
    speeds = [each for each in results.of(recordings.NAME) if each.subject == recording.name]
    if speeds:
        medians = [
            (escape(each.competitor), _median(each), interval_text(each), escape(each.note))
            for each in speeds
        ]
        yield _table(("engine", "handled exit", "interval over replays", "what it is"), medians, words=True)
    ranked = sorted(recording.registers, key=lambda row: -row.accesses)
    shown = [
        (
            f"{escape(row.device or 'no device')} {escape(row.register)} {row.op}", f"{row.accesses:,}",
            *(f"{getattr(row, each):,}" if getattr(row, each) else "" for each in parts),
        )
        for row in ranked[:_REGISTERS]
    ]  # fmt: skip
    if rest := ranked[_REGISTERS:]:
        totals = [sum(getattr(row, each) for row in rest) for each in ("accesses", *parts)]
        shown.append((f"{len(rest)} more registers", *(f"{each:,}" if each else "" for each in totals)))
    heads = ("register", "exits", "handled", "declined", "lock taken", "no program", "no device")
    yield f"<details><summary>By register</summary>{_table(heads, shown)}</details>"


def _engines(results: Results, pictures: Pictures) -> Iterator[str]:
    subjects = list(dict.fromkeys(each.subject for each in results.of(engines.NAME)))
    if not subjects:
        return
    yield (
        "<p>One call of a handler through a pointer, in a native loop: no dispatch, no lock. Before it was "
        "timed, every competitor gave the JIT's answers and left the same shared memory. On the host's "
        "clock a handler contains a read of the time-stamp counter. librte_bpf runs byte code for cpu v2, "
        "the JIT on that same byte code stands beside it. Linux's BPF is repeated by BPF_PROG_TEST_RUN, "
        "whose own loop is in its figures: the row <em>nothing</em> shows how much that is, and the last "
        "column what is left without it, measured in the same rounds.</p>"
    )
    yield _picture(pictures, "engines")
    rows = []
    for subject in subjects:
        found = {name: results.find(engines.NAME, subject, name) for name in engines.COMPETITORS}
        jit, c = found[engines.JIT], found[engines.C]
        ratio = f"{jit.ratio_to(c).median:.2f}" if jit and c else ""
        rows.append(
            (
                escape(subject),
                *(_median(each) if each else "" for each in found.values()),
                ratio,
                _net(results, subject),
            )
        )
    heads = ("handler", *engines.COMPETITORS, "JIT / C", "Linux BPF less its loop")
    yield _table(heads, [row for row in rows if any(row[1:])])


def _net(results: Results, subject: str) -> str:
    """Linux's figure without what a program that does nothing takes."""
    figure = results.find(engines.NAME, subject, engines.LINUX)
    loop = results.find(engines.NAME, subject, engines.LINUX_LOOP)
    if figure is None or loop is None or subject == "nothing":
        return ""
    return amount_text(figure.summary.median - loop.summary.median, figure.unit)


def _startup(results: Results, pictures: Pictures) -> Iterator[str]:
    figures = results.of(startup.NAME)
    devices = list(dict.fromkeys(each.subject for each in figures if each.competitor == "compile"))
    if not devices:
        return
    yield (
        "<p>What a program costs before it answers: compiled from text, loaded from the object, verified, "
        "translated. With the cache, what was made of the same text before is read back. A fresh process "
        "starts Python and imports everything first.</p>"
    )
    yield _picture(pictures, "startup")
    rows = []
    for device in devices:
        stages = [results.find(startup.NAME, device, stage) for stage in startup.STAGES]
        total = sum(each.summary.median for each in stages if each)
        alone = [results.find(startup.NAME, device, part) for part in startup.BY_LLVM.values()]
        cells = (*(_median(each) if each else "" for each in stages), amount_text(total, "ms"))
        rows.append((device, *cells, *(_median(each) if each else "" for each in alone)))
    yield _table(("device", *startup.STAGES, "together", *startup.BY_LLVM.values()), rows)
    whole = [each for each in figures if each.subject == startup.PC]
    heads = (startup.PC, "median", "95 % interval")
    yield _table(heads, [(escape(each.competitor), _median(each), interval_text(each)) for each in whole])
    yield from _break_even(results, devices)


def _break_even(results: Results, devices: Sequence[str]) -> Iterator[str]:
    """After how many avoided exits a program has paid for its stages, by each cost profile."""
    profiles = next((each.times for each in results.recordings), ())
    if not profiles:
        return
    yield f"<h3>Break-even {_COMPUTED}</h3>"
    rows = []
    for device in devices:
        stages = [results.find(startup.NAME, device, stage) for stage in startup.STAGES]
        ns = 1e6 * sum(each.summary.median for each in stages if each)
        rows.append((device, *(_exits(ns, each.userspace_cost - each.handled_cost) for each in profiles)))
    yield _table(
        ("device", *(escape(each.profile) for each in profiles)),
        rows,
        caption="Avoided exits after which a program has paid for its stages, without the cache.",
    )


def _exits(ns: float, saved: float) -> str:
    return f"{ns / saved:,.0f}" if saved > 0 else "never"


def _scale(results: Results, pictures: Pictures) -> Iterator[str]:
    if not results.of(scale.NAME):
        return
    yield (
        "<p>Threads, each pinned to a CPU, read the PM timer as vCPUs of one VM or as VMs of their own, on "
        "the host's clock; on the virtual clock all move one number. Doorbells are written by a handler that "
        "takes its device's lock; who finds it taken, by another vCPU or by the model that serves a signal, "
        "goes to the userspace model. Dispatch is one look-up in "
        "a hash table, whatever is attached: the cost of one hot register must not depend on the others. "
        "Reading all of them in random order adds what caches and branch predictors no longer hold.</p>"
    )
    yield _picture(pictures, "scale")
    for subject in scale.THREADS:
        figures = [each for each in results.of(scale.NAME) if each.subject == subject and each.x is not None]
        shares = [
            results.find(scale.NAME, subject, f"{each.competitor}, {scale.CONTENDED}") for each in figures
        ]
        rows = [
            (
                escape(each.competitor), _median(each), interval_text(each),
                f"{each.ratio_to(figures[0]).median:.2f}", _median(share) if share else "", escape(each.note),
            )
            for each, share in zip(figures, shares, strict=True)
        ]  # fmt: skip
        yield _table((subject, "median", "95 % interval", "times one", scale.CONTENDED, ""), rows)
    registers = [
        (escape(each.competitor), _median(each), interval_text(each))
        for each in results.of(scale.NAME)
        if each.subject == scale.REGISTERS
    ]
    yield _table((scale.REGISTERS, "median", "95 % interval"), registers)


def _skipped(results: Results) -> Iterator[str]:
    if results.skipped:
        rows = [
            (escape(each.benchmark), escape(each.competitor), escape(each.reason)) for each in results.skipped
        ]
        yield _table(("benchmark", "what", "why"), rows, words=True)


def _figures(results: Results) -> Iterator[str]:
    rows = []
    for figure in results.figures:
        found, unit = figure.summary, figure.unit
        values = (found.median, found.low, found.high, found.least, found.greatest)
        rows.append((escape(figure.key), *(amount_text(each, unit) for each in values), f"{found.count}",
                     f"{figure.batch:,}"))  # fmt: skip
    heads = ("figure", "median", "from", "to", "least", "greatest", "rounds", "operations a round")
    title = f"{len(rows)} figures, with their extremes"
    yield f"<details><summary>{title}</summary>{_table(heads, rows)}</details>"


def _picture(pictures: Pictures, name: str) -> str:
    if name not in pictures:
        return ""
    caption, svg = pictures[name]
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    words: bool = False,
    main: int = -1,
) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join(
        ('<tr class="main">' if number == main else "<tr>")
        + "".join(f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(rows)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = ' class="words"' if words else ""
    table = f"<table{kind}>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'
