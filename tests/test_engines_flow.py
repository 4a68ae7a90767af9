"""Control flow and liveness, held against the semantics and against paths through the code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devbc.engines.flow import flow, functions, read_registers
from devbc.engines.integers import INTEGERS
from devbc.isa.insn import Insn, decode, written_registers
from devbc.isa.opcodes import FRAME_POINTER, SPECS, Kind
from devbc.semantics import condition, source, step
from tests.handlers import code
from tests.strategies import INSNS, insns_of


class Tracer:
    """A machine that notes which registers an instruction asks for and assigns."""

    algebra = INTEGERS

    def __init__(self) -> None:
        self.read: set[int] = set()
        self.written: set[int] = set()

    def get(self, register: int) -> int:
        self.read.add(register)
        return 0

    def set(self, register: int, value: int) -> None:
        self.written.add(register)

    def load(self, address: int, bits: int) -> int:
        return 0

    def store(self, address: int, value: int, bits: int) -> None: ...

    def atomic(self, insn: Insn, address: int, operand: int, expected: int | None) -> int:
        return 0

    def address(self, insn: Insn) -> int:
        return 0


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=10)
@given(data=st.data())
def test_registers_are_those_that_the_semantics_ask_for(spec: Any, data: st.DataObject) -> None:
    insn = data.draw(insns_of(spec))
    tracer = Tracer()
    match spec.kind:
        case Kind.CALL | Kind.EXIT | Kind.JA:
            return
        case Kind.JUMP:
            condition(INTEGERS, spec, tracer.get(insn.dst), source(tracer, insn))
        case _:
            step(tracer, insn)
    assert set(read_registers(insn)) == tracer.read
    assert set(written_registers(spec, insn.dst, insn.src)) == tracer.written


def test_blocks_of_a_loop() -> None:
    insns = decode(code("mov %r0, 0\nmov %r2, 9\nagain:\nadd %r0, %r1\nadd %r2, -1\njne %r2, 0, again\nexit"))
    graph = flow(insns, 0)
    assert {start: block.slots for start, block in graph.blocks.items()} == {
        0: (0, 1),
        2: (2, 3, 4),
        5: (5,),
    }
    assert graph.predecessors == {0: (), 2: (0, 2), 5: (2,)}
    assert graph.live == {0: {1}, 2: {0, 1, 2}, 5: {0}}


def test_an_entry_that_is_jumped_to() -> None:
    graph = flow(decode(code("again:\nadd %r1, -1\njne %r1, 0, again\nmov %r0, 1\nexit")), 0)
    assert next(iter(graph.blocks)) == 0
    assert graph.predecessors[0] == (0,)


def test_both_ways_of_a_jump_to_one_place() -> None:
    graph = flow(decode(code("jeq %r1, 0, +0\nmov %r0, 1\nexit")), 0)
    assert graph.blocks[0].successors == (1,)
    assert graph.predecessors[1] == (0,)


def test_edges_to_instructions_that_are_not_there_are_left_out() -> None:
    insns = decode(code("mov %r0, 1\njeq %r1, 0, +1\nexit\nmov %r0, %r5\nexit"))
    graph = flow({slot: insn for slot, insn in insns.items() if slot < 3}, 0)
    assert graph.blocks[0].successors == (2,)
    assert graph.live[0] == {1}


def test_functions_are_the_targets_of_reachable_calls() -> None:
    insns = decode(code("call local a\ncall local a\nexit\na:\nmov %r0, 1\nexit"))
    assert functions(insns) == (0, 3)
    assert set(flow(insns, 0).blocks) == {0}
    assert set(flow(insns, 3).blocks) == {3}


@given(st.lists(INSNS, min_size=1, max_size=24))
def test_any_code_has_a_flow(listed: list[Insn]) -> None:
    """Each block is entered only at its start, in reverse postorder after its only predecessor; r10 is never
    live, and a register that is live into a block is live out of each predecessor that does not write it."""
    slot, insns = 0, {}
    for insn in listed:
        insns[slot] = insn
        slot += insn.spec.slots
    graph = flow(insns, 0)
    inside = [slot for block in graph.blocks.values() for slot in block.slots]
    assert len(inside) == len(set(inside))
    order = list(graph.blocks)
    for start, block in graph.blocks.items():
        assert block.slots[0] == start
        assert FRAME_POINTER not in graph.live[start]
        if len(graph.predecessors[start]) == 1 and start != 0:
            assert order.index(graph.predecessors[start][0]) < order.index(start)
        for each in block.successors:
            assert start in graph.predecessors[each]
