"""Linux's own BPF: a handler as a program of type `BPF_PROG_TYPE_SYSCALL`, through bpf(2) and nothing else.

Byte code goes in as it is. A `lddw` names the shared area as map 0 and read-only data as map 1, in Linux's
own encoding (`BPF_PSEUDO_MAP_IDX_VALUE`): scratch is an array map with one value that userspace maps too,
read-only data one that is frozen. The exit is the program's context, which `BPF_PROG_TEST_RUN` copies in and
out. Linux verifies the program for itself, by its own rules: a third opinion on the verifier and on the
engines, and the kernel's JIT where it is switched on.

What Linux does not check is this machine's contract: verdicts, clean declines, effects, fields of the exit
that may only be read. Nothing here replaces `devbc.verifier`.

Layouts and numbers: uapi/linux/bpf.h; they are Linux's stable interface to userspace. Not here: a `lddw` of
other kinds, BTF, pinning, and the clock (`ktime_get_ns` is the host's, there is no virtual one).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from types import TracebackType
from typing import Final

from devbc.abi import MapIndex
from devbc.diagnostics import reject
from devbc.engines import errors
from devbc.isa.asm import assemble
from devbc.isa.insn import encode

#: Numbers of the system call by machine; generic numbering (asm-generic/unistd.h) elsewhere.
_SYSCALLS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280}


class _Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_UPDATE_ELEM = 2
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    MAP_FREEZE = 22


_MAP_TYPE_ARRAY: Final = 2
_PROG_TYPE_SYSCALL: Final = 31
_MAP_RDONLY_PROG: Final = 1 << 7
_MAP_MMAPABLE: Final = 1 << 10
_PROG_STRICT_ALIGNMENT: Final = 1 << 0
#: Programs of this type must be sleepable.
_PROG_SLEEPABLE: Final = 1 << 4
_LOG_BYTES: Final = 1 << 20
#: Levels of the log: each instruction and why the last is refused; a line of figures.
_LOG_ALL: Final = 1
_LOG_STATISTICS: Final = 4
#: Lines of Linux's log that a diagnostic shows.
_LOG_LINES: Final = 6
#: Helpers that only GPL programs may call are not among ours, so that a program's licence is its own affair.
_LICENCE: Final = b"unspecified"


def _attributes(name: str, *fields: tuple[str, type]) -> type[ctypes.Structure]:
    """A member of `union bpf_attr`. The kernel takes any length, and bytes that are left out for 0."""
    return type(name, (ctypes.Structure,), {"_fields_": list(fields)})


_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64
_MapCreate = _attributes(
    "MapCreate", ("map_type", _U32), ("key_size", _U32), ("value_size", _U32), ("max_entries", _U32),
    ("map_flags", _U32),
)  # fmt: skip
_MapElement = _attributes(
    "MapElement", ("map_fd", _U32), ("pad", _U32), ("key", _U64), ("value", _U64), ("flags", _U64)
)
_MapFreeze = _attributes("MapFreeze", ("map_fd", _U32))
_ProgLoad = _attributes(
    "ProgLoad", ("prog_type", _U32), ("insn_cnt", _U32), ("insns", _U64), ("license", _U64),
    ("log_level", _U32), ("log_size", _U32), ("log_buf", _U64), ("kern_version", _U32), ("prog_flags", _U32),
    ("prog_name", ctypes.c_char * 16), ("prog_ifindex", _U32), ("expected_attach_type", _U32),
    ("prog_btf_fd", _U32), ("func_info_rec_size", _U32), ("func_info", _U64), ("func_info_cnt", _U32),
    ("line_info_rec_size", _U32), ("line_info", _U64), ("line_info_cnt", _U32), ("attach_btf_id", _U32),
    ("attach_prog_fd", _U32), ("core_relo_cnt", _U32), ("fd_array", _U64),
)  # fmt: skip
_TestRun = _attributes(
    "TestRun", ("prog_fd", _U32), ("retval", _U32), ("data_size_in", _U32), ("data_size_out", _U32),
    ("data_in", _U64), ("data_out", _U64), ("repeat", _U32), ("duration", _U32), ("ctx_size_in", _U32),
    ("ctx_size_out", _U32), ("ctx_in", _U64), ("ctx_out", _U64), ("flags", _U32), ("cpu", _U32),
    ("batch_size", _U32),
)  # fmt: skip


@cache
def why_unavailable() -> str | None:
    """Why bpf(2) cannot be used, as a sentence; None if a trivial program can be loaded and run."""
    if sys.platform != "linux":
        return f"this is {sys.platform}, not Linux"
    if platform.machine() not in _SYSCALLS:
        return f"bpf(2) has no known number on {platform.machine()}"
    try:
        program = try_load(encode(assemble("mov %r0, 1\nexit")), scratch_size=8)
        if isinstance(program, Refused):
            return f"Linux refuses a program that does nothing: {program.reason}"
        with program:
            r0, _ = program.run(bytes(8))
    except OSError as error:
        known = {
            errno.EPERM: "bpf(2) is not permitted: it takes root, or CAP_BPF and CAP_PERFMON",
            errno.EACCES: "bpf(2) is not permitted: it takes root, or CAP_BPF and CAP_PERFMON",
            errno.ENOSYS: "this kernel is built without bpf(2), or a seccomp filter hides it",
        }
        return known.get(error.errno or 0, f"bpf(2) fails: {error}")
    return None if r0 == 1 else f"a program that returns 1 has returned {r0}"


@dataclass(frozen=True, slots=True)
class Refused:
    """Linux's verifier said no. `log`: all that it wrote; the reason is among the last lines."""

    error: int
    log: str

    @property
    def reason(self) -> str:
        """The line that says why, as far as one does: the last one that is no summary."""
        summaries = ("processed ", "verification time", "stack depth", "insns ", "max_states")
        lines = [line for line in self.log.splitlines() if line.strip() and not line.startswith(summaries)]
        return lines[-1] if lines else os.strerror(self.error)


