"""The kernel's `kvm_pio` and `kvm_mmio` events, as trace-cmd, ftrace's files and `perf script` print them.

     CPU 0/KVM-2345  [002] d..1.  1234.567890: kvm_pio:     pio_read at 0x608 size 4 count 1 val 0x5f3a11
     CPU 0/KVM  2345 [002]  1234.567890: kvm:kvm_mmio: mmio write len 4 gpa 0xfec00000 val 0x10

The events are defined in arch/x86/kvm/trace.h (`kvm_pio`; before Linux 3.16 without the value) and
include/trace/events/kvm.h (`kvm_mmio`, `kvm_userspace_exit`); what stands before them by libtraceevent's
`tep_print_event` and ftrace's `trace_print_context` (thread, CPU, flags, time), and by perf's
`perf_sample__fprintf_start` (tools/perf/builtin-script.c; fewer columns with `-F`).

Which side answered: the kernel traces a write before it has found somebody to take it, and a read when it is
complete. An exit to userspace follows a write, and comes before a read, on the same thread. So with
`kvm_userspace_exit` in the trace each access has its side; without, a read that no `unsatisfied-read`
announced was the kernel's, and the rest is unknown: Arm announces reads before it looks in the kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from devbc.abi import Op, Space
from devbc.guests.recording import Target
from devbc.guests.trace_formats.access import Access, Answered, Format, TraceBuilder
from devbc.hypervisor.bus import ADDRESS_LIMIT

#: In every line of this format; looked for before anything slower.
MARK = "kvm_"

#: The last such name in the line: a thread may be called like an event.
_EVENT = re.compile(
    r"(?P<head>.*\s|)(?P<perf>kvm:)?kvm_(?P<event>pio|mmio|userspace_exit|entry|exit):\s*(?P<body>.*)"
)
_THREAD = re.compile(
    r"\s*(?P<comm>.*?)(?:-|\s)(?:\d{1,10}/)?(?P<tid>\d{1,10})\s+(?:\(\s*[\d-]+\)\s+)?\[\d+\]"
)
_TIME = re.compile(r"\s(?P<seconds>\d{1,12})\.(?P<fraction>\d{6,9}):\s+(?:\d+\s+)?$")
_PIO = re.compile(
    r"pio_(?P<op>read|write) at (?P<port>0x[0-9a-f]{1,8}) size (?P<size>\d{1,3}) count (?P<count>\d{1,10})"
    r"(?: val (?P<value>0x[0-9a-f]{1,16})(?: \(\.\.\.\))?)?\s*"
)
_MMIO = re.compile(
    r"mmio (?P<op>unsatisfied-read|read|write) len (?P<size>\d{1,3}) gpa (?P<gpa>0x[0-9a-f]{1,16})"
    r" val (?P<value>0x[0-9a-f]{1,16})\s*"
)
#: libvirt's and QEMU's names of vCPU threads (`-name debug-threads=on`).
_VCPU_COMM = re.compile(r"CPU (\d{1,4})/KVM")
_VCPU = re.compile(r"\bvcpu (\d{1,4})\b")
_USERSPACE = {"KVM_EXIT_IO": Space.PIO, "KVM_EXIT_MMIO": Space.MMIO}


@dataclass(slots=True)
class _Thread:
    """What is known of a thread while its lines go by."""

    vcpu: int | None = None
    #: The last write, while it may still turn out to be userspace's.
    write: int | None = None
    #: The space in which userspace was asked for a read that has not been seen yet.
    asked: Space | None = None
    #: The address of a read that was announced, and the space's last.
    announced: int | None = None


class KvmEvents:
    """Reads lines of these events into a builder."""

    def __init__(self, builder: TraceBuilder) -> None:
        self._builder = builder
        self._threads: dict[str, _Thread] = {}
        self._tells_side = False
        self.format: Format | None = None
        self.resolution = 1

    def line(self, line: str) -> bool:
        """Take a line; whether it was an access. ValueError says what is wrong with one."""
        found = _EVENT.fullmatch(line)
        if found is None:
            return False
        head, body, event = found["head"], found["body"], found["event"]
        who = _THREAD.match(head)
        thread = self._thread(who["tid"], who["comm"]) if who else self._thread("", "")
        match event:
            case "entry" | "exit":
                if thread.vcpu is None and (vcpu := _VCPU.search(body)):
                    thread.vcpu = int(vcpu[1])
                return False
            case "userspace_exit":
                self._userspace_exit(thread, body)
                return False
            case "pio":
                access: Access | None = self._pio(body, self._time(head), thread)
            case _:
                access = self._mmio(body, self._time(head), thread)
        self.format = self.format or (Format.PERF_SCRIPT if found["perf"] else Format.TRACE_CMD)
        if access is None:
            return False
        self._add(access, thread)
        return True

    def finish(self) -> None:
        """Decide what the whole trace decides: where sides are told, whoever was not asked did not answer."""
        if self._tells_side:
            answered = self._builder.answered
            for index, side in enumerate(answered):
                if side == Answered.UNKNOWN:
                    answered[index] = Answered.KERNEL

    @property
    def guests(self) -> int:
        """Virtual machines, at least: threads that are the same vCPU belong to different ones."""
        vcpus = [thread.vcpu for thread in self._threads.values() if thread.vcpu is not None]
        return max((vcpus.count(each) for each in set(vcpus)), default=1)

    def _thread(self, tid: str, comm: str) -> _Thread:
        thread = self._threads.get(tid)
        if thread is None:
            thread = self._threads[tid] = _Thread()
            if found := _VCPU_COMM.fullmatch(comm.strip()):
                thread.vcpu = int(found[1])
        return thread

    def _time(self, head: str) -> int | None:
        found = _TIME.search(head)
        if found is None:
            return None
        fraction = found["fraction"]
        self.resolution = max(self.resolution, 10 ** (9 - len(fraction)))
        return int(found["seconds"]) * 1_000_000_000 + int(fraction.ljust(9, "0"))

    def _pio(self, body: str, time: int | None, thread: _Thread) -> Access:
        found = _PIO.fullmatch(body)
        if found is None:
            raise ValueError("a port access is `pio_read at 0xP size S count N val 0xV`")
        size, count = int(found["size"]), int(found["count"])
        value = int(found["value"], 16) if found["value"] and count == 1 else None
        target = _target(Space.PIO, Op(found["op"]), int(found["port"], 16), size)
        return Access(time, thread.vcpu, target, _low(value, size), max(1, count))

    def _mmio(self, body: str, time: int | None, thread: _Thread) -> Access | None:
        found = _MMIO.fullmatch(body)
        if found is None:
            raise ValueError("a memory access is `mmio read len S gpa 0xA val 0xV`")
        address, size, op = int(found["gpa"], 16), int(found["size"]), found["op"]
        # The event has 64 bits of the value; vector registers move more.
        value = int(found["value"], 16) if size <= 8 else None
        target = _target(Space.MMIO, Op.WRITE if op == "write" else Op.READ, address, size)
        if op == "unsatisfied-read":
            thread.announced = address
            return None
        return Access(time, thread.vcpu, target, _low(value, size))

    def _add(self, access: Access, thread: _Thread) -> None:
        index, target = self._builder.add(access), access.target
        thread.write = None
        if target.op is Op.WRITE:
            thread.write = index
            return
        if thread.asked is target.space:
            self._builder.answered[index] = Answered.USERSPACE
        elif target.space is Space.MMIO and thread.announced != target.address:
            self._builder.answered[index] = Answered.KERNEL
        thread.asked = thread.announced = None

    def _userspace_exit(self, thread: _Thread, body: str) -> None:
        self._tells_side = True
        words = body.split()
        space = _USERSPACE.get(words[1]) if len(words) > 1 else None
        if space is None:
            return
        write, thread.write = thread.write, None
        if write is not None and self._builder.targets()[self._builder.target_of[write]].space is space:
            self._builder.answered[write] = Answered.USERSPACE
        else:
            thread.asked = space


def _target(space: Space, op: Op, address: int, size: int) -> Target:
    if not 1 <= size <= 64:
        raise ValueError(f"an access has 1 to 64 bytes, not {size}")
    if address >= ADDRESS_LIMIT[space]:
        raise ValueError(f"the address {address:#x} is beyond the {space} space")
    return Target(space, op, address, size, "")


def _low(value: int | None, size: int) -> int | None:
    """The access's own bytes: the rest of the event's field is not the guest's."""
    return None if value is None else value & (1 << 8 * size) - 1
