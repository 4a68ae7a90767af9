"""What clients and the service say to each other: requests, replies, and their version.

A client sends requests, the service answers each with one reply, in order. Messages are MessagePack by
msgspec, which checks every type while it decodes; classes are told apart by their names, and unknown fields
are refused. Descriptors travel beside a message (`framing.py`); which of them a message has is said with it.

    Hello -> Welcome      then any of the others      -> its reply, or Refused

Not here: what a request does (`session.py`), how bytes become messages (`framing.py`).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from devbc import limits

#: Raised whenever a message changes; a service answers no other.
VERSION: Final = 2


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A message; its class's name is its tag."""


#: What clients name, and what they upload.
Name = Annotated[str, msgspec.Meta(max_length=limits.NAME_BYTES)]
Object = Annotated[bytes, msgspec.Meta(max_length=limits.OBJECT_BYTES)]
Policy = Annotated[str, msgspec.Meta(max_length=limits.POLICY_BYTES)]

# Requests.


class Hello(Message, frozen=True):
    """The first message: who speaks, and which protocol."""

    version: int
    name: Name


class CreateVm(Message, frozen=True):
    """Create a VM. One that `persists` outlives its client's connection; clients of its user may open it."""

    name: Name
    live: bool = False
    rtc_base: int = 0
    persists: bool = False
    exits_unclaimed: bool = False


class OpenVm(Message, frozen=True):
    """Work on a VM that persists, by its name or number. A live one's reply is like CreateVm's."""

    vm: Name


class DestroyVm(Message, frozen=True):
    vm: int


class ListVms(Message, frozen=True):
    """All VMs that the client may work on."""


class AddDevice(Message, frozen=True):
    """Verify a program and put a device into a VM; its scratch memfd comes with the reply."""

    vm: int
    name: Name
    object: Object
    at: dict[Name, int]
    policy: Policy = ""  # TOML, as `devbc verify --policy` takes it


class OpenDevice(Message, frozen=True):
    """A device that is there; its scratch memfd comes with the reply."""

    vm: int
    device: Name


class ListDevices(Message, frozen=True):
    """The devices of a VM, without their programs' objects."""

    vm: int


class Attach(Message, frozen=True):
    """Let a device's program answer, on an engine: `jit` or `interp`."""

    vm: int
    device: Name
    engine: Name = "jit"


class Detach(Message, frozen=True):
    vm: int
    device: Name


class Replace(Message, frozen=True):
    """Put another program in place of a device's, while vCPUs run."""

    vm: int
    device: Name
    object: Object
    engine: Name = "jit"
    policy: Policy = ""


class Wire(Message, frozen=True):
    """Lead an output line to an input `device.input` or to the guest's line `guest.N`."""

    vm: int
    source: Name
    target: Name


class Notify(Message, frozen=True):
    """Let a signal, or rising edges of an output line, write the eventfd that comes with this request.

    Each has one eventfd: the next takes the place of the last. So has each line of `Resample`.
    """

    vm: int
    source: Name
    signal: bool = True


class Resample(Message, frozen=True):
    """Let the guest's acknowledgement of a level-triggered line write the eventfd that comes with this."""

    vm: int
    line: int


U32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class Effects(Message, frozen=True):
    """What userspace asks for when no exit is being answered: masks of a device's lines and timers."""

    vm: int
    device: Name
    raise_: U32 = 0
    lower: U32 = 0
    arm: U32 = 0
    cancel: U32 = 0
    deadlines: Annotated[tuple[int, ...], msgspec.Meta(max_length=limits.TIMERS)] = ()


class SetLevelTriggered(Message, frozen=True):
    """Which of the guest's lines stay pending while they are high, a bit each."""

    vm: int
    lines: int


class Acknowledge(Message, frozen=True):
    """The guest's end of interrupt."""

    vm: int
    line: int


class CreateVcpu(Message, frozen=True):
    """A vCPU and a ring for its guest's accesses: page, guest memory and eventfd come with the reply.

    `capacity`: accesses of the ring, a power of two. `turns`: accesses carry their place among all vCPUs'.
    `recorded`: reads carry what was recorded. `spins`: turns of waiting for the client before it sleeps.
    """

    vm: int
    capacity: int
    turns: bool = False
    arguments: bool = False
    recorded: bool = False
    spins: int = 0


