"""Linux's BPF on our handlers, timed: BPF_PROG_TEST_RUN repeats a program in the kernel.

A syscall program, which `devbc.engines.linux` makes of a handler, may not be repeated. So the same byte
code is loaded as a classifier (BPF_PROG_TYPE_SCHED_CLS), behind one `lddw` that points r1 at an exit in a
map of its own instead of the packet. What a repetition costs besides, a program that does nothing shows.
The syscall program itself is timed too, a system call for each run.

Time is taken around the system calls: the kernel's own figure is a mean in whole nanoseconds. The clock is
the host's.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import ExitStack
from time import perf_counter_ns
from typing import Final

from bench.loops import Call
from devbc.abi import MapIndex
from devbc.engines import linux
from devbc.isa.insn import Insn, encode
from devbc.isa.opcodes import SPECS
from devbc.program.program import Program
from devbc.program.verified import VerifiedHandler

_PROG_TYPE_SCHED_CLS: Final = 3
#: The map of exits, after those that a handler knows.
_EXIT_MAP: Final = max(MapIndex) + 1
#: An Ethernet header: what the kernel asks a packet to have.
_PACKET: Final = bytes(64)
#: Linux gives a run up after so many repetitions' time; longer batches are several runs.
_MOST: Final = 1 << 20


def why_unavailable() -> str | None:
    return linux.why_unavailable()


class TimedProgram:
    """A handler in the kernel, with its exit and its scratch in maps."""

    def __init__(self, handler: VerifiedHandler, scratch: bytes, program: Program, exit: bytes) -> None:
        """Raises ValueError with what Linux says, if it refuses."""
        rodata = program.rodata
        self._resources = ExitStack()
        with ExitStack() as resources:
            maps = {MapIndex.SCRATCH: linux.Map(len(scratch), linux._MAP_MMAPABLE, resources)}
            maps[MapIndex.RODATA] = constants = linux.Map(len(rodata), linux._MAP_RDONLY_PROG, resources)
            constants.fill(rodata)
            constants.freeze()
            exits = linux.Map(len(exit), linux._MAP_MMAPABLE, resources)
            fds: dict[int, int] = {index: each.fd for index, each in maps.items()}
            fds[_EXIT_MAP] = exits.fd
            self.exit = exits.map(resources)
            self.scratch = maps[MapIndex.SCRATCH].map(resources)
            self.exit[:] = exit
            self.scratch[:] = scratch
            self._fd = _load(_with_exit(handler.handler.code), fds)
            resources.callback(os.close, self._fd)
            self._resources = resources.pop_all()
        self._packet = ctypes.create_string_buffer(_PACKET, len(_PACKET))

    def run(self, count: int) -> float:
        """ns that so many repetitions take."""
        start = perf_counter_ns()
        while count > 0:
            attributes = linux._TestRun(
                prog_fd=self._fd, data_size_in=len(_PACKET), data_in=ctypes.addressof(self._packet),
                repeat=min(count, _MOST),
            )  # fmt: skip
            linux._bpf(linux._Command.PROG_TEST_RUN, attributes)
            self.verdict = int(attributes.retval)
            count -= _MOST
        return float(perf_counter_ns() - start)

    def close(self) -> None:
        self._resources.close()


class CalledProgram:
    """A handler in the kernel as a syscall program, its exit here: `call` is the system call that runs it."""

    def __init__(self, handler: VerifiedHandler, scratch: bytes, program: Program, exit: bytes) -> None:
        """Raises ValueError with what Linux says, if it refuses."""
        size, rodata = len(program.scratch_image), program.rodata
        loaded = linux.try_load(handler.handler.code, scratch_size=size, rodata=rodata)
        if isinstance(loaded, linux.Refused):
            raise ValueError(f"Linux refuses it: {loaded.reason}")
        loaded.scratch[:] = scratch[:size]
        self.scratch = loaded.scratch
        self.exit = ctypes.create_string_buffer(exit, len(exit))
        self._types = program.scratch_type
        self._attributes = attributes = linux._TestRun(
            prog_fd=loaded._fd, ctx_size_in=len(exit), ctx_in=ctypes.addressof(self.exit)
        )
        place, length = ctypes.addressof(attributes), ctypes.sizeof(attributes)
        number = linux._SYSCALLS[os.uname().machine]
        self.call = Call(_syscall(), number, linux._Command.PROG_TEST_RUN, place, length, keep=(self, loaded))

    @property
    def verdict(self) -> int:
        return int(self._attributes.retval)

    def field(self, name: str) -> int:
        """The address of a field of the shared area."""
        place = ctypes.addressof((ctypes.c_char * len(self.scratch)).from_buffer(self.scratch))
        return place + int(getattr(self._types, name).offset)


def _syscall() -> int:
    """`syscall` of the C library: its arguments are the four of a loop's calls."""
    return ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value or 0


def _with_exit(code: bytes) -> bytes:
    point = SPECS["lddw_map_value_by_idx"]
    return encode([Insn(point, dst=1, src=point.src or 0, imm=_EXIT_MAP)]) + code


def _load(code: bytes, maps: dict[int, int]) -> int:
    insns = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"unspecified")
    fds = (ctypes.c_int * len(maps))(*(maps[index] for index in sorted(maps)))
    log = ctypes.create_string_buffer(1 << 20)
    attributes = linux._ProgLoad(
        prog_type=_PROG_TYPE_SCHED_CLS, insn_cnt=len(code) // 8, insns=ctypes.addressof(insns),
        license=ctypes.addressof(licence), log_level=1, log_size=len(log), log_buf=ctypes.addressof(log),
        prog_name=b"devbc_bench", fd_array=ctypes.addressof(fds),
    )  # fmt: skip
    try:
        return linux._bpf(linux._Command.PROG_LOAD, attributes)
    except OSError as error:
        text = log.value.decode("utf-8", "replace")
        refused = linux.Refused(error.errno or 22, text)
        raise ValueError(f"Linux refuses it: {refused.reason}") from None
