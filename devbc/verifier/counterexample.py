"""A run that really goes wrong: exit, scratch and clock for which the reference interpreter does what the
verifier says a handler may do.

A run's *inputs* are the fields of the exit, its loads from scratch and its readings of the clock; scratch may
change at any moment, so that each load of it is an input of its own. The search is guided by the failing
path: beginning with what the abstract states at the end of the path still admit, inputs are changed one at a
time, and a change is kept if the run follows the path at least as far. A run that goes wrong is then made as
small as it gets: each input is lowered as long as the run goes wrong.

The search is deterministic, and bounded in instructions. That nothing is found means nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from devbc import abi
from devbc.diagnostics import Code
from devbc.engines import interpreter
from devbc.engines.interpreter import BASES, FaultKind, Interpreter, Memory
from devbc.isa.insn import Insn
from devbc.isa.opcodes import Kind
from devbc.limits import STACK_BYTES
from devbc.program.verified import ByteRange, Region
from devbc.verifier import errors
from devbc.verifier.context import ANYTHING, Context, Known
from devbc.verifier.policy import Policy
from devbc.verifier.slice import Names
from devbc.verifier.trail import Failure
from devbc.verifier.values import Pointer, is_word
from devbc.verifier.word import Word

#: Instructions that a search runs, at most: about a tenth of a second. And to make a found run smaller.
_BUDGET: Final = 25_000
_SHRINKING: Final = 15_000
#: What it costs to begin a run, in instructions.
_STARTING: Final = 40
#: The longest run that is tried, in instructions; a run beyond a greater bound is not looked for.
_LONGEST: Final = 5_000

#: How the reference interpreter names the faults of each code.
_FAULTS: Final[Mapping[Code, frozenset[FaultKind]]] = {
    errors.UNINITIALISED: frozenset({FaultKind.UNINITIALISED}),
    errors.OUT_OF_BOUNDS: frozenset({FaultKind.MEMORY}),
    errors.BAD_VERDICT: frozenset({FaultKind.UNINITIALISED}),
    errors.NOT_AN_ADDRESS: frozenset({FaultKind.MEMORY}),
    errors.FIELD_RIGHTS: frozenset({FaultKind.READ_ONLY}),
    errors.TOO_LONG: frozenset({FaultKind.STEP_LIMIT}),
}
#: Codes that the run's course or its end shows.
_OTHER: Final = frozenset({errors.UNCLEAN_DECLINE, errors.MISALIGNED, errors.ENDLESS, errors.POINTER_LEAK})

_U64: Final = (1 << 64) - 1


class From(StrEnum):
    EXIT = "exit"
    SCRATCH = "scratch"
    CLOCK = "clock"


class Input(NamedTuple):
    """Something a run takes in. Of the exit: `size` bytes at `offset`; otherwise what the instruction at
    `slot` loads, or the clock it reads, each time alike."""

    origin: From
    slot: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Taken:
    """An input as a run took it: the value, and where in its region it was loaded."""

    value: int
    offset: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `followed`: instructions for which it went along the failing path. `wrong`: what it did, if
    it went wrong in the way that the verifier says. `telling`: inputs that matter for that."""

    followed: int
    steps: int
    taken: Mapping[Input, Taken]
    wrong: str | None
    telling: frozenset[Input] = frozenset()


def searchable(failure: Failure) -> bool:
    """Whether runs can show the fault at all."""
    code = failure.fault.code
    if code is errors.TOO_LONG:
        return failure.setting.policy.instructions <= _LONGEST
    return code in _FAULTS or code in _OTHER


def search(failure: Failure) -> Run | None:
    """A run that goes wrong as the verifier says, made small; None if none was found."""
    return _Search(failure).run()


def prolonged(run: Run, failure: Failure, policy: Policy) -> Run | None:
    """A run that is too long under a policy with a greater cap than the one that `run` breaks: with the
    inputs that matter at their greatest, or the run itself. None if neither is."""
    longer = replace(failure, setting=replace(failure.setting, policy=policy))
    inputs = {each: taken.value for each, taken in run.taken.items()}
    most = {each: (1 << 8 * each.size) - 1 for each in run.telling}
    for tried in (inputs | most, inputs):
        found = _Runner(longer, tried).run()
        if found.wrong is not None:
            return replace(found, telling=run.telling)
    return None


