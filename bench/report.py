"""What is shown of results: tables for a terminal, a summary as JSON, the folder of files.

Not here: the page (`page.py`) and the plots (`plots.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench import engines, mechanisms
from bench.compare import Comparison, Verdict
from bench.page import page
from bench.plots import why_unavailable
from bench.plots import write as write_plots
from bench.results import Figure, RecordingResult, Results, encode
from bench.texts import held_text, interval_text, limit_text, ratio_text, time_text, value_text
from devbc.diagnostics import Span, reject
from devbc.files import NO_FILE, write_file

RESULTS: Final = "results.json"
TABLE: Final = "table.md"
PAGE: Final = "report.html"


def prepare(folder: Path) -> None:
    """Make the folder now: nobody wants to hear it after ten minutes. Raises Rejected (C001)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULTS).touch()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise reject(NO_FILE, f"cannot write `{folder}`: {reason}", Span(str(folder))) from None


def write(results: Results, folder: Path, *, plots: bool = True) -> list[Path]:
    """Results, plots and page; the files, the page first."""
    write_file(folder / RESULTS, encode(results))
    files: list[Path] = []
    inline: dict[str, tuple[str, str]] = {}
    why = why_unavailable() if plots else "they were not asked for"
    if why is None:
        files, inline = write_plots(results, folder)
    write_file(folder / PAGE, page(results, inline, why).encode())
    write_file(folder / TABLE, markdown(results).encode())
    return [folder / PAGE, folder / RESULTS, folder / TABLE, *files]


#: Columns of the README's table of accesses: those that say something there.
_SHORT: Final = (
    mechanisms.JIT, mechanisms.JIT_HOST, mechanisms.LINUX, mechanisms.KVM_ITSELF, mechanisms.KVM_USERSPACE,
    mechanisms.MODEL, mechanisms.MODEL_ONE,
)  # fmt: skip


