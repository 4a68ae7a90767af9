"""A userspace model that fails: its exception becomes a diagnostic at the model's own line.

Models are their users' code, and most of them are being written. What goes wrong in one is bad input, not
a bug of the machine; the exception stays attached as the cause, for those who call from Python.
"""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path

from devbc.diagnostics import Rejected, Span, reject
from devbc.hypervisor import errors

#: Folders of the machine that calls models; the rest of a call's frames are the model's.
_MACHINE = (Path(__file__).parent, Path(__file__).parents[1])


def model_failed(device: str, error: Exception) -> Rejected:
    """The rejection (H007) of a device whose model raised `error`."""
    kind = type(error).__name__
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    message = f"the model of `{device}` failed: {kind}" + (f": {text}" if text else "")
    return reject(errors.MODEL_FAILED, message, _span(error))


def _span(error: Exception) -> Span | None:
    """Where the model failed: the innermost of its lines."""
    if isinstance(error, SyntaxError) and error.filename:
        return Span(error.filename, error.lineno or 0, error.offset or 1, 0, (error.text or "").rstrip("\n"))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and Path(frame.filename).parent not in _MACHINE
    ]
    if not frames:
        return None
    last = frames[-1]
    line, start, end = last.lineno or 0, last.colno or 0, last.end_colno or 0
    text = linecache.getline(last.filename, line).rstrip("\n")
    end_column = end + 1 if last.end_lineno == line else 0
    return Span(last.filename, line, start + 1, end_column, text)
