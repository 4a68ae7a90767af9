"""What the engines are compared on: handlers of the shipped devices, in a state in which they are hot, and
programs that compute.

A subject is a row of accesses, each with its handler. Most are one access that may be repeated for ever. The
PIT's latch comes with the two reads that it is for; the UART's transmit ring is emptied every 64 characters,
as userspace would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from devbc.abi import AccessBinding, Op, Space, parse_binding
from devbc.program.program import Program
from devbc.program.verified import VerifiedHandler, VerifiedProgram


@dataclass(frozen=True, slots=True)
class Access:
    """One call of a handler: its section, the C function that does the same, and the exit's fields."""

    section: str
    c_name: str
    offset: int
    size: int
    value: int = 0


@dataclass(frozen=True, slots=True)
class Subject:
    """`prepare` brings the shared area into the state at hand. `clock`: whether its handlers ask for the
    time.

    `drain`: fields of the area that the loop copies once a row (from, to), as userspace does meanwhile.
    """

    name: str
    device: str
    accesses: tuple[Access, ...]
    clock: bool = False
    prepare: Callable[[Any], None] = lambda _: None
    drain: tuple[str, str] | None = None
    computes: bool = False
    #: Why it has no byte code for cpu v2. (LLVM ends the process if it is asked for it.)
    not_v2: str = ""


@dataclass(frozen=True, slots=True)
class GuestAccess:
    """An access as a guest makes it: to ports or to memory, at an address."""

    memory: bool
    write: bool
    address: int
    size: int
    value: int


#: Addresses of each device's banks: where a PC has them, or might.
PLACES: Final = {
    "acpi_pm_timer": {"pio": 0x608},
    "i8254": {"pio": 0x40, "speaker": 0x61},
    "uart16550": {"pio": 0x3F8, "mmio": 0x2000_0000},
    "hpet": {"mmio": 0xFED0_0000},
    "mc146818": {"pio": 0x70},
    "virtio_ctl": {"pio": 0x500, "mmio": 0x1000_0000},
}


def guest_accesses(subject: Subject) -> list[GuestAccess]:
    """A subject's row of accesses, its device in its place."""
    row = []
    for access in subject.accesses:
        binding = parse_binding(access.section)
        assert isinstance(binding, AccessBinding)
        address = PLACES[subject.device][binding.bank] + access.offset
        memory, write = binding.space is Space.MMIO, binding.op is Op.WRITE
        row.append(GuestAccess(memory, write, address, access.size, access.value))
    return row


#: The VM clock that subjects run at, in ns: a moment with nothing special about it.
NOW: Final = 12_345_678_901


def _pit(state: Any) -> None:
    channel = state.channel[2]
    channel.count, channel.access, channel.reading, channel.mode, channel.gate = 0x1_0000, 3, 3, 3, True
    channel.loaded_at = 1_000_000


def _hpet(state: Any) -> None:
    state.config, state.offset = 1, 123


def _rtc(state: Any) -> None:
    state.cmos[0x0A], state.cmos[0x0B] = 0x26, 0x02
    state.time_offset = 1_700_000_000 * 10**9
    state.index = 0
    state.update_at = (1 << 64) - 1


def _virtio(state: Any) -> None:
    state.status, state.driver_features[1] = 0x0F, 1 << 6 | 1
    state.queue[3].ready = 1


def _data(state: Any) -> None:
    for index in range(64):
        state.data[index] = (index * 37 + 11) & 255


_SDIV: Final = "it divides signed numbers, which byte code before v4 cannot"
_CONTROL: Final = "pio/write@0x3:1"
_COUNTER: Final = "pio/read@0x0-0x2:1"

