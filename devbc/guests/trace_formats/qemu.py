"""QEMU's trace log: the events `memory_region_ops_read` and `memory_region_ops_write`.

    719585@1608130130.441188:memory_region_ops_read cpu 0 mr 0x562fdfbb3820 addr 0x3cc value 0x67 size 1
    memory_region_ops_write cpu 0 mr 0x562fdfbd2f00 addr 0x3d4 value 0x70e size 2 name 'vga'

The events are defined in system/trace-events (once softmmu/trace-events, and trace-events before), the line
by the `log` back end, scripts/tracetool/backend/log.py: with `-msg timestamp=on`, and in older versions
always, it begins with process and time. Older versions have no name. What QEMU logs, userspace has answered.
"""

from __future__ import annotations

import re

from devbc.abi import Op, Space
from devbc.guests.recording import Target
from devbc.guests.trace_formats.access import Access, Answered
from devbc.hypervisor.bus import ADDRESS_LIMIT

#: In every line of this format; looked for before anything slower.
MARK = "memory_region_ops_"
#: Microseconds, in ns: what `gettimeofday` gives.
RESOLUTION = 1_000
#: Regions in memory that are reached through an alias, so that an offset is logged and no address.
_ALIASED = frozenset({"pcie-mmcfg-mmio"})

_LINE = re.compile(
    r"(?:\d+@(?P<seconds>\d{1,12})\.(?P<micros>\d{6}):)?\s*"
    r"memory_region_ops_(?P<op>read|write) cpu (?P<cpu>-?\d+)(?: mr (?P<mr>\S+))? "
    r"addr (?P<address>0x[0-9a-fA-F]{1,16}) value (?P<value>0x[0-9a-fA-F]{1,16}) size (?P<size>\d{1,3})"
    r"(?: name '(?P<name>.*)'.*)?\s*"
)


def parse_line(line: str) -> Access | None:
    """The access of a line; None if it is of another event. ValueError says what is wrong with it."""
    found = _LINE.search(line)
    if found is None or found.end() != len(line):
        start = line.find(MARK)
        if not line.startswith(("read ", "write "), start + len(MARK)):
            return None
        raise ValueError("an access is `cpu N mr P addr 0xA value 0xV size S name 'NAME'`")
    size, address, value = int(found["size"]), int(found["address"], 16), int(found["value"], 16)
    if not 1 <= size <= 8:
        raise ValueError(f"an access has 1 to 8 bytes, not {size}")
    region = found["name"] if found["name"] is not None else (found["mr"] or "")
    space = _space(address, region)
    if address >= ADDRESS_LIMIT[space]:
        raise ValueError(f"the address {address:#x} is beyond any memory")
    time = None
    if found["seconds"] is not None:
        time = int(found["seconds"]) * 1_000_000_000 + int(found["micros"]) * 1_000
    cpu = int(found["cpu"])
    return Access(
        time,
        cpu if cpu >= 0 else None,
        Target(space, Op(found["op"]), address, size, region),
        value & (1 << 8 * size) - 1,
        answered=Answered.USERSPACE,
    )


def _space(address: int, region: str) -> Space:
    """The space of an address: memory and ports are traced by one event, which does not say which.

    Below 64 KiB a PC has ports and RAM, and RAM is no region with operations; boards without ports have no
    registers so low, but for the regions known to be logged by their offsets.
    """
    return Space.PIO if address < 1 << 16 and region not in _ALIASED else Space.MMIO
