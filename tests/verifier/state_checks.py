"""Links, joins, pruning and single steps, on states at random: what the tests run, and the mutants.

Each `check_*` compares an operation on states with runs that the states admit (`states.py`). They raise
AssertionError and nothing else, and return how many of the cases had something to say. They look the
operations up when they are called: `state_mutants.py` has operations that are wrong on purpose.

Not here: words by themselves (`small.py`), and states that follow each other (`campaign.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from devbc import semantics
from devbc.abi import EXIT_FIELDS
from devbc.engines import interpreter
from devbc.engines.integers import INTEGERS
from devbc.isa.disasm import disassemble
from devbc.isa.insn import Insn
from devbc.isa.opcodes import FRAME_POINTER, SPECS, Kind, Operation, Source
from devbc.limits import STACK_BYTES
from devbc.program.verified import Region
from devbc.verifier import DEFAULT, explore, tables
from devbc.verifier import state as states
from devbc.verifier.errors import Fault
from devbc.verifier.explore import Exploration
from devbc.verifier.prepare import prepare
from devbc.verifier.state import SAVED, Cell, Link, State
from devbc.verifier.values import Pointer, Value, Values, is_word
from devbc.verifier.word import Word
from tests.verifier.oracle import handler, interesting
from tests.verifier.states import (
    FREE,
    SYMBOLS,
    U64,
    Case,
    Maker,
    admitted,
    around,
    cases,
    holder,
    holds,
    layout,
    random_link,
)

# Links.


def check_follow(count: int, seed: int) -> int:
    """What one holder of a symbol teaches another, for holders whose bits are the symbol's."""
    rng, narrowed = random.Random(seed), 0
    for _ in range(count):
        values, symbol = Values(), interesting(rng, 64)
        deltas = [0, interesting(rng, 64)]
        link, other = (random_link(rng, 0, deltas) for _ in range(2))
        x, y = holder(rng, link, symbol), holder(rng, other, symbol)
        word, value = around(rng, values, x, 64), around(rng, values, y, 64)
        followed = states._follow(values.words, word, link, value, other)
        assert followed is not None, f"{x:#x} and {y:#x} are no contradiction: {link}, {other}"
        assert followed.contains(y), f"{word!r} ({link}) makes {value!r} ({other}) {followed!r}: no {y:#x}"
        assert value.includes(followed), f"{value!r} grew to {followed!r}"
        narrowed += followed is not value
    return narrowed


def check_learn(count: int, seed: int) -> int:
    """A register learns, all copies with it, and may be recalled: the state still admits the run."""
    told = 0
    for rng, values, (case,) in cases(count, seed):
        state = case.state
        numbers = [each for each in FREE if is_word(state.registers[each]) and state.links[each]]
        for register in rng.sample(numbers, min(2, len(numbers))):
            known, have = state.registers[register], case.run.registers[register]
            assert isinstance(known, Word)
            assert have is not None
            learnt = values.words.meet(known, around(rng, values, have, 64))
            assert learnt is not None
            before = list(_places(state))
            assert state.learn(values.words, register, learnt), "a run comes here"
            told += sum(was is not now for was, now in zip(before, _places(state), strict=True)) > 1
            state.recall(values.words, rng.choice(numbers))
        assert admitted(state, case), "what copies have learnt excludes the run"
    return told


def _places(state: State) -> Iterator[Value | None]:
    yield from state.registers
    for frame in state.frames:
        yield from frame.saved
        yield from (cell.value for cell in frame.cells.values())


LINKING: Final = [
    spec
    for spec in SPECS.values()
    if spec.kind is Kind.ALU
    and spec.operation in tables.LINKING
    and (spec.source is Source.IMM) is (spec.operation not in (Operation.MOV, Operation.MOVSX))
]


