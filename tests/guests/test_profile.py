"""What a profile says of registers: against devices whose behaviour is known, and what resembles them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from devbc.abi import Op, Space
from devbc.catalog import load_machine
from devbc.cli.main import main
from devbc.guests.cost_profiles import PROFILES
from devbc.guests.profile import Profile, RegisterProfile, profile
from devbc.guests.read_classes import ReadClass
from devbc.guests.recording import Target
from devbc.guests.trace_formats.access import Access, Answered, Format, Trace, TraceBuilder
from devbc.guests.trace_formats.read import parse_trace, read_trace
from tests.shared import shared

BOOT = Path(__file__).parents[2] / "bench" / "traces" / "x86-pc-boot.tsv.gz"
SAMPLES = Path(__file__).parents[1] / "data" / "traces"
COSTS = PROFILES["vmx-2012"]


def made(accesses: Sequence[Access], *, jitter: int = 0, resolution: int = 1) -> Trace:
    builder = TraceBuilder()
    for each in accesses:
        builder.add(each)
    return Trace(
        "made", Format.RECORDING, builder.targets(), builder.target_of, builder.times, builder.vcpus,
        builder.values, builder.answered, builder.items, frozenset(builder.valueless),
        jitter=jitter, resolution=resolution,
    )  # fmt: skip


def access(time: int | None, op: str, address: int, value: int | None, **more: int) -> Access:
    target = Target(Space.MMIO, Op(op), address, more.pop("size", 4), "")
    return Access(time, 0, target, value, more.pop("items", 1), Answered(more.pop("answered", 0)))


def register(result: Profile, address: int, op: str = "read") -> RegisterProfile:
    return next(each for each in result.registers if (each.key.address, each.key.op) == (address, op))


def class_of(accesses: Sequence[Access], address: int = 0x10000, *, jitter: int = 0) -> ReadClass:
    verdict = register(profile(made(accesses, jitter=jitter), COSTS), address).verdict
    assert verdict is not None
    return verdict.read_class


# Recorded guests: what QEMU's devices are is known, and does not come from the values.


@cache
def recorded(name: str, machine: str) -> Profile:
    path = BOOT if name == BOOT.name else shared(f"traces/{name}.tsv.gz")
    return profile(read_trace(path), COSTS, load_machine(machine)[0] if machine else (), machine)


def class_in(result: Profile, address: int) -> ReadClass:
    verdict = register(result, address).verdict
    assert verdict is not None
    return verdict.read_class


@pytest.mark.parametrize(
    ("name", "address", "hz"),
    [
        (BOOT.name, 0x608, 3_579_545),
        (BOOT.name, 0xFED000F0, 100_000_000),
        (BOOT.name, 0xFEE00390, -62_500_000),  # the APIC's timer: 1 GHz divided by 16, counting down
        ("x86-pc-userland", 0x608, 3_579_545),
        ("x86-pc-userland", 0xFED000F0, 100_000_000),
        ("random/pmtimer-1", 0x608, 3_579_545),
        ("random/pmtimer-2", 0x608, 3_579_545),
    ],
)
def test_clocks_are_found(name: str, address: int, hz: int) -> None:
    verdict = register(recorded(name, ""), address).verdict
    assert verdict is not None
    assert verdict.read_class is ReadClass.CLOCK, verdict.evidence
    assert verdict.clock is not None
    assert verdict.clock.hz == pytest.approx(hz, rel=1e-3)
    assert abs(verdict.clock.hz - hz) <= verdict.clock.error_hz


def test_the_pm_timer_wraps_at_24_bits() -> None:
    verdict = register(recorded("random/pmtimer-1", ""), 0x608).verdict
    assert verdict is not None
    assert verdict.clock is not None
    assert (verdict.clock.bits, verdict.clock.wrapped) == (24, True)


def test_a_byte_register_with_a_counter_behind_it() -> None:
    """The i8254's channel 2, calibrated by Linux: low and high byte in turn, 1,193,182 Hz, counting down."""
    verdict = register(recorded(BOOT.name, "pc"), 0x42).verdict
    assert verdict is not None
    assert verdict.read_class is ReadClass.SIDE_EFFECT
    assert "low and high byte of a counter in turn" in verdict.evidence
    assert verdict.clock is not None
    assert abs(verdict.clock.hz + 1_193_182) <= verdict.clock.error_hz < 1_193_182 / 100


