"""Traces that other tools print: samples by hand, recordings written and read back, and text of no tool."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devbc.abi import Op, Space
from devbc.diagnostics import Rejected
from devbc.guests.recording import Target, read_recording
from devbc.guests.trace_formats.access import Access, Answered, Format, Trace
from devbc.guests.trace_formats.read import of_recording, parse_trace, read_trace
from tests.shared import shared

#: Accesses of a recording that are written and read back.
FIRST = 20_000
SAMPLES = Path(__file__).parents[1] / "data" / "traces"
PIO, MMIO, READ, WRITE = Space.PIO, Space.MMIO, Op.READ, Op.WRITE
UNKNOWN, KERNEL, USERSPACE = Answered.UNKNOWN, Answered.KERNEL, Answered.USERSPACE


def test_qemu_log() -> None:
    trace = read_trace(SAMPLES / "qemu-log.txt")
    assert trace.format is Format.QEMU_LOG
    assert list(trace.accesses()) == [
        Access(0, 0, Target(PIO, WRITE, 0x70, 1, "rtc-index"), 0x8F, answered=USERSPACE),
        Access(4_000, 0, Target(PIO, READ, 0x71, 1, "rtc"), 0, answered=USERSPACE),
        Access(12_000, 1, Target(MMIO, READ, 0xFED000F0, 4, "hpet"), 0x1234, answered=USERSPACE),
        Access(20_000, None, Target(MMIO, WRITE, 0xFEE01004, 4, "apic msi's"), 0x1FF, answered=USERSPACE),
    ]
    assert (trace.others, trace.resolution, trace.diagnostics) == (4, 1_000, ())


def test_qemu_log_of_old_versions() -> None:
    trace = read_trace(SAMPLES / "qemu-log-old.txt")
    assert list(trace.accesses()) == [
        Access(None, 0, Target(PIO, READ, 0x3CC, 1, "0x562fdfbb3820"), 0x67, answered=USERSPACE),
        Access(None, 0, Target(PIO, WRITE, 0x3D4, 2, "0x562fdfbd2f00"), 0x70E, answered=USERSPACE),
    ]
    assert not trace.timed


def test_trace_cmd() -> None:
    trace = read_trace(SAMPLES / "trace-cmd.txt")
    assert trace.format is Format.TRACE_CMD
    assert list(trace.accesses()) == [
        Access(0, 0, Target(PIO, READ, 0x608, 4, ""), 0x5F3A11, answered=USERSPACE),
        Access(10_000, 0, Target(PIO, WRITE, 0x43, 1, ""), 0xB0, answered=KERNEL),
        Access(20_000, 0, Target(PIO, WRITE, 0x3F8, 1, ""), 0x41, answered=USERSPACE),
        Access(40_000, None, Target(MMIO, READ, 0xFED000F0, 4, ""), 0x1234, answered=USERSPACE),
        Access(50_000, None, Target(MMIO, READ, 0xFEE00390, 4, ""), 0x77, answered=KERNEL),
        Access(60_000, None, Target(PIO, READ, 0x1F0, 2, ""), None, 256, answered=USERSPACE),
    ]
    # Two comments, cpus=, entry, exit, four exits to userspace, an announced read, lost events, half a line.
    assert (trace.others, trace.lost, trace.diagnostics) == (12, 1, ())


def test_perf_script() -> None:
    trace = read_trace(SAMPLES / "perf-script.txt")
    assert trace.format is Format.PERF_SCRIPT
    assert list(trace.accesses()) == [
        Access(0, 0, Target(PIO, READ, 0x3FD, 1, ""), 0x60, answered=UNKNOWN),
        Access(20_002, 1, Target(MMIO, WRITE, 0x8_0000_0000, 8, ""), (1 << 64) - 1, answered=UNKNOWN),
        Access(40_004, None, Target(MMIO, READ, 0xFE003000, 1, ""), 7, answered=UNKNOWN),
    ]
    assert (trace.others, trace.resolution) == (5, 1)


# Writing what the tools print, to read it back. The formats' definitions are named in the samples.


def qemu_line(access: Access) -> str:
    target, time = access.target, access.time or 0
    stamp = f"77@{time // 10**9 + 1_700_000_000}.{time % 10**9 // 1000:06}:"
    return (
        f"{stamp}memory_region_ops_{target.op} cpu {access.vcpu} mr 0x5555 addr {target.address:#x} "
        f"value {access.value:#x} size {target.size} name '{target.region}'\n"
    )


def _payload(access: Access) -> tuple[str, str]:
    target = access.target
    if target.space is PIO:
        return "kvm_pio", (
            f"pio_{target.op} at {target.address:#x} size {target.size} count 1 val {access.value:#x} "
        )
    return "kvm_mmio", f"mmio {target.op} len {target.size} gpa {target.address:#x} val {access.value:#x}"


def trace_cmd_line(access: Access) -> str:
    event, payload = _payload(access)
    time, comm = access.time or 0, f"CPU {access.vcpu}/KVM"
    stamp, thread = f"{time // 10**9:5}.{time % 10**9:09}", 4000 + (access.vcpu or 0)
    return f"{comm:>16}-{thread:<5} [{access.vcpu:03}] d..1. {stamp}: {event + ':':<21} {payload}\n"


def perf_line(access: Access) -> str:
    event, payload = _payload(access)
    time, comm = access.time or 0, f"CPU {access.vcpu}/KVM"
    stamp, thread = f"{time // 10**9:5}.{time % 10**9:09}", 4000 + (access.vcpu or 0)
    return f"{comm:>16} {thread:5} [{access.vcpu:03}] {stamp}: {'kvm:' + event:>20}: {payload}\n"


#: Each with the times' resolution in ns, and whether the region has a name.
WRITERS: dict[str, tuple[Callable[[Access], str], int, bool]] = {
    "qemu": (qemu_line, 1_000, True),
    "trace-cmd": (trace_cmd_line, 1, False),
    "perf": (perf_line, 1, False),
}


def said(trace: Trace, resolution: int, named: bool) -> list[tuple[object, ...]]:
    """What a format with such times and names can say of a trace's first accesses."""
    times = [time // resolution * resolution for time in trace.times[:FIRST]]
    accesses = zip(times, islice(trace.accesses(), FIRST), strict=True)
    return [(time - times[0], each.vcpu, _named(each.target, named), each.value) for time, each in accesses]


def _named(target: Target, named: bool) -> Target:
    return target if named else replace(target, region="")


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("name", ["x86-pc-userland", "riscv64-virt-firmware", "random/pit-1"])
def test_a_recording_as_other_tools_would_print_it(name: str, format: str, tmp_path: Path) -> None:
    write, resolution, named = WRITERS[format]
    guest = of_recording(read_recording(shared(f"traces/{name}.tsv.gz")))
    path = tmp_path / "trace.txt.gz"
    lines = [write(each) for each in islice(guest.accesses(), FIRST)]
    path.write_bytes(gzip.compress("".join(lines).encode(), 1))
    read = read_trace(path)
    assert read.diagnostics == ()
    assert len(read) == min(FIRST, len(guest))
    assert said(read, resolution, named) == said(guest, resolution, named)


@st.composite
def accesses(draw: st.DrawFn) -> Access:
    space = draw(st.sampled_from(Space))
    size = draw(st.sampled_from((1, 2, 4) if space is PIO else (1, 2, 3, 4, 8)))
    address = draw(st.integers(0, 0xFFFF) if space is PIO else st.integers(0x10000, (1 << 52) - 1))
    region = draw(st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=20))
    target = Target(space, draw(st.sampled_from(Op)), address, size, region)
    time, vcpu = draw(st.integers(0, 10**15)), draw(st.integers(0, 255))
    return Access(time, vcpu, target, draw(st.integers(0, (1 << 8 * size) - 1)))