def check_bits_of(count: int, seed: int) -> int:
    """The link of a result, where an operand beside a constant is linked: the result has these bits."""
    rng, kept = random.Random(seed), 0
    for spec in LINKING:
        for _ in range(count):
            symbol = interesting(rng, 64)
            link = random_link(rng, 0, [0, interesting(rng, 64)])
            imm = interesting(rng, 32) - (1 << 31)
            if spec.operation in (Operation.LSH, Operation.RSH, Operation.ARSH):
                imm = rng.choice([link.shift, rng.randrange(64)])
            insn = Insn(spec, dst=0, src=1 if spec.source is Source.REG else 0, off=spec.off or 0,
                        imm=0 if spec.source is Source.REG else imm)  # fmt: skip
            x = holder(rng, link, symbol)
            if spec.source is Source.REG:
                result = semantics.move(INTEGERS, spec, x)
            else:
                result = semantics.alu(INTEGERS, spec, x, imm & U64)
            its = explore._bits_of(link, insn)
            if its is not None:
                kept += 1
                assert holds(its, symbol, result), (
                    f"{spec.name} {imm:#x} of {x:#x}, {link}: {result:#x}, {its}"
                )
    return kept


# Joins and pruning.


def check_joined(count: int, seed: int) -> int:
    """A joined state admits the runs of both that it was made of."""
    made = 0
    for rng, values, (mine, its) in cases(count, seed, 2):
        mine.state.wrote = its.state.wrote
        mine.wrote = mine.wrote and its.state.wrote >= 0
        other = states.snapshot(its.state)
        assert admitted(its.state, its), "a snapshot drops only links that nothing shares"
        if states.snapshot(mine.state.copy()).outline() != other.outline():
            continue
        made += 1
        before = states.snapshot(mine.state.copy())
        joined = states.joined(values, mine.state, other, forget=rng.random() < 0.5)
        assert states.snapshot(mine.state.copy()) == before, "the state itself has changed"
        for each in (mine, its):
            assert admitted(joined, each), "a joined state excludes a run of one of the two"
    return made


def check_covers(count: int, seed: int) -> int:
    """A state that covers another admits all of its runs."""
    covered = 0
    for rng, values, (case,) in cases(count, seed):
        other = _changed(rng, values, case.state)
        mine, its = states.snapshot(other), states.snapshot(case.state)
        assert mine.covers(mine)
        if mine.covers(its):
            covered += 1
            for _ in range(4):
                assert admitted(other, case), "not every run of the covered state is one of the other"
                _vary(rng, case)
    return covered


def _changed(rng: random.Random, values: Values, state: State) -> State:
    """A copy that knows less, mostly; rarely it knows something else."""
    other = state.copy()
    changes = rng.sample(_CHANGES, rng.randrange(1, 4)) + rng.sample(_BREAKS, rng.random() < 0.5)
    for change in changes:
        change(rng, values, other)
    return other


Change = Callable[[random.Random, Values, State], None]


def _holders(state: State) -> list[tuple[list[Value | None], list[Link | None], int]]:
    """Every register and saved register: the lists that it is in, and where."""
    rows = [(state.registers, state.links)] + [(frame.saved, frame.links) for frame in state.frames[1:]]
    return [(row, links, at) for row, links in rows for at in range(min(len(row), FRAME_POINTER))]


def _cells(state: State) -> list[tuple[dict[int, Cell], int]]:
    return [(frame.cells, offset) for frame in state.frames for offset in frame.cells]


def _forget(rng: random.Random, values: Values, state: State) -> None:
    for row, links, at in rng.sample(_holders(state), 3):
        row[at] = links[at] = None
    for cells, offset in _cells(state):
        if rng.random() < 0.3:
            del cells[offset]


def _widen(rng: random.Random, values: Values, state: State) -> None:
    words = values.words

    def wider(value: Value | None) -> Value | None:
        if isinstance(value, Word):
            return words.join(value, around(rng, values, interesting(rng, value.bits), value.bits))
        if isinstance(value, Pointer):
            offset = words.join(value.offset, around(rng, values, interesting(rng, 64), 64))
            return values.pointer(value.region, offset, value.frame)
        return None

    for row, _, at in rng.sample(_holders(state), 4):
        row[at] = wider(row[at])
    for cells, offset in _cells(state):
        if rng.random() < 0.3:
            value = wider(cells[offset].value)
            assert value is not None
            cells[offset] = cells[offset]._replace(value=value)