def text(run: Run, failure: Failure, names: Names) -> str:
    """The run as a sentence. An input that comes twice with different values is a load from scratch that
    userspace has written in between."""
    given: dict[str, list[str]] = {}
    for each in (each for each in run.taken if each in run.telling):
        taken = run.taken[each]
        values = given.setdefault(_name(each, taken, failure, names), [])
        if _number(taken.value) not in values:
            values.append(_number(taken.value))
    if not given:
        return f"for example, with every input at its least, the handler {run.wrong}"
    inputs = " and ".join(f"`{name}` = {', then '.join(values)}" for name, values in given.items())
    return f"for example, with {inputs}, the handler {run.wrong}"


def to_json(run: Run, failure: Failure, names: Names) -> dict[str, Any]:
    """Every input of the run, in the order of its first use."""
    return {
        "outcome": run.wrong,
        "steps": run.steps,
        "inputs": [
            {
                "from": str(each.origin),
                "name": _name(each, taken, failure, names),
                "slot": each.slot if each.slot >= 0 else None,
                "offset": taken.offset,
                "size": each.size,
                "value": taken.value,
            }
            for each, taken in run.taken.items()
        ],
    }


def _name(each: Input, taken: Taken, failure: Failure, names: Names) -> str:
    match each.origin:
        case From.CLOCK:
            return "clock"
        case From.SCRATCH:
            fields = names((ByteRange(taken.offset, taken.offset + each.size),))
            return fields[0] if len(fields) == 1 else f"scratch[{taken.offset}..{taken.offset + each.size}]"
    layout = failure.setting.context.layout
    field = layout.at(each.offset)
    inside = each.offset - field.offset
    if field.count > 1:
        return f"{field.name}[{inside // field.size}]"
    return field.name if not inside else f"{field.name}, from byte {inside}"


def _number(value: int) -> str:
    return str(value) if value < 4096 else hex(value)


