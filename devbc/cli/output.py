"""How commands speak: text or JSON to stdout, diagnostics and progress to stderr, colour on terminals."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

from devbc.diagnostics import Diagnostic, Rejected, define, render

EXIT_OK: Final = 0
EXIT_REJECTED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERNAL: Final = 70

#: Columns that a table may have where stdout is not a terminal.
_WIDTH: Final = 160

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

    def rich(self, renderable: Any) -> None:
        """Print a table; as wide as it needs where stdout is not a terminal."""
        from rich.console import Console

        width = None if sys.stdout.isatty() else _WIDTH
        Console(width=width, no_color=not _colorful(sys.stdout), highlight=False).print(renderable)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[str], None]]:
        """Tell on a terminal that something slow is going on; yields how to say what it is now."""
        if self.json or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console

        with Console(stderr=True).status(what) as status:
            yield lambda text: status.update(text)


def cache_option(parser: argparse.ArgumentParser) -> None:
    """`--no-cache`, for commands that load programs; the environment's DEVBC_NO_CACHE=1 does the same."""
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="compile and verify anew, and keep nothing (also: DEVBC_NO_CACHE=1)",
    )


def _colorful(stream: IO[str]) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")
