"""Recorded guests: reading an exit trace into the form that the native loop replays.

A recording is every device access a guest made, with the virtual time and the value that the recording
emulator returned. Text in, packed accesses out; what the accesses are compared with and how they are
counted is `devbc.guests.replay`'s.
"""

from __future__ import annotations

import gzip
import io
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from struct import error as StructError  # noqa: N812

from devbc.abi import SIZES, Op, Space
from devbc.diagnostics import Span, reject
from devbc.files import read_file, read_limited
from devbc.hypervisor import errors
from devbc.hypervisor.bus import ADDRESS_LIMIT
from devbc.hypervisor.layouts import ACCESS, NEVER
from devbc.limits import RECORDING_BYTES

_MAGIC = "exit-trace 1"


@dataclass(frozen=True, slots=True)
class Target:
    """What an access addresses: all of it but time, vCPU and value."""

    space: Space
    op: Op
    address: int
    size: int
    region: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A guest's accesses in order.

    `accesses`: packed `layouts.ACCESS` records. `targets`: the distinct targets; `target_of` has the index
    of each access's target. `rtc_base`: wall-clock time at VM clock 0, seconds since 1970 UTC. `machine`:
    what it was recorded on, as the header says; empty if it does not.
    """

    name: str
    rtc_base: int
    accesses: bytes
    targets: tuple[Target, ...]
    target_of: array[int]
    machine: str = ""

    def __len__(self) -> int:
        return len(self.target_of)


def read_recording(path: Path) -> Recording:
    """Read a recording, gzipped or plain. Raises Rejected: C001 unreadable, H001 with the malformed line."""
    data = read_file(path, RECORDING_BYTES)
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as unpacked:
                data = read_limited(unpacked, RECORDING_BYTES, path)
        whole = data.isascii()
    except (OSError, EOFError, zlib.error):
        whole = False
    if not whole:
        message = "it is neither ASCII text nor a whole gzip file of it"
        raise reject(errors.BAD_RECORDING, message, Span(str(path)))
    # A line at a time: a list of all lines would take many times the memory of the text.
    lines = (line.removesuffix("\n") for line in io.TextIOWrapper(io.BytesIO(data), "ascii", newline="\n"))
    name = path.name.removesuffix(".gz").removesuffix(".tsv")
    return parse_recording(lines, name=name, file=str(path))


def parse_recording(lines: Iterable[str], *, name: str, file: str = "") -> Recording:
    """Parse the lines of a recording; `file` names it in diagnostics."""
    header: dict[str, str] = {}
    targets: dict[tuple[str, ...], tuple[int, Target, tuple[int, int, int, int]]] = {}
    target_of = array("I")
    packed: list[bytes] = []
    pack = ACCESS.packer.pack
    last = 0
    number, line = 0, ""
    try:
        for number, line in enumerate(lines, 1):  # noqa: B007 - named in the diagnostic
            if not line:
                continue
            if line[0] == "#":
                key, _, value = line[1:].strip().partition("=")
                header[key] = value
                continue
            time_text, vcpu, space, op, address, size, value_text, region = line.split("\t")
            columns = (space, op, address, size, region)
            known = targets.get(columns)
            if known is None:
                target = _target(space, op, int(address, 0), int(size), region)
                known = targets[columns] = (len(targets), target, _encode(target))
            index, _, (where, space_code, op_code, log2_size) = known
            time = int(time_text)
            if time < last:
                raise ValueError("time runs backwards")
            if time >= NEVER:
                raise ValueError("the time is beyond the VM clock")
            last = time
            target_of.append(index)
            packed.append(pack(time, int(value_text, 0), where, space_code, op_code, log2_size, 0, int(vcpu)))
        if _MAGIC not in header:
            number, line = 0, ""
            raise ValueError(f"a recording begins with `# {_MAGIC}`")
        rtc_base = _seconds(header.get("rtc_base", "1970-01-01T00:00:00Z"))
    except (ValueError, OverflowError, StructError) as error:
        raise reject(
            errors.BAD_RECORDING,
            f"this is not a recording of accesses: {_reason(error)}",
            Span(file or name, number, 1, len(line) + 1, line[:200]),
            help=["`devbc explain H001` describes the format"],
        ) from None
    return Recording(
        name, rtc_base, b"".join(packed), tuple(target for _, target, _ in targets.values()), target_of,
        header.get("machine", ""),
    )  # fmt: skip


def _target(space: str, op: str, address: int, size: int, region: str) -> Target:
    if space not in tuple(Space) or op not in tuple(Op):
        raise ValueError(f"`{space} {op}` is no access: pio or mmio, read or write")
    target = Target(Space(space), Op(op), address, size, region)
    if size not in SIZES:
        raise ValueError(f"an access has 1, 2, 4 or 8 bytes, not {size}")
    if not 0 <= address < ADDRESS_LIMIT[target.space]:
        raise ValueError(f"the address {address:#x} is beyond the {space} space")
    return target


def _encode(target: Target) -> tuple[int, int, int, int]:
    """Address, space, op and log2 size as `layouts.ACCESS` has them."""
    space, op = list(Space).index(target.space), list(Op).index(target.op)
    return target.address, space, op, target.size.bit_length() - 1


def _seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())


def _reason(error: Exception) -> str:
    text = str(error)
    if "unpack" in text:
        return "an access has 8 columns, separated by tabs"
    if text.startswith("invalid literal"):
        return f"{text.rpartition(': ')[2]} is not a number"
    if isinstance(error, OverflowError | StructError):
        return "a number does not fit its column"
    return text