def _unlink(rng: random.Random, values: Values, state: State) -> None:
    for _, links, at in _holders(state):
        if rng.random() < 0.4:
            links[at] = None
    for cells, offset in _cells(state):
        if rng.random() < 0.4:
            cells[offset] = cells[offset]._replace(link=None)


def _relink(change: Callable[[Link], Link]) -> Change:
    def changed(rng: random.Random, values: Values, state: State) -> None:
        for _, links, at in _holders(state):
            links[at] = (link := links[at]) and change(link)
        for cells, offset in _cells(state):
            cells[offset] = cells[offset]._replace(link=(link := cells[offset].link) and change(link))

    return changed


def _more_written(rng: random.Random, values: Values, state: State) -> None:
    state.wrote = 0
    state.fields |= 1 << rng.randrange(len(EXIT_FIELDS))


def _fewer_written(rng: random.Random, values: Values, state: State) -> None:
    state.fields &= rng.getrandbits(len(EXIT_FIELDS))


def _not_written(rng: random.Random, values: Values, state: State) -> None:
    state.wrote = -1


def _something_else(rng: random.Random, values: Values, state: State) -> None:
    """Of one place: a number in the place of nothing or of a pointer, another number, another region."""
    row, links, at = rng.choice(_holders(state))
    value = row[at]
    if isinstance(value, Pointer) and rng.random() < 0.7:
        depth = len(state.frames)
        frame = rng.randrange(depth) if value.region is Region.STACK else 0
        region = value.region if frame != value.frame else rng.choice([Region.EXIT, Region.SCRATCH])
        row[at] = values.pointer(region, value.offset, frame)
    elif isinstance(value, Word) and rng.random() < 0.5:
        row[at] = values.words.meet(value, around(rng, values, value.umin, 64)) or value
    else:
        row[at], links[at] = around(rng, values, interesting(rng, 64), 64), None


def _another_cell(rng: random.Random, values: Values, state: State) -> None:
    """Of one cell: a value, or a size; or one more."""
    frame = rng.choice(state.frames)
    offset, size = -8 * rng.randrange(1, 7), rng.choice([4, 8])
    frame.cells[offset] = Cell(values.words.unknown(8 * size), size, None)


def _another_link(rng: random.Random, values: Values, state: State) -> None:
    """One place more has a link, or another one."""
    linked = list(states._links(state)) or [Link(0, 0, U64)]
    row, links, at = rng.choice(_holders(state))
    if isinstance(row[at], Word):
        link = rng.choice(linked)
        others = (link._replace(delta=link.delta + 1 & U64), link._replace(mask=U64, shift=0))
        links[at] = rng.choice([link, *others])


_CHANGES: Final[list[Change]] = [
    _forget, _widen, _widen, _unlink, _more_written,
    _relink(lambda link: link._replace(symbol=SYMBOLS - link.symbol)),
    _relink(lambda link: link._replace(delta=link.delta + 5 & U64)),
]  # fmt: skip
_BREAKS: Final[list[Change]] = [
    _fewer_written, _not_written, _something_else, _another_cell, _another_link,
    _relink(lambda link: link._replace(symbol=0)),
]  # fmt: skip


def _vary(rng: random.Random, case: Case) -> None:
    """Change the run to another that the case's state admits: numbers that nothing shares, at their ends."""
    run, state = case.run, case.state
    for register in FREE:
        word = state.registers[register]
        if state.links[register] is None and isinstance(word, Word):
            run.registers[register] = _member(rng, word, run.registers[register])
    callers = []
    for frame, kept in zip(state.frames[1:], run.frames, strict=True):
        registers = list(kept.registers)
        for at in range(4):
            word = frame.saved[at]
            if frame.links[at] is None and isinstance(word, Word):
                register = SAVED.start + at
                registers[register] = _member(rng, word, registers[register])
        callers.append(replace(kept, registers=tuple(registers)))
    run.frames[:] = callers
    for abstract, memory in zip(state.frames, run.memory.values(), strict=True):
        for offset, cell in abstract.cells.items():
            if cell.link is None and isinstance(cell.value, Word):
                start, size = offset + STACK_BYTES, cell.size
                memory.store(start, size, _member(rng, cell.value, memory.load(start, size)))
    case.fields = state.fields & rng.getrandbits(len(EXIT_FIELDS))
    case.wrote = state.wrote >= 0 and rng.random() < 0.5
    assert admitted(state, case), "the case's own state excludes its run"


