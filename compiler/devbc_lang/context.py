"""What the checker knows while it works: the device's names, and the faults that it has found so far.

A fault ends the check of one statement or declaration and no more: `Context.collecting` records it, and
checking goes on behind it. A name whose declaration was faulty is known as such, and its uses are silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from devbc.diagnostics import Code, Diagnostic, Label, Severity, did_you_mean
from devbc_lang import errors, syntax, typed
from devbc_lang.source import Extent, Source
from devbc_lang.types import Struct


class Fault(Exception):  # noqa: N818 - it is a finding about the program
    """Something is wrong here. Without a diagnostic: it follows from what was reported already."""

    def __init__(self, diagnostic: Diagnostic | None) -> None:
        super().__init__(diagnostic.message if diagnostic else "")
        self.diagnostic = diagnostic


@dataclass(frozen=True, slots=True)
class Port:
    kind: syntax.PortKind
    number: int


#: What a name of the device can stand for.
Meaning = typed.Constant | typed.Table | typed.Function | Struct | Port


@dataclass(slots=True)
class Declared:
    """A name of the device and where it was declared. `meaning` is None if the declaration is faulty."""

    at: Extent
    meaning: Meaning | None
    used: bool = False


@dataclass(slots=True)
class Context:
    source: Source
    names: dict[str, Declared] = field(default_factory=dict)
    state: Struct | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)
    #: Whom each function calls, and where.
    calls: dict[typed.Function, list[tuple[typed.Function, Extent]]] = field(default_factory=dict)

    def diagnostic(
        self,
        code: Code,
        message: str,
        at: Extent,
        label: str = "",
        *,
        labels: Iterable[tuple[Extent, str]] = (),
        notes: Iterable[str] = (),
        help: Iterable[str] = (),
        severity: Severity = Severity.ERROR,
    ) -> Diagnostic:
        return Diagnostic(
            code,
            message,
            self.source.span(at),
            label=label,
            labels=tuple(Label(self.source.span(where), text) for where, text in labels),
            notes=tuple(notes),
            help=tuple(help),
            severity=severity,
        )

    def fault(
        self,
        code: Code,
        message: str,
        at: Extent,
        label: str = "",
        *,
        labels: Iterable[tuple[Extent, str]] = (),
        notes: Iterable[str] = (),
        help: Iterable[str] = (),
    ) -> Fault:
        """The exception for a fault, to be raised by the caller."""
        return Fault(self.diagnostic(code, message, at, label, labels=labels, notes=notes, help=help))

    def unknown(self, what: str, name: syntax.Name, candidates: Iterable[str], owner: str = "") -> Fault:
        """The exception for a name that nothing has, or nothing in its `owner`."""
        message = f"{f'`{owner}` has' if owner else 'there is'} no {what} `{name.text}`"
        return self.fault(errors.UNKNOWN_NAME, message, name.at, help=did_you_mean(name.text, candidates))

    def text(self, at: Extent) -> str:
        """The source at a place, if it is short enough for a message; otherwise dots."""
        text = self.source.text[at.start : at.end]
        return text if "\n" not in text and len(text) <= 40 else "..."

    def in_base_of(self, value: int, at: Extent) -> str:
        """A number in the base in which the number at a place is written."""
        return f"{value:#x}" if "0x" in self.source.text[at.start : at.end].lower() else str(value)

    def report(self, fault: Fault) -> None:
        if fault.diagnostic is not None and fault.diagnostic not in self.diagnostics:
            self.diagnostics.append(fault.diagnostic)

    def warn(self, code: Code, message: str, at: Extent, label: str = "", help: str = "") -> None:
        helps = (help,) if help else ()
        self.diagnostics.append(
            self.diagnostic(code, message, at, label, help=helps, severity=Severity.WARNING)
        )

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Record a fault of the block, and go on behind it."""
        try:
            yield
        except Fault as fault:
            self.report(fault)

    def declare(self, name: syntax.Name, meaning: Meaning | None) -> None:
        """Give a name of the device its meaning; a second declaration is a fault."""
        known = self.names.get(name.text)
        if known is not None:
            raise self.fault(
                errors.DUPLICATE,
                f"`{name.text}` is declared twice",
                name.at,
                labels=[(known.at, "first declared here")],
            )
        self.names[name.text] = Declared(name.at, meaning)
