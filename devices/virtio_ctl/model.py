"""The virtio control block in userspace: answers every access and call, and is where queues would be served.

The registers live in the shared area (`state` of virtio_ctl.dev), where program and model both work on them;
each method leaves them as the program would. Only here are what drivers do rarely or wrongly: the addresses
and sizes of queues, a reset while queues run, accesses of other widths, calls with arguments that make no
sense. There is no data path: a notification that arrives is counted, and handed to `on_notify`.

Sections are those of virtio 1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum, IntFlag
from typing import Any, Final

from devbc.hypervisor.model import Host


class Register(IntEnum):
    """Offsets in both banks (4.2.2). Control registers are accessed 32 bits at a time, and no other way."""

    MAGIC_VALUE = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SEL = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SEL = 0x024
    QUEUE_SEL = 0x030
    QUEUE_NUM_MAX = 0x034
    QUEUE_NUM = 0x038
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACK = 0x064
    STATUS = 0x070
    QUEUE_DESC_LOW = 0x080
    QUEUE_DESC_HIGH = 0x084
    QUEUE_DRIVER_LOW = 0x090
    QUEUE_DRIVER_HIGH = 0x094
    QUEUE_DEVICE_LOW = 0x0A0
    QUEUE_DEVICE_HIGH = 0x0A4
    CONFIG_GENERATION = 0x0FC
    CONFIG = 0x100


class Call(IntEnum):
    """Hypercalls, by the device's own numbers."""

    GET_FEATURES = 0
    SET_FEATURES = 1
    DEVICE_FEATURES = 2
    DEVICE_FEATURES_SEL = 3
    DRIVER_FEATURES = 4
    DRIVER_FEATURES_SEL = 5
    QUEUE_SEL = 6
    QUEUE_NUM_MAX = 7
    INTERRUPT_STATUS = 8
    INTERRUPT_ACK = 9
    GET_STATUS = 10
    SET_STATUS = 11
    RESET = 12
    QUEUE_NOTIFY = 13


