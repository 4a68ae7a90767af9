"""One diagnostic type for the compiler, the loader, the verifier and the command line, and its one renderer.

A diagnostic is a value: a stable code, a message, a primary span, labelled secondary spans, notes and help.
Whoever finds a fault raises `Rejected` with the diagnostics; whoever faces the user renders them. Two kinds
of failure exist in this project: `Rejected` (bad input, exit status 1) and any other exception (a bug of
ours, exit status 70).

Not here: the codes themselves. Each stage keeps its own in its `errors.py`, made with `define`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby
from typing import Any


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Code:
    """A stable diagnostic code with its page of the manual.

    `id` is a letter for the stage and three digits: L language, I instruction set, O object, V verifier,
    E engines, H hypervisor and machine files, S service, C command line. `manual` is Markdown: what it means,
    why it is asked, an example, and what to do.
    """

    id: str
    title: str
    manual: str


_CODES: dict[str, Code] = {}


def define(id: str, title: str, manual: str) -> Code:
    """Register a diagnostic code; called once for each code, at import of a stage's `errors.py`."""
    if id in _CODES:
        raise ValueError(f"diagnostic code {id} is defined twice")
    code = Code(id, title, textwrap.dedent(manual).strip())
    _CODES[id] = code
    return code


def registered_codes() -> Iterator[Code]:
    """The codes of all stages imported so far, in order of their ids."""
    yield from sorted(_CODES.values(), key=lambda code: code.id)


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a source file, or in a program that has no source.

    `line` and `column` count from 1; `end_column` is exclusive and on the same line (a span over several
    lines is shown by its first). `text` is the source line itself, so that a span can be rendered far
    from the file. For bytecode without line information `file` is the section's name, `line` the
    instruction's index and `text` its disassembly; line 0 means the whole file.
    """

    file: str
    line: int = 0
    column: int = 1
    end_column: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A secondary span and what it has to do with the fault."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    code: Code
    message: str
    span: Span | None = None
    label: str = ""
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR
    #: Facts for programs that read `--json`: register values, bounds, a counterexample.
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        def place(span: Span) -> dict[str, Any]:
            return {
                "file": span.file,
                "line": span.line,
                "column": span.column,
                "end_column": span.end_column,
                "text": span.text,
            }

        return {
            "code": self.code.id,
            "severity": str(self.severity),
            "title": self.code.title,
            "message": self.message,
            "span": place(self.span) if self.span else None,
            "label": self.label,
            "labels": [{"span": place(each.span), "text": each.text} for each in self.labels],
            "notes": list(self.notes),
            "help": list(self.help),
            "data": self.data,
        }


def from_json(fields: dict[str, Any]) -> Diagnostic:
    """The diagnostic that `to_json` wrote, perhaps another process's; KeyError or TypeError if it did not.

    A code that this process does not know keeps its name and has no manual here.
    """

    def place(span: dict[str, Any]) -> Span:
        return Span(**span)

    code = _CODES.get(fields["code"]) or Code(str(fields["code"]), str(fields["title"]), "")
    return Diagnostic(
        code,
        fields["message"],
        place(fields["span"]) if fields["span"] else None,
        fields["label"],
        tuple(Label(place(each["span"]), each["text"]) for each in fields["labels"]),
        tuple(fields["notes"]),
        tuple(fields["help"]),
        Severity(fields["severity"]),
        fields["data"],
    )


class Rejected(Exception):  # noqa: N818 - it names what happened to the input
    """Bad input, with every diagnostic that was found in it (at least one)."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        if not diagnostics:
            raise ValueError("a rejection needs a diagnostic")
        super().__init__("; ".join(f"{each.code.id}: {each.message}" for each in diagnostics))
        self.diagnostics = diagnostics


def reject(
    code: Code,
    message: str,
    span: Span | None = None,
    *,
    label: str = "",
    notes: Iterable[str] = (),
    help: Iterable[str] = (),
) -> Rejected:
    """The exception for a single fault, to be raised by the caller."""
    return Rejected(Diagnostic(code, message, span, label=label, notes=tuple(notes), help=tuple(help)))


class _Paint:
    """ANSI colours, or nothing."""

    def __init__(self, color: bool) -> None:
        self.color = color

    def __call__(self, style: str, text: str) -> str:
        codes = {"error": "1;31", "warning": "1;33", "frame": "1;34", "bold": "1", "help": "1;32"}
        return f"\x1b[{codes[style]}m{text}\x1b[0m" if self.color and text else text


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """The diagnostic as text for a terminal, in the manner of rustc; ends without a newline.

    Names of files and devices and lines of source go into it as they were found: control characters in them
    are replaced, so that no input speaks to the terminal.
    """
    diagnostic = _printable(diagnostic)
    paint = _Paint(color)
    severity = str(diagnostic.severity)
    head = paint(severity, f"{severity}[{diagnostic.code.id}]") + paint("bold", f": {diagnostic.message}")
    snippets = list(diagnostic.labels)
    if diagnostic.span:
        snippets.insert(0, Label(diagnostic.span, diagnostic.label))
    gutter = max((len(str(each.span.line)) for each in snippets if each.span.text), default=1)
    lines = [head]
    for number, group in enumerate(_by_file(snippets)):
        arrow = "-->" if number == 0 and diagnostic.span else ":::"
        lines += _snippet(group, gutter, arrow, diagnostic.span, paint)
    margin = " " * gutter + " " + paint("frame", "=")
    lines += [_hanging(f"{margin} {paint('bold', 'note')}: ", note, gutter + 9) for note in diagnostic.notes]
    lines += [_hanging(f"{margin} {paint('help', 'help')}: ", text, gutter + 9) for text in diagnostic.help]
    return "\n".join(lines)