SUBJECTS: Final = (
    Subject("nothing", "acpi_pm_timer", (Access("pio/write@0x0:1,2,4", "c_nothing", 0, 4),)),
    Subject(
        "PM timer read", "acpi_pm_timer", (Access("pio/read@0x0:1,2,4", "c_pmtimer_read", 0, 4),), clock=True
    ),
    Subject("PIT counter read", "i8254", (Access(_COUNTER, "c_pit_counter_read", 2, 1),), True, _pit),
    Subject(
        "PIT latch, two reads",
        "i8254",
        (
            Access(_CONTROL, "c_pit_control_write", 3, 1, 0x80),
            Access(_COUNTER, "c_pit_counter_read", 2, 1),
            Access(_COUNTER, "c_pit_counter_read", 2, 1),
        ),
        True,
        _pit,
    ),
    Subject("UART line status", "uart16550", (Access("pio/read@0x5:1", "c_uart_lsr_read", 5, 1),)),
    Subject(
        "UART transmit",
        "uart16550",
        (Access("pio/write@0x0:1", "c_uart_data_write", 0, 1, 0x41),) * 64,
        drain=("tx_head", "tx_tail"),
    ),
    Subject(
        "HPET counter read",
        "hpet",
        (Access("mmio/read@0xf0:4,8", "c_hpet_counter_read", 0xF0, 8),),
        True,
        _hpet,
    ),
    Subject(
        "RTC seconds read",
        "mc146818",
        (Access("pio/read@0x1:1", "c_rtc_data_read", 1, 1),),
        True,
        _rtc,
        not_v2=_SDIV,
    ),
    Subject(
        "virtio doorbell",
        "virtio_ctl",
        (Access("mmio/write@0x50:4", "c_doorbell_write", 0x50, 4, 0x1234_0003),),
        prepare=_virtio,
    ),
    Subject("primes below 128", "compute", (Access("mmio/read@0x0:4", "c_primes", 0, 4),), computes=True),
    Subject(
        "CRC-32 of 64 B", "compute", (Access("mmio/read@0x4:4", "c_crc", 4, 4),), False, _data, computes=True
    ),
    Subject(
        "FNV-1a of 64 B", "compute", (Access("mmio/read@0x8:8", "c_hash", 8, 8),), False, _data, computes=True
    ),
)


def subject(name: str) -> Subject:
    return next(each for each in SUBJECTS if each.name == name)


def source(device: str) -> Path:
    """The `.dev` file of a subject's device."""
    from devbc.catalog import bundled_devices

    places = (bundled_devices(), Path(__file__).parent / "programs")
    return next(path for place in places if (path := place / device / f"{device}.dev").is_file())


@cache
def verified(device: str, cpu: str) -> VerifiedProgram:
    """A subject's device, compiled for a version of the instruction set and verified anew.

    Byte code for v2 has neither 32-bit jumps nor sign extension nor signed division: what runtimes have that
    stayed with the instruction set of 2017.
    """
    from devbc.program.elf import load_object
    from devbc.verifier import verify_program

    return verify_program(load_object(compiled(device, cpu), name=device))


@cache
def compiled(device: str, cpu: str) -> bytes:
    """The object of a subject's device, from the same LLVM IR for every version of the instruction set."""
    from llvmlite import binding

    from devbc_lang import compile_source

    path = source(device)
    module = compile_source(path.read_text(), str(path))
    if cpu == "v4":
        return module.object
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple("bpfel").create_target_machine(cpu=cpu, opt=2)
    parsed = binding.parse_assembly(module.ir)
    options = binding.create_pipeline_tuning_options(speed_level=2)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    data: bytes = machine.emit_object(parsed)
    return data


def handler(program: VerifiedProgram, section: str) -> VerifiedHandler:
    return next(each for each in program.handlers if each.handler.section == section)


class Area:
    """A shared area of one competitor's own, prepared for a subject, with the exits of its accesses."""

    def __init__(self, subject: Subject, program: Program, now: int = NOW) -> None:
        import ctypes

        from devbc.hypervisor.layouts import EXIT

        # Some slack before what native code reads and writes, as after a real area's header.
        self._bytes = (ctypes.c_char * max(8, len(program.scratch_image))).from_buffer_copy(
            program.scratch_image.ljust(8, b"\0")
        )
        self.address = ctypes.addressof(self._bytes)
        self.view: Any = program.scratch_type.from_buffer(self._bytes) if program.scratch_type else None
        subject.prepare(self.view)
        self.exits = [
            EXIT.struct(offset=each.offset, size=each.size, value=each.value) for each in subject.accesses
        ]
        rodata = program.rodata or b"\0"
        self._rodata = ctypes.create_string_buffer(rodata, len(rodata))
        self.rodata = ctypes.addressof(self._rodata)

    def field(self, name: str) -> int:
        """The address of a field of the area."""
        return self.address + int(getattr(type(self.view), name).offset)

    @property
    def image(self) -> bytes:
        return bytes(self._bytes)

    def exit_address(self, index: int) -> int:
        import ctypes

        return ctypes.addressof(self.exits[index])