class Status(IntFlag):
    """Device status (2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128
    BY_DRIVER = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED


class Interrupt(IntFlag):
    USED_BUFFER = 1
    CONFIGURATION = 2


MAGIC: Final = 0x7472_6976
VENDOR: Final = 0x6276_6564
#: Reserved feature bits (6).
VERSION_1: Final = 1 << 32
NOTIFICATION_DATA: Final = 1 << 38
#: The device type of a console: a queue each way, and nothing in its configuration that it must offer (5.3).
CONSOLE: Final = 3

#: What a call returns that makes no sense: Linux's errors, negative.
EINVAL: Final = -22
ENOSYS: Final = -38

_U32: Final = (1 << 32) - 1

#: Registers whose halves of 64 bits are fields of a queue.
_ADDRESSES: Final = {
    Register.QUEUE_DESC_LOW: ("descriptors", 0),
    Register.QUEUE_DESC_HIGH: ("descriptors", 32),
    Register.QUEUE_DRIVER_LOW: ("driver_area", 0),
    Register.QUEUE_DRIVER_HIGH: ("driver_area", 32),
    Register.QUEUE_DEVICE_LOW: ("device_area", 0),
    Register.QUEUE_DEVICE_HIGH: ("device_area", 32),
}
#: Calls that are a register's read, or its write.
_READS: Final = {
    Call.DEVICE_FEATURES: Register.DEVICE_FEATURES,
    Call.QUEUE_NUM_MAX: Register.QUEUE_NUM_MAX,
    Call.INTERRUPT_STATUS: Register.INTERRUPT_STATUS,
    Call.GET_STATUS: Register.STATUS,
}
_WRITES: Final = {
    Call.DEVICE_FEATURES_SEL: Register.DEVICE_FEATURES_SEL,
    Call.DRIVER_FEATURES: Register.DRIVER_FEATURES,
    Call.DRIVER_FEATURES_SEL: Register.DRIVER_FEATURES_SEL,
    Call.QUEUE_SEL: Register.QUEUE_SEL,
    Call.INTERRUPT_ACK: Register.INTERRUPT_ACK,
    Call.SET_STATUS: Register.STATUS,
}


class Model:
    """`devbc.hypervisor.model.Model` for a virtio control block.

    `queue_sizes`: the most entries of each queue there is. `config`: the device's own configuration, read
    from 0x100 of the MMIO bank on. `on_notify(queue, doorbell)` hears of notifications; `kicks` counts the
    times that userspace was woken for them.
    """

    def __init__(
        self,
        scratch: Any,
        host: Host,
        *,
        device_id: int = CONSOLE,
        features: int = VERSION_1 | NOTIFICATION_DATA,
        queue_sizes: Sequence[int] = (256, 64),
        config: bytes = b"",
        on_notify: Callable[[int, int], object] | None = None,
    ) -> None:
        self.scratch = scratch
        self.host = host
        self.device_id = device_id
        self.features = features
        self.queue_sizes = queue_sizes
        self.config = config
        self.on_notify = on_notify
        self.kicks = 0
        self.starts = 0

    def reset(self) -> None:
        """Power-on."""
        s = self.scratch
        s.device_id = self.device_id
        s.device_features[0] = self.features & _U32
        s.device_features[1] = self.features >> 32
        s.config_generation = 0
        for queue, size in zip(s.queue, [*self.queue_sizes, *[0] * len(s.queue)], strict=False):
            queue.size_max = size
        self._reset()

    # The driver's side.

    def read(self, bank: str, offset: int, size: int) -> int:
        if offset >= Register.CONFIG:
            return int.from_bytes(self.config[offset - Register.CONFIG :][:size], "little")
        return self._read(offset) if size == 4 else 0

    def write(self, bank: str, offset: int, size: int, value: int) -> None:
        """Accesses of other widths change nothing; neither do writes to the configuration."""
        if size == 4:
            self._write(offset, value)

    def call(self, number: int, arguments: Sequence[int]) -> int:
        """What the register does, or EINVAL for an argument that it cannot have; ENOSYS for other numbers."""
        if number in _READS:
            return self._read(_READS[Call(number)])
        if number in _WRITES:
            if arguments[0] > _U32:
                return EINVAL
            self._write(_WRITES[Call(number)], arguments[0])
            return 0
        s = self.scratch
        match number:
            case Call.GET_FEATURES:
                return int(s.device_features[1]) << 32 | int(s.device_features[0])
            case Call.SET_FEATURES:
                self._accept(0, arguments[0] & _U32)
                self._accept(1, arguments[0] >> 32)
                return 0
            case Call.RESET:
                self._reset()
                return 0
            case Call.QUEUE_NOTIFY:
                queue, following = arguments[:2]
                return 0 if following <= 0xFFFF and self._notify(queue, following) else EINVAL
        return ENOSYS

    def timer(self, name: str, deadline: int) -> None:
        raise ValueError(f"virtio_ctl has no timer `{name}`")

    def line(self, name: str, level: int) -> None:
        raise ValueError(f"virtio_ctl has no input `{name}`")

    def signal(self, name: str) -> None:
        """`kick`: queues have been notified. `started`: the driver is ready."""
        if name == "started":
            self.starts += 1
            return
        s = self.scratch
        # Cleared before it is acted on: who rings from here on signals again.
        rung, s.rung = s.rung, 0
        self.kicks += 1
        for index, queue in enumerate(s.queue):
            if rung >> index & 1 and self.on_notify is not None:
                self.on_notify(index, queue.doorbell)

    # The device's side.

    def used_buffer(self) -> None:
        """A used buffer notification (2.3); none before DRIVER_OK (2.1.2)."""
        if self.scratch.status & Status.DRIVER_OK:
            self._interrupt(Interrupt.USED_BUFFER)

    def change_config(self, config: bytes) -> None:
        """The device's configuration changes, and the driver is told (2.3, 2.5)."""
        self.config = config
        self.scratch.config_generation = self.scratch.config_generation + 1 & _U32
        if self.scratch.status & Status.DRIVER_OK:
            self._interrupt(Interrupt.CONFIGURATION)

    def fail(self) -> None:
        """The device has met an error from which only a reset leads out (2.1.2)."""
        self.scratch.status |= Status.NEEDS_RESET
        if self.scratch.status & Status.DRIVER_OK:
            self._interrupt(Interrupt.CONFIGURATION)

    # Registers.

    def _read(self, offset: int) -> int:
        s, queue = self.scratch, self._queue()
        match offset:
            case Register.MAGIC_VALUE:
                return MAGIC
            case Register.VERSION:
                return 2
            case Register.DEVICE_ID:
                return int(s.device_id)
            case Register.VENDOR_ID:
                return VENDOR
            case Register.DEVICE_FEATURES:
                word = s.device_features_sel
                return int(s.device_features[word]) if word < len(s.device_features) else 0
            case Register.QUEUE_NUM_MAX:
                return int(queue.size_max) if queue is not None else 0
            case Register.QUEUE_READY:
                return int(queue.ready) if queue is not None else 0
            case Register.INTERRUPT_STATUS:
                return int(s.interrupt_status)
            case Register.STATUS:
                return int(s.status)
            case Register.CONFIG_GENERATION:
                return int(s.config_generation)
        return 0

    def _write(self, offset: int, value: int) -> None:
        s, queue = self.scratch, self._queue()
        match offset:
            case Register.DEVICE_FEATURES_SEL:
                s.device_features_sel = value
            case Register.DRIVER_FEATURES:
                self._accept(s.driver_features_sel, value)
            case Register.DRIVER_FEATURES_SEL:
                s.driver_features_sel = value
            case Register.QUEUE_SEL:
                s.queue_sel = value
            case Register.QUEUE_NOTIFY:
                self._notify(value & 0xFFFF, value >> 16)
            case Register.INTERRUPT_ACK:
                s.interrupt_status &= ~value
                if not s.interrupt_status:
                    self.host.lower_line("irq")
            case Register.STATUS:
                self._set_status(value)
            case Register.QUEUE_READY if queue is not None and queue.size_max:
                queue.ready = value & 1
            case Register.QUEUE_NUM if queue is not None and not queue.ready:
                # A power of two (2.7); other sizes, and larger ones, are no driver's.
                if 0 < value <= queue.size_max and not value & value - 1:
                    queue.size = value
            case _ if offset in _ADDRESSES and queue is not None and not queue.ready:
                field, shift = _ADDRESSES[Register(offset)]
                kept = getattr(queue, field) & _U32 << (32 - shift)
                setattr(queue, field, kept | value << shift)

    def _queue(self) -> Any:
        """The queue that is selected, or None."""
        s = self.scratch
        return s.queue[s.queue_sel] if s.queue_sel < len(s.queue) else None

    def _accept(self, word: int, features: int) -> None:
        s = self.scratch
        if word < len(s.driver_features) and not s.status & Status.FEATURES_OK:
            s.driver_features[word] = features

    def _set_status(self, value: int) -> None:
        s = self.scratch
        if not value:
            self._reset()
            return
        new = s.status | value & Status.BY_DRIVER
        if not s.status & Status.FEATURES_OK and not self._acceptable():
            new &= ~Status.FEATURES_OK
        if not new & Status.FEATURES_OK:
            new &= ~Status.DRIVER_OK
        started = new & ~s.status & Status.DRIVER_OK
        s.status = new
        if started:
            self.signal("started")

    def _acceptable(self) -> bool:
        s = self.scratch
        offered = int(s.device_features[1]) << 32 | int(s.device_features[0])
        accepted = int(s.driver_features[1]) << 32 | int(s.driver_features[0])
        return not accepted & ~offered and bool(accepted & VERSION_1)

    def _notify(self, index: int, following: int) -> bool:
        """Whether the notification is for a queue that runs, and says what was negotiated."""
        s = self.scratch
        if not s.status & Status.DRIVER_OK or index >= len(s.queue) or not s.queue[index].ready:
            return False
        if following and not s.driver_features[1] << 32 & NOTIFICATION_DATA:
            return False
        s.queue[index].doorbell = following
        rung, s.rung = s.rung, s.rung | 1 << index
        if not rung:
            self.signal("kick")
        return True

    def _interrupt(self, event: Interrupt) -> None:
        self.scratch.interrupt_status |= event
        self.host.raise_line("irq")

    def _reset(self) -> None:
        """Device reset (2.4). Here queues would be stopped; nothing is served behind this model's back."""
        s = self.scratch
        s.status = 0
        s.driver_features[0] = s.driver_features[1] = 0
        s.device_features_sel = s.driver_features_sel = s.queue_sel = 0
        for queue in s.queue:
            queue.descriptors = queue.driver_area = queue.device_area = 0
            queue.size = queue.ready = queue.doorbell = 0
        s.rung = s.interrupt_status = 0
        self.host.lower_line("irq")
