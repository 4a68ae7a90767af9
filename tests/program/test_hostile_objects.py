"""Whatever the bytes of an object are, loading gives a program or a diagnosis: no traceback, no hang."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc import limits
from devbc.diagnostics import Rejected, render
from devbc.program.elf import load_object

DATA = Path(__file__).resolve().parents[1] / "data" / "clang"
OBJECTS = [path.read_bytes() for path in sorted(DATA.glob("*.o"))]


def loads_or_is_rejected(data: bytes) -> bool:
    """Whether it loads; any exception but Rejected fails, and so does a diagnosis that cannot be shown."""
    try:
        load_object(data, name="hostile.o")
    except Rejected as rejected:
        for diagnostic in rejected.diagnostics:
            assert diagnostic.code.id[0] in "OI"
            assert "\x1b" not in render(diagnostic)
        return False
    return True


def test_the_objects_load_as_they_are() -> None:
    assert OBJECTS
    assert all(loads_or_is_rejected(data) for data in OBJECTS)


@pytest.mark.parametrize("data", OBJECTS)
def test_truncated_at_every_length(data: bytes) -> None:
    # The section table stands at the end of the file: without its last byte, there is no object.
    assert not any(loads_or_is_rejected(data[:length]) for length in range(len(data)))


@pytest.mark.parametrize("data", OBJECTS)
def test_every_header_byte_altered(data: bytes) -> None:
    """The ELF header and the section table steer everything else: each byte of them."""
    table = struct.unpack_from("<Q", data, 40)[0]
    for position in (*range(64), *range(table, len(data))):
        for value in (data[position] ^ 0xFF, data[position] ^ 1):
            loads_or_is_rejected(data[:position] + bytes([value]) + data[position + 1 :])


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from(OBJECTS),
    seed=st.integers(0, 1 << 32),
    flips=st.integers(1, 16),
)
def test_bytes_altered_at_random(data: bytes, seed: int, flips: int) -> None:
    source = random.Random(seed)
    altered = bytearray(data)
    for _ in range(flips):
        altered[source.randrange(len(data))] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
    loads_or_is_rejected(bytes(altered))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=256))
def test_random_bytes_after_a_valid_start(tail: bytes) -> None:
    assert not loads_or_is_rejected(tail)
    assert not loads_or_is_rejected(OBJECTS[0][:64] + tail)


@pytest.mark.parametrize("name", [b".BTF", b".BTF.ext", b".symtab", b".devbc", b".rel"])
@pytest.mark.parametrize("data", OBJECTS)
def test_every_byte_of_a_section_altered(data: bytes, name: bytes) -> None:
    for offset, size in _sections(data, name):
        # All of a small section; of a large one a prime step, which meets each field of its records.
        for position in range(offset, offset + size, 1 if size < 256 else 11):
            loads_or_is_rejected(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])


def _sections(data: bytes, prefix: bytes) -> list[tuple[int, int]]:
    """File offsets and sizes of the sections whose name begins so."""
    table, count, names_index = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 60)
    rows = [struct.unpack_from("<IIQQQQ", data, table + 64 * i) for i in range(count)]
    names = rows[names_index][4]
    exact = prefix != b".rel"
    return [
        (row[4], row[5])
        for row in rows
        if data[names + row[0] :].startswith(prefix + b"\0" if exact else prefix)
    ]


def test_sections_of_enormous_size_cost_nothing() -> None:
    """A section without bits may claim any size: the shared area's is refused before memory is asked for."""
    data = bytearray(OBJECTS[1])
    table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    (scratch_at, _), *_ = _sections(bytes(data), b".scratch")
    for index in range(count):
        header = table + 64 * index
        if struct.unpack_from("<Q", data, header + 24)[0] == scratch_at:
            struct.pack_into("<I", data, header + 4, 8)  # SHT_NOBITS
            struct.pack_into("<Q", data, header + 32, 1 << 62)
    with pytest.raises(Rejected, match="O003: the shared area has"):
        load_object(bytes(data), name="huge.o")


def test_many_sections_over_the_whole_file_are_read_in_a_moment() -> None:
    """Sections may overlap: a table of the most entries, each claiming the whole file and one long name."""
    count = limits.OBJECT_SECTIONS
    name_bytes = limits.NAME_BYTES
    body = b"x" * (name_bytes - 1) + b"\0"
    size = 64 + len(body) + 64 * count
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, count, 1)
    row = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 64, len(body), 0, 0, 1, 0)
    data = header + body + row * count
    assert len(data) == size
    started = time.monotonic()
    with pytest.raises(Rejected, match="O004"):
        load_object(data, name="many.o")
    assert time.monotonic() - started < 10