class StartVcpu(Message, frozen=True):
    vm: int
    vcpu: int


class StopVcpu(Message, frozen=True):
    """Stop a vCPU and wait until it stands; it can be started again. vCPU 0 of a live VM is its timers'."""

    vm: int
    vcpu: int


class GetFigures(Message, frozen=True):
    vm: int


class Inquire(Message, frozen=True):
    """What a read would return, without its effects."""

    vm: int
    space: Name
    address: int
    size: int


class Save(Message, frozen=True):
    """A VM's state; no vCPU may run."""

    vm: int


class Restore(Message, frozen=True):
    vm: int
    state: bytes


# Replies.


class Welcome(Message, frozen=True):
    """`token`: what this client's processes put into the lock of a device that they hold."""

    version: int
    token: int
    pid: int


class Done(Message, frozen=True):
    """It is done, and there is nothing to say."""


class VmInfo(Message, frozen=True):
    """A VM. Of a live one CreateVm's reply brings page and eventfd of its timers' thread, its vCPU 0."""

    vm: int
    name: str
    live: bool
    persists: bool
    client: str
    devices: int
    vcpus: int
    now: int
    rtc_base: int
    turn: int  # accesses done by vCPUs that take turns
    guest_lines: int
    guest_pending: int
    guest_interrupts: int


class Vms(Message, frozen=True):
    vms: tuple[VmInfo, ...]


class DeviceInfo(Message, frozen=True):
    """A device. `object`: the program that is in place, as it was uploaded; a list leaves it out."""

    vm: int
    name: str
    index: int
    at: dict[str, int]
    engine: str  # empty: no program is attached
    abandoned: bool
    scratch_bytes: int
    object: bytes


class Devices(Message, frozen=True):
    devices: tuple[DeviceInfo, ...]


class VcpuInfo(Message, frozen=True):
    """A vCPU, and the layout of its guest's memory: byte offsets of each part, 0 if it has none."""

    vm: int
    index: int
    capacity: int


class HandlerFigures(Message, frozen=True):
    """What became of a handler's runs.

    `guard`: what a run needs, and so why others were `contended`: the device's lock was held, the state that
    it reads was being written, or, without either, changes of lines had filled their queue. `ticks`: exits by
    the logarithm of their cycles.
    """

    device: str
    section: str
    guard: str  # `lock`, `sequence` or `none`
    handled: int
    declined: int
    contended: int
    ticks: tuple[int, ...]


class Unanswered(Message, frozen=True):
    """Accesses of a device that no handler was run for, by why."""

    no_handler: int = 0  # the program in place has none that is bound to them
    unloaded: int = 0  # no program was attached
    abandoned: int = 0  # the program was detached when a client died with the device's lock


class Figures(Message, frozen=True):
    """`unanswered`: by device; `period_ns`: of one cycle, 0 if exits are not timed."""

    handlers: tuple[HandlerFigures, ...]
    unanswered: dict[str, Unanswered]
    period_ns: float


class Value(Message, frozen=True):
    """`value` is None if no program answers."""

    value: int | None


class State(Message, frozen=True):
    state: bytes


class Restored(Message, frozen=True):
    """What did not fit, a diagnostic each (JSON, as `devbc --json` prints them)."""

    misfits: tuple[bytes, ...]


class Refused(Message, frozen=True):
    """The request was not carried out, or not to its end; each diagnostic as JSON."""

    diagnostics: tuple[bytes, ...]


Request = (
    Hello | CreateVm | OpenVm | DestroyVm | ListVms | AddDevice | OpenDevice | ListDevices | Attach | Detach
    | Replace | Wire | Notify | Resample | SetLevelTriggered | Acknowledge | CreateVcpu | StartVcpu | StopVcpu
    | Effects | GetFigures | Inquire | Save | Restore
)  # fmt: skip
Reply = (
    Welcome | Done | VmInfo | Vms | DeviceInfo | Devices | VcpuInfo | Figures | Value | State | Restored
    | Refused
)  # fmt: skip

_encoder: Final = msgspec.msgpack.Encoder()
decode_request: Final = msgspec.msgpack.Decoder(Request).decode
decode_reply: Final = msgspec.msgpack.Decoder(Reply).decode


def encode(message: Message) -> bytes:
    return _encoder.encode(message)
