"""Reading a trace of any format: a file, gzipped or not, into a `Trace`.

The format is seen from the content. Lines of other events are counted and passed over; a line that names
one of the events read here but is not as that event prints is counted too, the first is shown as a warning
(H021), and a trace in which such lines outnumber the accesses is refused. A last line that was cut off is no
fault: tracers are killed while they write.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from devbc.diagnostics import Diagnostic, Rejected, Severity, Span, reject
from devbc.files import read_file, read_limited
from devbc.guests import errors, recording
from devbc.guests.trace_formats import kvm, qemu
from devbc.guests.trace_formats.access import Answered, Format, Trace, TraceBuilder
from devbc.guests.trace_formats.kvm import KvmEvents
from devbc.hypervisor.layouts import ACCESS
from devbc.limits import RECORDING_BYTES

#: How long after an access the tracer of a host takes its time, in ns: the exit to userspace and back lies in
#: between, and a busy scheduler. Some accesses take longer, and are outliers.
_HOST_JITTER: Final = 20_000
#: No line of these formats is so long; what is longer is something else, and not worth a regular expression.
_LINE_LENGTH: Final = 1_000
_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
#: What trace-cmd (`CPU:1 [12 EVENTS DROPPED]`), ftrace (`CPU:1 [LOST 12 EVENTS]`) and perf
#: (`PERF_RECORD_LOST`, with `--show-lost-events`) print where the kernel's buffer was full.
_LOST = re.compile(r"\[LOST \d+ EVENTS\]|EVENTS DROPPED\]|PERF_RECORD_LOST")


def read_trace(path: Path) -> Trace:
    """Read a trace. Raises Rejected: C001, C004 for the file, H001 for a recording, else H020 or H021."""
    data = read_file(path, RECORDING_BYTES)
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(data)) as unpacked:
                data = read_limited(unpacked, RECORDING_BYTES, path)
        except (OSError, EOFError, zlib.error):
            raise reject(errors.NO_TRACE, "it is not a whole gzip file", Span(str(path))) from None
    name = re.sub(r"\.gz$|\.tsv$|\.txt$|\.log$", "", path.name.removesuffix(".gz"))
    if data.startswith(b"# exit-trace"):
        return of_recording(recording.read_recording(path))
    # What is not ASCII can stand in threads' names only, which are not read.
    lines = io.TextIOWrapper(io.BytesIO(data), "ascii", errors="replace", newline="\n")
    return parse_trace(lines, name=name, file=str(path))


def of_recording(guest: recording.Recording) -> Trace:
    """A recording's accesses as a trace; its times are the devices' own."""
    builder = TraceBuilder()
    records = ACCESS.packer.iter_unpack(guest.accesses)
    for time, value, *_, vcpu in records:
        builder.times.append(time)
        builder.values.append(value)
        builder.vcpus.append(vcpu)
    return Trace(
        guest.name, Format.RECORDING, guest.targets, guest.target_of, builder.times, builder.vcpus,
        builder.values, bytearray([Answered.USERSPACE]) * len(guest), machine=guest.machine,
    )  # fmt: skip


def parse_trace(lines: Iterable[str], *, name: str, file: str = "") -> Trace:
    """Parse lines, with their ends, of QEMU's log or the kernel's events; diagnostics name `file`."""
    builder = TraceBuilder()
    events = KvmEvents(builder)
    others = lost = malformed = 0
    first: Diagnostic | None = None
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        if "\x1b" in line:
            line = _COLOR.sub("", line)
        try:
            if _take(line, events, builder):
                continue
        except (ValueError, OverflowError) as error:
            if raw.endswith("\n"):  # otherwise it is the last, and was cut off
                malformed += 1
                first = first or _malformed(error, Span(file or name, number, 1, len(line) + 1, line[:200]))
                continue
        others += 1
        lost += _LOST.search(line) is not None
    events.finish()
    if malformed > len(builder) and first is not None:
        raise Rejected(replace(first, severity=Severity.ERROR, notes=_counts(malformed, len(builder))))
    if not len(builder):
        raise _nothing(others, file or name)
    return Trace(
        name, events.format or Format.QEMU_LOG, builder.targets(), builder.target_of,
        builder.relative_times(), builder.vcpus, builder.values, builder.answered, builder.items,
        frozenset(builder.valueless), resolution=events.resolution if events.format else qemu.RESOLUTION,
        jitter=_HOST_JITTER, others=others, lost=lost, guests=events.guests,
        diagnostics=(replace(first, notes=_counts(malformed, len(builder))),) if first else (),
    )  # fmt: skip


def _take(line: str, events: KvmEvents, builder: TraceBuilder) -> bool:
    """Take a line; whether it was an access. ValueError or OverflowError if it is not as its event prints."""
    if len(line) > _LINE_LENGTH:
        return False
    if kvm.MARK in line and events.line(line):
        return True
    if qemu.MARK in line and (access := qemu.parse_line(line)):
        builder.add(access)
        return True
    return False


def _malformed(error: Exception, span: Span) -> Diagnostic:
    reason = "a number does not fit its column" if isinstance(error, OverflowError) else str(error)
    return Diagnostic(errors.MALFORMED_LINE, reason, span, severity=Severity.WARNING)


def _counts(malformed: int, taken: int) -> tuple[str, ...]:
    return (f"{malformed:,} such line{'' if malformed == 1 else 's'}, beside {taken:,} accesses",)


def _nothing(others: int, file: str) -> Rejected:
    return reject(
        errors.NO_TRACE,
        f"there is no access to a device in it: {others:,} lines of something else",
        Span(file),
        help=["`devbc explain H020` has the commands that record a guest"],
    )
