"""Mistakes that hand-written in-kernel devices had, as programs: refused, or harmless by definition.

Each is shown three ways: the device written with the mistake, the same without it, and the shipped device
that it would have hit, run on both engines with everything in its shared area that userspace might put there.
"""

from __future__ import annotations

import ctypes
import random
from functools import cache
from itertools import product
from typing import Any

import pytest

from devbc.abi import EXIT_FIELDS, EXIT_SIZE, AccessBinding, Op, Verdict
from devbc.diagnostics import Rejected
from devbc.engines.clock import virtual_page
from devbc.engines.interpreter import Fault, FaultKind, State, run_handler
from devbc.engines.jit import JitProgram, compile_program
from devbc.isa.insn import decode
from devbc.program.verified import VerifiedHandler, VerifiedProgram
from devbc.verifier import errors, verify_program
from tests.devices.bench import new_area, program
from tests.lang.machine import Device

NOW = 123_456_789

# CVE-2010-0309: the PIT has three counters and a control word at offset 3, which can only be written. KVM
# took the two lowest bits of the port for the counter's number, and a read of port 0x43 used a fourth one.
COUNTERS = """
device pit {{
    struct Channel {{ count: u32, latched: u16, mode: u8 }}
    state {{ channel: [Channel; 3] }}
    bank pio[4] {{
        register counter[{count}] at 0 : u8 {{ read(i) {{ return u8(state.channel[i].latched); }} }}
    }}
}}"""

# CVE-2015-7513: a counter's reload value was set to 0 from outside, and the kernel divided by it. In BPF
# x / 0 is 0; an engine that hands the division to the processor must see to that.
DIVISION = """
device timer {
    state { reload: u32, signed_reload: i64 }
    bank mmio[0x20] {
        register period at 0 : u64 { read { return now() / u64(state.reload); } }
        register phase at 8 : u64 { read { return now() % u64(state.reload); } }
        register quotient at 0x10 : u64 { read { return u64(i64(now()) / state.signed_reload); } }
        register scaled at 0x18 : u64 { read { return muldiv(now(), 1000, state.reload); } }
    }
}"""

# CVE-2019-14821: the ring of coalesced MMIO lies in memory that userspace can write, with its indices. KVM
# used the index as it stood there, and userspace chose where in the kernel the entry was written.
RING = """
device doorbell {{
    const ENTRIES: u32 = 4;
    struct Entry {{ address: u64, value: u64 }}
    state {{ first: u32, last: u32, entries: [Entry; ENTRIES] }}
    bank mmio[4] {{
        register ring at 0 : u32 {{
            write(v) {{
                {check}
                state.entries[{index}].value = u64(v);
                state.last = (last + 1) % ENTRIES;
            }}
        }}
    }}
}}"""
RINGS = {
    "unchecked": ("let last = state.last;", "last"),
    "full is not outside": (
        "let last = state.last; if (last + 1) % ENTRIES == state.first { decline; }",
        "last",
    ),
    "checked, and loaded again": (
        "let last = state.last; if last >= ENTRIES { decline; }",
        "state.last",
    ),
    "one too many": ("let last = state.last; if last > ENTRIES { decline; }", "last"),
}
LEGAL_RINGS = {
    "checked": ("let last = state.last; if last >= ENTRIES { decline; }", "last"),
    "masked": ("let last = state.last;", "last[1:0]"),
    "remainder": ("let last = state.last;", "last % ENTRIES"),
}


def first_code(device: Device) -> str:
    with pytest.raises(Rejected) as caught:
        verify_program(device.program)
    return caught.value.diagnostics[0].code.id


def test_reading_a_write_only_control_word() -> None:
    device = Device(COUNTERS.format(count=4))
    assert first_code(device) == errors.OUT_OF_BOUNDS.id
    with pytest.raises(Fault) as caught:
        device.read(3, 1)
    assert caught.value.kind is FaultKind.MEMORY
    verified = verify_program(Device(COUNTERS.format(count=3)).program)
    # Offset, two extensions or a mask, product, address, sum, load, store, verdict, exit: no branch.
    assert [each.worst_case for each in verified.handlers] == [len(verified.handlers[0].insns)]


def test_the_control_word_of_the_shipped_pit_reads_no_counter() -> None:
    control = handler_at("i8254", Op.READ, 3)
    assert not control.scratch_read
    assert len({exit_ for _, exit_, _ in runs("i8254", control)}) == 1


def test_division_by_a_number_that_is_zero() -> None:
    device = Device(DIVISION)
    verified = verify_program(device.program)
    native = compile_program(verified)
    expected = {0: 0, 8: NOW, 0x10: 0, 0x18: 0}
    for handler in verified.handlers:
        assert isinstance(handler.handler.binding, AccessBinding)
        offset = handler.handler.binding.lo
        for run in (interpreted, compiled):
            verdict, exit_, _ = run(verified, native, handler, offset, bytes(len(device.scratch)))
            field = EXIT_FIELDS["value"]
            value = int.from_bytes(exit_[field.offset : field.end], "little")
            assert (verdict, value) == (Verdict.HANDLED, expected[offset])