def markdown(results: Results) -> str:
    """The main tables, for a README: one exit by who answers it, and what recorded guests are spared."""
    main = [each for each in results.of(mechanisms.NAME) if each.subject == mechanisms.MAIN]
    handled = results.find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT)
    lines = [
        f"{results.environment.cpu}, Linux {results.environment.kernel}; medians of {results.started[:10]}.",
        "",
    ]
    if handled:
        heads: tuple[str, ...] = (f"{mechanisms.MAIN}, answered by", "one exit", "times a handled exit")
        lines += _markdown(
            heads,
            (
                (each.competitor, _cell(each), f"{each.ratio_to(handled).median:,.1f}")
                for each in sorted(main, key=lambda each: each.summary.median)
                if each.group != mechanisms.FLOORS
            ),
        )
        heads = ("answered by: access", *(head for head, name in mechanisms.COLUMNS if name in _SHORT))
        lines += _markdown(
            heads,
            (
                (access, *(_cell(results.find(mechanisms.NAME, access, name)) for name in _SHORT))
                for access in mechanisms.by_access(results)
            ),
        )
    if results.recordings:
        lines += _markdown(
            ("recorded guest", "exits", "avoided", "values that differ"),
            (
                (each.name, f"{each.accesses:,}", _share(each), f"{each.mismatches}")
                for each in results.recordings
            ),
        )
    return "\n".join(lines).rstrip() + "\n"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, its first column text and the others figures, and an empty line."""
    rule = "|".join(("---", *["---:"] * (len(heads) - 1)))
    return [f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def _share(recording: RecordingResult) -> str:
    return f"{recording.total('handled') / max(1, recording.accesses):.2%}"


def _cell(figure: Figure | None) -> str:
    return time_text(figure.summary.median) if figure else ""


def summary(results: Results) -> dict[str, Any]:
    """Medians and intervals, targets and what was skipped; the samples stay in the file."""
    return {
        "started": results.started,
        "seconds": results.seconds,
        "effort": results.effort,
        "figures": [_figure(each) for each in results.figures],
        "targets": [
            {
                "name": each.name,
                "value": each.value,
                "limit": each.limit,
                "unit": each.unit,
                "ratio": each.ratio,
                "met": each.met,
                "note": each.note,
            }
            for each in results.targets
        ],
        "skipped": [
            {"benchmark": each.benchmark, "competitor": each.competitor, "reason": each.reason}
            for each in results.skipped
        ],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    found = figure.summary
    return {
        "benchmark": figure.benchmark, "subject": figure.subject, "competitor": figure.competitor,
        "unit": figure.unit, "median": found.median, "low": found.low, "high": found.high,
        "coverage": round(found.coverage, 4), "least": found.least, "greatest": found.greatest,
        "samples": found.count,
    }  # fmt: skip


def tables(results: Results) -> Iterator[Any]:
    """What a reader wants to see first, on a terminal."""
    from rich import box
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        made = Table(
            title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for number, column in enumerate(columns):
            made.add_column(column, justify="left" if number == 0 else "right")
        return made

    main = [each for each in results.of(mechanisms.NAME) if each.subject == mechanisms.MAIN]
    handled = results.find(mechanisms.NAME, mechanisms.MAIN, mechanisms.JIT)
    if main and handled:
        shown = table(
            f"one exit, {mechanisms.MAIN}", "answered by", "median", "95 % interval", "times a handled exit"
        )
        for figure in sorted(main, key=lambda each: each.summary.median):
            found = figure.summary
            ratio = figure.ratio_to(handled).median
            row = figure.competitor, time_text(found.median), interval_text(figure), f"{ratio:,.1f}"
            shown.add_row(*row)
        yield shown
        shown = table("one exit, by access", "access", *(head for head, _ in mechanisms.COLUMNS))
        shown.columns[0].no_wrap = True
        for access, figures in mechanisms.by_access(results).items():
            shown.add_row(access, *map(_cell, figures))
        yield shown
    if subjects := list(dict.fromkeys(each.subject for each in results.of(engines.NAME))):
        shown = table("one call of a handler, ns", "handler", *engines.COMPETITORS)
        for subject in subjects:
            if subject != engines.CLOCK:
                cells = [results.find(engines.NAME, subject, name) for name in engines.COMPETITORS]
                shown.add_row(subject, *(f"{each.summary.median:,.1f}" if each else "" for each in cells))
        yield shown
    if results.recordings:
        shown = table(
            "exits avoided on recorded guests", "recording", "exits", "avoided", "left", "mismatches"
        )
        for each in results.recordings:
            taken = each.total("handled")
            left = each.accesses - taken
            shown.add_row(each.name, f"{each.accesses:,}", _share(each), f"{left:,}", f"{each.mismatches}")
        yield shown
    shown = table("targets", "target", "goal", "measured", "times the goal", "held")
    # Those that hold against peers are counted; the page has them all.
    for target in results.targets:
        if not (target.column and target.met):
            texts = (text(target) for text in (limit_text, value_text, ratio_text, held_text))
            shown.add_row(target.name, *texts)
    if held := sum(1 for target in results.targets if target.column and target.met):
        shown.add_row(f"{held} more ratios of the JIT to its peers", "", "", "", "yes")
    yield shown
    if results.skipped:
        shown = table("skipped", "what", "why")
        shown.columns[1].justify = "left"
        for words in dict.fromkeys((each.competitor, each.reason) for each in results.skipped):
            shown.add_row(*words)
        yield shown


def comparison_lines(found: Comparison) -> Iterator[str]:
    """What changed, in lines: what makes the runs differ, then figures, the largest change first."""
    for difference in found.differences:
        yield f"not the same {difference}"
    for each in found.changed:
        values = f"{each.before:g} to {each.after:g} {each.unit}"
        yield f"{each.verdict:6} {each.ratio - 1:+7.1%}  {values}  {each.key}"
    judged = [each for each in found.changes if each.verdict is not Verdict.TOO_FEW]
    yield f"{len(found.changed)} of {len(judged)} figures changed beyond the noise"
    if few := len(found.changes) - len(judged):
        yield f"{few} have too few samples to be judged"
    if missing := len(found.only_before) + len(found.only_after):
        yield f"{missing} are in one of the runs only"
