"""How commands speak: text or JSON to stdout, diagnostics and progress to stderr, colour on terminals."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from devbc.diagnostics import Diagnostic, Rejected, Span, define, reject, render

EXIT_OK: Final = 0
EXIT_REJECTED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERNAL: Final = 70

NO_FILE = define(
    "C001",
    "cannot read or write a file",
    """
    A file named on the command line does not exist, is not readable, or cannot be written. The operating
    system's reason is given.
    """,
)
UNKNOWN_CODE = define(
    "C002",
    "no such diagnostic code",
    """
    `devbc explain` takes the code of a diagnostic, a letter and three digits, as in `error[V007]`.
    `devbc explain` without a code lists them all.
    """,
)


class Output:
    """One command's output. With `json`, stdout carries exactly one JSON object."""

    def __init__(self, *, json: bool) -> None:
        self.json = json

    def text(self, text: str) -> None:
        print(text)

    def object(self, value: dict[str, Any]) -> None:
        print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))

    def rejected(self, rejection: Rejected) -> None:
        """Show why an input was refused: on stderr, or as the one object on stdout."""
        if self.json:
            self.object({"ok": False, "diagnostics": [each.to_json() for each in rejection.diagnostics]})
            return
        for diagnostic in rejection.diagnostics:
            self.diagnostic(diagnostic)
        codes = list(dict.fromkeys(each.code.id for each in rejection.diagnostics))
        print(f"for more about this, try `devbc explain {codes[0]}`", file=sys.stderr)

    def diagnostic(self, diagnostic: Diagnostic) -> None:
        print(render(diagnostic, color=_colorful(sys.stderr)) + "\n", file=sys.stderr)

    @contextmanager
    def progress(self, what: str) -> Iterator[None]:
        """Tell on a terminal that something slow is going on; silent elsewhere."""
        if self.json or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield


def _colorful(stream: IO[str]) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def read_file(path: Path) -> bytes:
    """The bytes of a file named by the user; Rejected (C001) if there are none to be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise reject(NO_FILE, f"cannot read `{path}`: {_system_reason(error)}", Span(str(path))) from None


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise reject(NO_FILE, f"cannot write `{path}`: {_system_reason(error)}", Span(str(path))) from None


def _system_reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