class Map:
    """An array map of one value; its file descriptor is closed with `resources`."""

    def __init__(self, size: int, flags: int, resources: ExitStack) -> None:
        self.size = size
        # A map's value is never empty, a region may be.
        attributes = _MapCreate(
            map_type=_MAP_TYPE_ARRAY, key_size=4, value_size=max(1, size), max_entries=1, map_flags=flags
        )
        self.fd = _bpf(_Command.MAP_CREATE, attributes)
        resources.callback(os.close, self.fd)

    def fill(self, contents: bytes) -> None:
        key = _U32(0)
        value = ctypes.create_string_buffer(contents, max(1, self.size))
        _bpf(
            _Command.MAP_UPDATE_ELEM,
            _MapElement(map_fd=self.fd, key=ctypes.addressof(key), value=ctypes.addressof(value)),
        )

    def freeze(self) -> None:
        """Let nobody write it any more: then Linux's verifier takes its contents as known."""
        _bpf(_Command.MAP_FREEZE, _MapFreeze(map_fd=self.fd))

    def map(self, resources: ExitStack) -> memoryview:
        """The value as live memory of this process."""
        length = -(-max(1, self.size) // mmap.PAGESIZE) * mmap.PAGESIZE
        mapping = resources.enter_context(mmap.mmap(self.fd, length))
        return resources.enter_context(memoryview(mapping)[: self.size])


class LinuxProgram:
    """A handler in the kernel, its scratch mapped here. A context manager; `close` gives it all back.

    `scratch` is live memory that the program and others see; `log` is what Linux's verifier wrote.
    """

    def __init__(self, fd: int, scratch: memoryview, log: str, resources: ExitStack) -> None:
        self.scratch = scratch
        self.log = log
        self._fd = fd
        self._resources = resources

    @staticmethod
    def load(code: bytes, *, scratch_size: int, rodata: bytes = b"", strict: bool = False) -> LinuxProgram:
        """Verify and load byte code. Raises Rejected: E001 if bpf(2) may not be used, E002 if Linux refuses.

        `strict`: alignment is asked for as on machines that need it, and as `devbc.verifier` does.
        """
        if reason := why_unavailable():
            raise reject(errors.NO_BPF, reason)
        loaded = try_load(code, scratch_size=scratch_size, rodata=rodata, strict=strict)
        if isinstance(loaded, Refused):
            tail = tuple(loaded.log.splitlines()[-_LOG_LINES:])
            raise reject(errors.REFUSED_BY_LINUX, f"Linux's verifier says: {loaded.reason}", notes=tail)
        return loaded

    def run(self, exit: bytes) -> tuple[int, bytes]:
        """Run on a copy of an exit: the lower 32 bits of r0, and the exit as the program left it.

        `ktime_get_ns` gives the host's time.
        """
        context = ctypes.create_string_buffer(exit, len(exit))
        attributes = _TestRun(prog_fd=self._fd, ctx_size_in=len(exit), ctx_in=ctypes.addressof(context))
        _bpf(_Command.PROG_TEST_RUN, attributes)
        return int(attributes.retval), context.raw

    def close(self) -> None:
        self._resources.close()

    def __enter__(self) -> LinuxProgram:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def try_load(
    code: bytes, *, scratch_size: int, rodata: bytes = b"", strict: bool = False
) -> LinuxProgram | Refused:
    """What Linux's verifier says, as a value. Raises OSError where it may not be asked."""
    flags = _PROG_SLEEPABLE | (_PROG_STRICT_ALIGNMENT if strict else 0)
    with ExitStack() as resources:
        scratch = Map(scratch_size, _MAP_MMAPABLE, resources)
        constants = Map(len(rodata), _MAP_RDONLY_PROG, resources)
        constants.fill(rodata)
        constants.freeze()
        maps = {MapIndex.SCRATCH: scratch.fd, MapIndex.RODATA: constants.fd}
        try:
            fd, log = _load(code, maps, flags, _LOG_STATISTICS)
        except _LoadError as refusal:
            return _refused(refusal, code, maps, flags)
        resources.callback(os.close, fd)
        return LinuxProgram(fd, scratch.map(resources), log, resources.pop_all())


def _refused(refusal: _LoadError, code: bytes, maps: Mapping[MapIndex, int], flags: int) -> Refused:
    """Ask once more, to be told why: a log that has no room for it all is an error by itself."""
    log = refusal.log
    try:
        os.close(_load(code, maps, flags, _LOG_ALL)[0])
    except _LoadError as again:
        log = again.log
    if refusal.errno in (errno.EPERM, errno.ENOSYS) and not log:
        raise refusal
    return Refused(refusal.errno or errno.EINVAL, log)


class _LoadError(OSError):
    """`BPF_PROG_LOAD` failed, with what Linux's verifier had written by then."""

    def __init__(self, number: int, log: str) -> None:
        super().__init__(number, os.strerror(number))
        self.log = log


def _load(code: bytes, maps: Mapping[MapIndex, int], flags: int, level: int) -> tuple[int, str]:
    """The program's file descriptor, and Linux's log. Raises _LoadError."""
    insns = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(_LICENCE)
    fds = (ctypes.c_int * len(maps))(*(maps[index] for index in sorted(maps)))
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = _ProgLoad(
        prog_type=_PROG_TYPE_SYSCALL, insn_cnt=len(code) // 8, insns=ctypes.addressof(insns),
        license=ctypes.addressof(licence), log_level=level, log_size=len(log), log_buf=ctypes.addressof(log),
        prog_flags=flags, prog_name=b"devbc", fd_array=ctypes.addressof(fds),
    )  # fmt: skip
    try:
        fd = _bpf(_Command.PROG_LOAD, attributes)
    except OSError as error:
        raise _LoadError(error.errno or errno.EINVAL, log.value.decode("utf-8", "replace")) from None
    return fd, log.value.decode("utf-8", "replace")


def _bpf(command: _Command, attributes: ctypes.Structure) -> int:
    """bpf(2). Raises OSError."""
    result = _syscall()(
        ctypes.c_long(_SYSCALLS[platform.machine()]),
        ctypes.c_int(command),
        ctypes.byref(attributes),
        ctypes.c_uint(ctypes.sizeof(attributes)),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


@cache
def _syscall() -> Callable[..., int]:
    function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long  # type: ignore[attr-defined]
    return function
