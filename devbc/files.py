"""Reading and writing the files that users name: whole files or a diagnostic, never half of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from devbc.diagnostics import Span, define, reject
from devbc.limits import SOURCE_BYTES

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


TOO_LARGE = define(
    "C004",
    "a file is too large",
    """
    No file of this kind that anybody means is so large: sources have a limit of 1 MiB, machine files of
    128 KiB, objects of 16 MiB, recordings of 1 GiB, gzipped ones when unpacked (`devbc/limits.py`). Devices
    that never end, like `/dev/zero`, are met by the same limit.
    """,
)


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a file, at most `limit`; Rejected (C001, C004) if there are none to be had."""
    try:
        with path.open("rb") as file:
            return read_limited(file, limit, path)
    except OSError as error:
        raise reject(NO_FILE, f"cannot read `{path}`: {reason(error)}", Span(str(path))) from None


def read_limited(file: Readable, limit: int, path: Path) -> bytes:
    """All that is left of a stream, at most `limit` bytes; Rejected (C004) if there is more."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise reject(TOO_LARGE, f"`{path}` has more than {limit:,} bytes", Span(str(path)))
    return data


def read_text(path: Path) -> str:
    """The text of a source file; Rejected (C001, C003, C004) if there is none to be had."""
    try:
        return read_file(path, SOURCE_BYTES).decode()
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
        raise reject(NO_FILE, f"cannot write `{path}`: {reason(error)}", Span(str(path))) from None


def reason(error: OSError) -> str:
    """The operating system's reason, as diagnostics write it."""
    return (error.strerror or str(error)).lower()