@pytest.mark.parametrize(
    ("name", "address", "read_class"),
    [
        ("x86-pc-userland", 0xFED000F4, ReadClass.CONSTANT),  # the upper half of a young counter
        ("x86-pc-userland", 0x3F9, ReadClass.STATE),  # interrupt enable
        ("random/uart-1", 0x3FF, ReadClass.STORAGE),  # scratch
        ("random/uart-1", 0x3FB, ReadClass.STORAGE),  # line control
        ("random/hpet-1", 0xFED00000, ReadClass.CONSTANT),  # capabilities
        ("arm64-virt-userland", 0x9000018, ReadClass.CONSTANT),  # PL011 flags, nothing to receive
        ("arm64-virt-userland", 0x9000030, ReadClass.STORAGE),  # PL011 control
        ("arm64-virt-userland", 0x801000C, ReadClass.SIDE_EFFECT),  # GIC: reading acknowledges the interrupt
        ("riscv64-virt-firmware", 0x10000005, ReadClass.CONSTANT),  # 16550 line status, nothing to receive
    ],
)
def test_registers_that_are_no_clocks(name: str, address: int, read_class: ReadClass) -> None:
    verdict = register(recorded(name, ""), address).verdict
    assert verdict is not None
    assert verdict.read_class is read_class, verdict.evidence


def test_no_device_that_answers_purely_is_suspected() -> None:
    """A handler that the verifier calls pure changes nothing: its register's reads have no effect."""
    from devbc.abi import AccessBinding
    from devbc.program.verified import HandlerClass

    devices, _ = load_machine("pc")
    pure = {
        spec.at[binding.bank] + offset
        for spec in devices
        for each in spec.verified.handlers
        if each.handler_class is HandlerClass.PURE
        and isinstance(binding := each.handler.binding, AccessBinding)
        if binding.op is Op.READ and binding.bank in spec.at
        for offset, _ in binding.accesses()
    }
    judged = 0
    for name in (BOOT.name, "random/rtc-1", "random/uart-1", "random/hpet-1", "random/pmtimer-1"):
        for each in recorded(name, "pc").registers:
            if each.owner.claimed and each.verdict and each.key.address in pure:
                assert each.verdict.read_class is not ReadClass.SIDE_EFFECT, (each.owner.name, each.verdict)
                judged += each.verdict.read_class is not ReadClass.UNDECIDED
    assert judged >= 20


def test_covered_is_what_a_replay_does_not_decline_for_want_of_a_handler() -> None:
    """The other way to know: the native loop's dispatch, on the same recording."""
    from devbc.engines.native_interpreter import InterpreterEngine
    from devbc.guests.recording import read_recording
    from devbc.hypervisor.layouts import Outcome
    from devbc.hypervisor.run import Run
    from devbc.hypervisor.vm import VM

    guest = read_recording(shared("traces/random/uart-1.tsv.gz"))
    devices, wires = load_machine("pc")
    vm = VM(devices, wires, rtc_base=guest.rtc_base)
    vm.attach(InterpreterEngine())
    run = Run(guest.accesses)
    vm.run(run)
    without = sum(each & 0x7F in (Outcome.NO_PROGRAM, Outcome.UNCLAIMED) for each in run.outcomes)
    assert recorded("random/uart-1", "pc").covered == len(guest) - without


# Made traces: each kind of register, and what resembles it.


def steadily(count: int, step: Callable[[int], int], value: Callable[[int], int]) -> Iterator[Access]:
    for index in range(count):
        yield access(step(index), "read", 0x10000, value(index))


