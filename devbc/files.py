"""Reading and writing the files that users name: whole files or a diagnostic, never half of one."""

from __future__ import annotations

import os
from pathlib import Path

from devbc.diagnostics import Span, define, reject

NO_FILE = define(
    "C001",
    "cannot read or write a file",
    """
    A file named on the command line or by a machine file does not exist, is not readable, or cannot be
    written. The operating system's reason is given.
    """,
)
NOT_TEXT = define(
    "C003",
    "a source file is not text",
    """
    Source files are UTF-8 text. The byte named is not part of any UTF-8 character: the file is of another
    encoding, or not a source file at all. An object file is recognised by any ending but `.dev`.
    """,
)


def read_file(path: Path) -> bytes:
    """The bytes of a file; Rejected (C001) if there are none to be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise reject(NO_FILE, f"cannot read `{path}`: {_reason(error)}", Span(str(path))) from None


def read_text(path: Path) -> str:
    """The text of a file; Rejected (C001, C003) if there is none to be had."""
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise reject(NOT_TEXT, f"byte {error.start} of it is not UTF-8", Span(str(path))) from None


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise reject(NO_FILE, f"cannot write `{path}`: {_reason(error)}", Span(str(path))) from None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