class _Search:
    """The search for one failure."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.rng = random.Random(0)
        self.interesting = _constants(failure)
        self.hints = dict(_hints(failure))
        self.left = _BUDGET

    def run(self) -> Run | None:
        best: dict[Input, int] = {}
        reached = self._try(best)
        most = {each: word.umax for each, word in self.hints.items()}
        least = {each: word.umin for each, word in self.hints.items()}
        for inputs in (most, least):
            run = self._try(inputs) if reached.wrong is None else reached
            if run.wrong is not None or run.followed > reached.followed:
                best, reached = inputs, run
        while reached.wrong is None and self.left > 0:
            inputs = self._changed(best, reached)
            if not inputs:
                return None  # it takes nothing in: every run is this one
            run = self._try(inputs)
            if run.wrong is not None or run.followed >= reached.followed:
                best, reached = inputs, run
        return None if reached.wrong is None else self._smallest(reached)

    def _try(self, inputs: Mapping[Input, int]) -> Run:
        run = _Runner(self.failure, inputs).run()
        self.left -= run.steps + _STARTING
        return run

    def _changed(self, inputs: Mapping[Input, int], run: Run) -> dict[Input, int]:
        """The inputs with one of them (or, at times, some) set to something else."""
        changed = {each: taken.value for each, taken in run.taken.items()} | dict(inputs)
        if not run.taken:
            return {}
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            each = self.rng.choice(list(run.taken))
            changed[each] = self._value(each, changed[each])
        return changed

    def _value(self, each: Input, old: int) -> int:
        rng, mask = self.rng, (1 << 8 * each.size) - 1
        hint = self.hints.get(each)
        match rng.randrange(6):
            case 0 | 1 if hint is not None:
                return rng.choice((hint.umin, hint.umax, rng.randint(hint.umin, hint.umax))) & mask
            case 2:
                return old ^ 1 << rng.randrange(8 * each.size)
            case 3:
                return (old + rng.choice((-1, 1))) & mask
            case 4:
                return rng.getrandbits(8 * each.size)
        return rng.choice(self.interesting) & mask

    def _smallest(self, run: Run) -> Run:
        """The run with inputs lowered as far as it still goes wrong, and those left out that do not count.

        An exit's input is what the machine made of it (`_exit`), not what was asked for.
        """
        self.left = _SHRINKING
        inputs = {each: taken.value for each, taken in run.taken.items()}
        for each in list(inputs):
            run = self._lowered(run, inputs, each)
        telling = frozenset(each for each in run.taken if self._tells(inputs, each, run.taken[each].value))
        return replace(run, telling=telling)

    def _lowered(self, run: Run, inputs: dict[Input, int], each: Input) -> Run:
        """Try lower numbers at which programs change their mind, then bisect below the least one found."""
        least, value = 0, inputs.get(each, 0)
        for number in self.interesting:
            if number >= value or self.left <= 0:
                break
            tried = self._try(inputs | {each: number})
            if tried.wrong is not None:
                value, run = number, tried
                break
            least = number + 1
        while least < value and self.left > 0:
            middle = (least + value) // 2
            tried = self._try(inputs | {each: middle})
            if tried.wrong is not None:
                value, run = middle, tried
            else:
                least = middle + 1
        inputs[each] = value
        return run

    def _tells(self, inputs: Mapping[Input, int], each: Input, value: int) -> bool:
        """Whether an input is worth showing: it is not what it would be by itself, or must not be another."""
        alone = self._try({other: inputs[other] for other in inputs if other != each}).taken.get(each)
        if alone is None or alone.value != value:
            return True
        mask = (1 << 8 * each.size) - 1
        others = {value ^ 1, mask, 0, mask >> 1, value + 1 & mask} - {value}
        return self.left <= 0 or any(self._try({**inputs, each: other}).wrong is None for other in others)


class _Stop(Exception):  # noqa: N818 - the run has shown what it was to show
    def __init__(self, wrong: str) -> None:
        super().__init__(wrong)
        self.wrong = wrong


class _Runner:
    """One run of the handler on chosen inputs."""

    def __init__(self, failure: Failure, inputs: Mapping[Input, int]) -> None:
        self.failure = failure
        self.insns = failure.shape.insns
        self.inputs = inputs
        self.taken: dict[Input, Taken] = {}
        self.followed = 0
        self.steps = 0
        self.wrote = False
        self.slot = 0
        setting = failure.setting
        self.context = setting.context
        self.exit = _exit(setting.handler.binding, self.context, inputs)
        self.at_entry = bytes(self.exit)
        self.scratch = bytearray(setting.scratch_size)
        self.seen: set[tuple[object, ...]] = set()

    def run(self) -> Run:
        setting, code = self.failure.setting, self.failure.fault.code
        read_only = frozenset(
            byte
            for field in self.context.layout.fields
            if field.access is abi.Access.READ
            for byte in range(field.offset, field.end)
        )
        memory = (
            Memory(Region.EXIT, self.exit, read_only=read_only),
            Memory(Region.SCRATCH, self.scratch),
            Memory(Region.RODATA, setting.rodata),
        )
        limit = setting.policy.instructions if code is errors.TOO_LONG else _LONGEST
        machine = Interpreter(
            self.insns, memory, aligned=True, clock=self._clock, step_limit=limit, observer=self._observe
        )
        registers = [
            BASES[Region.EXIT],
            *(self.context.arguments[each] for each in sorted(self.context.arguments)),
        ]
        try:
            result = machine.run(*registers)
            wrong = self._wrong_end(result.r0)
        except _Stop as stop:
            wrong = stop.wrong
        except interpreter.Fault as fault:
            expected = fault.kind in _FAULTS.get(code, ()) and (
                fault.slot == self.failure.last.slot or fault.kind is FaultKind.STEP_LIMIT
            )
            wrong = self._deed(fault) if expected else None
        return Run(self.followed, self.steps + 1, self.taken, wrong)

    def _observe(self, state: interpreter.State) -> None:
        points, slot = self.failure.points, state.slot
        if self.followed == self.steps < len(points) and points[self.steps].slot == slot:
            self.followed += 1
        self.steps += 1
        self.slot = slot
        insn = self.insns[slot]
        code = self.failure.fault.code
        if slot == self.failure.last.slot:
            if code is errors.POINTER_LEAK and self.followed == len(points) == self.steps:
                raise _Stop(_leak(insn))
            if code is errors.ENDLESS:
                self._note(state)
        if insn.spec.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
            self._access(insn, state)

    def _access(self, insn: Insn, state: interpreter.State) -> None:
        """Put the input where the instruction will load it."""
        kind = insn.spec.kind
        base = state.registers[insn.src if kind is Kind.LOAD else insn.dst]
        if base is None:
            return
        size = insn.spec.bytes
        if (
            self.failure.fault.code is errors.MISALIGNED
            and self.slot == self.failure.last.slot
            and (base + insn.off) % size
        ):
            verb = "reads" if kind is Kind.LOAD else "writes"
            raise _Stop(f"{verb} {self._place(base + insn.off, insn)}")
        for region, length in ((Region.SCRATCH, len(self.scratch)), (Region.EXIT, len(self.exit))):
            offset = (base + insn.off - BASES[region]) & _U64
            if offset + size > length:
                continue
            if region is Region.SCRATCH:
                self.wrote = self.wrote or kind is not Kind.LOAD
                if kind is not Kind.STORE:
                    key = Input(From.SCRATCH, self.slot, 0, size)
                    value = _low(self.inputs.get(key, 0), size)
                    self.scratch[offset : offset + size] = value.to_bytes(size, "little")
                    self.taken.setdefault(key, Taken(value, offset))
            elif kind is Kind.LOAD:
                self._take_exit(offset, size)
            return

    def _take_exit(self, offset: int, size: int) -> None:
        field = self.context.layout.at(offset)
        fixed = all(known.least == known.most for known in self.context.initial[field.name])
        if not fixed or len(self.context.initial[field.name]) > 1:
            value = int.from_bytes(self.at_entry[offset : offset + size], "little")
            self.taken.setdefault(Input(From.EXIT, -1, offset, size), Taken(value, offset))

    def _clock(self) -> int:
        key = Input(From.CLOCK, self.slot, 0, 8)
        value = self.inputs.get(key, 0)
        self.taken.setdefault(key, Taken(value, 0))
        return value

    def _note(self, state: interpreter.State) -> None:
        """Everything that the rest of the run depends on: inputs are the same each time."""
        stacks = tuple(
            (bytes(memory.view), bytes(memory.written or b""))
            for memory in state.memory.values()
            if memory.region is Region.STACK
        )
        now = (tuple(state.registers), tuple(state.frames), stacks, bytes(self.exit))
        if now in self.seen:
            raise _Stop("comes back to this loop with everything as it was, again and again")
        self.seen.add(now)

    def _wrong_end(self, r0: int) -> str | None:
        match self.failure.fault.code:
            case errors.UNCLEAN_DECLINE if self.wrote and r0 == abi.Verdict.DECLINE:
                return "writes scratch, then declines"
            case errors.BAD_VERDICT if r0 not in tuple(abi.Verdict):
                return f"returns {_number(r0)}"
        return None

    def _deed(self, fault: interpreter.Fault) -> str:
        insn = self.insns[fault.slot]
        verb = "reads" if insn.spec.kind is Kind.LOAD else "writes"
        match fault.kind:
            case FaultKind.STEP_LIMIT:
                return f"is still running after {self.failure.setting.policy.instructions:,} instructions"
            case FaultKind.UNINITIALISED if insn.spec.kind is Kind.EXIT:
                return "returns without having set `r0`"
            case FaultKind.UNINITIALISED if fault.address is None:
                return "reads a register that nothing has set"
            case FaultKind.UNINITIALISED:
                return f"reads {self._place(fault.address or 0, insn)}, which nothing has set"
            case FaultKind.READ_ONLY:
                return f"writes {self._place(fault.address or 0, insn)}"
        return f"{verb} {self._place(fault.address or 0, insn)}"

    def _place(self, address: int, insn: Insn) -> str:
        """An address as an offset in the region that the verifier took it for."""
        base = insn.src if insn.spec.kind is Kind.LOAD else insn.dst
        pointer = self.failure.last.registers[base]
        size = insn.spec.bytes
        if not isinstance(pointer, Pointer):
            return f"address {address:#x}"
        if pointer.region is Region.STACK:
            top = BASES[Region.STACK] + (pointer.frame << 40) + STACK_BYTES
            return f"{_bytes(address - top, size)} from `r10`"
        extent = {
            Region.EXIT: self.context.size,
            Region.SCRATCH: len(self.scratch),
            Region.RODATA: len(self.failure.setting.rodata),
        }[pointer.region]
        name = {Region.EXIT: "the exit", Region.SCRATCH: "scratch"}.get(pointer.region, "read-only data")
        return f"{_bytes(_signed(address - BASES[pointer.region]), size)} of {name}, which has {extent} bytes"


def _bytes(offset: int, size: int) -> str:
    return f"byte {offset}" if size == 1 else f"bytes {offset} to {offset + size - 1}"


def _low(value: int, size: int) -> int:
    return value & (1 << 8 * size) - 1


def _signed(number: int) -> int:
    number &= _U64
    return number - (number >> 63 << 64)


def _leak(insn: Insn) -> str:
    return "returns an address" if insn.spec.kind is Kind.EXIT else "stores an address"


def _exit(binding: abi.Binding, context: Context, inputs: Mapping[Input, int]) -> bytearray:
    """The context with the inputs in it, changed where the machine could not have made it so."""
    content = bytearray(context.size)
    for each in sorted((each for each in inputs if each.origin is From.EXIT), key=lambda each: -each.size):
        content[each.offset : each.offset + each.size] = _low(inputs[each], each.size).to_bytes(
            each.size, "little"
        )
    for field in context.layout.fields:
        known = context.initial[field.name]
        if known == ANYTHING:
            continue
        for start in range(field.offset, field.end, field.size):
            element = slice(start, start + field.size)
            value = _nearest(int.from_bytes(content[element], "little"), known)
            content[element] = value.to_bytes(field.size, "little")
    if isinstance(binding, abi.AccessBinding) and context.verdict:
        _settle(binding, content)
    return content


def _nearest(value: int, known: tuple[Known, ...]) -> int:
    """The value, if it is one of those that are known to be possible; otherwise one that it decides."""
    if any(each.least <= value <= each.most and not (value - each.least) % each.step for each in known):
        return value
    choice = known[value % len(known)]
    offset = (value - choice.least) % (choice.most - choice.least + 1)
    return choice.least + offset // choice.step * choice.step


def _settle(binding: abi.AccessBinding, content: bytearray) -> None:
    """An access is aligned within its binding, and its value has no more bytes than it."""

    def get(name: str) -> int:
        field = abi.EXIT_FIELDS[name]
        return int.from_bytes(content[field.offset : field.end], "little")

    def put(name: str, value: int) -> None:
        field = abi.EXIT_FIELDS[name]
        content[field.offset : field.end] = value.to_bytes(field.size, "little")

    size = get("size")
    put("offset", get("offset") - (get("offset") - binding.lo) % size)
    put("value", get("value") & (1 << 8 * size) - 1)


def _hints(failure: Failure) -> Iterator[tuple[Input, Word]]:
    """What the path still admits of each input: the value of the register it was loaded to, when it was last
    seen there."""
    points, insns = failure.points, failure.shape.insns
    for index, point in enumerate(points[:-1]):
        insn = insns[point.slot]
        if insn.spec.kind is Kind.LOAD:
            address = point.registers[insn.src]
            if not isinstance(address, Pointer):
                continue
            register, size = insn.dst, insn.spec.bytes
            if address.region is Region.SCRATCH:
                each = Input(From.SCRATCH, point.slot, 0, size)
            elif address.region is Region.EXIT and address.offset.constant is not None:
                each = Input(From.EXIT, -1, (address.offset.constant + insn.off) & _U64, size)
            else:
                continue
        elif insn.spec.kind is Kind.CALL and insn.target(point.slot) is None:
            register, each = 0, Input(From.CLOCK, point.slot, 0, 8)
        else:
            continue
        word = _last_seen(failure, index + 1, register)
        if word is not None:
            yield each, word


def _last_seen(failure: Failure, index: int, register: int) -> Word | None:
    points = failure.points
    word = points[index].registers[register]
    frame = points[index].frame
    for each in points[index:]:
        if each.frame != frame:
            break
        value = each.registers[register]
        if not (is_word(value) and is_word(word) and word.includes(value)):
            break
        word = value
    return word if is_word(word) else None


def _constants(failure: Failure) -> list[int]:
    """Numbers at which programs tend to change their mind: their own constants, sizes, powers of two."""
    numbers = {0, 1, failure.setting.scratch_size, len(failure.setting.rodata), _U64}
    numbers |= {1 << bit for bit in range(64)}
    numbers |= {
        insn.imm
        for insn in failure.shape.insns.values()
        if insn.spec.kind in (Kind.JUMP, Kind.ALU, Kind.LDDW)
    }
    return sorted({(number + delta) & _U64 for number in numbers for delta in (-1, 0, 1)})