def _printable(diagnostic: Diagnostic) -> Diagnostic:
    """The diagnostic with what is not printable replaced, a character by a character: columns stay."""

    def clean(text: str) -> str:
        if text.isprintable():
            return text
        return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text)

    def place(span: Span) -> Span:
        return replace(span, file=clean(span.file), text=clean(span.text.rstrip("\r\n")))

    return replace(
        diagnostic,
        message=clean(diagnostic.message),
        span=diagnostic.span and place(diagnostic.span),
        label=clean(diagnostic.label),
        labels=tuple(Label(place(each.span), clean(each.text)) for each in diagnostic.labels),
        notes=tuple(clean(each) for each in diagnostic.notes),
        help=tuple(clean(each) for each in diagnostic.help),
    )


def _hanging(lead: str, text: str, indent: int) -> str:
    return lead + text.replace("\n", "\n" + " " * indent)


def _by_file(labels: list[Label]) -> list[list[Label]]:
    """The labels of each file; a place without a source line stands by itself."""
    groups: list[list[Label]] = []
    for label in labels:
        same = (each for each in groups if each[0].span.file == label.span.file and each[0].span.text)
        group = next(same, None) if label.span.text else None
        if group is None:
            groups.append([label])
        else:
            group.append(label)
    return groups


def _snippet(labels: list[Label], gutter: int, arrow: str, primary: Span | None, paint: _Paint) -> list[str]:
    """The source lines of one file with what is said of them, under the place of the first label."""
    span = labels[0].span
    blank = " " * gutter
    where = span.file if span.line == 0 else f"{span.file}:{span.line}:{span.column}"
    out = [f"{blank}{paint('frame', arrow)} {where}"]
    if not span.text:
        return [*out, *(f"{blank} {paint('frame', '=')} {each.text}" for each in labels if each.text)]
    bar = paint("frame", "|")
    out.append(f"{blank} {bar}")
    before = 0
    for line in sorted({each.span.line for each in labels}):
        here = [each for each in labels if each.span.line == line]
        if before and line > before + 1:
            out.append(paint("frame", "..."))
        before = line
        text = here[0].span.text.rstrip("\n").expandtabs(4)
        out.append(f"{paint('frame', str(line).rjust(gutter))} {bar} {text}")
        out += [f"{blank} {bar} {row}" for row in _marks(here, primary, paint)]
    return out


def _marks(labels: list[Label], primary: Span | None, paint: _Paint) -> list[str]:
    """What is drawn below one source line: marks, the rightmost label's text beside its own, and the other
    texts hanging below theirs."""
    placed = sorted(((*_columns(each.span), each) for each in labels), key=lambda each: each[:2])
    rows = [_Row()]
    for start, end, label in sorted(placed, key=lambda each: (each[2].span == primary, each[0] - each[1])):
        mark, style = ("^", "error") if label.span == primary else ("-", "frame")
        rows[0].put(start, mark * (end - start), style)
    hanging = [each for each in placed if each[2].text]
    if hanging and hanging[-1][1] == max(end for _, end, _ in placed):
        _, end, label = hanging.pop()
        rows[0].put(end + 1, label.text, _style(label, primary))
    while hanging:
        connectors, texts = _Row(), _Row()
        start, _, label = hanging.pop()
        for other, _, each in hanging:
            connectors.put(other, "|", _style(each, primary))
            texts.put(other, "|", _style(each, primary))
        connectors.put(start, "|", _style(label, primary))
        texts.put(start, label.text, _style(label, primary))
        rows += [connectors, texts] if len(rows) == 1 else [texts]
    return [row.painted(paint) for row in rows]


def _style(label: Label, primary: Span | None) -> str:
    return "error" if label.span == primary else "frame"


def _columns(span: Span) -> tuple[int, int]:
    """Where a mark begins and ends on the screen. A span's columns count characters of the line as it stands
    in the file; a tab is shown as four."""
    start = len(span.text[: span.column - 1].expandtabs(4))
    end = len(span.text[: span.end_column - 1].expandtabs(4)) if span.end_column > span.column else start + 1
    return start, max(end, start + 1)


class _Row:
    """A line of text with a style for each character."""

    def __init__(self) -> None:
        self.cells: dict[int, tuple[str, str]] = {}

    def put(self, column: int, text: str, style: str) -> None:
        self.cells |= {column + number: (character, style) for number, character in enumerate(text)}

    def painted(self, paint: _Paint) -> str:
        width = max(self.cells, default=-1) + 1
        cells = [self.cells.get(column, (" ", "")) for column in range(width)]
        runs = groupby(cells, key=lambda cell: cell[1])
        texts = ((style, "".join(character for character, _ in run)) for style, run in runs)
        return "".join(paint(style, text) if style else text for style, text in texts)


def did_you_mean(word: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """A help line that names the candidate nearest to a misspelt word, or nothing."""
    import difflib

    near = difflib.get_close_matches(word, list(candidates), n=1)
    return (f"did you mean `{near[0]}`?",) if near else ()
