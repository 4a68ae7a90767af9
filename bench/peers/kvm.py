"""A small real guest under KVM, whose exits are a hardware's: answered by userspace after KVM_RUN, or in
the kernel.

The guest is a loop in real mode of one `in` or `out`; x86 only. Userspace's half is a native loop of
KVM_RUN that answers nothing, the cheapest there can be. On a machine that is virtualised itself these are
nested exits. Layouts and numbers: uapi/linux/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from contextlib import ExitStack
from functools import cache
from time import perf_counter_ns
from typing import Final

from bench.loops import loops

_CREATE_VM: Final = 0xAE01
_VCPU_MMAP_SIZE: Final = 0xAE04
_CREATE_VCPU: Final = 0xAE41
_SET_USER_MEMORY_REGION: Final = 0x4020AE46
_SET_TSS_ADDR: Final = 0xAE47
_CREATE_IRQCHIP: Final = 0xAE60
_CREATE_PIT2: Final = 0x4040AE77
_IOEVENTFD: Final = 0x4040AE79
_RUN: Final = 0xAE80
_SET_REGS: Final = 0x4090AE82
_GET_SREGS: Final = 0x8138AE83
_SET_SREGS: Final = 0x4138AE84
_IOEVENTFD_PIO: Final = 1 << 1

_CODE_AT: Final = 0x1000
_BYTES: Final = 0x4000
#: again: in al, dx (or out dx, al); dec ecx; jnz again; out 0x99, al; jmp $-2
_IN: Final = bytes((0xEC, 0x66, 0x49, 0x75, 0xFB, 0xE6, 0x99, 0xEB, 0xFC))
_OUT: Final = bytes((0xEE, *_IN[1:]))
#: kvm_sregs begins with CS: base, limit, selector.
_CS: Final = struct.Struct("<QIH")


@cache
def why_unavailable() -> str | None:
    """Why there is no KVM, as a sentence; None if a guest has run."""
    if os.uname().machine != "x86_64":
        return "the guest is x86 code"
    try:
        guest = Guest(port=0x608)
        try:
            guest.userspace_exits(4)
        finally:
            guest.close()
    except OSError as error:
        return f"/dev/kvm cannot be used: {error.strerror or error}"
    return None


class Guest:
    """A VM with one vCPU that accesses one port for ever, or `count` times."""

    def __init__(
        self, port: int, *, write: bool = False, irqchip: bool = False, eventfd: bool = False
    ) -> None:
        """`irqchip`: with KVM's own PIT; `eventfd`: writes to the port are an ioeventfd's. Raises OSError."""
        with ExitStack() as resources:

            def owned(fd: int) -> int:
                resources.callback(os.close, fd)
                return fd

            kvm = owned(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
            self._vm = owned(fcntl.ioctl(kvm, _CREATE_VM, 0))
            fcntl.ioctl(self._vm, _SET_TSS_ADDR, 0x7FFB_D000)
            if irqchip:
                fcntl.ioctl(self._vm, _CREATE_IRQCHIP, 0)
                fcntl.ioctl(self._vm, _CREATE_PIT2, bytes(64))
            self._memory = resources.enter_context(mmap.mmap(-1, _BYTES))
            code = _OUT if write else _IN
            self._memory[_CODE_AT : _CODE_AT + len(code)] = code
            place = ctypes.addressof((ctypes.c_char * 0).from_buffer(self._memory))
            region = struct.pack("<IIQQQ", 0, 0, 0, _BYTES, place)
            fcntl.ioctl(self._vm, _SET_USER_MEMORY_REGION, region)
            if eventfd:
                fd = owned(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
                request = struct.pack("<QQIiI36x", 0, port, 1, fd, _IOEVENTFD_PIO)
                fcntl.ioctl(self._vm, _IOEVENTFD, request)
            self._vcpu = owned(fcntl.ioctl(self._vm, _CREATE_VCPU, 0))
            size = fcntl.ioctl(kvm, _VCPU_MMAP_SIZE, 0)
            resources.enter_context(mmap.mmap(self._vcpu, size))
            sregs = bytearray(312)
            fcntl.ioctl(self._vcpu, _GET_SREGS, sregs)
            _, limit, _ = _CS.unpack_from(sregs)
            _CS.pack_into(sregs, 0, 0, limit, 0)
            fcntl.ioctl(self._vcpu, _SET_SREGS, bytes(sregs))
            self._port = port
            self._start(0)
            self._resources = resources.pop_all()

    def _start(self, count: int) -> None:
        """From the loop's beginning, `count` times (0: 2**32)."""
        registers = [0] * 18
        registers[2], registers[3], registers[16], registers[17] = count, self._port, _CODE_AT, 2
        fcntl.ioctl(self._vcpu, _SET_REGS, struct.pack("<18Q", *registers))

    def userspace_exits(self, count: int) -> float:
        """ns of so many exits that userspace answers. Raises OSError if one failed."""
        start = perf_counter_ns()
        done = loops().kvm_exits(self._vcpu, count)
        if done != count:
            raise OSError("KVM_RUN fails, or was interrupted")
        return float(perf_counter_ns() - start)

    def kernel_exits(self, count: int) -> float:
        """ns of so many accesses that the kernel answers itself, with the one exit at their end."""
        self._start(count)
        start = perf_counter_ns()
        loops().kvm_exits(self._vcpu, 1)
        return float(perf_counter_ns() - start)

    def close(self) -> None:
        self._resources.close()
