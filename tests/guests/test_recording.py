"""Reading recordings: round trip, and the diagnosis of damaged ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devbc.diagnostics import Rejected
from devbc.guests.recording import parse_recording, read_recording
from devbc.hypervisor.layouts import ACCESS

HEAD = ["# exit-trace 1", "# rtc_base=2024-02-28T23:58:00Z"]
ROWS = st.lists(
    st.tuples(
        st.integers(0, (1 << 40)), st.integers(0, 7), st.sampled_from(("pio", "mmio")),
        st.sampled_from(("read", "write")), st.integers(0, 0xFFFF), st.sampled_from((1, 2, 4, 8)),
        st.integers(0, (1 << 64) - 1),
    )
)  # fmt: skip


@given(ROWS)
def test_every_column_arrives(rows: list[tuple[int, int, str, str, int, int, int]]) -> None:
    rows.sort(key=lambda row: row[0])
    lines = [f"{t}\t{c}\t{s}\t{o}\t{a:#x}\t{z}\t{v:#x}\tregion" for t, c, s, o, a, z, v in rows]
    recording = parse_recording([*HEAD, *lines], name="test")
    assert recording.rtc_base == 1709164680
    assert len(recording) == len(rows)
    for index, (time, vcpu, space, op, address, size, value) in enumerate(rows):
        record = ACCESS.struct.from_buffer_copy(recording.accesses, index * ACCESS.size)
        target = recording.targets[recording.target_of[index]]
        assert (record.time, record.vcpu, record.value, record.address) == (time, vcpu, value, address)
        assert (target.space, target.op, target.address, target.size) == (space, op, address, size)
        assert (record.space, record.op, 1 << record.log2_size) == (space == "mmio", op == "write", size)


GOOD = "5\t0\tpio\tread\t0x40\t1\t0x0\tpit"


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        ([], 0, "a recording begins with `# exit-trace 1`"),
        ([GOOD], 0, "a recording begins with"),
        ([*HEAD, GOOD, "5 0 pio read"], 4, "an access has 8 columns"),
        ([*HEAD, GOOD, GOOD.replace("5", "4", 1)], 4, "time runs backwards"),
        ([*HEAD, GOOD.replace("5", str((1 << 64) - 1), 1)], 3, "the time is beyond the VM clock"),
        ([*HEAD, GOOD.replace("5", "9" * 5000, 1)], 3, "Exceeds the limit"),
        ([*HEAD, GOOD.replace("pio", "dma")], 3, "`dma read` is no access"),
        ([*HEAD, GOOD.replace("\t1\t", "\t3\t")], 3, "an access has 1, 2, 4 or 8 bytes"),
        ([*HEAD, GOOD.replace("0x40", "0x10040")], 3, "beyond the pio space"),
        ([*HEAD, GOOD.replace("0x0", "0x1" + 16 * "0")], 3, "a number does not fit its column"),
        ([*HEAD, GOOD.replace("0x40", "forty")], 3, "'forty' is not a number"),
    ],
)
def test_a_malformed_line_is_named(lines: list[str], line: int, message: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_recording(lines, name="test")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code.id == "H001"
    assert message in diagnostic.message
    assert diagnostic.span is not None
    assert diagnostic.span.line == line


def test_damaged_files_are_diagnosed(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join([*HEAD, GOOD]).encode())
    path = tmp_path / "a.tsv.gz"
    for data in (whole[:-9], whole[:20], b"\x1f\x8b", b"\xff\xfe"):
        path.write_bytes(data)
        with pytest.raises(Rejected):
            read_recording(path)
    path.write_bytes(whole)
    assert len(read_recording(path)) == 1
    with pytest.raises(Rejected, match="no such file"):
        read_recording(tmp_path / "missing")
