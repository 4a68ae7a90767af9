"""What KVM's mechanisms do with a guest's write, from the kernel's documentation: what patterns are held to.

Sections are those of Documentation/virt/kvm/api.rst; where it is silent, the names of functions in virt/kvm
say what was followed. Nothing here knows of programs, scratch or signals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from devbc.abi import Space

#: A page of 4,096 bytes less the 8 of struct kvm_coalesced_mmio_ring, by the 24 of an entry.
KVM_COALESCED_MMIO_MAX = 170


@dataclass(frozen=True, slots=True)
class Write:
    """A guest's write that has left the guest."""

    space: Space
    address: int
    length: int
    value: int


@dataclass(slots=True)
class IoEventFd:
    """4.59 KVM_IOEVENTFD. `datamatch` is None without KVM_IOEVENTFD_FLAG_DATAMATCH.

    "A guest write in the registered address will signal the provided event instead of triggering an exit."
    "If datamatch flag is set, the event will be signaled only if the written value to the registered address
    is equal to datamatch." With KVM_CAP_IOEVENTFD_ANY_LENGTH, "a zero length ioeventfd is allowed, and the
    kernel will ignore the length of guest write". Address and length must be precise (`ioeventfd_in_range`).
    """

    space: Space
    address: int
    length: int
    datamatch: int | None = None
    signalled: int = 0

    def takes(self, write: Write) -> bool:
        """Whether the write ends here: then the event is signalled, and the vCPU does not exit."""
        if (write.space, write.address) != (self.space, self.address):
            return False
        if self.length and write.length != self.length:
            return False
        if self.length and self.datamatch is not None and write.value != self.datamatch:
            return False
        self.signalled += 1
        return True


@dataclass(frozen=True, slots=True)
class Entry:
    """struct kvm_coalesced_mmio; `data` as a little-endian number of `length` bytes."""

    phys_addr: int
    length: int
    pio: int
    data: int


@dataclass(slots=True)
class CoalescedRing:
    """4.116 KVM_(UN)REGISTER_COALESCED_MMIO, and struct kvm_coalesced_mmio_ring.

    "Write accesses do not exit to userspace and their value is recorded in a ring buffer that is shared
    between kernel and userspace." Zones are registered by space, address and size; an access belongs to one
    that holds all of it (`coalesced_mmio_in_range`). One entry is always unused, so that a full ring does not
    look like an empty one; a full ring makes the write exit (`coalesced_mmio_write`).
    """

    zones: dict[Space, tuple[int, int]]
    first: int = 0
    last: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)

    def takes(self, write: Write) -> bool:
        """Whether the write waits in the ring, and the vCPU does not exit."""
        address, size = self.zones[write.space]
        if not address <= write.address <= write.address + write.length <= address + size:
            return False
        # CVE-2019-14821: `last` is in memory that userspace writes.
        if self.last >= KVM_COALESCED_MMIO_MAX:
            return False
        following = (self.last + 1) % KVM_COALESCED_MMIO_MAX
        if following == self.first:
            return False
        pio = int(write.space is Space.PIO)
        self.entries[self.last] = Entry(write.address, write.length, pio, write.value)
        self.last = following
        return True

    def drain(self, most: int) -> Iterator[Entry]:
        """What userspace does: take up to `most` entries, oldest first."""
        while most and self.first != self.last:
            yield self.entries.pop(self.first)
            self.first = (self.first + 1) % KVM_COALESCED_MMIO_MAX
            most -= 1


@dataclass(slots=True)
class ResampledIrq:
    """4.75 KVM_IRQFD with KVM_IRQFD_FLAG_RESAMPLE.

    "Posting of an interrupt through kvm_irqfd.fd asserts the specified gsi in the irqchip. When the irqchip
    is resampled, such as from an EOI, the gsi is de-asserted and the user is notified via
    kvm_irqfd.resamplefd. It is the user's responsibility to re-queue the interrupt if the device making use
    of it still requires service."
    """

    asserted: bool = False
    resampled: int = 0
    rises: int = 0

    def post(self) -> None:
        self.rises += not self.asserted
        self.asserted = True

    def end_of_interrupt(self) -> None:
        self.asserted = False
        self.resampled += 1
