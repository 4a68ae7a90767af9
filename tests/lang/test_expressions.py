"""Expressions: compiled code computes what Python computes, for generated trees and hostile inputs."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lang.machine import Device
from tests.lang.trees import FIELDS, Tree, inputs, name_of, trees, wrap


def device(results: list[Tree]) -> Device:
    """A device with a register for each tree."""
    declared = ", ".join(f"{field}: {name_of(*type)}" for field, type in FIELDS.items())
    registers = "\n".join(
        f"register r{i} at {8 * i} : u64 {{ read {{ return {_as_u64(tree)}; }} }}"
        for i, tree in enumerate(results)
    )
    return Device(f"device test {{ state {{ {declared}, flag: bool }} bank pio[256] {{ {registers} }} }}")


def _as_u64(tree: Tree) -> str:
    return f"u64({tree.text})"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.lists(trees(), min_size=4, max_size=8), st.lists(inputs(), min_size=2, max_size=5))
def test_compiled_expressions_compute_what_python_computes(
    results: list[Tree], given_inputs: list[dict[str, int]]
) -> None:
    machine = device(results)
    for values in given_inputs:
        for name in FIELDS:
            setattr(machine.state, name, values[name])
        offset = type(machine.state).flag.offset
        machine.scratch[offset] = values["flag"]  # also bytes that are no bool
        for i, tree in enumerate(results):
            assert machine.read(8 * i, 8).value == wrap(tree.value(values), 64, False), tree.text


@settings(max_examples=200, deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_muldiv_is_exact(a: int, b: int, c: int) -> None:
    MULDIV.state.a, MULDIV.state.b, MULDIV.state.c = a, b, c
    assert MULDIV.read(0, 8).value == (a * b // c if c else 0) & (1 << 64) - 1
    assert MULDIV.read(8, 8).value == a * 3_579_545 // 1_000_000_000 & (1 << 64) - 1


MULDIV = Device(
    """
    device test {
        state { a: u64, b: u32, c: u32 }
        bank pio[16] {
            register varying at 0 : u64 { read { return muldiv(state.a, state.b, state.c); } }
            register fixed at 8 : u64 { read { return muldiv(state.a, 3_579_545, 1_000_000_000); } }
        }
    }
    """
)