@pytest.mark.parametrize("format", WRITERS)
@given(st.lists(accesses(), min_size=1, max_size=20), st.booleans())
def test_what_is_written_is_read(format: str, given_: list[Access], colored: bool) -> None:
    write, resolution, named = WRITERS[format]
    lines = [write(each) for each in given_]
    if colored:
        lines = [f"\x1b[1;31m{line[:9]}\x1b[0m{line[9:]}" for line in lines]
    read = list(parse_trace(lines, name="written").accesses())
    starts = min((each.time or 0) // resolution * resolution for each in given_)
    for one, other in zip(given_, read, strict=True):
        assert other.time == (one.time or 0) // resolution * resolution - starts
        assert (other.vcpu, other.value) == (one.vcpu, one.value)
        assert other.target == _named(one.target, named)


_FRAGMENTS = [
    *(
        "memory_region_ops_read ",
        "cpu 0 mr 0x1 ",
        "addr 0x",
        "value 0x10 size 4",
        " name '",
        "'",
        "kvm_mmio: ",
    ),
    *("kvm:kvm_pio: ", "mmio read len 4 gpa 0x", "pio_write at 0x70 size 1 count 1 val 0x1", "[001] ", "\n"),
    *("12.000001: ", "CPU 0/KVM-12 ", "kvm_userspace_exit: reason ", "kvm_entry: vcpu ", "\x1b[31m", "\t"),
    *("# exit-trace 1", "f" * 17, "9" * 30),
]


@given(st.lists(st.sampled_from(_FRAGMENTS) | st.text(max_size=8)).map("".join) | st.text())
@example("kvm_pio: pio_write at 0x70 size 1 count 1 val 0x1\n" + "kvm_mmio: \n" * 2)
@example("memory_region_ops_read cpu 99999999999999999999 addr 0x1 value 0x1 size 1\n")
@example(
    "kvm_userspace_exit: reason\nkvm_entry: vcpu\nkvm_mmio: mmio unsatisfied-read len 1 gpa 0x1 val 0x0\n"
)
def test_no_text_crashes_the_parsers(text: str) -> None:
    """A trace of some accesses, or a diagnosis of H020 or H021; nothing else."""
    codes = {"none"}
    try:
        trace = parse_trace(text.splitlines(keepends=True), name="random")
        assert len(trace) == len(list(trace.accesses())) > 0
    except Rejected as rejected:
        codes = {each.code.id for each in rejected.diagnostics}
    assert codes <= {"none", "H020", "H021"}


@given(st.binary())
def test_no_file_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "trace.txt"
    for each in (data, gzip.compress(data, 1), b"\x1f\x8b" + data, b"# exit-trace 1\n" + data):
        path.write_bytes(each)
        code = "none"
        try:
            read_trace(path)
        except Rejected as rejected:
            code = rejected.diagnostics[0].code.id
        assert code in {"none", "H001", "H020", "H021"}


GOOD = "CPU 0/KVM-1 [000] 1.000000: kvm_pio: pio_read at 0x71 size 1 count 1 val 0x1\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD.replace("0x71", "71h"), "a port access is `pio_read at 0xP size S count N val 0xV`"),
        (GOOD.replace("0x71", "0x10071"), "the address 0x10071 is beyond the pio space"),
        (GOOD.replace("size 1", "size 0"), "an access has 1 to 64 bytes, not 0"),
        (
            "kvm:kvm_mmio: mmio fetch len 1 gpa 0x1 val 0x1\n",
            "a memory access is `mmio read len S gpa 0xA val 0xV`",
        ),
        ("memory_region_ops_read cpu 0\n", "an access is `cpu N mr P addr 0xA value 0xV size S name 'NAME'`"),
        ("memory_region_ops_read cpu 0 addr 0x1 value 0x1 size 9\n", "an access has 1 to 8 bytes, not 9"),
        ("memory_region_ops_read cpu 0 addr 0xfffffffffffffff0 value 0x1 size 1\n", "is beyond any memory"),
    ],
)
def test_a_malformed_line_is_named(line: str, message: str) -> None:
    """The first is shown with its place, where the others are the many; alone it is refused."""
    trace = parse_trace([GOOD, line, GOOD, line], name="test")
    (diagnostic,) = trace.diagnostics
    assert (diagnostic.code.id, diagnostic.severity) == ("H021", "warning")
    assert message in diagnostic.message
    assert diagnostic.span is not None
    assert (diagnostic.span.line, diagnostic.span.text) == (2, line.rstrip())
    assert diagnostic.notes == ("2 such lines, beside 2 accesses",)
    assert len(trace) == 2
    with pytest.raises(Rejected, match="H021"):
        parse_trace([line, line, GOOD], name="test")


