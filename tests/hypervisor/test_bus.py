"""Addresses and dispatch: against a dictionary and a linear search, on random machines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devbc.abi import Op
from devbc.hypervisor.bus import HASH_MULTIPLIER, KINDS, AddressMap, DispatchTable, Placement, access_key
from devbc.hypervisor.layouts import NO_KEY

ACCESSES = st.tuples(
    st.integers(0, len(KINDS) - 1),
    st.sampled_from(Op),
    st.integers(0, (1 << 52) - 1),
    st.sampled_from((1, 2, 4, 8)),
)


@given(st.lists(ACCESSES, unique=True))
def test_keys_tell_accesses_apart(accesses: list[tuple[int, Op, int, int]]) -> None:
    keys = {access_key(*access) for access in accesses}
    assert len(keys) == len(accesses)
    assert NO_KEY not in keys


@given(
    st.dictionaries(st.integers(0, (1 << 57) - 1), st.integers(0, 99), max_size=200), st.integers(0, 1 << 57)
)
def test_the_table_finds_what_was_put_in_and_nothing_else(entries: dict[int, int], other: int) -> None:
    table = DispatchTable({key: (value, value) for key, value in entries.items()})

    def find(key: int) -> int | None:
        position = (key * HASH_MULTIPLIER & (1 << 64) - 1) >> table.shift
        while (record := table.records[position & table.mask]).key != NO_KEY:
            if record.key == key:
                return int(record.offset)
            position += 1
        return None

    assert all(find(key) == value for key, value in entries.items())
    assert find(other) == entries.get(other)


@given(
    st.lists(st.tuples(st.integers(0, len(KINDS) - 1), st.integers(1, 8)), max_size=20),
    st.integers(0, len(KINDS) - 1),
    st.integers(0, 400),
)
def test_an_address_belongs_to_the_bank_that_holds_it(
    banks: list[tuple[int, int]], kind: int, address: int
) -> None:
    placements = [
        Placement(index, "bank", 0, kind, index * 16, size) for index, (kind, size) in enumerate(banks)
    ]
    found = AddressMap(placements, {}).find(kind, address)
    expected = [p for p in placements if p.kind == kind and p.base <= address < p.end]
    assert found == (expected[0] if expected else None)