@pytest.mark.parametrize("bits", [8, 16, 24, 32, 64])
@pytest.mark.parametrize("hz", [32_768, 1_193_182, 3_579_545, 24_000_000, 1_000_000_000])
def test_a_counter_of_any_width_and_rate(bits: int, hz: int) -> None:
    """Read at random moments, some of them close enough together for its wraps to be known."""
    chance = random.Random(bits * hz)
    turn = (1 << bits) / hz * 1e9
    time, reads = 0, []
    for _ in range(400):
        time += int(chance.choice((0.01, 0.1, 0.4)) * min(turn, 1e9) * chance.random()) + 5
        reads.append(access(time, "read", 0x10000, time * hz // 10**9 % (1 << bits), size=8))
    verdict = register(profile(made(reads), COSTS), 0x10000).verdict
    assert verdict is not None
    assert verdict.read_class is ReadClass.CLOCK, verdict.evidence
    assert verdict.clock is not None
    assert verdict.clock.hz == pytest.approx(hz, rel=1e-3)


def test_a_counter_behind_a_tracer() -> None:
    """Times of a host, in us and some us late: the rate is found all the same."""
    chance = random.Random(1)
    reads = []
    for index in range(3_000):
        time = index * 30_000 + chance.randrange(10_000)
        seen = (time + chance.randrange(1_000, 15_000)) // 1_000 * 1_000
        reads.append(access(seen, "read", 0x10000, time * 3_579_545 // 10**9 & 0xFFFFFF))
    assert class_of(reads, jitter=20_000) is ReadClass.CLOCK


def test_what_is_no_clock() -> None:
    chance = random.Random(2)
    noise = [chance.getrandbits(32) for _ in range(1_000)]
    walk = [sum(noise[:index]) & 0xFFFFFFFF for index in range(200)]
    counts_reads = list(range(1_000))
    moments = sorted(chance.sample(range(10**9), 1_000))
    for values in (noise, walk, [each & 0xF for each in noise], [each >> 31 for each in noise], counts_reads):
        reads = [access(time, "read", 0x10000, value) for time, value in zip(moments, values, strict=False)]
        assert class_of(reads) is not ReadClass.CLOCK


def test_without_times_there_are_no_clocks() -> None:
    reads = [access(None, "read", 0x10000, 35 * index) for index in range(100)]
    result = profile(made(reads), COSTS)
    verdict = register(result, 0x10000).verdict
    assert verdict is not None
    assert verdict.read_class is ReadClass.SIDE_EFFECT
    assert "without times a clock cannot be told" in verdict.evidence
    assert (result.span, result.registers[0].busiest, result.registers[0].interval) == (None, None, None)


def test_a_fifo() -> None:
    """Each read takes a byte, nothing is written: text, not a counter."""
    text = b"the quick brown fox jumps over the lazy dog"
    reads = [access(1_000 * index, "read", 0x10000, byte) for index, byte in enumerate(text)]
    assert class_of(reads) is ReadClass.SIDE_EFFECT


def test_clear_on_read() -> None:
    """An interrupt status: 0 mostly, sometimes a bit for one read."""
    reads = [access(1_000 * index, "read", 0x10000, 4 if index % 10 == 3 else 0) for index in range(100)]
    assert class_of(reads) is ReadClass.SIDE_EFFECT


def test_a_status_that_time_changes() -> None:
    """Busy for a while, then not: no read and no write did it."""
    reads = [access(1_000 * index, "read", 0x10000, index // 20 % 2) for index in range(100)]
    assert class_of(reads) is ReadClass.BY_ITSELF


def test_storage_and_state() -> None:
    chance = random.Random(3)
    storage: list[Access] = []
    masked: list[Access] = []
    state: list[Access] = []
    indexed: list[Access] = []
    config = [chance.getrandbits(8) for _ in range(8)]
    for index in range(100):
        value, when = chance.getrandbits(32), 1_000 * index
        if index % 3 == 0:
            for each in (storage, masked, state):
                each.append(access(when, "write", 0x10000 if each is not state else 0x10004, value))
            last = value
        storage.append(access(when, "read", 0x10000, last))
        masked.append(access(when, "read", 0x10000, last & 0xFF | 0x8000))
        state.append(access(when, "read", 0x10000, last.bit_count()))
        # An index and a data register: no read without a write before it.
        indexed += [
            access(when, "write", 0x10004, value & 7),
            access(when, "read", 0x10000, config[value & 7]),
        ]
    assert class_of(storage) is ReadClass.STORAGE
    assert class_of(masked) is ReadClass.STORAGE
    assert class_of(state) is ReadClass.STATE
    assert class_of(indexed) is ReadClass.STATE


def test_few_reads_decide_nothing() -> None:
    assert class_of([access(each, "read", 0x10000, 1) for each in range(7)]) is ReadClass.UNDECIDED
    assert class_of([access(each, "read", 0x10000, 1) for each in range(8)]) is ReadClass.CONSTANT


def test_values_that_the_trace_lacks_decide_nothing() -> None:
    reads = [access(each, "read", 0x10000, None if each == 50 else 1) for each in range(100)]
    assert class_of(reads) is ReadClass.UNDECIDED


def test_ports_and_regions_that_touch_are_one_device() -> None:
    """The RTC's index is a region of its own in QEMU, and decides what the data port returns."""
    chance, values = random.Random(4), [3, 1, 4, 1, 5, 9, 2, 6]
    lines = []
    for _ in range(50):
        index = chance.randrange(8)
        for op, port, value, region in (
            ("write", 0x70, index, "rtc-index"),
            ("read", 0x71, values[index], "rtc"),
        ):
            lines.append(
                f"memory_region_ops_{op} cpu 0 addr {port:#x} value {value:#x} size 1 name '{region}'\n"
            )
    result = profile(parse_trace(lines, name="test"), COSTS)
    assert register(result, 0x71).owner.device == register(result, 0x70, "write").owner.device
    assert class_in(result, 0x71) is ReadClass.STATE


# Figures.


def test_counts_and_density() -> None:
    times = [0, 100, 999_999, 1_000_000, 5_000_000]
    result = profile(made([access(time, "write", 0x10000, time % 2) for time in times]), COSTS)
    (one,) = result.registers
    assert (one.exits, one.values, one.busiest, one.interval) == (5, 2, 3, (100 + 999_899) / 2)


def test_modelled_time() -> None:
    """Three accesses of a trace in which the kernel answered one, by hand."""
    trace = made([access(each, "read", 0x10000, 1, answered=1 + (each > 0)) for each in range(9)])
    result = profile(trace, PROFILES["arm-vgic"])
    assert (result.in_kernel, result.covered, result.exits) == (1, 0, 9)
    assert result.without_programs == 451 + 8 * 1_683
    assert result.with_programs == result.without_programs
    assert result.with_pure_reads == result.with_everything == 9 * 451
    assert PROFILES["vmx-2012"].saved_ns == pytest.approx((20_574 - 7_237) / 2.5)


def test_every_exit_is_in_one_register() -> None:
    result = recorded(BOOT.name, "pc")
    assert sum(each.exits for each in result.registers) == result.exits == 484_222
    assert result.covered / result.exits == pytest.approx(0.9916, abs=1e-4)
    assert [each.exits for each in result.registers] == sorted(
        (e.exits for e in result.registers), reverse=True
    )


# The command.


def test_the_command_on_each_sample(capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(SAMPLES.glob("*.txt")):
        assert main(["profile", str(path), "--explain", "--all"]) == 0
        captured = capsys.readouterr()
        assert "device time, modelled by vmx-2012: 7,237 cycles in the kernel" in captured.out
        assert "at an assumed 2.5 GHz" in captured.out
        assert captured.err == ""


def test_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    path = SAMPLES / "trace-cmd.txt"
    assert main(["profile", "--json", "--profile", "arm-vgic", "--machine", "none", str(path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["modelled"]["profile"]["name"] == "arm-vgic"
    assert (result["exits"], result["answered_in_kernel"], result["lost_event_lines"]) == (6, 2, 1)
    assert {each["name"] for each in result["registers"]} >= {"pio 0x608", "mmio 0xfed000f0"}


def test_a_machine_names_and_covers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--json", str(SAMPLES / "trace-cmd.txt")]) == 0
    registers = {each["name"]: each for each in json.loads(capsys.readouterr().out)["registers"]}
    # The kernel answered the PIT's control word itself: nothing is left to cover.
    assert (registers["pmtimer.tmr_val"]["covered"], registers["pit.control"]["covered"]) == (1, 0)
    assert registers["pit.control"]["answered_in_kernel"] == 1


def test_warnings_and_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = "kvm_pio: pio_read at 0x71 size 1 count 1 val 0x1\n"
    path = tmp_path / "trace.txt"
    path.write_text(good * 2 + "kvm_pio: pio_read at\n")
    assert main(["profile", "--machine", "none", str(path)]) == 0
    assert "warning[H021]" in capsys.readouterr().err
    path.write_text("nothing\n")
    assert main(["profile", str(path)]) == 1
    assert "error[H020]" in capsys.readouterr().err


def test_names_in_a_trace_do_not_speak_to_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("memory_region_ops_read cpu 0 addr 0x71 value 0x1 size 1 name '[bold]a\x07\x9b31m'\n")
    assert main(["profile", "--machine", "none", str(path)]) == 0
    out = capsys.readouterr().out
    assert "[bold]a" in out
    assert not set(out) & {"\x07", "\x9b", "\x1b"}
