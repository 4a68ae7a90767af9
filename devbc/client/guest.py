"""A guest's accesses, packed as a vCPU's ring takes them."""

from __future__ import annotations

from devbc.abi import SIZES, Op, Space
from devbc.hypervisor.bus import ADDRESS_LIMIT, kind_of
from devbc.hypervisor.layouts import ACCESS, HYPERCALL

_OPS = tuple(Op)
#: log2 of the bytes of a hypercall's result.
_RESULT = 3


def access(space: Space, op: Op, address: int, size: int, value: int = 0, *, time: int = 0) -> bytes:
    """One access of `size` bytes at a VM clock's time in ns, which a live VM ignores.

    Raises ValueError for an access that no guest can make.
    """
    if size not in SIZES or not 0 <= address < ADDRESS_LIMIT[space]:
        raise ValueError(f"no guest accesses {size} bytes at {space} {address:#x}")
    where = (address, kind_of(space), _OPS.index(op), size.bit_length() - 1)
    return ACCESS.packer.pack(time, value & (1 << 8 * size) - 1, *where, 0, 0)


def hypercall(number: int, *, time: int = 0) -> bytes:
    """One hypercall; its six arguments are fed beside it."""
    return ACCESS.packer.pack(time, 0, number, HYPERCALL, 0, _RESULT, 0, 0)