def test_text_without_an_access() -> None:
    for lines in ([], ["hello\n", "kvm_exit: reason HLT\n"], ["x" * 100_000]):
        with pytest.raises(Rejected, match="H020: there is no access to a device in it"):
            parse_trace(lines, name="test")


def test_a_number_too_large_leaves_nothing_behind() -> None:
    late = GOOD.replace("1.000000", "999999999999.000000").replace("0x71", "0x72")
    trace = parse_trace([GOOD, late], name="test")
    assert (len(trace), len(trace.targets), len(trace.times)) == (1, 1, 1)
    assert trace.diagnostics[0].message == "a number does not fit its column"


def test_one_vcpu_twice_is_two_guests() -> None:
    other = GOOD.replace("-1 ", "-2 ")
    assert parse_trace([GOOD, GOOD], name="test").guests == 1
    assert parse_trace([GOOD, other], name="test").guests == 2


def test_a_vcpu_is_known_from_its_entry() -> None:
    entry = "qemu-system-x86-9 [000] 1.000000: kvm_entry: vcpu 3, rip 0x1\n"
    access = GOOD.replace("CPU 0/KVM-1", "qemu-system-x86-9")
    assert [each.vcpu for each in parse_trace([access, entry, access], name="test").accesses()] == [None, 3]


def test_fewer_columns_and_older_kernels() -> None:
    """`perf script -F event,trace`, and `kvm_pio` without a value."""
    lines = [
        "kvm:kvm_pio: pio_read at 0x71 size 1 count 1 val 0x1\n",
        "kvm_pio: pio_read at 0xc13e size 2 count 1\n",
    ]
    first, second = parse_trace(lines, name="test").accesses()
    assert (first.time, first.vcpu, first.value) == (None, None, 1)
    assert (second.value, second.target.address) == (None, 0xC13E)
