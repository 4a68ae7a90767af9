"""What the verifier has proven of a program, as data for `--json` and as text for people.

Ranges of the shared area are named by the program's own fields where its BTF describes them. With an
explanation the report also says which lines make a handler mutating, which have effects, and what its longest
run spends its instructions on. Nothing is decided here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final

from devbc.abi import EXIT_FIELDS
from devbc.diagnostics import Span
from devbc.program.verified import ByteRange, VerifiedHandler, VerifiedProgram
from devbc.verifier.explanation import Share, Use, effects, longest_run, writes
from devbc.verifier.fields import folded, scratch_names
from devbc.verifier.policy import Policy

#: Lines of the longest run that are shown: those that take most of it.
_SHARES: Final = 6


def report_json(program: VerifiedProgram, *, explain: Policy | None = None) -> dict[str, Any]:
    """The report as one object; sizes in bytes, `worst_case` in instructions.

    `explain`: the policy of the proof; adds what the longest runs are spent on.
    """
    return {
        "device": program.program.device,
        "scratch_bytes": len(program.program.scratch_image),
        "rodata_bytes": len(program.program.rodata),
        "handlers": [_handler_json(program, handler, explain) for handler in program.handlers],
    }


def report_text(program: VerifiedProgram, *, width: int = 100, explain: Policy | None = None) -> str:
    """The report as text of `width` columns: a line a handler, with what it touches indented below.

    `explain`: the policy of the proof; adds where each fact comes from.
    """
    source = program.program
    facts = f"{_counted(len(source.scratch_image), 'byte')} of scratch"
    if source.rodata:
        facts += f", {_counted(len(source.rodata), 'byte')} of read-only data"
    lines = [f"{source.device or 'program'}: {_counted(len(program.handlers), 'handler')} verified, {facts}"]
    column = max((len(handler.handler.section) for handler in program.handlers), default=0)
    for handler in program.handlers:
        lines += ["", *_handler_lines(program, handler, column, width)]
        if explain is not None:
            lines += _explanation(program, handler, explain, width)
    return "\n".join(lines)


def _handler_json(
    program: VerifiedProgram, handler: VerifiedHandler, explain: Policy | None
) -> dict[str, Any]:
    def ranges(touched: tuple[ByteRange, ...]) -> list[dict[str, Any]]:
        return [
            {"start": each.start, "end": each.end, "fields": scratch_names(program.program, (each,))}
            for each in touched
        ]

    def uses(found: Iterable[Use]) -> list[dict[str, Any]]:
        return [_place(each.span) | {"what": list(each.what)} for each in found]

    report = {
        "section": handler.handler.section,
        "class": str(handler.handler_class),
        "worst_case": handler.worst_case,
        "slots": len(handler.handler.code) // 8,
        "stack_bytes": handler.stack_bytes,
        "may_decline": handler.may_decline,
        "may_handle": handler.may_handle,
        "scratch_read": ranges(handler.scratch_read),
        "scratch_written": ranges(handler.scratch_written),
        "effects": _effects(handler),
        "helpers": sorted(helper.name.lower() for helper in handler.helpers),
        "written_at": uses(writes(program.program, handler)),
        "effects_at": uses(effects(handler)),
    }
    if explain is not None:
        report["longest_run"] = [
            _place(each.span) | {"instructions": each.instructions, "rounds": each.rounds}
            for each in longest_run(program.program, handler, explain)
        ]
    return report


def _place(span: Span) -> dict[str, Any]:
    return {"file": span.file, "line": span.line, "text": span.text.strip()}


def _handler_lines(
    program: VerifiedProgram, handler: VerifiedHandler, column: int, width: int
) -> Iterator[str]:
    match handler.may_decline, handler.may_handle:
        case True, True:
            verdict = "may decline"
        case True, False:
            verdict = "always declines"
        case _:
            verdict = "never declines"
    facts = [
        f"at most {_counted(handler.worst_case, 'instruction')}",
        verdict,
    ]
    if handler.stack_bytes:
        facts.append(f"stack {_counted(handler.stack_bytes, 'byte')}")
    kind = f"{handler.handler_class},"
    yield f"  {handler.handler.section:<{column}}  {kind:<9} {', '.join(facts)}"
    touched = (("reads", handler.scratch_read), ("writes", handler.scratch_written))
    for verb, ranges in touched:
        if ranges:
            names = folded(scratch_names(program.program, ranges))
            yield _wrapped(verb, ", ".join(names or [_bytes(each) for each in ranges]), width)
    if handler.effects:
        yield _wrapped("effects", ", ".join(_effects(handler)), width)
    if handler.helpers:
        yield _wrapped("calls", ", ".join(sorted(helper.name.lower() for helper in handler.helpers)), width)


def _wrapped(verb: str, text: str, width: int) -> str:
    return textwrap.fill(
        text,
        max(width, 40),
        initial_indent=f"    {verb:<8} ",
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _explanation(
    program: VerifiedProgram, handler: VerifiedHandler, policy: Policy, width: int
) -> Iterator[str]:
    """Where the facts of a handler come from, by source line."""
    for title, uses in (
        ("mutating, since it writes scratch here", writes(program.program, handler)),
        ("effects and calls", effects(handler)),
    ):
        if uses:
            yield f"    {title}:"
            rows = [(", ".join(each.what) or "at a computed index", each.span) for each in uses]
            yield from _rows(rows, width)
    shares = longest_run(program.program, handler, policy)
    yield f"    the longest run, {_counted(handler.worst_case, 'instruction')}:"
    most = sorted(shares, key=lambda each: -each.instructions)[:_SHARES]
    digits = max(len(f"{each.instructions:,}") for each in most)
    shown = [(_share(each, digits), each.span) for each in shares if each in most]
    yield from _rows(shown, width)
    if len(shares) > len(most):
        rest = handler.worst_case - sum(each.instructions for each in most)
        yield f"      and {rest:,} on {_counted(len(shares) - len(most), 'other line')}"


def _share(share: Share, digits: int) -> str:
    rounds = f" in {share.rounds:,} rounds" if share.rounds > 1 else ""
    return f"{share.instructions:>{digits},}{rounds}"


def _rows(rows: list[tuple[str, Span]], width: int) -> Iterator[str]:
    """A line for each: what, where, and the source, cut to the width."""
    left = min(max(len(what) for what, _ in rows), 40)
    middle = max(len(f"{span.line}") for _, span in rows)
    for what, span in rows:
        yield f"      {what:<{left}}  {span.line:>{middle}} | {span.text.strip()}"[:width].rstrip()


def _effects(handler: VerifiedHandler) -> list[str]:
    return [name for name in EXIT_FIELDS if name in handler.effects]


def _bytes(touched: ByteRange) -> str:
    if touched.end - touched.start == 1:
        return f"byte {touched.start}"
    return f"bytes {touched.start}..{touched.end}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