def test_signed_division_that_overflows() -> None:
    """-2**63 / -1 traps on x86 as a division by 0 does."""
    text = DIVISION.replace("i64(now())", "(-0x7fff_ffff_ffff_ffff - 1)")
    device = Device(text)
    verified = verify_program(device.program)
    native = compile_program(verified)
    scratch = bytearray(len(device.scratch))
    scratch[8:16] = b"\xff" * 8
    handler = next(each for each in verified.handlers if "@0x10" in each.handler.section)
    outcomes = {run(verified, native, handler, 0x10, bytes(scratch)) for run in (interpreted, compiled)}
    assert len(outcomes) == 1
    ((verdict, exit_, _),) = outcomes
    assert verdict is Verdict.HANDLED
    assert int.from_bytes(exit_[8:16], "little") == 1 << 63


def test_the_shipped_pit_with_counts_of_zero() -> None:
    """Every mode and access of each counter, with a count of 0: both engines answer, and answer the same."""
    area = new_area("i8254")
    for mode, access in product(range(8), range(5)):
        for channel in area.channel:
            channel.count, channel.mode = 0, mode
            channel.access = channel.reading = channel.writing = access
        agree("i8254", bytes(area))


@pytest.mark.parametrize("name", RINGS)
def test_a_ring_index_from_shared_memory(name: str) -> None:
    check, index = RINGS[name]
    device = Device(RING.format(check=check, index=index))
    assert first_code(device) == errors.OUT_OF_BOUNDS.id
    assert FaultKind.MEMORY in {ring_fault(device, moment) for moment in range(20)}


def ring_fault(device: Device, moment: int) -> FaultKind | None:
    """What happens if userspace moves the index out of the ring before so many instructions have run."""
    device.state.last = 3

    def userspace(state: State) -> None:
        if state.steps == moment:
            device.state.last = 4

    insns = decode(device.program.handlers[0].code)
    try:
        run_handler(insns, new_exit(0, 4), device.scratch, b"", lambda: NOW, observer=userspace)
    except Fault as fault:
        return fault.kind
    return None


@pytest.mark.parametrize("name", LEGAL_RINGS)
def test_a_ring_index_that_is_loaded_once(name: str) -> None:
    check, index = LEGAL_RINGS[name]
    device = Device(RING.format(check=check, index=index))
    assert {ring_fault(device, moment) for moment in range(20)} == {None}
    verified = verify_program(device.program)
    assert verified.handlers[0].may_decline is (name == "checked")


def test_the_shipped_uart_with_any_indices() -> None:
    area = new_area("uart16550")
    for head, count in product((0, 1, 15, 16, 17, 128, 255), repeat=2):
        area.rx_head, area.rx_count = head, count
        area.tx_head, area.tx_tail = head * 0x0101_0101, count * 0x0101_0101
        for area.fcr, area.lcr in product((0, 1), (0x03, 0x83)):
            agree("uart16550", bytes(area))


# Both engines, with the shared area between guards.


@cache
def native(name: str) -> JitProgram:
    return compile_program(program(name))


def handler_at(name: str, op: Op, offset: int) -> VerifiedHandler:
    return next(
        each
        for each in program(name).handlers
        if isinstance(each.handler.binding, AccessBinding)
        and (each.handler.binding.op, each.handler.binding.lo) == (op, offset)
    )


def runs(name: str, handler: VerifiedHandler) -> list[tuple[Verdict, bytes, bytes]]:
    """One handler on areas full of random bytes."""
    rng = random.Random(name)
    size = len(program(name).program.scratch_image)
    return [interpreted(program(name), native(name), handler, 0, rng.randbytes(size)) for _ in range(20)]


def agree(name: str, scratch: bytes) -> None:
    """Each access of the device's registers, on both engines."""
    for handler in program(name).handlers:
        if isinstance(handler.handler.binding, AccessBinding):
            for offset, _ in handler.handler.binding.accesses():
                results = [
                    run(program(name), native(name), handler, offset, scratch)
                    for run in (interpreted, compiled)
                ]
                assert results[0] == results[1]


def new_exit(offset: int, size: int) -> bytearray:
    exit_ = bytearray(EXIT_SIZE)
    for name, value in (("offset", offset), ("size", size), ("value", 0x55)):
        field = EXIT_FIELDS[name]
        exit_[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    return exit_


def interpreted(
    verified: VerifiedProgram, _: JitProgram, handler: VerifiedHandler, offset: int, scratch: bytes
) -> tuple[Verdict, bytes, bytes]:
    exit_, area = new_exit(offset, 1), bytearray(scratch)
    verdict = run_handler(handler, exit_, area, verified.program.rodata, lambda: NOW)
    return verdict, bytes(exit_), bytes(area)


def compiled(
    verified: VerifiedProgram, native: JitProgram, handler: VerifiedHandler, offset: int, scratch: bytes
) -> tuple[Verdict, bytes, bytes]:
    guard = b"\xa5" * 4096
    exit_ = ctypes.create_string_buffer(bytes(new_exit(offset, 1)), EXIT_SIZE)
    area: Any = (ctypes.c_uint64 * ((2 * len(guard) + len(scratch)) // 8 + 1))()
    start = ctypes.addressof(area)
    ctypes.memmove(start, guard + scratch + guard, 2 * len(guard) + len(scratch))
    clock = virtual_page(NOW)
    verdict = native.function(handler)(
        exit_, start + len(guard), verified.program.rodata or b"\0", ctypes.byref(clock)
    )
    after = ctypes.string_at(start, 2 * len(guard) + len(scratch))
    assert after.startswith(guard)
    assert after.endswith(guard)
    return Verdict(verdict), exit_.raw, after[len(guard) : -len(guard)]
