"""A small real guest under KVM, whose exits are a hardware's: answered by userspace after KVM_RUN, or in
the kernel.

The guest is a loop in real mode that makes a subject's accesses, to ports or to memory that nobody backs;
x86 only. Userspace's half is a native loop of KVM_RUN that answers nothing, the cheapest there can be. On a
machine that is virtualised itself these are nested exits. Layouts and numbers: uapi/linux/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from time import perf_counter_ns
from typing import Final

from bench.loops import loops
from bench.subjects import GuestAccess

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
#: Where the guest tells that it has done its rounds.
_DONE: Final = 0x99
#: In kvm_sregs: segments begin with base, limit, selector; CS is the first, DS the second.
_CS_BASE: Final = 0
_CS_SELECTOR: Final = 12
_DS_BASE: Final = 24
#: In kvm_run: the reason, then for ports direction, size, port; for memory address, data, length, is_write.
_REASON: Final = struct.Struct("<8xI20x")
_PORT: Final = struct.Struct("<BBHI8x")
_MEMORY: Final = struct.Struct("<QQIB")
_EXIT_IO: Final = 2
_EXIT_MMIO: Final = 6
#: Bytes that a segment reaches in real mode: a device's registers, from its base on.
_REACH: Final = 1 << 16


def _code(row: Sequence[GuestAccess]) -> bytes:
    """The row ECX times, then an `out` for ever. Accesses of 8 bytes are 4 bytes wide: it is real mode."""
    code = bytearray()
    for each in row:
        wide, prefix = int(each.size > 1), b"\x66" if each.size >= 4 else b""
        if each.write:
            code += b"\x66\xb8" + struct.pack("<I", each.value)  # mov eax, value
        if each.memory:
            code += prefix + bytes((0xA0 | each.write << 1 | wide,))  # mov eax, [offset], or the other way
            code += struct.pack("<H", each.address % _REACH)
        else:
            code += b"\xba" + struct.pack("<H", each.address)  # mov dx, port
            code += prefix + bytes((0xEC | each.write << 1 | wide,))  # in eax, dx or out dx, eax
    code += b"\x66\x49"  # dec ecx
    code += b"\x0f\x85" + struct.pack("<h", -(len(code) + 4))  # jnz to the beginning
    return bytes(code) + bytes((0xE6, _DONE, 0xEB, 0xFC))  # out; jmp to it


@cache
def why_unavailable() -> str | None:
    """Why there is no KVM, as a sentence; None if a guest has run."""
    if os.uname().machine != "x86_64":
        return "the guest is x86 code"
    try:
        guest = Guest([GuestAccess(memory=False, write=False, address=0x608, size=4, value=0)])
        try:
            guest.userspace_exits(4)
        finally:
            guest.close()
    except OSError as error:
        return f"/dev/kvm cannot be used: {error.strerror or error}"
    return None


class Guest:
    """A VM with one vCPU that makes a row of accesses for ever, or so many times."""

    def __init__(self, row: Sequence[GuestAccess], *, irqchip: bool = False, eventfd: bool = False) -> None:
        """`irqchip`: with KVM's own PIT; `eventfd`: the row is one write, an ioeventfd's. Raises OSError."""
        self._row = len(row)
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
            code = _code(row)
            self._memory[_CODE_AT : _CODE_AT + len(code)] = code
            place = ctypes.addressof((ctypes.c_char * 0).from_buffer(self._memory))
            region = struct.pack("<IIQQQ", 0, 0, 0, _BYTES, place)
            fcntl.ioctl(self._vm, _SET_USER_MEMORY_REGION, region)
            if eventfd:
                fd = owned(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
                (write,) = row
                flags = 0 if write.memory else _IOEVENTFD_PIO
                request = struct.pack("<QQIiI36x", 0, write.address, write.size, fd, flags)
                fcntl.ioctl(self._vm, _IOEVENTFD, request)
            self._vcpu = owned(fcntl.ioctl(self._vm, _CREATE_VCPU, 0))
            size = fcntl.ioctl(kvm, _VCPU_MMAP_SIZE, 0)
            self._run = resources.enter_context(mmap.mmap(self._vcpu, size))
            sregs = bytearray(312)
            fcntl.ioctl(self._vcpu, _GET_SREGS, sregs)
            # Code is where it is called from 0; data are the device's, if it is in memory.
            base = next((each.address & -_REACH for each in row if each.memory), 0)
            struct.pack_into("<Q", sregs, _CS_BASE, 0)
            struct.pack_into("<H", sregs, _CS_SELECTOR, 0)
            struct.pack_into("<Q", sregs, _DS_BASE, base)
            fcntl.ioctl(self._vcpu, _SET_SREGS, bytes(sregs))
            self._start(0)
            self._resources = resources.pop_all()

    def _start(self, count: int) -> None:
        """From the loop's beginning, `count` rounds (0: 2**32)."""
        registers = [0] * 18
        registers[2], registers[16], registers[17] = count, _CODE_AT, 2
        fcntl.ioctl(self._vcpu, _SET_REGS, struct.pack("<18Q", *registers))

    def userspace_exits(self, count: int) -> float:
        """ns of so many exits that userspace answers. Raises OSError if one failed."""
        start = perf_counter_ns()
        done = loops().kvm_exits(self._vcpu, count)
        if done != count:
            raise OSError("KVM_RUN fails, or was interrupted")
        return float(perf_counter_ns() - start)

    def exit(self) -> GuestAccess:
        """The access that came to userspace last. Raises OSError if it was none."""
        (reason,) = _REASON.unpack_from(self._run)
        if reason == _EXIT_IO:
            write, size, port, _ = _PORT.unpack_from(self._run, _REASON.size)
            return GuestAccess(memory=False, write=bool(write), address=port, size=size, value=0)
        if reason == _EXIT_MMIO:
            address, data, size, write = _MEMORY.unpack_from(self._run, _REASON.size)
            return GuestAccess(memory=True, write=bool(write), address=address, size=size, value=data)
        raise OSError(f"the guest has stopped, by KVM's reason {reason}")

    def kernel_exits(self, count: int) -> float:
        """ns of so many accesses that the kernel answers itself, with the one exit at their end.

        Raises OSError if it does not.
        """
        rounds = -(-count // self._row)
        self._start(rounds)
        start = perf_counter_ns()
        loops().kvm_exits(self._vcpu, 1)
        ns = perf_counter_ns() - start
        if self.exit().address != _DONE:
            raise OSError("KVM leaves an access to userspace that it should answer")
        return ns * count / (rounds * self._row)

    def close(self) -> None:
        self._resources.close()
