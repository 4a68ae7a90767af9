"""How a diagnostic looks: one snippet a file, its lines in order, marks and texts under each."""

from __future__ import annotations

import re

from devbc.diagnostics import Code, Diagnostic, Label, Span, render

CODE = Code("T001", "a test", "")
LINES = ["", "let a = state.x;", "if a > b {", "", "", "\tb[a] = 1;"]


def span(line: int, text: str, file: str = "a.dev") -> Span:
    """The first place of `text` in a line."""
    column = LINES[line].index(text) + 1
    return Span(file, line, column, column + len(text), LINES[line])


def shown(primary: Span | None, label: str, *labels: tuple[Span, str], color: bool = False) -> str:
    diagnostic = Diagnostic(CODE, "wrong", primary, label, tuple(Label(*each) for each in labels))
    return render(diagnostic, color=color)


def test_labels_are_shown_in_the_order_of_lines() -> None:
    text = shown(span(5, "a"), "used here", (span(2, "a > b"), "compared"), (span(1, "state.x"), "loaded"))
    expected = (
        "error[T001]: wrong\n"
        " --> a.dev:5:4\n"
        "  |\n"
        "1 | let a = state.x;\n"
        "  |         ------- loaded\n"
        "2 | if a > b {\n"
        "  |    ----- compared\n"
        "...\n"
        "5 |     b[a] = 1;\n"
        "  |       ^ used here"
    )
    assert text == expected


def test_labels_of_one_line_hang_below_it() -> None:
    text = shown(span(2, ">"), "not this", (span(2, "a"), "the first"), (span(2, "b"), "the second"))
    assert text.splitlines()[3:] == [
        "2 | if a > b {",
        "  |    - ^ - the second",
        "  |    | |",
        "  |    | not this",
        "  |    the first",
    ]


def test_two_labels_at_one_place() -> None:
    text = shown(span(2, "b"), "is wrong", (span(2, "b"), "is written"))
    assert text.splitlines()[3:] == [
        "2 | if a > b {",
        "  |        ^ is written",
        "  |        |",
        "  |        is wrong",
    ]


def test_a_mark_within_another_is_drawn_over_it() -> None:
    text = shown(span(2, ">"), "", (span(2, "a > b"), "all of it"))
    assert text.splitlines()[-1] == "  |    --^-- all of it"


def test_files_and_places_without_text_stand_apart() -> None:
    text = shown(span(1, "a"), "", (span(2, "b", "b.dev"), "other"), (Span("c.o"), "no source"))
    assert [line.strip() for line in text.splitlines() if "->" in line or ":::" in line] == [
        "--> a.dev:1:5",
        "::: b.dev:2:8",
        "::: c.o",
    ]
    assert text.endswith("= no source")


def test_colour_changes_no_character() -> None:
    arguments = (span(2, ">"), "not this", (span(2, "a"), "the first"), (span(1, "state.x"), "loaded"))
    painted = shown(*arguments, color=True)
    assert "\x1b[1;31m^" in painted
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == shown(*arguments)


def test_no_input_speaks_to_the_terminal() -> None:
    evil = "\x1b[31mred\x07\x9b2J\r\udcff"
    place = Span(f"{evil}.dev", 1, 1, 2, f"{evil}\t{evil}\r\n")
    diagnostic = Diagnostic(CODE, evil, place, evil, (Label(place, evil),), (f"{evil}\n{evil}",), (evil,))
    shown = render(diagnostic)
    assert all(each.isprintable() or each == "\n" for each in shown)
    assert shown.encode()
    assert evil not in render(diagnostic, color=True)