def _member(rng: random.Random, word: Word, have: int | None) -> int:
    """A value of the word, at an end of a range if there is one; of those that were looked at."""
    assert have is not None
    ends = [word.umin, word.umax, word.smin & U64, word.smax & U64, word.value, word.value | word.mask]
    ends += [word.value | rng.getrandbits(word.bits) & word.mask, rng.randint(word.umin, word.umax), have]
    return rng.choice([each & (1 << word.bits) - 1 for each in ends if word.contains(each)])


# Single steps.


def check_step(count: int, seed: int) -> int:
    """One instruction from any state: what comes out admits the run's next state, unless it is refused.

    The exploration's own methods are called, so that links are made and what a jump teaches is spread as
    they do it. Memory is the stack.
    """
    taken = 0
    nothing = handler("mov %r0, 1\nexit")
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        exploration = prepare(nothing, 64, b"", DEFAULT, None, None)
        exploration._symbols = SYMBOLS
        case = Maker(rng, exploration.machine.algebra).case(layout(rng))
        taken += sum(_stepped(exploration, random_insn(rng, case), case) for _ in range(3))
    return taken


def _stepped(exploration: Exploration, insn: Insn, case: Case) -> bool:
    """Execute it on both sides; False, with nothing changed, if the verifier refuses it."""
    machine, run = exploration.machine, case.run
    state = machine.state = case.state.copy()
    machine.insn = insn
    state.slot = run.slot = 0
    op = exploration._tables.op(insn)
    try:
        if insn.spec.kind is Kind.JUMP:
            ways = exploration._jump(state, op, 0)
        else:
            exploration._compute(state, op, 0) if op.computes else exploration._access(state, insn)
            ways = [state]
    except Fault:
        return False
    before = f"{disassemble(insn)} from {[f'{each:#x}' for each in run.registers if each is not None]}"
    if insn.spec.kind is Kind.JUMP:
        left, right = run.get(insn.dst), semantics.source(run, insn)
        went = insn.target(0) if semantics.condition(INTEGERS, insn.spec, left, right) else 1
        ways = [each for each in ways if each.slot == went]
        assert ways, f"{before} goes to {went}"
    else:
        try:
            semantics.step(run, insn)
        except interpreter.Fault as fault:
            raise AssertionError(f"{before} faults: {fault}") from fault
    case.state = ways[0]
    assert admitted(case.state, case), f"{before}: the state that follows is not admitted"
    return True


_STEPS: Final = [
    spec for spec in SPECS.values()
    if spec.kind in (Kind.ALU, Kind.UNARY, Kind.JUMP, Kind.LOAD, Kind.STORE, Kind.ATOMIC)
]  # fmt: skip


def random_insn(rng: random.Random, case: Case) -> Insn:
    """Registers that hold something, numbers for operands; memory on the stack, where cells are."""
    spec = rng.choice(_STEPS) if rng.random() < 0.5 else rng.choice(LINKING)
    registers = case.state.registers
    numbers = [each for each in FREE if is_word(registers[each])] or list(FREE)
    dst, src = rng.choice(numbers), rng.choice(numbers)
    off, imm = rng.choice([1, 5]), interesting(rng, 32) - (1 << 31)
    if spec.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
        off = -spec.bytes * rng.randrange(1, 56 // spec.bytes)
        dst, src = (dst, FRAME_POINTER) if spec.kind is Kind.LOAD else (FRAME_POINTER, src)
    elif rng.random() < 0.3:
        dst, src = rng.choice(FREE), rng.choice(FREE)
    return Insn(
        spec,
        dst=dst if spec.dst is None else spec.dst,
        src=src if spec.src is None else spec.src,
        off=off if spec.off is None else spec.off,
        imm=imm if spec.imm is None else spec.imm,
    )
